"""A fair queue in front of the rate limiter; each flow of requests can be stopped on its own.

A *flow* is one competitor for the session's limits: an ingest, the polling of everything pending, or all single calls
together. A flow is served first come, first served; the flows take turns (round robin), so an ingest of a million
sources does not keep one ``upload`` waiting behind its whole queue.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final, Literal, TypeVar

import attrs

from seedance_avatar.errors import AvatarError, ConnectionFailed
from seedance_avatar.limits.pacer import QUERIES, SUBMITS, Pacer, Prior
from seedance_avatar.options import Limits, Permits, Retry, SharedLimits

from .retry import backoff

T = TypeVar("T")

# Slots that one process may have reserved and not used yet, in one lane. More would be unfair to the others, and lose
# more slots when this one dies; with one, the round trip to the store of the limits would bound the rate.
AHEAD: Final = 4


@attrs.define(eq=False, repr=False)
class Flow:
    """One competitor for the limits, which can be halted.

    Every wait of a flow (for a turn, for a pause between tries, for an outage to end) goes through :meth:`wait`, so
    that :meth:`halt` ends all of them at once without cancelling any task. What was sent does not wait here.
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

    async def sleep(self, seconds: float | None, sleepers: set[asyncio.Future[bool]] | None = None) -> bool:
        """Sleep for ``seconds``, without end where that is None; raise as soon as the flow is halted.

        :param sleepers: holds the sleep while it lasts, for others to :func:`wake`.
        :returns: whether it slept so long, and was not woken.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, wake, turn, True)  # noqa: FBT003 - call_later takes no keywords
        sleepers = set() if sleepers is None else sleepers
        sleepers.add(turn)
        try:
            return await self.wait(turn)
        finally:
            sleepers.discard(turn)
            if timer is not None:
                timer.cancel()

    def halt(self, error: AvatarError) -> None:
        """End every wait of this flow, now and from now on, with ``error``. A second halt changes nothing."""
        if self.halted is None:
            self.halted = error
            for turn in self._waiting:
                if not turn.done():
                    turn.set_exception(error)


def wake(turn: asyncio.Future[bool], slept: bool = False) -> None:  # noqa: FBT001, FBT002 - call_later takes no keywords
    """End a sleep."""
    if not turn.done():
        turn.set_result(slept)


@attrs.define(eq=False, repr=False)
class Gate:
    """Admits the requests of one lane: as fast as its pacer permits, and at most ``width`` at a time."""

    pacer: Pacer
    width: int
    clock: Callable[[], float]
    inside: int = 0  # how many requests are under way
    _queues: OrderedDict[Flow, deque[asyncio.Future[None]]] = attrs.field(factory=OrderedDict)
    _asleep: set[asyncio.Future[bool]] = attrs.field(factory=set)  # who has a turn, and waits for something else
    _timer: asyncio.TimerHandle | None = None
    _closed: AvatarError | None = None

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
        """Wait for a turn and take it; it needs one :meth:`release`. Cancelled while waiting, none is taken or lost.

        :raises AvatarError: what the gate was closed, or the flow halted, with.
        """
        if self.try_acquire(flow):
            return
        self._check_open(flow)
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

    def _check_open(self, flow: Flow) -> None:
        if (ended := self._closed or flow.halted) is not None:
            raise ended.with_traceback(None)

    def release(self) -> None:
        """End a turn: the request is finished."""
        self.inside -= 1
        if self._queues:
            self._release()

    def cancel(self) -> None:
        """Return a turn with which no request was sent: the limit counts it as never taken."""
        self.pacer.cancel()
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
        turns: Iterator[asyncio.Future[Any]] = chain(self._asleep, *queues.values())
        for turn in turns:
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


@attrs.define(eq=False, repr=False, kw_only=True)
class SharedGate(Gate):
    """A :class:`Gate` whose rate several processes share: at its turn a caller waits for the slot that it reserves.

    Only the rate is shared: the order of turns, the width and the pauses are this process's own. A slot that is
    reserved and not used (its caller was cancelled) is lost, never used twice.
    """

    permits: Permits
    lane: Literal["submit", "query"]
    retry: Retry
    rng: random.Random
    turns: Gate  # admits callers to reserve a slot: at most AHEAD at a time
    _unreachable_since: float | None = None
    _tries: int = 0

    @property
    def waiting(self) -> int:
        """How many callers wait for their turn."""
        return self.turns.waiting + super().waiting

    def try_acquire(self, flow: Flow) -> bool:
        """Return False: reserving a slot takes a round trip."""
        del flow
        return False

    async def acquire(self, flow: Flow) -> None:
        """Wait for a turn and its slot, as :meth:`Gate.acquire` does.

        :raises ConnectionFailed: the store of the limits was not reached for ``retry.patience`` seconds.
        """
        await self.turns.acquire(flow)
        try:
            await super().acquire(flow)
            try:
                await self._slot(flow)
            except BaseException:
                self.cancel()
                raise
        finally:
            self.turns.release()

    async def _slot(self, flow: Flow) -> None:
        wait = await self._reserve(flow)
        while wait > 0.0:
            await flow.sleep(wait, self._asleep)
            now = self.clock()
            wait = self.pacer.next_at(now) - now  # the lane may have been paused meanwhile
        self._check_open(flow)  # while the slot was reserved, neither a halt nor a close could end this wait

    async def _reserve(self, flow: Flow) -> float:
        while True:
            try:
                wait = await self.permits.reserve(self.lane)
            except ConnectionFailed as error:
                now = self.clock()
                if self._unreachable_since is None:
                    self._unreachable_since, self._tries = now, 0
                if error.fatal or now - self._unreachable_since >= self.retry.patience:
                    raise
                self._tries += 1
                pause = backoff(self._tries, base=self.retry.base, cap=self.retry.cap, rng=self.rng)
                await flow.sleep(pause, self._asleep)
            else:
                self._unreachable_since = None
                return wait

    def brake(self, seconds: float) -> None:
        """Let no request out for ``seconds``, in any of the processes."""
        super().brake(seconds)
        self.permits.brake(self.lane, seconds)

    def close(self, error: AvatarError) -> None:
        """Refuse every caller from now on, those who wait included, with ``error``."""
        self.turns.close(error)
        super().close(error)


def gates(
    limits: Limits | SharedLimits,
    permits: Permits | None,
    *,
    retry: Retry,
    clock: Callable[[], float],
    rng: random.Random,
) -> tuple[Gate, Gate]:
    """Return the gates of submissions and of queries under ``limits``; ``permits`` is the line to shared ones."""
    if isinstance(limits, Limits):
        submits = Pacer.build(rate=limits.submits_per_second, burst=limits.submit_burst, start=SUBMITS, rng=rng)
        queries = Pacer.build(rate=limits.queries_per_second, burst=limits.query_burst, start=QUERIES, rng=rng)
        return Gate(submits, limits.max_submitting, clock), Gate(queries, limits.max_polling, clock)
    assert permits is not None  # noqa: S101 - the engine opens shared limits before it calls this

    def shared(lane: Literal["submit", "query"], start: Prior, width: int) -> Gate:
        pacer, ahead = (Pacer.build(rate=1e9, burst=1_000_000_000, start=start, rng=rng) for _ in range(2))
        turns = Gate(ahead, AHEAD, clock)
        return SharedGate(
            pacer=pacer, width=width, clock=clock, permits=permits, lane=lane, retry=retry, rng=rng, turns=turns
        )

    return shared("submit", SUBMITS, limits.max_submitting), shared("query", QUERIES, limits.max_polling)
