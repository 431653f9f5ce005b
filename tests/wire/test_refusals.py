"""Reading responses: every shape of a success and of an error, and anything at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from seedance_avatar.assets.messages import read_asset, read_group
from seedance_avatar.errors import (
    ApiError,
    AuthError,
    AvatarError,
    ContentRefused,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
)
from seedance_avatar.models import Asset, AssetGroup, AssetSource
from seedance_avatar.wire.refusals import find_error, find_reason, read_object
from seedance_avatar.wire.response import Response, read_head

URL = "https://cdn.example.com/a.jpg?sig=S3CRET"
ULID = "pa_01HZXW8K3Q2N4M5P6R7S8T9V0W"


def answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return the answer of ``body``: bytes and text as they are, anything else as JSON."""
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return read_head(status, CIMultiDict(headers or {}), body)


def wrapped(**data: object) -> dict[str, object]:
    return {"success": True, "message": "", "data": data}


# Models


def test_an_asset_is_read_from_its_envelope() -> None:
    source = AssetSource.image(URL)
    data = {
        "asset_id": ULID,
        "asset_url": f"asset://{ULID}",
        "group_id": "pg_1",
        "asset_type": "image",
        "source_url": "https://files.toapis.com/copy.jpg",
        "status": "processing",
        "name": "front",
    }
    asset = read_asset(answer(wrapped(**data)), source=source)
    assert asset == Asset(
        asset_id=ULID,
        group_id="pg_1",
        asset_type="image",
        source_url="https://files.toapis.com/copy.jpg",
        status="processing",
        name="front",
        source=source,
    )
    assert asset.source is source
    assert asset.raw == data


@pytest.mark.parametrize("asset_id", [ULID, "asset-1718000000-abcd", "7"])
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_an_asset_may_be_bare_or_wrapped(asset_id: str, levels: int) -> None:
    body: dict[str, object] = {"asset_id": asset_id, "status": "active"}
    for _ in range(levels):
        body = {"data": body}
    assert read_asset(answer(body, 201)).is_active


@pytest.mark.parametrize(
    ("status", "read"),
    [
        ("processing", "processing"),
        ("Active", "active"),
        (" FAILED ", "failed"),
        ("Reviewing", "reviewing"),
        ("", "processing"),
        (None, "processing"),
        (7, "processing"),
        (["active"], "processing"),
        ({"active": True}, "processing"),
    ],
)
def test_status_words(status: object, read: str) -> None:
    asset = read_asset(answer(wrapped(asset_id="pa_1", status=status)))
    assert asset.status == read
    assert asset.is_terminal == (read in {"active", "failed"})


def test_an_id_alone_is_an_accepted_asset() -> None:
    assert read_asset(answer(wrapped(asset_id="pa_1"))) == Asset(asset_id="pa_1")


@pytest.mark.parametrize("wrong", [None, 7, 1.5, True, [], {}, ["x"]])
def test_a_field_of_a_wrong_type_is_none_and_costs_no_id(wrong: object) -> None:
    fields = dict.fromkeys(
        ("group_id", "asset_type", "source_url", "name", "reason", "source", "raw", "message"), wrong
    )
    assert read_asset(answer(wrapped(asset_id="pa_1", **fields))) == Asset(asset_id="pa_1")


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"asset_id":"pa_1"}',
        b'{"asset_id":"pa_1","score":NaN,"size":-Infinity,"ratio":1e999}',
        b'{"asset_id":"pa_1","name":["\\ud800"]}',
        b'{"asset_id":"pa_1","name":["\\uDFFF"]}',
        b'{"asset_id":"pa_1","message":"\xb3\xc9\xb9\xa6"}',
        b'{"asset_id":"pa_1","asset_id":"pa_1"}',
        b' \r\n{"asset_id":"pa_1"}\n',
        b'{"success":false,"message":"busy","data":{"asset_id":"pa_1"}}',
        b'{"error":"x","asset_id":"pa_1"}',
        b'{"asset_id":"../x","data":{"asset_id":"pa_1"}}',
    ],
)
def test_whatever_stands_beside_it_a_usable_id_is_not_lost(body: bytes) -> None:
    asset = read_asset(answer(body))
    assert asset == Asset(asset_id="pa_1")
    json.dumps(asset.raw, ensure_ascii=False, allow_nan=False).encode()


def test_broken_characters_are_replaced() -> None:
    assert read_asset(answer(b'{"asset_id":"pa_1","name":"a\\ud800b \\ud83d\\ude00"}')).name == "a?b 😀"


def test_a_group_is_read() -> None:
    data = {"group_id": "pg_1", "name": "brand", "description": None, "created": 1}
    group = read_group(answer(wrapped(**data)))
    assert group == AssetGroup(group_id="pg_1", name="brand")
    assert group.raw == data
    assert read_group(answer({"group_id": "pg_1", "name": 7})) == AssetGroup(group_id="pg_1")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"reason": "no face"}, "no face"),
        ({"message": "no face"}, "no face"),
        ({"fail_reason": "no face"}, "no face"),
        ({"error": "no face"}, "no face"),
        ({"error": {"code": "E7", "message": "no face"}}, "no face (E7)"),
        ({"error": {"code": 7}}, "7"),
        ({"detail": "no face"}, "no face"),
        ({"detail": ["no face", "blurred"]}, "no face; blurred"),
        ({"reason": "", "message": None, "error": {}, "detail": "no face"}, "no face"),
        ({"message": "failed", "error": {"message": "no face"}}, "no face"),
        ({"reason": '{"error":{"message":"{\\"message\\":\\"no face\\"}"}}'}, "no face"),
        ({"reason": "no \x1b[31mface\n"}, r"no \x1b[31mface"),
        ({"reason": f"cannot fetch {URL}"}, "cannot fetch https://cdn.example.com/a.jpg?…"),
        ({"reason": 7}, None),
        ({"message": "success"}, None),
        ({}, None),
    ],
)
def test_why_an_asset_failed(fields: dict[str, object], reason: str | None) -> None:
    assert read_asset(answer(wrapped(asset_id="pa_1", status="failed", **fields))).reason == reason
    assert read_asset(answer(wrapped(asset_id="pa_1", status="processing", **fields))).reason is None


def test_the_reason_may_stand_in_the_envelope() -> None:
    body = {"success": True, "fail_reason": "no face", "data": {"asset_id": "pa_1", "status": "failed", "message": ""}}
    assert read_asset(answer(body)).reason == "no face"


@pytest.mark.parametrize("well", [{"success": True}, {"code": "success"}, {"code": 0}, {"code": 200}])
def test_the_message_of_an_envelope_that_reports_success_is_no_reason(well: dict[str, Any]) -> None:
    body = {**well, "message": "query ok", "data": {"asset_id": "pa_1", "status": "failed"}}
    assert read_asset(answer(body)).reason is None
    flat = {"success": True, "message": "query ok", "asset_id": "pa_1", "status": "failed"}
    assert read_asset(answer(flat)).reason is None
    own = {**well, "message": "query ok", "data": {"asset_id": "pa_1", "status": "failed", "message": "no face"}}
    assert read_asset(answer(own)).reason == "no face"


def test_an_id_may_be_called_only_id() -> None:
    asset = read_asset(answer({"success": True, "data": {"id": "pa_1", "status": "Active"}}), asked="pa_1")
    assert (asset.asset_id, asset.status) == ("pa_1", "active")
    assert read_asset(answer({"id": "pa_1"})).asset_id == "pa_1"
    assert read_asset(answer({"id": 7, "data": {"id": 8, "asset_id": "pa_1"}})).asset_id == "pa_1"
    assert read_asset(answer({"id": "req_1", "data": {"asset_id": "pa_1"}})).asset_id == "pa_1"
    assert read_group(answer({"success": True, "data": {"id": "pg_1", "name": "n"}})).group_id == "pg_1"
    with pytest.raises(ProtocolError, match="the answer is about pa_2"):
        read_asset(answer({"data": {"id": "pa_2"}}), asked="pa_1")
    with pytest.raises(ProtocolError):
        read_asset(answer({"data": {"id": 7}}))


def test_find_reason_is_for_video_tasks_too() -> None:
    assert find_reason({"id": "t_1", "status": "failed", "error": {"code": "c", "message": "m"}}) == "m (c)"


# Refusals

MONEY = ["insufficient_quota", "insufficient_user_quota", "quota_not_enough", "pre_consume_token_quota_failed"]
REFUSALS: list[tuple[int, object, type[AvatarError]]] = [
    (401, {"error": {"message": "bad key", "type": "new_api_error", "code": ""}}, AuthError),
    (401, {"error": {"message": "bad key", "code": "authentication_error"}}, AuthError),
    (401, b"", AuthError),
    (403, {"error": {"message": "no", "code": "access_denied"}}, AuthError),
    (403, {"error": {"message": "no", "code": "account_suspended"}}, AuthError),
    *[(status, {"error": {"code": "SubscriptionRequired"}}, AuthError) for status in (200, 400, 403, 404, 500)],
    (400, {"error": {"code": "x", "message": "y: " + json.dumps({"code": "SubscriptionRequired"})}}, AuthError),
    (200, {"success": False, "message": "Your API key is expired"}, AuthError),
    (400, {"success": False, "message": "the account has been suspended"}, AuthError),
    (403, {"success": False, "message": "the user's quota is not enough"}, QuotaExhausted),
    (400, {"success": False, "message": "用户余额不足"}, QuotaExhausted),
    (403, {"success": False, "message": "no"}, InvalidRequest),
    (403, b"", InvalidRequest),
    (403, {"error": {"message": "may not use model x", "type": "new_api_error", "code": ""}}, InvalidRequest),
    *[(status, "<html>Attention</html>", ProtocolError) for status in (400, 401, 403, 404, 405, 407, 410, 429)],
    *[
        (status, {"error": {"message": "x", "code": code}}, InvalidRequest)
        for status in (400, 403, 404, 500, 503)
        for code in ("model_not_found", "invalid_parameter", "InvalidParameter.SourceUrl", "missing_parameter")
    ],
    *[(s, {"error": {"code": "content_policy_violation"}}, ContentRefused) for s in (200, 400, 403, 422, 451, 500)],
    (400, {"message": "cannot fetch https://x.example/account-suspended/api-key-expired", "code": "e"}, InvalidRequest),
    (400, {"message": "the key frame interval is too long", "code": "invalid_keyframe"}, InvalidRequest),
    (400, {"message": "the account holder may contain real person", "code": "e"}, ContentRefused),
    (502, {"error": {"message": "x", "code": "invalid_response"}}, ServerError),
    (500, {"error": {"message": "insufficient balance of the load", "code": ""}}, ServerError),
    (402, b"", QuotaExhausted),
    (402, {"error": "pay"}, QuotaExhausted),
    *[(status, {"error": {"message": "x", "code": code}}, QuotaExhausted) for code in MONEY for status in (402, 403)],
    (403, {"error": {"message": "x", "code": "AccountOverdueError"}}, QuotaExhausted),
    (401, {"code": "user_balance_too_low", "message": "x", "data": None}, QuotaExhausted),
    (429, {"error": {"message": "x", "code": "insufficient_quota"}}, QuotaExhausted),
    (200, {"success": False, "message": "x", "code": "quota_not_enough"}, QuotaExhausted),
    (404, {"error": {"message": "x", "code": "task_not_found"}}, NotFound),
    (400, {"error": {"message": "x", "code": "task_not_exist"}}, NotFound),
    (404, b"", NotFound),
    (404, {"detail": "Not Found"}, NotFound),
    (422, {"error": {"message": "x", "code": "content_policy_violation"}}, ContentRefused),
    (422, b"", ContentRefused),
    (400, {"error": {"message": "x", "code": "InputImageSensitiveContentDetected.PrivacyInformation"}}, ContentRefused),
    (400, {"error": {"message": "The image may contain real person.", "code": "bad"}}, ContentRefused),
    (500, {"error": {"message": "content[1] may contain real person", "code": "fail"}}, ContentRefused),
    (429, b"", RateLimited),
    (429, {"error": {"message": "x", "code": "rate_limit_exceeded"}}, RateLimited),
    (200, {"success": False, "message": "x", "code": "rate_limit_exceeded"}, RateLimited),
    (200, {"code": 429, "message": "x", "data": None}, RateLimited),
    (503, {"error": {"message": "x", "code": "rate_limit_unavailable"}}, RateLimited),
    (503, {"error": {"message": "x", "code": "rate_limit_exceeded"}}, ServerError),
    (500, {"error": {"message": "x", "code": "rate_limit_unavailable"}}, ServerError),
    (503, b"", ServerError),
    (500, {"error": "x"}, ServerError),
    (502, "<html><title>502 Bad Gateway</title></html>", ServerError),
    (504, "<html><title>504</title></html>", ServerError),
    (524, b"", ServerError),
    (408, b"", ServerError),
    (200, {"code": "500", "message": "x", "data": None}, ServerError),
    (400, {"success": False, "message": "invalid request body"}, InvalidRequest),
    (400, b"", InvalidRequest),
    (400, "null", InvalidRequest),
    (400, "[" * 100_000, InvalidRequest),
    (409, {"code": "x", "message": "y", "data": None}, InvalidRequest),
    (413, "<html>", InvalidRequest),
    (400, {"success": True, "data": {"asset_id": "pa_1"}}, InvalidRequest),
    (200, {"success": False, "message": "invalid request body"}, InvalidRequest),
    (200, {"success": "false"}, InvalidRequest),
    (200, {"success": False, "data": {"asset_id": None}}, InvalidRequest),
    (200, {"error": "x"}, InvalidRequest),
    (200, {"error": {"message": "x"}}, InvalidRequest),
    (200, {"code": "x", "message": "y", "data": None}, InvalidRequest),
    (200, {"detail": [{"loc": ["body"], "msg": "x", "type": "missing"}]}, InvalidRequest),
    (200, b"", ProtocolError),
    (204, b"", ProtocolError),
    (200, " \n", ProtocolError),
    (200, "null", ProtocolError),
    (200, "[]", ProtocolError),
    (200, '"pa_1"', ProtocolError),
    (200, '{"asset_id":"pa_1"', ProtocolError),
    (200, b"\xff\xfe{\x00}\x00", ProtocolError),
    (200, "<html>fine</html>", ProtocolError),
    (200, "[" * 100_000, ProtocolError),
    (200, '{"a":' * 100_000, ProtocolError),
    (200, '{"asset_id":"pa_1","n":' + "9" * 5000 + "}", ProtocolError),
    (200, {}, ProtocolError),
    (200, {"success": True, "message": "ok", "data": None}, ProtocolError),
    (200, {"success": True, "error": "but", "data": {}}, ProtocolError),
    (200, {"code": 0, "message": "ok", "data": None}, ProtocolError),
    (200, {"code": "success", "message": "", "data": {}}, ProtocolError),
    (200, {"group_id": "pg_1"}, ProtocolError),
    (100, b"", ProtocolError),
    (304, b"", ProtocolError),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSALS, ids=lambda it: str(it)[:60])
def test_each_refusal_is_its_own_error(status: int, body: object, kind: type[AvatarError]) -> None:
    with pytest.raises(AvatarError) as caught:
        read_asset(answer(body, status), about="row 7")
    error = caught.value
    assert type(error) is kind
    assert error.about == "row 7"
    assert str(error).startswith("row 7: HTTP ")
    assert str(error).isprintable()
    assert isinstance(error, ApiError | ProtocolError)
    assert error.status == status
    if isinstance(error, ApiError):
        assert error.retryable == (kind in {RateLimited, ServerError})
        assert error.message


@pytest.mark.parametrize(
    "asset_id", [None, 7, True, "", "..", "../../admin", "a b", "pa_1\r\nX: y", "\x1b[2J", ["pa_1"], "x" * 129]
)
def test_an_id_that_cannot_be_used_is_no_answer(asset_id: object) -> None:
    with pytest.raises(ProtocolError, match="no usable asset_id"):
        read_asset(answer(wrapped(asset_id=asset_id, status="active")))


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"success": False, "message": "m"}, "", "m"),
        ({"error": {"message": "m", "type": "t", "code": "c"}}, "c", "m"),
        ({"error": {"message": "m", "type": "t", "code": ""}}, "t", "m"),
        ({"error": {"message": "m", "type": "t", "code": None}}, "t", "m"),
        ({"error": {"message": "m", "code": 1234}}, "1234", "m"),
        ({"error": "m"}, "", "m"),
        ({"code": "c", "message": "m", "data": None}, "c", "m"),
        ({"detail": "m"}, "", "m"),
        ({"detail": {"code": "c", "message": "m"}}, "c", "m"),
        ({"detail": [{"loc": ["body"], "msg": "m", "type": "t"}, {"msg": "n"}]}, "t", "m; n"),
        ({"Error": {"Code": "c", "Message": "m"}}, "c", "m"),
        ({"message": "outer", "error": {"code": "c", "message": "m"}}, "c", "m"),
        ({"code": "outer", "message": {"error": {"code": "c", "message": "m"}}}, "c", "m"),
        ({"code": "outer", "message": '{"error":{"code":"c","message":"m"}}'}, "c", "m"),
        ({"error": {"code": "outer", "message": 'status 400: {"error":{"code":"c","message":"m"}} (1)'}}, "c", "m"),
        ({"error": {"message": json.dumps({"error": json.dumps({"error": {"code": "c", "message": "m"}})})}}, "c", "m"),
        ({"message": "m {not json}"}, "", "m {not json}"),
        ({"message": "[400] m"}, "", "[400] m"),
        ({"success": False, "data": {"code": "c", "message": "m"}}, "c", "m"),
        (["m"], "", "m"),
        ("m", "", "m"),
        ("<html><head><title>\n m &amp; n </title></head><body>x</body></html>", "", "m & n"),
        ("\ufeff<html><title>m</title></html>", "", "m"),
        ("<html><body><h1>m</h1><p>n</p></body></html>", "", "m n"),
        ("", "", "Bad Request"),
        ("{}", "", "{}"),
        (b"caf\xe9", "", "caf\ufffd"),
    ],
)
def test_what_the_service_said_is_found(body: object, code: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_asset(answer(body, 502 if "<html>" in str(body) else 400))
    assert (caught.value.code, caught.value.message) == (code, message)


def test_the_request_id_is_taken_from_the_headers_else_from_the_message() -> None:
    body = {"error": {"message": "bad key (request id: 20261122-ab)"}}
    with pytest.raises(AuthError) as caught:
        read_asset(answer(body, 401))
    assert (caught.value.request_id, caught.value.message) == ("20261122-ab", "bad key")
    assert str(caught.value).count("20261122-ab") == 1
    with pytest.raises(AuthError) as caught:
        read_asset(answer(body, 401, {"X-Oneapi-Request-Id": "from-head"}))
    assert caught.value.request_id == "from-head"


@pytest.mark.parametrize(("status", "code"), [(429, ""), (503, "rate_limit_unavailable"), (503, ""), (500, "")])
def test_a_refusal_carries_the_wait_that_was_asked_for(status: int, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_asset(answer({"code": code, "message": "m"}, status, {"Retry-After": "7"}))
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize(
    ("location", "words"),
    [("https://evil.example/x?token=S3CRET", "https://evil.example/x"), ("/login", "/login"), (None, "nowhere")],
)
def test_a_redirect_is_told_and_not_followed(location: str | None, words: str) -> None:
    headers = {} if location is None else {"location": location}
    with pytest.raises(ProtocolError, match="redirects to") as caught:
        read_asset(answer(b"", 307, headers))
    assert words in str(caught.value)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"source_url":"{URL}","status":"proc',
        json.dumps({"source_url": URL}).replace("/", "\\/"),
        json.dumps({"data": {"source_url": URL, "asset_id": None}}),
        f"cannot fetch {URL}",
        json.dumps({"error": {"message": f"cannot fetch {URL}", "code": URL}}),
        json.dumps({"error": {"message": "Incorrect API key sk-S3CRET, in Bearer S3CRET"}}),
        "no: https%3A%2F%2Fcdn.example.com%2Fa.jpg%3Fsig%3DS3CRET",
    ],
)
@pytest.mark.parametrize("status", [200, 302, 400, 502])
def test_a_service_that_echoes_our_secrets_does_not_make_us_tell_them(text: str, status: int) -> None:
    with pytest.raises(AvatarError) as caught:
        read_asset(answer(text, status), source=AssetSource(URL))
    error = caught.value
    assert "S3CRET" not in f"{error!s} {error!r} {list(vars(error).values())}"


def test_an_error_names_its_source() -> None:
    with pytest.raises(ServerError) as caught:
        read_asset(answer(b"", 500), source=AssetSource(URL, key="row 7"))
    assert caught.value.about == "row 7 (https://cdn.example.com/a.jpg?…)"


@pytest.mark.parametrize(
    ("obj", "codes"),
    [
        ({"id": "t_1", "error": None}, None),
        ({"success": True, "error": "x"}, None),
        ({"code": 200, "message": "m"}, None),
        ("x", None),
        ({"success": False}, ()),
        ({"code": "c"}, ("c",)),
        ({"error": {"code": "outer", "error": {"code": "inner", "type": "t"}}}, ("inner", "t", "outer")),
    ],
)
def test_find_error(obj: object, codes: tuple[str, ...] | None) -> None:
    found = find_error(obj)
    assert (None if found is None else found.codes) == codes


def test_read_object_serves_other_answers_too() -> None:
    task = {"id": "task_1", "object": "generation.task", "status": "queued", "error": None}
    assert read_object(answer(task), "id") == task
    upload = {"success": True, "message": "", "data": {"url": "https://files.toapis.com/a.jpg"}}
    assert read_object(answer(upload), "url", usable=lambda it: isinstance(it, str)) == upload["data"]


# Anything at all

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "asset_id",
                    "group_id",
                    "status",
                    "error",
                    "message",
                    "code",
                    "success",
                    "detail",
                    "name",
                    "type",
                ]
            )
            | st.text(max_size=5),
            inner | st.sampled_from(["pa_1", "failed", "active", '{"error":{"message":"x"}}', False]),
            max_size=6,
        )
    ),
    max_leaves=20,
)
statuses = st.sampled_from([200, 200, 201, 302, 400, 401, 403, 404, 422, 429, 500, 503]) | st.integers(100, 599)


def assert_a_model_or_an_error(got: Response) -> None:
    for read in (read_asset, read_group):
        result: Asset | AssetGroup | AvatarError
        try:
            result = read(got)
        except (ApiError, ProtocolError) as error:
            result = error
        if isinstance(result, AvatarError):
            assert str(result).isprintable()
            assert len(str(result)) < 1000
        else:
            assert 200 <= got.status < 300
            json.dumps(result.raw, ensure_ascii=False, allow_nan=False).encode()
            assert repr(result)


@given(json_values, statuses)
def test_json_of_any_shape_is_a_model_or_an_error(value: object, status: int) -> None:
    assert_a_model_or_an_error(answer(json.dumps(value), status))


@given(st.binary() | st.text().map(str.encode), statuses)
def test_bytes_of_any_kind_are_a_model_or_an_error(body: bytes, status: int) -> None:
    assert_a_model_or_an_error(answer(body, status))


@given(st.integers(0, 200), statuses)
def test_an_answer_cut_anywhere_is_a_model_or_an_error(length: int, status: int) -> None:
    whole = json.dumps(wrapped(asset_id="pa_1", group_id="pg_1", status="active", source_url=URL)).encode()
    assert_a_model_or_an_error(answer(whole[:length], status))
    if length < len(whole):
        with pytest.raises(AvatarError):
            read_asset(answer(whole[:length]))


@pytest.mark.parametrize(
    "text", ["<title>" * 100_000, "<" * 500_000, "{" * 500_000, '{"error":"{' * 50_000, "&" * 500_000]
)
def test_a_hostile_page_costs_no_more_than_its_length(text: str) -> None:
    """Quadratic time here would be minutes: the suite's time-out is the judge."""
    for status in (200, 400):
        assert_a_model_or_an_error(answer(text, status))
        assert_a_model_or_an_error(answer({"success": False, "message": text}, status))
