"""Decides what becomes of each source that a run takes: refused, joined to another, sent, followed, or known already.

It decides and returns; the run does it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from seedance_avatar.errors import AvatarError, JournalError
from seedance_avatar.outcomes import AnyOutcome, Failed, InDoubt, Unsent

from .adapter import Adapter
from .classify import NotAccepted, key_conflict, outcome_of_error, outcome_of_record, shown_of
from .job import Job
from .recorder import Recorder

__all__ = ["Admission", "Decision", "Follow", "Joined", "Known", "Refused", "Send", "room", "worth_reading"]

_UNDELIVERED: Final = 1_024
"""Outcomes that may wait for the consumer before no more sources are taken."""


def room(*, undelivered: int, in_hand: int, max_pending: int, queued: int, ahead: int) -> int:
    """Return how many sources to take now; none, where it is not positive.

    :param undelivered: outcomes that wait for the consumer.
    :param in_hand: sources taken whose outcomes were not delivered yet; ``max_pending`` bounds them.
    :param queued: sources that were taken and wait to be sent; ``ahead`` bounds them.
    """
    return 0 if undelivered >= min(_UNDELIVERED, max_pending) else min(max_pending - in_hand, ahead - queued)


def worth_reading(found: int, *, queued: int, ahead: int) -> bool:
    """Return whether to take the ``found`` sources there is :func:`room` for now, or to wait until there is for more.

    A batch costs the reading, and a journal, hardly more than a single source. So wait until half of what may be read
    ahead is gone, or nothing else is left to do.
    """
    return queued <= ahead // 2 and (found >= ahead // 2 or (found > 0 and queued == 0))


@attrs.frozen
class Refused:
    """It ends here, before anything was sent.

    :ivar halts: True when the next source would meet the same.
    """

    job: Job
    end: NotAccepted
    error: AvatarError
    halts: bool = False


@attrs.frozen
class Joined:
    """Its source shares the submission, and the outcome, of an earlier job, which has it now."""

    job: Job


@attrs.frozen
class Send:
    """It is to be submitted."""

    job: Job


@attrs.frozen
class Follow:
    """An earlier run submitted it: it is to be polled.

    :ivar accepted_at: when it was accepted, in seconds since the epoch, or None.
    """

    job: Job
    accepted_at: float | None


@attrs.frozen
class Known:
    """The journal holds what it came to."""

    job: Job
    outcome: AnyOutcome


Decision: TypeAlias = Refused | Joined | Send | Follow | Known


@attrs.define(eq=False, repr=False)
class Admission:
    """The deciding half of a pipeline.

    There is no decision about a job whose item another one in this process deals with: it waits for that one, and the
    journal's claims tell it how that ended.
    """

    adapter: Adapter[Any, Any]
    recorder: Recorder
    _first: dict[Hashable, Job] = attrs.field(factory=dict)
    _decided: list[Decision] = attrs.field(factory=list)

    async def admit(self, jobs: Sequence[Job]) -> None:
        """Decide about ``jobs``, which are new; :meth:`take` returns the decisions, also when this raises.

        :raises Exception: what the caller's own function for the group raised.
        """
        admitted: list[Job] = []
        for job in jobs:
            try:
                job.target_id = await self.adapter.prepare(job.source)
            except AvatarError as error:
                end, halts = outcome_of_error(error)
                # In doubt can only be what it would have been put under (a group): nothing of the source exists.
                halts = halts or end is InDoubt
                self._decided.append(Refused(job, Failed if end is Failed else Unsent, error, halts))
                if halts:
                    break
            else:
                job.content = hash(self.adapter.content(job.source))
                first = self._first_like(job)
                if first is None:
                    admitted.append(job)
                elif first.content != job.content:
                    self._decided.append(Refused(job, Failed, key_conflict(job.source, shown_of(first.source))))
                else:
                    first.share(job.source)
                    self._decided.append(Joined(job))
        await self._recognise(admitted)

    def take(self) -> list[Decision]:
        """Return the decisions of the last :meth:`admit`; about some jobs there is none where it was stopped."""
        decided, self._decided = self._decided, []
        return decided

    def forget(self, job: Job, outcome: AnyOutcome) -> None:
        """Let the next source like this one be a job of its own, and tell who waits for it in the journal its end."""
        if job.identity is not None and self._first.get(job.identity) is job:
            del self._first[job.identity]
        self.recorder.done(job, outcome)

    def _first_like(self, job: Job) -> Job | None:
        """Return the job under way whose source has the identity of that of ``job``, or None."""
        identity = self.adapter.identity(job.source, job.target_id)
        if identity is None:
            return None
        first = self._first.setdefault(identity, job)
        if first is job:
            job.identity = identity
            return None
        return first

    async def _recognise(self, jobs: Sequence[Job]) -> None:
        claimed = self.recorder.claim(jobs)
        if not claimed:
            return
        try:
            plans = await self.recorder.recognise(claimed)
        except JournalError as error:
            for job, _ in claimed:
                self._decided.append(Refused(job, Unsent, error, halts=True))
            return
        for job, plan, record in plans:
            if plan == "follow":
                self._decided.append(Follow(job, None if record is None else record.accepted_at))
            elif plan == "conflict" and record is not None:
                conflict = key_conflict(job.source, f"{record.kind} {record.shown}", earlier=record.row > 0)
                self._decided.append(Refused(job, Failed, conflict))
            elif plan == "known" and record is not None:
                earlier = self.recorder.is_earlier(record)
                self._decided.append(Known(job, outcome_of_record(record, job.source, self.adapter, earlier=earlier)))
            else:
                self._decided.append(Send(job))
