"""The tasks of a session: each is known while it runs, and all have ended when it is closed; and what may end one.

Python takes some exceptions for something else on their way out: the end of an iteration, the end of a generator, a
cancellation that nobody asked for. Raised by the caller's own code (a group callable, key provider, source or observer)
they would be silent, or end a task that is not theirs (PEP 479 has that reason).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import anyio
import attrs

T = TypeVar("T")

# They leave as themselves, whoever raises them: from an observer through the loop, not through what it observes.
ENDS_THE_PROGRAM: Final = (KeyboardInterrupt, SystemExit)
_MISREAD: Final = (StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError)


def being_cancelled(error: BaseException) -> bool:
    """Return whether ``error`` is the cancellation of the running task, not of something that it awaited."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def raisable(error: BaseException, who: str) -> BaseException:
    """Return what to raise for an ``error`` of ``who``, code of the caller: itself, or a RuntimeError that names it."""
    if not isinstance(error, _MISREAD):
        return error
    named = RuntimeError(f"{who} raised {type(error).__name__}")
    named.__cause__ = error
    return named


@attrs.define(eq=False, repr=False)
class TaskSet:
    """The running tasks of one session.

    A session may be opened in one task and closed in another (by fixtures, lifespans, exit stacks), so it cannot enter
    a task group. This is what it needs of one: a strong reference to each task, and a close that leaves none running.
    """

    _tasks: set[asyncio.Task[Any]] = attrs.field(factory=set)

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start ``coroutine`` as a task, and keep it until it ends."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def gone(self, timeout: float) -> None:  # noqa: ASYNC109 - the tasks go on after it, so no cancel scope of the caller can replace it
        """Wait until all that run now have ended, at most ``timeout`` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    async def aclose(self) -> None:
        """Cancel what still runs, and wait until all of it has ended; cancelled, it does not wait for all."""
        current = asyncio.current_task()
        while rest := [task for task in self._tasks if task is not current]:
            for task in rest:
                task.cancel()
            await asyncio.wait(rest)


async def wait_through_cancel(task: asyncio.Task[Any], *, second_cancels: bool = True) -> None:
    """Wait until ``task`` is over, even when cancelled, which is raised then; a second time may cancel ``task``."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                if cancelled is not None and second_cancels:
                    task.cancel()
                cancelled = error
    if cancelled is not None:
        raise cancelled
