"""Delivers signed webhooks of finished generations, at least once, with repeated attempts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
import attrs

from seedance_avatar.text import Secret

from .clock import Clock
from .ledger import Ledger
from .records import Delivery

_WAITS: Final = (1.0, 5.0, 25.0, 125.0, 0.0)
"""Seconds after each attempt until the next; the last is not repeated."""


def sign(secret: str, event_id: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a delivery: HMAC-SHA256 in hex over ``id + "." + timestamp + "." + body``."""
    return hmac.new(secret.encode(), f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


@attrs.frozen(eq=False, kw_only=True)
class Webhook:
    """What is to be delivered once ``ready_at`` has come; ``event`` returns it without its id."""

    task_id: str
    url: str = attrs.field(repr=False)
    ready_at: float
    event: Callable[[], dict[str, Any]]


@attrs.define(eq=False, kw_only=True)
class Webhooks:
    """The pending deliveries, with an asyncio task for each while the sandbox runs.

    :ivar secrets: secrets to sign with, all of them; several during a rotation.
    :ivar time_scale: factor on the waits between two attempts.
    """

    clock: Clock
    ledger: Ledger
    secrets: Sequence[Secret[str]]
    time_scale: float
    _pending: list[Webhook] = attrs.field(init=False, factory=list)
    _running: set[asyncio.Task[None]] = attrs.field(init=False, factory=set)
    _http: aiohttp.ClientSession | None = attrs.field(init=False, default=None)

    def open(self) -> None:
        """Start the pending deliveries."""
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        for webhook in self._pending:
            self._begin(webhook)

    async def aclose(self) -> None:
        """Stop delivering; pending deliveries stay pending."""
        running = list(self._running)
        for delivery in running:
            delivery.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
            self._http = None

    def schedule(self, webhook: Webhook) -> None:
        """Deliver ``webhook`` once its task is finished."""
        self._pending.append(webhook)
        self._begin(webhook)

    def _begin(self, webhook: Webhook) -> None:
        running = asyncio.get_running_loop().create_task(self._deliver(webhook))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _deliver(self, webhook: Webhook) -> None:
        await self.clock.sleep(max(0.0, webhook.ready_at - self.clock.now()))
        event_id = f"evt_{webhook.task_id}"
        for attempt, wait in enumerate(_WAITS, 1):
            status = await self._send(webhook, event_id)
            entry = Delivery(
                event_id=event_id,
                task_id=webhook.task_id,
                url=webhook.url,
                attempt=attempt,
                status=status,
                at=self.clock.now(),
            )
            self.ledger.deliveries.append(entry)
            if status is not None and 200 <= status < 300:  # noqa: PLR2004 - any 2xx is a success
                break
            await self.clock.sleep(wait * self.time_scale)
        self._pending.remove(webhook)

    async def _send(self, webhook: Webhook, event_id: str) -> int | None:
        body = json.dumps({"id": event_id, **webhook.event()}, ensure_ascii=False).encode()
        timestamp = str(int(self.clock.wall_at(self.clock.now())))
        signatures = (f"v1={sign(secret.reveal(), event_id, timestamp, body)}" for secret in self.secrets)
        headers = {
            "Content-Type": "application/json",
            "X-ToAPIs-Webhook-Id": event_id,
            "X-ToAPIs-Webhook-Timestamp": timestamp,
            "X-ToAPIs-Webhook-Signature": ",".join(signatures),
        }
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            assert self._http is not None  # noqa: S101 - deliveries run only while it is open
            async with self._http.post(webhook.url, data=body, headers=headers, allow_redirects=False) as response:
                return response.status
        return None
