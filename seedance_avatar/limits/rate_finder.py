"""Finds the rate that the service permits from which requests it accepts and which it refuses with 429. Pure.

How it works, and where each rule comes from:

- *Measuring.* Gateways are token buckets (GCRA, ITU-T I.371) or fixed windows, which over a few windows are the same.
  A bucket that refuses is empty, so the requests accepted between two refusals, over the time between them, are the
  rate at which it is filled, to one request, however deep the bucket is. This measure replaces the multiplicative
  decrease of AIMD (RFC 5681).
- *Cruise and probe*, as BBR does (draft-ietf-ccwg-bbr). The pace stays a little below the measure, then a little above
  it until the next refusal. A probe costs a refusal, and nothing else can show that a limit was raised. So a cruise
  lasts until the share of all refusals, the next one included, is down to :data:`TARGET_REFUSALS`: a minute and more
  at five a second, some ten seconds at thirty.
- *A model of the bucket*, filled at the measured rate. When it is overdrawn by more than its error, more is permitted
  than was measured, and the pace rises with the overdraft until a refusal. When it is well filled and a request is
  refused in mid-cruise, that refusal was caused by a burst after a stall, a temporary block, or another client of the
  account; the refusal after it decides.
- *Depth.* The measure is too low where a shallow bucket overflowed while the pace was below the limit. From the times
  of the accepted requests follows how deep the bucket must have been for any assumed limit
  (:meth:`DepartureLog.depth`); the first refusal, reached at another slope, gave a second such curve; the limit is
  where both agree.

It assumes that 429 can be told apart from other failures, that a refusal takes nothing from the bucket, and that the
limit stays the same for some hundred requests. It performs badly where a bucket holds less than is accepted while the
event loop is stalled or the line jitters (what overflows is lost); where a deep bucket is met over a long line (the
requests in flight at the first refusal are lost); where a refusal asks for a pause of a second before a bucket that
fills in a hundredth of it; where other clients use the limit at random; and where a low limit is raised (noticed at
the next probe). ``python -m benchmarks.limits`` measures all of these.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

MAX_POINTS: Final = 64


@attrs.define(eq=False)
class DepartureLog:
    """The departure times of the accepted requests of one cycle (from one refusal to the next), at most 64 of them."""

    end: float = 0.0  # when the refused request left that ended the cycle
    total: int = 0  # requests that were accepted in the cycle
    _times: list[float] = attrs.field(factory=list)
    _before: list[int] = attrs.field(factory=list)
    _stride: int = 1

    def add(self, left_at: float) -> None:
        """Add an accepted request that left at ``left_at``."""
        if self.total % self._stride == 0:
            self._times.append(left_at)
            self._before.append(self.total)
            if len(self._times) == MAX_POINTS:
                del self._times[1::2], self._before[1::2]
                self._stride *= 2
        self.total += 1

    def depth(self, rate: float) -> float:
        """Return how deep the bucket was at least, in requests, if ``rate`` was the limit."""
        return max(
            (self.total - count - rate * (self.end - at) for at, count in zip(self._times, self._before, strict=True)),
            default=0.0,
        )


# All were tuned on the scenarios of benchmarks/limits, and checked on scenarios that were kept aside.

# Timer slack
MAX_SLACK: Final = 0.1  # seconds of lateness that are made up for at once: a busy machine's loop stalls so long
MIN_SLACK: Final = 0.01  # seconds, the same on any machine: no loop wakes up more exactly

# Before the first refusal
START_FACTOR: Final = 3.0  # the first rate, as a multiple of the documented one
START_GROWTH: Final = 0.6  # growth of the rate, 1/s: it grows e-fold in the inverse of this
MAX_GROWTH_STEP: Final = 0.05  # the rate never grows by more than this share from one request to the next
MIN_AT_RISK: Final = 2.0  # requests that may be in flight beyond what is known to be permitted,
AT_RISK_SHARE: Final = 0.022  # or this share of the answers so far, so that the first refusals are few,
AT_RISK_SHARE_LAG: Final = 0.3  # or this share for each second of lag: 500 a second within ten seconds

# From the first refusal to the first measure
HOLD_AFTER_FIRST: Final = 10  # requests at an even pace, so that the first measure is worth something
SEARCH_GROWTH: Final = 0.2  # growth of the rate, 1/s: slower than at the start, to tell depth and limit apart
SEARCH_GROWTH_OVERDRAWN: Final = 0.35  # the same where the limit must be higher

# Sample sizes: requests accepted between two refusals
MIN_SAMPLE: Final = 12  # fewer measure nothing
ROUGH_SAMPLE: Final = 60  # fewer measure roughly
GOOD_SAMPLE: Final = 200  # more measure well

# Cruise and probe
CRUISE_MARGIN: Final = 0.01  # how far below the estimate the cruise is, as a share of it
MAX_PROBE: Final = 0.1  # how far above the estimate a probe goes at most, as a share of it
MIN_PROBE: Final = 0.02  # and at least
TARGET_REFUSALS: Final = 0.004  # the share of refusals that is aimed at
MAX_CRUISE_FACTOR: Final = 2.5  # after too many refusals a cruise is longer by this factor at most
MAX_CRUISE_FACTOR_FAST: Final = 1.5  # the same where the limit is well above the documented one, and may rise again
MIN_CRUISE: Final = 8.0  # seconds: the shortest cruise,
MIN_CRUISE_ROUGH: Final = 4.0  # seconds: the shortest after a rough measure,
MIN_CRUISE_ROUGH_REQUESTS: Final = 200.0  # or so many requests, if that is longer
CRUISE_PER_PAUSE: Final = 40.0  # seconds of cruise for each second of pause that the service asks for with a refusal

# The model of the bucket
BUCKET_ERROR: Final = 3.0  # requests by which it may be wrong, plus a share of those accepted in the cycle:
OVERDRAWN_ERROR: Final = 0.005  # this share where it is overdrawn,
FILLED_ERROR: Final = 0.03  # and this where it is filled
ROUGH_STEP_UP: Final = 0.4  # how far the estimate moves towards the refused rate where a rough one was overdrawn
OVERDRAFT_GAIN: Final = 0.6  # requests a second more for each request of overdraft,
OVERDRAFT_GAIN_LAG: Final = 0.06  # but over a long line no more than this many more in flight

# Steps down and retries
FIRST_STEP_DOWN: Final = 0.03  # how far the estimate falls, as a share, where the measure is uncertain; then doubled
MAX_STEP_DOWN: Final = 0.2  # up to this
MIN_RATE: Final = 0.05  # requests a second: the estimate never falls below
FIRST_RETRY: Final = 0.25  # seconds from the second refusal in a row to the next attempt; then doubled
MAX_RETRY: Final = 5.0  # seconds: up to this


@attrs.frozen(kw_only=True)
class Prior:
    """The limit that the service documents for a lane: where the search begins."""

    rate: float  # requests a second, sustained
    burst: int  # requests at once after a quiet time


@attrs.define(eq=False)
class RateFinder:
    """The rate in use, corrected by every answer. Times are seconds on the caller's clock."""

    prior: Prior
    rate: float  # requests a second, now,
    why: str = "probing"  # and why, in a few words
    cut_at: float = -math.inf  # when the rate was last cut; refusals of requests that left earlier are ignored
    lag: float = 0.0  # seconds from a departure to its answer, smoothed
    slack: float = MAX_SLACK  # seconds of the loop's lateness that may be made up for at once: what the bucket holds
    _answers: float = 0.0
    _refusals: float = 0.0
    _cycle: DepartureLog = attrs.field(factory=DepartureLog)
    _cycle_start: float | None = None  # when the refused request left that began the cycle
    _first_cycle: DepartureLog | None = None  # it began with a full bucket
    _previous_cycle: DepartureLog | None = None
    _previous_start: float = -math.inf
    _estimate: float = 0.0  # the permitted rate, as far as is known
    _measured_once: bool = False
    _rough: bool = False  # the last measure was rough
    _seeking: bool = True  # no measure yet: the rate rises until the next refusal
    _bucket: float = 0.0  # requests left in the model of the bucket; negative at first: what the prior did not permit
    _bucket_at: float = 0.0
    _bucket_depth: float = 0.0
    _margin: float = CRUISE_MARGIN  # how far below the estimate this cruise is, as a share of it,
    _cruise: float = 0.0  # for how many requests,
    _probe: float = MIN_PROBE  # and how far above it the probe after it goes
    _paced: int = 0  # accepted since the cut while the pace, not a lack of work, held requests back
    _confirmed: bool = True  # a request that left after the cut was accepted
    _short_cycles: int = 0  # cycles in a row that measured nothing
    _disregarded: bool = False  # the last refusal was not taken for the limit
    _step_down: float = FIRST_STEP_DOWN
    _documented_tried: bool = False
    _pause: float = 0.0  # seconds that the service asked to wait at the start of this cycle,
    _idle: float = 0.0  # and seconds in which a bucket may have overflowed, by that pause or for lack of work
    _usual_pause: float = 0.0
    _refusals_in_a_row: int = 0
    _blocked_at: float = 0.0  # when the second of them left
    _unblocked_at: float | None = None  # when a block last ended, and how many were accepted since
    _since_unblocked: int = 0

    @classmethod
    def start(cls, prior: Prior) -> RateFinder:
        """Return a finder that starts from ``prior``."""
        return cls(prior=prior, rate=START_FACTOR * prior.rate, estimate=prior.rate)

    def on_success(self, now: float, left_at: float, *, paced: bool) -> None:
        """Learn from an accepted request; ``paced`` when the pace held it back, not a lack of work."""
        self._count(now, left_at)
        self._since_unblocked += 1
        if self._cycle_start is None or left_at > self._cycle_start:
            self._cycle.add(left_at)
            bucket = self._bucket + (now - self._bucket_at) * self._estimate
            self._bucket = min(bucket, self._bucket_depth) - 1.0
            self._bucket_at = now
        elif self._previous_cycle is not None and left_at > self._previous_start:
            self._previous_cycle.total += 1  # accepted before the refusal, answered after it
        if left_at <= self.cut_at:
            return
        if not self._confirmed:
            self._on_first_success(left_at)
        if paced:
            self._paced += 1
            if self._paced > self._cruise:
                self._next_rate()

    def on_idle(self, seconds: float) -> None:
        """Note that nothing was sent for ``seconds`` for lack of work, which says nothing about the limit."""
        self._idle += seconds

    def on_refusal(self, now: float, left_at: float, pause: float, *, late: bool) -> float | None:
        """Learn from a refused request; return the seconds to the next attempt, None where it left before the last cut.

        :param pause: seconds that the service asked to wait, or 0.
        :param late: True when it left in a burst that made up for a late event loop.
        """
        self._count(now, left_at)
        self._refusals += 1.0
        if left_at <= self.cut_at:
            return None
        self.cut_at = now
        self._confirmed = False
        self._refusals_in_a_row += 1
        if self._refusals_in_a_row > 1:
            if self._refusals_in_a_row == 2:  # noqa: PLR2004 - the second in a row
                self._blocked_at = left_at
            self.why = "every request is refused"
            return min(MAX_RETRY, FIRST_RETRY * 2.0 ** min(self._refusals_in_a_row - 2, 30))
        self._usual_pause = max(0.5 * self._usual_pause, min(pause, MAX_RETRY))
        self._end_cycle(left_at, late=late, long_pause=pause > MAX_RETRY)
        self._cycle_start, self._cycle, self._paced = left_at, DepartureLog(), 0
        estimate = self._estimate = max(self._estimate, MIN_RATE)
        self.rate = estimate * (1.0 - self._margin)
        depth = self._first_depth(estimate)
        self._bucket, self._bucket_at, self._bucket_depth = 0.0, now, max(10.0, min(depth, estimate))
        if self._measured_once:
            self.slack = min(self.slack, max(MIN_SLACK, 0.8 * (depth - 1.0) / estimate))
        self._pause, self._idle = pause, max(0.0, pause - depth / estimate)
        self.why = "429 a moment ago"
        # The emptied bucket is first refilled a little: jitter alone would find it empty again.
        return 2.0 / self.rate + 0.25 * self.lag

    def _count(self, now: float, left_at: float) -> None:
        trip = now - left_at
        self.lag += (trip - self.lag) * (0.1 if self._answers else 1.0)
        self._answers += 1.0
        if self._answers > 5000.0:  # noqa: PLR2004 - older answers count half
            self._answers, self._refusals = 0.5 * self._answers, 0.5 * self._refusals

    def _end_cycle(self, left_at: float, *, late: bool, long_pause: bool) -> None:
        """Set the estimate after a refusal, which ends a cycle."""
        refused_rate, cycle = self.rate, self._cycle
        cycle.end = left_at
        self._previous_cycle = cycle
        self._previous_start = -math.inf if self._cycle_start is None else self._cycle_start
        if self._cycle_start is None:
            self._first_cycle = cycle
            self._estimate, self._cruise = min(self._first_estimate(refused_rate), 0.7 * refused_rate), HOLD_AFTER_FIRST
            return
        span = max(left_at - self._cycle_start, 1e-3)
        measured = self._measured_once and not self._seeking
        cruising = measured and self._paced <= self._cruise
        surprising = (measured and long_pause) or (cruising and self._bucket > self._bucket_error(FILLED_ERROR))
        if cruising and late and self.slack > MIN_SLACK:
            self.slack = max(MIN_SLACK, 0.5 * self.slack)  # the burst was too large, the pace was not
        elif cycle.total < MIN_SAMPLE:
            self._estimate_from_few(cycle.total + 1, span, refused_rate)
        elif surprising and not self._disregarded and cycle.total >= ROUGH_SAMPLE:
            self._disregarded = True  # a long block, or another client: the next refusal decides
        else:
            self._short_cycles, self._disregarded = 0, False
            self._measure(cycle, span, refused_rate, cruising=cruising)

    def _bucket_error(self, share: float) -> float:
        return BUCKET_ERROR + share * self._cycle.total

    def _first_estimate(self, refused_rate: float) -> float:
        """Return a rate that the limit is probably above, after the first refusal, which met ``refused_rate``."""
        burst, rate = self.prior.burst, self.prior.rate
        documented = 0.8 * burst < self._first_depth(rate) < 1.3 * burst
        return 0.97 * rate if documented or refused_rate < 6.0 * rate else refused_rate / 2.5

    def _first_depth(self, rate: float) -> float:
        return math.inf if self._first_cycle is None else self._first_cycle.depth(rate)

    def _estimate_from_few(self, count: int, span: float, refused_rate: float) -> None:
        """Set the estimate after a cycle too short to measure: two standard deviations (Poisson) above its mean."""
        self._short_cycles += 1
        if self._short_cycles == 1 and self._measured_once:
            most = (count + 2.0 * math.sqrt(count)) / max(span - self._pause, 1e-3)
            self._estimate = min(0.97 * min(refused_rate, self._estimate), most)
        else:
            self._estimate, self._seeking, self._cruise = min(0.7 * refused_rate, count / span), True, HOLD_AFTER_FIRST

    def _measure(self, cycle: DepartureLog, span: float, refused_rate: float, *, cruising: bool) -> None:
        """Set the estimate by the requests accepted in a cycle that ended with a refusal at ``refused_rate``."""
        measure = cycle.total / span
        if self._idle:
            # The bucket may have overflowed meanwhile, or not: go part of the way, and let the next refusal decide.
            working = cycle.total / max(span - self._idle, 1e-3)
            if self._measured_once:
                doubled = min(2.0 * self._step_down, MAX_STEP_DOWN)
                self._step_down = FIRST_STEP_DOWN if cycle.total > GOOD_SAMPLE else doubled
                lower = (1.0 - self._step_down) * self._estimate
                measure = max(measure, min(lower, working) if cycle.total >= ROUGH_SAMPLE else lower)
            else:
                measure = 0.5 * (measure + max(measure, min(working, refused_rate)))
        # No bucket of some depth overflows at an even pace below its limit: a refusal then means that it is lower.
        top = max(measure, refused_rate * (1.0 - self._step_down) if cruising else refused_rate)
        limit = max(measure, 1e-3 * top)
        while limit < top and cycle.depth(limit) > max(2.0, self._first_depth(limit) + 0.3):
            limit *= 1.01
        limit = min(limit, top)
        if self._measured_once and not self._seeking and not cruising:
            if self._bucket < self._bucket_error(FILLED_ERROR):
                limit = max(limit, 1.002 * self._estimate)  # the rate of a whole cruise is permitted
            limit = min(limit, max(measure, 0.5 * (self._estimate + refused_rate)))
            if self._rough and self._bucket < -self._bucket_error(OVERDRAWN_ERROR):
                limit = max(limit, self._estimate + ROUGH_STEP_UP * (refused_rate - self._estimate))
        documented = 0.97 * self.prior.rate
        if not self._documented_tried and 0.75 * documented < limit < documented:
            limit, self._documented_tried = documented, True  # so near to the documented rate that it is tried, once
        blind = self._idle > 0.15 * span or (self._seeking and self._bucket < -BUCKET_ERROR)
        self._rough = cycle.total < ROUGH_SAMPLE or (blind and top > 1.1 * limit)
        self._estimate, self._measured_once, self._seeking = limit, True, False
        self._plan_cruise(cycle.total)

    def _plan_cruise(self, count: int) -> None:
        """Set the length of the next cruise and the height of the probe after it; ``count`` requests were measured."""
        estimate = self._estimate
        self._margin = max(CRUISE_MARGIN, 0.3 / count)  # a smaller sample measures less exactly
        # At this height about one more request is in flight when the refusal comes.
        self._probe = min(MAX_PROBE, max(MIN_PROBE, 0.5 / (estimate * max(self.lag, 1e-3))))
        cost = 1.0 + self._probe * estimate * self.lag
        owed = (self._refusals + cost) / TARGET_REFUSALS - self._answers
        fast = estimate > 1.3 * self.prior.rate
        self._cruise = min(owed, (MAX_CRUISE_FACTOR_FAST if fast else MAX_CRUISE_FACTOR) * cost / TARGET_REFUSALS)
        self._cruise = max(self._cruise, (MIN_CRUISE + CRUISE_PER_PAUSE * self._usual_pause) * estimate)
        if fast and self._rough:
            shortest = max(MIN_CRUISE_ROUGH * estimate, MIN_CRUISE_ROUGH_REQUESTS)
            self._cruise = min(self._cruise, MIN_CRUISE * estimate, shortest)

    def _on_first_success(self, left_at: float) -> None:
        """Go on when the first request that left after a cut is accepted."""
        self._confirmed = True
        if self._refusals_in_a_row > 1:
            self._after_block(left_at)
        self._refusals_in_a_row = self._paced = 0
        self._next_rate()

    def _after_block(self, left_at: float) -> None:
        """Go on after a block: as before, unless blocks come so regularly that they are a limit by windows."""
        self._cycle_start, self._cycle, self._idle, self._pause = left_at, DepartureLog(), 0.0, 0.0
        if self._unblocked_at is not None:
            if self._since_unblocked < MIN_SAMPLE:
                return
            cycle = left_at - self._unblocked_at
            if left_at - self._blocked_at > 0.2 * cycle:
                self._estimate = max(MIN_RATE, min(self._estimate, self._since_unblocked / cycle))
                self._seeking, self._cruise = False, 1.0 / TARGET_REFUSALS
        self._unblocked_at, self._since_unblocked = left_at, 0

    def _next_rate(self) -> None:
        """Set the rate after one more accepted request."""
        if self._cycle_start is None:
            rate = self.rate * (1.0 + min(MAX_GROWTH_STEP, START_GROWTH / self.rate))
            self.rate = min(rate, self._start_ceiling())
        elif self._paced <= self._cruise:
            self.rate = self._estimate * (1.0 - self._margin)
            self.why = "429 a moment ago" if self._seeking else "measured between two 429s"
        elif self._seeking:
            rise = SEARCH_GROWTH if self._bucket > -BUCKET_ERROR else SEARCH_GROWTH_OVERDRAWN
            rate = self.rate * (1.0 + min(MAX_GROWTH_STEP, rise / self.rate))
            self.rate = max(self.rate, min(rate, self._estimate + self._excess(max(0.0, -self._bucket))))
        elif self._bucket > -self._bucket_error(OVERDRAWN_ERROR):
            self.rate = self._estimate * (1.0 + self._probe)
            self.why = "no 429 for long: probing"
        else:
            rate = self.rate * (1.0 + min(MAX_GROWTH_STEP, START_GROWTH / self.rate))
            gain = min(OVERDRAFT_GAIN, OVERDRAFT_GAIN_LAG / max(self.lag, 1e-3))
            self.rate = max(self.rate, min(rate, self._estimate * (1.0 + self._probe) - gain * self._bucket))
            self.why = "more is accepted than measured: probing"

    def _start_ceiling(self) -> float:
        burst, rate = self.prior.burst, self.prior.rate
        if 0.9 * burst <= -self._bucket <= 1.15 * burst:
            # The documented bucket would be empty now: risk as few as possible.
            return max(self._excess(0.0), 2.0 * rate)
        return max(self._excess(self._answers), rate)

    def _excess(self, count: float) -> float:
        """Return how many requests a second more than known to risk, so that a refusal costs a share of ``count``."""
        lag = self.lag
        return (MIN_AT_RISK + max(AT_RISK_SHARE, AT_RISK_SHARE_LAG * lag) * count) / lag if lag > 0.0 else math.inf
