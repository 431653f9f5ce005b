"""The sandbox's clock: the machine's, a function of the caller's, or one that only ``advance`` moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable


class Clock:
    """Seconds since the sandbox was created, by ``now()``, and the corresponding wall time."""

    def __init__(self, source: Callable[[], float] | None, *, stepped: bool) -> None:
        read = source or time.monotonic
        origin = read()
        self._stepped = stepped
        self._stepped_to = 0.0
        self._epoch = 1_760_000_000.0 if stepped else time.time()  # a constant: every stepped run is the same
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ticket = itertools.count()
        # A closure, because it is called several times for every request and attribute look-ups take time.
        self.now: Callable[[], float] = (lambda: self._stepped_to) if stepped else (lambda: read() - origin)

    def wall_at(self, moment: float) -> float:
        """Return seconds since the epoch at ``moment`` on this clock."""
        return self._epoch + moment

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``; on a stepped clock until :meth:`advance` has gone that far."""
        if not self._stepped:
            await asyncio.sleep(seconds)
        elif seconds > 0:
            woken = asyncio.get_running_loop().create_future()
            heapq.heappush(self._sleepers, (self._stepped_to + seconds, next(self._ticket), woken))
            await woken

    def advance(self, seconds: float) -> None:
        """Move a stepped clock on and wake the sleepers that are due."""
        if not self._stepped:
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
