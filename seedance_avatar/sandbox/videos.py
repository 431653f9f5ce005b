"""The endpoints for video generations; a finished video is served by the files host."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import attrs

from seedance_avatar.models import ASSET_TYPES

from .accounts import Account
from .fates import Fate
from .ids import Ids
from .records import Generation
from .replies import Refused, Reply, as_json, refusal
from .state import State, is_public, json_object
from .video_rules import Medium, fails_later, media_of
from .webhooks import Webhook, Webhooks

_PRICE: Final = 10.0
_DAY: Final = 86_400.0
_DURATION: Final = 5
"""Seconds of a video whose request gives no duration, or 0 or -1, which let the model choose."""
_QUEUED: Final = 0.1  # the part of its time in which a task is queued
_STICKS_AT: Final = 10
_REAL_PERSON: Final = "InputImageSensitiveContentDetected.PrivacyInformation"

_RATIOS: Final = frozenset({"21:9", "16:9", "4:3", "1:1", "3:4", "9:16"})
_TIMES: Final = ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20), (b"stts", 16))
"""The boxes with durations in a file of one track, and the offset of the 32-bit number from the box's type."""


@functools.cache
def _media(ratio: str, ending: str) -> bytes:
    """Return one of the small real files that ``media/MADE.md`` describes."""
    name = ratio if ratio in _RATIOS else "16:9"  # which is also what "adaptive" gets here
    return Path(__file__).with_name("media").joinpath(f"{name.replace(':', 'x')}.{ending}").read_bytes()


def stretched(ratio: str, seconds: int, task_id: str) -> bytes:
    """Return an MP4 of the aspect ratio ``ratio`` that plays for ``seconds`` exactly.

    The file holds one second in 24 frames, and each frame is shown ``seconds`` times as long. At its end is a box
    that players skip: it holds ``task_id``, so that no two tasks have the same file.
    """
    data = bytearray(_media(ratio, "mp4"))
    for box, offset in _TIMES:
        at = data.index(box) + offset
        struct.pack_into(">I", data, at, seconds * struct.unpack_from(">I", data, at)[0])
    return bytes(data) + struct.pack(">I4s", 8 + len(task_id), b"free") + task_id.encode()


@attrs.define(eq=False, kw_only=True)
class _Task:
    """A generation; its status is computed from the time at which it is queried."""

    task_id: str
    account: Account
    request: Mapping[str, Any]
    at: float
    ready_at: float
    gone_at: float
    fate: Fate
    paths: dict[str, str] = attrs.field(factory=dict)
    repeats: int = 0
    looks: int = 0

    @property
    def failed(self) -> bool:
        """Whether it will fail."""
        return self.fate.status == "failed"

    def status(self, now: float) -> str:
        """Return ``queued``, ``in_progress``, ``completed`` or ``failed``."""
        if now >= self.ready_at:
            return "failed" if self.failed else "completed"
        return "queued" if now < self.at + _QUEUED * (self.ready_at - self.at) else "in_progress"


@attrs.define(eq=False, kw_only=True)
class Videos:
    """Handles the requests about generations.

    :ivar decide: called with the body of a generation, returns its fate or None for *completed*.
    """

    state: State
    ids: Ids
    webhooks: Webhooks
    decide: Callable[[Mapping[str, Any]], Fate | None] | None
    _tasks: list[_Task] = attrs.field(init=False, factory=list)
    _by_business_id: dict[tuple[int, str], _Task] = attrs.field(init=False, factory=dict)

    def create(self, account: Account, body: bytes) -> Reply:
        """Answer ``POST /v1/videos/generations``."""
        wanted = json_object(body)
        business_id = wanted.get("client_business_id")
        known = self._by_business_id.get((account.number, business_id)) if isinstance(business_id, str) else None
        if known is not None:
            known.repeats += 1
            return self._answer(known)
        media = media_of(wanted, may_fetch=self.state.may_fetch)
        for at, medium in enumerate(media, 1):
            self._check_medium(account, medium, at)
        callback = wanted.get("callback_url")
        if callback is not None and not callback.startswith("https://") and is_public(callback):
            raise Refused(refusal(400, "callback_url must be https (request id: {id})", code="InvalidParameter"))
        if callback is not None and not self.webhooks.secrets:
            message = "no webhook key is set up (request id: {id})"
            raise Refused(refusal(400, message, code="webhook_not_configured"))
        fate = self.decide(wanted) if self.decide is not None else None
        if fate is None and (code := fails_later(wanted, media)) is not None:
            fate = Fate("failed", "the aspect ratio must be adaptive when frames are given", code=code)
        fate = fate or Fate()
        self.state.accept(account, fate, _PRICE)
        return self._answer(self._add(account, wanted, fate))

    def look(self, account: Account, name: str) -> Reply:
        """Answer ``GET /v1/videos/generations/{name}``, where the name is a task id or a ``client_business_id``."""
        name = unquote(name)
        number = self.ids.number_of(name)
        task = self._tasks[number] if number is not None and number < len(self._tasks) else None
        if task is None or task.task_id != name or task.account is not account:
            task = self._by_business_id.get((account.number, name))
        if task is None:
            documented = self.state.vintage.tasks == "documented"
            status, code = (404, "task_not_found") if documented else (400, "task_not_exist")
            raise Refused(refusal(status, "the task does not exist (request id: {id})", code=code))
        task.looks += 1
        return self._answer(task)

    def _entry(self, task: _Task) -> Generation:
        return Generation(
            task_id=task.task_id,
            client_business_id=task.request.get("client_business_id"),
            request=task.request,
            account=task.account.name,
            at=task.at,
            ready_at=task.ready_at,
            fate="failed" if task.failed else "completed",
            reason=task.fate.reason,
            status=task.status(self.state.clock.now()),
            repeats=task.repeats,
            looks=task.looks,
        )

    def _check_medium(self, account: Account, medium: Medium, at: int) -> None:
        """Check the medium that messages call content[``at``]; content[0] is the prompt."""
        if not medium.url.startswith("asset://"):
            if medium.kind == "image" and "real-person" in medium.url:
                message = f"the input image content[{at}] may contain real person (request id: {{id}})"
                raise Refused(refusal(422, message, code=_REAL_PERSON, kind="content_policy_violation"))
            return
        table = self.state.ledger.table
        number = self.state.find_asset(account, medium.url.removeprefix("asset://"))
        if number is None:
            wrong = "does not exist"
        elif ASSET_TYPES[table.type[number]] != medium.kind:
            wrong = f"is no {medium.kind}"
        elif table.status(number, self.state.clock.now()) != "active":
            wrong = "is not active"
        else:
            return
        raise Refused(refusal(400, f"content[{at}]: the asset {wrong}", code="InvalidParameter"))

    def _add(self, account: Account, wanted: Mapping[str, Any], fate: Fate) -> _Task:
        state, number = self.state, len(self._tasks)
        now = state.clock.now()
        ready_at = now + state.fates.generation_takes(fate, number)
        task = _Task(
            task_id=self.ids.mint(number, state.clock.wall_at(now)),
            account=account,
            request=wanted,
            at=now,
            ready_at=ready_at,
            gone_at=ready_at + _DAY * state.fates.time_scale,
            fate=fate,
        )
        self._tasks.append(task)
        state.ledger.tasks.append(partial(self._entry, task))
        if (business_id := wanted.get("client_business_id")) is not None:
            self._by_business_id[account.number, business_id] = task
        if not task.failed:
            self._serve(task)
        if (url := wanted.get("callback_url")) is not None:
            event = partial(self._event, task)
            self.webhooks.schedule(Webhook(task_id=task.task_id, url=url, ready_at=ready_at, event=event))
        return task

    def _serve(self, task: _Task) -> None:
        """Add the video of ``task`` to the files host."""
        ratio, seconds = str(task.request.get("aspect_ratio")), task.request.get("duration") or -1
        task.paths["url"] = f"/videos/{task.task_id}.mp4"
        read = partial(stretched, ratio, seconds if seconds > 0 else _DURATION, task.task_id)
        self.state.files.put(task.paths["url"], read, "video/mp4", task.gone_at)
        if task.request.get("return_last_frame"):
            task.paths["last_frame_url"] = f"/videos/{task.task_id}.png"
            self.state.files.put(task.paths["last_frame_url"], partial(_media, ratio, "png"), "image/png", task.gone_at)

    def _outcome(self, task: _Task) -> dict[str, Any]:
        """Return the fields that a finished task adds to its answer and to its webhook."""
        if task.failed:
            reason = task.fate.reason or "the generation failed"
            if self.state.vintage.tasks != "documented":
                return {"fail_reason": reason}
            code = task.fate.code if task.fate.code.startswith("InvalidParameter") else "generation_failed"
            return {"error": {"code": code, "message": reason}}
        wall_at, url = self.state.clock.wall_at, self.state.files.url
        return {
            "completed_at": int(wall_at(task.ready_at)),
            "expires_at": int(wall_at(task.gone_at)),
            "result": {
                "type": "video",
                "data": [{"format": "mp4", **{field: url(path) for field, path in task.paths.items()}}],
            },
        }

    def _answer(self, task: _Task) -> Reply:
        vintage, status = self.state.vintage, task.status(self.state.clock.now())
        progress = {"queued": 0, "in_progress": _STICKS_AT}.get(status, 100)
        data: dict[str, Any] = {
            "id": task.task_id,
            "object": "generation.task",
            "model": task.request["model"],
            "status": vintage.task_status(status),
            "progress": progress if vintage.tasks == "documented" else f"{progress}%",
            "created_at": int(self.state.clock.wall_at(task.at)),
        }
        if (business_id := task.request.get("client_business_id")) is not None:
            data["client_business_id"] = business_id
        if status in {"completed", "failed"}:
            data |= self._outcome(task)
        return as_json(vintage.dress_task(data))

    def _event(self, task: _Task) -> dict[str, Any]:
        wall_at, finished_at = self.state.clock.wall_at, int(self.state.clock.wall_at(task.ready_at))
        data = {
            "task_id": task.task_id,
            "task_type": "video",
            "model": task.request["model"],
            "status": "FAILURE" if task.failed else "SUCCESS",
            "progress": "100%",
            "submitted_at": int(wall_at(task.at)),
            "finished_at": finished_at,
        }
        if (business_id := task.request.get("client_business_id")) is not None:
            data["client_business_id"] = business_id
        return {
            "type": f"generation.{'failed' if task.failed else 'completed'}",
            "api_version": "v1",
            "created_at": finished_at,
            "data": {**data, "result": None, "error": None, **self._outcome(task)},
        }
