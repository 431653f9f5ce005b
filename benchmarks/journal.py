"""Durable writes a second, by our journal and by what one would write instead: ``python -m benchmarks.journal``.

Each of some tasks moves things of its own, one write after the other, and waits until each is on the disk:
*sending*, then *accepted*. The others do the same with one UPDATE a write on the same table: sqlite3 by
``asyncio.to_thread``, and aiosqlite where it is installed (dependency group ``bench``).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import attrs

from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Entry
from seedance_avatar.journal.store import Durability

_DURABILITIES: Final[tuple[Durability, ...]] = ("power", "process")
_PRAGMA: Final = {"power": "FULL", "process": "NORMAL"}
_UPDATE: Final = "UPDATE item SET state = ?, remote_id = ?, sent_at = ? WHERE fingerprint = ?"


@attrs.frozen
class Figures:
    """One measured run: durable writes a second, and microseconds of CPU a write, of all threads and of the loop's."""

    rate: float
    cpu: float
    loop_cpu: float


async def _plan(path: Path, writes: int) -> list[Entry]:
    async with await Journal.open(path) as journal:
        entries = [
            journal.entry(kind="image", group_id="pg_1", url=f"https://cdn.example.com/brand/{number:07d}.jpg?sig=x")
            for number in range(writes // 2)
        ]
        await journal.claim(entries)
    return entries


async def _measure(
    entries: list[Entry], tasks: int, write: Callable[[int, str | None, bytes], Awaitable[Any]]
) -> Figures:
    left = iter(entries)

    async def work() -> None:
        for entry in left:
            await write(1, None, entry.fingerprint)
            await write(2, "pa_01HZX3Q8T5V6W7Y8Z9ABCDEFGH", entry.fingerprint)

    wall, cpu, loop_cpu = time.perf_counter(), time.process_time(), time.thread_time()
    await asyncio.gather(*(work() for _ in range(tasks)))
    writes = 2 * len(entries)
    return Figures(
        rate=writes / (time.perf_counter() - wall),
        cpu=(time.process_time() - cpu) / writes * 1e6,
        loop_cpu=(time.thread_time() - loop_cpu) / writes * 1e6,
    )


async def ours(path: Path, entries: list[Entry], tasks: int, durability: Durability) -> Figures:
    """Our journal: one thread, one commit for all that has queued up."""
    async with await Journal.open(path, durability=durability) as journal:

        async def write(_: int, remote_id: str | None, name: bytes) -> None:
            await (journal.sending(name) if remote_id is None else journal.accepted(name, remote_id))

        return await _measure(entries, tasks, write)


async def to_thread(path: Path, entries: list[Entry], tasks: int, durability: Durability) -> Figures:
    """One connection, ``asyncio.to_thread`` for each statement, autocommit."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA synchronous = {_PRAGMA[durability]}")
    turn = asyncio.Lock()

    async def write(state: int, remote_id: str | None, name: bytes) -> None:
        async with turn:
            await asyncio.to_thread(connection.execute, _UPDATE, (state, remote_id, time.time_ns(), name))

    try:
        return await _measure(entries, tasks, write)
    finally:
        connection.close()


async def by_aiosqlite(path: Path, entries: list[Entry], tasks: int, durability: Durability) -> Figures:
    """One aiosqlite connection, autocommit."""
    import aiosqlite  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - an extra, and only for this

    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.execute(f"PRAGMA synchronous = {_PRAGMA[durability]}")

        async def write(state: int, remote_id: str | None, name: bytes) -> None:
            await connection.execute(_UPDATE, (state, remote_id, time.time_ns(), name))

        return await _measure(entries, tasks, write)


_PEERS: Final = {"to_thread": to_thread, "aiosqlite": by_aiosqlite}


def _run(peer: Callable[..., Any], tasks: int, writes: int, durability: Durability, directory: str | None) -> Figures:
    with tempfile.TemporaryDirectory(dir=directory) as name:
        path = Path(name) / "run.db"
        entries = asyncio.run(_plan(path, writes))
        figures: Figures = asyncio.run(peer(path, entries, tasks, durability))
        with sqlite3.connect(path) as connection:
            (done,) = connection.execute("SELECT count(*) FROM item WHERE state = 2").fetchone()
        connection.close()
        assert done == len(entries)
        return figures


def _sync_time(directory: str | None) -> float:
    """Return the median seconds that the disk takes to sync 32 KiB: what a commit costs at the very least."""
    with tempfile.TemporaryFile(dir=directory) as file:
        times = []
        for _ in range(50):
            file.write(b"x" * 32768)
            file.flush()
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few writes, one repetition: does it run at all")
    parser.add_argument("--repeat", type=int, default=5, help="interleaved repetitions (default 5)")
    parser.add_argument("--directory", help="where to write (default: the system's temporary directory)")
    options = parser.parse_args(arguments)
    repeat = 1 if options.quick else options.repeat
    peers = {"ours": ours} | {
        name: peer for name, peer in _PEERS.items() if name == "to_thread" or importlib.util.find_spec(name)
    }
    print(
        f"CPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, "
        f"{time.strftime('%Y-%m-%d')}; this disk syncs 32 KiB in {_sync_time(options.directory) * 1e3:.2f} ms"
    )
    print("durable writes a second: median of the runs (lowest to highest); CPU in µs a write, all threads / loop's")
    print(f"{'':8} {'tasks':>5}  {'who':10} {'writes/s':>9} {'':19} {'CPU':>6} {'loop':>5}  {'ours is':>7}")
    for durability in _DURABILITIES:
        for tasks in (64,) if options.quick else (16, 64, 256):
            runs: dict[str, list[Figures]] = {name: [] for name in peers}
            for _ in range(repeat):
                for name, peer in peers.items():
                    # The slow ones get fewer writes, or most of the time would go into waiting for them.
                    writes = (4_000 if options.quick else 40_000) // (1 if name == "ours" else 10)
                    runs[name].append(_run(peer, tasks, writes, durability, options.directory))
            base = statistics.median(run.rate for run in runs["ours"])
            for name, figures in runs.items():
                rates = [run.rate for run in figures]
                median = statistics.median(rates)
                cpu, loop = (statistics.median(getattr(run, it) for run in figures) for it in ("cpu", "loop_cpu"))
                spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
                ratio = "" if name == "ours" else f"{base / median:.1f} x"
                print(
                    f"{_PRAGMA[durability]:8} {tasks:5}  {name:10} {median:9,.0f} {spread:19} {cpu:6.1f} {loop:5.1f}"
                    f"  {ratio:>7}"
                )


if __name__ == "__main__":
    main()
