"""What becomes of exceptions of the caller's own code: group callable, key provider, source, observer, progress.

Python takes some exceptions for something else on their way out: the end of an iteration, the end of a generator,
a cancellation that nobody asked for. They would be silent, or end a task that is not theirs (PEP 479 has that reason).
"""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["ENDS_THE_PROGRAM", "being_cancelled", "raisable"]

ENDS_THE_PROGRAM: Final = (KeyboardInterrupt, SystemExit)
"""They leave as themselves, whoever raises them: from an observer through the loop, not through what it observes."""

_MISREAD: Final = (StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError)


def being_cancelled(error: BaseException) -> bool:
    """Return whether ``error`` is the cancellation of the running task, not of something that it awaited."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def raisable(error: BaseException, who: str) -> BaseException:
    """Return what to raise for an ``error`` that ``who``, code of the caller, raised.

    It is the error itself, or a :class:`RuntimeError` that names it where Python would take it for something else.
    """
    if not isinstance(error, _MISREAD):
        return error
    named = RuntimeError(f"{who} raised {type(error).__name__}")
    named.__cause__ = error
    return named
