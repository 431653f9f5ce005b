"""The learned schedule against the best simple ones in hindsight: ``python -m benchmarks.polling [--quick]``.

A run starts knowing nothing (or, with ``--warm``, what a run under the same law left behind), with a burst of 50 assets
and then five a second. Its mean and p95 delay, from active to known active, stand beside those of the fixed
interval and of the *first at X, then every Y* that would have been best for this very run at no more looks an asset,
each chosen once for the mean and once for p95. 1.50 means that theirs is half as long again as ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from random import Random
from typing import Final

import attrs

from seedance_avatar.options import Polling
from seedance_avatar.polling.schedule import PendingItem, Schedule

from .laws import HELD_OUT, TUNED, Law
from .simulator import Run, arrivals, best_first_then_every, best_fixed, simulate

_QUICK: Final = ("lognormal 13 s, narrow", "sudden 25 s to 6 s", "minutes, lognormal 150 s")
_CLOSE: Final = 1 / 1.1


@attrs.frozen
class Row:
    """One law: what a run cost and brought, and how much longer the delays of the best simple schedules are."""

    polls: float
    mean: float
    p95: float
    fixed_mean: float
    fixed_p95: float
    first_mean: float
    first_p95: float


def compare(name: str, law: Law, assets: int, seed: int, *, warm: bool) -> Row:
    """Return the row of one run under ``law``."""
    schedule = Schedule.build(Polling.learned(), Random(seed))
    if warm:
        rng = Random(f"{name} before {seed}")
        accepted = arrivals(rng, assets)
        simulate(schedule, accepted, law(rng, accepted))
        learned = schedule.snapshot()
        schedule = Schedule.build(Polling.learned(), Random(seed))
        schedule.restore(learned)
    rng = Random(f"{name}{seed}")
    accepted = arrivals(rng, assets)
    took = law(rng, accepted)
    run = Run.of(*simulate(schedule, accepted, took))
    fixed, first = best_fixed(took, run.polls), best_first_then_every(took, run.polls)
    return Row(
        run.polls,
        run.mean,
        run.p95,
        fixed[0].mean / run.mean,
        fixed[1].p95 / run.p95,
        first[0].mean / run.mean,
        first[1].p95 / run.p95,
    )


def table(title: str, laws: dict[str, Law], assets: int, seeds: Sequence[int], *, warm: bool) -> None:
    """Print the rows of ``laws``, each the mean over ``seeds``, and what they say together."""
    print(f"\n{title}: {assets} assets, mean of {len(seeds)} runs, {'warm' if warm else 'cold'} start")
    print(f"{'':32}{'polls':>6}{'mean':>8}{'p95':>8}   fixed: mean   p95   first/every: mean   p95")
    rows = []
    for name, law in laws.items():
        runs = [attrs.astuple(compare(name, law, assets, seed, warm=warm)) for seed in seeds]
        row = Row(*(statistics.fmean(values) for values in zip(*runs, strict=True)))
        rows.append(row)
        print(
            f"{name:32}{row.polls:6.2f}{row.mean:8.3f}{row.p95:8.3f}{row.fixed_mean:14.2f}{row.fixed_p95:6.2f}"
            f"{row.first_mean:20.2f}{row.first_p95:6.2f}",
            flush=True,
        )
    print(
        f"{'median':54}{statistics.median(row.fixed_mean for row in rows):14.2f}"
        f"{statistics.median(row.fixed_p95 for row in rows):6.2f}"
        f"{statistics.median(row.first_mean for row in rows):20.2f}"
        f"{statistics.median(row.first_p95 for row in rows):6.2f}"
    )
    print(f"{'worst':54}{min(row.fixed_mean for row in rows):14.2f}{min(row.fixed_p95 for row in rows):6.2f}")
    close = sum(row.first_mean >= _CLOSE for row in rows)
    print(f"mean delay within 10 % of the best first/every, or better: {close} of {len(rows)} laws")


def crowded(assets: int) -> None:
    """Print what a query limit below the demand does."""
    print(f"\nA binding query limit: {assets} assets, {_QUICK[0]}")
    rng = Random(1)
    accepted = arrivals(rng, assets)
    took = TUNED[_QUICK[0]](rng, accepted)
    for limit in (None, 15.0, 10.0, 7.0):
        for name, polling in (("learned", Polling.learned()), ("fixed(10, 3)", Polling.fixed(10, 3))):
            looks, delays = simulate(Schedule.build(polling, Random(1)), accepted, took, queries_per_second=limit)
            run = Run.of(looks, delays)
            print(
                f"{limit or 'no':>5} looks/s {name:13} polls {run.polls:5.2f} mean {run.mean:7.2f} p95 {run.p95:7.2f}"
            )


def cost(pending: int) -> None:
    """Print the CPU of a look and the memory of a pending asset."""
    print(f"\nCost with {pending} pending")
    for name, polling in (("fixed", Polling.fixed(8, 3)), ("learned", Polling.learned())):
        rng = Random(1)
        accepted = [number * 13 / pending for number in range(6 * pending)]
        took = [rng.lognormvariate(2.56, 0.3) for _ in accepted]
        begun = time.process_time()
        looks, _ = simulate(Schedule.build(polling, rng), accepted, took)
        used = time.process_time() - begun
        print(f"{name:8}{1e6 * used / looks:6.2f} µs CPU a look, {looks / len(took):.2f} looks an asset")
    tracemalloc.start()
    schedule = Schedule.build(Polling.learned(), Random(1))
    before = tracemalloc.get_traced_memory()[0]
    for number in range(pending):
        schedule.add(PendingItem("image", number / 1000, None, number / 1000 + 600), number / 1000)
    print(f"memory  {(tracemalloc.get_traced_memory()[0] - before) / pending:6.0f} bytes for each pending asset")
    tracemalloc.stop()


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three laws, small: whether it runs, not how well")
    parser.add_argument("--warm", action="store_true", help="begin with what an earlier run learned")
    parser.add_argument("--assets", type=int, default=2000, help="in each run (default 2000)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each law (default 3)")
    chosen = parser.parse_args()
    if chosen.quick:
        table("Quick", {name: TUNED[name] for name in _QUICK}, 150, [1], warm=chosen.warm)
        crowded(150)
        cost(200)
        return
    seeds = range(1, chosen.seeds + 1)
    table("Laws tuned on", TUNED, chosen.assets, seeds, warm=chosen.warm)
    table("Laws kept aside", HELD_OUT, chosen.assets, seeds, warm=chosen.warm)
    crowded(chosen.assets)
    cost(10_000)


if __name__ == "__main__":
    main()
