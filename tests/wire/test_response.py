"""A response: its headers read without an error, and its body parsed once, whoever reads it and whatever it holds."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from seedance_avatar.assets.messages import read_asset, read_group
from seedance_avatar.errors import ApiError, AvatarError, ProtocolError
from seedance_avatar.videos.messages import read_video
from seedance_avatar.wire import response as response_module
from seedance_avatar.wire.response import RateHints, Response, read_head

Read = Callable[[Response], Any]


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[bytes | str]:
    """Every body that was parsed."""
    parsed: list[bytes | str] = []
    parse = response_module.parse_json

    def counted(body: bytes | str) -> Any:
        parsed.append(body)
        return parse(body)

    monkeypatch.setattr(response_module, "parse_json", counted)
    return parsed


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[AvatarError]:
    """Every error that was built."""
    built: list[AvatarError] = []
    build = AvatarError.__init__

    def counted(self: AvatarError, *args: Any, **kwargs: Any) -> None:
        built.append(self)
        build(self, *args, **kwargs)

    monkeypatch.setattr(AvatarError, "__init__", counted)
    return built


TASK = {"object": "generation.task", "status": "in_progress", "error": None}
FAILED_OUTSIDE = {"success": True, "message": "face not found", "data": {"asset_id": "pa_1", "status": "failed"}}


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (read_video, {"id": "t_1", **TASK}),
        (read_video, {"task_id": "t_1", **TASK}),
        (read_video, {"data": {"id": "t_1", **TASK}}),
        (read_video, {"id": "t_1", "status": "failed"}),
        (read_video, {"message": "policy", "data": {"id": "t_1", "status": "failed"}}),
        (read_asset, {"data": {"asset_id": "pa_1", "status": "active"}}),
        (read_asset, FAILED_OUTSIDE),
        (read_group, {"data": {"group_id": "pg_1", "name": "n"}}),
    ],
)
def test_a_status_is_read_with_one_parse_and_no_error(
    read: Read, body: dict[str, Any], parses: list[bytes | str], errors: list[AvatarError]
) -> None:
    read(Response(status=200, body=json.dumps(body).encode()))
    assert len(parses) == 1
    assert errors == []


@pytest.mark.parametrize("read", [read_video, read_asset, read_group])
@pytest.mark.parametrize("status", [200, 400, 404, 500])
@pytest.mark.parametrize("body", [b'{"success":false,"code":"c","message":"no"}', b"[]", b"{", b"<html>", b"\xff"])
def test_an_error_is_read_with_one_parse_and_built_once(
    read: Read, status: int, body: bytes, parses: list[bytes | str], errors: list[AvatarError]
) -> None:
    with pytest.raises((ApiError, ProtocolError)) as caught:
        read(Response(status=status, body=body))
    assert len(parses) == 1
    assert errors == [caught.value]


def test_reading_twice_parses_once(parses: list[bytes | str]) -> None:
    response = Response(status=200, body=b'{"data":{"asset_id":"pa_1"}}')
    assert read_asset(response) == read_asset(response)
    assert response.parsed is response.parsed
    assert len(parses) == 1


def test_what_was_parsed_is_no_part_of_the_value(parses: list[bytes | str]) -> None:
    read, unread = Response(status=200, body=b"[1]"), Response(status=200, body=b"[1]")
    assert read.parsed == [1]
    assert read == unread
    assert repr(read) == repr(unread)
    assert len(parses) == 1


@pytest.mark.parametrize(
    ("body", "task_id"),
    [
        ({"id": 7, "task_id": "t_1"}, "t_1"),
        ({"id": "row_7", "task_id": "t_1"}, "t_1"),
        ({"id": "row_7", "data": {"task_id": "t_1"}}, "t_1"),
        ({"id": "t_1", "data": {"task_id": None}}, "t_1"),
        ({"success": False, "id": "t_1"}, "t_1"),
        ({"data": {"data": {"id": "t_1"}}}, "t_1"),
    ],
)
def test_a_task_id_anywhere_is_preferred_to_an_id(body: dict[str, Any], task_id: str) -> None:
    assert read_video(Response(status=200, body=json.dumps(body).encode())).task_id == task_id


def answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return read_head(status, CIMultiDict(headers or {}), body if isinstance(body, bytes) else json.dumps(body).encode())


# The headers


def test_an_ordinary_head() -> None:
    got = answer(b"{}", headers={"content-type": "application/json", "x-oneapi-request-id": "2026-1"})
    assert got == Response(status=200, body=b"{}", request_id="2026-1", content_type="application/json")


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({}, None),
        ({"x-oneapi-request-id": "a", "x-request-id": "b", "cf-ray": "c"}, "a"),
        ({"x-request-id": "b", "cf-ray": "c"}, "b"),
        ({"cf-ray": "c"}, "c"),
        ({"x-oneapi-request-id": ""}, None),
        ({"x-oneapi-request-id": "\x1b[2J"}, None),
        ({"x-oneapi-request-id": "\udcff"}, None),
        ({"x-oneapi-request-id": "x" * 129}, None),
    ],
)
def test_the_request_id_stands_in_one_of_three_headers(headers: dict[str, str], request_id: str | None) -> None:
    assert answer(b"", headers=headers).request_id == request_id


NOON = "Sun, 22 Nov 2026 12:00:00 GMT"
NOON_EPOCH = 1795348800


@pytest.mark.parametrize(
    ("text", "date", "seconds"),
    [
        ("0", None, 0.0),
        ("7", None, 7.0),
        (" 7 ", None, 7.0),
        ("1.5", None, 1.5),
        ("3600", None, 3600.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", NOON, 30.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", NOON, 30.0),
        ("Sunday, 22-Nov-26 12:00:30 GMT", NOON, 30.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", None, None),
        ("Sun, 22 Nov 2026 12:00:30 GMT", "yesterday", None),
        ("Sun, 22 Nov 2026 11:59:30 GMT", NOON, None),
        ("-1", NOON, None),
        ("nan", NOON, None),
        ("inf", NOON, None),
        ("1e999", NOON, None),
        ("99999999999", NOON, None),
        ("", NOON, None),
        ("soon", NOON, None),
        ("Sun, 99 Nov 2026 12:00:30 GMT", NOON, None),
        ("Sun, 22 Nov 99999999999999999999 12:00:30 GMT", NOON, None),
        ("9" * 5000, NOON, None),
    ],
    ids=lambda it: str(it)[:40],
)
def test_retry_after(text: str, date: str | None, seconds: float | None) -> None:
    headers = {"retry-after": text} | ({} if date is None else {"date": date})
    assert answer(b"", 429, headers).hints == RateHints(retry_after=seconds)


def test_a_date_without_a_zone_is_not_taken_for_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        hints = answer(b"", 429, {"date": NOON, "retry-after": "Sun, 22 Nov 2026 12:00:30 -0000"}).hints
    time.tzset()
    assert hints.retry_after == 30.0


@pytest.mark.parametrize(
    ("text", "date", "seconds"),
    [
        ("0", None, 0.0),
        ("12", None, 12.0),
        ("0.25", None, 0.25),
        (str(NOON_EPOCH + 12), NOON, 12.0),
        (str((NOON_EPOCH + 12) * 1000), NOON, 12.0),
        (str(NOON_EPOCH - 5), NOON, 0.0),
        (str(NOON_EPOCH + 12), None, None),
        ("86400", None, 86_400.0),
        ("86401", None, None),
        ("-1", NOON, None),
        ("nan", NOON, None),
        ("1m30s", NOON, None),
    ],
)
def test_rate_limit_reset(text: str, date: str | None, seconds: float | None) -> None:
    headers = {"x-ratelimit-reset": text} | ({} if date is None else {"date": date})
    assert answer(b"", headers=headers).hints == RateHints(reset=seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("300", 300),
        ("0", 0),
        (" 60, 60;w=60", 60),
        ("60;w=60", 60),
        ("-1", None),
        ("1.5", None),
        ("\u0663", None),
        ("", None),
        ("9" * 5000, None),
    ],
    ids=lambda it: str(it)[:20],
)
def test_rate_limit_counts(text: str, count: int | None) -> None:
    got = answer(b"", headers={"X-RateLimit-Limit": text, "X-RateLimit-Remaining": text}).hints
    assert (got.limit, got.remaining) == (count, count)


@given(st.dictionaries(st.sampled_from(["retry-after", "x-ratelimit-limit", "x-ratelimit-reset", "date"]), st.text()))
def test_any_header_is_survived(headers: dict[str, str]) -> None:
    hints = answer(b"", 429, headers).hints
    for seconds in (hints.reset, hints.retry_after):
        assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
