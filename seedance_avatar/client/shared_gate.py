"""A gate whose rate is shared by several processes: each turn reserves a time slot from the shared limit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, Literal

import attrs

from seedance_avatar.errors import AvatarError, ConnectionFailed
from seedance_avatar.limits.pacer import QUERIES, SUBMITS, Pacer
from seedance_avatar.limits.rate_finder import Prior
from seedance_avatar.options import Limits, Permits, Retry, SharedLimits

from .gate import Flow, Gate
from .retry import backoff

__all__ = ["AHEAD", "SharedGate", "gates"]

AHEAD: Final = 4
"""Slots that one process may have reserved and not used yet, in one lane.

More would be unfair to the other processes and lose more slots when this one dies; with one, the round trip to the
store of the limits would bound the rate.
"""


@attrs.define(eq=False, repr=False, kw_only=True)
class SharedGate(Gate):
    """A :class:`Gate` that, when it is a caller's turn, waits for the slot that the shared limit assigns.

    Only the rate is shared: the order of turns, the width and the pauses are this process's own. A slot that is
    reserved and not used (its caller was cancelled) is lost, never used twice.
    """

    permits: Permits
    lane: Literal["submit", "query"]
    retry: Retry
    rng: random.Random
    turns: Gate
    """Admits callers to reserve a slot: at most :data:`AHEAD` at a time."""
    _unreachable_since: float | None = None
    _tries: int = 0
    _asleep: set[asyncio.Future[None]] = attrs.field(factory=set)

    @property
    def waiting(self) -> int:
        """How many callers wait for their turn."""
        return self.turns.waiting + super().waiting

    def try_acquire(self, flow: Flow) -> bool:
        """Return False: reserving a slot takes a round trip."""
        del flow
        return False

    async def acquire(self, flow: Flow) -> None:
        """Wait for a turn and its slot; it needs one :meth:`release`.

        :raises ConnectionFailed: the store of the limits was not reached for ``retry.patience`` seconds.
        :raises AvatarError: what the flow was halted, or the gate closed, with.

        Cancelled while waiting, no turn is taken; a slot that was reserved is lost.
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
            await self._sleep(flow, wait)
            now = self.clock()
            wait = self.pacer.next_at(now) - now  # the lane may have been paused meanwhile
        # While the slot was reserved, neither a halt nor a close could end this wait.
        if (ended := self._closed or flow.halted) is not None:
            raise ended.with_traceback(None)

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
                await self._sleep(flow, backoff(self._tries, base=self.retry.base, cap=self.retry.cap, rng=self.rng))
            else:
                self._unreachable_since = None
                return wait

    async def _sleep(self, flow: Flow, seconds: float) -> None:
        """Sleep; raise as soon as the flow is halted or the gate closed."""

        def wake() -> None:
            if not turn.done():
                turn.set_result(None)

        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, wake)
        self._asleep.add(turn)
        try:
            await flow.wait(turn)
        finally:
            self._asleep.discard(turn)
            timer.cancel()

    def brake(self, seconds: float) -> None:
        """Let no request out for ``seconds``, in any of the processes."""
        super().brake(seconds)
        self.permits.brake(self.lane, seconds)

    def close(self, error: AvatarError) -> None:
        """Refuse every caller from now on, those who wait included, with ``error``."""
        self.turns.close(error)
        super().close(error)
        for turn in self._asleep:
            if not turn.done():
                turn.set_exception(error)


def gates(
    limits: Limits | SharedLimits,
    permits: Permits | None,
    *,
    retry: Retry,
    clock: Callable[[], float],
    rng: random.Random,
) -> tuple[Gate, Gate]:
    """Return the gates of submissions and of queries under ``limits``.

    :param permits: the connection to shared limits; None for limits of one session.
    """
    if isinstance(limits, Limits):
        submits = Pacer.build(rate=limits.submits_per_second, burst=limits.submit_burst, start=SUBMITS, rng=rng)
        queries = Pacer.build(rate=limits.queries_per_second, burst=limits.query_burst, start=QUERIES, rng=rng)
        return Gate(submits, limits.max_submitting, clock), Gate(queries, limits.max_polling, clock)
    assert permits is not None  # noqa: S101 - the engine opens shared limits before it calls this

    def unpaced(start: Prior) -> Pacer:
        return Pacer.build(rate=1e9, burst=1_000_000_000, start=start, rng=rng)

    def shared(lane: Literal["submit", "query"], start: Prior, width: int) -> Gate:
        return SharedGate(
            pacer=unpaced(start),
            width=width,
            clock=clock,
            permits=permits,
            lane=lane,
            retry=retry,
            rng=rng,
            turns=Gate(unpaced(start), AHEAD, clock),
        )

    return shared("submit", SUBMITS, limits.max_submitting), shared("query", QUERIES, limits.max_polling)
