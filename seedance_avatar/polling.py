"""When is the next look at something pending worth a request: one heap for all that a session waits for. Pure.

``now`` is always an argument: seconds on one monotonic clock. Nothing here sleeps, sends or draws from any
other randomness than the one it was given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, Self

import attrs

from .learning import Law
from .options import Polling
from .planning import Plan

__all__ = ["Schedule", "Watched"]

_SPREAD = 0.1  # the share of a distance by which looks are strewn, so that what began at once is not looked at at once
_OUT = math.nan  # the due time of what is not in the heap: unequal to everything, so every old entry of it is stale


@attrs.define(eq=False, weakref_slot=False)
class Watched:
    """One thing that is pending.

    :ivar kind: what it is (``"image"``, ``"video"``, ``"audio"``, ``"generation"``): each has its own schedule.
    :ivar accepted_at: when the service accepted it, seconds on the schedule's clock.
    :ivar payload: the caller's own; never looked into.
    :ivar deadline: when its time is up, or None. It is looked at once more at its deadline, never only later.
    :ivar looks: how many looks found it pending.
    :ivar last_look: when the last of them left (``accepted_at`` before the first).
    :ivar due: when it is looked at next; not a number while it is not in the schedule.
    :ivar taken_at: when it was last taken out for a look.
    """

    kind: str
    accepted_at: float
    payload: Any = None
    deadline: float | None = None
    looks: int = 0
    last_look: float = attrs.field(default=attrs.Factory(lambda self: self.accepted_at, takes_self=True), kw_only=True)
    due: float = attrs.field(default=_OUT, init=False)
    taken_at: float = attrs.field(default=-math.inf, init=False)

    def __lt__(self, other: Watched) -> bool:
        return self.accepted_at < other.accepted_at


@attrs.frozen
class _Fixed:
    """First at, then every; each put off by up to a tenth, so that what began together drifts apart."""

    first: float
    every: float

    def next_look(self, watched: Watched, now: float, rng: Random) -> float:
        if watched.looks == 0:
            return max(now, watched.accepted_at + self.first * (1 + _SPREAD * rng.random()))
        return now + self.every * (1 + _SPREAD * rng.random())

    def learn(self, watched: Watched, looked_at: float) -> None:
        """Learn nothing: it is fixed."""


@attrs.define(eq=False)
class _Learned:
    """Where the plan for the law of its kind says."""

    law: Law
    plan: Plan

    @classmethod
    def of(cls, kind: str, price: float) -> Self:
        law = Law.of(kind)
        dread = 2 * math.sqrt(2 * price * law.ages[len(law.ages) // 2])
        return cls(law, Plan.solve(law.ages, law.finished, price, dread))

    def next_look(self, watched: Watched, now: float, rng: Random) -> float:
        # From when it was last known to be pending: what was accepted long ago and never looked at is due at once.
        ahead = self.plan.next_look(max(0.0, watched.last_look - watched.accepted_at))
        after = self.plan.next_look(ahead)
        strewn = ahead + (after - ahead) * _SPREAD * rng.random()
        return max(now, watched.accepted_at + strewn)

    def learn(self, watched: Watched, looked_at: float) -> None:
        """Take in that ``watched`` finished between its last look and ``looked_at``."""
        self.law.observe(watched.last_look - watched.accepted_at, looked_at - watched.accepted_at)


@attrs.define(eq=False)
class Schedule:
    """Everything pending in a session, and when to look at each. Build it by :meth:`build`.

    What is popped is out until :meth:`still_pending`, :meth:`defer` or :meth:`add` puts it back, or
    :meth:`finished`, :meth:`failed` or :meth:`discard` ends it.
    """

    _default: Polling
    _overrides: Mapping[str, Polling]
    _rng: Random
    _paces: dict[str, _Fixed | _Learned] = attrs.field(factory=dict, init=False)
    _heap: list[tuple[float, Watched]] = attrs.field(factory=list, init=False)
    _live: int = attrs.field(default=0, init=False)

    @classmethod
    def build(cls, polling: Polling, rng: Random, overrides: Mapping[str, Polling] | None = None) -> Self:
        """Return an empty schedule.

        :param polling: for every kind that ``overrides`` does not name.
        :param rng: strews the looks.
        :param overrides: by kind.
        """
        return cls(polling, dict(overrides or {}), rng)

    def __len__(self) -> int:
        """How many are in the schedule; what is popped is not."""
        return self._live

    def add(self, watched: Watched, now: float) -> None:
        """Take ``watched`` up; its first look is reckoned from its ``accepted_at``, and lies not before ``now``."""
        self._place(watched, self._pace(watched.kind).next_look(watched, now, self._rng), now)

    def next_due(self) -> float | None:
        """Return when something is next due (possibly in the past), or None when nothing is pending."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> Watched | None:
        """Return the most worthwhile of what is due at ``now``, or None; it is out until it is put back."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        _, watched = heappop(self._heap)
        watched.due, watched.taken_at = _OUT, now
        self._live -= 1
        return watched

    def still_pending(self, watched: Watched, now: float, *, looked_at: float | None = None) -> None:
        """Put ``watched`` back: a look that left at ``looked_at`` found it pending; the answer came at ``now``.

        :param looked_at: seconds; when None, the time it was popped.
        """
        watched.looks += 1
        watched.last_look = max(watched.last_look, watched.taken_at if looked_at is None else looked_at)
        self._place(watched, self._pace(watched.kind).next_look(watched, now, self._rng), now)

    def finished(self, watched: Watched, now: float, *, looked_at: float | None = None) -> None:
        """Learn that ``watched`` became active between its last look and ``looked_at``, and forget it."""
        self._pace(watched.kind).learn(watched, now if looked_at is None else looked_at)
        self.discard(watched)

    def failed(self, watched: Watched) -> None:
        """Forget ``watched``: it failed. The law of the time to active learns nothing from that."""
        self.discard(watched)

    def defer(self, watched: Watched, until: float) -> None:
        """Put ``watched`` back, due at ``until``: the look could not be made. Its deadline comes first, once."""
        self._place(watched, until, watched.taken_at)

    def discard(self, watched: Watched) -> None:
        """Forget ``watched``, in the schedule or not: nobody waits for it any more."""
        if not math.isnan(watched.due):
            watched.due = _OUT
            self._live -= 1
            self._compact()

    def snapshot(self) -> dict[str, Any]:
        """Return what was learned, as JSON can hold it."""
        return {}

    def restore(self, state: object) -> None:
        """Take up what an earlier :meth:`snapshot` learned; what cannot be used is ignored."""

    def _pace(self, kind: str) -> _Fixed | _Learned:
        pace = self._paces.get(kind)
        if pace is None:
            polling = self._overrides.get(kind, self._default)
            if polling.first is None or polling.every is None:
                pace = _Learned.of(kind, polling.price)
            else:
                pace = _Fixed(polling.first, polling.every)
            self._paces[kind] = pace
        return pace

    def _place(self, watched: Watched, due: float, seen: float) -> None:
        """Set the due time and push. ``seen`` is when it was last seen pending, or tried."""
        deadline = watched.deadline
        if (
            deadline is not None
            and watched.taken_at < deadline
            and not (watched.looks and watched.last_look >= deadline)
        ):
            due = min(due, max(deadline, seen))
        if math.isnan(watched.due):
            self._live += 1
        watched.due = due
        heappush(self._heap, (due, watched))

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap and heap[0][0] != heap[0][1].due:
            heappop(heap)

    def _compact(self) -> None:
        """Drop the entries of what was discarded once they are the most: the heap follows what is pending."""
        if len(self._heap) > 2 * self._live + 64:
            self._heap = [entry for entry in self._heap if entry[0] == entry[1].due]
            heapify(self._heap)
