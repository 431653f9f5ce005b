"""Counts the outcomes of a run and queues them for the consumer."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Final

import attrs

from seedance_avatar.outcomes import Active, AnyOutcome, Failed, InDoubt, IngestReport, IngestStats, Pending, Unsent

__all__ = ["OutcomeQueue"]

_KEPT: Final = 1_000
"""Outcomes that are kept for the report although a consumer was handed them."""


@attrs.define(eq=False, repr=False)
class OutcomeQueue:
    """Counts every end once, queues it for the consumer, and keeps for the report what is not active.

    :ivar taken: sources taken so far.
    :ivar settled: sources that have their outcome.
    :ivar dropped: sources that were read ahead and have no outcome, since the caller left.
    :ivar omitted: outcomes that the consumer was handed and the report has no room for.

    Outcomes wait on a deque and are popped synchronously: a channel that hands an item to a waiting task
    can lose it when that task is cancelled in the same step (anyio's memory streams do).
    """

    taken: int = 0
    settled: int = 0
    dropped: int = 0
    omitted: int = 0
    _ends: Counter[type[AnyOutcome]] = attrs.field(factory=Counter)
    _waiting: deque[AnyOutcome] = attrs.field(factory=deque)
    _unfinished: dict[int, AnyOutcome] = attrs.field(factory=dict)
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)

    @property
    def undelivered(self) -> int:
        """How many outcomes the consumer has not taken yet."""
        return len(self._waiting)

    @property
    def in_hand(self) -> int:
        """How many sources were taken whose outcomes the consumer has not taken yet."""
        return self.taken - self.settled + self.undelivered

    def settle(self, outcome: AnyOutcome) -> None:
        """Book ``outcome`` and wake who waits for one."""
        self.settled += 1
        self._ends[type(outcome)] += 1
        if not isinstance(outcome, Active):
            self._unfinished[id(outcome)] = outcome
        self._waiting.append(outcome)
        self._news.set()

    def pop(self, *, handed_over: bool) -> AnyOutcome | None:
        """Return the next outcome, or None when none waits.

        :param handed_over: True when the consumer sees this very outcome, so that the report may forget it.
        """
        if not self._waiting:
            return None
        outcome = self._waiting.popleft()
        if handed_over and len(self._unfinished) > _KEPT and self._unfinished.pop(id(outcome), None) is not None:
            self.omitted += 1
        return outcome

    def wake(self) -> None:
        """Wake who waits for news: there may be an outcome, or the end."""
        self._news.set()

    async def news(self) -> None:
        """Wait for the next outcome, or :meth:`wake`."""
        self._news.clear()
        await self._news.wait()

    def stats(self, *, elapsed: float, exhausted: bool, submitting: int, polling: int) -> IngestStats:
        """Return the counts at this moment."""
        queued = self.taken - self.settled - submitting - polling
        return IngestStats(
            elapsed=elapsed,
            exhausted=exhausted,
            queued=queued,
            submitting=submitting,
            polling=polling,
            **self._counts(),
        )

    def _counts(self) -> dict[str, int]:
        ends = self._ends
        return {
            "taken": self.taken,
            "active": ends[Active],
            "failed": ends[Failed],
            "pending": ends[Pending],
            "in_doubt": ends[InDoubt],
            "unsent": ends[Unsent],
        }

    def unfinished(self) -> tuple[AnyOutcome, ...]:
        """Return what is kept of the outcomes that are not active."""
        return tuple(self._unfinished.values())

    def report(self, *, elapsed: float, exhausted: bool) -> IngestReport:
        """Return the counts with the outcomes that are not active."""
        return IngestReport(
            exhausted=exhausted,
            unfinished=self.unfinished(),
            dropped=self.dropped,
            omitted=self.omitted,
            elapsed=elapsed,
            **self._counts(),
        )
