"""Every await of a piece of work, counted over all its tasks, and the work cancelled at the one that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Suspensions", "counted"]

OURS = ("/seedance_avatar/", "/anyio/")


class Suspensions:
    """Counts suspensions; at each one named by :meth:`at` it calls what it was given.

    :ivar count: how many there were so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._at: dict[int, Callable[[], object]] = {}

    def at(self, number: int, call: Callable[[], object]) -> None:
        """Call ``call`` when something suspends for the ``number``-th time, from 1."""
        self._at[number] = call

    def wrap(self, coroutine: Any) -> Coroutine[Any, Any, Any]:
        """Return a coroutine that does the same, counted."""

        async def counted_coroutine() -> Any:
            return await _Counted(self, coroutine)

        return counted_coroutine()

    def suspended(self) -> None:
        self.count += 1
        call = self._at.pop(self.count, None)
        if call is not None:
            call()


class _Counted(Awaitable[Any]):
    def __init__(self, suspensions: Suspensions, coroutine: Any) -> None:
        self._suspensions = suspensions
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731 - replaced below, each turn
        while True:
            try:
                future = step()
            except StopIteration as end:
                return end.value
            self._suspensions.suspended()
            try:
                yield future
            except BaseException as error:  # noqa: BLE001 - handed on to where it belongs, cancellations included
                step = _throwing(self._coroutine, error)
            else:
                step = lambda: self._coroutine.send(None)  # noqa: E731 - as above


def _throwing(coroutine: Any, error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)


@contextmanager
def counted() -> Iterator[Suspensions]:
    """Count the suspensions of the library's own tasks in the running loop, and of what :meth:`wrap` was given."""
    loop: Any = asyncio.get_running_loop()
    suspensions = Suspensions()

    def factory(loop: Any, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        code = getattr(coroutine, "cr_code", None)
        ours = code is not None and any(part in code.co_filename for part in OURS) and "sandbox" not in code.co_filename
        return asyncio.Task(suspensions.wrap(coroutine) if ours else coroutine, loop=loop, **more)

    loop.set_task_factory(factory)
    try:
        yield suspensions
    finally:
        loop.set_task_factory(None)
