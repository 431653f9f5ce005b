"""Estimates the hazard of finishing from polls, which only bracket when an item finished. Pure.

A distribution is held as its cumulative hazard at rising ages (*knots*): minus the logarithm of the probability of
being still pending. Between knots it is linear. A poll at one age, after an earlier one that found the same item
pending, says either that the item was pending in all of that interval or that it finished within it.

The estimate is one step of expectation maximisation for such interval-censored, left-truncated data (Turnbull 1976):
the expected number of items that finished within each bin, over the expected number that entered it. Every poll counts
by itself, not every item from its beginning, so items that are still pending count up to their age, and old polls can
be forgotten without a bias. Only one step is made at each refit: run to convergence, the procedure fits the noise.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["Bracket", "bracket", "em_step", "interpolate", "log_logistic", "resampled", "smoothed"]

Bracket: TypeAlias = tuple[bool, int, float, int, float]
"""Whether it finished; the bin, and the share of that bin, where the poll's interval begins; and where it ends."""

MIN_LOOK_WEIGHT = 0.02  # polls of less weight are skipped, and so are all older ones
MIN_RATE = 1e-6  # 1/s: no rate is taken to be lower
MAX_BIN_HAZARD = 50.0  # the hazard of one bin is at most this: all that enter it finish in it


def log_logistic(ages: Sequence[float], median: float, shape: float) -> list[float]:
    """Return the cumulative hazard of a log-logistic distribution, whose tail is a power of ``-shape``."""
    return [math.log1p((age / median) ** shape) for age in ages]


def interpolate(ages: Sequence[float], values: Sequence[float], age: float) -> float:
    """Return ``values`` at ``ages``, interpolated linearly at ``age``; beyond the last age, the last value."""
    at = bisect_right(ages, age) - 1
    if at + 1 >= len(ages):
        return values[-1]
    share = (age - ages[at]) / (ages[at + 1] - ages[at])
    return values[at] + share * (values[at + 1] - values[at])


def resampled(ages: Sequence[float], values: Sequence[float], to: Sequence[float]) -> list[float]:
    """Return ``values`` at ``ages``, interpolated linearly at the rising ages ``to`` and extrapolated at the end."""
    out, at, last = [], 0, len(ages) - 2
    for age in to:
        while at < last and ages[at + 1] < age:
            at += 1
        low, high = ages[at], ages[at + 1]
        out.append(values[at] + (values[at + 1] - values[at]) * (age - low) / (high - low))
    return out


def smoothed(ages: Sequence[float], hazard: Sequence[float], span: int, width: float = 0.0) -> list[float]:
    """Return the hazard of each bin, averaged over that bin and its neighbours.

    :param span: the number of neighbours on either side, at least.
    :param width: seconds; averaged over all within ``sqrt(width / rate)`` of the middle of the bin, with the rate (1/s)
        at which items finish there. Polls are a multiple of that apart, so they say nothing about finer detail.
    """
    last = len(ages) - 1
    out = []
    for j in range(last):
        low, high = max(0, j - span), min(last, j + 1 + span)
        if width:
            rate = (hazard[high] - hazard[low]) / (ages[high] - ages[low])
            middle, reach = (ages[j] + ages[j + 1]) / 2, math.sqrt(width / max(rate, MIN_RATE))
            while low > 0 and ages[low] > middle - reach:
                low -= 1
            while high < last and ages[high] < middle + reach:
                high += 1
        out.append((hazard[high] - hazard[low]) * (ages[j + 1] - ages[j]) / (ages[high] - ages[low]))
    return out


def bracket(ages: Sequence[float], after: float, by: float, *, done: bool) -> Bracket:
    """Return the bins of ``ages`` in which the interval from ``after`` to ``by`` (seconds) begins and ends."""
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
    window: float,
    prior_events: Sequence[float],
    prior_weight: float,
) -> list[float]:
    """Return the cumulative hazard after one step of expectation maximisation from ``hazard``.

    :param hazard: the cumulative hazard so far, at the knots.
    :param looks: the polls, newest first.
    :param window: the number of completions after which a poll counts 1/e of what the newest does.
    :param prior_events: for each bin, how many of ``prior_weight`` pseudo-observations that enter it finish in it.
    :param prior_weight: the weight of the prior, in pseudo-observations.
    """
    last = len(hazard) - 1
    # An interval adds the same to every bin that it covers, so it is kept as a step up where it begins and a step down
    # where it ends, and summed below. ``entered`` counts items that were pending throughout. For those that finished,
    # ``share`` is the weight over the probability of the interval, and ``beyond`` is that times the probability of
    # being pending at its end.
    entered, share, beyond = ([0.0] * (last + 2) for _ in range(3))
    exp = math.exp
    weight, decay = 1.0, exp(-1 / window)
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
        weight *= decay
        if weight < MIN_LOOK_WEIGHT:
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
        # The mean probability of being pending over the bin: an item that finishes in it is exposed for a part of it.
        mean = finishing / step if step > 1e-6 else before  # noqa: PLR2004 - below it the quotient is rounding
        events = max(0.0, passed * finishing)
        exposed = max(whole + passed * mean - late, events / MAX_BIN_HAZARD, 0.0)
        total += (events + prior_events[j]) / (exposed + prior_weight)
        out.append(total)
        before = after
    return out
