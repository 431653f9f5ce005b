"""The distribution of the time to finish, one for each kind of item: assumed at first, then learned from polls. Pure.

It is estimated over two windows of different length, the long window being the prior of the short one. The two are
mixed by how likely each held the latest polls to end as they did (Bayesian model averaging with a forgetting factor,
Raftery 2010). So a stable distribution is known ever better, and one that drifts or jumps is followed within some tens
of completions. The estimator is in :mod:`.hazard`.
"""

from __future__ import annotations

import math
from array import array
from itertools import pairwise
from typing import Any, Final, Self

import attrs

from .hazard import bracket, em_step, interpolate, log_logistic, resampled, smoothed

__all__ = ["TYPICAL", "CompletionTimes"]

TYPICAL: Final = {"image": 13.0, "audio": 13.0, "video": 22.0, "generation": 150.0}
"""The median time to finish of each kind before anything was learned, seconds (recorded by real clients)."""

DEFAULT_MEDIAN: Final = 13.0  # seconds: the same for any other kind
PRIOR_SHAPE: Final = 3.0  # of the log-logistic prior: 90 % within a factor of 2.7 either way, and a heavy tail
MAX_LOOKS: Final = 2048  # polls kept: 32 KiB for each kind

# For each window, the long one first; see hazard.em_step and hazard.smoothed
WINDOWS: Final = (800.0, 20.0)  # its length, in completions
PRIOR_WEIGHT: Final = (2.0, 5.0)  # the weight of its prior, in pseudo-observations,
SMOOTHING_WEIGHT: Final = (40.0, 8.0)  # and of its own smoothed hazard
SMOOTHING_WIDTH: Final = (0.05, 0.0)  # seconds; polls at the usual price are three times as far apart
SMOOTHING_BINS: Final = 3  # bins either way, at least

EARLIER_RUN_WEIGHT: Final = 30.0  # of what an earlier run learned, in pseudo-observations, at first
MIN_MIX_WEIGHT: Final = 0.02  # no window counts for less in the mixture
SCORE_DECAY: Final = 0.95  # how much of a window's score is left after one more completion
MAX_SCORED: Final = 300  # polls scored at a time; older ones would have decayed
SETTLED_AFTER: Final = 100  # completions; until then each poll says much, and refits are more frequent
REFIT_INTERVAL: Final = 0.02  # the share of the median that lies between two refits, at least
QUANTILE_KNOTS: Final = 64
MIN_MEDIAN, MAX_MEDIAN = 1e-3, 1e6  # seconds between which a median is accepted
MAX_KNOTS: Final = 1000  # of a snapshot


@attrs.define(eq=False, repr=False)
class CompletionTimes:
    """How likely an item of one kind is to have finished by an age. Build it by :meth:`of`."""

    ages: list[float]
    """The knots: seconds since acceptance, rising from 0."""
    median: float
    """Seconds."""
    _hazards: list[list[float]]
    _earlier: tuple[list[float], list[float]] | None = None
    finished: list[float] = attrs.field(factory=list, init=False)
    """The probability of having finished by each of ``ages``."""
    completed: int = attrs.field(default=0, init=False)
    """How many items were seen to finish."""
    _scores: list[float] = attrs.field(factory=lambda: [0.0] * len(WINDOWS), init=False)
    _after: array[float] = attrs.field(factory=lambda: array("d", bytes(8 * MAX_LOOKS)), init=False)
    _by: array[float] = attrs.field(factory=lambda: array("d", bytes(8 * MAX_LOOKS)), init=False)
    _seen: int = attrs.field(default=0, init=False)
    _fitted: int = attrs.field(default=0, init=False)
    _refit_after: int = attrs.field(default=2, init=False)
    _fitted_at: float = attrs.field(default=-math.inf, init=False)
    _reported: tuple[list[float], list[float]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._mix()
        self._place_knots()
        self._mix()
        self._reported = self.ages, self.finished

    @classmethod
    def of(cls, kind: str) -> Self:
        """Return the distribution that is assumed for ``kind`` before anything was learned."""
        median = TYPICAL.get(kind, DEFAULT_MEDIAN)
        ages = [0.0, *(median * math.exp(step / 16) for step in range(-64, 81))]
        return cls(ages, median, [log_logistic(ages, median, PRIOR_SHAPE)] * len(WINDOWS))

    @classmethod
    def restored(cls, snapshot: object) -> Self | None:
        """Return the distribution of an earlier run's :meth:`snapshot`, or None when it cannot be used.

        It weighs as much as some tens of completions, less with every one that is seen.
        """
        known = _read_snapshot(snapshot)
        return None if known is None else cls(known[0], DEFAULT_MEDIAN, [known[1]] * len(WINDOWS), known)

    @property
    def known(self) -> float:
        """How many completions the estimate rests on, an earlier run counted as :data:`EARLIER_RUN_WEIGHT`."""
        return self.completed + (0.0 if self._earlier is None else EARLIER_RUN_WEIGHT)

    @property
    def looks_each(self) -> float:
        """About how many polls each item took in this run."""
        return self._seen / max(10, self.completed)

    def finished_by(self, age: float) -> float:
        """Return the probability of having finished by ``age`` (seconds)."""
        return interpolate(self.ages, self.finished, max(0.0, age))

    def observe(self, after: float, by: float, *, done: bool) -> None:
        """Add one poll: pending at the age ``after``, and at the age ``by`` finished (``done``) or still pending."""
        if not 0 <= after < by < math.inf:
            after = max(0.0, after)
            by = max(by, after + 1e-6)
            if not by < math.inf:  # NaN included: a broken clock says nothing
                return
        at = self._seen % MAX_LOOKS
        self._after[at] = after
        self._by[at] = by if done else -by
        self._seen += 1
        self.completed += done

    def wants_refit(self, now: float) -> bool:
        """Return whether enough was seen, and enough time has passed, for a refit (some milliseconds)."""
        if self._seen < self._refit_after:
            return False
        least = 1.0 if self.completed >= SETTLED_AFTER else 0.25
        return now - self._fitted_at >= max(least, REFIT_INTERVAL * self.median)

    def refit(self, now: float) -> bool:
        """Fit the distribution anew. Return whether it has moved by 0.1 anywhere since this was last True."""
        self._score(min(self._seen - self._fitted, MAX_SCORED))
        self._fitted, self._fitted_at = self._seen, now
        self._refit_after = self._seen + 2 + min(self._seen // 20, 50)
        self._place_knots()
        ages, kept = self.ages, min(self._seen, MAX_LOOKS)
        looks = []
        for back in range(1, kept + 1):
            at = (self._seen - back) % MAX_LOOKS
            by = self._by[at]
            looks.append(bracket(ages, self._after[at], abs(by), done=by > 0))
        prior = log_logistic(ages, self.median, PRIOR_SHAPE)
        earlier_weight, earlier = 0.0, prior
        if self._earlier is not None:
            earlier_weight = EARLIER_RUN_WEIGHT * math.exp(-self.completed / 100)
            earlier = resampled(*self._earlier, ages)
        tunings = zip(WINDOWS, PRIOR_WEIGHT, SMOOTHING_WEIGHT, SMOOTHING_WIDTH, strict=True)
        for number, (window, weight, smoothing, width) in enumerate(tunings):
            hazard = self._hazards[number]
            smooth = smoothed(ages, hazard, SMOOTHING_BINS, width)
            prior_events = [
                weight * (prior[j + 1] - prior[j]) + earlier_weight * (earlier[j + 1] - earlier[j]) + smoothing * even
                for j, even in enumerate(smooth)
            ]
            prior_weight = weight + earlier_weight + smoothing
            prior = em_step(hazard, looks, window=window, prior_events=prior_events, prior_weight=prior_weight)
            self._hazards[number] = prior
            earlier_weight = 0.0  # the short window's prior is the long window, which already includes the snapshot
        self._mix()
        return self._moved()

    def snapshot(self) -> dict[str, Any]:
        """Return what was learned over the long window, in JSON types."""
        ages, hazard = self.ages, self._hazards[0]
        return {"ages": [float(f"{age:.6g}") for age in ages], "hazard": [float(f"{value:.6g}") for value in hazard]}

    def _score(self, fresh: int) -> None:
        """Score each window by the log-likelihood it gave to the last ``fresh`` polls."""
        ages = self.ages
        for back in range(fresh, 0, -1):
            at = (self._seen - back) % MAX_LOOKS
            after, by = self._after[at], self._by[at]
            for number, hazard in enumerate(self._hazards):
                step = interpolate(ages, hazard, abs(by)) - interpolate(ages, hazard, after)
                if by > 0:
                    # Bounded: no single poll may rule a window out.
                    gain = math.log(max(1e-4, -math.expm1(-step)))
                    self._scores[number] = SCORE_DECAY * self._scores[number] + gain
                else:
                    self._scores[number] -= step

    def _mix(self) -> None:
        best = max(self._scores)
        likelihoods = [math.exp(max(-50.0, score - best)) for score in self._scores]
        scale = (1 - len(likelihoods) * MIN_MIX_WEIGHT) / sum(likelihoods)
        weights = [MIN_MIX_WEIGHT + part * scale for part in likelihoods]
        self.finished = [
            max(0.0, 1 - sum(weight * math.exp(-value) for weight, value in zip(weights, values, strict=True)))
            for values in zip(*self._hazards, strict=True)
        ]

    def _place_knots(self) -> None:
        """Put the knots at the quantiles, and some far out on either side."""
        ages, finished, last = self.ages, self.finished, len(self.ages) - 1
        knots, j = [], 0
        median = ages[last]  # where most of even the oldest are pending, nothing is known beyond this
        for number in range(1, QUANTILE_KNOTS):
            share = number / QUANTILE_KNOTS
            while j < last and finished[j + 1] < share:
                j += 1
            if j == last:
                break
            knots.append(ages[j] + (ages[j + 1] - ages[j]) * (share - finished[j]) / (finished[j + 1] - finished[j]))
            if number == QUANTILE_KNOTS // 2:
                median = knots[-1]
        self.median = min(max(median, MIN_MEDIAN), MAX_MEDIAN)
        knots.extend(self.median * math.exp(step / 8) for step in range(-32, 41))
        self.ages = [0.0]
        for knot in sorted(knots):
            if knot > 1.003 * self.ages[-1]:
                self.ages.append(knot)
        self._hazards = [resampled(ages, hazard, self.ages) for hazard in self._hazards]

    def _moved(self) -> bool:
        then = resampled(*self._reported, self.ages)
        moved = any(abs(old - new) > 0.1 for old, new in zip(then, self.finished, strict=True))  # noqa: PLR2004 - the share that refit() documents
        if moved:
            self._reported = self.ages, self.finished
        return moved


def _read_snapshot(earlier: object) -> tuple[list[float], list[float]] | None:
    """Return the knots and the cumulative hazard of a snapshot, or None when it is not one."""
    if not isinstance(earlier, dict):
        return None
    ages, hazard = earlier.get("ages"), earlier.get("hazard")
    if not (isinstance(ages, list) and isinstance(hazard, list) and 2 <= len(ages) == len(hazard) <= MAX_KNOTS):  # noqa: PLR2004 - two points make a line
        return None
    for value in (*ages, *hazard):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:  # noqa: PLR2004 - seconds in 30 years
            return None
    rising = all(low < high for low, high in pairwise(ages))
    growing = all(low <= high for low, high in pairwise(hazard))
    if not rising or not growing or ages[0] != 0 or hazard[0] != 0 or hazard[-1] <= 0:
        return None
    return [float(age) for age in ages], [float(value) for value in hazard]
