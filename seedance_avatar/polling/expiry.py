"""Ends waits on time: groups pending items by their deadlines, whatever becomes of their polls."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Final, Literal

import attrs

from .schedule import PendingItem

__all__ = ["GRACE", "STALLED", "Expiry"]

GRACE: Final = 2.0
"""Seconds after its deadline within which the wait for an item ends: time for one poll that leaves at the deadline."""
STALLED: Final = 0.25
"""Seconds by which a timer that fires late shows that the loop stood still, and has not read what arrived meanwhile."""
_STEP: Final = 0.5
"""Seconds of deadlines that pass as one: a timer and a heap entry for each item would cost 0.3 KB."""


@attrs.define(eq=False, repr=False, order=False)
class _Group:
    """Pending items with deadlines of the same half second.

    :ivar at: when their state changes: at their deadline, they have the time for one more poll; then they are ``last``,
        unless the loop ``stalled`` over that.
    """

    at: float
    state: Literal["waiting", "last", "stalled"] = "waiting"
    items: set[PendingItem] = attrs.field(factory=set)

    def __lt__(self, other: _Group) -> bool:
        return self.at < other.at

    def spare(self, now: float) -> bool:
        """Pass on to the state that follows ``now``; return False when the wait for these items ends."""
        stalled = now - self.at > STALLED
        match self.state:
            case "waiting":
                self.state, self.at = "last", now + GRACE if stalled else self.at + GRACE - _STEP
            case "last" if stalled:
                self.state, self.at = "stalled", now + GRACE
            case _:
                return False
        return True


@attrs.define(eq=False, repr=False)
class Expiry:
    """All items that are pending, those that are being polled at this moment among them, and when to give each up."""

    _count: int = attrs.field(default=0, init=False)
    _heap: list[_Group] = attrs.field(factory=list, init=False)
    _waiting: dict[float, _Group] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PendingItem]:
        for group in self._heap:
            yield from group.items

    def __contains__(self, pending: PendingItem) -> bool:
        return pending.group is not None

    def add(self, pending: PendingItem) -> None:
        """Add ``pending``: its wait ends within ``GRACE`` seconds of its deadline; without one, never."""
        deadline = math.inf if pending.deadline is None else pending.deadline
        at = deadline if math.isinf(deadline) else math.ceil(deadline / _STEP) * _STEP
        group = self._waiting.get(at)
        if group is None:
            group = self._waiting[at] = _Group(at)
            heapq.heappush(self._heap, group)
        group.items.add(pending)
        pending.group = group
        self._count += 1

    def discard(self, pending: PendingItem) -> bool:
        """Remove ``pending``; return False where it was not pending any more."""
        group = pending.group
        if group is None:
            return False
        group.items.discard(pending)
        pending.group = None
        self._count -= 1
        return True

    def next_at(self) -> float | None:
        """Return when to call :meth:`expired` next, or None where no wait will end."""
        while self._heap and not self._heap[0].items:
            self._pop()
        return self._heap[0].at if self._heap and not math.isinf(self._heap[0].at) else None

    def expired(self, now: float) -> list[PendingItem]:
        """Remove and return the items whose wait ends ``now``.

        Where the loop has stalled over a deadline, answers may have arrived that were not read: the time for one more
        poll then begins when the stall ends, once.
        """
        found: list[PendingItem] = []
        while self._heap and self._heap[0].at <= now:
            group = self._pop()
            if group.spare(now):
                heapq.heappush(self._heap, group)
            else:
                found.extend(group.items)
        for pending in found:
            self.discard(pending)
        return found

    def _pop(self) -> _Group:
        group = heapq.heappop(self._heap)
        if group.state == "waiting":
            self._waiting.pop(group.at, None)
        return group
