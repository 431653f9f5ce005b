"""The hub that polls everything pending in a session: one heap, one dispatcher, looks as permits come."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import attrs

from seedance_avatar.errors import AvatarError, ConnectionFailed, WaitTimeout
from seedance_avatar.polling.schedule import Schedule, Watched
from seedance_avatar.text import safe_text
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Answer

from .client import Client
from .gate import Flow
from .retry import backoff, missed
from .tasks import Crew

__all__ = ["Pollable", "Watch"]

_log = logging.getLogger("seedance_avatar")


class Pollable(Protocol):
    """What can be watched: it knows its question, reads the answer, and is told how it ended."""

    misses: int
    """How many looks in a row went wrong."""
    teaches: bool
    """Whether the time it takes says something about others of its kind."""

    def question(self) -> Request:
        """Return the status request."""

    def read(self, answer: Answer) -> Any:  # noqa: ANN401 - an Asset or a VideoTask; only is_terminal is used here
        """Return what the answer says; it has ``is_terminal`` and ``is_failed``."""

    def saw(self, thing: Any) -> None:  # noqa: ANN401 - as above
        """Take note that it is not finished."""

    def ended(self, thing: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - as above
        """Take the end: ``thing`` where it is terminal, else ``error``, which says why the looking stopped."""


@attrs.define(eq=False, repr=False)
class Watch:
    """Polls what it is given until that is terminal, its deadline has passed, or polling is refused.

    All decisions about *when* are the schedule's; about *how fast*, the query gate's. The permit is taken
    before the choice is made, so that the look that is worth most at that moment gets it.
    """

    client: Client
    schedule: Schedule
    crew: Crew
    flow: Flow = attrs.field(factory=lambda: Flow("polling"))
    _items: set[Watched] = attrs.field(factory=set)
    _stir: asyncio.Event = attrs.field(factory=asyncio.Event)
    _dispatcher: asyncio.Task[None] | None = None
    _asleep_until: float = float("inf")

    def __len__(self) -> int:
        return len(self._items)

    def add(self, watched: Watched) -> None:
        """Begin to watch ``watched`` (its payload is a :class:`Pollable`); its ``ended`` is called once.

        After :meth:`halt` it ends at once.
        """
        if self.flow.halted is not None:
            watched.payload.ended(None, self.flow.halted)
            return
        self._items.add(watched)
        self.schedule.add(watched, self.client.clock())
        if self._dispatcher is None:
            self._dispatcher = self.crew.spawn(self._dispatch(), name="seedance-avatar: polling")
        self._nudge()

    def _nudge(self) -> None:
        due = self.schedule.next_due()
        if due is not None and due < self._asleep_until:
            self._stir.set()

    def discard(self, watched: Watched) -> None:
        """Stop watching ``watched``; its ``ended`` is not called any more."""
        if watched in self._items:
            self._items.discard(watched)
            self.schedule.discard(watched)

    def halt(self, error: AvatarError) -> None:
        """End everything that is watched, now and from now on, with ``error``."""
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
        probe = self.client.outage.since is not None and await self.client.outage.pass_by(self.flow)
        spawned = False
        try:
            await self.client.query.enter(self.flow)
            watched = self.schedule.pop(self.client.clock())
            if watched is None:
                self.client.query.give_back()
                return
            self.crew.spawn(self._looks(watched, probe=probe), name="seedance-avatar: looks")
            spawned = True
        finally:
            if probe and not spawned:
                self.client.outage.abandon()

    async def _looks(self, watched: Watched | None, *, probe: bool) -> None:
        """Look at ``watched``, and go on with what may be looked at at once: a task costs as much as all else here."""
        while watched is not None:
            await self._look(watched, probe=probe)
            watched, probe = self._next(), False

    def _next(self) -> Watched | None:
        now = self.client.clock()
        due = self.schedule.next_due()
        if due is None or due > now or self.client.outage.since is not None or not self.client.query.admits(self.flow):
            return None
        watched = self.schedule.pop(now)
        if watched is None:
            self.client.query.give_back()
        return watched

    async def _look(self, watched: Watched, *, probe: bool) -> None:
        client = self.client
        payload: Pollable = watched.payload
        looked_at = client.clock()
        try:
            thing = await client.trip(client.query, payload.question(), payload.read, probe=probe)
        except AvatarError as error:
            if watched in self._items:
                self._missed(watched, payload, error, probe=probe)
            return
        except Exception as error:  # noqa: BLE001 - the hub outlives a bug in a reader; the item must not vanish
            _log.exception("a look went wrong in a way nobody foresaw")
            self._end(watched, None, AvatarError(f"polling broke: {safe_text(repr(error))}"))
            return
        if watched not in self._items:
            return
        now = client.clock()
        payload.misses = 0
        if thing.is_terminal:
            if thing.is_failed or not payload.teaches:
                self.schedule.failed(watched)
            else:
                self.schedule.finished(watched, now, looked_at=looked_at)
            self._end(watched, thing, None)
            return
        payload.saw(thing)
        if watched.deadline is not None and looked_at >= watched.deadline:
            self._end(watched, None, self._late(watched))
        else:
            self.schedule.still_pending(watched, now, looked_at=looked_at)
            self._nudge()

    def _late(self, watched: Watched) -> WaitTimeout:
        waited = self.client.clock() - watched.accepted_at
        return WaitTimeout(f"not finished {round(waited, 1):g} s after it was accepted")

    def _missed(self, watched: Watched, payload: Pollable, error: AvatarError, *, probe: bool) -> None:
        client = self.client
        blocked = client.blocked_for(client.query) > client.retry.patience
        now = client.clock()
        meaning = missed(
            error,
            age=now - watched.accepted_at,
            late=watched.deadline is not None and now >= watched.deadline,
            misses=payload.misses,
            attempts=client.retry.attempts,
            out_of_patience=probe and client.outage.given_up if isinstance(error, ConnectionFailed) else blocked,
        )
        match meaning:
            case "again":
                self._defer(watched, payload, now)
            case "late":
                self._end(watched, None, self._late(watched))
            case "end":
                self._end(watched, None, error)
            case "end all":
                self._end_all(error)

    def _defer(self, watched: Watched, payload: Pollable, now: float) -> None:
        payload.misses += 1
        retry = self.client.retry
        pause = backoff(payload.misses, base=max(retry.base, 0.01), cap=retry.cap, rng=self.client.rng)
        self.schedule.defer(watched, now + pause)
        self._nudge()

    def _end(self, watched: Watched, thing: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - an Asset or a VideoTask
        self._items.discard(watched)
        watched.payload.ended(thing, error)

    def _end_all(self, error: AvatarError) -> None:
        items, self._items = self._items, set()
        for watched in items:
            self.schedule.discard(watched)
            watched.payload.ended(None, error)
