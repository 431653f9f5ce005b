"""The sandbox's clock: the machine's, a function of the caller's, or one that only ``advance`` moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

import attrs

__all__ = ["Clock"]

STEPPED_EPOCH = 1_760_000_000.0
"""The wall time at which a stepped clock starts, so that every stepped run is the same."""


@attrs.define(eq=False)
class Clock:
    """Seconds since the sandbox was created, and the corresponding wall time.

    :ivar source: where the seconds come from; None for the machine's monotonic clock.
    :ivar stepped: True when time moves by :meth:`advance` only.
    """

    source: Callable[[], float] | None = None
    stepped: bool = False
    _origin: float = attrs.field(init=False, default=0.0)
    _epoch: float = attrs.field(init=False, default=STEPPED_EPOCH)
    _sleepers: list[tuple[float, int, asyncio.Future[None]]] = attrs.field(init=False, factory=list)
    _ticket: itertools.count[int] = attrs.field(init=False, factory=itertools.count)
    _stepped_to: float = attrs.field(init=False, default=0.0)
    now: Callable[[], float] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.stepped:
            self.now = self._stepped_now
            return
        read = self.source or time.monotonic
        origin = self._origin = read()
        self._epoch = time.time()
        # A closure, because it is called several times for every request and attribute look-ups take time.
        self.now = lambda: read() - origin

    def _stepped_now(self) -> float:
        return self._stepped_to

    def wall(self) -> float:
        """Return seconds since the epoch, for dates in answers."""
        return self._epoch + self.now()

    def wall_at(self, moment: float) -> float:
        """Return seconds since the epoch at ``moment`` on this clock."""
        return self._epoch + moment

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``; on a stepped clock until :meth:`advance` has gone that far."""
        if not self.stepped:
            await asyncio.sleep(seconds)
            return
        if seconds <= 0:
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._stepped_to + seconds, next(self._ticket), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move a stepped clock ``seconds`` on and wake the sleepers that are due.

        :raises RuntimeError: the clock is not stepped.
        :raises ValueError: ``seconds`` is negative.
        """
        if not self.stepped:
            message = "only a stepped sandbox can be advanced: build it with Sandbox(stepped=True)"
            raise RuntimeError(message)
        if seconds < 0:
            message = f"time moves forward only, not by {seconds!r} seconds"
            raise ValueError(message)
        self._stepped_to += seconds
        while self._sleepers and self._sleepers[0][0] <= self._stepped_to:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
