"""When is the next look at something pending worth a request: one heap for all that a session waits for. Pure.

``now`` is always an argument: seconds on one monotonic clock. Nothing here sleeps, sends or draws from any
other randomness than the one it was given.

The learned schedule looks where :mod:`.planning` finds it cheapest under the law that :mod:`.learning` knows. A
few looks are spent on learning alone: the first of some items falls anywhere before its planned age, since a
schedule that never looks early never hears that everything has become faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, Final, Protocol, Self

import attrs

from .completion_times import CompletionTimes
from .plan import PollPlan

__all__ = ["PendingItem", "Schedule", "Timing"]

FIXED_JITTER: Final = 0.1  # the share of a fixed distance by which a look may come later
PLANNED_JITTER: Final = 0.1  # the share of the distance to the look after it over which a planned look is strewn
_EARLY: Final = 0.06  # the share of items whose first look comes early, once a law is known,
_EARLY_AT_FIRST: Final = 0.5  # before anything is,
_EARLY_EACH: Final = 0.02  # and for each look that a item takes: where they take many, one more costs little,
_EARLY_MOST: Final = 0.3  # and what lasts so long that it takes many is noticed late to have become faster
DELAY_SCALE: Final = 2.0  # see Plan.solve; in distances of looks at a law of the same median with an even hazard
_PATIENCE: Final = 10.0  # seconds that a look which finds nothing new waits for one that is sure to
_RANKED: Final = 256  # how many of what is due are ranked at a step: some 1 ms, when very many are
_RECONSIDERED: Final = 10_000  # how many are looked through at once when a law has moved: some 20 ms
_OUT: Final = math.nan  # the due time of what is not in the heap: unequal to everything, so old entries of it are stale


class Timing(Protocol):
    """The three numbers that choose a schedule: ``first`` and ``every`` for fixed intervals, else ``price``."""

    @property
    def first(self) -> float | None:
        """Seconds from acceptance to the first look, or None: learned."""

    @property
    def every(self) -> float | None:
        """Seconds between looks after that, or None: learned."""

    @property
    def price(self) -> float:
        """Seconds of expected delay that one status request is worth, where the schedule is learned."""


@attrs.define(eq=False, repr=False, weakref_slot=False)
class PendingItem:
    """One item that is pending.

    :ivar kind: what it is (``"image"``, ``"video"``, ``"audio"``, ``"generation"``): each has its own schedule.
    :ivar accepted_at: when the service accepted it, seconds on the schedule's clock.
    :ivar payload: the caller's own; never looked into.
    :ivar deadline: when its time is up, or None: it is due by then, once; when to give up is the caller's affair.
    :ivar teaches: whether ``accepted_at`` is known well enough to learn from.
    :ivar looks: how many looks found it pending.
    :ivar last_look: when the last of them left (``accepted_at`` before the first).
    :ivar due: when it is looked at next; not a number while it is not in the schedule.
    :ivar taken_at: when it was last taken out for a look.
    """

    kind: str
    accepted_at: float
    payload: Any = None
    deadline: float | None = None
    teaches: bool = attrs.field(default=True, kw_only=True)
    looks: int = attrs.field(default=0, kw_only=True)
    last_look: float = attrs.field(default=attrs.Factory(lambda self: self.accepted_at, takes_self=True), kw_only=True)
    due: float = attrs.field(default=_OUT, init=False)
    taken_at: float = attrs.field(default=-math.inf, init=False)

    def __lt__(self, other: PendingItem) -> bool:
        """Let the older go first where a heap finds two due at once."""
        return self.accepted_at < other.accepted_at


@attrs.frozen
class _Fixed:
    """First at, then every; each put off by up to a tenth, so that what began together drifts apart."""

    first: float
    every: float

    def next_look(self, pending: PendingItem, now: float, rng: Random) -> float:
        if pending.looks == 0:
            return max(now, pending.accepted_at + self.first * (1 + FIXED_JITTER * rng.random()))
        return now + self.every * (1 + FIXED_JITTER * rng.random())

    def gain(self, pending: PendingItem, now: float) -> float:  # noqa: ARG002 - one face for both schedules
        return 0.5  # nothing is known of it

    def learn(self, after: float, by: float, now: float, *, done: bool) -> bool:  # noqa: ARG002 - one face for both
        return False


@attrs.define(eq=False, repr=False)
class _Learned:
    """Where the plan for the law of its kind says."""

    law: CompletionTimes
    price: float
    plan: PollPlan = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._solve()

    def next_look(self, pending: PendingItem, now: float, rng: Random) -> float:
        if pending.looks == 0 and rng.random() < self._early():
            return max(now, pending.accepted_at + self.plan.next_look(0.0) * rng.random())
        return self.planned(pending, now, rng)

    def _early(self) -> float:
        """Return the share of first looks that come early: fewer as the law becomes known, but never none."""
        at_first = _EARLY_AT_FIRST / (1 + self.law.known / 4)
        return max(_EARLY, at_first, min(_EARLY_MOST, _EARLY_EACH * self.law.looks_each))

    def planned(self, pending: PendingItem, now: float, rng: Random) -> float:
        # From when it was last known to be pending: what was accepted long ago and never looked at is due at once.
        age = pending.last_look - pending.accepted_at
        due = pending.accepted_at + self.plan.next_look(age if age > 0 else 0.0, PLANNED_JITTER * (rng.random() - 0.5))
        return max(now, due)

    def gain(self, pending: PendingItem, now: float) -> float:
        """Return the chance that a look now finds it finished."""
        before = self.law.finished_by(pending.last_look - pending.accepted_at)
        return (self.law.finished_by(now - pending.accepted_at) - before) / max(1e-9, 1 - before)

    def learn(self, after: float, by: float, now: float, *, done: bool) -> bool:
        """Take in a look, see :meth:`Law.observe`. Return whether what is scheduled should be reconsidered."""
        self.law.observe(after, by, done=done)
        if not self.law.wants_refit(now):
            return False
        moved = self.law.refit(now)
        self._solve()
        return moved

    def _solve(self) -> None:
        law = self.law
        dread = DELAY_SCALE * math.sqrt(2 * self.price * law.median)
        self.plan = PollPlan.solve(law.ages, law.finished, self.price, dread)


@attrs.define(eq=False, repr=False)
class Schedule:
    """Everything pending in a session, and when to look at each. Build it by :meth:`build`.

    What is popped is out until :meth:`still_pending`, :meth:`defer` or :meth:`add` puts it back, or
    :meth:`finished`, :meth:`failed` or :meth:`discard` ends it. A step costs some microseconds; now and then, once
    a second and kind at most when a law is settled, one costs some milliseconds: a law is fitted anew.
    """

    _default: Timing
    _rng: Random
    _overrides: Mapping[str, Timing]
    _paces: dict[str, _Fixed | _Learned] = attrs.field(factory=dict, init=False)
    _earlier: dict[str, Any] = attrs.field(factory=dict, init=False)
    _heap: list[tuple[float, PendingItem]] = attrs.field(factory=list, init=False)
    _ready: list[tuple[float, float, PendingItem]] = attrs.field(factory=list, init=False)
    _live: int = attrs.field(default=0, init=False)

    @classmethod
    def build(cls, polling: Timing, rng: Random, overrides: Mapping[str, Timing] | None = None) -> Self:
        """Return an empty schedule.

        :param polling: for every kind that ``overrides`` does not name.
        :param rng: strews the looks.
        :param overrides: by kind.
        """
        return cls(polling, rng, dict(overrides or {}))

    def __len__(self) -> int:
        """How many are in the schedule; what is popped is not."""
        return self._live

    def add(self, pending: PendingItem, now: float) -> None:
        """Take ``pending`` up; its first look is reckoned from its ``accepted_at``, and lies not before ``now``."""
        self._place(pending, self._pace(pending.kind).next_look(pending, now, self._rng), now)

    def next_due(self) -> float | None:
        """Return when something is next due (in the past, when it is overdue), or None when nothing is pending."""
        self._drop_stale()
        if self._ready:
            return self._ready[0][1]
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> PendingItem | None:
        """Return the most worthwhile of what is due at ``now``, or None; it is out until it is put back.

        Where more is due than may be looked at, what is likelier to have finished goes first, but nothing waits
        longer than ten seconds for what became due after it.
        """
        self._drop_stale()
        heap, ready = self._heap, self._ready
        for _ in range(_RANKED):
            if not heap or heap[0][0] > now:
                break
            due, pending = heappop(heap)
            self._drop_stale()
            if not ready and (not heap or heap[0][0] > now):
                return self._taken(pending, now)  # nothing to choose from, as nearly always
            heappush(ready, (due - _PATIENCE * self._pace(pending.kind).gain(pending, now), due, pending))
        return self._taken(heappop(ready)[2], now) if ready else None

    def still_pending(self, pending: PendingItem, now: float, *, looked_at: float | None = None) -> None:
        """Put ``pending`` back: a look that left at ``looked_at`` found it pending; the answer came at ``now``.

        :param looked_at: seconds; when None, the time it was popped.
        """
        before = pending.last_look
        pending.looks += 1
        pending.last_look = max(before, pending.taken_at if looked_at is None else looked_at)
        pace = self._learned(pending, before, pending.last_look, now, done=False)
        self._place(pending, pace.next_look(pending, now, self._rng), now)

    def finished(self, pending: PendingItem, now: float, *, looked_at: float | None = None) -> None:
        """Learn that ``pending`` became active between its last look and ``looked_at``, and forget it.

        :param looked_at: seconds; when None, ``now``.
        """
        self.discard(pending)
        self._learned(pending, pending.last_look, now if looked_at is None else looked_at, now, done=True)

    def failed(self, pending: PendingItem) -> None:
        """Forget ``pending``: it failed. The law of the time to active learns nothing from that."""
        self.discard(pending)

    def defer(self, pending: PendingItem, until: float) -> None:
        """Put ``pending`` back, due at ``until``: the look could not be made. Its deadline comes first, once."""
        self._place(pending, until, pending.taken_at)

    def discard(self, pending: PendingItem) -> None:
        """Forget ``pending``, in the schedule or not: nobody waits for it any more."""
        if not math.isnan(pending.due):
            pending.due = _OUT
            self._live -= 1
            self._compact()

    def snapshot(self) -> dict[str, Any]:
        """Return what was learned of each kind, now or in the runs restored from, as JSON can hold it."""
        learned = {
            kind: pace.law.snapshot()
            for kind, pace in self._paces.items()
            if isinstance(pace, _Learned) and pace.law.completed
        }
        return {**self._earlier, **learned}

    def restore(self, state: object) -> None:
        """Take up what an earlier :meth:`snapshot` learned, of kinds that nothing was learned of yet.

        What cannot be used of it is ignored.
        """
        if not isinstance(state, dict):
            return
        for kind, earlier in state.items():
            law = CompletionTimes.restored(earlier)
            pace = self._paces.get(kind)
            if law is None or (isinstance(pace, _Learned) and pace.law.completed):
                continue
            self._earlier[kind] = law.snapshot()
            self._paces.pop(kind, None)

    def _pace(self, kind: str) -> _Fixed | _Learned:
        pace = self._paces.get(kind)
        if pace is None:
            polling = self._overrides.get(kind, self._default)
            if polling.first is None or polling.every is None:
                pace = _Learned(
                    CompletionTimes.restored(self._earlier.get(kind)) or CompletionTimes.of(kind), polling.price
                )
            else:
                pace = _Fixed(polling.first, polling.every)
            self._paces[kind] = pace
        return pace

    def _learned(self, pending: PendingItem, after: float, by: float, now: float, *, done: bool) -> _Fixed | _Learned:
        pace = self._pace(pending.kind)
        if pending.teaches and pace.learn(after - pending.accepted_at, by - pending.accepted_at, now, done=done):
            self._reconsider(pending.kind, now)
        return pace

    def _reconsider(self, kind: str, now: float) -> None:
        """Bring forward what a law that has moved wants to be looked at much earlier."""
        pace = self._pace(kind)
        for due, pending in self._heap[:_RECONSIDERED]:
            # What was deferred has to wait all the same: it was tried since its last look.
            if pending.kind == kind and due == pending.due and pending.taken_at <= pending.last_look:
                sooner = pace.next_look(pending, now, self._rng)
                if sooner < now + 0.9 * (due - now):
                    pending.due = sooner
                    heappush(self._heap, (sooner, pending))
        self._compact()

    def _place(self, pending: PendingItem, due: float, seen: float) -> None:
        """Set the due time and push. ``seen`` is when it was last seen pending, or tried."""
        deadline = pending.deadline
        if deadline is not None and pending.taken_at < deadline:
            looked_past_it = pending.looks and pending.last_look >= deadline
            due = due if looked_past_it else min(due, max(deadline, seen))
        if math.isnan(pending.due):
            self._live += 1
        pending.due = due
        heappush(self._heap, (due, pending))

    def _taken(self, pending: PendingItem, now: float) -> PendingItem:
        pending.due, pending.taken_at = _OUT, now
        self._live -= 1
        return pending

    def _drop_stale(self) -> None:
        heap, ready = self._heap, self._ready
        while heap and heap[0][0] != heap[0][1].due:
            heappop(heap)
        while ready and ready[0][1] != ready[0][2].due:
            heappop(ready)

    def _compact(self) -> None:
        """Drop the entries of what was discarded once they are the most: the heap follows what is pending."""
        if len(self._heap) + len(self._ready) > 2 * self._live + 64:
            self._heap = [entry for entry in self._heap if entry[0] == entry[1].due]
            self._ready = [entry for entry in self._ready if entry[1] == entry[2].due]
            heapify(self._heap)
            heapify(self._ready)
