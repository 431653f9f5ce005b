"""Delivers signed webhooks of finished generations, at least once, with repeated attempts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Final

import aiohttp
import attrs

from seedance_avatar.text import Secret

from .clock import Clock
from .ledger import Ledger
from .records import Delivery
from .videos import Task, Videos

__all__ = ["Webhooks", "sign"]

_WAITS: Final = (1.0, 5.0, 25.0, 125.0)


def sign(secret: str, event_id: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a delivery: HMAC-SHA256 in hex over ``id + "." + timestamp + "." + body``."""
    return hmac.new(secret.encode(), f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


@attrs.define(eq=False, kw_only=True)
class Webhooks:
    """The pending deliveries, with an asyncio task for each while the sandbox runs.

    :ivar secrets: secrets to sign with, all of them; several during a rotation.
    :ivar time_scale: factor on the waits between two attempts.
    """

    clock: Clock
    ledger: Ledger
    videos: Videos
    secrets: Sequence[Secret[str]]
    time_scale: float
    _pending: list[Task] = attrs.field(init=False, factory=list)
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

    def schedule(self, task: Task) -> None:
        """Deliver the webhook of ``task`` once it is finished."""
        self._pending.append(task)
        self._begin(task)

    def _begin(self, task: Task) -> None:
        running = asyncio.get_running_loop().create_task(self._deliver(task))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _deliver(self, task: Task) -> None:
        await self.clock.sleep(max(0.0, task.ready_at - self.clock.now()))
        event_id = f"evt_{task.task_id}"
        for attempt, wait in enumerate((*_WAITS, 0.0), 1):
            status = await self._send(task, event_id)
            entry = Delivery(
                event_id=event_id,
                task_id=task.task_id,
                url=task.request["callback_url"],
                attempt=attempt,
                status=status,
                at=self.clock.now(),
            )
            self.ledger.deliveries.append(entry)
            if status is not None and 200 <= status < 300:  # noqa: PLR2004 - any 2xx is a success
                break
            await self.clock.sleep(wait * self.time_scale)
        self._pending.remove(task)

    async def _send(self, task: Task, event_id: str) -> int | None:
        body = self._body(task, event_id)
        timestamp = str(int(self.clock.wall()))
        headers = {
            "Content-Type": "application/json",
            "X-ToAPIs-Webhook-Id": event_id,
            "X-ToAPIs-Webhook-Timestamp": timestamp,
            "X-ToAPIs-Webhook-Signature": ",".join(
                f"v1={sign(secret.reveal(), event_id, timestamp, body)}" for secret in self.secrets
            ),
        }
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            assert self._http is not None  # noqa: S101 - deliveries run only while it is open
            async with self._http.post(
                task.request["callback_url"], data=body, headers=headers, allow_redirects=False
            ) as response:
                return response.status
        return None

    def _body(self, task: Task, event_id: str) -> bytes:
        failed = task.fate.status == "failed"
        data = {
            "task_id": task.task_id,
            "task_type": "video",
            "model": task.request["model"],
            "status": "FAILURE" if failed else "SUCCESS",
            "progress": "100%",
            "submitted_at": int(self.clock.wall_at(task.at)),
            "finished_at": int(self.clock.wall_at(task.ready_at)),
        }
        if task.business_id is not None:
            data["client_business_id"] = task.business_id
        event = {
            "id": event_id,
            "type": f"generation.{'failed' if failed else 'completed'}",
            "api_version": "v1",
            "created_at": int(self.clock.wall_at(task.ready_at)),
            "data": {**data, "result": None, "error": None, **self.videos.outcome(task)},
        }
        return json.dumps(event, ensure_ascii=False).encode()
