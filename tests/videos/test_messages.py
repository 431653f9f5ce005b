"""The body of a generation exactly as the service reads it, and tasks of every vintage."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.errors import ApiError, AvatarError, InvalidInput, NotFound, ProtocolError
from seedance_avatar.models import Asset, VideoTask
from seedance_avatar.videos.messages import generation_request, read_video, video_query
from seedance_avatar.videos.request import GenerationRequest, Reference
from seedance_avatar.videos.rules import parts_of
from seedance_avatar.wire.response import Response


def body(request: GenerationRequest) -> dict[str, Any]:
    sent = generation_request(request, parts_of(request), "b-1")
    assert (sent.lane, sent.method, sent.path, sent.repeatable) == ("submit", "POST", "/v1/videos/generations", False)
    assert sent.body is not None
    told: dict[str, Any] = json.loads(sent.body)
    return told


def test_what_is_not_asked_for_is_not_sent() -> None:
    assert body(GenerationRequest("Hello")) == {"model": "seedance-2", "prompt": "Hello", "client_business_id": "b-1"}


def test_the_body_is_what_the_service_documents() -> None:
    def asset(asset_type: str) -> Asset:
        return Asset(asset_id=f"pa_{asset_type}", asset_type=asset_type, status="active")

    request = GenerationRequest(
        "Hello",
        references=[
            asset("audio"),
            asset("video"),
            asset("image"),
            Reference.image("https://e.example.com/ä.jpg?a=%2F&b=1"),
        ],
        model="seedance-2-5",
        duration=0,
        aspect_ratio="9:16",
        resolution="720p",
        generate_audio=False,
        seed=0,
        return_last_frame=True,
        callback_url="https://example.com/hook?t=1",
        tools=[{"type": "web_search"}],
        key="not sent",
    )
    assert hash(request) == hash(attrs.evolve(request))
    assert body(request) == {
        "model": "seedance-2-5",
        "prompt": "Hello",
        "client_business_id": "b-1",
        "duration": 0,
        "aspect_ratio": "9:16",
        "resolution": "720p",
        "generate_audio": False,
        "seed": 0,
        "return_last_frame": True,
        "callback_url": "https://example.com/hook?t=1",
        "tools": [{"type": "web_search"}],
        "image_with_roles": [
            {"url": "asset://pa_image", "role": "reference_image"},
            {"url": "https://e.example.com/ä.jpg?a=%2F&b=1", "role": "reference_image"},
        ],
        "video_with_roles": [{"url": "asset://pa_video", "role": "reference_video"}],
        "audio_with_roles": [{"url": "asset://pa_audio", "role": "reference_audio"}],
    }


def test_frames_go_with_the_images() -> None:
    request = GenerationRequest(
        "Hello", first_frame="https://e.example.com/1.jpg", last_frame="https://e.example.com/2.jpg"
    )
    assert body(request)["image_with_roles"] == [
        {"url": "https://e.example.com/1.jpg", "role": "first_frame"},
        {"url": "https://e.example.com/2.jpg", "role": "last_frame"},
    ]


@pytest.mark.parametrize(
    "request_", [GenerationRequest("broken \ud800"), GenerationRequest("x", tools=({"a": {1, 2}},))]
)
def test_what_is_no_json_is_refused(request_: GenerationRequest) -> None:
    with pytest.raises(InvalidInput, match="cannot be written as JSON"):
        generation_request(request_, (), "b-1")


def test_a_task_is_asked_for_by_its_id_or_the_callers() -> None:
    query = video_query("order_1:a")
    assert (query.method, query.path, query.lane, query.repeatable) == (
        "GET",
        "/v1/videos/generations/order_1:a",
        "query",
        True,
    )
    for bad in ("../../admin", "", "a/b", "a?b"):
        with pytest.raises(InvalidInput, match="is not a task id"):
            video_query(bad)


def read(told: Any, status: int = 200) -> VideoTask:
    return read_video(Response(status=status, body=json.dumps(told).encode()), about="b-1")


URL = "https://files.example.com/v.mp4?sig=s3cret"
DONE = {
    "id": "tsk_1",
    "object": "generation.task",
    "model": "seedance-2",
    "status": "completed",
    "progress": 100,
    "created_at": 1781577600,
    "completed_at": 1781577700,
    "expires_at": 1781664100,
    "client_business_id": "b-1",
    "result": {
        "type": "video",
        "data": [{"url": URL, "format": "mp4", "last_frame_url": "https://f.example.com/l.png"}],
    },
}


def test_a_completed_task_as_documented() -> None:
    task = read(DONE)
    assert task == VideoTask(
        task_id="tsk_1",
        status="completed",
        model="seedance-2",
        progress=100.0,
        url=URL,
        last_frame_url="https://f.example.com/l.png",
        created_at=1781577600.0,
        completed_at=1781577700.0,
        expires_at=1781664100.0,
        client_business_id="b-1",
    )
    assert task.raw["object"] == "generation.task"
    assert task.is_completed
    assert "s3cret" not in repr(task)


VINTAGES: list[tuple[str, dict[str, Any]]] = [
    ("an envelope", {"success": True, "message": "", "data": DONE}),
    (
        "the engine's envelope",
        {"code": "success", "message": "", "data": {"task_id": "tsk_1", "status": "SUCCESS", "result": DONE["result"]}},
    ),
    ("a row's id beside the task's", {**DONE, "id": 123, "task_id": "tsk_1"}),
    ("two ids", {**DONE, "id": "row_9", "task_id": "tsk_1"}),
    ("a result that is the object", {"id": "tsk_1", "status": "succeeded", "result": {"url": URL}}),
    (
        "the engine's metadata",
        {"id": "tsk_1", "status": "Completed ", "metadata": {"url": URL, "client_business_id": "b-1"}},
    ),
    ("the upstream's content", {"id": "tsk_1", "status": "succeeded", "content": {"video_url": URL}}),
    ("the reason's field", {"code": "success", "data": {"task_id": "tsk_1", "status": "SUCCESS", "fail_reason": URL}}),
    (
        "a result_url",
        {"code": "success", "data": {"task_id": "tsk_1", "status": "SUCCESS", "fail_reason": "", "result_url": URL}},
    ),
    (
        "two levels down",
        {
            "code": "success",
            "data": {"task_id": "tsk_1", "status": "SUCCESS", "data": {"status": "ok", "content": {"video_url": URL}}},
        },
    ),
    ("a list of data", {"id": "tsk_1", "status": "succeeded", "data": [{"url": URL}]}),
    ("an output", {"id": "tsk_1", "status": "completed", "output": {"video_url": URL}}),
    ("an output that is the URL", {"id": "tsk_1", "status": "completed", "output": URL}),
    ("outside of the task", {"data": {"task_id": "tsk_1", "status": "SUCCESS"}, "result_url": URL}),
    ("said to be an image", {**DONE, "result": {"type": "image", "data": [{"url": URL}]}}),
    ("done", {**DONE, "status": "done"}),
    ("flat", {"task_id": "tsk_1", "status": "success", "video_url": URL}),
    ("many results", {**DONE, "result": {"data": [{"url": URL}, {"url": "https://files.example.com/2.mp4"}]}}),
]


@pytest.mark.parametrize(("vintage", "told"), VINTAGES)
def test_a_completed_task_of_every_vintage(vintage: str, told: dict[str, Any]) -> None:
    task = read(told)
    assert (task.task_id, task.is_completed, task.is_terminal, task.url, task.reason) == (
        "tsk_1",
        True,
        True,
        URL,
        None,
    )


@pytest.mark.parametrize(
    "status", ["queued", "in_progress", "submitted", "pending", "processing", "running", "NEW", ""]
)
def test_words_that_are_not_the_end(status: str) -> None:
    task = read({"id": "tsk_1", "status": status})
    assert not task.is_terminal
    assert task.status == (status.lower() or "queued")


@pytest.mark.parametrize(
    "status",
    ["failed", "FAILURE", "error", "cancelled", "canceled", "expired", "rejected", "timeout", "aborted", "BLOCKED"],
)
@pytest.mark.parametrize(
    ("fields", "reason", "code"),
    [
        (
            {"error": {"code": "OutputVideoSensitive", "message": "no such scene"}},
            "no such scene (OutputVideoSensitive)",
            "OutputVideoSensitive",
        ),
        ({"error": {"code": 1027, "message": "nope"}}, "nope (1027)", "1027"),
        ({"fail_reason": "too dark"}, "too dark", None),
        ({"error": "plain words"}, "plain words", None),
        ({}, None, None),
    ],
)
def test_failed_tasks_say_why(status: str, fields: dict[str, Any], reason: str | None, code: str | None) -> None:
    task = read({"id": "tsk_1", "status": status, **fields})
    assert (task.is_failed, task.is_terminal, task.reason, task.code) == (True, True, reason, code)


def test_a_reason_outside_of_the_object_is_found() -> None:
    task = read({"code": "fail", "message": "the upstream refused", "data": {"task_id": "tsk_1", "status": "FAILURE"}})
    assert task.reason is not None
    assert task.reason.startswith("the upstream refused")


@pytest.mark.parametrize(
    ("progress", "read_as"),
    [
        (65, 65.0),
        ("65", 65.0),
        ("65%", 65.0),
        (" 65 % ", 65.0),
        (None, None),
        (True, None),
        ("soon", None),
        ("nan", None),
        (10.5, 10.5),
    ],
)
def test_progress_in_every_form(progress: object, read_as: float | None) -> None:
    assert read({"id": "tsk_1", "progress": progress}).progress == read_as
    assert read({"id": "tsk_1"}).progress is None


@pytest.mark.parametrize(
    ("moment", "read_as"),
    [(1781577600, 1781577600.0), ("1781577600", 1781577600.0), (0, None), (1781577600000, None), ("soon", None)],
)
def test_moments_are_seconds_since_the_epoch_or_nothing(moment: object, read_as: float | None) -> None:
    assert read({"id": "tsk_1", "expires_at": moment}).expires_at == read_as


@pytest.mark.parametrize(
    "result", [None, {}, {"data": []}, {"data": [{"url": ""}]}, {"data": "x"}, {"data": [{"url": "ftp://x"}]}]
)
def test_a_completed_task_without_a_url_keeps_what_came(result: object) -> None:
    task = read({"id": "tsk_1", "status": "completed", "result": result})
    assert (task.is_completed, task.url, task.reason) == (
        True,
        None,
        "it is finished, but the answer holds no URL of the video",
    )
    assert task.raw["result"] == result


def test_what_is_no_task_is_an_error() -> None:
    with pytest.raises(NotFound, match="task_not_exist"):
        read({"code": "task_not_exist", "message": "task_not_exist", "data": None}, status=400)
    with pytest.raises(ProtocolError, match="no usable task_id or id"):
        read({"success": True, "data": {"status": "queued"}})
    with pytest.raises(ApiError):
        read({"success": False, "message": "nope"})
    with pytest.raises(ProtocolError):
        read({"id": "../../admin", "status": "queued"})


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "id",
    "task_id",
    "status",
    "progress",
    "model",
    "result",
    "error",
    "created_at",
    "expires_at",
    "metadata",
    "content",
    "url",
    "data",
    "client_business_id",
)


@given(told=st.dictionaries(st.sampled_from(FIELDS), json_values | st.sampled_from(["tsk_1", "completed", "failed"])))
def test_whatever_json_comes_it_is_a_task_or_an_error_of_ours(told: dict[str, Any]) -> None:
    try:
        task = read(told)
    except AvatarError:
        return
    assert isinstance(task.task_id, str)
    assert isinstance(task.status, str)
    assert isinstance(task.model, str | None)
    assert isinstance(task.url, str | None)
    assert task.reason is None or task.reason.isprintable()
    repr(task)


def test_what_a_request_is_made_from_is_never_taken_for_its_video() -> None:
    told = {"id": "tsk_1", "status": "completed", "image_with_roles": [{"url": URL}], "callback_url": URL}
    assert read(told).url is None
    assert read({"code": "success", "data": told}).raw == {"code": "success", "data": told}


def test_a_webhook_calls_its_times_otherwise() -> None:
    task = read({"id": "tsk_1", "submitted_at": 1781577600, "finished_at": 1781577700})
    assert (task.created_at, task.completed_at) == (1781577600.0, 1781577700.0)
