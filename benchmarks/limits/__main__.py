"""``python -m benchmarks.limits``: how well a pacer that is told nothing meets every kind of gateway.

``--quick`` plays every third scenario once; ``--each`` prints one line for each run.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict

from .scenarios import kept_aside, play, tuned

__all__ = ["main"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--aside", type=int, default=40, help="scenarios drawn that nothing was tuned on")
    parser.add_argument("--draw", type=int, default=2026, help="the seed that those are drawn with")
    told = parser.parse_args()
    scenarios = [*tuned(), *kept_aside(told.draw, told.aside)]
    if told.quick:
        scenarios, told.seeds = scenarios[::3], 1
    rows: dict[str, list[tuple[float, float, float, int]]] = defaultdict(list)
    for scenario in scenarios:
        for seed in range(told.seeds):
            run, held = play(scenario, seed)
            back = -1.0 if scenario.back_at is None else run.recovery(scenario.back_at)
            crowd = 0 if scenario.back_at is None else run.crowd(scenario.back_at)
            rows[scenario.kind].append((held, run.refusals, back, crowd))
            if told.each:
                print(
                    f"{scenario.kind:38} {scenario.name:48} held {held:6.1%}  429s {run.refusals:6.2%} "
                    f"({len(run.refused)}) back after {back:.1f} s, at most {crowd} in 0.1 s"
                )
    print(f"{'gateway':38} runs   held: median  worst  >=95%   429s: median  worst <=0.5%   back after, worst")
    for kind, runs in rows.items():
        shares, refused = [run[0] for run in runs], [run[1] for run in runs]
        back = max(run[2] for run in runs)
        print(
            f"{kind:38} {len(runs):4}         {statistics.median(shares):6.1%} {min(shares):6.1%} "
            f"{sum(share >= 0.95 for share in shares) / len(runs):6.0%}"
            f"         {statistics.median(refused):6.2%} {max(refused):6.2%} "
            f"{sum(share <= 0.005 for share in refused) / len(runs):6.0%}" + (f"   {back:.1f} s" if back >= 0 else "")
        )


if __name__ == "__main__":
    main()
