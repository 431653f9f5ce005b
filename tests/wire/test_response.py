"""A response's body is parsed once, whoever reads it and whatever it holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from seedance_avatar.assets.messages import read_asset, read_group
from seedance_avatar.errors import ApiError, AvatarError, ProtocolError
from seedance_avatar.videos.messages import read_video
from seedance_avatar.wire import response as response_module
from seedance_avatar.wire.response import Response

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
