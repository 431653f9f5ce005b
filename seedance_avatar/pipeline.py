"""The pipeline: lazy sources in, one outcome for each out; generic in what is submitted.

``Intake`` reads, workers submit under the session's gate, the session's hub polls, ``Accounts`` count.
One supervisor task owns it all, so a consumer that breaks, raises or is cancelled leaves nothing running
(an async generator with a task group inside cannot promise that: PEP 789).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Hashable
from typing import Any, Final, Protocol, TypeVar

import anyio
import attrs

from .accounts import Accounts, AnyOutcome
from .client import BeforeSend, Client
from .errors import (
    ApiError,
    AuthError,
    AvatarError,
    ConnectionFailed,
    InvalidInput,
    JournalError,
    NotFound,
    QuotaExhausted,
    RateLimited,
    ServerError,
    SessionStateError,
    SubmissionInDoubt,
    WaitTimeout,
)
from .events import Accepted, IngestEnded, IngestStarted, Settled
from .gate import Flow
from .intake import Intake
from .outcomes import Active, Failed, InDoubt, IngestReport, IngestStats, Pending, Unsent
from .polling import Watched
from .text import safe_text
from .watch import Watch
from .wire import Answer, Request

__all__ = ["Job", "Pipeline", "Trade"]

_log = logging.getLogger("seedance_avatar")

S_contra = TypeVar("S_contra", contravariant=True)
A = TypeVar("A")

_UNDELIVERED: Final = 1_024
"""Outcomes that may wait for the consumer before no more sources are taken."""
_AHEAD: Final = 2
"""Sources read ahead, for each submission that may be on the wire."""


class Trade(Protocol[S_contra, A]):
    """What a pipeline deals in: assets or videos. It knows how; the pipeline knows when and what then."""

    kind: str
    """``"assets"`` or ``"videos"``, for events."""

    def label(self, source: S_contra) -> str:
        """Return what names ``source`` in messages, without secrets."""

    def polling_kind(self, source: S_contra) -> str:
        """Return whose law of time it follows: ``image``, ``video``, ``audio`` or ``generation``."""

    async def place(self, source: S_contra) -> str:
        """Judge ``source`` and return where it goes (a group id); raise :class:`AvatarError` to refuse it."""

    def identity(self, source: S_contra, place: str) -> Hashable:
        """Return what is equal for two sources that are one upload, or None when each stands alone."""

    async def submit(self, source: S_contra, place: str, *, client: Client, flow: Flow, before_send: BeforeSend) -> A:
        """Submit ``source`` and return what the service made of it."""

    def question(self, item_id: str) -> Request:
        """Return the status request for ``item_id``."""

    def read(self, answer: Answer, source: S_contra) -> A:
        """Read the answer to :meth:`question`."""

    def recall(self, source: S_contra, item_id: str, status: str) -> A:
        """Return the thing as last seen, from what a pending job keeps of it."""

    def failure(self, thing: A) -> AvatarError | None:
        """Return why a terminal ``thing`` is a failure, or None when it is a success."""


@attrs.define(eq=False)
class Job:
    """One upload under way, and all the sources that share it. Small: a hundred thousand may be pending."""

    pipeline: Pipeline
    source: Any
    place: str
    identity: Hashable
    taken_at: float
    on_wire: bool = False
    item_id: str = ""
    status: str = ""
    accepted_at: float = 0.0
    misses: int = 0
    teaches: bool = True
    watched: Watched | None = None
    twins: list[Any] | None = None

    def question(self) -> Request:
        """Return the status request."""
        return self.pipeline.trade.question(self.item_id)

    def read(self, answer: Answer) -> Any:  # noqa: ANN401 - the trade's thing
        """Read the answer to it."""
        return self.pipeline.trade.read(answer, self.source)

    def saw(self, thing: Any) -> None:  # noqa: ANN401 - the trade's thing
        """Take note of a status that is not the end."""
        self.status = thing.status

    def ended(self, thing: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - the trade's thing
        """Hand the end to the pipeline."""
        self.watched = None
        self.pipeline.polled(self, thing, error)


@attrs.define(eq=False, kw_only=True)
class Pipeline:
    """One run over one iterable of sources.

    :ivar number: tells its events from those of other runs.
    :ivar crash: what ended the run before its time and is raised to the consumer after the last outcome: the
        source iterator's own exception, or a failure of ours.
    """

    number: int
    trade: Trade[Any, Any]
    client: Client
    watch: Watch
    intake: Intake[Any]
    asset_timeout: float
    max_pending: int
    max_submitting: int
    stop_on_failure: bool
    drain: float
    accounts: Accounts = attrs.field(factory=Accounts)
    crash: Exception | None = None
    ended: bool = False
    _flow: Flow = attrs.field(factory=lambda: Flow("ingest"))
    _ready: deque[Job] = attrs.field(factory=deque)
    _alive: dict[Job, None] = attrs.field(factory=dict)
    _twins: dict[Hashable, Job] = attrs.field(factory=dict)
    _submitting: int = 0
    _polling: int = 0
    _left: AvatarError | None = None
    _fed: bool = False
    _moved: asyncio.Event = attrs.field(factory=asyncio.Event)
    _feeding: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    _task: asyncio.Task[None] | None = None
    _started_at: float = 0.0
    _ended_at: float | None = None

    # What the consumer's side asks

    def stats(self) -> IngestStats:
        """Return the accounts at this moment."""
        return self.accounts.stats(
            elapsed=self._elapsed(),
            exhausted=self.intake.exhausted,
            submitting=self._submitting,
            polling=self._polling,
        )

    def report(self) -> IngestReport:
        """Return the accounts with all that is not active."""
        return self.accounts.report(elapsed=self._elapsed(), exhausted=self.intake.exhausted)

    def _elapsed(self) -> float:
        return (self.client.clock() if self._ended_at is None else self._ended_at) - self._started_at

    def start(self, task: asyncio.Task[None]) -> None:
        """Note the task that runs :meth:`run`."""
        self._task = task

    def halt(self, error: AvatarError) -> None:
        """Take no more sources and send nothing more: what is not on the wire is unsent, with ``error``.

        What is on the wire comes home, and what was accepted is followed to its end.
        """
        if self._flow.halted is None:
            self._flow.halt(error)
            self._feeding.cancel()
            while self._ready:
                self._settle(self._ready.popleft(), Unsent, error)

    def leave(self, error: AvatarError) -> None:
        """:meth:`halt`, and follow nothing: what was accepted is pending, with ``error``.

        What is on the wire gets ``drain`` seconds to come home; then it is in doubt.
        """
        if self._left is not None or self.ended:
            return
        self._left = error
        self.halt(error)
        for job in list(self._alive):
            if job.watched is not None:
                self.watch.discard(job.watched)
                job.ended(None, error)
        if self._task is not None:
            timer = asyncio.get_running_loop().call_later(self.drain, self._task.cancel)
            self._task.add_done_callback(lambda _: timer.cancel())

    async def gone(self) -> None:
        """Wait until the run is over; after :meth:`leave` that is at most ``drain`` seconds away.

        A first cancellation is kept until the run is over, since a submission that is abandoned on the wire is
        an id lost for good. A second one ends the run at once; what is on the wire is then in doubt.
        """
        if self._task is None:
            return
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not self._task.done():
                try:
                    await asyncio.wait({self._task})
                except asyncio.CancelledError as error:
                    if cancelled is not None:
                        self._task.cancel()
                    cancelled = error
        if cancelled is not None:
            raise cancelled

    # The supervisor

    async def run(self) -> None:
        """Run to the end: every source taken has its outcome when this returns, however it returns."""
        self._started_at = self.client.clock()
        if self.client.observer is not None:
            self.client.observer(IngestStarted(at=self._started_at, ingest=self.number, kind=self.trade.kind))
        try:
            async with anyio.create_task_group() as workers:
                with self._feeding:
                    await self._feed(workers)
                self._fed = True
                while self._alive:
                    await self._movement()
        except Exception as error:  # noqa: BLE001 - it is raised to the consumer, after the outcomes
            self._crashed(error)
        finally:
            self._finish()
            with anyio.move_on_after(self.drain, shield=True):
                await self._close_intake()

    def _finish(self) -> None:
        stopped = self._stopped()
        for job in list(self._alive):
            if job.watched is not None:
                self.watch.discard(job.watched)
                job.ended(None, stopped)
            elif job.on_wire:
                lost = SubmissionInDoubt("the wait for its answer was given up")
                self._settle(job, InDoubt, lost)
            else:
                self._settle(job, Unsent, stopped)
        if self.crash is None:
            self.crash = self.intake.error
        if self.crash is None and not self._fed and self._left is None and self._flow.halted is None:
            self.crash = SessionStateError("the ingest was ended from outside before its sources were read")
        self.ended = True
        self._ended_at = self.client.clock()
        self.accounts.stir()
        if self.client.observer is not None:
            self.client.observer(IngestEnded(at=self._ended_at, ingest=self.number, report=self.report()))

    def _stopped(self) -> AvatarError:
        return self._left or self._flow.halted or SessionStateError("the ingest was ended from outside")

    async def _close_intake(self) -> None:
        try:
            await self.intake.aclose()
        except Exception as error:  # noqa: BLE001 - the caller's generator raised while closing: theirs to hear of
            if self.crash is None:
                self.crash = error

    def _crashed(self, error: Exception) -> None:
        if self.crash is None:
            self.crash = error
        _log.error("an ingest broke: %s", safe_text(repr(error)))
        self.halt(SessionStateError(f"the ingest broke: {safe_text(repr(error))}"))

    async def _movement(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    # Reading

    def _room(self) -> int:
        if self.accounts.undelivered >= min(_UNDELIVERED, self.max_pending):
            return 0
        ahead = _AHEAD * self.max_submitting - len(self._ready)
        in_hand = self.accounts.taken - self.accounts.settled + self.accounts.undelivered
        return min(self.max_pending - in_hand, ahead)

    def made_room(self) -> None:
        """Note that the consumer took an outcome: there may be room for more sources."""
        if not self._fed:
            self._moved.set()

    async def _feed(self, workers: anyio.abc.TaskGroup) -> None:
        while self._flow.halted is None:
            if (room := self._room()) <= 0:
                await self._movement()
                continue
            sources = await self.intake.take(room)
            if not sources:
                return
            self.accounts.taken += len(sources)
            for at, source in enumerate(sources):
                try:
                    await self._admit(source)
                except BaseException:
                    # Halted or cancelled while a place was being found: what was taken has its outcome all the same.
                    stopped = self._stopped()
                    for rest in sources[at:]:
                        self._book(Unsent(source=rest, error=stopped.concerning(self._label(rest))), None)
                    raise
            while self._submitting < self.max_submitting and len(self._ready) > 0:
                self._submitting += 1
                workers.start_soon(self._work, self._ready.popleft())

    async def _admit(self, source: Any) -> None:  # noqa: ANN401 - whatever the caller's iterable held
        try:
            place = await self.trade.place(source)
        except AvatarError as error:
            self._refuse_here(source, error)
            return
        identity = self.trade.identity(source, place)
        first = None if identity is None else self._twins.get(identity)
        if first is not None:
            if first.twins is None:
                first.twins = []
            first.twins.append(source)
            return
        job = Job(self, source, place, identity, self.client.clock())
        self._alive[job] = None
        if identity is not None:
            self._twins[identity] = job
        if self._flow.halted is not None:
            self._settle(job, Unsent, self._flow.halted)
        else:
            self._ready.append(job)

    def _refuse_here(self, source: Any, error: AvatarError) -> None:  # noqa: ANN401 - as above
        self._book(Failed(source=source, error=error.concerning(self._label(source))), None)
        if self.stop_on_failure:
            self._stop_on_failure()

    def _label(self, source: object) -> str:
        return self.trade.label(source)

    # Submitting

    async def _work(self, job: Job | None) -> None:
        try:
            while job is not None:
                await self._submit(job)
                job = self._ready.popleft() if self._ready else None
                self._moved.set()
        finally:
            self._submitting -= 1
            self._moved.set()

    async def _submit(self, job: Job) -> None:
        async def before_send() -> None:
            job.on_wire = True

        try:
            thing = await self.trade.submit(
                job.source, job.place, client=self.client, flow=self._flow, before_send=before_send
            )
        except AvatarError as error:
            job.on_wire = False
            self._not_accepted(job, error)
            return
        except Exception as error:  # noqa: BLE001 - one job's accident ends the run in order, it loses nothing
            self._crashed(error)
            if job.on_wire:
                self._settle(job, InDoubt, SubmissionInDoubt(f"reading the answer broke: {safe_text(repr(error))}"))
            else:
                self._settle(job, Unsent, SessionStateError(f"the ingest broke: {safe_text(repr(error))}"))
            return
        self._accepted(job, thing)

    def _not_accepted(self, job: Job, error: AvatarError) -> None:
        if isinstance(error, SubmissionInDoubt):
            self._settle(job, InDoubt, error)
            return
        if self._flow.halted is not None and error is self._flow.halted:
            self._settle(job, Unsent, error)
            return
        match error:
            case AuthError() | QuotaExhausted() | ConnectionFailed() | RateLimited() | JournalError():
                # Not the source's fault, and the next source would meet the same.
                self._settle(job, Unsent, error)
                self.halt(error)
            case ServerError() | SessionStateError():
                self._settle(job, Unsent, error)
            case ApiError() | InvalidInput():
                self._settle(job, Failed, error)
            case _:
                self._settle(job, Unsent, error)

    def _accepted(self, job: Job, thing: Any) -> None:  # noqa: ANN401 - the trade's thing
        now = self.client.clock()
        job.on_wire = False
        job.accepted_at = now
        if self.client.observer is not None:
            self.client.observer(Accepted(at=now, ingest=self.number, source=job.source, asset=thing))
        self._follow(job, thing)

    def _follow(self, job: Job, thing: Any) -> None:  # noqa: ANN401 - the trade's thing
        job.item_id, job.status = self.trade_id(thing), thing.status
        if thing.is_terminal:
            self._finished(job, thing)
        elif self._left is not None:
            self._settle(job, Pending, self._left)
        else:
            self._polling += 1
            job.watched = Watched(
                kind=self.trade.polling_kind(job.source),
                accepted_at=job.accepted_at,
                deadline=job.accepted_at + self.asset_timeout,
                payload=job,
            )
            self.watch.add(job.watched)

    @staticmethod
    def trade_id(thing: Any) -> str:  # noqa: ANN401 - the trade's thing
        """Return the id of an asset or a task."""
        return str(getattr(thing, "asset_id", None) or thing.task_id)

    # Ending

    def polled(self, job: Job, thing: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - the trade's thing
        """Take the end of a job that was polled: ``thing`` where it is terminal, else why the looking stopped."""
        self._polling -= 1
        if error is None:
            self._finished(job, thing)
        elif isinstance(error, NotFound):
            self._settle(job, Failed, error)
        else:
            self._settle(job, Pending, error)
            if isinstance(error, AuthError | QuotaExhausted | ConnectionFailed):
                self.halt(error)

    def _finished(self, job: Job, thing: Any) -> None:  # noqa: ANN401 - the trade's thing
        failure = self.trade.failure(thing)
        if failure is None:
            self._settle(job, Active, None, thing)
        else:
            self._settle(job, Failed, failure, thing)

    def _settle(
        self,
        job: Job,
        end: type[AnyOutcome],
        error: AvatarError | None,
        thing: Any = None,  # noqa: ANN401 - the trade's thing
    ) -> None:
        del self._alive[job]
        if job.identity is not None and self._twins.get(job.identity) is job:
            del self._twins[job.identity]
        for source in (job.source, *(job.twins or ())):
            self._book(self._outcome(job, end, source, error, thing), job)
        if end is Failed and self.stop_on_failure:
            self._stop_on_failure()
        self._moved.set()

    def _outcome(
        self,
        job: Job,
        end: type[AnyOutcome],
        source: object,
        error: AvatarError | None,
        thing: Any,  # noqa: ANN401 - the trade's thing
    ) -> AnyOutcome:
        facts: dict[str, Any] = {"source": source}
        if error is not None:
            # A copy for each source: it names that source, and it holds no traceback and so no frames.
            facts["error"] = error.concerning(self._label(source))
        if end in {Active, Failed, Pending} and (thing is not None or job.item_id):
            facts["asset"] = self._own(job, source, thing)
            if isinstance(error, WaitTimeout):
                facts["error"].last = facts["asset"]
        return end(**facts)

    def _own(self, job: Job, source: Any, thing: Any) -> Any:  # noqa: ANN401 - the trade's thing
        if thing is None:
            return self.trade.recall(source, job.item_id, job.status)
        if source is job.source:
            return thing
        return attrs.evolve(thing, source=source) if hasattr(thing, "source") else thing

    def _book(self, outcome: AnyOutcome, job: Job | None) -> None:
        self.accounts.settle(outcome)
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

    def _stop_on_failure(self) -> None:
        self.halt(SessionStateError("stopped at the first failure, as on_failure='stop' asks"))
