"""Plans when to poll next, given the distribution of the time to finish: the cheapest sequence of polls. Pure.

A poll costs its *price*; the time from finishing to the poll that finds it costs its own length. For a known
distribution the best sequence of polls is a dynamic program over ages, solved from the oldest age down: the cost that
remains for an item still pending at one age is the minimum, over the age of the next poll, of the price, the expected
delay up to that poll, and the cost that remains from there. The next poll never moves back as the age rises (the costs
are a Monge array: Aggarwal et al. 1987), which makes the search short.

The delay counts with a square term, so that one long delay costs more than two of half its length: the plan of the
least mean delay would let a few items wait very long where the distribution is thin.

Where the hazard is constant, polls are ``sqrt(2 * price / hazard)`` apart. What takes a hundred times as long is polled
ten times as often in all and found ten times as late, so the price needs no change from seconds to minutes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Self

import attrs

__all__ = ["PollPlan"]

KNOTS_PER_LOOK = 8
MAX_PARTS = 32  # that one bin is split into


@attrs.frozen(kw_only=True)
class PollPlan:
    """A table of ages and, for an item pending at each of them, the age at which to poll next."""

    ages: Sequence[float]
    """Seconds since acceptance, rising from 0."""
    looks: Sequence[float]
    """The age of the next poll for each of ``ages``, later than that age."""
    gaps: Sequence[float]
    """Seconds from each of these polls to the one after it."""

    def next_look(self, age: float, jitter: float = 0.0) -> float:
        """Return the age (seconds) of the next poll of an item that was still pending at ``age``.

        :param jitter: delays the poll by this share of the gap to the poll after it; may be negative.
        """
        ages = self.ages
        at = bisect_right(ages, age) - 1
        if at + 1 >= len(ages):  # older than the plan reaches: keep the last gap
            return age + self.gaps[-1] * (1 + jitter)
        low, look = ages[at], self.looks[at]
        look_at = look + (age - low) / (ages[at + 1] - low) * (self.looks[at + 1] - look) + jitter * self.gaps[at]
        # Negative jitter, or rounding, can put it at the age itself.
        return look_at if look_at > age else ages[at + 1]

    @classmethod
    def solve(cls, ages: Sequence[float], finished: Sequence[float], price: float, delay_scale: float) -> Self:
        """Return the best plan for a distribution.

        :param ages: seconds, rising from 0.
        :param finished: the probability of having finished by each of them, from 0 to (nearly) 1; linear in between.
        :param price: seconds of delay that one poll is worth.
        :param delay_scale: seconds; a delay of this length costs twice its length.
        """
        ages, finished = _refined(ages, finished, price)
        last = len(ages) - 1
        # With F the distribution, a poll at b after one at a costs the integral dF(u) over (a, b) of
        # (b-u) + (b-u)²/delay_scale. Multiplied out it splits into a part of a, a part of b, and two products of one
        # factor each; the sum of the squares of u is the same for every plan.
        slope = [1 + 2 * age / delay_scale for age in ages]
        height = [age + age * age / delay_scale for age in ages]
        moments = [0.0]
        for low, high, done, then in zip(ages, ages[1:], finished, finished[1:], strict=False):
            moments.append(moments[-1] + (then - done) * (low + high) / 2)
        chosen = [last] * (last + 1)
        from_here = [0.0] * (last + 1)  # the part of the cost that depends on this age alone
        for j in range(last - 1, -1, -1):
            done, moment = finished[j], moments[j]
            least, best = math.inf, last
            # A Monge array: nothing beyond the choice of the next older age can be better.
            for k in range(j + 1, chosen[j + 1] + 1):
                cost = from_here[k] - height[k] * done + slope[k] * moment
                if cost < least:
                    least, best = cost, k
            chosen[j] = best
            from_here[j] = least + price * (1 - done) + height[j] * done - slope[j] * moment
        looks = [ages[k] for k in chosen]
        looks[last] = ages[last] + (ages[last] - ages[last - 1])
        return cls(ages=ages, looks=looks, gaps=[looks[k] - ages[k] for k in chosen])


def _refined(ages: Sequence[float], finished: Sequence[float], price: float) -> tuple[list[float], list[float]]:
    """Return the distribution with so many knots that some fall between any two polls."""
    fine, chances = [ages[0]], [finished[0]]
    for low, high, done, then in zip(ages, ages[1:], finished, finished[1:], strict=False):
        # Where the hazard is constant, the best polls are sqrt(2 * price / hazard) apart.
        apart = math.sqrt((then - done) * (high - low) / (2 * price * max(1e-9, 1 - done)))
        parts = min(MAX_PARTS, 1 + int(KNOTS_PER_LOOK * apart))
        for part in range(1, parts + 1):
            fine.append(low + (high - low) * part / parts)
            chances.append(done + (then - done) * part / parts)
    return fine, chances
