"""Group commit: changes are gathered in the event loop, and committed together on the journal's own thread.

One commit costs as much as writing thirty rows. The first change after a quiet time leaves in the very turn of the
loop in which it was made. While one commit follows another, changes are gathered for some times as long as the last
commit took, unless they are many already, or nobody is left who could add one.

asyncio's own pool is no place for the thread: there every name to be resolved and every file to be read would
stand in its way (and it in theirs), and a statement a hop costs more than the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import logging
import math
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from seedance_avatar.errors import JournalError

from .file import unusable
from .records import Change, turned_back
from .store import Store

Work: TypeAlias = Change | Callable[[Store], Any]
Op: TypeAlias = tuple[Work, "asyncio.Future[Any] | None"]
"""A change or a query, and the future that gets its result."""

_LAZY: Final = 0.05  # seconds after which a change is committed that nobody waits for
FULL: Final = 32  # changes that are worth a commit of their own, however short ago the last one was
REST: Final = 10  # how many times as long as a commit took the next are gathered: the thread has a tenth of a core
LONGEST_REST: Final = 0.008  # seconds; an answer of the service takes ten times as long
_BATCH: Final = 4096  # operations in one transaction
_RETRY: Final = 1.0  # seconds until what could not be written is tried again
_EVERY: Final = 0.5  # seconds between two checks that the thread lives, while somebody waits for it
_NAMED: Final = 5  # changes that an error names

_log = logging.getLogger("seedance_avatar.journal")


class Writer:
    """Owns a :class:`Store` on a thread of its own, from opening to closing; bound to the running loop.

    A batch that the disk refuses is rolled back as a whole. What in it only *intended* something (a claim, a
    submission about to leave) is refused to whoever waits for it; what has *happened* (an id, an end) is also
    kept in :attr:`unwritten`, and tried again before everything else.

    When the thread or the bookkeeping around it breaks, every future gets a :class:`JournalError`, those of what was
    committed too; an intent that was committed and could not be confirmed is taken back.

    :ivar opened: gets the store, or the error that kept it shut.
    :ivar dead: why nothing can be written any more, or None.
    """

    def __init__(self, open_store: Callable[[], Store], now: Callable[[], int]) -> None:
        self._open = open_store
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="seedance-avatar-journal", daemon=True)
        self._queue: queue.SimpleQueue[Sequence[Op] | None] = queue.SimpleQueue()
        self.opened: asyncio.Future[Store] = self._loop.create_future()
        self._opening: Sequence[Op] = [(lambda store: store, self.opened)]
        self.unwritten: tuple[Change, ...] = ()
        self.dead: str | None = None
        # Of the loop: what is gathered, when it goes to the thread, and the batches there that have no results yet
        self._queued: list[Op] = []
        self._timer: asyncio.Handle | None = None
        self._due = math.inf
        self._rested_at = 0.0
        self._handed: deque[Sequence[Op]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] | None = None
        self._ended = False
        # Of the thread, until it ends
        self._store: Store | None = None
        self._results: deque[tuple[int, Sequence[Op], list[Any]]] = deque()
        self._took = 0.0
        self._failure = ""

    def start(self) -> None:
        """Start the thread.

        :raises JournalError: the system gives none.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            message = f"the journal needs a thread of its own, and the system gives none: {error}"
            raise JournalError(message) from None
        self._handed.append(self._opening)
        self._keep_watch()

    # In the event loop

    def submit(self, work: Work) -> asyncio.Future[Any]:
        """Queue ``work`` for the next commit; return the future of its result."""
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._queued.append((work, waiter))
        self._flush_by(self._rested_at if len(self._queued) < FULL else 0.0)
        return waiter

    def later(self, work: Work) -> None:
        """Queue ``work``, whose result nobody waits for, for the next commit or one in a moment."""
        self._queued.append((work, None))
        self._flush_by(self._loop.time() + _LAZY)

    def take_back(self, intent: Change) -> None:
        """Undo ``intent``, committed or not, as soon as can be: nothing of it was sent."""
        self.later(turned_back(intent))
        self.flush()  # the loop may be about to end

    def flush(self) -> None:
        """Hand what is queued to the thread, now."""
        self._guarded(self._hand_over)

    def put(self, batch: Sequence[Op]) -> None:
        """Hand ``batch`` to the thread, to be executed in this order and after everything handed over before."""
        self._queue.put(batch)
        self._handed.append(batch)
        self._keep_watch()

    def stop(self, closed: asyncio.Future[None] | None = None) -> None:
        """Commit what is queued, then close the store and set ``closed``."""
        self._closed = closed
        self.flush()
        self._guarded(self._queue.put, None)
        self._keep_watch()
        if self._ended:
            self._end()

    def finish(self) -> None:
        """Stop, and join the thread for up to ten seconds: for an interpreter that is about to end."""
        self.flush()
        self._queue.put(None)
        self._thread.join(10.0)

    def _flush_by(self, due: float) -> None:
        if due >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        if due <= self._loop.time():
            self._timer = self._loop.call_soon(self.flush)
        else:
            self._timer = self._loop.call_at(due, self.flush)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf
        if self.dead is not None:  # what is queued is refused, at the end with all the rest
            if self._ended:
                self._end()
        elif self._queued:
            self._rested_at = self._loop.time() + min(REST * self._took, LONGEST_REST)
            self.put(self._queued)
            self._queued = []

    def _settle(self) -> None:
        """Set the results of the next batch."""
        taken, ops, results = self._results[0]
        count = 0
        for (_, waiter), result in zip(ops, results, strict=True):
            if waiter is None:
                if isinstance(result, BaseException):
                    _log.error("%s", result)
            elif not waiter.done():
                count += 1
                if isinstance(result, BaseException):
                    waiter.set_exception(result)
                else:
                    waiter.set_result(result)
        self._results.popleft()
        for _ in range(taken):
            self._handed.popleft()
        if count:
            # Who does nothing but write is back in the turn of the loop in which it was answered, just before this
            # look at what is gathered. Are all of them, there is nobody left to wait for.
            self._loop.call_soon(lambda: self._flush_by(0.0 if len(self._queued) >= count else math.inf))

    def _guarded(self, step: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - those of any step
        """Run a step of the bookkeeping; when it raises, stop the thread, behind which every future gets an error."""
        try:
            step(*arguments)
        except BaseException as error:
            self._died(error)
            self._queue.put(None)
            self._keep_watch()
            if not isinstance(error, Exception):
                raise

    def _keep_watch(self) -> None:
        """Check every half second whether the thread lives, for as long as somebody waits for it."""
        if self._watch is None and not self._loop.is_closed():
            self._watch = self._loop.call_later(_EVERY, self._look)

    def _look(self) -> None:
        self._watch = None
        if self._handed or self._queued or self._closed is not None:
            if self._thread.is_alive():
                self._keep_watch()
            else:
                self._loop.call_soon(self._lost)  # behind the results that it has given

    def _lost(self) -> None:
        if not self._ended:
            self.dead = self.dead or "the journal's thread died without a word"
        self._end()

    def _end(self) -> None:
        """Set an error for every future that is left, now that the thread has ended."""
        self._ended = True
        done = sum(taken for taken, _, _ in self._results)
        left = [op for batch in (*itertools.islice(self._handed, done, None), self._queued) for op in batch]
        waiting = [waiter for batch in (*self._handed, self._queued) for _, waiter in batch if waiter is not None]
        self.unwritten += _facts(left)
        if self.dead is not None and self._store is not None:
            with contextlib.suppress(Exception):  # it is dead already, and says why
                self._undo(self._store)
            with contextlib.suppress(Exception):
                self._store.close(self._now())
        self._handed.clear()
        self._results.clear()
        self._queued = []
        why = self.dead or "the journal is closed"
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(JournalError(why))
        closed, self._closed = self._closed, None
        if closed is not None and not closed.done():
            if (error := self._error_of_closing()) is None:
                closed.set_result(None)
            else:
                closed.set_exception(error)

    def _undo(self, store: Store) -> None:
        """Take back the intents that were committed and not confirmed."""
        intents = {
            work.fingerprint: turned_back(work)
            for _, ops, results in self._results
            for (work, waiter), result in zip(ops, results, strict=True)
            if isinstance(work, Change) and work.state == "sending" and result is None and not _confirmed(waiter)
        }
        intents |= {work.fingerprint: work for work in self.unwritten if work.state == "planned"}
        if intents and store.files_error is None and not store.apply(list(intents.values())):
            self.unwritten = tuple(work for work in self.unwritten if work.state != "planned")

    def _error_of_closing(self) -> JournalError | None:
        """Return the error that :meth:`Journal.aclose` raises, or None."""
        moved = None if self._store is None else self._store.files_error
        if not self.unwritten:
            return moved or (None if self.dead is None else JournalError(self.dead))
        what = "1 change" if (count := len(self.unwritten)) == 1 else f"{count} changes"
        first = ", ".join(map(str, self.unwritten[:_NAMED])) + (", …" if count > _NAMED else "")
        message = f"{what} could not be written to the journal before it was closed: {first}"
        if moved is not None:
            message = f"{moved.message}. {message}"
        return JournalError(message, about=None if moved is None else moved.about, unwritten=self.unwritten)

    # On the thread

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - the loop hears of it, not only the thread's own hook
            self._died(error)
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # the loop is closed: nobody waits any more
            if self._store is not None:
                self._store.close(self._now())

    def _died(self, error: BaseException) -> None:
        if self.dead is None:
            self.dead = f"the journal's thread died of {type(error).__name__}: {error}"
            _log.critical("%s", self.dead)

    def _serve(self) -> None:
        try:
            store = self._store = self._open()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it goes to who waits for the opening
            self._results.append((1, self._opening, [error]))
            self._post()
            return
        self._results.append((1, self._opening, [store]))
        self._post()
        while self._turn(store):
            pass
        if self.dead is None:
            store.close(self._now())

    def _turn(self, store: Store) -> bool:
        """Commit what is in the queue; return False once it is at its end."""
        ops: list[Op] = []
        taken = 0
        try:
            batch = self._queue.get(timeout=_RETRY if self.unwritten else None)
            while batch is not None:
                taken += 1
                ops.extend(batch)
                if len(ops) >= _BATCH:
                    break
                batch = self._queue.get_nowait()
        except queue.Empty:
            batch = ()
        began = time.perf_counter()
        results = self._commit(store, ops)
        self._took = time.perf_counter() - began
        if taken:
            self._results.append((taken, ops, results))
            self._post()
        return batch is not None

    def _commit(self, store: Store, ops: Sequence[Op]) -> list[Any]:
        """Execute ``ops`` in one transaction; return their results, and for those that failed their errors."""
        try:
            store.check_files()
            if self.unwritten:
                with store.transaction():
                    for part in _parts([(change, None) for change in self.unwritten]):
                        _do(store, part)
                self.unwritten = ()
            parts = list(_parts(ops))
            if len(parts) == 1 and isinstance(parts[0][0][0], Change):
                return _do(store, parts[0])  # one statement is a transaction of its own
            with store.transaction():
                return [result for part in parts for result in _do(store, part)]
        except (sqlite3.Error, OSError, JournalError) as error:
            failure = error if isinstance(error, JournalError) else unusable(store.path, error)
            if self._failure != str(failure):
                self._failure = str(failure)
                _log.error("%s", failure)
            self.unwritten += _facts(ops)
            return [None if waiter is None else copy.copy(failure) for _, waiter in ops]

    def _post(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits, and what is written is written
            self._loop.call_soon_threadsafe(self._guarded, self._settle)


def _confirmed(waiter: asyncio.Future[Any] | None) -> bool:
    return waiter is not None and waiter.done() and not waiter.cancelled() and waiter.exception() is None


def _facts(ops: Iterable[Op]) -> tuple[Change, ...]:
    return tuple(work for work, _ in ops if isinstance(work, Change) and work.state != "sending")


def _parts(ops: Iterable[Op]) -> Iterable[list[Op]]:
    """Cut ``ops``, in their order, into single queries and series of changes, each of another item."""
    part: list[Op] = []
    names: set[bytes] = set()
    for op in ops:
        name = op[0].fingerprint if isinstance(op[0], Change) else None
        if part and (name is None or name in names or not names):
            yield part
            part, names = [], set()
        part.append(op)
        if name is not None:
            names.add(name)
    if part:
        yield part


def _do(store: Store, part: Sequence[Op]) -> list[Any]:
    """Execute one part; return for each of its ops the result, or the error of that op alone."""
    work = part[0][0]
    if not isinstance(work, Change):
        return [work(store)]
    errors = store.apply([change for change, _ in part if isinstance(change, Change)])
    return [errors.get(number) for number in range(len(part))]
