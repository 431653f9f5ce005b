"""Runs a schedule against known times on a clock of its own, and finds the best simple schedules in hindsight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import attrs

from seedance_avatar.polling.schedule import PendingItem, Schedule

__all__ = ["Run", "arrivals", "best_first_then_every", "best_fixed", "simulate"]


@attrs.frozen
class Run:
    """What a schedule cost and brought.

    :ivar polls: looks per asset.
    :ivar mean: seconds from active to known active.
    :ivar p95: the same, 95th percentile.
    """

    polls: float
    mean: float
    p95: float

    @classmethod
    def of(cls, looks: int, delays: Sequence[float]) -> Run:
        """Return the figures of the delays."""
        ranked = sorted(delays)
        return cls(looks / len(ranked), math.fsum(ranked) / len(ranked), ranked[int(0.95 * (len(ranked) - 1))])


def arrivals(rng: Random, count: int, rate: float = 5.0, burst: int = 50) -> list[float]:
    """Return when each asset is accepted: a burst at once, then ``rate`` a second, a little uneven."""
    first = [rng.uniform(0, 2) for _ in range(min(burst, count))]
    at, rest = 2.0, []
    for _ in range(count - len(first)):
        at += rng.uniform(0.5, 1.5) / rate
        rest.append(at)
    return sorted(first) + rest


def simulate(
    schedule: Schedule,
    accepted: Sequence[float],
    took: Sequence[float],
    *,
    kind: Callable[[int], str] = lambda _: "image",
    queries_per_second: float | None = None,
) -> tuple[int, list[float]]:
    """Return how many looks were made, and for each asset the seconds from active to known active.

    :param queries_per_second: how many looks may leave in a second, or None for as many as are due.
    """
    delays = [0.0] * len(accepted)
    looks = begun = 0
    now = free = 0.0
    while begun < len(accepted) or len(schedule):
        due = schedule.next_due()
        start = accepted[begun] if begun < len(accepted) else math.inf
        if due is not None and max(due, free) < start:
            now = max(now, due, free)
            pending = schedule.pop(now)
            if pending is None:
                raise AssertionError((due, now))
            looks += 1
            if queries_per_second is not None:
                free = now + 1 / queries_per_second
            number: int = pending.payload
            late = now - accepted[number] - took[number]
            if late >= 0:
                delays[number] = late
                schedule.finished(pending, now, looked_at=now)
            else:
                schedule.still_pending(pending, now, looked_at=now)
        else:
            now = max(now, start)
            schedule.add(PendingItem(kind(begun), accepted[begun], begun), now)
            begun += 1
    return looks, delays


def _first_then_every(took: Sequence[float], first: float, every: float) -> Run:
    looks, delays = 0, []
    for time in took:
        more = max(0, math.ceil((time - first) / every))
        looks += 1 + more
        delays.append(first + more * every - time)
    return Run.of(looks, delays)


def _polls(took: Sequence[float], first: float, every: float) -> float:
    return sum(1 + max(0, math.ceil((time - first) / every)) for time in took) / len(took)


def _least_every(took: Sequence[float], first: float, polls: float) -> float | None:
    """Return the shortest distance that needs no more than ``polls`` looks after a first at ``first``, or None."""
    low, high = 1e-4, 4 * max(took)
    if _polls(took, first, high) > polls:
        return None
    while high / low > 1.002:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _polls(took, first, middle) <= polls else (middle, high)
    return high


def best_fixed(took: Sequence[float], polls: float) -> tuple[Run, Run]:
    """Return the fixed intervals of least mean and of least p95 delay with no more looks than ``polls``."""
    longest = 1.2 * max(took)
    runs = []
    interval = min(took) / 8
    while interval < longest:
        if _polls(took, interval, interval) <= polls:
            runs.append(_first_then_every(took, interval, interval))
            if runs[-1].mean > 4 * runs[0].mean:
                break
        interval *= 1.005
    return min(runs, key=lambda run: run.mean), min(runs, key=lambda run: run.p95)


def best_first_then_every(took: Sequence[float], polls: float) -> tuple[Run, Run]:
    """Return the *first, then every* of least mean and of least p95 delay with no more looks than ``polls``."""
    ranked = sorted(took)
    runs = []
    for share in [0, 0.002, 0.005, 0.01, *(n / 40 for n in range(1, 40)), 0.99, 0.995, 1]:
        first = ranked[min(len(ranked) - 1, int(share * len(ranked)))]
        every = _least_every(took, first, polls)
        if every is not None:
            runs.append(_first_then_every(took, first, every))
    return min(runs, key=lambda run: run.mean), min(runs, key=lambda run: run.p95)
