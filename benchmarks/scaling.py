"""How long, and how many requests, very many assets take; by tier, accounts and workers. And whether that is so.

``python -m benchmarks.scaling`` prints what a simulation says. ``--measure`` runs small ingests on 1, 2 and 4 worker
processes against a local sandbox that holds one limit for all of them, and prints them beside the simulation.
``--check`` prints nothing and says by its exit code whether this folder's README.md holds its tables.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from seedance_avatar import AssetSource, AvatarSession, Limits
from seedance_avatar.sandbox import RateLimits
from seedance_avatar.sandbox.fates import TYPICAL
from seedance_avatar.sandbox.server import in_thread

__all__ = ["Plan", "Run", "simulate"]

TIERS: Final = {"default": (300 / 60, 3_000 / 60), "vip": (1_000 / 60, 10_000 / 60), "svip": (2_000 / 60, 30_000 / 60)}
"""Submissions and status requests a second that the service documents for one account."""

PROCESS: Final = 200.0
"""Assets a second that one worker process takes from source to active: less than half of what two shared cores did."""

LOOKS: Final = 5.0
"""Status requests for an asset with learned polling; --measure prints it."""

_rng = random.Random(0)
PROCESSING: Final = sorted(draw(_rng) for draw in [TYPICAL["image"]] * 200 if callable(draw))
"""Seconds until an image is active, as the sandbox draws them: evenly from its law."""

PLAYED: Final = 600.0
"""Seconds of submitting that are played step by step; a longer run goes on as it went."""


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be done, and with what.

    :ivar submits: submissions a second that one account is allowed; ``queries`` status requests.
    :ivar upstream: submissions a second that stand behind all accounts together, or None.
    """

    assets: int
    submits: float
    queries: float
    accounts: int = 1
    workers: int = 1
    process: float = PROCESS
    looks: float = LOOKS
    upstream: float | None = None


@attrs.frozen(kw_only=True)
class Run:
    """What came of it.

    :ivar seconds: from the first submission to the last asset that is known to be active.
    :ivar pending: the most that were accepted and not known to be active at one time.
    :ivar bound: what it waited for.
    """

    seconds: float
    requests: int
    pending: int
    bound: str


def simulate(plan: Plan) -> Run:
    """Play ``plan`` in steps: what is submitted waits its time, then for as many looks as an asset needs on average."""
    limits = {"the accounts' limits": plan.accounts * plan.submits, "the workers": plan.workers * plan.process}
    if plan.upstream is not None:
        limits["what stands behind all accounts"] = plan.upstream
    bound, rate = min(limits.items(), key=lambda item: item[1])
    query_rate = plan.accounts * plan.queries
    if query_rate / plan.looks < rate:
        bound = "the accounts' limits of queries"
    played = min(float(plan.assets), rate * PLAYED)
    step = 0.05
    unsent, unseen = played, 0.0
    waiting: list[tuple[float, float]] = []
    now = pending = most = 0.0
    while unsent > 1e-6 or waiting or unseen > 1e-6:
        now += step
        sent = min(unsent, rate * step)
        unsent -= sent
        if sent:
            for after in PROCESSING[:: max(1, len(PROCESSING) // 20)]:
                heapq.heappush(waiting, (now + after, sent / 20))
        pending += sent
        while waiting and waiting[0][0] <= now:
            unseen += heapq.heappop(waiting)[1]
        seen = min(unseen, query_rate * step / plan.looks)
        unseen -= seen
        pending -= seen
        most = max(most, pending)
    rest = (plan.assets - played) / min(rate, query_rate / plan.looks)
    return Run(seconds=now + rest, requests=round(plan.assets * (1 + plan.looks)), pending=round(most), bound=bound)


def told(seconds: float) -> str:
    """Return a time as people say it."""
    for unit, length in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def tables() -> str:
    """Return what the simulation says, as ``benchmarks/README.md`` shows it."""
    lines = [
        "| assets | tier | accounts | workers | time | requests | pending at most | bound by |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    cases = [
        (10**6, "default", 1, 1),
        (10**6, "vip", 1, 1),
        (10**6, "svip", 1, 1),
        (10**6, "svip", 10, 1),
        (10**6, "svip", 10, 2),
        (10**8, "default", 1, 1),
        (10**8, "svip", 1, 1),
        (10**8, "svip", 10, 2),
        (10**8, "svip", 100, 4),
        (10**8, "svip", 100, 17),
    ]
    for assets, tier, accounts, workers in cases:
        submits, queries = TIERS[tier]
        run = simulate(Plan(assets=assets, submits=submits, queries=queries, accounts=accounts, workers=workers))
        case = f"{assets:,} | {tier} | {accounts} | {workers}"
        lines.append(f"| {case} | {told(run.seconds)} | {run.requests:,} | {run.pending:,} | {run.bound} |")
    return "\n".join(lines)


# Measuring


async def _ingest(order: dict[str, Any]) -> int:
    rate = order["submits"]
    limits = Limits.unlimited() if rate is None else Limits(submits_per_second=rate, submit_burst=2)
    given = (AssetSource.image(f"https://cdn.example.com/{order['start'] + n}.jpg") for n in range(order["count"]))
    async with AvatarSession("sk-sandbox", base_url=order["url"], limits=limits) as session:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        async with session.ingest(given, group=order["group"]) as stream:
            return len([asset async for asset in stream])


async def _group(url: str) -> str:
    async with AvatarSession("sk-sandbox", base_url=url) as session:
        return (await session.create_group("scaling")).group_id


def measure(
    workers: int, count: int, submits: float | None, *, time_scale: float = 1.0
) -> tuple[float, float, float, int]:
    """Ingest ``count`` images on so many processes; return seconds, submissions a second, looks for each, and 429s.

    :param submits: submissions a second that the sandbox lets through, divided among the workers; None for no limit.
    :param time_scale: factor on the time that an image takes.
    """
    limits = None if submits is None else RateLimits.per_second(submits=submits, submit_burst=20)
    with in_thread(limits=limits, time_scale=time_scale) as sandbox:
        order = {"url": sandbox.url, "group": asyncio.run(_group(sandbox.url)), "count": count // workers}
        order["submits"] = None if submits is None else 0.98 * submits / workers
        processes = []
        for number in range(workers):
            it = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.scaling", "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parent.parent,
            )
            assert it.stdin is not None
            it.stdin.write(json.dumps({**order, "start": number * count}) + "\n")
            it.stdin.flush()
            processes.append(it)
        for it in processes:
            assert it.stdout is not None
            assert it.stdout.readline() == "ready\n"
        began = time.perf_counter()
        for it in processes:
            assert it.stdin is not None
            it.stdin.write("go\n")
            it.stdin.flush()
        done = sum(int(it.communicate()[0]) for it in processes)
        took = time.perf_counter() - began
        ledger = sandbox.ledger
        assert done == len(ledger) == count // workers * workers
        assert ledger.duplicates() == {}
        times = ledger.times("submit")[1:]  # without the group
        rate = (len(times) - 1) / (times[-1] - times[0])
        return took, rate, sum(upload.looks for upload in ledger.uploads) / done, ledger.throttled


def _measured(count: int, submits: float) -> None:
    for workers in (1, 2):
        _, rate, looks, _ = measure(workers, 4 * count, None)
        print(f"{workers} without a limit: {rate:.0f} submitted a second, {looks:.2f} looks each")
    print()
    print("| worker processes | measured | simulated | submitted a second | allowed | looks for each | 429 |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for workers in (1, 2, 4):
        took, rate, looks, throttled = measure(workers, count, submits)
        said = simulate(Plan(assets=count, submits=0.98 * submits, queries=1e9, workers=workers, looks=looks)).seconds
        print(
            f"| {workers} | {took:.1f} s | {said:.1f} s | {rate:.1f} | {submits:.0f} | {looks:.1f} | {throttled} |",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--measure", action="store_true", help="run small ingests on 1, 2 and 4 processes")
    parser.add_argument("--check", action="store_true", help="compare the tables with benchmarks/README.md")
    parser.add_argument("--count", type=int, default=600, help="images in each measured run (default: %(default)s)")
    parser.add_argument(
        "--submits", type=float, default=60.0, help="the sandbox's limit (default: %(default)s a second)"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.worker:
        print(asyncio.run(_ingest(json.loads(sys.stdin.readline()))))
    elif given.check:
        return int(tables() not in Path(__file__).with_name("README.md").read_text(encoding="utf-8"))
    elif given.measure:
        _measured(given.count, given.submits)
    else:
        print(tables())
    return 0


if __name__ == "__main__":
    sys.exit(main())
