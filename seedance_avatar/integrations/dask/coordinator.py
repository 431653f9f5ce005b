"""The coordinator's half of an ingest on a Dask cluster: reads sources, writes the journal, hands out shards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Final

import anyio
import attrs
from distributed import Client, Event, Queue, Semaphore

from seedance_avatar.assets.adapter import AssetAdapter, group_id_of
from seedance_avatar.errors import AvatarError, InvalidSource, SessionStateError, SubmissionInDoubt
from seedance_avatar.ingest.classify import (
    key_conflict,
    outcome_for,
    outcome_of_record,
    record_end,
    record_not_accepted,
    shown_of,
)
from seedance_avatar.ingest.recorder import plan_for
from seedance_avatar.ingest.run import Run
from seedance_avatar.journal.journal import Journal
from seedance_avatar.models import AssetSource
from seedance_avatar.options import Rerun
from seedance_avatar.outcomes import Active, AnyOutcome, Failed, InDoubt, Pending, Unsent
from seedance_avatar.text import safe_text

from .worker import Order, begun_name, close_sessions, work

__all__ = ["ClusterRun", "cluster_gone"]

_log = logging.getLogger("seedance_avatar")

_GRACE: Final = 5.0
"""Seconds beyond the drain of a worker that its last messages may take."""


def cluster_gone(error: Exception) -> SessionStateError:
    """Return the error of a run whose scheduler cannot be reached any more."""
    hint = "start the cluster anew and run the same again: with its journal it goes on where it was"
    return SessionStateError(f"the cluster's scheduler is gone: {safe_text(error, 200)}", hint=hint)


_LOOK: Final = 0.5
"""Seconds between two looks at the connection to the scheduler: a client that lost it waits for a new one."""


@attrs.define(eq=False)
class _Item:
    """A source that was taken: its fingerprint in the journal, its asset's id, and the sources that share it."""

    source: AssetSource
    identity: Hashable
    content: Hashable
    fingerprint: bytes = b""
    asset_id: str | None = None
    resend: bool = False
    sharing: list[AssetSource] = attrs.field(factory=list)
    settled: bool = False


@attrs.define(eq=False, kw_only=True)
class ClusterRun(Run):
    """The run behind the stream of an ingest on a cluster.

    :ivar order: makes the order of a shard of its number and its items.
    :ivar name: unique; the queue, the events, the semaphore and the tasks of the run are named after it.
    :ivar worker_drain: seconds that a worker gives what is on the wire when the run is left.
    :ivar leases: uploads on the wire at one time, over all workers.
    :ivar rerun: what is sent although the journal knows it.
    :ivar release: gives the journal back.
    """

    client: Client
    adapter: AssetAdapter
    order: Callable[[int, list[tuple[AssetSource, str | None]]], Order]
    name: str
    shard: int
    worker_drain: float
    leases: int
    journal: Journal | None
    rerun: Rerun
    release: Callable[[], Awaitable[None]]
    drain: float = 2 * _GRACE
    _first: dict[Hashable, _Item] = attrs.field(factory=dict)
    _shards: dict[int, list[_Item]] = attrs.field(factory=dict)
    _to_follow: list[_Item] = attrs.field(factory=list)
    _numbers: int = 0
    _outages: dict[str, int] = attrs.field(factory=dict)
    _messages: set[asyncio.Task[Any]] = attrs.field(factory=set)
    _unwritten: list[Awaitable[None]] = attrs.field(factory=list)
    _queue: Queue | None = None
    _semaphore: Semaphore | None = None

    def _under_way(self) -> tuple[int, int]:
        """Count what is accepted as polled, and what else was handed out as being submitted."""
        items = [item for shard in self._shards.values() for item in shard if not item.settled]
        polling = sum(item.asset_id is not None for item in items)
        return len(items) - polling, polling

    def outages(self) -> int:
        """Return how many outages began, over all workers that have ended a shard."""
        return sum(self._outages.values())

    def _on_halt(self, error: AvatarError) -> None:
        del error
        self._tell_workers("halt")

    def _on_leave(self, error: AvatarError) -> None:
        del error
        self._tell_workers("leave")
        self._end_within(self.worker_drain + _GRACE)

    def _tell_workers(self, word: str) -> None:
        message = asyncio.get_running_loop().create_task(Event(f"{self.name}-{word}", client=self.client).set())
        self._messages.add(message)
        message.add_done_callback(self._messages.discard)

    # The supervisor

    async def _work(self) -> None:
        try:
            await self._coordinate()
        except ExceptionGroup as group:
            error = group.exceptions[0]
            raise (cluster_gone(error) if isinstance(error, OSError) else error) from None

    async def _coordinate(self) -> None:
        queue = self._queue = Queue(f"{self.name}-home", client=self.client)
        self._semaphore = await Semaphore(max_leases=self.leases, name=f"{self.name}-leases")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, queue)
            tasks.start_soon(self._watch_scheduler)
            try:
                await self._hand_out_all(queue)
            except Exception as error:  # noqa: BLE001 - what is handed out already is followed to its end
                self._broke(cluster_gone(error) if isinstance(error, OSError) else error)
            await self._stop_reading()
            self.all_read = True
            while self._shards:
                await self._movement()
            tasks.cancel_scope.cancel()

    def _settle_rest(self) -> None:
        lost = SubmissionInDoubt("it was handed to a worker that was not heard of any more")
        for item in [item for shard in self._shards.values() for item in shard if not item.settled]:
            if item.asset_id is not None:
                self._pending(item, self.halted or lost)
                continue
            if self.journal is not None:
                with contextlib.suppress(AvatarError):  # broken: it is in doubt to the next run all the same
                    self._unwritten.append(self.journal.in_doubt(item.fingerprint, lost))
            self._settle(item, InDoubt(source=item.source, error=lost))
        for item in self._to_follow:
            self._pending(item, self.halted or lost)

    def _closings(self) -> Sequence[Callable[[], Awaitable[Any]]]:
        return self._close_journal, self.reader.aclose, self._clear_up

    async def _close_journal(self) -> None:
        if self.journal is not None:
            try:
                for written in self._unwritten:
                    await written
            finally:
                await self.release()

    async def _clear_up(self) -> None:
        if self.client.status != "running":
            for message in self._messages:
                message.cancel()
        await asyncio.gather(*self._messages, return_exceptions=True)
        if self.client.status != "running":
            return
        await self.client.run(close_sessions, self.name)
        if self._queue is not None:
            self._queue.close()
        if self._semaphore is not None:
            await self._semaphore.close()

    # Handing out

    async def _hand_out_all(self, queue: Queue) -> None:
        with self._reading:
            while self.halted is None:
                threads: dict[str, int] = await self.client.nthreads()
                busy = len(self._shards) >= 2 * max(1, sum(threads.values()))
                if busy or self.accounts.undelivered >= 2 * self.shard:
                    await self._movement()
                    continue
                if self._to_follow:
                    items, self._to_follow = self._to_follow, []
                else:
                    sources = await self.reader.take(self.shard)
                    if not sources and self._shards:
                        await self._movement()  # what a lost worker leaves behind may still be handed out
                        continue
                    if not sources:
                        return
                    items = await self._admit(sources)
                if items:
                    self._hand_out(items, queue)

    def _hand_out(self, items: list[_Item], queue: Queue) -> None:
        self._numbers += 1
        number = self._numbers
        self._shards[number] = items
        order = self.order(number, [(item.source, item.asset_id) for item in items])
        future = self.client.submit(work, order, pure=False, retries=0, key=f"{self.name}-{number}")
        watching = asyncio.get_running_loop().create_task(self._watch(future, number, queue))
        self._messages.add(watching)
        watching.add_done_callback(self._messages.discard)

    async def _watch(self, future: Any, number: int, queue: Queue) -> None:  # noqa: ANN401 - a distributed Future
        """Wait for the end of a task; report one that failed through the queue, behind all that the worker sent."""
        try:
            await future
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a killed worker, a bug: lost either way
            reason = safe_text(f"{type(error).__name__}: {error}", 200)
            with contextlib.suppress(Exception):  # where the scheduler is gone too, nobody reads the queue
                await queue.put((number, [("lost", reason)]))
        finally:
            future.release()
            with contextlib.suppress(Exception):
                await Event(begun_name(self.name, number), client=self.client).clear()

    async def _admit(self, sources: list[Any]) -> list[_Item]:
        """Judge and recognise ``sources``; return what is to be handed out, its intents on disk."""
        self.accounts.taken += len(sources)
        items: list[_Item] = []
        rest = list(sources)
        try:
            while rest:
                item = await self._judged(rest[0])
                del rest[0]
                if item is not None:
                    items.append(item)
            if self.journal is None or not items:
                return items
            return await self._recognise(items, self.journal)
        except BaseException as error:
            stopped = self.halted or SessionStateError(f"the ingest ended: {safe_text(repr(error))}")
            for item in items:
                if not item.settled:
                    self._settle(item, Unsent(source=item.source, error=stopped))
            for source in rest:
                self.book(Unsent(source=source, error=stopped.concerning(self.adapter.label(source))))
            raise

    async def _judged(self, source: Any) -> _Item | None:  # noqa: ANN401 - whatever the caller's iterable held
        try:
            if isinstance(source, AssetSource) and source.path is not None:
                message = "a cluster takes URLs only: the file may not be where the worker is"
                raise InvalidSource(message)
            identity = self.adapter.identity(source, await self.adapter.prepare(source))
            content = self.adapter.content(source)
            first = self._first.get(identity)
            if first is not None and first.content != content:
                raise key_conflict(source, shown_of(first.source))
        except AvatarError as error:
            self.book(Failed(source=source, error=error.concerning(self.adapter.label(source))))
            return None
        if first is not None:
            first.sharing.append(source)
            return None
        item = self._first[identity] = _Item(source, identity, content)
        return item

    async def _recognise(self, items: list[_Item], journal: Journal) -> list[_Item]:
        group_id = group_id_of(self.adapter.group)
        entries = [self.adapter.entry(journal, item.source, group_id) for item in items]
        wanted: list[_Item] = []
        for item, entry, found in zip(items, entries, await journal.claim(entries), strict=True):
            record = found
            item.fingerprint = entry.fingerprint
            same = record is None or record.is_of(entry)
            earlier = record is not None and (record.run or 0) < journal.run
            plan = plan_for(record, same=same, earlier=earlier, rerun=self.rerun)
            if plan == "conflict" and record is not None:
                error = key_conflict(item.source, f"{record.kind} {record.shown}", earlier=True)
                self._settle(item, Failed(source=item.source, error=error))
                continue
            if plan == "renew":
                await journal.renew([entry])
                record = None
            item.asset_id = None if record is None else record.remote_id
            item.resend = plan == "send" and record is not None and record.state == "in_doubt"
            if plan != "known":
                wanted.append(item)
            elif record is not None:
                self._settle(item, outcome_of_record(record, item.source, self.adapter, earlier=earlier))
        intents = [item for item in wanted if item.asset_id is None]
        try:
            await asyncio.gather(*(journal.sending(item.fingerprint, resend=item.resend) for item in intents))
        except BaseException:
            # Those that were committed before one failed, or before it was cancelled, are not handed out either.
            with contextlib.suppress(AvatarError):
                self._unwritten.extend(journal.unsent(item.fingerprint) for item in intents)
            raise
        return wanted

    async def _watch_scheduler(self) -> None:
        """Raise when the connection to the scheduler is lost: what it kept of this run is lost with it."""
        while self.client.status == "running":  # noqa: ASYNC110 - distributed tells nobody of a lost connection
            await asyncio.sleep(_LOOK)
        raise cluster_gone(OSError(f"its client is {self.client.status}"))

    # Messages of the workers

    async def _listen(self, queue: Queue) -> None:
        while True:
            number, facts = await queue.get()
            await self._on_message(number, facts)
            self._moved.set()

    async def _on_message(self, number: int, facts: Sequence[tuple[Any, ...]]) -> None:
        items = self._shards.get(number)
        if items is None:
            _log.warning("a message came from a worker that had been given up: what it reports stays in doubt")
            return
        accepted = [(items[fact[1]], fact[2]) for fact in facts if fact[0] == "accepted"]
        if self.journal is not None:
            await asyncio.gather(*(self.journal.accepted(item.fingerprint, asset_id) for item, asset_id in accepted))
        for item, asset_id in accepted:
            item.asset_id = asset_id
        for fact in facts:
            if fact[0] == "outcome":
                await self._outcome(items[fact[1]], fact[2])
            elif fact[0] == "lost":
                await self._lost(number, SubmissionInDoubt(f"its worker was lost ({fact[1]})"))
            elif fact[0] == "end":
                self._outages |= fact[2]
                await self._shard_ended(number, fact[1])

    async def _shard_ended(self, number: int, error: AvatarError | None) -> None:
        for item in self._shards.pop(number):
            if not item.settled:  # the worker could not even begin: nothing of it has left
                why = error or SessionStateError("the worker ended without a message")
                await self._outcome(item, Unsent(source=item.source, error=why))
        if error is not None:
            self.halt(error)

    async def _outcome(self, item: _Item, outcome: AnyOutcome) -> None:
        if item.settled:
            return
        if self.journal is not None:
            match outcome:
                case Active():
                    record_end(self.journal, item.fingerprint, None)
                case Failed(asset=asset, error=error) if asset is not None:
                    record_end(self.journal, item.fingerprint, error)
                case Failed(error=error) | InDoubt(error=error) | Unsent(error=error):
                    await record_not_accepted(self.journal, item.fingerprint, type(outcome), error)
        self._settle(item, outcome)

    async def _lost(self, number: int, error: SubmissionInDoubt) -> None:
        for item in self._shards.pop(number, ()):
            if item.settled:
                continue
            if item.asset_id is None:
                await self._outcome(item, InDoubt(source=item.source, error=error))
            elif self.halted is None:
                self._to_follow.append(item)
            else:
                self._pending(item, self.halted)

    def _settle_unsent(self, source: Any) -> None:  # noqa: ANN401 - whatever the caller's iterable held
        error = self.stopped().concerning(self.adapter.label(source))
        self.book(Unsent(source=source, error=error))

    def _pending(self, item: _Item, error: AvatarError) -> None:
        group_id = group_id_of(self.adapter.group)
        asset = self.adapter.from_record(item.source, group_id, item.asset_id or "", "processing")
        self._settle(item, Pending(source=item.source, asset=asset, error=error))

    def _settle(self, item: _Item, outcome: AnyOutcome) -> None:
        item.settled = True
        self._first.pop(item.identity, None)
        for source in (item.source, *item.sharing):
            self.book(outcome_for(source, outcome, self.adapter))
