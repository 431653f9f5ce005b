"""What rate does the service permit? Found from what it lets through and what it refuses, without being told.

The law stands on three older ones. Gateways are token buckets (GCRA, ITU-T I.371) or windows, which over a
few windows are the same thing. A bucket that refuses is empty, so *between two refusals it lets through
exactly what it was filled with*: their number over the time between is the limit, to one request, however
deep the bucket is. That measure takes the place of the blind cut of AIMD. Around the measured rate the pace
moves on the curve of CUBIC (RFC 9438): from a little below, flat at the measure, then a little above it, and
after a long silence upwards exponentially, because then the limit has been raised.

The measure is too low where a shallow bucket overflowed while the pace was below the limit. The trail of what
was let through tells how deep the bucket must have been for any limit that could be meant
(:meth:`Trail.depth`); the first refusal, reached at another slope, told that too; the limit is where both
agree.

A refusal costs one request, so it has a price: the longer the share of refusals is above the target, and the
longer the pauses that the service asks for with each, the longer the pace stays below the next one.

It assumes that answers tell 429 apart from other failures, that a refusal takes nothing from the bucket, and
that the limit stays for some hundred requests. Where it fails: a bucket of one or two with more jitter than
its gap (it holds less than is permitted); a deep bucket met over a long line (the requests on the wire at the
first refusal are lost, and no law can know sooner); others who use the limit up at random; and a low limit
that is raised, which is noticed only when the next refusal stays out, some hundred requests later: at five a
second, minutes. ``python -m benchmarks.limits`` tells how well it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["Finder", "Prior", "Trail"]

RISE: Final = 0.6  # how fast the pace grows at the start: e-fold in so many seconds is its inverse
SECOND_RISE: Final = 0.3  # and after the first refusal: slower, for two slopes tell depth and limit apart
STEP: Final = 0.05  # never by more than this from one request to the next
LEAD: Final = 3.0  # requests on the wire at the start, however few have been let through,
LEAD_SHARE: Final = 0.125  # and this share of those, so that the first refusals are few
HOLD: Final = 14  # requests at an even pace after the first refusal, so that the first measure is worth something
ENOUGH: Final = 12  # let through between two refusals: fewer measure nothing
EDGE: Final = 0.02  # of the measured rate: how far the pace moves around it
CALM: Final = 80.0  # requests from a cut to the measured rate, at the best of times
CALM_MOST: Final = 4.0  # times longer at the worst
TARGET: Final = 0.0025  # the share of refusals that is aimed at
SLOWEST: Final = 0.05  # requests a second: found by itself, the pace never falls below
PROBE: Final = 0.1  # seconds from a second refusal in a row to the next try, doubled each time,
PROBE_MOST: Final = 5.0  # up to this


@attrs.frozen(kw_only=True)
class Prior:
    """What the service documents for a lane, to start from while nothing better is known.

    :ivar rate: requests a second that are permitted for ever.
    :ivar burst: requests that are permitted at once after a quiet time.
    """

    rate: float
    burst: int


@attrs.define(eq=False)
class Trail:
    """When the requests of one cycle left that were let through, thinned out to at most 64 points.

    :ivar end: when the refused request left that ended the cycle.
    :ivar total: how many were let through until then.
    """

    end: float = 0.0
    total: int = 0
    _times: list[float] = attrs.field(factory=list)
    _before: list[int] = attrs.field(factory=list)
    _stride: int = 1

    def add(self, left_at: float) -> None:
        """Note one that was let through."""
        if self.total % self._stride == 0:
            self._times.append(left_at)
            self._before.append(self.total)
            if len(self._times) == 64:  # noqa: PLR2004 - as the class says
                del self._times[1::2], self._before[1::2]
                self._stride *= 2
        self.total += 1

    def depth(self, rate: float) -> float:
        """Return how many left at the end beyond ``rate``: were that the limit, so deep the bucket was, at least."""
        return max(
            (self.total - count - rate * (self.end - at) for at, count in zip(self._times, self._before, strict=True)),
            default=0.0,
        )


@attrs.define(eq=False)
class Finder:
    """The rate held to, corrected by every answer.

    :ivar rate: requests a second, now.
    :ivar why: why it is this rate, in a few words.
    :ivar cut_at: when it was last cut; refusals of what left before are old news.
    :ivar lag: seconds from leaving to the answer, smoothed.
    """

    prior: Prior
    rate: float
    why: str = "finding it"
    cut_at: float = -math.inf
    lag: float = 0.0
    _answers: float = 0.0
    _refusals: float = 0.0
    _trail: Trail = attrs.field(factory=Trail)  # of this cycle: since the last refusal that counted
    _mark: float | None = None  # when that refused request left
    _opening: Trail | None = None  # of the first cycle, which began with the bucket full
    _last: Trail | None = None  # of the cycle before
    _last_mark: float = -math.inf
    _goal: float = 0.0  # the rate around which the pace moves,
    _known: float = 0.0  # and the last one that was measured
    _proven: float = 0.0  # and the last one over a long cycle
    _hit: float = 0.0  # the rate at the last refusal that counted
    _lowest_hit: float = math.inf  # of the refusals since the last long cycle: the limit is below it
    _edge: float = EDGE  # how far around the goal, as a share of it,
    _calm: float = 0.0  # and how many requests from the cut to the goal
    _seeking: bool = True  # no measure yet: upwards until the next refusal
    _steps: int = 0  # let through since the cut while the pace was what held them back
    _settled: bool = True  # something that left after the cut was let through
    _short: int = 0  # cycles in a row that measured nothing
    _believed: bool = False  # the documented rate has been tried
    _guesses: int = 0  # times in a row that a shallow bucket was guessed
    _streak: int = 0  # refusals in a row with nothing let through between
    _stuck_at: float = 0.0  # when the second of them left
    _stuck_for: float = 0.0  # seconds, the last time
    _pause: float = 0.0  # seconds of this cycle without work or asked for by the service, and what it usually asks
    _usual_pause: float = 0.0
    _freed_at: float | None = None  # when a closed door opened the last time, and what was let through since
    _freed_ok: int = 0
    _freed_mark: float = -math.inf  # the mark that it set

    @classmethod
    def start(cls, prior: Prior) -> Finder:
        """Return a finder that knows no more than ``prior``."""
        return cls(prior=prior, rate=4.0 * prior.rate)

    def passed(self, now: float, left_at: float, *, busy: bool) -> None:
        """Learn from a request that was let through.

        :param busy: True when it was the pace that had held it back, not a lack of work.
        """
        self._count(now, left_at)
        self._freed_ok += 1
        if self._mark is None or left_at > self._mark:
            self._trail.add(left_at)
        elif self._last is not None and left_at > self._last_mark:
            self._last.total += 1  # let through before the refusal, told after it
        if left_at <= self.cut_at:
            return
        if not self._settled:
            self._settle(left_at)
        if busy:
            self._steps += 1
            self._move()

    def idled(self, seconds: float) -> None:
        """Note that for so long there was no work: what was not sent then tells nothing of the limit."""
        self._pause += seconds

    def refused(self, now: float, left_at: float, pause: float) -> float | None:
        """Learn from a request that was refused.

        :param pause: seconds that the service asked to wait, or 0.
        :return: seconds to wait before the next try; None for old news.
        """
        self._count(now, left_at)
        self._refusals += 1.0
        if left_at <= self.cut_at:
            return None
        self.cut_at = now
        self._settled = False
        self._streak += 1
        if self._streak == 1 and self._ajar():
            self._streak = 3
        if self._streak > 1:
            if self._streak == 2:  # noqa: PLR2004 - the second in a row
                self._stuck_at = left_at
            self.why = "nothing is let through"
            return min(PROBE_MOST, PROBE * 2.0 ** min(self._streak - 2, 30))
        self._cut(left_at)
        self._mark, self._trail, self._steps = left_at, Trail(), 0
        self._pause = pause
        self._usual_pause = max(0.5 * self._usual_pause, min(pause, PROBE_MOST))
        self._goal = max(self._goal, SLOWEST)
        self.rate = self._goal * (1.0 - (EDGE if self._seeking else self._edge))
        self.why = "429 a moment ago"
        # A bucket that has just been emptied gets a little back first, or jitter alone would meet it empty again.
        return 2.0 / self.rate + 0.25 * self.lag

    def _count(self, now: float, left_at: float) -> None:
        trip = now - left_at
        self.lag += (trip - self.lag) * (0.1 if self._answers else 1.0)
        self._answers += 1.0
        if self._answers > 5000.0:  # noqa: PLR2004 - what is older counts half
            self._answers, self._refusals = 0.5 * self._answers, 0.5 * self._refusals

    def _cut(self, left_at: float) -> None:
        """Set the goal after a refusal that ends a cycle."""
        hit, trail = self.rate, self._trail
        self._hit = hit
        trail.end = left_at
        self._last, self._last_mark = trail, -math.inf if self._mark is None else self._mark
        if self._mark is None:
            self._opening, self._lowest_hit = trail, hit
            self._goal = min(self._first_floor(hit), 0.7 * hit)
            return
        span = max(left_at - self._mark, 1e-3)
        if trail.total >= ENOUGH:
            self._short = 0
            self._measure(trail, span, hit)
            return
        self._short += 1
        self._lowest_hit = min(self._lowest_hit, hit)
        if self._short == 1 and self._known:
            self._goal = 0.97 * min(hit, self._known)
        else:
            self._goal, self._seeking = min(0.7 * hit, self._at_most(trail.total + 1, span)), True

    def _first_floor(self, hit: float) -> float:
        """Return a rate that the limit is probably above, after the first refusal at the rate ``hit``."""
        burst, rate = self.prior.burst, self.prior.rate
        documented = 0.8 * burst < self._opening_depth(rate) < 1.3 * burst
        return 0.97 * rate if documented or hit < 6.0 * rate else hit / 2.5

    def _opening_depth(self, rate: float) -> float:
        return math.inf if self._opening is None else self._opening.depth(rate)

    def _at_most(self, count: int, span: float) -> float:
        """Return what the limit cannot be above, after so few were let through from one refusal to the next."""
        rate = count / span
        if self._opening_depth(rate) < rate * self._pause + 3.0:
            return count / max(span - self._pause, 1e-3)  # a bucket that shallow may have overflowed in the pause
        return rate

    def _measure(self, trail: Trail, span: float, hit: float) -> None:
        """Set the goal by what was let through from one refusal to the next, the last at the rate ``hit``."""
        measure = trail.total / span
        if self._pause > 0.2 * span:
            # Mostly a pause, or no work: a bucket overflowed meanwhile, and this is no reason to fall far.
            working = trail.total / max(span - self._pause, 1e-3)
            measure = max(measure, min(0.93 * self._known, working) if self._known else 0.5 * working)
        top = max(measure, min(hit, self._lowest_hit))
        limit = _first(measure, top, lambda rate: trail.depth(rate) <= max(2.0, self._opening_depth(rate) + 0.3))
        long = trail.total > 100  # noqa: PLR2004 - to 1 %, and what was guessed then does not matter any more
        guess = 0.95 * top
        if self._guesses < 3 and guess > limit and not (long and self._known):  # noqa: PLR2004 - each wrong one costs
            depth = self._opening_depth(guess)
            if depth < (3.0 if top > 2 * self.prior.rate else 1.8) and trail.depth(guess) < depth + 1.0:
                limit, self._guesses = guess, self._guesses + 1
        if long:
            self._guesses, self._lowest_hit = 0, math.inf
        documented = 0.97 * self.prior.rate
        if not self._believed and 0.75 * documented < limit < documented:
            limit, self._believed = documented, True  # so near to what is documented that this is meant: tried once
        self._known = self._goal = limit
        self._seeking = False
        self._edge = max(EDGE, 1.0 / trail.total)
        self._calm = 30.0
        if trail.total >= 20:  # noqa: PLR2004 - to 5 %: a measure to stay with
            share = self._refusals / (self._answers + 20.0 * limit + 100.0)
            plenty = limit > 2.0 * self.prior.rate
            patient = min(4.0 ** min(share / TARGET, 10.0), CALM_MOST if plenty else 1.5 * CALM_MOST)
            if trail.total >= 60:  # noqa: PLR2004 - to 2 %
                self._proven = limit
            elif plenty:  # still rough: look a little above it soon
                patient = min(patient, 2.0)
            self._calm = max(CALM * patient, (4.0 + 30.0 * self._usual_pause) * limit)

    def _settle(self, left_at: float) -> None:
        """Take stock when the first request that left after a cut is let through."""
        self._settled = True
        if self._streak > 1:
            self._freed(left_at)
        elif self._mark is not None and self._last is self._opening and self._trail.total >= 8:  # noqa: PLR2004 - enough
            # Of those on the wire at the first refusal, so many were let through: a first measure for nothing.
            self._goal = min(self._hit, self._trail.total / (self.cut_at - self._mark))
        self._streak = 0
        self._steps = 0
        self._move()

    def _ajar(self) -> bool:
        """Tell whether a door that was closed for long has let only a few through since."""
        return self._freed_mark == self._mark and self._trail.total < 4 and self._stuck_for > 1.0  # noqa: PLR2004 - few

    def _freed(self, left_at: float) -> None:
        """Go on after a closed door: as before, unless doors close so often that they are windows."""
        self._stuck_for = left_at - self._stuck_at
        self._mark = self._freed_mark = left_at
        self._trail, self._pause = Trail(), 0.0
        if self._stuck_for > 1.0:
            self._goal = max(self._goal, self._proven)  # it was the door that refused last, not the limit
        if self._freed_at is not None:
            if self._freed_ok < ENOUGH:
                return
            cycle = left_at - self._freed_at
            if self._stuck_for > 0.2 * cycle:
                self._goal = self._proven = max(SLOWEST, min(self._goal, self._freed_ok / cycle))
                self._seeking, self._calm = False, CALM
        self._freed_at, self._freed_ok = left_at, 0

    def _move(self) -> None:
        """Move the rate on, by one request that was let through."""
        if self._mark is None:
            rate = self.rate * (1.0 + min(STEP, RISE / self.rate))
            self.rate = min(rate, max(self._most_at_start(), self.prior.rate))
        elif self._seeking:
            if self._steps > HOLD:
                self.rate *= 1.0 + min(STEP, SECOND_RISE / self.rate)
        elif self._steps <= 2.0 * self._calm:
            self.rate = self._goal * (1.0 + self._edge * (self._steps / self._calm - 1.0) ** 3)
            self.why = "measured between two 429s"
        else:
            beyond = self._steps / self._calm - 2.0
            self.rate *= 1.0 + min(STEP, RISE / self.rate) * min(1.0, 0.1 + beyond)
            self.why = "no 429 for long: trying more"

    def _most_at_start(self) -> float:
        """Return the rate at which the first refusal would not cost more than a share of what was let through."""
        if self.lag <= 0.0:
            return math.inf
        most = (LEAD + LEAD_SHARE * self._answers) / self.lag
        # Where the documented burst ends, as few as possible are on the wire.
        if 0.7 * self.prior.burst <= self._answers <= 1.3 * self.prior.burst:
            most = min(most, LEAD / self.lag)
        return most


def _first(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """Return the first rate from ``low`` on, in steps of 1 % up to ``high``, for which ``holds`` is true."""
    rate = max(low, 1e-3 * high)
    while rate < high and not holds(rate):
        rate *= 1.01
    return min(rate, high)
