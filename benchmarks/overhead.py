"""CPU of the client for one request, ours and everybody's: ``python -m benchmarks overhead``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from .gateway import serve
from .peers import PEERS, WIDTH
from .tables import Table, machine, show, spread

__all__ = ["INGESTS", "main"]

_NEEDS: Final = {
    "httpx-aiohttp": ("httpx", "httpx_aiohttp"),
    "openai on aiohttp": ("openai", "httpx_aiohttp"),
    "httpx": ("httpx",),
    "openai": ("openai",),
    "requests, threads": ("requests",),
}
_WEIGHT: Final = {"protocol by hand": 0.2, "httpx-aiohttp": 3, "openai on aiohttp": 5, "httpx": 13, "openai": 10}
"""Roughly how much dearer than bare: they get fewer assets, so that a round lasts as long for everybody."""

_OPENED: Final = """
import asyncio, aiohttp, attrs, cattrs, anyio

async def main():
    async with aiohttp.ClientSession():
        with anyio.CancelScope():
            pass

asyncio.run(main())"""

INGESTS: Final = """
import asyncio
from seedance_avatar import AssetSource, AvatarSession

async def main():
    async with AvatarSession("sk-of-nobody") as session:
        AssetSource("https://example.com/face.png")
        async with session.ingest([], group="group-of-nobody") as stream:
            async for asset in stream:
                pass

asyncio.run(main())"""

_IMPORTS: Final = {
    "aiohttp, attrs, cattrs, anyio": "import aiohttp, attrs, cattrs, anyio",
    "seedance_avatar": "import seedance_avatar",
    # What is loaded at its first use is paid for all the same. Of it, anyio's half for asyncio is everybody's.
    "the four, one session of aiohttp and one scope of anyio opened": _OPENED,
    "seedance_avatar, a session opened and an ingest of nothing": INGESTS,
    "openai": "import openai",
}


class _Peer:
    """One peer in its process."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "benchmarks.peers", name, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def round_of(self, assets: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{assets}\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@contextmanager
def _peers(names: Sequence[str], url: str) -> Iterator[list[_Peer]]:
    with ExitStack() as stack:
        peers = []
        for name in names:
            peer = _Peer(name, url)
            stack.callback(peer.end)
            peers.append(peer)
        yield peers


def measure(names: Sequence[str], *, assets: int, repeat: int, latency: float) -> tuple[dict[str, list[float]], float]:
    """Return for each peer its microseconds of CPU a request, one for each round, and the gateway's share of a core."""
    found: dict[str, list[float]] = {name: [] for name in names}
    with serve(latency=latency) as gateway, _peers(names, gateway.url) as peers:
        for peer in peers:
            peer.round_of(WIDTH * 2)  # connections are made, caches are warm

        def work() -> None:
            for _ in range(repeat):
                for peer in peers:
                    told = peer.round_of(max(WIDTH, int(assets / _WEIGHT.get(peer.name, 1))))
                    found[peer.name].append(told["cpu"] / told["requests"] * 1e6)

        return found, gateway.measured(work)


def import_times(repeat: int) -> dict[str, list[float]]:
    """Return the milliseconds of CPU that an import takes in a fresh interpreter, less the interpreter's own.

    Bytecode is kept, in a place of our own: of what pip installed it is there, and a checkout is compiled anew in
    every interpreter where ``PYTHONDONTWRITEBYTECODE`` is set, which would double the figure and tell of no user's.
    """
    wanted = {name: code for name, code in _IMPORTS.items() if name != "openai" or importlib.util.find_spec("openai")}
    found: dict[str, list[float]] = {name: [] for name in wanted}
    with tempfile.TemporaryDirectory() as kept:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": kept}

        def cost(code: str) -> float:
            probe = f"import time\nt = time.process_time()\n{code}\nprint(time.process_time() - t)"
            command = [sys.executable, "-c", probe]
            return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603 - ourselves

        for code in wanted.values():
            cost(code)  # which compiles it
        for _ in range(repeat):
            for name, code in wanted.items():
                found[name].append(cost(code) * 1e3)
    return found


def _ratio_rows(found: dict[str, list[float]], unit: str) -> Iterator[tuple[str, ...]]:
    base = next(iter(found.values()))
    for name, values in found.items():
        # Round by round: what else the machine did at that time weighs on both.
        ratio = statistics.median(ours / theirs for ours, theirs in zip(values, base, strict=True))
        least = min(values) / min(base)
        yield name, f"{statistics.median(values):,.0f} {unit}", spread(values), f"{ratio:.2f}", f"{least:.2f}"


def _requests(names: Sequence[str], assets: int, repeat: int, latency: float) -> Table:
    found, share = measure(names, assets=assets, repeat=repeat, latency=latency)
    answered = f"answered after {latency * 1e3:g} ms on average" if latency else "answered at once"
    return Table(
        title=f"CPU of the client for one request, {answered}",
        note=(
            f"One POST and one GET for each asset, {WIDTH} assets under way, {repeat} interleaved rounds; "
            f"the gateway needed {share:.0%} of a core. {machine()}."
        ),
        command="python -m benchmarks overhead",
        head=("client", "median", "lowest to highest", "ratio, median of the rounds", "ratio of the lowest"),
        rows=tuple(_ratio_rows(found, "µs")),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks overhead", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few requests, one repetition: does it run at all")
    parser.add_argument("--repeat", type=int, default=11, help="interleaved repetitions (default 11)")
    parser.add_argument("--assets", type=int, default=1500, help="assets a round, for bare aiohttp (default 1500)")
    # Answered at once, whole batches are read in one turn of the loop, and what is measured is the client alone.
    # Answered after a while, as by a service, each answer wakes the process, and that costs everybody the same.
    parser.add_argument("--latency", type=float, action="append", help="mean seconds to an answer (default 0 and 0.02)")
    parser.add_argument("--only", action="append", metavar="PEER", help="only this peer, beside bare aiohttp")
    told = parser.parse_args(arguments)
    if told.quick:
        told.repeat, told.assets, told.latency = 1, 200, told.latency or [0.0]
    names = [name for name in PEERS if all(map(importlib.util.find_spec, _NEEDS.get(name, ())))]
    if told.only:
        names = [name for name in names if name == "bare aiohttp" or name in told.only]
    tables = [_requests(names, told.assets, told.repeat, latency) for latency in told.latency or [0.0, 0.02]]
    if told.only:
        show(tables)
        return
    imports = Table(
        title="CPU of an import",
        note=f"In a fresh interpreter, with its bytecode kept, {told.repeat} interleaved rounds.",
        command="python -m benchmarks overhead",
        head=("import", "median", "lowest to highest", "ratio, median of the rounds", "ratio of the lowest"),
        rows=tuple(_ratio_rows(import_times(told.repeat), "ms")),
    )
    show([*tables, imports])


if __name__ == "__main__":
    main()
