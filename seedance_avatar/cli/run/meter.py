"""Measures a run from the session's events: rates, percentiles, 429s and outages."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Final

import attrs

from seedance_avatar import Active, Event
from seedance_avatar.events import Accepted, Outage, RequestFinished, RetryPlanned, Settled

__all__ = ["Histogram", "Meter", "RateWindow"]

_STEP: Final = math.log(1.02)
_SMALLEST: Final = 1e-4
_THROTTLED: Final = 429
_CREATED: Final = 300


@attrs.define(eq=False)
class Histogram:
    """Percentiles of durations in constant memory: a histogram with buckets that are 2 % wide."""

    count: int = 0
    _buckets: Counter[int] = attrs.field(factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        self.count += 1
        self._buckets[math.floor(math.log(max(seconds, _SMALLEST) / _SMALLEST) / _STEP)] += 1

    def percentile(self, share: float) -> float | None:
        """Return the duration that a ``share`` (0 to 1) of all does not exceed, within 1 %, or None without any."""
        rank = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return _SMALLEST * math.exp((bucket + 0.5) * _STEP)
        return None


@attrs.define(eq=False)
class RateWindow:
    """The rate of something over the last ``seconds``, counted by the second."""

    seconds: int
    _began: float | None = None
    _buckets: deque[tuple[int, int]] = attrs.field(factory=deque)

    def add(self, now: float) -> None:
        """Count one at the time ``now``, seconds."""
        if self._began is None:
            self._began = now
        second = math.floor(now)
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1] = (second, self._buckets[-1][1] + 1)
        else:
            self._buckets.append((second, 1))
        self._forget(now)

    def rate(self, now: float) -> float:
        """Return the rate a second, over the window or the part of it that has passed."""
        self._forget(now)
        if self._began is None:
            return 0.0
        return sum(count for _, count in self._buckets) / min(max(now - self._began, 1.0), float(self.seconds))

    def _forget(self, now: float) -> None:
        while self._buckets and self._buckets[0][0] <= now - self.seconds:
            self._buckets.popleft()


@attrs.define(eq=False)
class Meter:
    """An observer that measures a run in constant memory.

    :ivar submission: seconds from request to answer of submissions that were accepted.
    :ivar to_active: seconds from acceptance to the answer that said ``active``.
    :ivar accepted: the rate at which sources are accepted; ``settled`` at which they get their outcome.
    :ivar requests: round trips; ``throttled`` of them were answered with 429, ``repeated`` were repeats.
    :ivar throttled_at: when the last 429 came, on the loop's clock, or None.
    :ivar down: the error while the service cannot be reached or is ill, or an empty string.
    :ivar outages: how often that began.
    :ivar trouble: the last error that led to a repeated request, one line, or an empty string.
    """

    submission: Histogram = attrs.field(factory=Histogram)
    to_active: Histogram = attrs.field(factory=Histogram)
    accepted: RateWindow = attrs.field(factory=lambda: RateWindow(10))
    settled: RateWindow = attrs.field(factory=lambda: RateWindow(30))
    requests: int = 0
    throttled: int = 0
    repeated: int = 0
    throttled_at: float | None = None
    down: str = ""
    outages: int = 0
    trouble: str = ""

    def __call__(self, event: Event) -> None:
        """Count ``event``."""
        match event:
            case RequestFinished():
                self._finished(event)
            case Accepted(at=at):
                self.accepted.add(at)
            case Settled(at=at, outcome=outcome, active_after=after):
                self.settled.add(at)
                if after is not None and isinstance(outcome, Active):
                    self.to_active.add(after)
            case Outage(down=True, error=error, ill=ill):
                self.outages += not self.down
                words = error.describe() if error else "no answer"
                self.down = words if ill else f"the service cannot be reached: {words}"
            case Outage():
                self.down = ""
            case RetryPlanned(error=error, about=about):
                self.trouble = f"{about}: {error.describe()}" if about else error.describe()
            case _:
                pass

    def _finished(self, event: RequestFinished) -> None:
        self.requests += 1
        self.repeated += event.attempt > 1
        if event.status == _THROTTLED:
            self.throttled += 1
            self.throttled_at = event.at
        if event.lane == "submit" and event.status is not None and event.status < _CREATED and event.error is None:
            self.submission.add(event.elapsed)

    def eta(self, left: int, now: float) -> float | None:
        """Return the seconds that ``left`` sources will take at the measured rate, or None while none is known."""
        rate = self.settled.rate(now) or self.accepted.rate(now)
        return left / rate if rate and left else None
