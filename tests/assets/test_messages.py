from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.assets.messages import PREFIX, asset_query, asset_request, check_source, group_request
from seedance_avatar.errors import InvalidInput, InvalidSource
from seedance_avatar.models import AssetSource
from seedance_avatar.wire.public_urls import judge_url
from seedance_avatar.wire.refusals import is_id
from seedance_avatar.wire.request import check_key, normalize_base

URL = "https://cdn.example.com/a.jpg"
anything = st.text(st.characters(exclude_categories=[]))
visible = st.characters(categories=["L", "M", "N", "P", "S"])  # all that a URL may hold


def test_a_group_is_created_by_name() -> None:
    request = group_request("brand-avatar-group")
    assert (request.lane, request.method, request.repeatable) == ("submit", "POST", False)
    assert request.path == "/v1/videos/doubao-seedance-2-0/private-avatar/groups"
    assert request.body == b'{"name":"brand-avatar-group"}'
    assert request.about == "group brand-avatar-group"


def test_a_group_may_be_described() -> None:
    body = group_request("主角", "the heroine\nof the brand").body
    assert body is not None
    assert json.loads(body) == {"name": "主角", "description": "the heroine\nof the brand"}


@pytest.mark.parametrize(
    ("name", "description", "words"),
    [
        ("", None, "a group needs a name"),
        (None, None, "a group needs a name"),
        ("x" * 65, None, "its name has 65 characters, more than 64"),
        (7, None, "its name is of type int, not a text"),
        ("\ud800", None, "its name holds broken characters"),
        ("x", "y" * 301, "its description has 301 characters, more than 300"),
        ("x", b"y", "its description is of type bytes, not a text"),
    ],
)
def test_a_group_that_would_be_refused_is_refused_here(name: Any, description: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        group_request(name, description)


def test_an_asset_is_submitted_with_what_is_known_of_it() -> None:
    source = AssetSource.video(URL, name="front", description="from the front", key="row 7")
    request = asset_request(source, "pg_1")
    assert (request.lane, request.method, request.repeatable) == ("submit", "POST", False)
    assert request.path == f"{PREFIX}/assets"
    assert request.body is not None
    assert json.loads(request.body) == {
        "group_id": "pg_1",
        "asset_type": "video",
        "source_url": URL,
        "name": "front",
        "description": "from the front",
    }
    assert request.about == "row 7 (https://cdn.example.com/a.jpg)"


def test_what_is_not_given_is_not_sent() -> None:
    body = asset_request(AssetSource(URL), "pg_1").body
    assert body == b'{"group_id":"pg_1","asset_type":"image","source_url":"https://cdn.example.com/a.jpg"}'


@given(st.text(visible, max_size=500))
def test_an_accepted_url_reaches_the_wire_byte_for_byte(tail: str) -> None:
    url = f"https://cdn.example.com/{tail}"
    assert judge_url(url) is None
    body = asset_request(AssetSource(url), "pg_1").body
    assert body is not None
    assert json.loads(body)["source_url"] == url
    plain = url.replace("\\", "\\\\").replace('"', '\\"')
    assert plain.encode() in body


@pytest.mark.parametrize(
    "url",
    [
        "https://b.s3.amazonaws.com/a%20b+c.jpg?X-Amz-Signature=ab%2Fcd%3D&X-Amz-Credential=k/2026/s3&x=%zz",
        "https://cdn.example.com/ü/图.jpg?q=ñ",
        "https://cdn.example.com/a//b/../c.jpg?&&=#frag",
        "HTTPS://CDN.EXAMPLE.COM/A.JPG",
    ],
)
def test_a_signed_url_is_not_rewritten(url: str) -> None:
    body = asset_request(AssetSource(url), "pg_1").body
    assert body is not None
    assert f'"source_url":"{url}"'.encode() in body


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            AssetSource("http://localhost/a.jpg?sig=S3CRET"),
            "the service cannot fetch this URL: its host ends in localhost",
        ),
        (AssetSource(""), "it is empty"),
        (AssetSource(None), "of type NoneType"),  # type: ignore[arg-type]  # a wrong type, on purpose
        (AssetSource(URL, "picture"), "its asset_type is picture, not one of image, video, audio"),  # type: ignore[arg-type]  # a wrong type, on purpose
        (AssetSource(URL, "Image"), "its asset_type is Image"),  # type: ignore[arg-type]  # a wrong type, on purpose
        (AssetSource(URL, ["image"]), "its asset_type is"),  # type: ignore[arg-type]  # a wrong type, on purpose
        (AssetSource(URL, None), "its asset_type is None"),  # type: ignore[arg-type]  # a wrong type, on purpose
        (AssetSource(URL, name="x" * 65), "its name has 65 characters"),
        (AssetSource(URL, name=5), "its name is of type int"),  # type: ignore[arg-type]  # a wrong type, on purpose
        (AssetSource(URL, name="\udfff"), "its name holds broken characters"),
        (AssetSource(URL, description="x" * 301), "its description has 301 characters"),
        (AssetSource(URL, description={}), "its description is of type dict"),  # type: ignore[arg-type]  # a wrong type, on purpose
        (AssetSource(URL, key=7), "its key is of type int"),  # type: ignore[arg-type]  # a wrong type, on purpose
        (AssetSource(URL, key="\ud800"), "its key holds broken characters"),
        (URL, "a source is of type str: make it one with AssetSource"),
    ],
)
def test_a_source_that_would_be_refused_is_refused_here_with_the_reason(source: Any, words: str) -> None:
    with pytest.raises(InvalidSource, match=words) as caught:
        check_source(source)
    assert "S3CRET" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_refusal_names_its_source() -> None:
    with pytest.raises(InvalidSource) as caught:
        check_source(AssetSource("ftp://cdn.example.com/a.jpg?sig=S3CRET", key="row 7"))
    assert str(caught.value) == (
        "row 7 (ftp://cdn.example.com/a.jpg?…): "
        "the service cannot fetch this URL: its scheme is ftp: only http and https URLs can be fetched"
    )


def test_texts_up_to_their_limits_and_of_any_script_are_sent() -> None:
    check_source(AssetSource(URL, name="图" * 64, description="\n" * 300, key="k" * 10_000))


def test_a_gateway_beside_private_hosts_may_be_given_their_urls() -> None:
    source = AssetSource("http://192.168.1.7/a.jpg")
    with pytest.raises(InvalidSource, match="not a public address"):
        check_source(source)
    check_source(source, allow_private=True)


def test_an_asset_is_asked_for_by_its_id() -> None:
    request = asset_query("pa_01HZXW8K3Q2N4M5P6R7S8T9V0W")
    assert (request.lane, request.method, request.body, request.repeatable) == ("query", "GET", None, True)
    assert request.path == f"{PREFIX}/assets/pa_01HZXW8K3Q2N4M5P6R7S8T9V0W"
    assert request.about == "pa_01HZXW8K3Q2N4M5P6R7S8T9V0W"


GOOD_IDS = ["pa_01HZXW8K3Q2N4M5P6R7S8T9V0W", "asset-1718000000-abcd", "7", "a.b:c", "x" * 128]
BAD_IDS = [
    "",
    "../../admin",
    "..",
    ".hidden",
    "-x",
    "a/b",
    "a b",
    "a\n",
    "a?b",
    "a%2Fb",
    "é",
    "x" * 129,
    None,
    7,
    True,
    b"pa_1",
]


@pytest.mark.parametrize("some_id", GOOD_IDS)
def test_usable_ids(some_id: str) -> None:
    assert is_id(some_id)
    assert asset_query(some_id).path.endswith(f"/{some_id}")


@pytest.mark.parametrize("some_id", BAD_IDS)
def test_an_id_that_would_change_the_path_goes_nowhere(some_id: Any) -> None:
    assert not is_id(some_id)
    with pytest.raises(InvalidInput, match="is not an asset id"):
        asset_query(some_id)
    with pytest.raises(InvalidInput, match="is not a group id"):
        asset_request(AssetSource(URL), some_id)


def test_a_request_shows_neither_url_query_nor_body() -> None:
    request = asset_request(AssetSource(f"{URL}?sig=S3CRET"), "pg_1")
    assert "S3CRET" not in f"{request!r} {request.about}"


@pytest.mark.parametrize(
    ("base", "normal"),
    [
        ("https://toapis.com", "https://toapis.com"),
        ("https://toapis.com/", "https://toapis.com"),
        ("https://toapis.com/v1", "https://toapis.com"),
        ("https://toapis.com/v1/", "https://toapis.com"),
        ("https://toapis.com//v1//", "https://toapis.com"),
        ("https://toapis.com/v1/v1", "https://toapis.com"),
        (" HTTPS://ToAPIs.cn/v1\n", "https://toapis.cn"),
        ("https://gateway.example.com:8443/toapis/v1/", "https://gateway.example.com:8443/toapis"),
        ("https://gateway.example.com/V1x", "https://gateway.example.com/V1x"),
        ("https://8.8.8.8", "https://8.8.8.8"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080/v1", "http://localhost:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://gateway:3000/api/v1", "http://gateway:3000/api"),
        ("http://10.0.0.7", "http://10.0.0.7"),
        ("http://toapis.svc.cluster.local", "http://toapis.svc.cluster.local"),
    ],
)
def test_a_base_url_is_normalized(base: str, normal: str) -> None:
    assert normalize_base(base) == normal
    assert normalize_base(normal) == normal


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("", "write it like https://toapis.com"),
        ("toapis.com", "write it like https://toapis.com"),
        ("ftp://toapis.com", "write it like"),
        ("https://", "write it like"),
        ("https://toapis.com/v1?key=S3CRET", "write it like"),
        ("https://toapis.com/#S3CRET", "write it like"),
        ("https://me:S3CRET@toapis.com", "write it like"),
        ("https://to apis.com", "write it like"),
        ("https://toapis.com\r\nX: y", "write it like"),
        ("https://toapis.com\\v1", "write it like"),
        ("https://toapis.com/%2e%2e", "write it like"),
        (None, "write it like"),
        (7, "write it like"),
        (b"https://toapis.com", "write it like"),
        ("http://toapis.com", "begin it with https://"),
        ("http://8.8.8.8/v1", "begin it with https://"),
        ("https://toapis.com:0", "port"),
        ("https://toapis.com:99999", "port"),
        ("https://a..b", "not a valid name"),
        ("http://2130706433", "its host is a number"),
        ("https://toapis.com/v1/videos", "end it before /v1"),
        ("https://toapis.com/../admin", "end it before /v1"),
    ],
)
def test_what_is_no_base_url_is_refused(base: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        normalize_base(base)
    assert "S3CRET" not in str(caught.value)


@given(anything)
def test_any_base_is_normalized_or_refused(text: str) -> None:
    for base in (text, f"https://{text}", f"https://toapis.com/{text}"):
        try:
            normal = normalize_base(base)
        except InvalidInput:
            continue
        assert normalize_base(normal) == normal
        _, _, path = normal.partition("://")[2].partition("/")
        assert path.rpartition("/")[2] != "v1"
        assert not normal.endswith("/")


@pytest.mark.parametrize("key", ["sk-sandbox", "sk-" + "a" * 200, "!~"])
def test_a_key_that_can_be_sent(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ["", None, 7, b"sk-CANARY"])
def test_a_missing_key_says_where_it_comes_from(key: Any) -> None:
    with pytest.raises(InvalidInput, match="TOAPIS_API_KEY") as caught:
        check_key(key)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("mark", [" ", "\n", "\r\nX-Evil: 1", "\t", "\x00", "\x7f", "é", "\u200b", "\ud800"])
def test_a_key_that_would_break_the_header_is_refused_without_showing_it(mark: str) -> None:
    for key in (f"sk-CANARY{mark}", f"{mark}sk-CANARY", f"sk-{mark}CANARY"):
        with pytest.raises(InvalidInput, match="white space or characters that no key has") as caught:
            check_key(key)
        assert "CANARY" not in f"{caught.value!s} {caught.value!r} {caught.value.args}"
