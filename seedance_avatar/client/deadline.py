"""A timeout that gives a stalled event loop time to read what has arrived."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from types import TracebackType
from typing import Final

import attrs

_GRACE: Final = 1.0  # seconds by which a deadline is extended at most


@attrs.define(eq=False, repr=False)
class Deadlines:
    """Timeouts of one length, for any number of bodies at a time: ``with deadlines.one(): ...``.

    After a suspend, or while the loop is blocked, every timer is due in the first turn of the loop, before the
    responses that arrived meanwhile are read: each of them would be a submission in doubt. So a timer that fires
    late is extended by as long as it is late, by a second at most.

    Deadlines of one length are due in the order in which they begin, so one timer serves them all. A timer for each
    would cost more CPU than everything else here does for a request.
    """

    _seconds: float
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)
    _running: OrderedDict[Deadline, None] = attrs.field(factory=OrderedDict)
    _timer: asyncio.TimerHandle | None = None

    def one(self) -> Deadline:
        """Return a deadline, which runs from when it is entered."""
        return Deadline(self)

    def stop(self) -> None:
        """Cancel the timer: bodies that run are not ended any more."""
        if self._timer is not None:
            self._timer.cancel()

    def begin(self, deadline: Deadline) -> float:
        """Add ``deadline``, and return when it is due."""
        due = self._loop.time() + self._seconds
        self._running[deadline] = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)
        return due

    def end(self, deadline: Deadline) -> None:
        """Remove ``deadline``."""
        self._running.pop(deadline, None)

    def _look(self) -> None:
        """Extend what is due, or sleep until something is."""
        first = next(iter(self._running), None)
        now = self._loop.time()
        if first is None:
            self._timer = None
        elif first.due > now:
            self._timer = self._loop.call_at(first.due, self._look)
        else:
            self._timer = self._loop.call_later(min(now - first.due, _GRACE), self._expire, now)

    def _expire(self, seen: float) -> None:
        """End every body that was due at ``seen`` and has not finished since."""
        while self._running:
            first = next(iter(self._running))
            if first.due > seen:
                break
            del self._running[first]
            first.expire()
        self._look()


@attrs.define(eq=False, repr=False)
class Deadline:
    """A context manager that raises :class:`TimeoutError` when its body takes longer; see :class:`Deadlines`."""

    _all: Deadlines
    due: float = 0.0
    _task: asyncio.Task[object] | None = None
    _pending_cancels: int = 0  # cancellations of the task that were pending when it began
    _expired: bool = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        if self._task is None:
            message = "a deadline needs a task to cancel"
            raise RuntimeError(message)
        self._pending_cancels = self._task.cancelling()
        self.due = self._all.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._all.end(self)
        # As in asyncio.timeout: when the task was cancelled from outside as well, that cancellation is raised.
        mine = self._expired and self._task is not None and self._task.uncancel() <= self._pending_cancels
        if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
        self._task = None

    def expire(self) -> None:
        """End the body."""
        if self._task is not None:
            self._expired = True
            self._task.cancel()
