"""When to look next, given the law of the time to finish: the cheapest sequence of looks. Pure.

A look costs a *price*; while something is finished and nobody knows, time costs its own length. For a known
law the best sequence of look times is a dynamic program over ages, solved from the oldest age down: what
remains to be paid by something that is still pending at one age is the least, over the next look, of the price,
the delay expected up to that look and what remains to be paid from there.

The delay is not counted by its length alone but with a square term, so that a long wait costs more than two
of half its length: the plan of least mean delay lets a few wait very long where the law is thin.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Self

import attrs

__all__ = ["Plan"]


@attrs.frozen(kw_only=True)
class Plan:
    """A table of ages and, for something pending at each of them, the age at which to look next.

    :ivar ages: seconds since acceptance, rising from 0.
    :ivar looks: seconds since acceptance, each later than its age.
    """

    ages: Sequence[float]
    looks: Sequence[float]

    def next_look(self, age: float) -> float:
        """Return the age (seconds) of the next look at something that was still pending at ``age``."""
        ages, looks = self.ages, self.looks
        at = bisect_right(ages, age) - 1
        if at + 1 >= len(ages):  # older than anything planned for: keep the last distance
            return age + looks[-1] - ages[-1]
        if at < 0:
            return looks[0]
        share = (age - ages[at]) / (ages[at + 1] - ages[at])
        ahead = looks[at] + share * (looks[at + 1] - looks[at])
        # Between two knots the interpolated look can fall on the age itself only by rounding.
        return ahead if ahead > age else ages[at + 1]

    @classmethod
    def solve(cls, ages: Sequence[float], finished: Sequence[float], price: float, dread: float) -> Self:
        """Return the best plan for a law.

        :param ages: the knots, seconds, rising from 0; looks are planned at knots.
        :param finished: the chance to have finished by each knot, from 0 to (nearly) 1; even within a knot.
        :param price: seconds of delay that one look is worth.
        :param dread: seconds; a delay of this length costs twice its length.
        """
        last = len(ages) - 1
        # With F the law, a look at b after one at a costs the integral over (a, b) of (b-u) + (b-u)²/dread.
        # Written out it needs F and its first two moments up to each knot.
        first, second = [0.0], [0.0]
        for k in range(last):
            low, high, mass = ages[k], ages[k + 1], finished[k + 1] - finished[k]
            first.append(first[-1] + mass * (low + high) / 2)
            second.append(second[-1] + mass * (low * low + low * high + high * high) / 3)
        slope = [1 + 2 * age / dread for age in ages]
        height = [age + age * age / dread for age in ages]
        remaining = [0.0] * (last + 1)
        chosen = [last] * (last + 1)
        # What stands at k alone: height[k]*F[k] - slope[k]*first[k] + second[k]/dread + remaining[k]
        alone = [0.0] * (last + 1)
        alone[last] = height[last] * finished[last] - slope[last] * first[last] + second[last] / dread
        for j in range(last - 1, -1, -1):
            done, moment = finished[j], first[j]
            best, best_at = float("inf"), last
            # The cost of a look is convex in how long it is put off, so the best next look never moves back as
            # the age moves on: nothing beyond the choice of the next older age needs trying.
            for k in range(j + 1, chosen[j + 1] + 1):
                cost = alone[k] - height[k] * done + slope[k] * moment
                if cost < best:
                    best, best_at = cost, k
            chosen[j] = best_at
            remaining[j] = best - second[j] / dread + price * (1 - done)
            alone[j] = height[j] * done - slope[j] * moment + second[j] / dread + remaining[j]
        looks = [ages[k] for k in chosen]
        looks[last] = ages[last] + (ages[last] - ages[last - 1])
        return cls(ages=ages, looks=looks)
