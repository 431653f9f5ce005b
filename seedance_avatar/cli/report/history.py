"""Reads a journal once from beginning to end and computes the facts of a report."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from seedance_avatar import JournalReader
from seedance_avatar.cli.run.tally import Reasons, reason_of
from seedance_avatar.journal.records import Kind, Record, Run, State, Summary
from seedance_avatar.text import safe_text

__all__ = ["KIND_NAMES", "QUANTILES", "STATES", "History", "Worked", "quantile", "read_history"]

KIND_NAMES: Final[Mapping[Kind, str]] = {
    "image": "images",
    "video": "videos",
    "audio": "audio",
    "generation": "generated videos",
}
"""Names of the kinds that a report counts; groups are not among them."""

STATES: Final[Sequence[tuple[str, tuple[State, ...], str]]] = (
    ("active", ("active",), "ready to be used"),
    ("failed", ("failed", "refused"), "refused, or failed while processing"),
    ("in doubt", ("in_doubt",), "sent, but the answer was lost"),
    ("pending", ("sending", "accepted"), "sent or accepted, not finished"),
    ("not sent", ("planned",), "they do not exist"),
)
"""How a report names the states of a journal, and what each name means."""

QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))

_PAUSE: Final = 5.0
"""Seconds between two runs from which on the time between them is left out of the charts."""
_DOUBTS: Final = 500
"""Items in doubt that are listed one by one."""


@attrs.frozen
class Worked:
    """The time in which runs were working, without the pauses between them.

    :ivar spans: begin and end of each stretch of work, seconds since the epoch, oldest first.
    """

    spans: tuple[tuple[float, float], ...] = ((0.0, 0.0),)

    @classmethod
    def of(cls, runs: Sequence[Run], happened: Sequence[float]) -> Worked:
        """Return the stretches of ``runs``.

        :param happened: times of everything recorded, sorted; a killed run ends at the last of its own.
        """
        spans: list[tuple[float, float]] = []
        for run, following in zip(runs, [*runs[1:], None], strict=False):
            end = run.ended_at
            if end is None:
                last = bisect_right(happened, float("inf") if following is None else following.started_at)
                end = happened[last - 1] if last else run.started_at
            end = max(end, run.started_at)
            if spans and run.started_at - spans[-1][1] < _PAUSE:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((run.started_at, end))
        return cls(tuple(spans)) if spans else cls()

    @property
    def total(self) -> float:
        """Seconds of work."""
        return sum(end - begin for begin, end in self.spans)

    @property
    def resumed(self) -> list[float]:
        """For each pause, the seconds of work before it."""
        after, found = 0.0, []
        for begin, end in self.spans[:-1]:
            after += end - begin
            found.append(after)
        return found

    def at(self, moment: float) -> float:
        """Return how many seconds of work there were before ``moment``, seconds since the epoch."""
        return sum(max(0.0, min(moment, end) - begin) for begin, end in self.spans if begin < moment)

    def together(self, first: float, last: float) -> bool:
        """Return whether ``first`` and ``last`` lie in one stretch of work."""
        begins = [begin for begin, _ in self.spans]
        return bisect_right(begins, first) == bisect_right(begins, last)


@attrs.define(eq=False, kw_only=True)
class History:
    """The facts of a journal for a report. Times are seconds of work (see :class:`Worked`), sorted.

    :ivar to_active: for each kind, seconds from acceptance to the answer that it is active; sorted.
    :ivar to_accept: seconds from the last sending to acceptance; sorted.
    :ivar waits: for each kind, when items were accepted and when they became active, seconds since the epoch.
    :ivar apart: number that was accepted before a pause and became active after it; these are not in ``to_active``.
    :ivar limits: moments, and the limit from then on in submissions a second.
    :ivar throttled: moments, and the number of 429s since the moment before.
    :ivar requests: number of round trips that were recorded.
    :ivar doubts: the first 500 items in doubt.
    :ivar groups: for each group id that was created with this journal, its name.
    :ivar group_ids: ids of the groups that assets went to.
    """

    path: str
    summary: Summary
    worked: Worked = attrs.field(factory=Worked)
    sent: array[float] = attrs.field(factory=lambda: array("d"))
    accepted: array[float] = attrs.field(factory=lambda: array("d"))
    active: array[float] = attrs.field(factory=lambda: array("d"))
    failed: array[float] = attrs.field(factory=lambda: array("d"))
    to_active: dict[Kind, array[float]] = attrs.field(factory=dict)
    to_accept: array[float] = attrs.field(factory=lambda: array("d"))
    waits: dict[Kind, tuple[array[float], array[float]]] = attrs.field(factory=dict)
    apart: int = 0
    limits: list[tuple[float, float]] = attrs.field(factory=list)
    throttled: list[tuple[float, int]] = attrs.field(factory=list)
    requests: int = 0
    reasons: Reasons = attrs.field(factory=Reasons)
    doubts: list[Record] = attrs.field(factory=list)
    groups: dict[str, str] = attrs.field(factory=dict)
    group_ids: set[str] = attrs.field(factory=set)

    def count(self, *states: State) -> int:
        """Return the number of items in one of ``states``, or in all without any; groups are not counted."""
        return self.summary.count(*states, kinds=tuple(KIND_NAMES))

    @property
    def doubted(self) -> int:
        """The number of items in doubt, groups included."""
        return self.summary.count("in_doubt", kinds=(*KIND_NAMES, "group"))

    @property
    def unfinished(self) -> int:
        """The number of items that a later run would continue by itself."""
        return self.count("planned", "sending", "accepted")


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return what ``share`` (0 to 1) of ``ordered`` (sorted, not empty) does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def read_history(path: str) -> History:
    """Read the journal at ``path`` as it is now; an ingest may be writing it.

    It keeps some 50 bytes for each record.

    :raises JournalError: there is no journal, or it cannot be read.
    """
    async with JournalReader(path) as journal:
        history = History(path=path, summary=await journal.summary())
        async for record in journal.records():
            _take(history, record)
        points = [(sample.at, sample.name, sample.value) async for sample in journal.samples()]
    happened = array("d", [at for at, *_ in points])
    for moments in (history.sent, history.accepted, history.active, history.failed):
        happened.extend(moments)
    history.worked = Worked.of(history.summary.runs, sorted(happened))
    _leave_out_pauses(history)
    _take_samples(history, points)
    return history


def _take(history: History, record: Record) -> None:
    if record.state == "in_doubt" and len(history.doubts) < _DOUBTS:
        history.doubts.append(record)
    if record.kind == "group":
        if record.remote_id is not None:
            history.groups[record.remote_id] = record.shown
        return
    if record.group_id is not None:
        history.group_ids.add(record.group_id)
    if record.state in {"failed", "refused"}:
        text = safe_text(reason_of(record.error()), 300)
        history.reasons.add(record.state, text, safe_text(record.label, 300))
    _take_times(history, record)


def _take_times(history: History, record: Record) -> None:
    sent, accepted, ended = record.sent_at, record.accepted_at, record.ended_at
    if sent is not None:
        history.sent.append(sent)
    if accepted is not None:
        history.accepted.append(accepted)
        if sent is not None and accepted >= sent:
            history.to_accept.append(accepted - sent)
    if ended is not None and record.state in {"failed", "refused"}:
        history.failed.append(ended)
    if ended is not None and record.state == "active":
        history.active.append(ended)
        if accepted is not None:
            begins, ends = history.waits.setdefault(record.kind, (array("d"), array("d")))
            begins.append(accepted)
            ends.append(ended)


def _leave_out_pauses(history: History) -> None:
    """Turn times since the epoch, as they were recorded, into sorted seconds of work."""
    worked = history.worked
    for name in ("sent", "accepted", "active", "failed"):
        setattr(history, name, array("d", sorted(map(worked.at, getattr(history, name)))))
    history.to_accept = array("d", sorted(history.to_accept))
    for kind, (begins, ends) in history.waits.items():
        both = zip(begins, ends, strict=True)
        together = [max(0.0, end - begin) for begin, end in both if worked.together(begin, end)]
        history.apart += len(begins) - len(together)
        history.to_active[kind] = array("d", sorted(together))


def _take_samples(history: History, points: Sequence[tuple[float, str, float]]) -> None:
    last = {"throttled": 0.0, "requests": 0.0}
    for at, name, value in points:
        moment = history.worked.at(at)
        if name == "submit_limit":
            history.limits.append((moment, value))
        elif name in last:
            # A counter that fell belongs to a new session, which counted from zero.
            more = round(value - last[name] if value >= last[name] else value)
            last[name] = value
            if name == "requests":
                history.requests += more
            else:
                history.throttled.append((moment, more))
