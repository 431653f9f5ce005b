"""A time-out that a stall does not spring: a loop that comes back late first reads what has arrived meanwhile."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

__all__ = ["Deadline"]

_GRACE: Final = 1.0
"""Seconds at most that a deadline is put off by."""


class Deadline:
    """``async with Deadline(seconds):`` raises :class:`TimeoutError` when its body takes longer.

    A machine that slept for ten minutes, or a loop that was blocked for them, finds every timer of that time due
    in its first turn, and the answers that came in the same turn unread. Each of them would be a submission in
    doubt. So a timer that comes late gives as long again as it is late, a second at most.
    """

    __slots__ = ("_due", "_loop", "_scope", "_timer")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._due = self._loop.time() + seconds
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        self._timer = self._loop.call_at(self._due, self._late)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    def _late(self) -> None:
        late = self._loop.time() - self._due
        self._timer = self._loop.call_later(min(late, _GRACE), self._over)

    def _over(self) -> None:
        self._scope.reschedule(self._loop.time())
