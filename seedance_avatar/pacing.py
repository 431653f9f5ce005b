"""When may the next request leave? Pure: ``now`` is an argument, seconds on any clock that only goes forward."""

from __future__ import annotations

import math
import random
from typing import Final, Self

import attrs

from .models import RateHints

__all__ = ["QUERIES", "SUBMITS", "Pacer", "Prior"]

SLACK: Final = 0.02  # seconds that a late timer may make up for: no event loop wakes on the dot
LONGEST: Final = 1e9  # seconds: no wait is longer, however small the rate
SLOWEST: Final = 0.05  # requests a second: what is found by itself never falls below


@attrs.frozen(kw_only=True)
class Prior:
    """What the service documents for a lane, to start from while nothing better is known.

    :ivar rate: requests a second that are permitted for ever.
    :ivar burst: requests that are permitted at once after a quiet time.
    """

    rate: float
    burst: int


SUBMITS: Final = Prior(rate=5.0, burst=50)
QUERIES: Final = Prior(rate=50.0, burst=500)


@attrs.define(eq=False)
class Pacer:
    """The moments at which the requests of one lane may leave. Build it by :meth:`build`."""

    _given: bool
    _rate: float
    _burst: int
    _rng: random.Random
    _due: float = -math.inf  # when the next one would leave were all evenly spaced (the GCRA's arrival time)
    _held_until: float = -math.inf
    _cut_at: float = -math.inf
    _refused: int = 0
    _why: str = "not measured yet"
    _last_ok: float | None = None
    _blocked_since: float | None = None

    @classmethod
    def build(cls, *, rate: float | None, burst: int | None, start: Prior, rng: random.Random | None = None) -> Self:
        """Return a pacer.

        :param rate: requests a second to hold to, or None: found by itself.
        :param burst: requests that may leave at once after a quiet time, or None: only what makes up for a late timer.
        :param start: where the finding starts.
        :param rng: what the jitter is drawn from.
        """
        held = start.rate * 4 if rate is None else rate
        return cls(
            given=rate is not None,
            rate=held,
            burst=burst or 1 + int(held * SLACK),
            rng=rng or random.Random(),  # noqa: S311 - jitter is no secret
            why="finding it" if rate is None else "given",
        )

    @property
    def rate(self) -> float | None:
        """Requests a second that are held to now, or None where that is no limit."""
        return self._rate if self._rate < 1e8 else None  # noqa: PLR2004 - no machine sends so many

    @property
    def why(self) -> str:
        """Why it is this rate, in a few words."""
        return self._why

    @property
    def last_ok(self) -> float | None:
        """When the service last let a request through, or None."""
        return self._last_ok

    @property
    def blocked_since(self) -> float | None:
        """Since when nothing at all has been let through, or None when the last answer was no refusal."""
        return self._blocked_since

    def _gap(self) -> float:
        return min(1.0 / self._rate, LONGEST) if self._rate > 1 / LONGEST else LONGEST

    def next_at(self, now: float) -> float:
        """Return the earliest moment at which the next request may leave; not after ``now`` means at once."""
        del now
        return max(self._due - (self._burst - 1) * self._gap(), self._held_until)

    def take(self, now: float) -> None:
        """Note that one leaves now."""
        self._due = max(self._due, now) + self._gap()

    def give_back(self, now: float) -> None:
        """Note that the one taken did not leave after all."""
        del now
        self._due -= self._gap()

    def brake(self, now: float, seconds: float) -> None:
        """Let nothing leave for so many seconds; a longer brake that holds already stays."""
        if seconds > 0:
            self._held_until = max(self._held_until, now + min(seconds, LONGEST))
            self._due = max(self._due, self._held_until + (self._burst - 1) * self._gap())

    def on_answer(self, now: float, *, left_at: float, throttled: bool, hints: RateHints | None) -> bool:
        """Learn from an answer; return True when the rate held to has changed notably.

        :param left_at: when the request left. Answers come late and in any order.
        :param throttled: True for a 429, or another refusal for going too fast.
        :param hints: what the answer's headers announced, or None.
        """
        del hints
        if not throttled:
            self._last_ok, self._blocked_since, self._refused = now, None, 0
            if not self._given:
                self._rate *= 1.0 + 0.01 / max(1.0, self._rate * 0.02)
            return False
        if self._blocked_since is None:
            self._blocked_since = now
        if left_at <= self._cut_at:
            return False
        self._cut_at = now
        self._refused += 1
        self.brake(now, min(5.0, 0.05 * 2.0**self._refused) * self._rng.uniform(0.5, 1.0))
        if self._given or self._refused > 2:  # noqa: PLR2004 - twice may be the rate, more is a closed door
            return False
        self._rate = max(SLOWEST, self._rate * 0.7)
        self._why = "429 a moment ago"
        return True
