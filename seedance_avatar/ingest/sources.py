"""Reading the caller's sources lazily, whatever they are, without ever stopping the loop."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextvars import copy_context
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import attrs

from seedance_avatar.client.tasks import being_cancelled, raisable
from seedance_avatar.errors import InvalidInput

__all__ = ["SourceReader"]

S = TypeVar("S")

_AT_HAND: Final = (list, tuple, set, frozenset, deque, range, dict)
"""What is in memory already: reading it cannot block, so it needs no thread."""

_ALIVE: Final = 0.25
"""Seconds between two looks at whether the reading thread still lives, while it is waited for."""


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _ThreadedReader:
    """The one thread that reads one iterable, from its first item to its last, as far as it is allowed to.

    One thread for all of it, because a generator may hold what only its own thread may touch (an sqlite3
    connection). A daemon, because a source that blocks for ever must not keep the interpreter from ending;
    the worker threads of the usual pools do. Each item can be taken as soon as it is read: the next one may
    be an hour away.

    It has a thread and is none: a subclass shares its names with whatever ``threading.Thread`` of the next Python
    keeps for itself (``_context`` since 3.14).
    """

    def __init__(self, sources: Iterable[Any]) -> None:
        self.error: BaseException | None = None
        self.ended = False
        self._sources = sources
        self._loop = asyncio.get_running_loop()
        self._allowances: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._items: deque[Any] = deque()
        self._ahead = 0  # allowed, and not taken yet
        self._waiter: asyncio.Future[None] | None = None
        self._stopped = False
        # The caller's context variables hold in their iterator, as they do in a plain loop over it.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._read,), name="seedance-avatar: sources", daemon=True
        )
        self._thread.start()

    def _read(self) -> None:
        try:
            items = iter(self._sources)
            while (allowed := self._allowances.get()) is not None:
                read = 0
                for item in islice(items, allowed):
                    self._items.append(item)
                    self._notify()
                    read += 1
                    if self._stopped:
                        break
                if read < allowed or self._stopped:
                    break
        except BaseException as error:  # noqa: BLE001 - the caller's own, an exit too: raised to them, after what was taken
            self.error = raisable(error, "the source iterator")
        self.ended = True
        self._notify()

    def _notify(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_wake, waiter)

    async def take(self, most: int) -> list[Any]:
        if self._ahead < most:
            self._allowances.put(most - self._ahead)
            self._ahead = most
        while not self._items and not self.ended:
            waiter = self._waiter = self._loop.create_future()
            # Something may have come between the look and the waiter's being seen by the thread.
            if self._items or self.ended:
                break
            # A thread that dies outside its own try, killed or broken by a change of Python, wakes nobody.
            await asyncio.wait([waiter], timeout=_ALIVE)
            if not self._thread.is_alive() and not self.ended:
                self.error = self.error or RuntimeError("the thread that reads the sources died")
                self.ended = True
        taken = self.read(most)
        self._ahead -= len(taken)
        return taken

    def read(self, most: int) -> list[Any]:
        return [self._items.popleft() for _ in range(min(most, len(self._items)))]

    def stop(self) -> None:
        self._stopped = True
        self._allowances.put(None)

    async def stopped(self) -> None:
        while not self.ended and self._thread.is_alive():
            waiter = self._waiter = self._loop.create_future()
            await asyncio.wait([waiter], timeout=_ALIVE / 10)


@attrs.define(eq=False, repr=False)
class SourceReader(Generic[S]):
    """One pass over ``sources``, a few at a time.

    A plain iterable may block (a file, a database cursor), so unless it is a builtin collection it is read
    in a thread of its own. An async iterable is awaited one item at a time.
    """

    sources: Iterable[S] | AsyncIterable[S]
    exhausted: bool = False
    error: BaseException | None = None
    _items: Iterator[S] | None = None
    _async_items: AsyncIterator[S] | None = None
    _reader: _ThreadedReader | None = None

    @classmethod
    def of(cls, sources: Iterable[S] | AsyncIterable[S]) -> SourceReader[S]:
        """Return the reader of ``sources``; nothing is read yet.

        :raises InvalidInput: it is not an iterable of sources.
        """
        by_index = hasattr(type(sources), "__getitem__")  # the older protocol, which iter() knows as well
        if isinstance(sources, str | bytes) or not (by_index or isinstance(sources, Iterable | AsyncIterable)):
            message = (
                f"sources must be an iterable or async iterable of sources, not {type(sources).__name__}: "
                "for one URL pass [AssetSource.image(url)]"
            )
            raise InvalidInput(message)
        return cls(sources)

    async def take(self, most: int) -> list[S]:
        """Return between 1 and ``most`` sources, or none at all when there are no more.

        When the iterable raises, what came before is returned first; then ``exhausted`` stays False and
        ``error`` is set. Cancelled, what a blocked thread still reads is dropped: it was never taken.
        """
        if self.exhausted or self.error is not None:
            return []
        if isinstance(self.sources, AsyncIterable):
            return await self._take_async()
        if isinstance(self.sources, _AT_HAND):
            return self._take_at_hand(self.sources, most)
        if self._reader is None:
            self._reader = _ThreadedReader(self.sources)
        taken = await self._reader.take(most)
        if not taken:
            self.error = self._reader.error
            self.exhausted = self.error is None
        return taken

    def _take_at_hand(self, sources: Iterable[S], most: int) -> list[S]:
        taken: list[S] = []
        try:
            if self._items is None:
                self._items = iter(sources)
            taken.extend(islice(self._items, most))
            self.exhausted = len(taken) < most
        except BaseException as error:  # noqa: BLE001 - a set that was changed meanwhile, a subclass of the caller's
            self.error = raisable(error, "the source iterator")
        return taken

    async def _take_async(self) -> list[S]:
        try:
            if self._async_items is None:
                assert isinstance(self.sources, AsyncIterable)  # noqa: S101 - take() has looked
                self._async_items = aiter(self.sources)
            return [await anext(self._async_items)]
        except StopAsyncIteration:
            self.exhausted = True
        except BaseException as error:
            if being_cancelled(error):
                raise
            self.error = raisable(error, "the source iterator")
        return []

    async def stop(self, seconds: float) -> None:
        """Read no more, and wait ``seconds`` at most for the item that the thread is at: it may block for ever."""
        if self._reader is not None:
            self._reader.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._reader.stopped()

    def left_over(self) -> list[S]:
        """Return what the thread has read and nobody has taken."""
        return [] if self._reader is None else self._reader.read(sys.maxsize)

    async def aclose(self) -> None:
        """Let the reading thread go, and close an async generator that was not read to its end.

        Here and now rather than when it is collected; a thread that is blocked in the source ends after it.
        """
        if self._reader is not None:
            self._reader.stop()
        close = getattr(self._async_items, "aclose", None)
        if close is not None and not self.exhausted and self.error is None:
            await close()
