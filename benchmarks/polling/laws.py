"""Laws of the time to active: those that the schedule was tuned on, and those that were kept aside until the end.

Each is a function of a random generator and a list of acceptance times (seconds, rising) that returns how long
each of them takes (seconds). None knows anything of the schedule.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeAlias

__all__ = ["HELD_OUT", "TUNED", "Law"]

Law: TypeAlias = Callable[[Random, Sequence[float]], list[float]]


def each(draw: Callable[[Random], float]) -> Law:
    """Return the law under which every time is drawn alone."""
    return lambda rng, accepted: [max(0.01, draw(rng)) for _ in accepted]


def scaled(sigma: float, median: Callable[[float], float]) -> Law:
    """Return a lognormal law whose median follows the share of the run that is over (0 to 1)."""
    return lambda rng, accepted: [
        median(n / len(accepted)) * math.exp(rng.gauss(0, sigma)) for n, _ in enumerate(accepted)
    ]


def queue(workers: int, service: Callable[[Random, float], float]) -> Law:
    """Return the law of a service with that many workers, first come first served."""

    def times(rng: Random, accepted: Sequence[float]) -> list[float]:
        free = [0.0] * workers
        taken = []
        for at in accepted:
            done = max(at, heapq.heappop(free)) + service(rng, at)
            heapq.heappush(free, done)
            taken.append(done - at)
        return taken

    return times


def ticks(every: float, least: float) -> Law:
    """Return the law of a batch job: what has waited ``least`` seconds is finished at the next tick."""
    return lambda _, accepted: [math.ceil((at + least) / every) * every - at for at in accepted]


def outage(law: Law, start: float, end: float) -> Law:
    """Return ``law`` with a time, in shares of the run, in which nothing finishes."""

    def times(rng: Random, accepted: Sequence[float]) -> list[float]:
        down, up = accepted[int(start * len(accepted))], accepted[int(end * len(accepted))]
        return [
            took + (up - down if at <= up and down < at + took else 0)
            for at, took in zip(accepted, law(rng, accepted), strict=True)
        ]

    return times


def mixed(*parts: tuple[float, Callable[[Random], float]]) -> Law:
    """Return a mixture, each part with its share."""
    return each(lambda rng: rng.choices([draw for _, draw in parts], [share for share, _ in parts])[0](rng))


def wandering(sigma: float, median: float, step: float) -> Law:
    """Return a lognormal law whose median goes its own way, by ``step`` (of its logarithm) an asset."""

    def times(rng: Random, accepted: Sequence[float]) -> list[float]:
        at, taken = math.log(median), []
        for _ in accepted:
            at += rng.gauss(0, step) - 0.002 * (at - math.log(median))
            taken.append(math.exp(at + rng.gauss(0, sigma)))
        return taken

    return times


TUNED: Final[dict[str, Law]] = {
    "lognormal 13 s, narrow": each(lambda rng: rng.lognormvariate(math.log(13), 0.25)),
    "lognormal 13 s, broad": each(lambda rng: rng.lognormvariate(math.log(13), 0.8)),
    "gamma 13 s, shape 4": each(lambda rng: rng.gammavariate(4, 13 / 4)),
    "Weibull 15 s, shape 1.5": each(lambda rng: rng.weibullvariate(15, 1.5)),
    "exponential 10 s": each(lambda rng: rng.expovariate(1 / 10)),
    "uniform 8-25 s": each(lambda rng: rng.uniform(8, 25)),
    "two humps, 6 s and 25 s": mixed((0.7, lambda rng: rng.gauss(6, 0.5)), (0.3, lambda rng: rng.gauss(25, 2))),
    "nearly fixed 13 s": each(lambda rng: rng.gauss(13, 0.15)),
    "Pareto from 5 s, index 1.5": each(lambda rng: 5 * rng.paretovariate(1.5)),
    "minutes, lognormal 150 s": each(lambda rng: rng.lognormvariate(math.log(150), 0.5)),
    "lognormal 2 s": each(lambda rng: rng.lognormvariate(math.log(2), 0.4)),
    "drift 8 s to 30 s": scaled(0.25, lambda done: 8 * (30 / 8) ** done),
    "sudden 25 s to 6 s": scaled(0.25, lambda done: 25 if done < 0.5 else 6),
    "sudden 8 s to 30 s": scaled(0.25, lambda done: 8 if done < 0.5 else 30),
    "sudden 100 s to 30 s": scaled(0.25, lambda done: 100 if done < 0.5 else 30),
    "queue of 30 workers": queue(30, lambda rng, _: rng.lognormvariate(math.log(6), 0.2)),
    "batch every 20 s": ticks(20, 5),
}

HELD_OUT: Final[dict[str, Law]] = {
    "lognormal 18 s": each(lambda rng: rng.lognormvariate(math.log(18), 0.4)),
    "log-logistic 11 s, shape 3": each(lambda rng: 11 * (1 / max(1e-9, rng.random()) - 1) ** (1 / 3)),
    "gamma 30 s, shape 1.3": each(lambda rng: rng.gammavariate(1.3, 30 / 1.3)),
    "Weibull 20 s, shape 4": each(lambda rng: rng.weibullvariate(20, 4)),
    "Weibull 12 s, shape 0.7": each(lambda rng: rng.weibullvariate(12, 0.7)),
    "triangular 5-9-40 s": each(lambda rng: rng.triangular(5, 40, 9)),
    "three humps, 4, 12 and 40 s": mixed(
        (0.4, lambda rng: rng.gauss(4, 0.3)), (0.4, lambda rng: rng.gauss(12, 1)), (0.2, lambda rng: rng.gauss(40, 3))
    ),
    "nearly fixed 95 s": each(lambda rng: rng.gauss(95, 1)),
    "12 s and exponential 3 s": each(lambda rng: 12 + rng.expovariate(1 / 3)),
    "Pareto from 8 s, index 1.1": each(lambda rng: 8 * rng.paretovariate(1.1)),
    "minutes, gamma 240 s, shape 2": each(lambda rng: rng.gammavariate(2, 120)),
    "nine at 3 s, one at 180 s": mixed(
        (0.9, lambda rng: rng.lognormvariate(math.log(3), 0.3)),
        (0.1, lambda rng: rng.lognormvariate(math.log(180), 0.3)),
    ),
    "waves 8-24 s": scaled(0.2, lambda done: 14 * math.exp(0.55 * math.sin(6 * math.pi * done))),
    "sudden 10 s, 40 s, 10 s": scaled(0.3, lambda done: 40 if 0.33 < done < 0.67 else 10),
    "sudden 150 s to 40 s": scaled(0.3, lambda done: 150 if done < 0.5 else 40),
    "wandering about 15 s": wandering(0.2, 15, 0.02),
    "queue under a changing load": queue(
        40, lambda rng, at: rng.lognormvariate(math.log(7.0 + 1.5 * math.sin(at / 60)), 0.3)
    ),
    "outage of a tenth of the run": outage(each(lambda rng: rng.gammavariate(9, 14 / 9)), 0.5, 0.6),
    "under a second": each(lambda rng: rng.uniform(0.1, 0.9)),
}
