"""Builds the requests for video generations, and reads tasks in every form that the service has used. No I/O.

The service answers with a bare task object; the engine beneath it, older versions and the webhooks use other wrappings
and names. The readers accept all of them and return the same :class:`~seedance_avatar.VideoTask`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from seedance_avatar.errors import InvalidInput
from seedance_avatar.models import VideoTask
from seedance_avatar.text import safe_text
from seedance_avatar.wire.refusals import find_reason, is_id, read_object
from seedance_avatar.wire.request import Request, json_bytes
from seedance_avatar.wire.response import Response, structure

from .request import GenerationRequest
from .rules import Part

__all__ = ["GENERATIONS", "generation_request", "read_task", "read_video", "video_query"]

GENERATIONS: Final = "/v1/videos/generations"

_FIELDS: Final = {"image": "image_with_roles", "video": "video_with_roles", "audio": "audio_with_roles"}
_WISHES: Final = (
    "duration",
    "aspect_ratio",
    "resolution",
    "generate_audio",
    "seed",
    "return_last_frame",
    "callback_url",
)
_TIMES: Final = {
    "created_at": ("created_at", "submitted_at"),
    "completed_at": ("completed_at", "finished_at"),
    "expires_at": ("expires_at",),
}
"""The fields of a task's times; a webhook calls two of them otherwise."""
_WRAPPINGS: Final = ("result", "data", "output", "content", "metadata", "video", "videos")
"""The fields in which gateways and engines put a finished video, within one another."""
_DEEPEST: Final = 5
_LATEST: Final = 1e11  # seconds since the epoch: the year 5138; what is beyond is in milliseconds, or garbage


def generation_request(request: GenerationRequest, parts: Iterable[Part], business_id: str) -> Request:
    """Return the submission of ``request``, which was checked before, with its ``parts``.

    :param business_id: its ``client_business_id``, by which it is found again when the answer is lost.
    :raises InvalidInput: it cannot be written as JSON: broken characters, or tools that are no JSON.
    """
    fields: dict[str, Any] = {"model": request.model, "prompt": request.prompt, "client_business_id": business_id}
    fields |= {name: value for name in _WISHES if (value := getattr(request, name)) is not None}
    if request.tools is not None:
        fields["tools"] = list(request.tools)
    for part in parts:
        fields.setdefault(_FIELDS[part.medium_type], []).append({"url": part.url, "role": part.role})
    try:
        body = json_bytes(fields)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"it cannot be written as JSON ({safe_text(error, 80)}): check prompt and tools for broken characters"
        raise InvalidInput(message, about=request.label) from error
    return Request(lane="submit", method="POST", path=GENERATIONS, body=body, subject=request.label)


def video_query(task_id: str) -> Request:
    """Return the status request of a generation, by its task id or its ``client_business_id``.

    :raises InvalidInput: ``task_id`` is not an id: in the path it would name something else.
    """
    if not is_id(task_id):
        message = f"{safe_text(task_id, 80)} is not a task id: pass the task that generate() returned, or its task_id"
        raise InvalidInput(message)
    return Request(lane="query", method="GET", path=f"{GENERATIONS}/{task_id}", subject=task_id, repeatable=True)


def read_video(answer: Response, *, about: str | None = None) -> VideoTask:
    """Return the task in ``answer``.

    :raises ApiError: the service refused.
    :raises ProtocolError: the answer holds no task.
    """
    # Where an object has both, "id" may be the primary key of a database row.
    return read_task(read_object(answer, "task_id", "id", about=about), around=answer.parsed)


def read_task(found: Mapping[str, Any], *, around: object = None) -> VideoTask:
    """Return the task in the object ``found``, which has a usable ``task_id`` or ``id``.

    A status that is missing or not a string is read as ``queued``: the task was accepted, so it is polled again. A
    completed task without a URL keeps its status and says so in ``reason``; the whole answer is in ``raw``.

    :param around: the parsed body that ``found`` is part of: the reason may be outside of ``found``.
    """
    status = found.get("status")
    status = status.strip().lower() if isinstance(status, str) else ""
    places = _places(found)
    url = _video_url(places) or (_video_url(_places(around)) if isinstance(around, Mapping) else None)
    named = (place.get("client_business_id") for place in (found, found.get("metadata")) if isinstance(place, Mapping))
    task = structure(
        VideoTask,
        {
            **found,
            **{name: next(filter(None, map(_seconds, map(found.get, names))), None) for name, names in _TIMES.items()},
            "task_id": found["task_id"] if is_id(found.get("task_id")) else found["id"],
            "status": status or "queued",
            "progress": _percent(found.get("progress")),
            "url": url,
            "last_frame_url": _first_url(places, "last_frame_url"),
            "client_business_id": next(filter(is_id, named), None),
            "reason": None,
            "code": None,
            "raw": found,
        },
    )
    if task.is_failed:
        return _with_reason(task, found, around)
    if task.is_completed and url is None:
        reason = "it is finished, but the answer holds no URL of the video"
        return attrs.evolve(task, reason=reason, raw=around if isinstance(around, Mapping) else found)
    return task


def _with_reason(task: VideoTask, found: Mapping[str, Any], around: object) -> VideoTask:
    reason = find_reason(found)
    if reason is None and isinstance(around, Mapping):
        reason = find_reason(around)
    error = found.get("error")
    code = error.get("code") if isinstance(error, Mapping) else found.get("code")
    known = isinstance(code, str | int) and not isinstance(code, bool) and code not in {"", 0}
    return attrs.evolve(task, reason=reason, code=safe_text(code, 80) if known else None)


def _places(found: Mapping[str, Any], depth: int = _DEEPEST) -> list[Mapping[str, Any]]:
    """Return the objects that may hold the result, the documented one first: the innermost before those around it."""
    inner: list[Mapping[str, Any]] = []
    for name in _WRAPPINGS if depth else ():
        value = found.get(name)
        if isinstance(value, list):
            value = next(iter(value), None)
        if isinstance(value, str):
            value = {"url": value}
        if isinstance(value, Mapping):
            inner += _places(value, depth - 1)
    return [*inner, found]


def _video_url(places: Sequence[Mapping[str, Any]]) -> str | None:
    # Some engines put the URL of a finished video into the field that gives the reason of a failed one.
    return _first_url(places, "url", "video_url", "result_url") or _first_url(places, "fail_reason")


def _first_url(places: Sequence[Mapping[str, Any]], *names: str) -> str | None:
    for place in places:
        for name in names:
            url = place.get(name)
            if isinstance(url, str) and url.startswith(("https://", "http://")):
                return url
    return None


def _percent(value: object) -> float | None:
    """Read a progress: a number, ``"65"`` or ``"65%"``."""
    return _finite(value.strip().removesuffix("%") if isinstance(value, str) else value)


def _seconds(value: object) -> float | None:
    """Read a time, in seconds since the epoch; the engine writes 0 for a time that is not known yet."""
    moment = _finite(value)
    return moment if moment is not None and 0 < moment < _LATEST else None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
