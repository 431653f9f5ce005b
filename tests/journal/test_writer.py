"""When changes share a commit: at once after a quiet time, gathered while one commit follows another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rig.journals import entry_of

from seedance_avatar.journal import writer as group_commit
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.writer import Op, Writer

HOUR = 3600.0


@asynccontextmanager
async def slow_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planned: int
) -> AsyncIterator[tuple[Journal, list[bytes], list[int]]]:
    """Yield a journal on whose disk a commit is believed to take so long that gathering would never end."""
    monkeypatch.setattr(group_commit, "LONGEST_REST", HOUR)
    batches: list[int] = []
    put = Writer.put

    def counted(writer: Writer, ops: Sequence[Op]) -> None:
        batches.append(len(ops))
        put(writer, ops)

    async with await Journal.open(tmp_path / "run.db") as journal:
        entries = [entry_of(journal, number) for number in range(planned)]
        await journal.claim(entries)
        monkeypatch.setattr(Writer, "put", counted)
        journal._writer._rested_at = 0.0  # it was quiet for a while
        journal._writer._took = HOUR
        yield journal, [entry.fingerprint for entry in entries], batches


async def some_turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_the_first_after_a_quiet_time_leaves_at_once_and_the_next_are_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with slow_disk(tmp_path, monkeypatch, 4) as (journal, names, batches):
        await journal.sending(names[0])
        journal._writer._rested_at = journal._loop.time() + HOUR  # whatever the commit truly took
        await some_turns()
        tasks = []
        for name in names[1:]:
            tasks.append(asyncio.create_task(journal.sending(name)))
            await some_turns()
        assert batches == [1]
        journal._writer.flush()  # the rest is over
        await asyncio.gather(*tasks)
        assert batches == [1, 3]


@pytest.mark.asyncio
async def test_enough_of_them_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = group_commit.FULL
    async with slow_disk(tmp_path, monkeypatch, 2 * full) as (journal, names, batches):
        journal._writer._rested_at = journal._loop.time() + HOUR
        await asyncio.gather(*(journal.sending(name) for name in names))
        assert batches == [2 * full]


@pytest.mark.asyncio
async def test_who_does_nothing_but_write_does_not_wait_for_anybody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with slow_disk(tmp_path, monkeypatch, 12) as (journal, names, batches):

        async def write(mine: list[bytes]) -> None:
            for name in mine:
                await journal.sending(name)

        await asyncio.gather(*(write(names[at::3]) for at in range(3)))
        assert batches == [3, 3, 3, 3]


@pytest.mark.asyncio
async def test_closing_waits_for_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with slow_disk(tmp_path, monkeypatch, 1) as (journal, names, batches):
        await some_turns()  # in which the changes before these are settled
        journal._writer._rested_at = journal._loop.time() + HOUR
        task = asyncio.create_task(journal.sending(names[0]))
        await some_turns()
        assert batches == []
        await journal.aclose()
        await task
        assert batches == [1]
