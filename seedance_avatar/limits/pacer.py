"""When may the next request leave? Pure: ``now`` is an argument, seconds on any clock that only goes forward.

One :class:`Pacer` serves one lane (submissions, or status requests) of one session, for all its tasks. A rate
that was given is kept by GCRA (ITU-T I.371): never more than ``burst + rate * t`` in any time ``t``. A rate
that was not given is found, see :mod:`~seedance_avatar.control`. Either is lowered by what the service
announces in its headers, and either stops for a ``Retry-After``.
"""

from __future__ import annotations

import math
import random
from typing import Final, Protocol, Self

import attrs

from .rate_finder import Prior, RateFinder

__all__ = ["QUERIES", "SUBMITS", "Pacer", "Prior", "RateHeaders"]

SUBMITS: Final = Prior(rate=5.0, burst=50)
"""The documented limit of submissions: 300 a minute, and bursts of 50."""
QUERIES: Final = Prior(rate=50.0, burst=500)
"""The documented limit of status requests: 3,000 a minute, and bursts of 500."""

SLACK: Final = 0.02  # seconds that a late timer may make up for where a rate is given: no event loop wakes on the dot
NEAR: Final = 0.01  # seconds: what left so late, or so soon after, was one of a crowd
LONGEST: Final = 1e9  # seconds: no wait is longer, however small the rate or absurd the hint
NO_LIMIT: Final = 1e8  # requests a second that no machine sends
FIRST: Final = 6  # requests that may leave before any answer is in
NOTABLE: Final = 0.1  # a change of the rate held to that is worth telling of


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
class Announced:
    """The highest rate that the announced ``X-RateLimit-Remaining`` has room for.

    What the header means by its limit and its reset is told nowhere, so neither is believed. What remains, and
    how it changes between two answers beyond what was used, tells how fast the allowance is refilled, and that is
    the same for buckets, windows and an allowance that others use too. Where it jumps up, a window has turned.

    :ivar ceiling: requests a second; infinite while nothing usable was announced.
    """

    ceiling: float = math.inf
    _at: float = -math.inf
    _then_left: int = 0
    _used: int = 0
    _left: int = 0
    _flow: float | None = None  # what comes back steadily, a second
    _turned_at: float = -math.inf
    _turn: float = 0.0  # what comes back at the turns of a window, a second

    def note(self, now: float, hints: RateHeaders, *, throttled: bool) -> None:
        """Learn from the headers of an answer."""
        limit, left = hints.limit, hints.remaining
        if limit is None or left is None or limit < 10 or not 0 <= left <= limit:  # noqa: PLR2004 - too coarse to steer by
            return
        self._used += not throttled
        turned = 2 * (left - self._left) > limit
        self._left = left
        elapsed = now - self._at
        if turned or elapsed == math.inf:
            self._turn = limit / (now - self._turned_at) if now > self._turned_at else 0.0
            self._turned_at = now
            self._at, self._then_left, self._used = now, left, 0
        elif elapsed >= 1.0:
            rate = max(0.0, (left - self._then_left + self._used) / elapsed)
            self._flow = rate if self._flow is None else 0.5 * (self._flow + rate)
            self._at, self._then_left, self._used = now, left, 0
        if left >= limit - 1 or self._flow is None:
            self.ceiling = math.inf  # full: it overflows, and tells nothing of how fast it fills
            return
        refill = max(self._flow, self._turn)
        spread = 3.0
        if hints.reset is not None and self._flow * hints.reset < 0.1 * limit:
            spread = max(spread, min(hints.reset, 60.0))  # nothing comes back before the reset: make it last
        spare = left - min(0.25 * limit, 2.0 + 0.05 * refill)
        self.ceiling = max(0.2, 0.95 * refill, self._flow + spare / spread)


@attrs.define(eq=False)
class Pacer:
    """The moments at which the requests of one lane may leave. Build it by :meth:`build`.

    Any method may be called at any time with any ``now`` that is not before the last; none waits, none fails.
    """

    _given: float
    _burst: int
    _finder: RateFinder | None
    _rng: random.Random
    _announced: Announced = attrs.field(factory=Announced)
    _due: float = -math.inf  # when the next would leave, were all evenly spaced
    _held_until: float = -math.inf
    _probe_gap: float = 0.0  # while nothing is let through: seconds from one try to the next
    _probe_at: float = -math.inf
    _busy: bool = False
    _early: int | None = None  # left before the first answer came; None when it has, or does not matter
    _left_at: float = -math.inf
    _late_at: float = -math.inf
    _told: float = 0.0  # the rate that was last told of
    _last_ok: float | None = None
    _blocked_since: float | None = None

    @classmethod
    def build(cls, *, rate: float | None, burst: int | None, start: Prior, rng: random.Random | None = None) -> Self:
        """Return a pacer that has sent nothing yet.

        :param rate: requests a second to hold to, or None: found by itself.
        :param burst: requests that may leave at once after a quiet time. None: one, and as many as a late timer
            has to make up for.
        :param start: where the finding starts: :data:`SUBMITS` or :data:`QUERIES`.
        :param rng: what the jitter of the tries after a block is drawn from.
        """
        finder = RateFinder.start(start) if rate is None else None
        given = math.inf if rate is None else max(rate, 1.0 / LONGEST)
        if burst is None:
            burst = 1 if rate is None else 1 + int(min(given, NO_LIMIT) * SLACK)
        return cls(
            given=given,
            burst=burst,
            finder=finder,
            rng=rng or random.Random(),  # noqa: S311 - jitter is no secret
            early=None if finder is None else 0,
            told=given if finder is None else finder.rate,
        )

    def _pace(self) -> float:
        rate = self._given if self._finder is None else self._finder.rate
        return min(rate, self._announced.ceiling)

    @property
    def rate(self) -> float | None:
        """Requests a second that are held to now, or None where that is no limit at all."""
        pace = self._pace()
        return pace if pace < NO_LIMIT else None

    @property
    def why(self) -> str:
        """Why it is this rate, in a few words."""
        own = self._given if self._finder is None else self._finder.rate
        if self._announced.ceiling < own:
            return "announced by the service"
        return "given" if self._finder is None else self._finder.why

    @property
    def last_ok(self) -> float | None:
        """When the last answer came that was no refusal for going too fast, or None."""
        return self._last_ok

    @property
    def blocked_since(self) -> float | None:
        """Since when nothing at all has been let through, or None when the last answer was no refusal."""
        return self._blocked_since

    def next_at(self, now: float) -> float:
        """Return the earliest moment at which the next request may leave: ``now`` means at once.

        It may change with every answer, so whoever waits until then asks again.
        """
        due = self._due if self._burst == 1 else self._due - (self._burst - 1) / self._pace()
        at = max(now, due, self._held_until, self._probe_at)
        if self._early is not None and self._early >= FIRST:
            # Too little is known to send more; but should no answer ever come, one leaves every second.
            at = max(at, min(now + SLACK, self._left_at + 1.0))
        return at

    def take(self, now: float) -> None:
        """Note that a request leaves now."""
        finder = self._finder
        if finder is None:
            self._due = max(self._due, now) + 1.0 / self._pace()
        else:
            rate, ceiling = finder.rate, self._announced.ceiling
            late = now - self._due
            slack = finder.slack if self._burst == 1 else 0.0
            self._busy = late < (slack or SLACK) and rate <= ceiling
            if late > NEAR:
                self._late_at = now
                if slack < late < math.inf:
                    finder.idled(late - slack)
            self._due = (self._due if late < slack else now - slack) + 1.0 / min(rate, ceiling)
        self._left_at = now
        if self._early is not None:
            self._early += 1
        if self._probe_gap:
            self._probe_at = now + self._probe_gap

    def cancel(self, now: float) -> None:
        """Note that the request taken last did not leave after all: its place is free again."""
        del now
        self._due -= 1.0 / self._pace()
        if self._early:
            self._early -= 1

    def brake(self, now: float, seconds: float) -> None:
        """Let nothing leave for so many seconds; afterwards the pace goes on evenly, with no burst.

        A longer brake that holds already stays. A number that is not finite, or negative, is no brake.
        """
        if 0.0 < seconds < math.inf:
            self._held_until = max(self._held_until, now + min(seconds, LONGEST))
            self._due = max(self._due, self._held_until + (self._burst - 1) / self._pace())

    def on_answer(self, now: float, *, left_at: float, throttled: bool, hints: RateHeaders | None) -> bool:
        """Learn from an answer; return True when the rate held to has changed notably.

        A ``Retry-After`` of a refusal is kept from here on, for all. Requests that ended without any answer
        need not be told of.

        :param left_at: when the request left. Answers come late and in any order: what left before the last cut
            causes no second one.
        :param throttled: True for a 429, or another refusal for going too fast.
        :param hints: what the answer's headers announced, or None.
        """
        self._early = None
        pause = 0.0
        if hints is not None:
            self._announced.note(now, hints, throttled=throttled)
            if throttled and hints.retry_after is not None and 0.0 < hints.retry_after < math.inf:
                pause = hints.retry_after
                self.brake(now, pause)
        if throttled:
            if self._blocked_since is None:
                self._blocked_since = now
            self._on_refusal(now, left_at, pause)
        else:
            self._last_ok, self._blocked_since = now, None
            if self._finder is not None:
                if self._probe_gap and left_at > self._finder.cut_at:
                    self._probe_gap, self._probe_at = 0.0, -math.inf
                self._finder.passed(now, left_at, busy=self._busy)
        pace = self._pace()
        if abs(pace - self._told) <= NOTABLE * self._told:
            return False
        self._told = pace
        return True

    def _on_refusal(self, now: float, left_at: float, pause: float) -> None:
        if self._finder is None:
            return
        rate = self._finder.rate
        wait = self._finder.refused(now, left_at, pause, late=abs(left_at - self._late_at) < NEAR)
        if wait is None:
            return
        if self._finder.rate < rate:
            self._due = max(self._due, now + wait)
        else:  # nothing is let through: one try at a time
            self._probe_gap = wait
            self._probe_at = now + wait * self._rng.uniform(0.75, 1.0)
