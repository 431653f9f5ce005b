"""Records the progress of a pipeline in a journal, and decides what the journal's records mean for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

from seedance_avatar.errors import AvatarError, SubmissionInDoubt
from seedance_avatar.options import Rerun
from seedance_avatar.outcomes import AnyOutcome, SessionStats

from .adapter import Adapter
from .classify import NotAccepted, record_end, record_not_accepted
from .job import Job

if TYPE_CHECKING:
    from seedance_avatar.journal.journal import Journal
    from seedance_avatar.journal.records import Entry, Record

__all__ = ["JournalRecorder", "Plan", "Recorder", "plan_for"]

Plan: TypeAlias = Literal["send", "follow", "known", "renew", "conflict"]

_log = logging.getLogger("seedance_avatar")

_EVERY: Final = 1.0
"""Seconds between two samples of the session's figures, at first."""

_FIGURES: Final = ("requests", "throttled", "submitting", "pending", "submit_limit", "query_limit")
"""The figures of a session that are sampled; a limit that was not found yet is left out."""

_SAMPLES: Final = 600
"""Samples after which they are taken half as often."""


def plan_for(record: Record | None, *, same: bool, earlier: bool, rerun: Rerun) -> Plan:
    """Return what is to be done with a source whose name has ``record`` in the journal.

    ``"renew"`` means: send it as if it were new, and keep the record beside.

    :param same: the record is of this very source; else its key stands for another one.
    :param earlier: an earlier run left the record so. What this run was refused is not tried again by it.
    :param rerun: what is sent all the same.
    """
    if record is None or (same and record.state == "planned"):
        return "send"
    if not same:
        free = record.state == "planned" or (earlier and (record.state in {"refused", "failed"} or rerun.replace))
        return "renew" if free else "conflict"
    if earlier and record.state == "failed" and _names(rerun.retry_failed, record):
        return "renew"
    again = (
        rerun.resend if record.state == "in_doubt" else record.state == "refused" and earlier and rerun.retry_refused
    )
    return "send" if again else "follow" if record.state == "accepted" else "known"


def _names(reasons: bool | tuple[str, ...], record: Record) -> bool:  # noqa: FBT001 - an option as it was given
    """Return whether one of ``reasons`` is the code of the record's error, or is contained in its reason."""
    if isinstance(reasons, bool):
        return reasons
    code, reason = str((record.facts or {}).get("code", "")).lower(), (record.reason or "").lower()
    return any(text == code or text in reason for text in reasons)


class Recorder:
    """Keeps the progress of a pipeline. This one keeps nothing: what a pipeline without a journal has."""

    resends: bool = False
    """Whether what an earlier attempt left in doubt is sent again."""

    def claim(self, jobs: Sequence[Job]) -> list[tuple[Job, Entry | None]]:
        """Return the jobs whose items nobody else deals with; each of the others has a ``holder`` then, and waits."""
        return [(job, None) for job in jobs]

    def owns(self, job: Job) -> bool:  # noqa: ARG002 - without a register nobody else deals with an item
        """Return whether nobody else deals with the item of ``job``; else it has a ``holder`` then, and waits."""
        return True

    async def recognise(self, claimed: Sequence[tuple[Job, Any]]) -> list[tuple[Job, Plan, Record | None]]:
        """Return for each of what :meth:`claim` returned what is to be done with it."""
        return [(job, "send", None) for job, _ in claimed]

    def is_earlier(self, record: Record) -> bool:  # noqa: ARG002 - what keeps nothing knows no earlier run
        """Return whether an earlier run changed ``record`` last."""
        return False

    async def before_send(self, job: Job) -> None:
        """Record that it is about to leave: nothing is sent before this returns, nor when it raises."""

    async def not_applied(self, job: Job) -> None:
        """Record that nothing came of it."""

    async def accepted(self, job: Job) -> None:
        """Record its id."""

    async def not_accepted(self, job: Job, end: NotAccepted, error: AvatarError) -> None:
        """Record how a submission ended that has no id."""

    def given_up(self, job: Job, error: SubmissionInDoubt) -> None:
        """Record that nobody waits for its answer any more; :meth:`aclose` waits until that is done."""

    def ended(self, job: Job, failure: AvatarError | None) -> None:
        """Note the end of what was accepted: success, or ``failure``."""

    def done(self, job: Job, outcome: AnyOutcome) -> None:
        """Let go of the item of ``job``: who waits for it is told ``outcome``."""

    def begin(self) -> None:
        """Begin, with the run."""

    async def aclose(self) -> None:
        """Wait until all is recorded, and give back what it uses.

        :raises JournalError: something that has happened could not be written.
        """


@attrs.define(eq=False, repr=False, kw_only=True)
class JournalRecorder(Recorder):
    """Keeps the progress of one pipeline in a journal; see :class:`Recorder` for the methods.

    :ivar release: gives the journal back.
    :ivar stats: returns the session's figures, of which a sample a second is kept for the report.
    :ivar rerun: what is sent although the journal knows it.
    """

    journal: Journal
    adapter: Adapter[Any, Any]
    release: Callable[[Journal], Awaitable[None]]
    stats: Callable[[], SessionStats]
    rerun: Rerun = attrs.field(factory=Rerun)
    _run: int = attrs.field(init=False)
    _groups: list[str] | None = None
    _elsewhere: dict[str, set[int]] = attrs.field(factory=dict)
    _samples: int = 0
    _timer: asyncio.TimerHandle | None = None
    _given_up: list[Awaitable[None]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        if self.adapter.idempotent:
            self.rerun = attrs.evolve(self.rerun, resend=True)
        self.resends: bool = self.rerun.resend
        self._run = self.journal.begin_run()

    def claim(self, jobs: Sequence[Job]) -> list[tuple[Job, Entry | None]]:
        """Return the jobs whose items nobody else deals with, and their entries; the others wait for who does."""
        claimed: list[tuple[Job, Entry | None]] = []
        for job in jobs:
            entry = self.adapter.entry(self.journal, job.source, job.target_id)
            job.fingerprint = entry.fingerprint
            if self.owns(job):
                claimed.append((job, entry))
        return claimed

    def owns(self, job: Job) -> bool:
        """Return whether nobody else deals with the item of ``job``; else it waits for its ``holder``."""
        job.holder = self.journal.claims.take(job.fingerprint, job)
        return job.holder is None

    async def recognise(self, claimed: Sequence[tuple[Job, Any]]) -> list[tuple[Job, Plan, Record | None]]:
        """Return for each job what is to be done with it; those that are new are planned from here on."""
        found = await self.journal.claim([entry for _, entry in claimed])
        plans = [self._planned(job, entry, record) for (job, entry), record in zip(claimed, found, strict=True)]
        renewed = [entry for (_, entry), (_, plan, _) in zip(claimed, plans, strict=True) if plan == "renew"]
        if renewed:
            await self.journal.renew(renewed)
        await self._look_elsewhere([job for job, _, record in plans if record is None])
        return plans

    async def _look_elsewhere(self, jobs: Sequence[Job]) -> None:
        """Note which keys that are new in their group an earlier run used in others: it may be a group made anew."""
        if self._groups is None:
            self._groups = [] if self.adapter.idempotent else await self.journal.groups()
        names = {
            self.journal.fingerprint(kind="image", group_id=group_id, key=job.source.key): (job.source.key, group_id)
            for job in jobs
            if job.source.key is not None
            for group_id in self._groups
            if group_id != job.target_id
        }
        for it, record in zip(names.values(), await self.journal.known(list(names)) if names else (), strict=True):
            if record is not None and self.is_earlier(record):
                self._elsewhere.setdefault(it[1], set()).add(hash(it[0]))

    def is_earlier(self, record: Record) -> bool:
        """Return whether an earlier run changed ``record`` last."""
        return (record.run or 0) < self._run

    def _planned(self, job: Job, entry: Entry, record: Record | None) -> tuple[Job, Plan, Record | None]:
        same = record is None or record.is_of(entry)
        earlier = record is not None and self.is_earlier(record)
        plan = plan_for(record, same=same, earlier=earlier, rerun=self.rerun)
        if record is not None and plan not in {"renew", "conflict"}:
            job.resend = plan == "send" and record.state == "in_doubt"
            job.target_id = record.business_id or job.target_id
            job.item_id = record.remote_id or ""
        return job, plan, record

    def done(self, job: Job, outcome: AnyOutcome) -> None:
        """Let go of the item of ``job``: who waits for it is told ``outcome``."""
        self.journal.claims.release(job.fingerprint, job, outcome)

    async def before_send(self, job: Job) -> None:
        """Commit the intent to send."""
        await self.journal.sending(job.fingerprint, resend=job.resend)

    async def not_applied(self, job: Job) -> None:
        """Take the intent back: nothing came of it."""
        await self.journal.unsent(job.fingerprint)

    async def accepted(self, job: Job) -> None:
        """Commit the id."""
        await self.journal.accepted(job.fingerprint, job.item_id)
        self.journal.claims.accepted(job.fingerprint)

    async def not_accepted(self, job: Job, end: NotAccepted, error: AvatarError) -> None:
        """Record how a submission ended that has no id."""
        await record_not_accepted(self.journal, job.fingerprint, end, error)

    def given_up(self, job: Job, error: SubmissionInDoubt) -> None:
        """Record that nobody waits for its answer any more; :meth:`aclose` waits until that is on disk."""
        if job.fingerprint and job.holder is None:
            self._given_up.append(self.journal.in_doubt(job.fingerprint, error))

    def ended(self, job: Job, failure: AvatarError | None) -> None:
        """Note the end of what was accepted."""
        record_end(self.journal, job.fingerprint, failure)

    def begin(self) -> None:
        """Begin to take samples."""
        self._timer = asyncio.get_running_loop().call_later(_EVERY, self._sample)

    async def aclose(self) -> None:
        """Stop taking samples, record what was given up, and give the journal back.

        :raises JournalError: something that has happened could not be written.
        """
        if self._timer is not None:
            self._timer.cancel()
        if self._elsewhere:
            keys = len(set().union(*self._elsewhere.values()))
            _log.warning(
                "%d of the keys that are new in their group are known to the journal in other groups only (%s), and "
                "were uploads of their own: if a group was made anew by mistake, give the id of the earlier one",
                keys,
                ", ".join(self._elsewhere),
            )
        try:
            for written in self._given_up:
                await written
        finally:
            await self.release(self.journal)

    def _sample(self) -> None:
        self._samples += 1
        # After ten minutes half as often, and so on: a run of days keeps a few thousand.
        every = _EVERY * 2 ** (self._samples // _SAMPLES)
        self._timer = asyncio.get_running_loop().call_later(every, self._sample)
        stats = self.stats()
        figures = {name: getattr(stats, name) for name in _FIGURES}
        self.journal.note({name: value for name, value in figures.items() if value is not None})
