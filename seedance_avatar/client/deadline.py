"""A time-out that a stall does not spring: a loop that comes back late first reads what has arrived meanwhile."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from types import TracebackType
from typing import Final

__all__ = ["Deadline", "Deadlines"]

_GRACE: Final = 1.0
"""Seconds at most that a deadline is put off by."""


class Deadlines:
    """Time-outs of one length, for as many bodies at a time as need one: ``with deadlines.one(): ...``.

    A machine that slept for ten minutes, or a loop that was blocked for them, finds every timer of that time due
    in its first turn, and the answers that came in the same turn unread. Each of them would be a submission in
    doubt. So a timer that comes late gives as long again as it is late, a second at most.

    What is of one length is due in the order of its beginning, so one timer does for all. A timer for each costs
    more CPU than everything else that is done about a request here.
    """

    __slots__ = ("_loop", "_running", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._running: OrderedDict[Deadline, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def one(self) -> Deadline:
        """Return a deadline; it runs from the moment it is entered."""
        return Deadline(self)

    def stop(self) -> None:
        """Let go of the timer: nothing that runs is ended any more."""
        if self._timer is not None:
            self._timer.cancel()

    def begin(self, deadline: Deadline) -> float:
        """Take ``deadline`` up, and return when it is due."""
        due = self._loop.time() + self._seconds
        self._running[deadline] = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)
        return due

    def end(self, deadline: Deadline) -> None:
        """Forget ``deadline``."""
        self._running.pop(deadline, None)

    def _look(self) -> None:
        """Give grace to what is due, or sleep until something is."""
        first = next(iter(self._running), None)
        now = self._loop.time()
        if first is None:
            self._timer = None
        elif first.due > now:
            self._timer = self._loop.call_at(first.due, self._look)
        else:
            self._timer = self._loop.call_later(min(now - first.due, _GRACE), self._spring, now)

    def _spring(self, seen: float) -> None:
        """End what was due when it was looked at, and is not over yet."""
        while self._running:
            first = next(iter(self._running))
            if first.due > seen:
                break
            del self._running[first]
            first.spring()
        self._look()


class Deadline:
    """``with`` one, :class:`TimeoutError` is raised when the body takes longer; see :class:`Deadlines`."""

    __slots__ = ("_all", "_asked", "_sprung", "_task", "due")

    def __init__(self, deadlines: Deadlines) -> None:
        self._all = deadlines
        self._task: asyncio.Task[object] | None = None
        self._asked = 0  # how often others had asked the task to end when it began
        self._sprung = False
        self.due: float = 0.0

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        if self._task is None:
            message = "a deadline needs a task to end"
            raise RuntimeError(message)
        self._asked = self._task.cancelling()
        self.due = self._all.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._all.end(self)
        # As in asyncio.timeout: a cancellation by others that came as well is theirs, and leaves as it is.
        mine = self._sprung and self._task is not None and self._task.uncancel() <= self._asked
        if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
        self._task = None

    def spring(self) -> None:
        """End the body."""
        if self._task is not None:
            self._sprung = True
            self._task.cancel()
