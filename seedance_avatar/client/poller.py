"""Polls everything pending in a session: one schedule, one dispatcher, status requests as fast as the limits permit."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, Protocol

import attrs

from seedance_avatar.errors import AvatarError, WaitTimeout
from seedance_avatar.polling.expiry import Expiry
from seedance_avatar.polling.schedule import PendingItem, Schedule
from seedance_avatar.text import safe_text
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .client import Client, Turn
from .gate import Flow
from .tasks import ENDS_THE_PROGRAM, TaskSet

_log = logging.getLogger("seedance_avatar")


class PollingBroke(AvatarError):  # noqa: N818 - to who waits it is an AvatarError
    """A task of the poller died, for its ``__cause__`` where there is one: nothing that was pending is polled on."""


class Pollable(Protocol):
    """An item that can be polled: it builds its status request, reads the response, and gets the result."""

    misses: int  # how many status requests for it failed in a row
    teaches: bool  # whether the completion times of its kind may be learned from it

    def question(self) -> Request:
        """Return the status request."""

    def read(self, response: Response, /) -> Any:  # noqa: ANN401 - an Asset or a VideoTask; only is_terminal and is_failed are used here
        """Return the item as ``response`` describes it; it has ``is_terminal`` and ``is_failed``."""

    def saw(self, item: Any) -> None:  # noqa: ANN401 - what read() returned
        """Take the item after each status request that finds it unfinished."""

    def ended(self, item: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - what read() returned, or None
        """Take the result, once: the finished ``item``, or the ``error`` for which the polling stopped."""


def _read(payload: Pollable, response: Response) -> Any:  # noqa: ANN401 - an Asset or a VideoTask
    """Read ``response``: a bug in a reader is an error of its item, and must not end the poller."""
    try:
        return payload.read(response)
    except AvatarError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the bug raises
        _log.exception("polling met an unexpected error")
        message = f"polling broke: {safe_text(repr(error))}"
        raise AvatarError(message) from None


@attrs.define(eq=False, repr=False)
class Poller:
    """Polls items until they are finished, their deadline has passed, or polling is refused.

    *When* to look is decided by the schedule, *how fast* by the client's limits. The turn is taken before an item is
    chosen, so that it goes to the item whose status request is worth most at that moment.
    """

    client: Client
    schedule: Schedule
    tasks: TaskSet
    flow: Flow = attrs.field(factory=lambda: Flow("polling"))
    _items: Expiry = attrs.field(factory=Expiry)
    _timer: asyncio.TimerHandle | None = None
    _stir: asyncio.Event = attrs.field(factory=asyncio.Event)
    _dispatcher: asyncio.Task[None] | None = None
    _asleep_until: float = float("inf")

    def __len__(self) -> int:
        return len(self._items)

    def add(self, pending: PendingItem) -> None:
        """Start polling ``pending`` (a :class:`Pollable` is its payload); ``ended`` is called once."""
        if self.flow.halted is not None:
            pending.payload.ended(None, self.flow.halted)
            return
        self._items.add(pending)
        self._arm()
        self.schedule.add(pending, self.client.clock())
        if self._dispatcher is None:
            self._dispatcher = self.tasks.spawn(self._dispatch(), name="seedance-avatar: polling")
            self._dispatcher.add_done_callback(self._gone)
        self._nudge()

    def wake(self) -> None:
        """Look at the state again: an outage began, which something that is pending may probe before it is due."""
        self._stir.set()

    def _next_due(self) -> float | None:
        due = self.schedule.next_due()
        return float("-inf") if due is not None and self.client.probing else due

    def _nudge(self) -> None:
        due = self._next_due()
        if due is not None and due < self._asleep_until:
            self._stir.set()

    def discard(self, pending: PendingItem) -> None:
        """Stop polling ``pending``; its ``ended`` is not called any more."""
        if self._items.discard(pending):
            self.schedule.discard(pending)
            self._disarm()

    def _arm(self) -> None:
        """Have a timer for the next deadline: it passes whether polls are answered, refused, or wait for a turn."""
        at = self._items.next_at()
        if at is not None and (self._timer is None or at < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(at, self._expire)

    def _disarm(self) -> None:
        if not self._items and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        for pending in self._items.expired(self.client.clock()):
            self.schedule.discard(pending)
            pending.payload.ended(None, self._late(pending))
        self._arm()

    def halt(self, error: AvatarError) -> None:
        """End everything that is pending, and whatever is added later, with ``error``."""
        self.flow.halt(error)
        self._end_all(error)
        self._stir.set()

    async def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        while self.flow.halted is None:
            due = self._next_due()
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
                # Halted, or nothing was reached for retry.patience seconds.
                self._end_all(error)

    async def _look_once(self) -> None:
        turn = await self.client.take_turn(self.flow)
        pending = self._pop(turn)
        if pending is not None:
            self.tasks.spawn(self._looks(pending, turn), name="seedance-avatar: looks").add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        """End all that is pending when a task of the poller dies: what it had in hand would be looked at by nobody."""
        if task is self._dispatcher:
            self._dispatcher = None  # the next item starts another
        if task.cancelled():
            self._died("it was cancelled from outside")
        elif (cause := task.exception()) is not None:
            self._died(repr(cause), cause)

    def _died(self, why: str, cause: BaseException | None = None) -> None:
        if self._items:
            error = PollingBroke(f"polling broke: {safe_text(why)}")
            error.__cause__ = cause
            _log.critical("%s", error.message)
            self._end_all(error)

    def _pop(self, turn: Turn) -> PendingItem | None:
        pending = None
        try:
            now = self.client.clock()
            pending = self.schedule.pop(max(now, self.schedule.next_due() or now) if turn.probe else now)
        finally:
            if pending is None:
                self.client.give_back(turn)
        return pending

    async def _looks(self, pending: PendingItem | None, turn: Turn | None) -> None:
        """Look at ``pending``, then at whatever is due: a task for each look would double the CPU of one."""
        while pending is not None and turn is not None:
            await self._look(pending, turn)
            due = self.schedule.next_due()
            turn = None if due is None or due > self.client.clock() else self.client.try_turn(self.flow)
            pending = None if turn is None else self._pop(turn)

    async def _look(self, pending: PendingItem, turn: Turn) -> None:
        client = self.client
        payload: Pollable = pending.payload
        looked_at = client.clock()
        try:
            item = await client.send(turn, payload.question(), partial(_read, payload))
        except AvatarError as error:
            if pending in self._items:
                self._failed(pending, payload, turn, error)
            return
        except ENDS_THE_PROGRAM as error:  # of the caller's own code: it leaves where they wait for the items
            self._died(repr(error), error)
            return
        if pending not in self._items:
            return
        now = client.clock()
        payload.misses = 0
        if item.is_terminal:
            if item.is_failed or not payload.teaches:
                self.schedule.discard(pending)
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

    def _failed(self, pending: PendingItem, payload: Pollable, turn: Turn, error: AvatarError) -> None:
        now = self.client.clock()
        meaning, pause = self.client.after_failed_poll(
            turn,
            error,
            age=now - pending.accepted_at,
            late=pending.deadline is not None and now >= pending.deadline,
            misses=payload.misses,
        )
        match meaning:
            case "again":
                payload.misses += 1
                self.schedule.defer(pending, now + pause)
                self._nudge()
            case "late":
                self._end(pending, None, self._late(pending))
            case "end":
                self._end(pending, None, error)
            case "end all":
                self._end_all(self.client.gave_up or error)

    def _end(self, pending: PendingItem, item: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - an Asset or a VideoTask
        self._items.discard(pending)
        self._disarm()
        pending.payload.ended(item, error)

    def _end_all(self, error: AvatarError) -> None:
        for pending in list(self._items):
            if pending in self._items:  # and was not discarded at the end of another
                self.schedule.discard(pending)
                self._end(pending, None, error)
