"""The endpoints for video generations; a finished video is served by the files host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import attrs

from seedance_avatar.models import ASSET_TYPES

from .accounts import Account
from .asset_table import AssetTable
from .assets import is_public, json_object
from .clips import last_frame, video
from .clock import Clock
from .dialect import Vintage
from .fates import Fate, Fates
from .files import Files
from .ids import Ids
from .records import Generation
from .replies import Refused, Reply, as_json, refusal
from .video_rules import Medium, fails_later, media_of

__all__ = ["PREFIX", "Task", "Videos"]

PREFIX: Final = "/v1/videos/generations"
PRICE: Final = 10.0
_DAY: Final = 86_400.0
_DURATION: Final = 5
"""Seconds of a video whose request gives no duration, or 0 or -1, which let the model choose."""
_QUEUED: Final = 0.1  # the part of its time in which a task is queued
_STICKS_AT: Final = 10
_REAL_PERSON: Final = "InputImageSensitiveContentDetected.PrivacyInformation"


@attrs.define(eq=False, kw_only=True)
class Task:
    """A generation; its status is computed from the time at which it is queried."""

    task_id: str
    number: int
    account: Account
    request: Mapping[str, Any]
    at: float
    ready_at: float
    fate: Fate
    path: str = ""
    last_frame_path: str = ""
    gone_at: float = 0.0
    repeats: int = 0
    looks: int = 0

    @property
    def business_id(self) -> str | None:
        """The ``client_business_id`` of the request, or None."""
        found = self.request.get("client_business_id")
        return found if isinstance(found, str) else None

    def status(self, now: float) -> str:
        """Return ``queued``, ``in_progress``, ``completed`` or ``failed``."""
        if now >= self.ready_at:
            return "failed" if self.fate.status == "failed" else "completed"
        return "queued" if now < self.at + _QUEUED * (self.ready_at - self.at) else "in_progress"


@attrs.define(eq=False, kw_only=True)
class Videos:
    """Handles the requests about generations.

    :ivar decide: called with the body of a generation, returns its fate or None for *completed*.
    :ivar shows_real_person: returns whether the image at a URL is refused because it shows a real person.
    :ivar signs_webhooks: whether the account has a webhook secret; without one, a ``callback_url`` is refused.
    :ivar accepted: called with each new task that asks for a webhook.
    """

    clock: Clock
    table: AssetTable
    fates: Fates
    files: Files
    ids: Ids
    vintage: Vintage
    allow_private: bool
    decide: Callable[[Mapping[str, Any]], Fate | None] | None
    shows_real_person: Callable[[str], bool]
    signs_webhooks: bool = True
    accepted: Callable[[Task], None] = attrs.field(default=lambda _: None)
    _tasks: list[Task] = attrs.field(init=False, factory=list)
    _by_business_id: dict[tuple[int, str], Task] = attrs.field(init=False, factory=dict)

    def create(self, account: Account, body: bytes) -> Reply:
        """Answer ``POST /v1/videos/generations``.

        :raises Refused: it breaks a rule, an asset is not active, an image shows a real person, or the balance is low.
        """
        wanted = json_object(body)
        business_id = wanted.get("client_business_id")
        known = self._by_business_id.get((account.number, business_id)) if isinstance(business_id, str) else None
        if known is not None:
            known.repeats += 1
            return self._answer(known)
        media = media_of(wanted, may_fetch=self._may_fetch)
        for at, medium in enumerate(media, 1):
            self._check_medium(account, medium, at)
        callback = wanted.get("callback_url")
        if isinstance(callback, str) and not callback.startswith("https://") and is_public(callback):
            raise Refused(refusal(400, "callback_url must be https (request id: {id})", code="InvalidParameter"))
        if isinstance(callback, str) and not self.signs_webhooks:
            message = "no webhook key is set up (request id: {id})"
            raise Refused(refusal(400, message, code="webhook_not_configured"))
        fate = self.decide(wanted) if self.decide is not None else None
        if fate is None and (code := fails_later(wanted, media)) is not None:
            fate = Fate("failed", "the aspect ratio must be adaptive when frames are given", code=code)
        if fate is not None and fate.status == "refused":
            raise Refused(refusal(fate.http_status, fate.reason or "refused", code=fate.code))
        account.charge(PRICE, self.vintage.money)
        task = self._add(account, wanted, fate or Fate())
        return self._answer(task)

    def look(self, account: Account, name: str) -> Reply:
        """Answer ``GET /v1/videos/generations/{name}``, where the name is a task id or a ``client_business_id``.

        :raises Refused: this account has no such task.
        """
        name = unquote(name)
        number = self.ids.number_of(name)
        task = self._tasks[number] if number is not None and number < len(self._tasks) else None
        if task is None or task.task_id != name or task.account is not account:
            task = self._by_business_id.get((account.number, name))
        if task is None:
            status, code = (404, "task_not_found") if self.vintage.tasks == "documented" else (400, "task_not_exist")
            raise Refused(refusal(status, "the task does not exist (request id: {id})", code=code))
        task.looks += 1
        return self._answer(task)

    def view(self) -> list[Generation]:
        """Return the ledger's entries."""
        now = self.clock.now()
        return [
            Generation(
                task_id=task.task_id,
                client_business_id=task.business_id,
                request=task.request,
                account=task.account.name,
                at=task.at,
                ready_at=task.ready_at,
                fate="failed" if task.fate.status == "failed" else "completed",
                reason=task.fate.reason,
                status=task.status(now),
                repeats=task.repeats,
                looks=task.looks,
            )
            for task in self._tasks
        ]

    def _may_fetch(self, url: str) -> bool:
        return self.allow_private or self.files.has(url) or is_public(url)

    def _check_medium(self, account: Account, medium: Medium, at: int) -> None:
        """Check the medium that messages call content[``at``]; content[0] is the prompt."""
        if not medium.url.startswith("asset://"):
            if medium.kind == "image" and self.shows_real_person(medium.url):
                message = f"the input image content[{at}] may contain real person (request id: {{id}})"
                raise Refused(refusal(422, message, code=_REAL_PERSON, kind="content_policy_violation"))
            return
        number = self.table.find(medium.url.removeprefix("asset://"))
        if number is None or self.table.account[number] != account.number:
            raise Refused(refusal(400, f"content[{at}]: the asset does not exist", code="InvalidParameter"))
        if ASSET_TYPES[self.table.type[number]] != medium.kind:
            raise Refused(refusal(400, f"content[{at}]: the asset is no {medium.kind}", code="InvalidParameter"))
        if self.table.status(number, self.clock.now()) != "active":
            raise Refused(refusal(400, f"content[{at}]: the asset is not active", code="InvalidParameter"))

    def _add(self, account: Account, wanted: Mapping[str, Any], fate: Fate) -> Task:
        now, number = self.clock.now(), len(self._tasks)
        takes = self.fates.generation_takes(fate, number)
        task = Task(
            task_id=self.ids.mint(number, self.clock.wall_at(now)),
            number=number,
            account=account,
            request=wanted,
            at=now,
            ready_at=now + takes,
            fate=fate,
        )
        self._tasks.append(task)
        if task.business_id is not None:
            self._by_business_id[account.number, task.business_id] = task
        if fate.status == "active":
            self._offer(task)
        if isinstance(wanted.get("callback_url"), str):
            self.accepted(task)
        return task

    def _offer(self, task: Task) -> None:
        """Add the video of ``task`` to the files host."""
        wanted = task.request
        ratio, seconds = str(wanted.get("aspect_ratio")), wanted.get("duration") or -1
        task.gone_at = task.ready_at + _DAY * self.fates.time_scale
        task.path = f"/videos/{task.task_id}.mp4"
        read = partial(video, ratio, seconds if seconds > 0 else _DURATION, task.task_id)
        self.files.put(task.path, read, "video/mp4", gone_at=task.gone_at)
        if wanted.get("return_last_frame"):
            task.last_frame_path = f"/videos/{task.task_id}.png"
            self.files.put(task.last_frame_path, partial(last_frame, ratio), "image/png", gone_at=task.gone_at)

    def outcome(self, task: Task) -> dict[str, Any]:
        """Return the fields that a finished task adds to its answer and to its webhook."""
        wall = self.clock.wall_at
        if task.fate.status == "failed":
            reason = task.fate.reason or "the generation failed"
            if self.vintage.tasks != "documented":
                return {"fail_reason": reason}
            code = task.fate.code if task.fate.code.startswith("InvalidParameter") else "generation_failed"
            return {"error": {"code": code, "message": reason}}
        video = {"url": self.files.url(task.path), "format": "mp4"}
        if task.last_frame_path:
            video["last_frame_url"] = self.files.url(task.last_frame_path)
        return {
            "completed_at": int(wall(task.ready_at)),
            "expires_at": int(wall(task.gone_at)),
            "result": {"type": "video", "data": [video]},
        }

    def _answer(self, task: Task) -> Reply:
        status = task.status(self.clock.now())
        progress = {"queued": 0, "in_progress": _STICKS_AT}.get(status, 100)
        data: dict[str, Any] = {
            "id": task.task_id,
            "object": "generation.task",
            "model": task.request["model"],
            "status": self.vintage.task_status(status),
            "progress": progress if self.vintage.tasks == "documented" else f"{progress}%",
            "created_at": int(self.clock.wall_at(task.at)),
        }
        if task.business_id is not None:
            data["client_business_id"] = task.business_id
        if status in {"completed", "failed"}:
            data |= self.outcome(task)
        return as_json(self.vintage.dress_task(data))
