"""The running loop's clock in a test's hands: faster than the wall's, and able to jump ahead as after a stall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["LoopClock", "loop_clock"]


class LoopClock:
    """What ``loop.time()`` says inside :func:`loop_clock`; ``speed`` of its seconds pass in a real one."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._began = time.monotonic()
        self._ahead = 0.0

    def now(self) -> float:
        return self._began + (time.monotonic() - self._began) * self.speed + self._ahead

    def stall(self, seconds: float) -> None:
        """Let so many seconds pass in which the loop did nothing: all timers of that time are due at once."""
        self._ahead += seconds


@contextmanager
def loop_clock(speed: float = 1.0) -> Iterator[LoopClock]:
    """Put a :class:`LoopClock` in place of the running loop's; open sessions inside, since they keep the clock."""
    loop: Any = asyncio.get_running_loop()
    if not hasattr(loop, "_selector"):
        pytest.skip("the clock of this event loop is in no test's hands")
    clock = LoopClock(speed)
    select = loop._selector.select

    def scaled(timeout: float | None) -> Any:
        return select(timeout if timeout is None else timeout / speed)

    loop.time, loop._selector.select = clock.now, scaled
    try:
        yield clock
    finally:
        del loop.time, loop._selector.select
