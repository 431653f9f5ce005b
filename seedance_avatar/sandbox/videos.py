"""The endpoints for video generations, and their signed webhooks; a finished video is served by the files host."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import aiohttp
import attrs

from seedance_avatar.models import ASSET_TYPES
from seedance_avatar.text import Secret

from .accounts import Account
from .dialect import Ids
from .fates import Fate
from .files import Files
from .records import Delivery, Generation
from .replies import Refused, Reply, as_json, refusal, refuse
from .state import State, is_public, json_object
from .video_rules import Medium, fails_later, media_of

_PRICE: Final = 10.0
_DAY: Final = 86_400.0
_DURATION: Final = 5  # seconds of a video whose request gives no duration, or 0 or -1, which let the model choose
_QUEUED: Final = 0.1  # the part of its time in which a task is queued
_STICKS_AT: Final = 10
_WAITS: Final = (1.0, 5.0, 25.0, 125.0, 0.0)  # seconds after each attempt to deliver; the last is not repeated
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
    """Return an MP4 of the aspect ratio ``ratio`` that plays for ``seconds`` exactly."""
    # The file holds one second in 24 frames, and each frame is shown that many times as long. The box at its end, which
    # players skip, makes the file of each task another one.
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


@attrs.define(eq=False)
class Webhooks:
    """The pending deliveries, with an asyncio task for each while the sandbox runs."""

    state: State
    secrets: Sequence[Secret[str]]  # all of them sign: there are several during a rotation
    event: Callable[[_Task], dict[str, Any]]  # what is delivered about a task, without the event's id
    _pending: list[_Task] = attrs.field(init=False, factory=list)
    _running: set[asyncio.Task[None]] = attrs.field(init=False, factory=set)
    _http: aiohttp.ClientSession | None = attrs.field(init=False, default=None)

    def open(self) -> None:
        """Start the pending deliveries."""
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        for task in self._pending:
            self._begin(task)

    async def aclose(self) -> None:
        """Stop delivering; pending deliveries stay pending."""
        running = list(self._running)
        for delivery in running:
            delivery.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
            self._http = None

    def schedule(self, task: _Task) -> None:
        """Deliver the webhook of ``task`` once it is finished."""
        self._pending.append(task)
        self._begin(task)

    def _begin(self, task: _Task) -> None:
        running = asyncio.get_running_loop().create_task(self._deliver(task))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _deliver(self, task: _Task) -> None:
        await self.state.clock.sleep(max(0.0, task.ready_at - self.state.clock.now()))
        event_id = f"evt_{task.task_id}"
        for attempt, wait in enumerate(_WAITS, 1):
            status = await self._send(task, event_id)
            entry = Delivery(
                event_id=event_id,
                task_id=task.task_id,
                url=task.request["callback_url"],
                attempt=attempt,
                status=status,
                at=self.state.clock.now(),
            )
            self.state.ledger.deliveries.append(entry)
            if status is not None and 200 <= status < 300:  # noqa: PLR2004 - any 2xx is a success
                break
            await self.state.clock.sleep(wait * self.state.fates.time_scale)
        self._pending.remove(task)

    async def _send(self, task: _Task, event_id: str) -> int | None:
        body = json.dumps({"id": event_id, **self.event(task)}, ensure_ascii=False).encode()
        timestamp = str(int(self.state.clock.wall_at(self.state.clock.now())))
        signed = f"{event_id}.{timestamp}.".encode() + body
        signatures = (f"v1={hmac.digest(secret.reveal().encode(), signed, 'sha256').hex()}" for secret in self.secrets)
        headers = {
            "Content-Type": "application/json",
            "X-ToAPIs-Webhook-Id": event_id,
            "X-ToAPIs-Webhook-Timestamp": timestamp,
            "X-ToAPIs-Webhook-Signature": ",".join(signatures),
        }
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            assert self._http is not None  # noqa: S101 - deliveries run only while it is open
            async with self._http.post(
                task.request["callback_url"], data=body, headers=headers, allow_redirects=False
            ) as response:
                return response.status
        return None


@attrs.define(eq=False)
class Videos:
    """Handles the requests about generations."""

    state: State
    ids: Ids
    files: Files
    secrets: Sequence[Secret[str]]  # without any, webhooks are refused
    decide: Callable[[Mapping[str, Any]], Fate | None] | None
    webhooks: Webhooks = attrs.field(init=False)
    _tasks: list[_Task] = attrs.field(init=False, factory=list)
    _by_business_id: dict[tuple[int, str], _Task] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.webhooks = Webhooks(self.state, self.secrets, self._event)

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
            refuse("callback_url must be https")
        if callback is not None and not self.secrets:
            refuse("no webhook key is set up", code="webhook_not_configured")
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
            refuse("the task does not exist", status=status, code=code)
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
                message = f"the input image content[{at}] may contain real person"
                refuse(message, status=422, code=_REAL_PERSON, kind="content_policy_violation")
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
        if wanted.get("callback_url") is not None:
            self.webhooks.schedule(task)
        return task

    def _serve(self, task: _Task) -> None:
        """Add the video of ``task`` to the files host."""
        ratio, seconds = str(task.request.get("aspect_ratio")), task.request.get("duration") or -1
        task.paths["url"] = f"/videos/{task.task_id}.mp4"
        read = partial(stretched, ratio, seconds if seconds > 0 else _DURATION, task.task_id)
        self.files.put(task.paths["url"], read, "video/mp4", task.gone_at)
        if task.request.get("return_last_frame"):
            task.paths["last_frame_url"] = f"/videos/{task.task_id}.png"
            self.files.put(task.paths["last_frame_url"], partial(_media, ratio, "png"), "image/png", task.gone_at)

    def _outcome(self, task: _Task) -> dict[str, Any]:
        """Return the fields that a finished task adds to its answer and to its webhook."""
        if task.failed:
            reason = task.fate.reason or "the generation failed"
            if self.state.vintage.tasks != "documented":
                return {"fail_reason": reason}
            code = task.fate.code if task.fate.code.startswith("InvalidParameter") else "generation_failed"
            return {"error": {"code": code, "message": reason}}
        wall_at, url = self.state.clock.wall_at, self.files.url
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
