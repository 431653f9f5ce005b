"""A gate whose rate is not this session's own: each turn asks for a moment in what several processes share."""

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
"""Moments that one process may have reserved and not used yet, in one lane.

More would make a fleet unfair (who asks first has the next minute) and lose that much when a process dies; one
would let the way to the keeper of the limits bound the rate.
"""


@attrs.define(eq=False, repr=False, kw_only=True)
class SharedGate(Gate):
    """A :class:`Gate` that, once it is a caller's turn here, waits for the moment that the fleet's limit has for it.

    Turns are fair between flows, the width and the brakes are this process's own; only the rate is shared. A
    moment that is reserved and not used (its caller was cancelled) is lost, never used twice.
    """

    permits: Permits
    lane: Literal["submit", "query"]
    retry: Retry
    rng: random.Random
    turns: Gate
    """Who may ask for a moment next: at most :data:`AHEAD` at a time."""
    _away_since: float | None = None
    _tries: int = 0
    _asleep: set[asyncio.Future[None]] = attrs.field(factory=set)

    @property
    def waiting(self) -> int:
        """How many callers wait for their turn."""
        return self.turns.waiting + super().waiting

    def try_acquire(self, flow: Flow) -> bool:
        """Return False: a moment of the fleet has to be asked for, which takes a round trip."""
        del flow
        return False

    async def acquire(self, flow: Flow) -> None:
        """Wait for a turn and for its moment; every :meth:`enter` needs one :meth:`leave`.

        :raises ConnectionFailed: who keeps the limits was not reached for ``retry.patience`` seconds.
        :raises AvatarError: what the flow was halted, or the gate closed, with.

        Cancelled while waiting, no turn is taken; a moment that was reserved is lost.
        """
        await self.turns.acquire(flow)
        try:
            await super().acquire(flow)
            try:
                await self._moment(flow)
            except BaseException:
                self.cancel()
                raise
        finally:
            self.turns.release()

    async def _moment(self, flow: Flow) -> None:
        wait = await self._reserve(flow)
        while wait > 0.0:
            await self._sleep(flow, wait)
            now = self.clock()
            wait = self.pacer.next_at(now) - now  # a brake may have come meanwhile
        # While it was being asked for, nothing could wake it.
        if (ended := self._closed or flow.halted) is not None:
            raise ended.with_traceback(None)

    async def _reserve(self, flow: Flow) -> float:
        while True:
            try:
                wait = await self.permits.reserve(self.lane)
            except ConnectionFailed as error:
                now = self.clock()
                if self._away_since is None:
                    self._away_since, self._tries = now, 0
                if error.fatal or now - self._away_since >= self.retry.patience:
                    raise
                self._tries += 1
                await self._sleep(flow, backoff(self._tries, base=self.retry.base, cap=self.retry.cap, rng=self.rng))
            else:
                self._away_since = None
                return wait

    async def _sleep(self, flow: Flow, seconds: float) -> None:
        """Sleep, until the flow is halted or the gate closed at the longest (then raise)."""

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
        """Let nobody out for so many seconds, neither here nor in the rest of the fleet."""
        super().brake(seconds)
        self.permits.brake(self.lane, seconds)

    def close(self, error: AvatarError) -> None:
        """Let nobody in any more: every waiting caller gets ``error``."""
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

    :param permits: the line to limits that are shared; None for a session's own.
    """
    if isinstance(limits, Limits):
        submits = Pacer.build(rate=limits.submits_per_second, burst=limits.submit_burst, start=SUBMITS, rng=rng)
        queries = Pacer.build(rate=limits.queries_per_second, burst=limits.query_burst, start=QUERIES, rng=rng)
        return Gate(submits, limits.max_submitting, clock), Gate(queries, limits.max_polling, clock)
    assert permits is not None  # noqa: S101 - whoever shares limits has opened the line to them

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
