"""The law of the time to finish, one for each kind of item: assumed at first, then learned from every look. Pure.

Two memories look back over different lengths, the short one leaning on the long one; how much each is
believed follows from how well it foretold the last looks. So a law that holds is known ever better, and one that
drifts or jumps is followed within some tens of completions.
"""

from __future__ import annotations

import math
from array import array
from itertools import pairwise
from typing import Any, Final, Self

import attrs

from .hazard import assumed, at_age, bracket, em_step, resampled, smoothed

__all__ = ["TYPICAL", "CompletionTimes"]

TYPICAL: Final = {"image": 13.0, "audio": 13.0, "video": 22.0, "generation": 150.0}
"""Seconds, the median time to finish of each kind before anything was learned (as real clients recorded it)."""

_OTHERWISE: Final = 13.0  # seconds, the same for a kind that nobody has heard of
_SHAPE: Final = 3.0  # of the law assumed at first: 90 % within a factor of 2.7 either way, and a heavy tail
_LOOKS: Final = 2048  # how many looks are kept: 32 KiB a kind
_MEMORIES: Final = (800.0, 20.0)  # completions, longest first: see survival.fitted
PRIOR_WEIGHT: Final = (2.0, 5.0)  # how many imagined items each memory takes from what it leans on
_EVENING: Final = (40.0, 8.0)  # and from its own neighbouring bins
_SPAN: Final = 3  # bins either way, at least
_BLUR: Final = (0.05, 0.0)  # seconds: see survival.evened; looks at the usual price lie three times as far apart
_TRUST: Final = 30.0  # how many imagined items an earlier run is worth at first
_LEAST_WEIGHT: Final = 0.02  # no memory is believed less
_RECALL: Final = 0.95  # how much of a memory's score outlives one more completion
_SCORED: Final = 300  # looks: what came before them would have faded from the score
_SETTLED: Final = 100  # completions, until which every look tells much
_PAUSE: Final = 0.02  # the share of the median that lies between two fits at least: what has jumped is heard of soon
_QUANTILES: Final = 64
_SHORTEST, _LONGEST = 1e-3, 1e6  # seconds between which a median is believed
_MOST_KNOTS: Final = 1000


@attrs.define(eq=False, repr=False)
class CompletionTimes:
    """How likely something of one kind is to have finished by an age. Build it by :meth:`of`.

    :ivar ages: the knots, seconds since acceptance, rising from 0.
    :ivar finished: the chance to have finished by each of them.
    :ivar median: seconds.
    :ivar completed: how many were seen to finish.
    """

    ages: list[float]
    median: float
    _hazards: list[list[float]]
    _earlier: tuple[list[float], list[float]] | None = None
    finished: list[float] = attrs.field(factory=list, init=False)
    completed: int = attrs.field(default=0, init=False)
    _scores: list[float] = attrs.field(factory=lambda: [0.0] * len(_MEMORIES), init=False)
    _after: array[float] = attrs.field(factory=lambda: array("d", bytes(8 * _LOOKS)), init=False)
    _by: array[float] = attrs.field(factory=lambda: array("d", bytes(8 * _LOOKS)), init=False)
    _seen: int = attrs.field(default=0, init=False)
    _fitted: int = attrs.field(default=0, init=False)
    _refit_after: int = attrs.field(default=2, init=False)
    _fitted_at: float = attrs.field(default=-math.inf, init=False)
    _noted: tuple[list[float], list[float]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._mix()
        self._place_knots()
        self._mix()
        self._noted = self.ages, self.finished

    @classmethod
    def of(cls, kind: str) -> Self:
        """Return what is known of ``kind`` before anything was learned."""
        median = TYPICAL.get(kind, _OTHERWISE)
        ages = [0.0, *(median * math.exp(step / 16) for step in range(-64, 81))]
        return cls(ages, median, [assumed(ages, median, _SHAPE)] * len(_MEMORIES))

    @classmethod
    def restored(cls, snapshot: object) -> Self | None:
        """Return the law of an earlier run's :meth:`snapshot`, or None when that cannot be used.

        It is believed like some tens of completions, less with every one that is seen.
        """
        known = _readable(snapshot)
        return None if known is None else cls(known[0], _OTHERWISE, [known[1]] * len(_MEMORIES), known)

    @property
    def known(self) -> float:
        """How many completions that were seen what is known is worth."""
        return self.completed + (0.0 if self._earlier is None else _TRUST)

    @property
    def looks_each(self) -> float:
        """How many looks each item took, about, in this run."""
        return self._seen / max(10, self.completed)

    def finished_by(self, age: float) -> float:
        """Return the chance to have finished by ``age`` (seconds)."""
        return at_age(self.ages, self.finished, max(0.0, age))

    def observe(self, after: float, by: float, *, done: bool) -> None:
        """Take in one look: pending at the age ``after``, and at the age ``by`` finished (``done``) or pending."""
        if not 0 <= after < by < math.inf:
            after = max(0.0, after)
            by = max(by, after + 1e-6)
            if not by < math.inf:  # not a number included: a broken clock teaches nothing
                return
        at = self._seen % _LOOKS
        self._after[at] = after
        self._by[at] = by if done else -by
        self._seen += 1
        self.completed += done

    def wants_refit(self, now: float) -> bool:
        """Return whether so much was seen, and so much time has passed, that a refit (some ms) is worth it."""
        if self._seen < self._refit_after:
            return False
        least = 1.0 if self.completed >= _SETTLED else 0.25
        return now - self._fitted_at >= max(least, _PAUSE * self.median)

    def refit(self, now: float) -> bool:
        """Learn from what was observed. Return whether the law has moved by a tenth since it last was said to."""
        self._score(min(self._seen - self._fitted, _SCORED))
        self._fitted, self._fitted_at = self._seen, now
        self._refit_after = self._seen + 2 + min(self._seen // 20, 50)
        self._place_knots()
        ages, kept = self.ages, min(self._seen, _LOOKS)
        looks = []
        for back in range(1, kept + 1):
            at = (self._seen - back) % _LOOKS
            by = self._by[at]
            looks.append(bracket(ages, self._after[at], abs(by), done=by > 0))
        leant_on = assumed(ages, self.median, _SHAPE)
        trust, trusted = 0.0, leant_on
        if self._earlier is not None:
            trust, trusted = _TRUST * math.exp(-self.completed / 100), resampled(*self._earlier, ages)
        tunings = zip(_MEMORIES, PRIOR_WEIGHT, _EVENING, _BLUR, strict=True)
        for number, (memory, leaning, evening, blur) in enumerate(tunings):
            hazard = self._hazards[number]
            even = smoothed(ages, hazard, _SPAN, blur)
            believed = [
                leaning * (leant_on[j + 1] - leant_on[j]) + trust * (trusted[j + 1] - trusted[j]) + evening * even[j]
                for j in range(len(even))
            ]
            doubt = leaning + trust + evening
            leant_on = em_step(hazard, looks, memory=memory, believed=believed, doubt=doubt)
            self._hazards[number] = leant_on
            trust = 0.0  # the short memory leans on the long one, which has heard of it
        self._mix()
        return self._moved()

    def snapshot(self) -> dict[str, Any]:
        """Return what was learned over the long memory, as JSON can hold it."""
        ages, hazard = self.ages, self._hazards[0]
        return {"ages": [float(f"{age:.6g}") for age in ages], "hazard": [float(f"{value:.6g}") for value in hazard]}

    def _score(self, fresh: int) -> None:
        """Judge each memory by how likely it held the last ``fresh`` looks to end as they did."""
        ages = self.ages
        for back in range(fresh, 0, -1):
            at = (self._seen - back) % _LOOKS
            after, by = self._after[at], self._by[at]
            for number, hazard in enumerate(self._hazards):
                step = at_age(ages, hazard, abs(by)) - at_age(ages, hazard, after)
                if by > 0:
                    # No single look may condemn a memory for good.
                    gain = math.log(max(1e-4, -math.expm1(-step)))
                    self._scores[number] = _RECALL * self._scores[number] + gain
                else:
                    self._scores[number] -= step

    def _mix(self) -> None:
        best = max(self._scores)
        trust = [math.exp(max(-50.0, score - best)) for score in self._scores]
        scale = (1 - len(trust) * _LEAST_WEIGHT) / sum(trust)
        weights = [_LEAST_WEIGHT + part * scale for part in trust]
        self.finished = [
            max(0.0, 1 - sum(weight * math.exp(-value) for weight, value in zip(weights, values, strict=True)))
            for values in zip(*self._hazards, strict=True)
        ]

    def _place_knots(self) -> None:
        """Put the knots where the law has its mass, and some far out on either side."""
        ages, finished, last = self.ages, self.finished, len(self.ages) - 1
        knots, j = [], 0
        median = ages[last]  # where even the oldest are pending mostly, what is known reaches no further than this
        for number in range(1, _QUANTILES):
            share = number / _QUANTILES
            while j < last and finished[j + 1] < share:
                j += 1
            if j == last:
                break
            knots.append(ages[j] + (ages[j + 1] - ages[j]) * (share - finished[j]) / (finished[j + 1] - finished[j]))
            if number == _QUANTILES // 2:
                median = knots[-1]
        self.median = min(max(median, _SHORTEST), _LONGEST)
        knots.extend(self.median * math.exp(step / 8) for step in range(-32, 41))
        placed = [0.0]
        for knot in sorted(knots):
            if knot > 1.003 * placed[-1]:
                placed.append(knot)
        self._hazards = [resampled(ages, hazard, placed) for hazard in self._hazards]
        self.ages = placed

    def _moved(self) -> bool:
        then = resampled(*self._noted, self.ages)
        moved = any(abs(old - new) > 0.1 for old, new in zip(then, self.finished, strict=True))  # noqa: PLR2004 - said in refit
        if moved:
            self._noted = self.ages, self.finished
        return moved


def _readable(earlier: object) -> tuple[list[float], list[float]] | None:
    """Return the knots and the cumulated hazard of a snapshot, or None when it is not one."""
    if not isinstance(earlier, dict):
        return None
    ages, hazard = earlier.get("ages"), earlier.get("hazard")
    if not (isinstance(ages, list) and isinstance(hazard, list) and 2 <= len(ages) == len(hazard) <= _MOST_KNOTS):  # noqa: PLR2004 - a line
        return None
    for value in (*ages, *hazard):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:  # noqa: PLR2004 - seconds in 30 years
            return None
    rising = all(low < high for low, high in pairwise(ages))
    growing = all(low <= high for low, high in pairwise(hazard))
    if not rising or not growing or ages[0] != 0 or hazard[0] != 0 or hazard[-1] <= 0:
        return None
    return [float(age) for age in ages], [float(value) for value in hazard]
