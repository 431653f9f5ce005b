"""What an ingest keeps in memory, and whether it stays as fast: ``python -m benchmarks memory``."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

from seedance_avatar import AssetSource, AvatarSession, Limits, Polling

from .gateway import GROUP, serve, url_of
from .tables import Table, machine, show

__all__ = ["main"]

_KIB = 1024
_MIB = 1024 * 1024


def _sources(count: int) -> Iterator[AssetSource]:
    for number in range(count):
        yield AssetSource.image(url_of(number))


def _resident() -> int:
    """Return the bytes of this process that are in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel's
        return int(file.read().split()[1]) * 4096


async def _pending(url: str, count: int) -> dict[str, Any]:
    """Let ``count`` assets be pending at once; return the bytes that each keeps."""
    never = Polling.fixed(100_000, 100_000)
    async with AvatarSession("sk-benchmark", base_url=url, limits=Limits.unlimited(), polling=never) as session:
        tracemalloc.start()
        async with session.ingest(_sources(count), group=GROUP, max_pending=2 * count) as stream:
            marks = []
            for until in (count // 10, count):
                while stream.stats().polling < until:  # noqa: ASYNC110 - a stream has no event for it
                    await asyncio.sleep(0)
                gc.collect()
                marks.append((stream.stats().polling, tracemalloc.get_traced_memory()[0]))
            (first, before), (last, after) = marks
            return {"bytes": (after - before) / max(1, last - first), "pending": last}


async def _through(url: str, count: int) -> dict[str, Any]:
    """Send ``count`` sources through; return the CPU of each, and what is resident at a tenth and at the end."""
    limits = Limits.unlimited()
    resident = []
    async with AvatarSession("sk-benchmark", base_url=url, limits=limits, polling=Polling.fixed(0, 0)) as session:
        began = time.process_time()
        done = 0
        async with session.ingest(_sources(count), group=GROUP) as stream:
            async for _ in stream.outcomes():
                done += 1
                if done in {count // 10, count}:
                    resident.append(_resident())
        assert done == count
        return {"cpu": (time.process_time() - began) / count, "grown": resident[1] - resident[0]}


async def _slow(url: str, count: int) -> dict[str, Any]:
    """Take one outcome and then nothing; return how many sources were taken until nothing more was."""
    limits = Limits.unlimited()
    async with AvatarSession("sk-benchmark", base_url=url, limits=limits, polling=Polling.fixed(0, 0)) as session:
        async with session.ingest(_sources(count), group=GROUP) as stream:
            await anext(stream.outcomes())
            taken = -1
            while stream.stats().taken != taken:
                taken = stream.stats().taken
                await asyncio.sleep(0.5)
        return {"taken": taken, "outcomes": stream.report.taken}


_PARTS = {"pending": _pending, "through": _through, "slow": _slow}


def _apart(part: str, url: str, count: int) -> dict[str, Any]:
    """Run one part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--part", part, "--url", url, "--sources", str(count)]
    told: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603 - ourselves
    return told


def _median_cpu(url: str, count: int, times: int) -> float:
    return float(statistics.median(_apart("through", url, count)["cpu"] for _ in range(times)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of it: does it run at all")
    parser.add_argument("--sources", type=int, default=1_000_000, help="sources of the long run (default 1,000,000)")
    parser.add_argument("--part", choices=_PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.part:
        print(json.dumps(asyncio.run(_PARTS[told.part](told.url, told.sources))))
        return
    many = told.sources // 100 if told.quick else told.sources
    short, times = max(20, many // 100), 1 if told.quick else 5
    with serve() as gateway:
        pending = _apart("pending", gateway.url, many // 10)
        # The short runs on both sides of the long one: what else the machine does changes with time.
        before = _median_cpu(gateway.url, short, times)
        long = _apart("through", gateway.url, many)
        after = _median_cpu(gateway.url, short, times)
        slow = _apart("slow", gateway.url, many)
    base = (before + after) / 2
    rows = (
        ("bytes for each pending asset", f"{pending['pending']:,} pending", f"{pending['bytes']:,.0f}", f"{_KIB:,}"),
        (
            "growth of resident memory",
            f"from {many // 10:,} to {many:,} sources",
            f"{long['grown'] / _MIB:.1f} MiB",
            "20 MiB",
        ),
        ("CPU for each asset", f"{many:,} sources", f"{long['cpu'] * 1e6:,.0f} µs", ""),
        ("the same", f"{short:,} sources, median of {2 * times}", f"{base * 1e6:,.0f} µs", ""),
        ("ratio of the two", "", f"{long['cpu'] / base:.2f}", "1.10"),
        ("taken for a consumer that stands still", f"of {many:,} sources", f"{slow['taken']:,}", ""),
    )
    show(
        [
            Table(
                title="Memory, and CPU over a long run",
                note=f"A generator in, outcomes consumed; one POST and one GET for each asset. {machine()}.",
                command="python -m benchmarks memory",
                head=("what", "where", "measured", "at most"),
                rows=rows,
            )
        ]
    )


if __name__ == "__main__":
    main()
