"""The pipeline: lazy sources in, one outcome for each out; generic in what is submitted.

``SourceReader`` reads, ``Admission`` decides, workers submit under the session's gate, the session's poller polls,
``OutcomeQueue`` counts. One supervisor task owns it all, so a consumer that breaks, raises or is cancelled leaves
nothing running (an async generator with a task group inside cannot promise that: PEP 789).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from anyio.abc import TaskGroup

from seedance_avatar.client.client import Client
from seedance_avatar.client.gate import Flow
from seedance_avatar.client.poller import Poller, PollingBroke
from seedance_avatar.client.tasks import ENDS_THE_PROGRAM
from seedance_avatar.errors import (
    AuthError,
    AvatarError,
    ConnectionFailed,
    JournalError,
    NotFound,
    QuotaExhausted,
    SubmissionInDoubt,
)
from seedance_avatar.events import Accepted, IngestEnded, IngestStarted, Settled
from seedance_avatar.outcomes import Active, AnyOutcome, Failed, InDoubt, Pending, Unsent
from seedance_avatar.polling.schedule import PendingItem

from .adapter import Adapter
from .admission import Admission, Decision, Follow, Joined, Known, Refused, Send, room, worth_reading
from .classify import NotAccepted, key_conflict, outcome_for, outcome_of_error, shown_of
from .job import Job
from .recorder import Recorder
from .run import Run

if TYPE_CHECKING:
    from seedance_avatar.journal.claims import Claimant

__all__ = ["Pipeline"]

_AHEAD: Final = 2
"""Sources read ahead, for each submission that may be on the wire."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Pipeline(Run):
    """One run over one iterable of sources.

    :ivar number: tells its events from those of other runs.
    :ivar recorder: keeps its progress.
    :ivar alive: the jobs that have no outcome yet.
    """

    number: int
    adapter: Adapter[Any, Any]
    client: Client
    poller: Poller
    asset_timeout: float
    max_pending: int
    max_submitting: int
    recorder: Recorder = attrs.field(factory=Recorder)
    admission: Admission = attrs.field(init=False)
    alive: dict[Job, None] = attrs.field(factory=dict)
    _flow: Flow = attrs.field(factory=lambda: Flow("ingest"))
    _ready: deque[Job] = attrs.field(factory=deque)
    _submitting: set[Job] = attrs.field(factory=set)
    _polling: int = 0
    _broken: bool = False
    _outages_before: int = 0
    _workers: TaskGroup = attrs.field(init=False)

    def outages(self) -> int:
        """Return how many outages of the service began since the run did."""
        return self.client.breaker.outages - self._outages_before

    def __attrs_post_init__(self) -> None:
        self._outages_before = self.client.breaker.outages
        self.admission = Admission(self.adapter, self.recorder)

    def _under_way(self) -> tuple[int, int]:
        return len(self._submitting), self._polling

    def _on_halt(self, error: AvatarError) -> None:
        self._flow.halt(error)
        self._flush(error)

    def _flush(self, error: AvatarError) -> None:
        while self._ready:
            self._settle(self._ready.popleft(), Unsent, error)

    def _on_leave(self, error: AvatarError) -> None:
        """Give what is on the wire ``drain`` seconds to be answered; then it is in doubt."""
        del error
        for job in list(self.alive):
            # One that is on the wire for another call has an answer to come, as our own that are on the wire have.
            if job.pending is not None or (job.holder is not None and not job.holder.on_wire):
                self._give_up(job, SubmissionInDoubt("another call of this process is sending it"))
        self._end_within(self.drain)

    # The supervisor

    async def run(self) -> None:
        """Run to the end: every source taken has its outcome when this returns, however it returns."""
        observer, clock = self.client.observer, self.clock
        if observer is not None:
            observer(IngestStarted(at=clock(), ingest=self.number, kind=self.adapter.kind))
        try:
            await super().run()
        finally:
            if observer is not None:
                observer(IngestEnded(at=clock(), ingest=self.number, report=self.report()))

    async def _work(self) -> None:
        self.recorder.begin()
        async with anyio.create_task_group() as self._workers:
            try:
                await self._read_all()
            except (Exception, *ENDS_THE_PROGRAM) as error:  # noqa: BLE001 - the caller's own, or ours: raised after the outcomes
                self._broke(error)
            self._settle_lost()
            while self.alive:
                await self._movement()
                if self._broken:
                    self._settle_lost()

    def _broke(self, error: BaseException) -> None:
        super()._broke(error)
        self._broken = True
        self._moved.set()

    def _settle_lost(self) -> None:
        """End the jobs that nobody has in hand: the run was stopped, or broke, before it was decided about them."""
        self._broken = False
        queued = set(self._ready)
        for job in list(self.alive):
            in_hand = job in queued or job in self._submitting or job.pending is not None or job.holder is not None
            if not in_hand:
                self._give_up(job, SubmissionInDoubt("submitting it broke before its answer was read"))

    def _closings(self) -> Sequence[Callable[[], Awaitable[Any]]]:
        return self.reader.aclose, self.recorder.aclose

    def _settle_rest(self) -> None:
        for job in list(self.alive):
            try:
                self._give_up(job, SubmissionInDoubt("the wait for its answer was given up"))
            except Exception as error:  # noqa: BLE001 - the others have their outcomes all the same
                self._broke(error)

    def _settle_unsent(self, source: Any) -> None:  # noqa: ANN401 - whatever the caller's iterable held
        job = Job(self, source, self.clock())
        self.alive[job] = None
        self._settle(job, Unsent, self.stopped())

    def _give_up(self, job: Job, lost: SubmissionInDoubt) -> None:
        """End a job wherever it is: with an id it is pending, on the wire in doubt, else unsent."""
        holder = job.holder or job
        job.item_id = holder.item_id
        if job.pending is not None:
            self.poller.discard(job.pending)
            job.ended(None, self.stopped())
        elif job.item_id:
            self._settle(job, Pending, self.stopped())
        elif holder.on_wire:
            self.recorder.given_up(job, lost)
            self._settle(job, InDoubt, lost)
        else:
            self._settle(job, Unsent, self.stopped())

    # Taking sources

    async def _read_all(self) -> None:
        with self._reading:
            while self.halted is None:
                if (count := self._room()) <= 0:
                    await self._movement()
                    continue
                sources = await self.reader.take(count)
                if not sources:
                    break
                jobs = [Job(self, source, self.clock()) for source in sources]
                self.accounts.taken += len(jobs)
                self.alive.update(dict.fromkeys(jobs))
                await self._admit(jobs)
        await self._stop_reading()
        self.all_read = True

    async def _admit(self, jobs: list[Job]) -> None:
        try:
            await self.admission.admit(jobs)
        finally:  # stopped, or the caller's group function broke: what was decided holds all the same
            to_send: list[Job] = []
            for decision in self.admission.take():
                try:
                    to_send += self._carry_out(decision)
                except Exception as error:  # noqa: BLE001 - what was decided about the others holds all the same
                    self._broke(error)
            self._enlist(to_send)

    def _carry_out(self, decision: Decision) -> Sequence[Job]:
        """Do what was decided; return the job where it is to be sent."""
        match decision:
            case Refused(job=job, end=end, error=error, halts=halts):
                self._settle(job, end, error)
                if halts:
                    self.halt(error)
            case Joined(job=job):
                del self.alive[job]
            case Send(job=job):
                return (job,)
            case Follow(job=job, accepted_at=accepted_at):
                self._resume(job, accepted_at)
            case Known(job=job, outcome=outcome):
                self._settle_as(job, outcome)
        return ()

    def _room(self) -> int:
        accounts = self.accounts
        return room(
            undelivered=accounts.undelivered,
            in_hand=accounts.in_hand,
            max_pending=self.max_pending,
            queued=len(self._ready),
            ahead=_AHEAD * self.max_submitting,
        )

    def made_room(self) -> None:
        """Note that a job was settled, a worker is free, or an outcome was taken by the consumer."""
        queued, ahead = len(self._ready), _AHEAD * self.max_submitting
        if not self.alive or (not self.all_read and worth_reading(self._room(), queued=queued, ahead=ahead)):
            self._moved.set()

    def _enlist(self, jobs: Iterable[Job]) -> None:
        self._ready.extend(jobs)
        if self.halted is not None:
            self._flush(self.halted)
        while len(self._submitting) < self.max_submitting and self._ready:
            self._submitting.add(job := self._ready.popleft())
            self._workers.start_soon(self._work_on, job)

    def _resume(self, job: Job, accepted_at: float | None) -> None:
        """Poll what was accepted before; its deadline begins anew."""
        now = self.clock()
        age = 0.0 if accepted_at is None else max(0.0, time.time() - accepted_at)
        job.status, job.accepted_at, job.teaches = "processing", now - age, False
        self._watch(job, deadline=now + self.asset_timeout)

    # What a job asks

    async def before_send(self, job: Job) -> None:
        """Commit the intent to send it."""
        await self.recorder.before_send(job)

    async def not_applied(self, job: Job) -> None:
        """Take the intent back: nothing came of it."""
        await self.recorder.not_applied(job)

    def inherit(self, job: Job, holder: Claimant, outcome: AnyOutcome) -> None:
        """Go on with ``job``, which waited for ``holder`` to come to ``outcome``.

        What that one did not send, or does not follow any more, is ours now, unless somebody else was faster.
        """
        if job not in self.alive:
            return
        if isinstance(holder, Job) and holder.content != job.content:
            self._settle(job, Failed, key_conflict(job.source, shown_of(holder.source)))
            return
        job.item_id, job.target_id = holder.item_id, holder.target_id
        match outcome:
            case Pending() | Unsent() if not self.recorder.owns(job):
                pass
            case Pending() if self.left is not None:
                self._settle(job, Pending, self.left)
            case Pending():
                self._resume(job, None)
            case Unsent() if holder.resend and not self.recorder.resends:
                self._settle(job, InDoubt, SubmissionInDoubt("an earlier run sent it, and its answer was lost"))
            case Unsent():
                job.resend = holder.resend
                self._enlist([job])
            case _:
                self._settle_as(job, outcome_for(job.source, outcome, self.adapter))

    def polled(self, job: Job, item: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - the adapter's item
        """Take the end of a job's polling: ``item`` where it is terminal, else why the polling stopped."""
        self._polling -= 1
        try:
            if error is None:
                self._finished(job, item)
            elif isinstance(error, NotFound):
                self._settle(job, Failed, error)
            else:
                self._settle(job, Pending, error)
                if isinstance(error.__cause__, ENDS_THE_PROGRAM):
                    self._broke(error.__cause__)
                elif isinstance(error, AuthError | QuotaExhausted | ConnectionFailed | PollingBroke):
                    self.halt(error)
        except Exception as broken:  # noqa: BLE001 - it ends the run in order, and the poller and its other runs go on
            self._broke(broken)
            if job in self.alive:
                self._settle(job, Pending, self.stopped())

    # Submitting

    async def _work_on(self, job: Job | None) -> None:
        while job is not None:
            following = None
            try:
                await self._submit(job)
                following = self._ready.popleft() if self._ready else None
            except (Exception, *ENDS_THE_PROGRAM) as error:  # noqa: BLE001 - one job's accident ends the run in order, it loses nothing
                self._broke(error)
            finally:
                self._submitting.remove(job)
                if following is not None:
                    self._submitting.add(following)
                self.made_room()
            job = following

    async def _submit(self, job: Job) -> None:
        try:
            item = await self.adapter.submit(
                job.source, job.target_id, client=self.client, flow=self._flow, passage=job
            )
        except AvatarError as error:
            job.on_wire = False
            await self._not_accepted(job, error)
        else:
            job.item_id = self.adapter.item_id(item)
            await self._accepted(job, item)

    async def _not_accepted(self, job: Job, error: AvatarError) -> None:
        end, halts = self._outcome_of(error)
        try:
            await self.recorder.not_accepted(job, end, error)
        except JournalError as unwritten:
            self.halt(unwritten)
        self._settle(job, end, error)
        if halts:
            self.halt(error)
        elif (gave_up := self.client.gave_up) is not None:
            self.halt(gave_up)

    def _outcome_of(self, error: AvatarError) -> tuple[NotAccepted, bool]:
        """Return how a submission that met ``error`` ends, and whether the next one would meet the same."""
        return (Unsent, False) if error is self.halted else outcome_of_error(error)

    async def _accepted(self, job: Job, item: Any) -> None:  # noqa: ANN401 - the adapter's item
        now = self.clock()
        job.on_wire = False
        job.accepted_at = now
        job.saw(item)
        if self.client.observer is not None:
            self.client.observer(Accepted(at=now, ingest=self.number, source=job.source, asset=item))
        try:
            await self.recorder.accepted(job)
        except AvatarError as unwritten:
            # The asset exists and its outcome names it; only nothing more is sent that could not be recorded.
            self.halt(unwritten)
        if item.is_terminal:
            self._finished(job, item)
        elif self.left is not None:
            self._settle(job, Pending, self.left)
        else:
            self._watch(job, deadline=job.accepted_at + self.asset_timeout)

    def _watch(self, job: Job, *, deadline: float) -> None:
        kind = self.adapter.polling_kind(job.source)
        pending = job.pending = PendingItem(
            kind=kind, accepted_at=job.accepted_at, deadline=deadline, payload=job, teaches=job.teaches
        )
        self._polling += 1
        try:
            self.poller.add(pending)
        except Exception:
            self.poller.discard(pending)
            self._polling -= 1
            job.pending = None
            raise

    # Ending

    def _finished(self, job: Job, item: Any) -> None:  # noqa: ANN401 - the adapter's item
        failure = self.adapter.failure(item)
        try:
            self.recorder.ended(job, failure)
        except AvatarError as unwritten:  # the id is recorded; the next run will ask once more how it ended
            self.halt(unwritten)
        self._settle(job, Active if failure is None else Failed, failure, item)

    def _settle(
        self,
        job: Job,
        end: type[AnyOutcome],
        error: AvatarError | None,
        item: Any = None,  # noqa: ANN401 - the adapter's item
    ) -> None:
        """End ``job`` as ``end``, for every source that shares it."""
        self._settle_as(job, job.outcome(end, error, item))

    def _settle_as(self, job: Job, outcome: AnyOutcome) -> None:
        """End ``job`` with ``outcome``, for every source that shares it."""
        self._book(job, outcome)
        del self.alive[job]
        for source in job.sharing or ():
            self._book(job, outcome_for(source, outcome, self.adapter))
        self.admission.forget(job, outcome)
        self.made_room()

    def _book(self, job: Job, outcome: AnyOutcome) -> None:
        self.book(outcome)
        if self.client.observer is not None:
            now = self.clock()
            accepted = job.accepted_at or None
            self.client.observer(
                Settled(
                    at=now,
                    ingest=self.number,
                    outcome=outcome,
                    accepted_after=None if accepted is None else accepted - job.taken_at,
                    active_after=None if accepted is None else now - accepted,
                )
            )
