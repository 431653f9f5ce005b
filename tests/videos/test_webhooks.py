"""A webhook is believed when the service signed it, lately, with a secret of ours."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from rig.canaries import everything_of

from seedance_avatar.errors import AvatarError, InvalidInput, ProtocolError, WebhookRefused
from seedance_avatar.videos.webhooks import WebhookEvent, verify_webhook

NOW = 1_800_000_000.0
SECRET = "whsec_first"
TOLD = {
    "id": "evt_1",
    "type": "task.completed",
    "api_version": "2026-01-01",
    "created_at": 1_800_000_000,
    "data": {
        "task_id": "tsk_1",
        "client_business_id": "order-7",
        "status": "SUCCESS",
        "progress": "100%",
        "result": {"data": [{"url": "https://files.example.com/v.mp4", "format": "mp4"}]},
    },
}
BODY = json.dumps(TOLD).encode()


def signature(secret: str, body: bytes = BODY, event_id: str = "evt_1", timestamp: str = "1800000000") -> str:
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    return f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def headers(signatures: str, event_id: str = "evt_1", timestamp: str = "1800000000") -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "X-ToAPIs-Webhook-Id": event_id,
        "X-ToAPIs-Webhook-Timestamp": timestamp,
        "X-ToAPIs-Webhook-Signature": signatures,
    }


def verify(signatures: str = signature(SECRET), body: bytes = BODY, **options: Any) -> WebhookEvent:
    return verify_webhook(headers(signatures), body, options.pop("secrets", SECRET), **{"now": NOW, **options})


def test_a_genuine_webhook_gives_the_task_that_polling_gives() -> None:
    event = verify()
    assert (event.event_id, event.event_type, event.sent_at) == ("evt_1", "task.completed", NOW)
    task = event.task
    assert task is not None
    assert (task.task_id, task.client_business_id, task.status, task.progress) == ("tsk_1", "order-7", "success", 100.0)
    assert (task.is_completed, task.url) == (True, "https://files.example.com/v.mp4")
    assert event.raw["api_version"] == "2026-01-01"


def test_a_failure_tells_its_reason() -> None:
    told = {"id": "evt_1", "data": {"task_id": "tsk_1", "status": "FAILURE", "error": {"message": "too dark"}}}
    body = json.dumps(told).encode()
    event = verify(signature(SECRET, body), body)
    assert event.task is not None
    assert (event.task.is_failed, event.task.reason, event.event_type) == (True, "too dark", None)


def test_headers_are_found_in_any_case_and_any_mapping() -> None:
    for given_headers in (
        {name.lower(): value for name, value in headers(signature(SECRET)).items()},
        {name.upper(): value for name, value in headers(signature(SECRET)).items()},
        CIMultiDict(headers(signature(SECRET))),
    ):
        assert verify_webhook(given_headers, BODY, SECRET, now=NOW).event_id == "evt_1"


def test_while_a_secret_is_replaced_both_are_good_on_either_side() -> None:
    assert verify(signature("whsec_old"), secrets=["whsec_new", "whsec_old"]).event_id == "evt_1"
    assert verify(f"{signature('whsec_new')}, {signature('whsec_old')}", secrets=["whsec_old"]).event_id == "evt_1"
    assert verify(f"v2=abc,{signature(SECRET)},v1=").event_id == "evt_1"
    assert verify(signature(SECRET).upper().replace("V1=", "v1=")).event_id == "evt_1"
    with pytest.raises(WebhookRefused, match="no secret made its signature"):
        verify(signature("whsec_older"), secrets=["whsec_new", "whsec_old"])


@pytest.mark.parametrize(
    "signatures",
    ["", "v1=", signature("other"), signature(SECRET).removeprefix("v1="), "v1=" + "é" * 64, "v1=" + "0" * 64],
)
def test_what_is_not_signed_by_us_is_refused(signatures: str) -> None:
    with pytest.raises(WebhookRefused, match="no secret made its signature"):
        verify(signatures)


def test_what_was_signed_cannot_be_changed() -> None:
    with pytest.raises(WebhookRefused):
        verify(body=BODY.replace(b"SUCCESS", b"FAILURE"))
    for changed in ({"event_id": "evt_2"}, {"timestamp": "1800000001"}):
        with pytest.raises(WebhookRefused):
            verify_webhook(headers(signature(SECRET), **changed), BODY, SECRET, now=NOW)


@pytest.mark.parametrize("off", [-301, 301, -86_400])
def test_what_is_stale_or_from_the_future_is_refused(off: int) -> None:
    with pytest.raises(WebhookRefused, match="more than 300 seconds from now"):
        verify(now=NOW - off)
    assert verify(now=NOW - off, tolerance=abs(off)).event_id == "evt_1"


@pytest.mark.parametrize("timestamp", ["", "soon", "inf", "nan", "-1", "1e9", "١٨", "2026-11-22T10:00:00Z"])
def test_a_time_that_is_none_is_refused_even_when_it_was_signed(timestamp: str) -> None:
    signed = headers(signature(SECRET, timestamp=timestamp), timestamp=timestamp)
    with pytest.raises(WebhookRefused):
        verify_webhook(signed, BODY, SECRET, now=NOW)


@pytest.mark.parametrize("name", ["Id", "Timestamp", "Signature"])
def test_a_header_that_is_missing_or_ambiguous_is_named(name: str) -> None:
    header = f"X-ToAPIs-Webhook-{name}"
    without = headers(signature(SECRET))
    del without[header]
    with pytest.raises(WebhookRefused, match=f"{header.lower()} is missing"):
        verify_webhook(without, BODY, SECRET, now=NOW)
    twice = CIMultiDict(headers(signature(SECRET)))
    twice.add(header, "another")
    with pytest.raises(WebhookRefused, match=f"{header.lower()} is given twice"):
        verify_webhook(twice, BODY, SECRET, now=NOW)


@pytest.mark.parametrize("secrets", ["", [], [""], ["good", ""]])
def test_no_secret_is_no_check(secrets: Any) -> None:
    with pytest.raises(InvalidInput, match="at least one signing secret"):
        verify(secrets=secrets)


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b'{"data": null}', b'{"data": {"status": "SUCCESS"}}', b"\xff"]
)
def test_a_genuine_webhook_about_nothing_is_told_apart(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="signature is valid, but its body names no task"):
        verify(signature(SECRET, body), body)


def test_a_replay_is_told_by_its_id() -> None:
    assert verify().event_id == verify(now=NOW + 200).event_id


@given(name=st.text(max_size=20), value=st.text(max_size=80), body=st.binary(max_size=80))
def test_whatever_arrives_only_refusals_leave(name: str, value: str, body: bytes) -> None:
    arrived = headers(value) | {name: value}
    with pytest.raises(WebhookRefused):
        verify_webhook(arrived, body, SECRET, now=NOW)


def pairs() -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers(signature(SECRET)).items()]


@pytest.mark.parametrize(
    ("given_headers", "body", "secrets"),
    [
        (headers(signature(SECRET)), BODY.decode(), SECRET),
        (headers(signature(SECRET)), bytearray(BODY), SECRET.encode()),
        (headers(signature(SECRET)), memoryview(BODY), [b"other", SECRET]),
        (pairs(), BODY, (it for it in [SECRET])),  # ASGI
        (tuple(headers(signature(SECRET)).items()), BODY, {SECRET}),
        ({name: [value] for name, value in headers(signature(SECRET)).items()}, BODY, SECRET),  # an AWS Lambda
        (dict(pairs()), BODY, SECRET),
        ({name: f" {value} " for name, value in headers(signature(SECRET)).items()}, BODY, SECRET),
    ],
)
def test_what_frameworks_hand_over_is_taken(given_headers: Any, body: Any, secrets: Any) -> None:
    assert verify_webhook(given_headers, body, secrets, now=NOW).event_id == "evt_1"


@pytest.mark.parametrize("body", [None, 7, {"id": "evt_1"}, ["x"], object()])
def test_a_body_that_was_parsed_is_refused(body: Any) -> None:
    with pytest.raises(InvalidInput, match="as they arrived"):
        verify(body=body)


@pytest.mark.parametrize("given_headers", [None, 7, "x", b"x", object(), ["ab", "c"], [("a",)], [("a", "b", "c")]])
def test_headers_that_are_none_are_refused(given_headers: Any) -> None:
    with pytest.raises((InvalidInput, WebhookRefused)):
        verify_webhook(given_headers, BODY, SECRET, now=NOW)


@pytest.mark.parametrize("value", [None, 7, 1.5, [None], {"a": 1}, object()])
def test_a_header_whose_value_is_no_text_is_refused(value: Any) -> None:
    arrived: Any = headers(signature(SECRET)) | {"X-ToAPIs-Webhook-Id": value}
    with pytest.raises((InvalidInput, WebhookRefused)):
        verify_webhook(arrived, BODY, SECRET, now=NOW)


@pytest.mark.parametrize("secrets", [None, 7, [7], b"", [b""], [SECRET, None], object(), bytearray(b"x")])
def test_a_secret_that_is_none_is_refused(secrets: Any) -> None:
    with pytest.raises(InvalidInput, match="at least one signing secret"):
        verify(secrets=secrets)


@pytest.mark.parametrize("option", ["now", "tolerance"])
@pytest.mark.parametrize("value", [None, "300", math.nan, math.inf, True])
def test_a_time_that_is_no_number_is_refused(option: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{option} must be a number of seconds"):
        verify(**{option: value})


@pytest.mark.parametrize(
    ("body", "secrets"),
    [(BODY + b" ", "whsec_canary"), ({}, "whsec_canary"), (BODY, ["whsec_canary", ""]), (BODY, {"whsec_canary": 1})],
)
def test_no_error_shows_the_secret(body: Any, secrets: Any) -> None:
    with pytest.raises(AvatarError) as caught:
        verify(body=body, secrets=secrets)
    assert "whsec_canary" not in everything_of(caught.value)


@pytest.mark.parametrize(
    ("event", "kind", "has_task"),
    [
        ({"type": "generation.completed", "data": {"task_id": "t", "status": "SUCCESS"}}, "completed", True),
        ({"type": "generation.failed", "data": {"task_id": "t", "status": "FAILURE"}}, "failed", True),
        (
            {"type": "generation.completed", "data": {"task_id": "t", "task_type": "video", "status": "SUCCESS"}},
            "completed",
            True,
        ),
        (
            {"type": "generation.completed", "data": {"task_id": "t", "task_type": "image", "status": "SUCCESS"}},
            "other",
            False,
        ),
        ({"type": "endpoint.test", "data": {}}, "test", False),
        ({"type": "endpoint.test"}, "test", False),
        ({"type": "endpoint.test", "data": {"task_id": "t", "status": "SUCCESS"}}, "test", False),
        ({"type": "account.low_balance", "data": {"balance": 1}}, "other", False),
    ],
)
def test_what_the_event_is_about_is_told(event: dict[str, Any], kind: str, *, has_task: bool) -> None:
    body = json.dumps({"id": "evt_1", **event}).encode()
    found = verify(signature(SECRET, body), body)
    assert (found.kind, found.task is not None) == (kind, has_task)
