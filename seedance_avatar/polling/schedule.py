"""Schedules the polls of everything pending in a session, in one heap. Pure.

``now`` is always an argument: seconds on one monotonic clock. Nothing here sleeps or sends, and the only randomness is
the generator that was passed in.

The learned schedule polls where :mod:`.plan` finds it cheapest under the distribution that :mod:`.completion_times`
has learned. A few polls are made for learning alone: the first poll of some items comes at a random age before the
planned one, since a schedule that never polls early cannot notice that everything has become faster (exploration, as
in multi-armed bandits).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, Final, Protocol, Self, TypeAlias

import attrs

from .completion_times import CompletionTimes
from .plan import PollPlan

__all__ = ["PendingItem", "Schedule", "Timing"]

FIXED_JITTER: Final = 0.1  # a poll at fixed intervals comes later by up to this share of the interval
PLANNED_JITTER: Final = 0.1  # a planned poll is spread over this share of the gap to the poll after it
DELAY_SCALE: Final = 2.0  # see PollPlan.solve; in gaps between polls under a constant hazard of the same median
MAX_OVERTAKING: Final = 10.0  # seconds by which a poll that is sure to find something new overtakes one that is not
MAX_RANKED: Final = 256  # of the items due, how many are ranked at a time (about 1 ms)
MAX_RESCHEDULED: Final = 10_000  # of all items, how many are looked at when a distribution has moved (about 20 ms)
NOT_SCHEDULED: Final = math.nan  # the due time of what is not in the heap: it equals nothing, so heap entries go stale

# The share of items whose first poll comes early, for learning: the largest of these three, see _early_share()
EARLY_SHARE: Final = 0.06  # always
EARLY_SHARE_UNKNOWN: Final = 0.5  # before anything is known
EARLY_SHARE_PER_LOOK: Final = 0.02  # for each poll that an item takes: where it takes many, one more costs little,
MAX_EARLY_SHARE: Final = 0.3  # up to this


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
    """One pending item. Times are seconds on the schedule's clock."""

    kind: str
    """``"image"``, ``"video"``, ``"audio"`` or ``"generation"``: each kind has its own schedule."""
    accepted_at: float
    """When the service accepted it."""
    payload: Any = None
    """The caller's own object; never looked into."""
    deadline: float | None = None
    """It is due by then, once; :class:`~.expiry.Expiry` gives it up after that. None: no deadline."""
    teaches: bool = attrs.field(default=True, kw_only=True)
    """Whether ``accepted_at`` is known well enough to learn from."""
    looks: int = attrs.field(default=0, kw_only=True)
    """How many polls found it pending."""
    last_look: float = attrs.field(default=attrs.Factory(lambda self: self.accepted_at, takes_self=True), kw_only=True)
    """When the last of them left; ``accepted_at`` before the first."""
    due: float = attrs.field(default=NOT_SCHEDULED, init=False)
    """When it is polled next; NaN while it is not in the schedule."""
    taken_at: float = attrs.field(default=-math.inf, init=False)
    """When it was last taken out for a poll."""
    group: Any = attrs.field(default=None, init=False)
    """The group of items whose waits end together; it belongs to :class:`~.expiry.Expiry`."""

    def __lt__(self, other: PendingItem) -> bool:
        """Order items that are due at the same time: the older first."""
        return self.accepted_at < other.accepted_at


@attrs.frozen
class _FixedPolicy:
    """Fixed intervals, each lengthened by a random share, so that items accepted together drift apart."""

    first: float
    every: float

    def next_look(self, pending: PendingItem, now: float, rng: Random) -> float:
        if pending.looks == 0:
            return max(now, pending.accepted_at + self.first * (1 + FIXED_JITTER * rng.random()))
        return now + self.every * (1 + FIXED_JITTER * rng.random())

    def gain(self, pending: PendingItem, now: float) -> float:  # noqa: ARG002 - the signature of _LearnedPolicy
        return 0.5  # not known

    def learn(self, after: float, by: float, now: float, *, done: bool) -> bool:  # noqa: ARG002 - as _LearnedPolicy has it
        return False


@attrs.define(eq=False, repr=False)
class _LearnedPolicy:
    """Polls where the plan for the learned distribution says."""

    times: CompletionTimes
    price: float
    plan: PollPlan = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._solve()

    def next_look(self, pending: PendingItem, now: float, rng: Random) -> float:
        if pending.looks == 0 and rng.random() < self._early_share():
            return max(now, pending.accepted_at + self.plan.next_look(0.0) * rng.random())
        return self.planned(pending, now, rng)

    def _early_share(self) -> float:
        """Return the share of first polls that come early: fewer as the distribution is known, but never none."""
        at_first = EARLY_SHARE_UNKNOWN / (1 + self.times.known / 4)
        return max(EARLY_SHARE, at_first, min(MAX_EARLY_SHARE, EARLY_SHARE_PER_LOOK * self.times.looks_each))

    def planned(self, pending: PendingItem, now: float, rng: Random) -> float:
        # Planned from when it was last known to be pending: an old item that was never polled is due at once.
        age = pending.last_look - pending.accepted_at
        due = pending.accepted_at + self.plan.next_look(age if age > 0 else 0.0, PLANNED_JITTER * (rng.random() - 0.5))
        return max(now, due)

    def gain(self, pending: PendingItem, now: float) -> float:
        """Return the probability that a poll now finds it finished."""
        before = self.times.finished_by(pending.last_look - pending.accepted_at)
        return (self.times.finished_by(now - pending.accepted_at) - before) / max(1e-9, 1 - before)

    def learn(self, after: float, by: float, now: float, *, done: bool) -> bool:
        """Add a poll, see :meth:`CompletionTimes.observe`. Return whether scheduled polls should be brought forward."""
        self.times.observe(after, by, done=done)
        if not self.times.wants_refit(now):
            return False
        moved = self.times.refit(now)
        self._solve()
        return moved

    def _solve(self) -> None:
        times = self.times
        delay_scale = DELAY_SCALE * math.sqrt(2 * self.price * times.median)
        self.plan = PollPlan.solve(times.ages, times.finished, self.price, delay_scale)


_Policy: TypeAlias = _FixedPolicy | _LearnedPolicy


@attrs.define(eq=False, repr=False)
class Schedule:
    """All pending items of a session, and when to poll each. Build it by :meth:`build`.

    An item that was popped is out of the schedule until :meth:`still_pending`, :meth:`defer` or :meth:`add` puts it
    back, or :meth:`finished` or :meth:`discard` ends it. A call costs some microseconds, and some
    milliseconds when a distribution is refitted: at most once a second for each kind once it is settled.
    """

    _default: Timing
    _rng: Random
    _overrides: Mapping[str, Timing]
    _policies: dict[str, _Policy] = attrs.field(factory=dict, init=False)
    _earlier: dict[str, Any] = attrs.field(factory=dict, init=False)
    _heap: list[tuple[float, PendingItem]] = attrs.field(factory=list, init=False)
    _ready: list[tuple[float, float, PendingItem]] = attrs.field(factory=list, init=False)
    _live: int = attrs.field(default=0, init=False)

    @classmethod
    def build(cls, polling: Timing, rng: Random, overrides: Mapping[str, Timing] | None = None) -> Self:
        """Return an empty schedule.

        :param polling: the numbers for every kind that ``overrides`` does not name.
        :param rng: draws the jitter.
        :param overrides: the numbers of some kinds, by kind.
        """
        return cls(polling, rng, dict(overrides or {}))

    def __len__(self) -> int:
        """Return the number of items in the schedule, popped ones excluded."""
        return self._live

    def add(self, pending: PendingItem, now: float) -> None:
        """Add ``pending``; its first poll is planned from its ``accepted_at``, and is not before ``now``."""
        self._put(pending, self._policy(pending.kind).next_look(pending, now, self._rng), now)

    def next_due(self) -> float | None:
        """Return when the next poll is due (in the past if it is overdue), or None when nothing is scheduled."""
        self._drop_stale()
        if self._ready:
            return self._ready[0][1]
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> PendingItem | None:
        """Take out and return the item that is most worth polling among those due at ``now``, or None.

        Where more items are due than may be polled, those more likely to have finished come first, but none waits
        more than ten seconds for items that became due after it.
        """
        self._drop_stale()
        heap, ready = self._heap, self._ready
        for _ in range(MAX_RANKED):
            if not heap or heap[0][0] > now:
                break
            due, pending = heappop(heap)
            self._drop_stale()
            if not ready and (not heap or heap[0][0] > now):
                return self._take_out(pending, now)  # only one is due, as nearly always
            heappush(ready, (due - MAX_OVERTAKING * self._policy(pending.kind).gain(pending, now), due, pending))
        return self._take_out(heappop(ready)[2], now) if ready else None

    def still_pending(self, pending: PendingItem, now: float, *, looked_at: float | None = None) -> None:
        """Put ``pending`` back: a poll that left at ``looked_at`` found it pending; its answer came at ``now``.

        :param looked_at: seconds; when None, the time it was popped.
        """
        before = pending.last_look
        pending.looks += 1
        pending.last_look = max(before, pending.taken_at if looked_at is None else looked_at)
        policy = self._observe(pending, before, pending.last_look, now, done=False)
        self._put(pending, policy.next_look(pending, now, self._rng), now)

    def finished(self, pending: PendingItem, now: float, *, looked_at: float | None = None) -> None:
        """Remove ``pending``: it became active between its last poll and ``looked_at``; learn from that.

        :param looked_at: seconds; when None, ``now``.
        """
        self.discard(pending)
        self._observe(pending, pending.last_look, now if looked_at is None else looked_at, now, done=True)

    def defer(self, pending: PendingItem, until: float) -> None:
        """Put ``pending`` back, due at ``until`` or once at its deadline: the poll could not be made."""
        self._put(pending, until, pending.taken_at)

    def discard(self, pending: PendingItem) -> None:
        """Remove ``pending``, in the schedule or not, and learn nothing: it failed, or nobody waits for it any more."""
        if not math.isnan(pending.due):
            pending.due = NOT_SCHEDULED
            self._live -= 1
            self._compact()

    def snapshot(self) -> dict[str, Any]:
        """Return what was learned of each kind, in this run or those restored from, in JSON types."""
        learned = {
            kind: policy.times.snapshot()
            for kind, policy in self._policies.items()
            if isinstance(policy, _LearnedPolicy) and policy.times.completed
        }
        return {**self._earlier, **learned}

    def restore(self, state: object) -> None:
        """Load an earlier :meth:`snapshot` for the kinds that nothing was learned of yet.

        Parts of it that cannot be used are ignored.
        """
        if not isinstance(state, dict):
            return
        for kind, earlier in state.items():
            times = CompletionTimes.restored(earlier)
            policy = self._policies.get(kind)
            if times is None or (isinstance(policy, _LearnedPolicy) and policy.times.completed):
                continue
            self._earlier[kind] = times.snapshot()
            self._policies.pop(kind, None)

    def _policy(self, kind: str) -> _Policy:
        policy = self._policies.get(kind)
        if policy is None:
            polling = self._overrides.get(kind, self._default)
            if polling.first is None or polling.every is None:
                policy = _LearnedPolicy(
                    CompletionTimes.restored(self._earlier.get(kind)) or CompletionTimes.of(kind), polling.price
                )
            else:
                policy = _FixedPolicy(polling.first, polling.every)
            self._policies[kind] = policy
        return policy

    def _observe(self, pending: PendingItem, after: float, by: float, now: float, *, done: bool) -> _Policy:
        policy = self._policy(pending.kind)
        if pending.teaches and policy.learn(after - pending.accepted_at, by - pending.accepted_at, now, done=done):
            self._bring_forward(pending.kind, now)
        return policy

    def _bring_forward(self, kind: str, now: float) -> None:
        """Reschedule items that should now be polled much earlier, since the distribution has moved."""
        policy = self._policy(kind)
        for due, pending in self._heap[:MAX_RESCHEDULED]:
            # A deferred item stays where it is: a poll of it was attempted since the last one that succeeded.
            if pending.kind == kind and due == pending.due and pending.taken_at <= pending.last_look:
                sooner = policy.next_look(pending, now, self._rng)
                if sooner < now + 0.9 * (due - now):
                    pending.due = sooner
                    heappush(self._heap, (sooner, pending))
        self._compact()

    def _put(self, pending: PendingItem, due: float, seen: float) -> None:
        """Set the due time and push. ``seen`` is when it was last seen pending, or last attempted."""
        deadline = pending.deadline
        if deadline is not None and pending.taken_at < deadline:
            looked_past_it = pending.looks and pending.last_look >= deadline
            due = due if looked_past_it else min(due, max(deadline, seen))
        if math.isnan(pending.due):
            self._live += 1
        pending.due = due
        heappush(self._heap, (due, pending))

    def _take_out(self, pending: PendingItem, now: float) -> PendingItem:
        pending.due, pending.taken_at = NOT_SCHEDULED, now
        self._live -= 1
        return pending

    def _drop_stale(self) -> None:
        heap, ready = self._heap, self._ready
        while heap and heap[0][0] != heap[0][1].due:
            heappop(heap)
        while ready and ready[0][1] != ready[0][2].due:
            heappop(ready)

    def _compact(self) -> None:
        """Drop stale entries once they outnumber the live ones, so that memory follows what is pending."""
        if len(self._heap) + len(self._ready) > 2 * self._live + 64:
            self._heap = [entry for entry in self._heap if entry[0] == entry[1].due]
            self._ready = [entry for entry in self._ready if entry[1] == entry[2].due]
            heapify(self._heap)
            heapify(self._ready)
