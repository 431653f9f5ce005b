"""The pipeline: lazy sources in, one outcome for each out; generic in what is submitted.

``SourceReader`` reads, workers submit under the session's gate, the session's hub polls, ``OutcomeQueue`` count.
One supervisor task owns it all, so a consumer that breaks, raises or is cancelled leaves nothing running
(an async generator with a task group inside cannot promise that: PEP 789).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio
import attrs
from anyio.abc import TaskGroup

from seedance_avatar.client.client import Client
from seedance_avatar.client.gate import Flow
from seedance_avatar.client.poller import Poller
from seedance_avatar.client.tasks import wait_through_cancel
from seedance_avatar.errors import (
    AuthError,
    AvatarError,
    ConnectionFailed,
    JournalError,
    NotFound,
    QuotaExhausted,
    SessionStateError,
    SubmissionInDoubt,
)
from seedance_avatar.events import Accepted, IngestEnded, IngestStarted, Settled
from seedance_avatar.outcomes import Active, AnyOutcome, Failed, InDoubt, IngestReport, IngestStats, Pending, Unsent
from seedance_avatar.polling.schedule import PendingItem
from seedance_avatar.text import safe_redacted, safe_text

from .adapter import Adapter
from .admission import Admission
from .classify import NotAccepted, outcome_for, outcome_of_error
from .job import Job
from .outcome_queue import OutcomeQueue
from .sources import SourceReader

if TYPE_CHECKING:
    from seedance_avatar.journal.claims import Claimant
    from seedance_avatar.journal.records import Record

    from .recorder import Recorder

__all__ = ["Pipeline"]

_log = logging.getLogger("seedance_avatar")


@attrs.define(eq=False, repr=False, kw_only=True)
class Pipeline:
    """One run over one iterable of sources.

    :ivar number: tells its events from those of other runs.
    :ivar crash: what ended the run before its time and is raised to the consumer after the last outcome: the
        source iterator's own exception, or a failure of ours.
    :ivar task: runs :meth:`run`.
    """

    number: int
    adapter: Adapter[Any, Any]
    client: Client
    poller: Poller
    admission: Admission = attrs.field(init=False)
    reader: SourceReader[Any]
    asset_timeout: float
    max_pending: int
    max_submitting: int
    stop_on_failure: bool
    drain: float
    recorder: Recorder | None = None
    accounts: OutcomeQueue = attrs.field(factory=OutcomeQueue)
    crash: BaseException | None = None
    ended: bool = False
    task: asyncio.Task[None] | None = None
    _flow: Flow = attrs.field(factory=lambda: Flow("ingest"))
    _ready: deque[Job] = attrs.field(factory=deque)
    alive: dict[Job, None] = attrs.field(factory=dict)
    _submitting: int = 0
    _polling: int = 0
    _left: AvatarError | None = None
    _moved: asyncio.Event = attrs.field(factory=asyncio.Event)
    _workers: TaskGroup = attrs.field(init=False)
    _started_at: float = 0.0
    _ended_at: float | None = None

    def __attrs_post_init__(self) -> None:
        self.admission = Admission(self, self.reader, self.max_pending)

    # What the consumer's side asks

    def stats(self) -> IngestStats:
        """Return the accounts at this moment."""
        return self.accounts.stats(
            elapsed=self._elapsed(),
            exhausted=self.reader.exhausted,
            submitting=self._submitting,
            polling=self._polling,
        )

    def report(self) -> IngestReport:
        """Return the accounts with all that is not active."""
        return self.accounts.report(elapsed=self._elapsed(), exhausted=self.reader.exhausted)

    def _elapsed(self) -> float:
        return (self.client.clock() if self._ended_at is None else self._ended_at) - self._started_at

    @property
    def halted(self) -> AvatarError | None:
        """Why it sends nothing more, or None while it does."""
        return self._flow.halted

    def halt(self, error: AvatarError) -> None:
        """Take no more sources and send nothing more: what is not on the wire is unsent, with ``error``.

        What is on the wire comes home, and what was accepted is followed to its end.
        """
        if self._flow.halted is None:
            self._flow.halt(error)
            self.admission.stop()
            self._flush(error)

    def _flush(self, error: AvatarError) -> None:
        while self._ready:
            self.settle(self._ready.popleft(), Unsent, error)

    def leave(self, error: AvatarError) -> None:
        """:meth:`halt`, and follow nothing: what was accepted is pending, with ``error``.

        What is on the wire gets ``drain`` seconds to come home; then it is in doubt.
        """
        if self._left is not None or self.ended:
            return
        self._left = error
        self.halt(error)
        for job in list(self.alive):
            # One that is on the wire for another call has an answer to come, as our own that are on the wire have.
            if job.pending is not None or (job.owner is not None and not job.owner.on_wire):
                self._give_up(job, SubmissionInDoubt("another call of this process is sending it"))
        if self.task is not None:
            timer = asyncio.get_running_loop().call_later(self.drain, self.task.cancel)
            self.task.add_done_callback(lambda _: timer.cancel())

    async def gone(self) -> None:
        """Wait until the run is over; after :meth:`leave` that is at most ``drain`` seconds away.

        A first cancellation is kept until the run is over, since a submission that is abandoned on the wire is
        an id lost for good. A second one ends the run at once; what is on the wire is then in doubt.
        """
        if self.task is not None:
            await wait_through_cancel(self.task)

    # The supervisor

    async def run(self) -> None:
        """Run to the end: every source taken has its outcome when this returns, however it returns."""
        self.task = asyncio.current_task()
        self._started_at = self.client.clock()
        if self.client.observer is not None:
            self.client.observer(IngestStarted(at=self._started_at, ingest=self.number, kind=self.adapter.kind))
        if self.recorder is not None:
            self.recorder.begin()
        try:
            async with anyio.create_task_group() as self._workers:
                try:
                    await self.admission.feed()
                except Exception as error:  # noqa: BLE001 - the caller's own, or ours: raised after the outcomes
                    self._crashed(error)
                while self.alive:
                    await self.movement()
        finally:
            self._settle_rest()
            try:
                with anyio.move_on_after(self.drain, shield=True):
                    try:
                        await self._close(self.reader.aclose)
                    finally:
                        if self.recorder is not None:
                            await self._close(self.recorder.aclose)
            finally:
                self._finish()

    def _settle_rest(self) -> None:
        for job in list(self.alive):
            self._give_up(job, SubmissionInDoubt("the wait for its answer was given up"))

    def _give_up(self, job: Job, lost: SubmissionInDoubt) -> None:
        """End a job wherever it is: with an id it is pending, on the wire in doubt, else unsent."""
        owner = job.owner or job
        job.item_id = owner.item_id
        if job.pending is not None:
            self.poller.discard(job.pending)
            job.ended(None, self.stopped())
        elif job.item_id:
            self.settle(job, Pending, self.stopped())
        elif owner.on_wire:
            if self.recorder is not None:
                self.recorder.given_up(job, lost)
            self.settle(job, InDoubt, lost)
        else:
            self.settle(job, Unsent, self.stopped())

    def _finish(self) -> None:
        if self.crash is None:
            self.crash = self.reader.error
        if self.crash is None and not self.admission.done and self._left is None and self._flow.halted is None:
            self.crash = SessionStateError("the ingest was ended from outside before its sources were read")
        self.ended = True
        self._ended_at = self.client.clock()
        self.accounts.stir()
        if self.client.observer is not None:
            self.client.observer(IngestEnded(at=self._ended_at, ingest=self.number, report=self.report()))

    async def _close(self, closing: Callable[[], Awaitable[None]]) -> None:
        try:
            await closing()
        except Exception as error:  # noqa: BLE001 - a generator or a journal that fails to close: theirs to hear of
            if self.crash is None:
                self.crash = error

    def _crashed(self, error: Exception) -> None:
        if self.crash is None:
            self.crash = error
        _log.error("an ingest broke: %s", safe_redacted(repr(error)))
        self.halt(SessionStateError(f"the ingest broke: {safe_text(repr(error))}"))

    async def movement(self) -> None:
        """Wait until there is room for more sources, or no job is left."""
        self._moved.clear()
        await self._moved.wait()

    def made_room(self) -> None:
        """Note that something has moved: a job settled, a worker free, an outcome taken by the consumer."""
        if not self.alive or self.admission.hungry:
            self._moved.set()

    # What the admission asks

    @property
    def queued(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._ready)

    def enlist(self, jobs: list[Job]) -> None:
        """Take ``jobs`` to be submitted."""
        self._ready.extend(jobs)
        if self._flow.halted is not None:
            self._flush(self._flow.halted)
        while self._submitting < self.max_submitting and self._ready:
            self._submitting += 1
            self._workers.start_soon(self._work, self._ready.popleft())

    def resume(self, job: Job, record: Record | None) -> None:
        """Poll what an earlier run was told the id of; its deadline begins anew."""
        now = self.client.clock()
        age = 0.0 if record is None or record.accepted_at is None else max(0.0, time.time() - record.accepted_at)
        job.status, job.accepted_at, job.teaches = "processing", now - age, False
        self._watch(job, deadline=now + self.asset_timeout)

    def inherit(self, job: Job, holder: Claimant, outcome: AnyOutcome) -> None:
        """Go on with ``job``, which waited for ``holder`` to come to ``outcome``.

        What that one did not send, or does not follow any more, is ours now, unless somebody else was faster.
        """
        if job not in self.alive or self.recorder is None:
            return
        job.item_id, job.target_id = holder.item_id, holder.target_id
        if isinstance(outcome, Pending | Unsent) and not self.recorder.owns(job):
            return
        if isinstance(outcome, Pending) and self._left is not None:
            self.settle(job, Pending, self._left)
        elif isinstance(outcome, Pending):
            self.resume(job, None)
        elif isinstance(outcome, Unsent) and holder.resend and not self.recorder.resends:
            self.settle(job, InDoubt, SubmissionInDoubt("an earlier run sent it, and what came of that is not known"))
        elif isinstance(outcome, Unsent):
            job.resend = holder.resend
            self.enlist([job])
        else:
            self.settle_as(job, outcome_for(job.source, outcome, self.adapter))

    def stopped(self) -> AvatarError:
        """Return why nothing more is sent."""
        return self._left or self._flow.halted or SessionStateError("the ingest was ended from outside")

    # Submitting

    async def _work(self, job: Job | None) -> None:
        try:
            while job is not None:
                await self._submit(job)
                job = self._ready.popleft() if self._ready else None
                self.made_room()
        finally:
            self._submitting -= 1
            self.made_room()

    async def _submit(self, job: Job) -> None:
        try:
            item = await self.adapter.submit(
                job.source, job.target_id, client=self.client, flow=self._flow, passage=job
            )
        except AvatarError as error:
            job.on_wire = False
            await self._not_accepted(job, error)
        except Exception as error:  # noqa: BLE001 - one job's accident ends the run in order, it loses nothing
            self._crashed(error)
            self._give_up(job, SubmissionInDoubt(f"submitting it broke: {safe_text(repr(error))}"))
        else:
            job.item_id = self.adapter.item_id(item)
            await self._accepted(job, item)

    async def _not_accepted(self, job: Job, error: AvatarError) -> None:
        end, halts = self.fate(error)
        if self.recorder is not None and job.fingerprint:
            try:
                await self.recorder.not_accepted(job, end, error)
            except JournalError as unwritten:
                self.halt(unwritten)
        self.settle(job, end, error)
        if halts:
            self.halt(error)

    def fate(self, error: AvatarError) -> tuple[NotAccepted, bool]:
        """Return how a submission that met ``error`` ends, and whether the next one would meet the same."""
        return (Unsent, False) if error is self._flow.halted else outcome_of_error(error)

    async def _accepted(self, job: Job, item: Any) -> None:  # noqa: ANN401 - the adapter's item
        now = self.client.clock()
        job.on_wire = False
        job.accepted_at = now
        job.saw(item)
        if self.client.observer is not None:
            self.client.observer(Accepted(at=now, ingest=self.number, source=job.source, asset=item))
        if self.recorder is not None:
            try:
                await self.recorder.accepted(job)
            except AvatarError as unwritten:
                # The asset exists and its outcome names it; only nothing more is sent that could not be recorded.
                self.halt(unwritten)
        if item.is_terminal:
            self._finished(job, item)
        elif self._left is not None:
            self.settle(job, Pending, self._left)
        else:
            self._watch(job, deadline=job.accepted_at + self.asset_timeout)

    def _watch(self, job: Job, *, deadline: float) -> None:
        self._polling += 1
        kind = self.adapter.polling_kind(job.source)
        job.pending = PendingItem(
            kind=kind, accepted_at=job.accepted_at, deadline=deadline, payload=job, teaches=job.teaches
        )
        self.poller.add(job.pending)

    # Ending

    def polled(self, job: Job, item: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - the adapter's item
        """Take the end of a job that was polled: ``item`` where it is terminal, else why the looking stopped."""
        self._polling -= 1
        if error is None:
            self._finished(job, item)
        elif isinstance(error, NotFound):
            self.settle(job, Failed, error)
        else:
            self.settle(job, Pending, error)
            if isinstance(error, AuthError | QuotaExhausted | ConnectionFailed):
                self.halt(error)

    def _finished(self, job: Job, item: Any) -> None:  # noqa: ANN401 - the adapter's item
        failure = self.adapter.failure(item)
        if self.recorder is not None:
            self._record_end(self.recorder, job, failure)
        if failure is None:
            self.settle(job, Active, None, item)
        else:
            self.settle(job, Failed, failure, item)

    def _record_end(self, recorder: Recorder, job: Job, failure: AvatarError | None) -> None:
        try:
            recorder.ended(job, failure)
        except AvatarError as unwritten:  # the id is recorded; the next run will ask once more how it ended
            self.halt(unwritten)

    def settle(
        self,
        job: Job,
        end: type[AnyOutcome],
        error: AvatarError | None,
        item: Any = None,  # noqa: ANN401 - the adapter's item
    ) -> None:
        """End ``job`` as ``end``, for every source that shares it."""
        self.settle_as(job, job.outcome(end, error, item))

    def settle_as(self, job: Job, outcome: AnyOutcome) -> None:
        """End ``job`` with ``outcome``, for every source that shares it."""
        del self.alive[job]
        self.admission.forget(job, outcome)
        self.book(outcome, job)
        for source in job.twins or ():
            self.book(outcome_for(source, outcome, self.adapter), job)
        self.made_room()

    def book(self, outcome: AnyOutcome, job: Job | None) -> None:
        """Count an outcome, queue it for the consumer, and tell the observer."""
        self.accounts.settle(outcome)
        if isinstance(outcome, Failed) and self.stop_on_failure:
            self.halt(SessionStateError("stopped at the first failure, as on_failure='stop' asks"))
        if self.client.observer is not None:
            now = self.client.clock()
            accepted = None if job is None or not job.accepted_at else job.accepted_at
            self.client.observer(
                Settled(
                    at=now,
                    ingest=self.number,
                    outcome=outcome,
                    accepted_after=None if accepted is None or job is None else accepted - job.taken_at,
                    active_after=None if accepted is None else now - accepted,
                )
            )
