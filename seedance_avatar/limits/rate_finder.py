"""What rate does the service permit? Found from what it lets through and what it refuses, without being told.

The law stands on older ones. Gateways are token buckets (GCRA, ITU-T I.371) or windows, which over a few windows
are the same thing. A bucket that refuses is empty, so *between two refusals it lets through exactly what it was
filled with*: their number over the time between is the limit, to one request, however deep the bucket is. That
measure takes the place of the blind cut of AIMD. Around it the pace moves as BBR's does (draft-ietf-ccwg-bbr): it
*cruises* a hair below, then it *probes* a little above, until the next refusal.

A probe costs a refusal, and no law can do without: that a limit was raised shows only where the old one is exceeded.
So the cruise is as long as it takes for the share of all refusals so far, the next included, to come down to
:data:`TARGET`; at five a second that is a minute and more, at thirty some ten seconds. Beside it a copy of the bucket
is filled at the measured rate. Overdrawn by more than doubt explains, it proves that more is permitted, and the
pace rises with the overdraft until a refusal says where it ends. Well filled when a request is refused in mid-cruise,
it tells that this was not the limit but a crowd of late requests, a door that closed, or somebody else: the refusal
after it decides.

The measure is too low where a shallow bucket overflowed while the pace was below the limit. The trail of what was
let through tells how deep the bucket must have been for any limit that could be meant (:meth:`DepartureLog.depth`); the
first refusal, reached at another slope, told that too; the limit is where both agree.

It assumes that answers tell 429 apart from other failures, that a refusal takes nothing from the bucket, and that
the limit stays for some hundred requests. Where it fails: a bucket that holds less than passes while the event loop
sleeps or the line jitters (the bucket overflows, and what it lost nobody gets); a deep bucket met over a long line
(the requests on the wire at the first refusal are lost, and no law can know sooner); a refusal that asks for a pause
of a second before a bucket that fills in a hundredth of it; others who use the limit up at random; and a low limit
that is raised, which is noticed at the next probe. ``python -m benchmarks.limits`` tells how well it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs

__all__ = [
    "DepartureLog",
    "Prior",
    "RateFinder",
    "first",
]

POINTS: Final = 64
FINENESS: Final = 1.01


@attrs.define(eq=False)
class DepartureLog:
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
            if len(self._times) == POINTS:
                del self._times[1::2], self._before[1::2]
                self._stride *= 2
        self.total += 1

    def depth(self, rate: float) -> float:
        """Return how many left at the end beyond ``rate``: were that the limit, so deep the bucket was, at least."""
        return max(
            (self.total - count - rate * (self.end - at) for at, count in zip(self._times, self._before, strict=True)),
            default=0.0,
        )


def first(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """Return the first rate from ``low`` on, in steps of 1 % up to ``high``, for which ``holds`` is true."""
    rate = max(low, 1e-3 * high)
    while rate < high and not holds(rate):
        rate *= FINENESS
    return min(rate, high)


LATE: Final = 0.1  # seconds that a late event loop may make up for: on a busy machine it stands still so long
LATE_LEAST: Final = 0.01  # and on any machine it wakes up so late
START: Final = 3.0  # times the documented rate
RISE: Final = 0.6  # how fast the pace grows at the start: e-fold in so many seconds is its inverse
SEEK: Final = 0.2  # and after the first refusal: slower, for two slopes tell depth and limit apart,
SEEK_ON: Final = 0.35  # a little faster where the limit must be higher
STEP: Final = 0.05  # never by more than this from one request to the next
LEAD: Final = 2.0  # requests on the wire while the limit is unknown, however few have been let through,
LEAD_SHARE: Final = 0.022  # and this share of those, so that the first refusals are few,
LEAD_RATE: Final = 0.3  # or over a long line so many more a second for each: 500 a second within ten seconds
HOLD: Final = 10  # requests at an even pace after the first refusal, so that the first measure is worth something
ENOUGH: Final = 12  # let through between two refusals: fewer measure nothing,
ROUGH: Final = 60  # fewer measure roughly,
LONG: Final = 200  # and so many well
BELOW: Final = 0.01  # how far below the measured rate the pace cruises, as a share of it,
ABOVE: Final = 0.1  # and how far above it it probes, at most,
ABOVE_LEAST: Final = 0.02  # and at least
DOUBT: Final = 3.0  # requests that the copy of the bucket may be wrong by, and a share of those let through:
DOUBT_OVER: Final = 0.005  # where it is overdrawn,
DOUBT_LEFT: Final = 0.03  # and where it is not empty
LEAP: Final = 0.4  # of the way to the rate at which it was refused: the next goal, where a rough one was overdrawn
GROW: Final = 0.6  # requests a second more for each that it is overdrawn by,
GROW_LAG: Final = 0.06  # and over a long line no more of them on the wire
TARGET: Final = 0.004  # the share of refusals that is aimed at
LONGEST: Final = 2.5  # times: how much longer a cruise is after too many of them, at most,
LONGEST_FAST: Final = 1.5  # and where the limit is well above the documented one, and may soon be so again
CRUISE: Final = 8.0  # seconds: no cruise is shorter,
CRUISE_ROUGH: Final = 4.0  # unless the measure was rough, then so many,
ROUGH_LONG: Final = 200.0  # or as many requests, if that is longer,
CRUISE_PAUSED: Final = 40.0  # and so many times the pause that the service asks for with each refusal
DOWN: Final = 0.03  # how much lower, where the measure is in doubt, doubled each time,
DOWN_MOST: Final = 0.2  # up to this
SLOWEST: Final = 0.05  # requests a second: found by itself, the pace never falls below
RETRY: Final = 0.25  # seconds from a second refusal in a row to the next try, doubled each time,
RETRY_MOST: Final = 5.0  # up to this


@attrs.frozen(kw_only=True)
class Prior:
    """What the service documents for a lane, to start from while nothing better is known.

    :ivar rate: requests a second that are permitted for ever.
    :ivar burst: requests that are permitted at once after a quiet time.
    """

    rate: float
    burst: int


@attrs.define(eq=False)
class RateFinder:
    """The rate held to, corrected by every answer.

    :ivar rate: requests a second, now.
    :ivar why: why it is this rate, in a few words.
    :ivar cut_at: when it was last cut; refusals of what left before are old news.
    :ivar lag: seconds from leaving to the answer, smoothed.
    :ivar slack: seconds that a late event loop may make up for at once: no more than the bucket holds.
    """

    prior: Prior
    rate: float
    why: str = "finding it"
    cut_at: float = -math.inf
    lag: float = 0.0
    slack: float = LATE
    _answers: float = 0.0
    _refusals: float = 0.0
    _trail: DepartureLog = attrs.field(factory=DepartureLog)  # of this cycle: since the last refusal that counted
    _mark: float | None = None  # when that refused request left
    _opening: DepartureLog | None = None  # of the first cycle, which began with the bucket full
    _last: DepartureLog | None = None  # of the cycle before
    _last_mark: float = -math.inf
    _goal: float = 0.0  # the rate around which the pace moves,
    _known: bool = False  # and whether it was measured
    _rough: bool = False  # and only roughly
    _seeking: bool = True  # no measure yet: upwards until the next refusal
    _level: float = 0.0  # the copy of the bucket, filled at the goal: so much is left in it,
    _level_at: float = 0.0  # at this moment,
    _depth: float = 0.0  # and so much it holds; at first, what the documented rate did not permit is owed
    _below: float = BELOW  # how far below the goal, as a share of it,
    _cruise: float = 0.0  # for how many requests,
    _above: float = ABOVE_LEAST  # and how far above it then
    _steps: int = 0  # let through since the cut while the pace was what held them back
    _settled: bool = True  # something that left after the cut was let through
    _short: int = 0  # cycles in a row that measured nothing
    _doubted: bool = False  # the last refusal was not taken for the limit
    _down: float = DOWN
    _believed: bool = False  # the documented rate has been tried
    _asked: float = 0.0  # seconds of pause that the service asked for at the start of this cycle,
    _lost: float = 0.0  # and seconds in which a bucket may have overflowed, by that or for lack of work
    _usual_pause: float = 0.0  # what it usually asks for
    _streak: int = 0  # refusals in a row with nothing let through between
    _shut_at: float = 0.0  # when the second of them left
    _opened_at: float | None = None  # when a closed door opened the last time, and what was let through since
    _opened_ok: int = 0

    @classmethod
    def start(cls, prior: Prior) -> RateFinder:
        """Return a finder that knows no more than ``prior``."""
        return cls(prior=prior, rate=START * prior.rate, goal=prior.rate)

    def passed(self, now: float, left_at: float, *, busy: bool) -> None:
        """Learn from a request that was let through.

        :param busy: True when it was the pace that had held it back, not a lack of work.
        """
        self._count(now, left_at)
        self._opened_ok += 1
        if self._mark is None or left_at > self._mark:
            self._trail.add(left_at)
            level = self._level + (now - self._level_at) * self._goal
            self._level = min(level, self._depth) - 1.0
            self._level_at = now
        elif self._last is not None and left_at > self._last_mark:
            self._last.total += 1  # let through before the refusal, told after it
        if left_at <= self.cut_at:
            return
        if not self._settled:
            self._settle(left_at)
        if busy:
            self._steps += 1
            if self._steps > self._cruise:
                self._move()

    def idled(self, seconds: float) -> None:
        """Note that for so long nothing was sent for lack of work: it tells nothing of the limit."""
        self._lost += seconds

    def refused(self, now: float, left_at: float, pause: float, *, late: bool) -> float | None:
        """Learn from a request that was refused.

        :param pause: seconds that the service asked to wait, or 0.
        :param late: True when it left in a crowd that made up for a late event loop.
        :return: seconds to wait before the next try; None for old news.
        """
        self._count(now, left_at)
        self._refusals += 1.0
        if left_at <= self.cut_at:
            return None
        self.cut_at = now
        self._settled = False
        self._streak += 1
        if self._streak > 1:
            if self._streak == 2:  # noqa: PLR2004 - the second in a row
                self._shut_at = left_at
            self.why = "nothing is let through"
            return min(RETRY_MOST, RETRY * 2.0 ** min(self._streak - 2, 30))
        self._usual_pause = max(0.5 * self._usual_pause, min(pause, RETRY_MOST))
        self._cut(left_at, late=late, shut=pause > RETRY_MOST)
        self._mark, self._trail, self._steps = left_at, DepartureLog(), 0
        goal = self._goal = max(self._goal, SLOWEST)
        self.rate = goal * (1.0 - self._below)
        depth = self._opening_depth(goal)
        self._level, self._level_at, self._depth = 0.0, now, max(10.0, min(depth, goal))
        if self._known:
            self.slack = min(self.slack, max(LATE_LEAST, 0.8 * (depth - 1.0) / goal))
        self._asked, self._lost = pause, max(0.0, pause - depth / goal)
        self.why = "429 a moment ago"
        # A bucket that has just been emptied gets a little back first, or jitter alone would meet it empty again.
        return 2.0 / self.rate + 0.25 * self.lag

    def _count(self, now: float, left_at: float) -> None:
        trip = now - left_at
        self.lag += (trip - self.lag) * (0.1 if self._answers else 1.0)
        self._answers += 1.0
        if self._answers > 5000.0:  # noqa: PLR2004 - what is older counts half
            self._answers, self._refusals = 0.5 * self._answers, 0.5 * self._refusals

    def _cut(self, left_at: float, *, late: bool, shut: bool) -> None:
        """Set the goal after a refusal that ends a cycle."""
        hit, trail = self.rate, self._trail
        trail.end = left_at
        self._last, self._last_mark = trail, -math.inf if self._mark is None else self._mark
        if self._mark is None:
            self._opening = trail
            self._goal, self._cruise = min(self._first_floor(hit), 0.7 * hit), HOLD
            return
        span = max(left_at - self._mark, 1e-3)
        measured = self._known and not self._seeking
        cruising = measured and self._steps <= self._cruise
        surprising = (measured and shut) or (cruising and self._level > self._doubt(DOUBT_LEFT))
        if cruising and late and self.slack > LATE_LEAST:
            self.slack = max(LATE_LEAST, 0.5 * self.slack)  # the crowd was too large, the pace was not
        elif trail.total < ENOUGH:
            self._guess(trail.total + 1, span, hit)
        elif surprising and not self._doubted and trail.total >= ROUGH:
            self._doubted = True  # a door that closed for long, or somebody else: the next refusal tells
        else:
            self._short, self._doubted = 0, False
            self._measure(trail, span, hit, cruising=cruising)

    def _doubt(self, share: float) -> float:
        return DOUBT + share * self._trail.total

    def _first_floor(self, hit: float) -> float:
        """Return a rate that the limit is probably above, after the first refusal at the rate ``hit``."""
        burst, rate = self.prior.burst, self.prior.rate
        documented = 0.8 * burst < self._opening_depth(rate) < 1.3 * burst
        return 0.97 * rate if documented or hit < 6.0 * rate else hit / 2.5

    def _opening_depth(self, rate: float) -> float:
        return math.inf if self._opening is None else self._opening.depth(rate)

    def _guess(self, count: int, span: float, hit: float) -> None:
        """Set the goal after a cycle too short to measure anything: two deviations above what it seems to tell."""
        self._short += 1
        if self._short == 1 and self._known:
            most = (count + 2.0 * math.sqrt(count)) / max(span - self._asked, 1e-3)
            self._goal = min(0.97 * min(hit, self._goal), most)
        else:
            self._goal, self._seeking, self._cruise = min(0.7 * hit, count / span), True, HOLD

    def _measure(self, trail: DepartureLog, span: float, hit: float, *, cruising: bool) -> None:
        """Set the goal by what was let through from one refusal to the next, the last at the rate ``hit``."""
        measure = trail.total / span
        if self._lost:
            # The bucket may have overflowed meanwhile, or not: part of the way, and the next refusal tells.
            working = trail.total / max(span - self._lost, 1e-3)
            if self._known:
                self._down = DOWN if trail.total > LONG else min(2.0 * self._down, DOWN_MOST)
                lower = (1.0 - self._down) * self._goal
                measure = max(measure, min(lower, working) if trail.total >= ROUGH else lower)
            else:
                measure = 0.5 * (measure + max(measure, min(working, hit)))
        # Below the limit at an even pace no bucket overflows that holds a few: a refusal then says that it is lower.
        top = max(measure, hit * (1.0 - self._down) if cruising else hit)
        limit = first(measure, top, lambda rate: trail.depth(rate) <= max(2.0, self._opening_depth(rate) + 0.3))
        if self._known and not self._seeking and not cruising:
            if self._level < self._doubt(DOUBT_LEFT):
                limit = max(limit, 1.002 * self._goal)  # what was held to for a whole cruise is permitted
            limit = min(limit, max(measure, 0.5 * (self._goal + hit)))
            if self._rough and self._level < -self._doubt(DOUBT_OVER):
                limit = max(limit, self._goal + LEAP * (hit - self._goal))
        documented = 0.97 * self.prior.rate
        if not self._believed and 0.75 * documented < limit < documented:
            limit, self._believed = documented, True  # so near to what is documented that this is meant: tried once
        blind = self._lost > 0.15 * span or (self._seeking and self._level < -DOUBT)
        self._rough = trail.total < ROUGH or (blind and top > 1.1 * limit)
        self._goal, self._known, self._seeking = limit, True, False
        self._plan(trail.total)

    def _plan(self, count: int) -> None:
        """Decide how long to cruise and how far to probe then, after ``count`` were let through."""
        goal = self._goal
        self._below = max(BELOW, 0.3 / count)  # fewer measure less exactly
        # So far above that not more than one is on the wire that will be refused too.
        self._above = min(ABOVE, max(ABOVE_LEAST, 0.5 / (goal * max(self.lag, 1e-3))))
        cost = 1.0 + self._above * goal * self.lag
        owed = (self._refusals + cost) / TARGET - self._answers
        fast = goal > 1.3 * self.prior.rate
        self._cruise = min(owed, (LONGEST_FAST if fast else LONGEST) * cost / TARGET)
        self._cruise = max(self._cruise, (CRUISE + CRUISE_PAUSED * self._usual_pause) * goal)
        if fast and self._rough:
            self._cruise = min(self._cruise, CRUISE * goal, max(CRUISE_ROUGH * goal, ROUGH_LONG))

    def _settle(self, left_at: float) -> None:
        """Take stock when the first request that left after a cut is let through."""
        self._settled = True
        if self._streak > 1:
            self._reopen(left_at)
        self._streak = self._steps = 0
        self._move()

    def _reopen(self, left_at: float) -> None:
        """Go on after a closed door: as before, unless doors close so often that they are windows."""
        self._mark, self._trail, self._lost, self._asked = left_at, DepartureLog(), 0.0, 0.0
        if self._opened_at is not None:
            if self._opened_ok < ENOUGH:
                return
            cycle = left_at - self._opened_at
            if left_at - self._shut_at > 0.2 * cycle:
                self._goal = max(SLOWEST, min(self._goal, self._opened_ok / cycle))
                self._seeking, self._cruise = False, 1.0 / TARGET
        self._opened_at, self._opened_ok = left_at, 0

    def _move(self) -> None:
        """Move the rate on, by one request that was let through."""
        if self._mark is None:
            rate = self.rate * (1.0 + min(STEP, RISE / self.rate))
            self.rate = min(rate, self._most_at_start())
        elif self._steps <= self._cruise:
            self.rate = self._goal * (1.0 - self._below)
            self.why = "429 a moment ago" if self._seeking else "measured between two 429s"
        elif self._seeking:
            rise = SEEK if self._level > -DOUBT else SEEK_ON
            rate = self.rate * (1.0 + min(STEP, rise / self.rate))
            self.rate = max(self.rate, min(rate, self._goal + self._lead(max(0.0, -self._level))))
        elif self._level > -self._doubt(DOUBT_OVER):
            self.rate = self._goal * (1.0 + self._above)
            self.why = "no 429 for long: trying more"
        else:
            rate = self.rate * (1.0 + min(STEP, RISE / self.rate))
            self.rate = max(
                self.rate,
                min(rate, self._goal * (1.0 + self._above) - min(GROW, GROW_LAG / max(self.lag, 1e-3)) * self._level),
            )
            self.why = "more is let through: trying more"

    def _most_at_start(self) -> float:
        burst, rate = self.prior.burst, self.prior.rate
        if 0.9 * burst <= -self._level <= 1.15 * burst:
            return max(self._lead(0.0), 2.0 * rate)  # where the documented bucket would be empty, as few as possible
        return max(self._lead(self._answers), rate)

    def _lead(self, count: float) -> float:
        """Return how much faster than what is known, so that a refusal costs a share of ``count`` let through."""
        lag = self.lag
        return (LEAD + max(LEAD_SHARE, LEAD_RATE * lag) * count) / lag if lag > 0.0 else math.inf
