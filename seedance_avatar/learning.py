"""The law of the time to finish, one for each kind of thing: what is known of it before and after looking. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final

import attrs

__all__ = ["Law"]

TYPICAL: Final = {"image": 13.0, "audio": 13.0, "video": 22.0, "generation": 150.0}
"""Seconds, the median time to finish of each kind before anything was learned (recorded by real clients)."""

_SHAPE: Final = 4.0  # of the log-logistic law that is assumed at first: 90 % within a factor of 2.1 either way


@attrs.define(eq=False)
class Law:
    """How likely something of one kind is to have finished by an age. Build it by :meth:`of`.

    :ivar ages: seconds since acceptance, rising from 0.
    :ivar finished: the chance to have finished by each of them.
    """

    ages: list[float]
    finished: list[float]

    @classmethod
    def of(cls, kind: str) -> Law:
        """Return what is known of ``kind`` before anything was learned."""
        median = TYPICAL.get(kind, 13.0)
        ages = [0.0, *(median * math.exp(step / 16) for step in range(-48, 97))]
        return cls(ages, [0.0, *(1 / (1 + (median / age) ** _SHAPE) for age in ages[1:])])

    def finished_by(self, age: float) -> float:
        """Return the chance to have finished by ``age`` (seconds)."""
        ages, finished = self.ages, self.finished
        at = bisect_right(ages, age) - 1
        if at + 1 >= len(ages):
            return finished[-1]
        share = (age - ages[at]) / (ages[at + 1] - ages[at])
        return finished[at] + share * (finished[at + 1] - finished[at])

    def observe(self, after: float, by: float) -> None:
        """Take in that one finished between the ages ``after`` and ``by`` (seconds)."""
