"""A fair queue in front of the rate limiter; each flow of requests can be stopped on its own.

A *flow* is one competitor for the session's limits: an ingest, the polling of everything pending, or all
single calls together. A flow is served first come, first served; the flows take turns (round robin), so an
ingest of a million sources does not keep one ``upload`` waiting behind its whole queue.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import attrs

from seedance_avatar.errors import AvatarError
from seedance_avatar.limits.pacer import Pacer

__all__ = ["Flow", "Gate"]

T = TypeVar("T")


@attrs.define(eq=False, repr=False)
class Flow:
    """One competitor for the limits, which can be halted.

    Every wait of a flow (for a turn, for a pause between tries, for an outage to end) goes through
    :meth:`wait`, so that :meth:`halt` ends all of them at once without cancelling any task. Requests that were
    sent do not wait here and are not affected.
    """

    name: str
    halted: AvatarError | None = None
    _waiting: set[asyncio.Future[Any]] = attrs.field(factory=set)

    async def wait(self, turn: asyncio.Future[T]) -> T:
        """Return the result of ``turn``; raise the error that the flow was halted with as soon as it is."""
        if self.halted is not None:
            turn.cancel()
            raise self.halted.with_traceback(None)  # raised in many tasks: it must not collect the frames of all
        self._waiting.add(turn)
        try:
            return await turn
        finally:
            self._waiting.discard(turn)

    async def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds``, or until the flow is halted (then raise)."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _grant, turn)
        try:
            await self.wait(turn)
        finally:
            timer.cancel()

    def halt(self, error: AvatarError) -> None:
        """End every wait of this flow, now and from now on, with ``error``. A second halt changes nothing."""
        if self.halted is None:
            self.halted = error
            for turn in self._waiting:
                if not turn.done():
                    turn.set_exception(error)


def _grant(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class Figures(NamedTuple):
    """A gate at one moment: requests under way, callers waiting, and the pacer's rate and the reason for it."""

    sending: int
    waiting: int
    rate: float | None
    why: str


@attrs.define(eq=False, repr=False)
class Gate:
    """Admits the requests of one lane: as fast as its pacer permits, and at most ``width`` at a time.

    :ivar width: how many requests may be under way at one time.
    :ivar inside: how many are.
    """

    pacer: Pacer
    width: int
    clock: Callable[[], float]
    inside: int = 0
    _queues: OrderedDict[Flow, deque[asyncio.Future[None]]] = attrs.field(factory=OrderedDict)
    _timer: asyncio.TimerHandle | None = None
    _closed: AvatarError | None = None

    def figures(self) -> Figures:
        """Return the gate's figures at this moment."""
        return Figures(self.inside, self.waiting, self.pacer.rate, self.pacer.why)

    @property
    def waiting(self) -> int:
        """How many callers wait for their turn."""
        return sum(not turn.done() for queue in self._queues.values() for turn in queue)

    def try_acquire(self, flow: Flow) -> bool:
        """Take a turn if one is free at this moment and nobody waits; if so, it needs one :meth:`release`."""
        if self._queues or self.inside >= self.width or flow.halted is not None or self._closed is not None:
            return False
        now = self.clock()
        if self.pacer.next_at(now) > now:
            return False
        self.pacer.take(now)
        self.inside += 1
        return True

    async def acquire(self, flow: Flow) -> None:
        """Wait for a turn and take it; it needs one :meth:`release`.

        :raises AvatarError: what the flow was halted, or the gate closed, with.

        Cancelled while waiting, no turn is taken and none is lost.
        """
        if self.try_acquire(flow):
            return
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        if flow.halted is not None:
            raise flow.halted.with_traceback(None)
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(flow, deque()).append(turn)
        self._release()
        try:
            await flow.wait(turn)
        except BaseException:
            # Granted and cancelled in the same step of the loop: the turn goes to the next in line.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.cancel()
            raise

    def release(self) -> None:
        """End a turn: the request is finished."""
        self.inside -= 1
        if self._queues:
            self._release()

    def cancel(self) -> None:
        """Return a turn with which no request was sent: the limit counts it as never taken."""
        self.pacer.cancel(self.clock())
        self.release()

    def brake(self, seconds: float) -> None:
        """Let no request out for ``seconds``, as the service asked."""
        self.pacer.brake(self.clock(), seconds)

    def close(self, error: AvatarError) -> None:
        """Refuse every caller from now on, those who wait included, with ``error``."""
        self._closed = error
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End every wait with ``error``."""
        self._disarm()
        queues, self._queues = self._queues, OrderedDict()
        for turn in chain(*queues.values()):
            if not turn.done():
                turn.set_exception(error)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self) -> None:
        """Let in whoever may come in now, and have a timer for the next."""
        self._disarm()
        try:
            self._let_in()
        except Exception as error:  # noqa: BLE001 - a bug in the pacer: nobody may be left waiting for a timer that is gone
            self._fail(error)

    def _let_in(self) -> None:
        while self._queues and self.inside < self.width:
            flow, queue = next(iter(self._queues.items()))
            while queue and queue[0].done():  # cancelled, or its flow was halted
                queue.popleft()
            if not queue:
                del self._queues[flow]
                continue
            now = self.clock()
            at = self.pacer.next_at(now)
            if at > now:
                self._timer = asyncio.get_running_loop().call_later(at - now, self._release)
                return
            self.pacer.take(now)
            self.inside += 1
            queue.popleft().set_result(None)
            if queue:
                self._queues.move_to_end(flow)
            else:
                del self._queues[flow]
