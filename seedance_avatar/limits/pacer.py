"""Decides when the next request may leave. Pure: ``now`` is an argument, seconds on any clock that only goes forward.

One :class:`Pacer` serves one lane (submissions, or status requests) of one session, for all its tasks. A given rate is
kept by GCRA (ITU-T I.371): never more than ``burst + rate * t`` requests in any time ``t``. A rate that was not given
is found, see :mod:`.rate_finder`. Both are lowered by what the service's headers announce
(``X-RateLimit-Remaining``, :class:`AnnouncedLimit`), and both stop for a ``Retry-After`` (RFC 9110, 10.2.3).
"""

from __future__ import annotations

import math
import random
from typing import Final, Protocol, Self

import attrs

from .rate_finder import Prior, RateFinder

__all__ = ["QUERIES", "SUBMITS", "Pacer", "Prior", "RateHeaders"]

SUBMITS: Final = Prior(rate=5.0, burst=50)  # the documented limit of submissions: 300 a minute, and bursts of 50,
QUERIES: Final = Prior(rate=50.0, burst=500)  # and of status requests: 3,000 a minute, and bursts of 500

TIMER_SLACK: Final = 0.02  # seconds of lateness that are made up for where a rate is given: no timer is exact
BURST_GAP: Final = 0.01  # seconds: a request so late, or so soon after another late one, left in a burst
MAX_WAIT: Final = 1e9  # seconds: no wait is longer, however small the rate or large the header's number
UNLIMITED: Final = 1e8  # requests a second; no machine sends so many
FIRST_BATCH: Final = 6  # requests that may leave before the first answer
NOTABLE_CHANGE: Final = 0.1  # a change of the rate by this share is reported


class RateHeaders(Protocol):
    """What the rate-limit headers of a response say; each is None where the response does not say."""

    @property
    def limit(self) -> int | None:
        """Requests that a window permits."""

    @property
    def remaining(self) -> int | None:
        """Requests left in this window."""

    @property
    def reset(self) -> float | None:
        """Seconds from now until the window ends."""

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before the next request."""


@attrs.define(eq=False)
class AnnouncedLimit:
    """The highest rate that the announced ``X-RateLimit-Remaining`` permits.

    The service does not document what its limit and reset headers mean, so neither is relied on. How the remaining
    count changes between two answers, beyond the requests that were sent, is the rate at which it is refilled, for
    buckets, for windows, and for a limit that others use too. Where it jumps up, a new window has begun.
    """

    ceiling: float = math.inf  # requests a second; infinite while nothing usable was announced
    _at: float = -math.inf
    _left_before: int = 0
    _used: int = 0
    _left: int = 0
    _steady_refill: float | None = None  # requests a second that are refilled steadily
    _window_at: float = -math.inf
    _window_refill: float = 0.0  # requests a second that are refilled by new windows

    def observe(self, now: float, hints: RateHeaders, *, throttled: bool) -> None:
        """Learn from the headers of an answer."""
        limit, left = hints.limit, hints.remaining
        if limit is None or left is None or limit < 10 or not 0 <= left <= limit:  # noqa: PLR2004 - a limit below 10 is too coarse
            return
        self._used += not throttled
        new_window = 2 * (left - self._left) > limit
        self._left = left
        elapsed = now - self._at
        if new_window or elapsed == math.inf:
            self._window_refill = limit / (now - self._window_at) if now > self._window_at else 0.0
            self._window_at = now
            self._at, self._left_before, self._used = now, left, 0
        elif elapsed >= 1.0:
            rate = max(0.0, (left - self._left_before + self._used) / elapsed)
            self._steady_refill = rate if self._steady_refill is None else 0.5 * (self._steady_refill + rate)
            self._at, self._left_before, self._used = now, left, 0
        if left >= limit - 1 or self._steady_refill is None:
            self.ceiling = math.inf  # full: nothing can be refilled, so nothing is learned
            return
        refill = max(self._steady_refill, self._window_refill)
        spread = 3.0
        if hints.reset is not None and self._steady_refill * hints.reset < 0.1 * limit:
            spread = max(spread, min(hints.reset, 60.0))  # nothing is refilled before the reset: spread what is left
        spare = left - min(0.25 * limit, 2.0 + 0.05 * refill)
        self.ceiling = max(0.2, 0.95 * refill, self._steady_refill + spare / spread)


@attrs.define(eq=False)
class Pacer:
    """The rate limiter of one lane. Build it by :meth:`build`.

    Any method may be called at any time with any ``now`` that is not before the last; none waits, and none raises.
    """

    _given: float
    _burst: int
    _finder: RateFinder | None
    _rng: random.Random
    _announced: AnnouncedLimit = attrs.field(factory=AnnouncedLimit)
    _due: float = -math.inf  # when the next would leave if all were evenly spaced (GCRA's theoretical arrival time)
    _held_until: float = -math.inf
    _retry_gap: float = 0.0  # while every request is refused: seconds from one attempt to the next
    _retry_at: float = -math.inf
    _paced: bool = False
    _unanswered: int | None = None  # sent before the first answer; None once it has come
    _left_at: float = -math.inf
    _late_at: float = -math.inf
    _reported: float = 0.0  # the rate when a change was last reported
    blocked_since: float | None = None
    """Since when every request has been refused, or None when the last answer was no refusal."""

    @classmethod
    def build(cls, *, rate: float | None, burst: int | None, start: Prior, rng: random.Random | None = None) -> Self:
        """Return a pacer that has sent nothing yet.

        :param rate: requests a second to keep to, or None: found by itself.
        :param burst: requests that may leave at once after a quiet time. None: one, and as many as make up for a
            late timer.
        :param start: the documented limit, where the search begins: :data:`SUBMITS` or :data:`QUERIES`.
        :param rng: draws the jitter of the attempts while every request is refused.
        """
        finder = RateFinder.start(start) if rate is None else None
        given = math.inf if rate is None else max(rate, 1.0 / MAX_WAIT)
        if burst is None:
            burst = 1 if rate is None else 1 + int(min(given, UNLIMITED) * TIMER_SLACK)
        return cls(
            given=given,
            burst=burst,
            finder=finder,
            rng=rng or random.Random(),  # noqa: S311 - jitter is no secret
            unanswered=None if finder is None else 0,
            reported=given if finder is None else finder.rate,
        )

    def _pace(self) -> float:
        return min(self._given if self._finder is None else self._finder.rate, self._announced.ceiling)

    @property
    def rate(self) -> float | None:
        """The rate in use, requests a second, or None where there is no limit."""
        pace = self._pace()
        return pace if pace < UNLIMITED else None

    @property
    def why(self) -> str:
        """Why it is this rate, in a few words."""
        if self._announced.ceiling < (self._given if self._finder is None else self._finder.rate):
            return "from the service's headers"
        return "given" if self._finder is None else self._finder.why

    def next_at(self, now: float) -> float:
        """Return the earliest time at which the next request may leave; it can change with every answer."""
        due = self._due if self._burst == 1 else self._due - (self._burst - 1) / self._pace()
        at = max(now, due, self._held_until, self._retry_at)
        if self._unanswered is not None and self._unanswered >= FIRST_BATCH:
            # No answer yet, so no more are sent; but if none ever comes, one leaves every second.
            at = max(at, min(now + TIMER_SLACK, self._left_at + 1.0))
        return at

    def take(self, now: float) -> None:
        """Record that a request leaves now."""
        finder = self._finder
        if finder is None:
            self._due = max(self._due, now) + 1.0 / self._pace()
        else:
            rate, ceiling = finder.rate, self._announced.ceiling
            late = now - self._due
            slack = finder.slack if self._burst == 1 else 0.0
            self._paced = late < (slack or TIMER_SLACK) and rate <= ceiling
            if late > BURST_GAP:
                self._late_at = now
                if slack < late < math.inf:
                    finder.on_idle(late - slack)
            self._due = (self._due if late < slack else now - slack) + 1.0 / min(rate, ceiling)
        self._left_at = now
        if self._unanswered is not None:
            self._unanswered += 1
        if self._retry_gap:
            self._retry_at = now + self._retry_gap

    def cancel(self) -> None:
        """Take back the last :meth:`take`: that request did not leave."""
        self._due -= 1.0 / self._pace()
        if self._unanswered:
            self._unanswered -= 1

    def brake(self, now: float, seconds: float) -> None:
        """Stop for ``seconds``, or as long as before if that is longer; then the pace goes on without a burst.

        A number that is not finite, or not above 0, is ignored.
        """
        if 0.0 < seconds < math.inf:
            self._held_until = max(self._held_until, now + min(seconds, MAX_WAIT))
            self._due = max(self._due, self._held_until + (self._burst - 1) / self._pace())

    def on_answer(self, now: float, *, left_at: float, throttled: bool, hints: RateHeaders | None) -> bool:
        """Learn from an answer; return True when the rate in use has changed by a tenth or more.

        The ``Retry-After`` of a refusal stops the whole lane. Requests that ended without an answer are not passed in.
        Answers come in any order: a refusal of a request that left before the last cut causes no second one.
        """
        self._unanswered = None
        pause = 0.0
        if hints is not None:
            self._announced.observe(now, hints, throttled=throttled)
            if throttled and hints.retry_after is not None and 0.0 < hints.retry_after < math.inf:
                pause = hints.retry_after
                self.brake(now, pause)
        if throttled:
            if self.blocked_since is None:
                self.blocked_since = now
            if self._finder is not None:
                self._on_refusal(self._finder, now, left_at, pause)
        else:
            self.blocked_since = None
            if self._finder is not None:
                if self._retry_gap and left_at > self._finder.cut_at:
                    self._retry_gap, self._retry_at = 0.0, -math.inf
                self._finder.on_success(now, left_at, paced=self._paced)
        pace = self._pace()
        if abs(pace - self._reported) <= NOTABLE_CHANGE * self._reported:
            return False
        self._reported = pace
        return True

    def _on_refusal(self, finder: RateFinder, now: float, left_at: float, pause: float) -> None:
        rate = finder.rate
        wait = finder.on_refusal(now, left_at, pause, late=abs(left_at - self._late_at) < BURST_GAP)
        if wait is not None and finder.rate < rate:
            self._due = max(self._due, now + wait)
        elif wait is not None:  # every request is refused: one attempt at a time
            self._retry_gap = wait
            self._retry_at = now + wait * self._rng.uniform(0.75, 1.0)
