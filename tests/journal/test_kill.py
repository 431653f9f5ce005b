"""Killed at any moment, the journal has everything that it said it had."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from rig.journals import child, sql

from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Record

KILLS = 10

WORKER = """
import asyncio, os, sys
from seedance_avatar.journal import Journal

def say(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

async def main():
    path, first = sys.argv[1], int(sys.argv[2])
    numbers = iter(range(first, first + 100_000))
    async with await Journal.open(path) as journal:
        async def work():
            for number in numbers:
                entry = journal.entry(kind="image", group_id="pg_1", url="https://a.example/x", key=str(number))
                await journal.claim([entry])
                await journal.sending(entry.fingerprint)
                say("sent", str(number))
                await journal.accepted(entry.fingerprint, f"pa_{number}")
                say("accepted", str(number))
                journal.ended(entry.fingerprint, "active")
        await asyncio.gather(*(work() for _ in range(16)))

asyncio.run(main())
"""


async def read(path: Path) -> dict[int, Record]:
    async with await Journal.open(path) as journal:
        return {int(record.key or ""): record async for record in journal.records()}


def test_no_acknowledged_write_is_lost_to_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    draw = random.Random(20260101)
    sent: set[int] = set()
    accepted: set[int] = set()
    for kill in range(KILLS):
        with child(WORKER, path, str(kill * 1_000_000)) as worker:
            assert worker.stdout is not None
            lines = [worker.stdout.readline() for _ in range(draw.randrange(1, 600))]
            worker.kill()
            lines += worker.stdout.readlines()
        for line in lines:
            if line.endswith("\n"):  # the last word of a killed process may be cut
                word, number = line.split()
                (sent if word == "sent" else accepted).add(int(number))
        records = asyncio.run(read(path))
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]
        states = {number: record.state for number, record in records.items()}
        assert {number for number in accepted if states[number] not in {"accepted", "active"}} == set()
        assert all(records[number].remote_id == f"pa_{number}" for number in accepted)
        assert {number for number in sent - accepted if states[number] not in {"in_doubt", "accepted"}} == set()
        # What nobody was told of is in doubt at most once for each task that was at work.
        doubted = {number for number, state in states.items() if state == "in_doubt" and number // 1_000_000 == kill}
        assert len(doubted) <= 16
        assert "sending" not in states.values()
    assert len(accepted) > KILLS


@pytest.mark.asyncio
async def test_what_ended_and_was_never_waited_for_is_written_soon(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        entry = journal.entry(kind="image", url="https://a.example/x")
        await journal.claim([entry])
        await journal.sending(entry.fingerprint)
        await journal.accepted(entry.fingerprint, "pa_1")
        journal.ended(entry.fingerprint, "active")
        async with await Journal.open(tmp_path / "run.db", readonly=True) as reader:
            while (await reader.summary()).count("active") == 0:  # noqa: ASYNC110 - it is the clock that is waited for
                await asyncio.sleep(0.01)
