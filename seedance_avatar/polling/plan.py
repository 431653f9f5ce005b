"""When to look next, given the law of the time to finish: the cheapest sequence of looks. Pure.

A look costs a *price*; while something is finished and nobody knows, time costs its own length. For a known
law the best sequence of look times is a dynamic program over ages, solved from the oldest age down: what
remains to be paid by something that is still pending at one age is the least, over the next look, of the price,
the delay expected up to that look and what remains to be paid from there.

The delay is not counted by its length alone but with a square term, so that a long wait costs more than two
of half its length: the plan of least mean delay lets a few wait very long where the law is thin.

Where the hazard is even, looks lie ``sqrt(2 * price / hazard)`` apart. So what takes a hundred times as long costs ten
times the looks and is known ten times as late: the price needs no change from seconds to minutes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Self

import attrs

__all__ = ["PollPlan"]

_KNOTS_A_LOOK = 8
_MOST_PARTS = 32  # of one bin


@attrs.frozen(kw_only=True)
class PollPlan:
    """A table of ages and, for something pending at each of them, the age at which to look next.

    :ivar ages: seconds since acceptance, rising from 0.
    :ivar looks: seconds since acceptance, each later than its age.
    :ivar rooms: seconds from each of these looks to the one that would follow it.
    """

    ages: Sequence[float]
    looks: Sequence[float]
    rooms: Sequence[float]

    def next_look(self, age: float, strewn: float = 0.0) -> float:
        """Return the age (seconds) of the next look at something that was still pending at ``age``.

        :param strewn: the share of the distance from that look to the one after it by which to look later.
        """
        ages = self.ages
        at = bisect_right(ages, age) - 1
        if at + 1 >= len(ages):  # older than anything planned for: keep the last distance
            return age + self.rooms[-1] * (1 + strewn)
        low, look = ages[at], self.looks[at]
        ahead = look + (age - low) / (ages[at + 1] - low) * (self.looks[at + 1] - look) + strewn * self.rooms[at]
        # Strewn before the look, or rounded, it can fall on the age itself.
        return ahead if ahead > age else ages[at + 1]

    @classmethod
    def solve(cls, ages: Sequence[float], finished: Sequence[float], price: float, dread: float) -> Self:
        """Return the best plan for a law.

        :param ages: seconds, rising from 0.
        :param finished: the chance to have finished by each of them, from 0 to (nearly) 1; evenly in between.
        :param price: seconds of delay that one look is worth.
        :param dread: seconds; a delay of this length costs twice its length.
        """
        ages, finished = _refined(ages, finished, price)
        last = len(ages) - 1
        # With F the law, a look at b after one at a costs the integral over (a, b) of (b-u) + (b-u)²/dread.
        # Multiplied out it falls into what belongs to a, to b, and two products of one each; the squares of u add
        # up to the same whatever the plan.
        slope = [1 + 2 * age / dread for age in ages]
        height = [age + age * age / dread for age in ages]
        moments = [0.0]
        for low, high, done, then in zip(ages, ages[1:], finished, finished[1:], strict=False):
            moments.append(moments[-1] + (then - done) * (low + high) / 2)
        chosen = [last] * (last + 1)
        alone = [0.0] * (last + 1)  # what a look costs whatever the age from which it is planned; all end at the last
        for j in range(last - 1, -1, -1):
            done, moment = finished[j], moments[j]
            least, best = math.inf, last
            # The cost of a delay rises with its length, so the best next look never moves back as the age moves on
            # (the costs are a Monge array): nothing beyond the choice of the next older age needs trying.
            for k in range(j + 1, chosen[j + 1] + 1):
                cost = alone[k] - height[k] * done + slope[k] * moment
                if cost < least:
                    least, best = cost, k
            chosen[j] = best
            alone[j] = least + price * (1 - done) + height[j] * done - slope[j] * moment
        looks = [ages[k] for k in chosen]
        looks[last] = ages[last] + (ages[last] - ages[last - 1])
        return cls(ages=ages, looks=looks, rooms=[looks[k] - ages[k] for k in chosen])


def _refined(ages: Sequence[float], finished: Sequence[float], price: float) -> tuple[list[float], list[float]]:
    """Return the law with knots so dense that some fall between any two looks."""
    fine, chances = [ages[0]], [finished[0]]
    for low, high, done, then in zip(ages, ages[1:], finished, finished[1:], strict=False):
        # Where the hazard is even, the best looks lie sqrt(2 * price / hazard) apart.
        apart = math.sqrt((then - done) * (high - low) / (2 * price * max(1e-9, 1 - done)))
        parts = min(_MOST_PARTS, 1 + int(_KNOTS_A_LOOK * apart))
        for part in range(1, parts + 1):
            fine.append(low + (high - low) * part / parts)
            chances.append(done + (then - done) * part / parts)
    return fine, chances
