"""The open half of a session: builds its parts when it is opened, and ends them when it is closed."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import OrderedDict
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import aiohttp
import attrs

from seedance_avatar.client.circuit_breaker import CircuitBreaker
from seedance_avatar.client.client import Client
from seedance_avatar.client.gate import Flow, gates
from seedance_avatar.client.poller import Poller
from seedance_avatar.client.tasks import ENDS_THE_PROGRAM, TaskSet
from seedance_avatar.client.transport import Transport
from seedance_avatar.errors import AvatarError, SessionStateError
from seedance_avatar.events import Accepted, Observer
from seedance_avatar.ingest.adapter import Adapter
from seedance_avatar.ingest.memory import MemoryRecorder
from seedance_avatar.ingest.pipeline import Pipeline
from seedance_avatar.ingest.recorder import JournalRecorder, Recorder
from seedance_avatar.ingest.sources import SourceReader
from seedance_avatar.models import Asset, VideoTask
from seedance_avatar.options import Limits, Permits, Polling, Rerun, Retry, SharedLimits, Timeouts
from seedance_avatar.outcomes import SessionStats
from seedance_avatar.polling.schedule import Schedule
from seedance_avatar.text import KeyProvider, Secret

from .journals import Journals

if TYPE_CHECKING:
    from seedance_avatar.journal.journal import Journal

A = TypeVar("A", bound=Asset | VideoTask)

_REMEMBERED: Final = 1_000
"""Acceptances of single calls whose time is kept for the wait that follows; the newest."""

_log = logging.getLogger("seedance_avatar")


def guarded(observer: Observer) -> Observer:
    """Return ``observer`` such that what it raises does not reach the work; see :class:`Observer`."""
    logged = left = False

    def observe(event: Any) -> None:  # noqa: ANN401 - any event
        nonlocal logged, left
        try:
            observer(event)
        except ENDS_THE_PROGRAM as error:
            # From the loop, not through the work: what has just been accepted would lose its id. And once: asyncio
            # then cancels all tasks, and a second one would break off what they do at their end.
            if not left:
                left = True
                asyncio.get_running_loop().call_soon(_leave, error)
        except BaseException:  # noqa: BLE001 - whatever an observer raises, a CancelledError too, must not stop the work
            if not logged:
                logged = True
                _log.exception("the observer raised; this is logged once, and the work goes on")

    return observe


def _leave(error: BaseException) -> NoReturn:
    raise error


@attrs.define(eq=False, repr=False, kw_only=True)
class Engine:
    """The open half of a session. It belongs to the loop and the process in which it was built."""

    transport: Transport
    client: Client
    poller: Poller
    tasks: TaskSet
    journals: Journals
    timeouts: Timeouts
    limits: Limits | SharedLimits
    permits: Permits | None
    """The line to limits that are shared, or None where they are this session's own."""
    alone: Flow
    """The flow of all single submissions: it competes with each ingest as one."""
    asking: Flow
    """The flow of all single questions: it competes with the polling of everything pending."""
    pipelines: set[Pipeline] = attrs.field(factory=set)
    singles: TaskSet = attrs.field(factory=TaskSet)
    draining: AvatarError | None = None
    _begun: int = 0
    # An OrderedDict: finding the first key of a dict takes time linear in the keys deleted before it.
    _accepted_at: OrderedDict[str, float] = attrs.field(factory=OrderedDict)

    @classmethod
    async def start(  # noqa: PLR0913 - the session's options, one by one
        cls,
        base: str,
        key: Secret[str] | KeyProvider,
        *,
        limits: Limits | SharedLimits,
        retry: Retry,
        polling: Polling,
        video_polling: Polling,
        timeouts: Timeouts,
        http: aiohttp.ClientSession | None,
        observer: Observer | None,
        trust_env: bool,
        fast_path: bool,
    ) -> Engine:
        """Bind everything to the running loop; no request is sent yet."""
        pool = limits.max_submitting + limits.max_polling
        transport = Transport(
            base, key, timeouts=timeouts, http=http, pool=pool, trust_env=trust_env, fast_path=fast_path
        )
        loop = asyncio.get_running_loop()
        rng = random.Random()  # noqa: S311 - it spreads retries and looks; nothing secret hangs on it
        permits = None if isinstance(limits, Limits) else await limits.open()
        try:
            await transport.open()
        except BaseException:
            if permits is not None:
                await permits.aclose()
            raise
        submit, query = gates(limits, permits, retry=retry, clock=loop.time, rng=rng)
        client = Client(
            transport=transport,
            submit=submit,
            query=query,
            retry=retry,
            breaker=CircuitBreaker(retry, loop.time, rng),
            clock=loop.time,
            rng=rng,
            observer=None if observer is None else guarded(observer),
        )
        tasks, asking = TaskSet(), Flow("single questions")
        poller = Poller(client, Schedule.build(polling, rng, {"generation": video_polling}), tasks)
        client.breaker.askable, client.breaker.on_ill = lambda: len(poller) > 0, poller.wake
        return cls(
            transport=transport,
            client=client,
            poller=poller,
            tasks=tasks,
            journals=Journals(poller.schedule, client, asking),
            timeouts=timeouts,
            limits=limits,
            permits=permits,
            alone=Flow("single submissions"),
            asking=asking,
        )

    def check_outside(self) -> None:
        """Refuse another process or loop, and a source (or a group callable) that would wait for its own end."""
        self.transport.check_here()
        if asyncio.current_task() in {pipeline.task for pipeline in self.pipelines}:
            message = "a source cannot end the session that reads it: leave that to the task that consumes the stream"
            raise SessionStateError(message)

    async def begin(  # noqa: PLR0913 - the options of one run, by keyword
        self,
        adapter: Adapter[Any, Any],
        sources: Iterable[Any] | AsyncIterable[Any],
        *,
        asset_timeout: float,
        max_pending: int,
        stop_on_failure: bool,
        journal: str | os.PathLike[str] | None = None,
        rerun: Rerun | None = None,
        recorder: Recorder | None = None,
    ) -> Pipeline:
        """Start a pipeline over ``sources``; ``recorder`` writes elsewhere what would go into ``journal``."""
        self.transport.check_here()
        if self.draining is not None:
            raise self.draining.with_traceback(None)
        reader = SourceReader.of(sources)
        if journal is not None:
            held = await self.open_journal(journal)
            recorder = JournalRecorder(
                journal=held, adapter=adapter, release=self.journals.release, stats=self.stats, rerun=rerun or Rerun()
            )
        self._begun += 1
        pipeline = Pipeline(
            number=self._begun,
            adapter=adapter,
            client=self.client,
            clock=self.client.clock,
            poller=self.poller,
            reader=reader,
            asset_timeout=asset_timeout,
            max_pending=max_pending,
            max_submitting=self.limits.max_submitting,
            stop_on_failure=stop_on_failure,
            drain=self.timeouts.drain,
            recorder=recorder or (Recorder() if adapter.idempotent else MemoryRecorder()),
        )
        self.pipelines.add(pipeline)  # before it runs: an eager task reads its first sources in here
        task = self.tasks.spawn(pipeline.run(), name=f"seedance-avatar: ingest {self._begun}")
        task.add_done_callback(lambda _: self.pipelines.discard(pipeline))
        return pipeline

    async def open_journal(self, path: str | os.PathLike[str]) -> Journal:
        """Return the journal at ``path``, held until ``journals.release``; refuse while the session is draining."""
        journal = await self.journals.acquire(path)
        if self.draining is not None:  # since it was asked for
            await self.journals.release(journal)
            raise self.draining.with_traceback(None)
        return journal

    def accepted(self, source: Any, item: A) -> A:  # noqa: ANN401 - what was submitted, of whatever kind
        """Note when a single call was accepted, tell the observer, and return ``item``."""
        now = self.client.clock()
        self._accepted_at[item.asset_id if isinstance(item, Asset) else item.task_id] = now
        if len(self._accepted_at) > _REMEMBERED:
            self._accepted_at.popitem(last=False)
        if self.client.observer is not None:
            self.client.observer(Accepted(at=now, ingest=None, source=source, asset=item))
        return item

    def take_accepted_at(self, item_id: str) -> float | None:
        """Return when a single call of this session got ``item_id``, once; None for others, and for long ago."""
        return self._accepted_at.pop(item_id, None)

    def stats(self) -> SessionStats:
        """Return the session's figures at this moment."""
        return attrs.evolve(self.client.figures(), pending=len(self.poller), ingests=len(self.pipelines))

    async def drain(self, timeout: float, error: AvatarError) -> None:  # noqa: ASYNC109 - it bounds what is waited for, and is not a deadline of the call
        """Start nothing new, give what is on the wire ``timeout`` seconds to be answered, end every ingest."""
        self.check_outside()
        self.draining = self.draining or error
        self.alone.halt(error)
        runs = list(self.pipelines)
        for pipeline in runs:
            pipeline.drain = timeout
            pipeline.leave(error)
        await self.singles.gone(timeout)
        for pipeline in runs:
            await pipeline.gone()

    async def aclose(self) -> None:
        """End everything: what waits gets :class:`SessionStateError`, what is on the wire is waited for first."""
        closed = SessionStateError("the session was closed")
        await self.drain(self.timeouts.drain, closed)
        self.poller.halt(closed)
        self.client.submit.close(closed)
        self.client.query.close(closed)
        await self.singles.aclose()
        await self.tasks.aclose()
        await self.journals.aclose()
        if self.permits is not None:
            await self.permits.aclose()
        await self.transport.aclose()
