"""Runs one ingest of a command: shows progress, writes results, and stops in order on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import attrs

from seedance_avatar import Asset, AssetSource, AvatarSession, Event, Ingest, IngestStats, Observer, Outcome

from .eventlog import EventLog
from .meter import Meter
from .progress import JsonView, LiveView, PlainView, Snapshot, View, keep_showing
from .results import Results
from .signals import DRAIN, Interrupts, bring_home
from .tally import Tally

__all__ = ["Run", "choose_view", "fan_out", "on_live_terminal"]

T = TypeVar("T")


def on_live_terminal() -> bool:
    """Return whether standard error is a terminal that can redraw lines."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in {None, "", "dumb"}


def choose_view(*, as_json: bool) -> tuple[View, EventLog | None]:
    """Return how progress is shown on standard error: events, a live frame on a terminal, or plain lines."""
    if as_json:
        log = EventLog(sys.stderr)
        return JsonView(log), log
    if on_live_terminal():
        return LiveView(sys.stderr), None
    return PlainView(sys.stderr), None


def fan_out(*observers: Observer | None) -> Observer:
    """Return one observer that passes every event to each of ``observers``; those that are None are left out."""
    watching = [observer for observer in observers if observer is not None]

    def observe(event: Event) -> None:
        for observer in watching:
            observer(event)

    return observe


@attrs.define(eq=False)
class Run:
    """Runs one ingest and counts its outcomes.

    :ivar title: what is being done, shown in progress and summary.
    :ivar view: where progress is shown.
    :ivar meter: rates and percentiles from the session's events; an observer of the session.
    :ivar results: where outcomes are written, or None.
    :ivar total: number of sources in all, or None where it cannot be known.
    :ivar rejected: returns how many rows were rejected so far.
    :ivar seen: called with every outcome.
    :ivar read_to_end: True once every source was read and has its outcome.
    """

    title: str
    view: View
    meter: Meter
    results: Results | None = None
    total: int | None = None
    rejected: Callable[[], int] = int
    seen: Callable[[Outcome], object] = lambda _: None
    tally: Tally = attrs.field(factory=Tally)
    elapsed: float = 0.0
    read_to_end: bool = False
    _doing: str = ""
    _snap: Callable[[], Snapshot] | None = None
    _session: AvatarSession | None = None
    _stop: Callable[[], None] | None = None
    _draining: asyncio.Task[None] | None = None
    _main: asyncio.Task[Any] | None = None
    _call: asyncio.Task[Any] | None = None

    def interrupts(self, last_words: Callable[[], str]) -> Interrupts:
        """Return a context manager in which the first signal drains the ingest, or cancels what comes before it.

        :param last_words: returns what is printed when the second signal ends the process.
        """
        self._main = asyncio.current_task()

        def last() -> str:
            if self.results is not None:
                self.results.abandon()
            return f"{self.view.farewell}\n{last_words()}\n"

        return Interrupts(self._interrupted, last)

    def _interrupted(self) -> None:
        if self._session is None:
            if self._main is not None:
                self._main.cancel()
            return
        self._doing = "stopping: waiting (10 s at most) for requests that were already sent; Ctrl-C again ends at once"
        self.view.say(self._doing)
        ending = self._session.drain(DRAIN) if self._call is None else bring_home(self._session, self._call)
        self._draining = asyncio.ensure_future(ending)

    async def call(self, session: AvatarSession, work: Coroutine[Any, Any, T]) -> T:
        """Await a single submission of ``session``; interrupted, its answer is waited for.

        :raises asyncio.CancelledError: it was interrupted, and no answer came.
        """
        self._session, self._call = session, asyncio.ensure_future(work)
        try:
            result: T = await self._call
            return result
        finally:
            self._session = self._call = None

    def halt(self) -> None:
        """Take no more sources; assets that were accepted are polled to their end."""
        if self._stop is not None:
            self._stop()

    async def follow(self, session: AvatarSession, sources: Iterable[AssetSource], **options: Any) -> None:  # noqa: ANN401 - the options of session.ingest
        """Ingest ``sources`` and return when each has its outcome.

        :raises Unwritable: the results could not be written; the run was stopped in order.
        """
        loop = asyncio.get_running_loop()
        async with session.ingest(sources, **options) as stream:
            self._session, self._stop = session, stream.stop
            self._snap = lambda: self._snapshot(stream.stats(), session)
            showing = loop.create_task(keep_showing(self.view, self._snap))
            try:
                await self._take(stream)
            finally:
                showing.cancel()
                await asyncio.wait([showing])
                self._session = self._stop = None
                self.elapsed = stream.stats().elapsed
                self.tally.rejected = self.rejected()
                self.tally.unread = max(0, (self.total or 0) - self.tally.total)
        if self._draining is not None:
            await self._draining

    async def _take(self, stream: Ingest[AssetSource, Asset]) -> None:
        # The results are opened only now: the journal is held, and nothing else can keep the run from its work.
        async with self.results or contextlib.nullcontext():
            if self.results is not None and self.results.left:
                self.view.say(
                    f"{self.results.left} was left by a run that was killed; this run gives its results again"
                )
            async for outcome in stream.outcomes():
                self.tally.add(outcome)
                self.seen(outcome)
                if self.results is not None:
                    await self.results.put(outcome)
            self.read_to_end = stream.stats().exhausted
            if self.results is not None:
                self.results.whole = self.read_to_end

    async def beside(self, doing: str, work: Awaitable[T]) -> T:
        """Await ``work`` after the ingest, and show ``doing`` meanwhile."""
        self.view.say(doing)
        self._doing = doing
        showing = None if self._snap is None else asyncio.ensure_future(keep_showing(self.view, self._snap))
        try:
            return await work
        finally:
            self._doing = ""
            if showing is not None:
                showing.cancel()
                await asyncio.wait([showing])

    def _snapshot(self, stats: IngestStats, session: AvatarSession) -> Snapshot:
        meter, now = self.meter, asyncio.get_running_loop().time()
        done = stats.active + stats.failed + stats.pending + stats.in_doubt + stats.unsent
        trouble = self._doing or (f"{meter.down}; nothing more is sent until it answers" if meter.down else "")
        return Snapshot(
            title=self.title,
            total=self.total,
            stats=stats,
            session=session.stats(),
            rate=meter.accepted.rate(now),
            eta=None if self.total is None else meter.eta(self.total - done, now),
            throttled_ago=None if meter.throttled_at is None else now - meter.throttled_at,
            trouble=trouble,
            last_error=self.tally.last_error or meter.trouble,
            rejected=self.rejected(),
        )
