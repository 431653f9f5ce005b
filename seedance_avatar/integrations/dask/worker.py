"""What runs on a worker of a Dask cluster: one shard of sources, uploaded and followed, and reported on as it goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import anyio
import attrs
from distributed import Event, Queue, Semaphore, get_worker

from seedance_avatar.assets.adapter import AssetAdapter
from seedance_avatar.errors import AvatarError, SessionStateError
from seedance_avatar.ingest.classify import NotAccepted
from seedance_avatar.ingest.job import Job
from seedance_avatar.ingest.pipeline import Pipeline
from seedance_avatar.ingest.recorder import Plan, Recorder
from seedance_avatar.journal.records import Record
from seedance_avatar.models import AssetSource
from seedance_avatar.session.session import AvatarSession
from seedance_avatar.text import Secret

__all__ = ["Key", "Order", "begun_name", "close_sessions", "work"]

_sessions: dict[str, AvatarSession] = {}
"""The sessions of this process, one for each run: its shards share what was found of the limits."""


class Key(Secret[str]):
    """A key on its way to the workers: a secret that can be pickled. An empty one stands for the worker's own key."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:  # type: ignore[override]  # the one Secret that may travel
        return Key, (self.reveal(),)


@attrs.frozen(kw_only=True)
class Order:
    """One shard. Its ``repr`` shows no source.

    :ivar run: names the run: its queue, its events, its semaphore.
    :ivar items: the sources, each with the id of its asset where it is only to be followed.
    :ivar options: of :class:`AvatarSession`, without the key.
    """

    run: str
    number: int
    key: Key
    group_id: str
    items: list[tuple[AssetSource, str | None]] = attrs.field(repr=False)
    options: dict[str, Any] = attrs.field(repr=False)
    asset_timeout: float
    leases: int


@attrs.define(eq=False)
class _Reports:
    """Reports to the coordinator: those of one turn of the loop go as one message, one message at a time."""

    queue: Queue
    number: int
    _waiting: deque[Any] = attrs.field(factory=deque)
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)
    _finished: bool = False

    def add(self, *fact: Any) -> None:  # noqa: ANN401 - pickled as it is
        self._waiting.append(fact)
        self._news.set()

    async def send_all(self) -> None:
        """Send the reports, until :meth:`finish`."""
        while not self._finished:
            await self._news.wait()
            await self.flush()

    def finish(self) -> None:
        """Let :meth:`send_all` end, once all is sent. It is not cancelled: what it was sending would be sent twice."""
        self._finished = True
        self._news.set()

    async def flush(self) -> None:
        self._news.clear()
        while self._waiting:
            facts = list(self._waiting)
            await self.queue.put((self.number, facts))
            for _ in facts:
                self._waiting.popleft()


@attrs.define(eq=False, kw_only=True)
class _ShardRecorder(Recorder):
    """Sends the progress of a shard to the coordinator, and holds a lease of the cluster for what is on the wire.

    :ivar numbers: the number of each source in the shard, by its ``id()``.
    :ivar ids: for each number the id of the asset where it is only to be followed, else None.
    """

    reports: _Reports
    semaphore: Semaphore
    numbers: dict[int, int]
    ids: list[str | None]
    _leased: set[Job] = attrs.field(factory=set)

    async def recognise(self, claimed: Sequence[tuple[Job, Any]]) -> list[tuple[Job, Plan, Record | None]]:
        plans: list[tuple[Job, Plan, Record | None]] = []
        for job, _ in claimed:
            job.fingerprint = b"at the coordinator"
            job.item_id = self.ids[self.numbers[id(job.source)]] or ""
            plans.append((job, "follow" if job.item_id else "send", None))
        return plans

    async def before_send(self, job: Job) -> None:
        await self.semaphore.acquire()
        self._leased.add(job)

    async def not_applied(self, job: Job) -> None:
        await self._free(job)

    async def accepted(self, job: Job) -> None:
        self.reports.add("accepted", self.numbers[id(job.source)], job.item_id)
        await self._free(job)

    async def not_accepted(self, job: Job, end: NotAccepted, error: AvatarError) -> None:
        del end, error  # the outcome says it
        await self._free(job)

    async def aclose(self) -> None:
        for job in list(self._leased):
            await self._free(job)

    async def _free(self, job: Job) -> None:
        if job in self._leased:
            self._leased.discard(job)
            await self.semaphore.release()


def begun_name(run: str, number: int) -> str:
    """Return the name of the event that is set once a shard was begun: it is never begun again."""
    return f"{run}-{number}-begun"


async def _session(order: Order) -> AvatarSession:
    session = _sessions.get(order.run)
    if session is None:
        session = _sessions[order.run] = AvatarSession(order.key.reveal() or None, **order.options)
    return await session.open()


async def close_sessions(run: str) -> None:
    """Close the session of a run in this process."""
    session = _sessions.pop(run, None)
    if session is not None:
        await session.aclose()


async def work(order: Order) -> None:
    """Upload and follow the sources of ``order``; the outcome of each was reported when this returns."""
    reports = _Reports(Queue(f"{order.run}-home"), order.number)
    # A worker that is retired is no failure to the scheduler: it runs elsewhere what that worker had begun.
    begun = Event(begun_name(order.run, order.number))
    if await begun.is_set():
        reports.add("lost", "it was begun by a worker that went away")
        await reports.flush()
        return
    await begun.set()
    try:
        engine = (await _session(order)).engine
        adapter = AssetAdapter(order.group_id, bool(order.options.get("allow_private_sources")))
        recorder = _ShardRecorder(
            reports=reports,
            semaphore=await Semaphore(max_leases=order.leases, name=f"{order.run}-leases"),
            numbers={id(source): at for at, (source, _) in enumerate(order.items)},
            ids=[asset_id for _, asset_id in order.items],
        )
        pipeline = await engine.begin(
            adapter,
            [source for source, _ in order.items],
            asset_timeout=order.asset_timeout,
            max_pending=len(order.items),
            stop_on_failure=False,
            recorder=recorder,
        )
    except AvatarError as error:
        reports.add("end", error, {})
        await reports.flush()
        return

    async def stop_on(word: str) -> None:
        await Event(f"{order.run}-{word}").wait()
        error = SessionStateError("the ingest on the cluster was stopped")
        pipeline.halt(error) if word == "halt" else pipeline.leave(error)

    async with anyio.create_task_group() as sending:
        sending.start_soon(reports.send_all)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stop_on, "halt")
                tasks.start_soon(stop_on, "leave")
                try:
                    await _report_all(pipeline, recorder)
                finally:
                    pipeline.leave(SessionStateError("the worker was stopped"))
                    with contextlib.suppress(asyncio.CancelledError):
                        await pipeline.gone()
                    tasks.cancel_scope.cancel()
            # The sessions of all shards in this process are one, and so are its outages.
            reports.add("end", pipeline.halted, {get_worker().address: engine.client.breaker.outages})
        finally:
            reports.finish()


async def _report_all(pipeline: Pipeline, recorder: _ShardRecorder) -> None:
    while (outcome := pipeline.accounts.pop(handed_over=True)) is not None or not pipeline.ended:
        if outcome is None:
            await pipeline.accounts.news()
            continue
        pipeline.made_room()
        recorder.reports.add("outcome", recorder.numbers[id(outcome.source)], outcome)
