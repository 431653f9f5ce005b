"""From the caller's sources to jobs: taken as there is room, judged, recognised, and handed on."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from seedance_avatar.errors import AvatarError, JournalError
from seedance_avatar.outcomes import AnyOutcome, Failed, InDoubt, Unsent

from .classify import outcome_of_record
from .job import Job
from .sources import SourceReader

if TYPE_CHECKING:
    from .pipeline import Pipeline
    from .recorder import Recorder

__all__ = ["Admission"]

_UNDELIVERED: Final = 1_024
"""Outcomes that may wait for the consumer before no more sources are taken."""

_AHEAD: Final = 2
"""Sources read ahead, for each submission that may be on the wire."""


@attrs.define(eq=False, repr=False)
class Admission:
    """The reading half of a pipeline. From the moment a source is taken, it has its outcome whatever happens.

    :ivar done: True when nothing more will be taken.
    """

    pipeline: Pipeline
    reader: SourceReader[Any]
    max_pending: int
    done: bool = False
    _first: dict[Hashable, Job] = attrs.field(factory=dict)
    _scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)

    def stop(self) -> None:
        """Take nothing more, not even what is being waited for."""
        self._scope.cancel()

    def forget(self, job: Job, outcome: AnyOutcome) -> None:
        """Let the next source like this one be a job of its own, and tell who waits for it in the journal its end."""
        if job.identity is not None and self._first.get(job.identity) is job:
            del self._first[job.identity]
        if self.pipeline.recorder is not None:
            self.pipeline.recorder.done(job, outcome)

    async def feed(self) -> None:
        """Take sources as there is room for them, until there are no more or :meth:`stop` is called."""
        pipeline = self.pipeline
        with self._scope:
            while not self._scope.cancel_called:
                if (room := self._room()) <= 0:
                    await pipeline.movement()
                    continue
                sources = await self.reader.take(room)
                if not sources:
                    break
                pipeline.accounts.taken += len(sources)
                jobs = await self._admit_all(sources)
                if pipeline.recorder is not None and jobs:
                    jobs = await self._recognise(jobs, pipeline.recorder)
                pipeline.enlist(jobs)
        self.done = True

    @property
    def hungry(self) -> bool:
        """Whether it is worth the trouble to take more: nothing is left, or half of what may be read ahead is gone.

        A batch costs the reading, and a journal, hardly more than a single source.
        """
        queued, half = self.pipeline.queued, _AHEAD * self.pipeline.max_submitting // 2
        if self.done or queued > half:
            return False
        room = self._room()
        return room >= half or (room > 0 and queued == 0)

    def _room(self) -> int:
        accounts = self.pipeline.accounts
        if accounts.undelivered >= min(_UNDELIVERED, self.max_pending):
            return 0
        ahead = _AHEAD * self.pipeline.max_submitting - self.pipeline.queued
        in_hand = accounts.taken - accounts.settled + accounts.undelivered
        return min(self.max_pending - in_hand, ahead)

    async def _admit_all(self, sources: list[Any]) -> list[Job]:
        jobs: list[Job] = []
        for at, source in enumerate(sources):
            try:
                job = await self._admit(source)
            except BaseException:
                # Stopped, or the caller's group function broke: what was taken has its outcome all the same.
                self._release(jobs)
                for rest in sources[at:]:
                    self._refuse(rest, self.pipeline.stopped(), Unsent)
                raise
            if job is not None:
                jobs.append(job)
        return jobs

    def _release(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.pipeline.settle(job, Unsent, self.pipeline.stopped())

    def _refuse(self, source: Any, error: AvatarError, end: type[Failed[Any, Any] | Unsent[Any, Any]]) -> None:  # noqa: ANN401 - whatever the caller's iterable held
        error = error.concerning(self.pipeline.adapter.label(source))
        self.pipeline.book(end(source=source, error=error), None)

    async def _admit(self, source: Any) -> Job | None:  # noqa: ANN401 - as above
        """Return the job that ``source`` begins; None where it is refused here or joins one that is under way."""
        pipeline = self.pipeline
        try:
            target_id = await pipeline.adapter.prepare(source)
        except AvatarError as error:
            end, halts = pipeline.fate(error)
            # In doubt can only be what it would have been put under (a group): nothing of the source exists.
            self._refuse(source, error, Failed if end is Failed else Unsent)
            if halts or end is InDoubt:
                pipeline.halt(error)
            return None
        identity = pipeline.adapter.identity(source, target_id)
        first = None if identity is None else self._first.get(identity)
        if first is not None:
            if first.twins is None:
                first.twins = []
            first.twins.append(source)
            return None
        job = Job(pipeline, source, target_id, identity, pipeline.client.clock())
        pipeline.alive[job] = None
        if identity is not None:
            self._first[identity] = job
        return job

    async def _recognise(self, jobs: list[Job], recorder: Recorder) -> list[Job]:
        """Settle or follow what the journal knows already, and return the jobs that are to be sent."""
        pipeline = self.pipeline
        # What joins another's job is out of our hands from here on: its owner's end is its own, or hands it on.
        jobs, entries = recorder.unowned(jobs)
        try:
            plans = await recorder.recognise(jobs, entries)
        except JournalError as error:
            pipeline.halt(error)
            self._release(jobs)
            return []
        except BaseException:
            self._release(jobs)
            raise
        to_send: list[Job] = []
        for job, plan, record in plans:
            match plan:
                case "send":
                    to_send.append(job)
                case "follow":
                    pipeline.resume(job, record)
                case "known":
                    assert record is not None  # noqa: S101 - what is known is known by its record
                    pipeline.settle_as(
                        job, outcome_of_record(record, job.source, pipeline.adapter, unfinished=pipeline.stopped())
                    )
        return to_send
