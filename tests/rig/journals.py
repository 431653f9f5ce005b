"""Journals for the tests: entries, another process that holds one, and a user who may not write."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Entry, Record

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def entry_of(journal: Journal, number: int = 0) -> Entry:
    return journal.entry(kind="image", group_id="pg_1", url=f"https://cdn.example.com/{number}.jpg")


async def planned(journal: Journal, number: int = 0) -> bytes:
    entry = entry_of(journal, number)
    await journal.claim([entry])
    return entry.fingerprint


async def known(journal: Journal, number: int = 0) -> Record:
    (record,) = await journal.claim([entry_of(journal, number)])
    assert record is not None
    return record


def names_in(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def sql(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Run statements on the file behind the library's back; return the rows of the last one."""
    rows: list[tuple[object, ...]] = []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
    return rows


@contextlib.contextmanager
def child(program: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run ``program`` as a process of its own, killed at the end; its standard output is a pipe."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(  # noqa: S603 - our own interpreter and a program of the tests
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


HOLDER = """
import asyncio, sys
from seedance_avatar.journal import Journal

async def main():
    async with await Journal.open(sys.argv[1]) as journal:
        entry = journal.entry(kind="image", group_id="pg_1", url="https://cdn.example.com/0.jpg")
        await journal.claim([entry])
        await journal.sending(entry.fingerprint)
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
"""Holds the journal, with one thing on the wire, until its standard input is closed."""


@contextlib.contextmanager
def directory_not_ours() -> Iterator[Path]:
    """Give a directory that can be read and not written; for root, who may write anywhere, as another user."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@contextlib.contextmanager
def may_not_write(directory: Path) -> Iterator[None]:
    """Take the right to write in ``directory`` away from this process."""
    mode, root = directory.stat().st_mode, os.geteuid() == 0
    directory.chmod(0o555)
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(mode)


@contextlib.contextmanager
def held_up(journal: Journal) -> Iterator[None]:
    """Keep the journal's thread from doing anything that is handed to it inside the block."""
    gate = threading.Event()
    journal._writer.put([(lambda _: gate.wait(30), None)])
    try:
        yield
    finally:
        gate.set()


async def pragma(journal: Journal, text: str) -> object:
    """Run a pragma on the journal's own connection, for disks that fill and turn read-only."""
    return await journal._ask(lambda store: store._connection.execute(f"PRAGMA {text}").fetchone())
