"""The hub that polls everything pending in a session: one heap, one dispatcher, looks as permits come."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import attrs

from seedance_avatar.errors import AvatarError, ConnectionFailed, WaitTimeout
from seedance_avatar.polling.schedule import PendingItem, Schedule
from seedance_avatar.text import safe_text
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .client import Client
from .gate import Flow
from .retry import after_failed_poll, backoff
from .tasks import TaskSet

__all__ = ["Pollable", "Poller"]

_log = logging.getLogger("seedance_avatar")


class Pollable(Protocol):
    """What can be pending: it knows its question, reads the answer, and is told how it ended."""

    misses: int
    """How many looks in a row went wrong."""
    teaches: bool
    """Whether the time it takes says something about others of its kind."""

    def question(self) -> Request:
        """Return the status request."""

    def read(self, answer: Response) -> Any:  # noqa: ANN401 - an Asset or a VideoTask; only is_terminal is used here
        """Return what the answer says; it has ``is_terminal`` and ``is_failed``."""

    def saw(self, item: Any) -> None:  # noqa: ANN401 - as above
        """Take note that it is not finished."""

    def ended(self, item: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - as above
        """Take the end: ``item`` where it is terminal, else ``error``, which says why the looking stopped."""


@attrs.define(eq=False, repr=False)
class Poller:
    """Polls what it is given until that is terminal, its deadline has passed, or polling is refused.

    All decisions about *when* are the schedule's; about *how fast*, the query gate's. The permit is taken
    before the choice is made, so that the look that is worth most at that moment gets it.
    """

    client: Client
    schedule: Schedule
    tasks: TaskSet
    flow: Flow = attrs.field(factory=lambda: Flow("polling"))
    _items: set[PendingItem] = attrs.field(factory=set)
    _stir: asyncio.Event = attrs.field(factory=asyncio.Event)
    _dispatcher: asyncio.Task[None] | None = None
    _asleep_until: float = float("inf")

    def __len__(self) -> int:
        return len(self._items)

    def add(self, pending: PendingItem) -> None:
        """Begin to watch ``pending`` (its payload is a :class:`Pollable`); its ``ended`` is called once.

        After :meth:`halt` it ends at once.
        """
        if self.flow.halted is not None:
            pending.payload.ended(None, self.flow.halted)
            return
        self._items.add(pending)
        self.schedule.add(pending, self.client.clock())
        if self._dispatcher is None:
            self._dispatcher = self.tasks.spawn(self._dispatch(), name="seedance-avatar: polling")
        self._nudge()

    def _nudge(self) -> None:
        due = self.schedule.next_due()
        if due is not None and due < self._asleep_until:
            self._stir.set()

    def discard(self, pending: PendingItem) -> None:
        """Stop watching ``pending``; its ``ended`` is not called any more."""
        if pending in self._items:
            self._items.discard(pending)
            self.schedule.discard(pending)

    def halt(self, error: AvatarError) -> None:
        """End everything that is pending, now and from now on, with ``error``."""
        self.flow.halt(error)
        self._end_all(error)
        self._stir.set()

    async def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        while self.flow.halted is None:
            due = self.schedule.next_due()
            if due is None or due > self.client.clock():
                self._asleep_until = float("inf") if due is None else due
                timer = None if due is None else loop.call_at(due, self._stir.set)
                try:
                    await self._stir.wait()
                finally:
                    self._asleep_until = float("-inf")
                    if timer is not None:
                        timer.cancel()
                self._stir.clear()
                continue
            try:
                await self._look_once()
            except AvatarError as error:
                # Halted, or nothing was reached for as long as patience allows.
                self._end_all(error)

    async def _look_once(self) -> None:
        probe = self.client.breaker.since is not None and await self.client.breaker.wait_until_up(self.flow)
        spawned = False
        try:
            await self.client.query.acquire(self.flow)
            pending = self.schedule.pop(self.client.clock())
            if pending is None:
                self.client.query.cancel()
                return
            self.tasks.spawn(self._looks(pending, probe=probe), name="seedance-avatar: looks")
            spawned = True
        finally:
            if probe and not spawned:
                self.client.breaker.release_probe()

    async def _looks(self, pending: PendingItem | None, *, probe: bool) -> None:
        """Look at ``pending``, and go on with what may be looked at at once: a task costs as much as all else here."""
        while pending is not None:
            await self._look(pending, probe=probe)
            pending, probe = self._next(), False

    def _next(self) -> PendingItem | None:
        now = self.client.clock()
        due = self.schedule.next_due()
        if (
            due is None
            or due > now
            or self.client.breaker.since is not None
            or not self.client.query.try_acquire(self.flow)
        ):
            return None
        pending = self.schedule.pop(now)
        if pending is None:
            self.client.query.cancel()
        return pending

    async def _look(self, pending: PendingItem, *, probe: bool) -> None:
        client = self.client
        payload: Pollable = pending.payload
        looked_at = client.clock()
        try:
            item = await client.trip(client.query, payload.question(), payload.read, probe=probe)
        except AvatarError as error:
            if pending in self._items:
                self._missed(pending, payload, error, probe=probe)
            return
        except Exception as error:  # noqa: BLE001 - the hub outlives a bug in a reader; the item must not vanish
            _log.exception("a look went wrong in a way nobody foresaw")
            self._end(pending, None, AvatarError(f"polling broke: {safe_text(repr(error))}"))
            return
        if pending not in self._items:
            return
        now = client.clock()
        payload.misses = 0
        if item.is_terminal:
            if item.is_failed or not payload.teaches:
                self.schedule.failed(pending)
            else:
                self.schedule.finished(pending, now, looked_at=looked_at)
            self._end(pending, item, None)
            return
        payload.saw(item)
        if pending.deadline is not None and looked_at >= pending.deadline:
            self._end(pending, None, self._late(pending))
        else:
            self.schedule.still_pending(pending, now, looked_at=looked_at)
            self._nudge()

    def _late(self, pending: PendingItem) -> WaitTimeout:
        waited = self.client.clock() - pending.accepted_at
        return WaitTimeout(f"not finished {round(waited, 1):g} s after it was accepted")

    def _missed(self, pending: PendingItem, payload: Pollable, error: AvatarError, *, probe: bool) -> None:
        client = self.client
        blocked = client.blocked_for(client.query) > client.retry.patience
        now = client.clock()
        meaning = after_failed_poll(
            error,
            age=now - pending.accepted_at,
            late=pending.deadline is not None and now >= pending.deadline,
            misses=payload.misses,
            attempts=client.retry.attempts,
            out_of_patience=probe and client.breaker.given_up if isinstance(error, ConnectionFailed) else blocked,
        )
        match meaning:
            case "again":
                self._defer(pending, payload, now)
            case "late":
                self._end(pending, None, self._late(pending))
            case "end":
                self._end(pending, None, error)
            case "end all":
                self._end_all(error)

    def _defer(self, pending: PendingItem, payload: Pollable, now: float) -> None:
        payload.misses += 1
        retry = self.client.retry
        pause = backoff(payload.misses, base=max(retry.base, 0.01), cap=retry.cap, rng=self.client.rng)
        self.schedule.defer(pending, now + pause)
        self._nudge()

    def _end(self, pending: PendingItem, item: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - an Asset or a VideoTask
        self._items.discard(pending)
        pending.payload.ended(item, error)

    def _end_all(self, error: AvatarError) -> None:
        items, self._items = self._items, set()
        for pending in items:
            self.schedule.discard(pending)
            pending.payload.ended(None, error)
