"""The hazard of finishing, fitted to looks that only bracket when something finished. Pure.

A law is held as its cumulated hazard at rising ages (*knots*): minus the logarithm of the chance to be pending
still. Between knots it is a straight line. A look that left at one age, after an earlier one that found the
same item pending, tells either that it was pending all the while or that it finished somewhere in between.

The fit is one step of expectation-maximisation for such interval-censored, left-truncated data (Turnbull 1976):
how many are expected to have finished within each bin, over how many are expected to have entered it. Every
look counts by itself, not every item from its beginning, so what is still pending tells as much, for its
age, as what is finished, and old looks can be forgotten without a bias. Only one step is made from one fit to
the next: run to its end, the same procedure fits the noise as spikes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["Bracket", "assumed", "at_age", "bracket", "em_step", "resampled", "smoothed"]

Bracket: TypeAlias = tuple[bool, int, float, int, float]
"""Whether it finished, then the bin and the share of that bin where the look's stretch begins, and where it ends."""

_TRIFLE = 0.02  # a look of less weight than this is not worth counting, nor any older one
_SLOWEST = 1e-6  # a second: no rate is taken to be less
_CERTAIN = 50.0  # the hazard of one bin is at most this: who enters it finishes in it


def assumed(ages: Sequence[float], median: float, shape: float) -> list[float]:
    """Return the cumulated hazard of a log-logistic law: its tail is as heavy as a power of ``-shape``."""
    return [math.log1p((age / median) ** shape) for age in ages]


def at_age(ages: Sequence[float], values: Sequence[float], age: float) -> float:
    """Return the value at ``age`` of the line through ``values`` at ``ages``; the last one beyond them."""
    at = bisect_right(ages, age) - 1
    if at + 1 >= len(ages):
        return values[-1]
    share = (age - ages[at]) / (ages[at + 1] - ages[at])
    return values[at] + share * (values[at + 1] - values[at])


def resampled(ages: Sequence[float], values: Sequence[float], to: Sequence[float]) -> list[float]:
    """Return the line through ``values`` at ``ages`` read at the rising ages ``to``, drawn on beyond its end."""
    out, at, last = [], 0, len(ages) - 2
    for age in to:
        while at < last and ages[at + 1] < age:
            at += 1
        low, high = ages[at], ages[at + 1]
        out.append(values[at] + (values[at + 1] - values[at]) * (age - low) / (high - low))
    return out


def smoothed(ages: Sequence[float], hazard: Sequence[float], span: int, blur: float = 0.0) -> list[float]:
    """Return the hazard of each bin, were it spread evenly over that bin and some more on either side.

    :param span: how many more, at least.
    :param blur: seconds; spread over all within ``sqrt(blur / rate)`` of the middle of the bin, with the rate (a
        second) at which items finish there. Looks lie apart by a multiple of that: they tell nothing finer.
    """
    last = len(ages) - 1
    out = []
    for j in range(last):
        low, high = max(0, j - span), min(last, j + 1 + span)
        if blur:
            rate = (hazard[high] - hazard[low]) / (ages[high] - ages[low])
            middle, reach = (ages[j] + ages[j + 1]) / 2, math.sqrt(blur / max(rate, _SLOWEST))
            while low > 0 and ages[low] > middle - reach:
                low -= 1
            while high < last and ages[high] < middle + reach:
                high += 1
        out.append((hazard[high] - hazard[low]) * (ages[j + 1] - ages[j]) / (ages[high] - ages[low]))
    return out


def bracket(ages: Sequence[float], after: float, by: float, *, done: bool) -> Bracket:
    """Return where the stretch from ``after`` to ``by`` (ages, seconds) begins and ends among the knots ``ages``."""
    last = len(ages) - 1
    j = bisect_right(ages, after) - 1
    k = bisect_right(ages, by, j) - 1
    if k >= last:
        k, share = last - 1, 1.0
        if j >= last:
            return done, k, 1.0, k, 1.0
    else:
        share = (by - ages[k]) / (ages[k + 1] - ages[k])
    return done, j, (after - ages[j]) / (ages[j + 1] - ages[j]), k, share


def em_step(
    hazard: Sequence[float],
    looks: Sequence[Bracket],
    *,
    memory: float,
    believed: Sequence[float],
    doubt: float,
) -> list[float]:
    """Return the cumulated hazard that looks make of ``hazard``.

    :param hazard: the cumulated hazard so far, at the knots.
    :param looks: newest first.
    :param memory: how many completions make a look count a third (1/e) of what the newest does.
    :param believed: for each bin, how many of ``doubt`` imagined items that enter it finish in it.
    :param doubt: how many such items are imagined: the weight of what was believed before.
    """
    last = len(hazard) - 1
    # A stretch adds the same to every bin that it covers: noted as a step up where it begins and one down where it
    # ends, summed at the end. ``entered``: found pending throughout. For what finished, by the weight over the
    # chance of its stretch: ``share`` itself, and ``beyond`` times the chance to be pending at the stretch's end.
    entered, share, beyond = ([0.0] * (last + 2) for _ in range(3))
    exp = math.exp
    weight, fade = 1.0, exp(-1 / memory)
    for done, j, from_, k, to in looks:
        if not done:
            entered[j] += weight * (1 - from_)
            entered[j + 1] += weight * from_
            entered[k] -= weight * (1 - to)
            entered[k + 1] -= weight * to
            continue
        pending = exp(-hazard[k] - to * (hazard[k + 1] - hazard[k]))
        chance = exp(-hazard[j] - from_ * (hazard[j + 1] - hazard[j])) - pending
        part = weight / max(1e-9, chance)
        share[j] += part * (1 - from_)
        share[j + 1] += part * from_
        share[k] -= part * (1 - to)
        share[k + 1] -= part * to
        part *= pending
        beyond[j] += part * (1 - from_)
        beyond[j + 1] += part * from_
        beyond[k] -= part * (1 - to)
        beyond[k + 1] -= part * to
        weight *= fade
        if weight < _TRIFLE:
            break
    out = [0.0]
    whole = passed = late = total = 0.0
    before = exp(-hazard[0])
    for j in range(last):
        whole += entered[j]
        passed += share[j]
        late += beyond[j]
        after = exp(-hazard[j + 1])
        step = hazard[j + 1] - hazard[j]
        finishing = before - after
        # The mean chance to be pending, over the bin: what finishes within it was exposed for a part of it.
        mean = finishing / step if step > 1e-6 else before  # noqa: PLR2004 - below it the quotient is rounding
        events = max(0.0, passed * finishing)
        exposed = max(whole + passed * mean - late, events / _CERTAIN, 0.0)
        total += (events + believed[j]) / (exposed + doubt)
        out.append(total)
        before = after
    return out
