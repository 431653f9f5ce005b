"""The journal's thread: it takes what has queued up, commits it as one, and tells the loop once.

asyncio's own pool is no place for it: there every name to be resolved and every file to be read would
stand in its way (and it in theirs), and a statement a hop costs more than the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from seedance_avatar.errors import JournalError

from .file import unusable
from .records import Change
from .store import Store

__all__ = ["Op", "Work", "Writer"]

Work: TypeAlias = Change | Callable[[Store], Any]
Op: TypeAlias = tuple[Work, "asyncio.Future[Any] | None"]
"""What is to be done, and who waits for it."""

_BATCH: Final = 4096
_RETRY: Final = 1.0
_NAMED: Final = 5
_EVERY: Final = 0.5
"""Seconds between two looks at whether the thread lives, while somebody waits for it."""

_log = logging.getLogger("seedance_avatar.journal")


class Writer:
    """Owns a :class:`Store` on a thread of its own, from opening to closing.

    A batch that the disk refuses is undone as a whole. What in it only *intended* something (a claim, a
    submission about to leave) is refused to whoever waits for it; what has *happened* (an id, an end) is
    also kept, tried again before everything else, and in :attr:`unwritten` until it is written.

    :ivar took: seconds that the last batch took.
    :ivar settled: called in the loop, behind the results of a batch, with how many waited for it.
    """

    def __init__(self, open_store: Callable[[], Store], now: Callable[[], int]) -> None:
        self._open_store = open_store
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Sequence[Op] | None] = queue.SimpleQueue()
        self._closed: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name="seedance-avatar-journal", daemon=True)
        self.opened: asyncio.Future[Store] = self._loop.create_future()
        self.unwritten: tuple[Change, ...] = ()
        self.dead: str | None = None
        self._failure = ""
        self.took: float = 0.0
        self.settled: Callable[[int], None] | None = None
        self._store: Store | None = None
        self._handed: deque[Sequence[Op]] = deque()
        self._taken = 0  # hand-overs that the thread has finished
        self._forgotten = 0  # hand-overs that are no longer in ``_handed``
        self._watching: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the thread; :attr:`opened` gets the store, or the error that kept it shut.

        :raises JournalError: no thread can be started.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            message = f"the journal needs a thread of its own, and the system gives none: {error}"
            raise JournalError(message) from None
        self._watch()

    def put(self, ops: Sequence[Op]) -> None:
        """Hand over ``ops``, to be done in this order and behind everything handed over before."""
        self._handed.append(ops)
        self._queue.put(ops)
        self._watch()
        if self.dead is not None:
            # It may have died between the caller's look and our put: nobody else will empty the queue.
            self._refuse_rest(self.dead)

    def stop(self, closed: asyncio.Future[None] | None = None) -> None:
        """Let everything handed over be done, then close the store; ``closed`` is set when it is."""
        self._closed = closed
        self._queue.put(None)
        self._watch()
        if self.dead is not None:
            self._refuse_rest(self.dead)

    def finish(self) -> None:
        """Stop, and wait up to ten seconds for the end of it: for an interpreter that is about to end."""
        self._queue.put(None)
        self._thread.join(10.0)

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - the loop hears of it, not only the thread's own hook
            self._died(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._gone)

    def _died(self, error: BaseException) -> None:
        self.dead = f"the journal's thread died of {type(error).__name__}: {error}"
        _log.critical("%s", self.dead)

    def _gone(self) -> None:
        """Answer, in the loop, whoever waits for a thread that ended before it could."""
        self._forget()
        left = [op for ops in self._handed for op in ops]
        self._handed.clear()
        if self.dead is None and (left or self._closed is not None or not self.opened.done()):
            self.dead = "the journal's thread died without a word"
        if self.dead is not None:
            known = set(self.unwritten)
            self.unwritten += tuple(change for change in _facts(left) if change not in known)
            if self._store is not None:
                self._store.close(self._now())
        why = self.dead or "the journal is closed"
        self._settle([(self.opened, None, JournalError(why))])
        self._settle([(waiter, None, JournalError(why)) for _, waiter in left])
        self._refuse_rest(why)

    def _serve(self) -> None:
        try:
            store = self._open_store()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it goes to who waits for the opening
            self._tell([(self.opened, None, error)])
            return
        self._store = store
        self._tell([(self.opened, store, None)])
        try:
            while self._turn(store):
                pass
        except BaseException as error:  # noqa: BLE001 - nobody may be left waiting for a thread that is gone
            self._died(error)
        try:
            store.close(self._now())
        except BaseException as error:  # noqa: BLE001 - who waits for the closing is told, and waits no more
            self._died(error)
        self._refuse_rest(self.dead or "the journal is closed")

    def _turn(self, store: Store) -> bool:
        ops: list[Op] = []
        taken = 0
        try:
            more = self._queue.get(timeout=_RETRY if self.unwritten else None)
            while more is not None:
                taken += 1
                ops.extend(more)
                if len(ops) >= _BATCH:
                    break
                more = self._queue.get_nowait()
        except queue.Empty:
            more = ()
        began = time.perf_counter()
        try:
            self._write(store, ops)
        except BaseException:
            self._queue.put(ops)  # back to where those are refused that were not reached
            raise
        self._taken += taken
        self.took = time.perf_counter() - began
        return more is not None

    def _write(self, store: Store, ops: Sequence[Op]) -> None:
        try:
            store.look_after()
            if self.unwritten:
                with store.transaction():
                    for part in _parts([(change, None) for change in self.unwritten]):
                        _do(store, part)
                self.unwritten = ()
            parts = list(_parts(ops))
            if len(parts) == 1 and isinstance(parts[0][0][0], Change):
                results = _do(store, parts[0])  # one statement is a transaction of its own
            else:
                with store.transaction():
                    results = [result for part in parts for result in _do(store, part)]
        except (sqlite3.Error, OSError, JournalError) as error:
            failure = error if isinstance(error, JournalError) else unusable(store.path, error)
            if self._failure != str(failure):
                self._failure = str(failure)
                _log.error("%s", failure)
            self.unwritten += _facts(ops)
            results = [None if waiter is None else copy.copy(failure) for _, waiter in ops]
        answers = [
            (waiter, result, None) if not isinstance(result, JournalError) else (waiter, None, result)
            for (_, waiter), result in zip(ops, results, strict=True)
        ]
        self._tell(answers)

    def _refuse_rest(self, why: str) -> None:
        answers: list[_Answer] = []
        try:
            while True:
                ops = self._queue.get_nowait() or ()
                self.unwritten += _facts(ops)
                answers += [(waiter, None, JournalError(why)) for _, waiter in ops if waiter is not None]
        except queue.Empty:
            pass
        closed, self._closed = self._closed, None
        if closed is not None:
            answers.append((closed, None, self._lost()))
        self._tell(answers)

    def _lost(self) -> JournalError | None:
        """Return the error of closing: what could not be written, and what became of the file."""
        gone = None if self._store is None else self._store.gone
        if not self.unwritten:
            return gone or (None if self.dead is None else JournalError(self.dead))
        count = len(self.unwritten)
        what = "1 change" if count == 1 else f"{count} changes"
        first = ", ".join(map(str, self.unwritten[:_NAMED])) + (", …" if count > _NAMED else "")
        message = f"{what} could not be written to the journal before it was closed: {first}"
        if gone is not None:
            message = f"{gone.message}. {message}"
        return JournalError(message, about=None if gone is None else gone.about, unwritten=self.unwritten)

    # In the loop

    def _watch(self) -> None:
        """Look whether the thread lives, now and then, for as long as somebody waits for it."""
        if self._watching is None and not self._loop.is_closed():
            self._watching = self._loop.call_later(_EVERY, self._look)

    def _forget(self) -> None:
        while self._forgotten < self._taken:
            self._handed.popleft()
            self._forgotten += 1

    def _look(self) -> None:
        self._watching = None
        self._forget()
        if self._handed or self._closed is not None or not self.opened.done():
            if self._thread.is_alive():
                self._watch()
            else:
                self._loop.call_soon(self._gone)  # behind the answers that it has given

    def _tell(self, answers: Sequence[_Answer]) -> None:
        for waiter, _, error in answers:
            if waiter is None and error is not None:
                _log.error("%s", error)
        if any(waiter is not None for waiter, _, _ in answers):
            try:
                self._loop.call_soon_threadsafe(self._settle, answers)
            except RuntimeError:  # the loop is closed: nobody waits any more, and what is written is written
                return

    def _settle(self, answers: Sequence[_Answer]) -> None:
        count = 0
        for waiter, result, error in answers:
            if waiter is None or waiter.done():
                continue
            count += 1
            if error is None:
                waiter.set_result(result)
            else:
                waiter.set_exception(error)
        if count and self.settled is not None:
            self.settled(count)


_Answer: TypeAlias = tuple["asyncio.Future[Any] | None", Any, BaseException | None]


def _facts(ops: Iterable[Op]) -> tuple[Change, ...]:
    return tuple(work for work, _ in ops if isinstance(work, Change) and work.state != "sending")


def _parts(ops: Iterable[Op]) -> Iterable[list[Op]]:
    """Cut ``ops`` into runs of changes, each of another item, and single calls, in their order."""
    part: list[Op] = []
    names: set[bytes] = set()
    for op in ops:
        work = op[0]
        if not isinstance(work, Change):
            if part:
                yield part
            yield [op]
            part, names = [], set()
            continue
        if work.fingerprint in names:
            yield part
            part, names = [], set()
        part.append(op)
        names.add(work.fingerprint)
    if part:
        yield part


def _do(store: Store, part: Sequence[Op]) -> list[Any]:
    """Do one part; return for each op in it its result, or the error that is its own."""
    work = part[0][0]
    if not isinstance(work, Change):
        return [work(store)]
    errors = store.apply([change for change, _ in part if isinstance(change, Change)])
    return [errors.get(number) for number in range(len(part))]
