"""What every run over sources has: its outcomes, a way to stop, and an end at which every source has an outcome."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
import attrs

from seedance_avatar.client.tasks import wait_through_cancel
from seedance_avatar.errors import AvatarError, SessionStateError
from seedance_avatar.outcomes import AnyOutcome, Failed, IngestReport, IngestStats
from seedance_avatar.text import safe_redacted, safe_text

from .outcome_queue import OutcomeQueue
from .sources import SourceReader

__all__ = ["Run"]

_log = logging.getLogger("seedance_avatar")

_HALTED, _ABANDONED = 1.0, 0.1
"""Seconds that the caller's iterator may take to give the item that it is at, when the run was halted or left."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Run(abc.ABC):
    """A run behind a stream. A subclass says how it works, halts and settles what is left at the end.

    :ivar reader: the sources.
    :ivar clock: seconds, for ``elapsed``.
    :ivar drain: seconds that closing the sources and the journal may take at the end.
    :ivar stop_on_failure: take and send nothing more after the first ``Failed``.
    :ivar crash: what ended it before its time and is raised to the consumer after the last outcome: the source
        iterator's own exception, or a failure of ours.
    :ivar ended: True when there will be no more outcomes.
    :ivar halted: why it takes no more sources and sends nothing more, or None while it does.
    :ivar left: why it follows nothing any more, or None while it does.
    :ivar abandoned: True when the caller left it early: what was read ahead then is counted, and has no outcome.
    :ivar all_read: True once the sources were read to their end.
    :ivar task: the task in which :meth:`run` runs.
    """

    reader: SourceReader[Any]
    clock: Callable[[], float]
    drain: float
    stop_on_failure: bool = False
    accounts: OutcomeQueue = attrs.field(factory=OutcomeQueue)
    crash: BaseException | None = None
    ended: bool = False
    halted: AvatarError | None = None
    left: AvatarError | None = None
    abandoned: bool = False
    all_read: bool = False
    task: asyncio.Task[Any] | None = None
    _reading: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    _moved: asyncio.Event = attrs.field(factory=asyncio.Event)
    _started_at: float = 0.0
    _ended_at: float | None = None

    # What a subclass says

    @abc.abstractmethod
    async def _work(self) -> None:
        """Take sources and bring each to its outcome; :meth:`_settle_rest` follows, however this ends."""

    @abc.abstractmethod
    def _on_halt(self, error: AvatarError) -> None:
        """Send nothing more; nothing more is read."""

    @abc.abstractmethod
    def _on_leave(self, error: AvatarError) -> None:
        """Follow nothing any more; it has been halted."""

    @abc.abstractmethod
    def _settle_rest(self) -> None:
        """Give an outcome to all that was taken and has none."""

    @abc.abstractmethod
    def _settle_unsent(self, source: Any) -> None:  # noqa: ANN401 - whatever the caller's iterable held
        """Give its outcome to a source that was read after the run had been halted."""

    @abc.abstractmethod
    def _under_way(self) -> tuple[int, int]:
        """Return how many sources are being submitted, and how many are polled."""

    @abc.abstractmethod
    def _closings(self) -> Sequence[Callable[[], Awaitable[Any]]]:
        """Return what is to be closed at the end, the sources among it, in this order."""

    # What the consumer's side asks

    def stats(self) -> IngestStats:
        """Return the counts at this moment."""
        submitting, polling = self._under_way()
        return self.accounts.stats(
            elapsed=self._elapsed(), exhausted=self.reader.exhausted, submitting=submitting, polling=polling
        )

    def report(self) -> IngestReport:
        """Return the counts with all outcomes that are not active."""
        report = self.accounts.report(elapsed=self._elapsed(), exhausted=self.reader.exhausted)
        return attrs.evolve(report, outages=self.outages())

    def outages(self) -> int:
        """Return how many outages of the service began since the run did; 0 where that is not known."""
        return 0

    def _elapsed(self) -> float:
        return (self.clock() if self._ended_at is None else self._ended_at) - self._started_at

    def halt(self, error: AvatarError) -> None:
        """Take no more sources and send nothing more: what was not sent is unsent, with ``error``.

        What is on the wire gets its answer, and what was accepted is followed to its end.
        """
        if self.halted is None:
            self.halted = error
            self._reading.cancel()
            self._on_halt(error)
            self._moved.set()

    def leave(self, error: AvatarError) -> None:
        """:meth:`halt`, and follow nothing: what was accepted is pending, with ``error``."""
        if self.left is None and not self.ended:
            self.left = error
            self.halt(error)
            self._on_leave(error)

    async def _stop_reading(self) -> None:
        """Give an outcome to what was read ahead when the run was halted, since nobody else has it any more."""
        if self.halted is not None:
            await self.reader.stop(_ABANDONED if self.abandoned else _HALTED)
            self._settle_left_over()

    def _settle_left_over(self) -> None:
        for source in self.reader.left_over():
            if self.abandoned:
                self.accounts.dropped += 1
            else:
                self.accounts.taken += 1
                self._settle_unsent(source)

    def _end_within(self, seconds: float) -> None:
        if self.task is not None:
            timer = asyncio.get_running_loop().call_later(seconds, self.task.cancel)
            self.task.add_done_callback(lambda _: timer.cancel())

    def stopped(self) -> AvatarError:
        """Return why nothing more is sent."""
        return self.left or self.halted or SessionStateError("the ingest was ended from outside")

    async def gone(self) -> None:
        """Wait until the run is over; after :meth:`leave` that is at most ``timeouts.drain`` seconds away.

        A first cancellation is kept until the run is over, since a submission that is abandoned on the wire is
        an id lost for good. A second one ends the run at once; what is on the wire is then in doubt.
        """
        if self.task is not None:
            await wait_through_cancel(self.task)

    def made_room(self) -> None:
        """Note that something has moved, an outcome taken by the consumer for one."""
        self._moved.set()

    # The supervisor

    async def run(self) -> None:
        """Run to the end: every source taken has its outcome when this returns, however it returns."""
        self.task = asyncio.current_task()
        self._started_at = self.clock()
        try:
            await self._work()
        except Exception as error:  # noqa: BLE001 - a failure of ours: raised to the consumer, after the outcomes
            self._broke(error)
        finally:
            try:
                self._settle_left_over()
                self._settle_rest()
            except Exception as error:  # noqa: BLE001 - whoever waits for the end is told of it, not left waiting
                self._broke(error)
            try:
                with anyio.move_on_after(self.drain, shield=True):
                    async with AsyncExitStack() as closing:  # a cancellation in one of them does not skip the next
                        for close in reversed(self._closings()):
                            closing.push_async_callback(self._close, close)
            finally:
                self._keep(self.reader.error)
                if not self.all_read and self.halted is None:
                    self._keep(SessionStateError("the ingest was ended from outside before its sources were read"))
                self.ended, self._ended_at = True, self.clock()
                self.accounts.wake()

    async def _close(self, close: Callable[[], Awaitable[Any]]) -> None:
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - a generator or a journal that fails to close: raised to the consumer
            self._keep(error)

    def _keep(self, error: BaseException | None) -> None:
        if self.crash is None:
            self.crash = error

    def _broke(self, error: BaseException) -> None:
        if self.crash is None:  # what breaks one submission breaks all that are under way
            _log.error("an ingest broke: %s", safe_redacted(repr(error)))
        self._keep(error)
        self.halt(SessionStateError(f"the ingest broke: {safe_text(repr(error))}"))

    async def _movement(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def book(self, outcome: AnyOutcome) -> None:
        """Count ``outcome`` and queue it for the consumer."""
        self.accounts.settle(outcome)
        if isinstance(outcome, Failed) and self.stop_on_failure:
            hint = "correct or leave out what failed, then run the same again"
            self.halt(SessionStateError("stopped at the first failure, as on_failure='stop' asks", hint=hint))
