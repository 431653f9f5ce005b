"""The journal: what was about to be sent and what came back, kept across crashes.

The service has no list, no delete and no idempotency key: an id that is lost is lost for good, and an
upload that is repeated makes a duplicate that nobody can remove. So the intent is on disk before the first
byte leaves, and the id before the asset is handed to anyone. It is a SQLite file that people can open;
``durability="power"`` (the default) syncs each commit to the disk, and many tasks share one commit.

=============  ==================================================================  ==========================
state          what it says                                                        what a later run does
=============  ==================================================================  ==========================
``planned``    taken from the source; nothing of it has left                       sends it
``sending``    it may be on the wire now                                           finds it ``in_doubt``
``accepted``   the service gave it an id                                           polls it
``active``     done                                                                takes it as done
``failed``     the service accepted it and failed                                  takes it as failed
``refused``    the service said no, or this library before sending                 takes it as failed
``in_doubt``   it was sent and the answer lost: it may exist                       holds it, or sends on demand
=============  ==================================================================  ==========================
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import time
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar

import attrs

from seedance_avatar.errors import AvatarError, JournalError, SessionStateError, SubmissionInDoubt
from seedance_avatar.journal import records

from .claims import Claims
from .file import locate
from .records import (
    ALLOWED,
    KINDS,
    RESEND,
    STATES,
    Change,
    Entry,
    Hasher,
    Kind,
    Origin,
    Record,
    Sample,
    State,
    Summary,
)
from .store import Durability, Store
from .writer import Writer

__all__ = ["Journal", "JournalReader"]

_T = TypeVar("_T")
_PAGE: Final = 1000
_DIED = "the process that sent it ended before the answer was recorded"


@attrs.define(eq=False)
class _Pages(Generic[_T]):
    """An async iterator over rows that are read a page at a time; a class, so that nothing is left to close."""

    _read: Callable[[int], Awaitable[list[tuple[int, _T]]]]
    _after: int = 0
    _rows: deque[tuple[int, _T]] = attrs.field(factory=deque)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        if not self._rows:
            self._rows.extend(await self._read(self._after))
        if not self._rows:
            raise StopAsyncIteration
        self._after, row = self._rows.popleft()
        return row


class Journal:
    """An open journal, bound to the loop, and the process, that opened it. Make it by :meth:`open`.

    Every method raises :class:`~seedance_avatar.SessionStateError` once it is closed, on another loop and
    in a forked child, and :class:`~seedance_avatar.JournalError` when the disk refuses what it is asked.

    :ivar path: where it lies.
    :ivar claims: who in this process deals with which item.
    :ivar recovered: how many items were ``sending`` when the last process died, and are in doubt since.
    :ivar run: the number of the current run; see :meth:`begin_run`.
    """

    def __init__(self, path: Path, writer: Writer, store: Store, *, readonly: bool, now: Callable[[], int]) -> None:
        self.path = path
        self.recovered: int = store.recovered
        self.claims: Claims = Claims()
        self.run: int = store.run
        self._run_taken = False
        self._readonly = readonly
        self._now = now
        self._writer = writer
        self._hasher = Hasher(store.secret)
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._intents = 0  # how many wait for the commit of one
        self._closed: asyncio.Future[None] | None = None
        atexit.register(writer.finish)

    def fingerprint(self, *, kind: Kind, group_id: str | None = None, url: str = "", key: str | None = None) -> bytes:
        """Return the 16 bytes that name an item; see :meth:`Hasher.fingerprint`."""
        return self._hasher.fingerprint(kind=kind, group_id=group_id, url=url, key=key)

    def entry(  # noqa: PLR0913 - what identifies it and what may be shown of it, all by keyword
        self,
        *,
        kind: Kind,
        group_id: str | None = None,
        url: str = "",
        key: str | None = None,
        shown: str | None = None,
        business_id: str | None = None,
    ) -> Entry:
        """Return what :meth:`claim` takes; see :meth:`Hasher.entry`."""
        return self._hasher.entry(kind=kind, group_id=group_id, url=url, key=key, shown=shown, business_id=business_id)

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "power",
        readonly: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open the journal at ``path``, making it (mode 0600) where there is none.

        One process at a time writes; what it left ``sending`` when it died is ``in_doubt`` from here on.
        Cancelled, it leaves nothing open.

        :param durability: what a commit survives: ``"power"`` (a loss of power; each commit is synced) or
            ``"process"`` (only the death of the process; faster, and a power cut may cost the last commits, which
            can then be sent twice).
        :param readonly: only read, also while another process writes. A reader never changes the file.
        :param clock: the wall clock, seconds since the epoch; what it says is for reports only.
        :raises JournalError: it is not a journal, or of a newer version (it was not touched then); it is held by
            another process, which is named; it cannot be made, read or written.
        """

        def now() -> int:
            return round(clock() * 1000)

        def open_store() -> Store:
            died = records.error_line(SubmissionInDoubt(_DIED))
            return Store.open(where, durability=durability, readonly=readonly, now=now(), died=died)

        where = locate(path)
        writer = Writer(open_store, now)
        writer.start()
        try:
            store = await writer.opened
        except asyncio.CancelledError:
            writer.stop()
            raise
        return cls(where, writer, store, readonly=readonly, now=now)

    async def aclose(self) -> None:
        """Commit what is queued, make a checkpoint and close the file; a second time does nothing more.

        Cancelled, it stops waiting; the closing itself goes on.

        :raises JournalError: something that has happened could not be written; ``unwritten`` says what.
        """
        if self._closed is None:
            self._check_here()
            self._closed = self._loop.create_future()
            self._closed.add_done_callback(lambda _: atexit.unregister(self._writer.finish))
            self._writer.flush()
            if not self._intents:
                self._writer.stop(self._closed)
        await asyncio.shield(self._closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def unwritten(self) -> tuple[Change, ...]:
        """The changes that have happened and are not written yet, oldest first; they are tried again each second."""
        return self._writer.unwritten

    def begin_run(self) -> int:
        """Return the number of a run that begins now: what an earlier one changed has a smaller one, or none."""
        if self._run_taken:
            self._check(write=True)
            self.run += 1
            run, now = self.run, self._now()
            self._writer.later(lambda store: store.begin_run(run, now))
        self._run_taken = True
        return self.run

    async def unknown(self, asset_ids: Sequence[str]) -> list[str]:
        """Return those of ``asset_ids`` that this journal does not know."""
        return await self._ask(lambda store: store.unknown(asset_ids))

    async def origin(self, base_url: str, key: str) -> Origin:
        """Return what is known of the service at ``base_url`` and of the account of ``key``."""
        account = self._hasher.account(key)
        return await self._ask(lambda store: store.origin(base_url, account))

    async def remember(self, base_url: str, key: str) -> None:
        """Note that all it holds is at ``base_url``, in the account of ``key`` (a keyed hash is kept)."""
        account = self._hasher.account(key)
        await self._ask(lambda store: store.remember(base_url, account), write=True)

    async def claim(self, entries: Sequence[Entry]) -> list[Record | None]:
        """Return the record of each entry, and None for each that is new; those are ``planned`` now.

        Of the same item twice among ``entries`` the second is known. Cancelled, they may be planned or not,
        which makes no difference: nothing of them has left.
        """
        for it in entries:
            records.sixteen(it.fingerprint)
        now, run = self._now(), self.run
        return await self._ask(lambda store: store.claim(entries, now, run), write=True)

    async def renew(self, entries: Sequence[Entry]) -> None:
        """Plan ``entries``, which :meth:`claim` knew, as if they were new; their records stay, with their ids."""
        now, run = self._now(), self.run
        await self._ask(lambda store: store.renew(entries, now, run), write=True)

    async def groups(self) -> list[str]:
        """Return the ids of the groups that something in the journal belongs to, the first hundred."""
        return await self._ask(Store.groups)

    async def known(self, fingerprints: Sequence[bytes]) -> list[Record | None]:
        """Return the record of each fingerprint, or None; unlike :meth:`claim` it plans nothing."""
        return await self._ask(lambda store: store.known([records.sixteen(it) for it in fingerprints]))

    async def sending(self, fingerprint: bytes, *, resend: bool = False) -> None:
        """Record that it is about to leave. Once this returns that is on disk, and the first byte may go.

        When it raises, :class:`asyncio.CancelledError` included, nothing may be sent, and the intent is taken back:
        it is as it was before.

        :param resend: also send what is in doubt, at the risk of a duplicate.
        :raises JournalError: it could not be written, or it is in no state from which it may be sent.
        """
        change = self._change("sending", fingerprint, allowed=RESEND if resend else None)
        self._intents += 1  # it is closed only after the last of them may have been taken back
        try:
            await self._writer.submit(change)
        except asyncio.CancelledError:
            self._writer.take_back(change)
            raise
        finally:
            self._intents -= 1
            if self._closed is not None and not self._intents:
                self._writer.stop(self._closed)

    def unsent(self, fingerprint: bytes) -> Awaitable[None]:
        """Record that nothing of what was ``sending`` has left: it is as before (a resend: in doubt).

        What is not ``sending`` any more, or not yet, stays as it is. Await the result as for :meth:`accepted`.
        """
        return self._writer.submit(self._change("planned", fingerprint))

    def accepted(self, fingerprint: bytes, remote_id: str) -> Awaitable[None]:
        """Record the service's id of it (asset, task or group); await the result for it to be on disk.

        It is written though nobody waits for it any more.

        :raises JournalError: it could not be written yet: it is kept, tried again, and in :attr:`unwritten`.
        """
        return self._writer.submit(self._change("accepted", fingerprint, remote_id=records.printable(remote_id, "id")))

    def refused(self, fingerprint: bytes, error: AvatarError | str) -> Awaitable[None]:
        """Record that nothing of it exists, and why: the service said no, or this library before sending."""
        return self._writer.submit(self._change("refused", fingerprint, error=records.error_line(error)))

    def in_doubt(self, fingerprint: bytes, error: AvatarError | str) -> Awaitable[None]:
        """Record that it was sent and its answer lost; the error's evidence and request id are kept too."""
        return self._writer.submit(self._change("in_doubt", fingerprint, error=records.error_line(error)))

    def ended(self, fingerprint: bytes, state: Literal["active", "failed"], reason: str | None = None) -> None:
        """Note the end of what was accepted. Returns at once; it is written soon, at the latest on closing.

        A kill in between costs one more status request in the next run.
        """
        error = None if reason is None else records.error_line(reason)
        self._writer.later(self._change(state, fingerprint, error=error))

    def note(self, values: Mapping[str, float]) -> None:
        """Note one point of some time series (a rate, a limit) for the report. Returns at once."""
        self._check(write=True)
        now, text = self._now(), json.dumps(dict(values), allow_nan=False)
        self._writer.later(lambda store: store.note(now, text))

    def samples(self) -> AsyncIterator[Sample]:
        """Iterate over all points noted, oldest first."""
        return _Pages(lambda after: self._ask(lambda store: store.samples(after, _PAGE)))

    async def save_learned(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Keep what was learned of this ``kind`` (anything JSON can hold) for the next run."""
        text = json.dumps(dict(facts), allow_nan=False)
        await self._ask(lambda store: store.save_learned(kind, text), write=True)

    async def learned(self) -> dict[str, Any]:
        """Return what earlier runs learned, by kind."""
        return await self._ask(Store.learned)

    def records(self, *, states: Sequence[State] = STATES, kinds: Sequence[Kind] = KINDS) -> AsyncIterator[Record]:
        """Iterate over what is known, oldest first, of these states and kinds.

        It is read in pages, so it is neither one moment's picture nor ever in memory as a whole.
        """

        def page(store: Store, after: int) -> list[tuple[int, Record]]:
            return [(record.row, record) for record in store.records(after, _PAGE, states, kinds)]

        return _Pages(lambda after: self._ask(lambda store: page(store, after)))

    async def summary(self) -> Summary:
        """Return the journal in figures."""
        return await self._ask(Store.summary)

    def _check(self, *, write: bool) -> None:
        if self._closed is not None:
            message = f"the journal {self.path} is closed"
            raise SessionStateError(message)
        self._check_here()
        if self._writer.dead is not None:
            raise JournalError(self._writer.dead, about=f"journal {self.path}", unwritten=self.unwritten)
        if write and self._readonly:
            message = "it was opened for reading only; open it without readonly=True to write"
            raise JournalError(message, about=f"journal {self.path}")

    def _check_here(self) -> None:
        if os.getpid() != self._pid:
            message = f"the journal {self.path} was opened by process {self._pid}: a forked child must not use it"
            raise SessionStateError(message)
        if asyncio.get_running_loop() is not self._loop:
            message = f"the journal {self.path} was opened on another event loop and can only be used there"
            raise SessionStateError(message)

    def _change(
        self,
        state: State,
        fingerprint: bytes,
        *,
        allowed: int | None = None,
        remote_id: str | None = None,
        error: str | None = None,
    ) -> Change:
        self._check(write=True)
        return Change(
            fingerprint=records.sixteen(fingerprint),
            state=state,
            allowed=ALLOWED[state] if allowed is None else allowed,
            at=self._now(),
            run=self.run,
            remote_id=remote_id,
            error=error,
        )

    async def _ask(self, question: Callable[[Store], _T], *, write: bool = False) -> _T:
        self._check(write=write)
        answer: _T = await self._writer.submit(question)
        return answer

    def __del__(self) -> None:
        writer: Writer | None = getattr(self, "_writer", None)
        if writer is not None and self._closed is None and os.getpid() == self._pid:
            warnings.warn(f"the journal {self.path} was not closed", ResourceWarning, source=self, stacklevel=2)
            writer.stop()


class JournalReader:
    """What a journal holds, for reports and checks.

    It never changes the file, and may read while an ingest writes it::

        async with JournalReader("run.db") as journal:
            async for record in journal.records(states=["in_doubt"]):
                print(record.label, record.reason)

    :param path: the file that was given to an ingest as ``journal``.

    Entering raises :class:`~seedance_avatar.JournalError` when there is none, or it is not a journal. Leaving gives
    the file back; every method raises :class:`~seedance_avatar.SessionStateError` before and after.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._journal: Journal | None = None

    async def __aenter__(self) -> Self:
        self._journal = await Journal.open(self.path, readonly=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            await self._journal.aclose()

    def records(self, *, states: Sequence[State] = STATES, kinds: Sequence[Kind] = KINDS) -> AsyncIterator[Record]:
        """Iterate over what is known, oldest first, a page at a time: never in memory as a whole.

        :param states: only what is in one of these states; by default in any.
        :param kinds: only items of these kinds; by default of any: assets, generations and groups.
        """
        return self._open().records(states=states, kinds=kinds)

    def samples(self) -> AsyncIterator[Sample]:
        """Iterate over the figures that the runs noted once a second or less often, oldest first.

        Their names are ``requests`` and ``throttled`` (counted from each run's beginning), ``submitting`` and
        ``pending``, ``submit_limit`` and ``query_limit`` (per second, absent while unlimited).
        """
        return self._open().samples()

    async def summary(self) -> Summary:
        """Return the counts by kind and state, and when runs began and ended."""
        return await self._open().summary()

    def _open(self) -> Journal:
        if self._journal is None:
            message = "this reader is not open: use `async with JournalReader(path) as journal:`"
            raise SessionStateError(message)
        return self._journal
