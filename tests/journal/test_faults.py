"""Disks that fill, threads that die, tasks that are cancelled: nothing leaves unrecorded, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import textwrap
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rig.journals import child, entry_of, held_up, known, names_in, planned, pragma

from seedance_avatar.errors import JournalError
from seedance_avatar.journal import writer as journal_thread
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.lock import Lock
from seedance_avatar.journal.store import Store


@pytest.mark.asyncio
async def test_on_a_full_disk_nothing_is_sent_and_nothing_half_written(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        entries = [entry_of(journal, number) for number in range(2000)]
        await journal.claim(entries)
        pages = await journal._ask(lambda store: store._connection.execute("PRAGMA page_count").fetchone()[0])
        await pragma(journal, f"max_page_count = {pages}")
        moves = [journal.sending(entry.fingerprint) for entry in entries]
        results = await asyncio.gather(*moves, return_exceptions=True)
        assert {type(result) for result in results} == {JournalError}
        assert "run.db: cannot be used: database or disk is full; it needs free space" in str(results[0])
        with pytest.raises(JournalError, match="disk is full"):
            await journal.claim([entry_of(journal, number) for number in range(2000, 4000)])
        assert (await journal.summary()).counts == {"image": {"planned": 2000}}
        assert journal.unwritten == ()
        await pragma(journal, "max_page_count = 1000000")
        await asyncio.gather(*(journal.sending(entry.fingerprint) for entry in entries))
        assert (await journal.summary()).counts == {"image": {"sending": 2000}}


@pytest.mark.asyncio
async def test_what_has_happened_is_kept_until_it_can_be_written(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        names = [await planned(journal, number) for number in range(4)]
        for name in names[:3]:
            await journal.sending(name)
        await pragma(journal, "query_only = ON")
        with pytest.raises(JournalError, match="readonly database"):
            await journal.accepted(names[0], "pa_0")
        with pytest.raises(JournalError, match="readonly database"):
            await journal.in_doubt(names[1], "lost")
        with pytest.raises(JournalError, match="readonly database"):
            await journal.sending(names[3])
        journal.ended(names[0], "active")
        assert [str(change) for change in journal.unwritten][:2] == ["accepted pa_0", f"in_doubt {names[1].hex()}"]
        # The pragma itself is only reached once the backlog is written, so it goes past the queue.
        await unlock(journal)
        await journal.sending(names[3])
        assert journal.unwritten == ()
        states = [(await known(journal, number)).state for number in range(4)]
        assert states == ["active", "in_doubt", "sending", "sending"]


async def unlock(journal: Journal) -> None:
    """Make the connection writable again, as a disk is that was emptied: no statement of ours is needed."""

    def begin(store: Store) -> Any:
        return store._connection.execute("PRAGMA query_only = OFF")

    with pytest.MonkeyPatch.context() as patch:
        original = Store.transaction

        def transaction(self: Store) -> Any:
            begin(self)
            return original(self)

        patch.setattr(Store, "transaction", transaction)
        await journal.summary()


@pytest.mark.asyncio
async def test_without_anybody_asking_it_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_thread, "_RETRY", 0.01)
    async with await Journal.open(tmp_path / "run.db") as journal:
        name = await planned(journal)
        await journal.sending(name)
        apply, failures = Store.apply, iter([True, True, True])

        def apply_later(self: Store, changes: Any) -> Any:
            if next(failures, False):
                message = "disk I/O error"
                raise OSError(5, message)
            return apply(self, changes)

        monkeypatch.setattr(Store, "apply", apply_later)
        with pytest.raises(JournalError, match="disk I/O error"):
            await journal.accepted(name, "pa_1")
        while journal.unwritten:  # noqa: ASYNC110 - the thread does it by itself, which is what is shown
            await asyncio.sleep(0.01)
        assert (await known(journal)).remote_id == "pa_1"


@pytest.mark.asyncio
async def test_closing_tells_what_could_never_be_written(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = await Journal.open(path)
    name = await planned(journal)
    await journal.sending(name)
    await pragma(journal, "query_only = ON")
    with pytest.raises(JournalError):
        await journal.accepted(name, "pa_precious")
    with pytest.raises(JournalError, match=r"1 change could not be written.*accepted pa_precious") as caught:
        await journal.aclose()
    assert [change.remote_id for change in caught.value.unwritten] == ["pa_precious"]
    async with await Journal.open(path) as journal:
        assert (await known(journal)).state == "in_doubt"


def test_a_file_size_limit_is_met_and_survived(tmp_path: Path) -> None:
    program = """
import asyncio, json, os, resource, sys
from seedance_avatar.errors import JournalError
from seedance_avatar.journal import Journal

async def main():
    path = sys.argv[1]
    async with await Journal.open(path) as journal:
        entries = [
            journal.entry(kind="image", url=f"https://cdn.example.com/{number}.jpg") for number in range(500)
        ]
        await journal.claim(entries)
        names = [entry.fingerprint for entry in entries]
        await journal.sending(names[0])
        size = os.stat(path + "-wal").st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, resource.RLIM_INFINITY))
        told = []
        for move in (journal.sending(names[1]), journal.accepted(names[0], "pa_0")):
            try:
                await move
            except JournalError as error:
                told.append(str(error))
        kept = [str(change) for change in journal.unwritten]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await journal.sending(names[2])
        left = [str(change) for change in journal.unwritten]
        states = [record.state for record in await journal.claim(entries[:3])]
    print(json.dumps([told, kept, left, states]), flush=True)

asyncio.run(main())
"""
    with child(program, tmp_path / "run.db") as process:
        answer, _ = process.communicate()
        told, kept, left, states = json.loads(answer)
    assert len(told) == 2
    assert "disk I/O error" in told[0]
    assert kept == ["accepted pa_0"]
    assert left == []
    assert states == ["accepted", "planned", "sending"]


@pytest.mark.asyncio
async def test_when_the_thread_dies_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.db"
    journal = await Journal.open(path)
    name = await planned(journal)
    await journal.sending(name)

    def broken(self: Store, changes: Any) -> Any:
        raise SystemError("broken")  # noqa: EM101 - any error that nobody foresaw

    with monkeypatch.context() as patch:
        patch.setattr(Store, "apply", broken)
        with held_up(journal):
            waiting = [asyncio.ensure_future(journal.accepted(name, "pa_1")), asyncio.create_task(journal.summary())]
            await asyncio.sleep(0)
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(result) for result in results] == ["the journal's thread died of SystemError: broken"] * 2
    assert "died of SystemError" in caplog.text
    with pytest.raises(JournalError, match="died of SystemError") as caught:
        await journal.sending(name)
    assert [change.remote_id for change in caught.value.unwritten] == ["pa_1"]
    # Somebody may have looked a moment before it died.
    late = asyncio.get_running_loop().create_future()
    journal._writer.put([(Store.summary, late)])
    with pytest.raises(JournalError, match="died"):
        await late
    with pytest.raises(JournalError, match="accepted pa_1"):
        await journal.aclose()
    async with await Journal.open(path) as journal:
        assert journal.recovered == 1


@pytest.mark.asyncio
async def test_when_the_thread_dies_while_it_closes_who_closes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await Journal.open(tmp_path / "run.db")
    close = Store.close

    def broken(self: Store, now: int) -> None:
        close(self, now)
        raise SystemError("broken")  # noqa: EM101 - any error that nobody foresaw

    monkeypatch.setattr(Store, "close", broken)
    async with asyncio.timeout(1):
        with pytest.raises(JournalError, match="died of SystemError: broken"):
            await journal.aclose()


@pytest.mark.asyncio
async def test_when_the_thread_dies_before_it_has_opened_who_opens_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: journal_thread.Writer) -> None:
        raise SystemExit

    monkeypatch.setattr(journal_thread.Writer, "_serve", broken)
    async with asyncio.timeout(1):
        with pytest.raises(JournalError, match="the journal's thread died of SystemExit"):
            await Journal.open(tmp_path / "run.db")
    assert "died of SystemExit" in caplog.text


@pytest.mark.asyncio
async def test_a_thread_that_dies_without_a_word_is_noticed_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no memory left to say so, nor to put back what it has just taken over."""
    path = tmp_path / "run.db"
    journal = await Journal.open(path)
    name = await planned(journal)
    await journal.sending(name)
    writer = journal._writer

    class Queue(queue.SimpleQueue[Any]):
        def put(self, item: Any, *_: Any) -> None:
            if threading.current_thread() is writer._thread:
                raise MemoryError
            super().put(item)

    def lost(*_: object) -> None:
        writer._queue = Queue()
        raise MemoryError

    def speechless(_: BaseException) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        patch.setattr(writer, "_commit", lost)
        patch.setattr(writer, "_died", speechless)
        async with asyncio.timeout(1):
            with pytest.raises(JournalError, match="the journal's thread died without a word"):
                await journal.accepted(name, "pa_1")
        writer._thread.join()
    with pytest.raises(JournalError, match="died without a word"):
        await journal.sending(name)
    with pytest.raises(JournalError, match=r"1 change could not be written.*accepted pa_1"):
        await journal.aclose()
    assert [change.remote_id for change in journal.unwritten] == ["pa_1"]
    async with await Journal.open(path) as journal:
        assert journal.recovered == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("step", ["_hand_over", "put", "_commit", "_post", "_settle"])
async def test_whatever_breaks_in_the_writer_nobody_waits_and_nothing_unsent_is_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "run.db"
    journal = await Journal.open(path)
    first, second, third = [await planned(journal, number) for number in range(3)]
    await journal.sending(second)
    await journal.sending(third)
    await journal.in_doubt(third, "lost")

    def broken(*_: object) -> None:
        raise SystemError("broken")  # noqa: EM101 - any error that nobody foresaw

    with monkeypatch.context() as patch:
        patch.setattr(journal_thread.Writer, step, broken)
        waiting = [
            journal.sending(first),
            journal.sending(third, resend=True),
            journal.accepted(second, "pa_2"),
            journal.summary(),
        ]
        async with asyncio.timeout(1):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [JournalError] * 4
        async with asyncio.timeout(1):
            with pytest.raises(JournalError, match="SystemError: broken") as caught:
                await journal.sending(first)
            with pytest.raises(JournalError, match=r"SystemError: broken|accepted pa_2"):
                await journal.aclose()
    lost = [change.remote_id for change in caught.value.unwritten]
    async with await Journal.open(path) as journal:
        states = [(await known(journal, number)).state for number in range(3)]
        # What was committed is not called lost, though nobody could be told.
        assert (states, lost) in [
            (["planned", "accepted", "in_doubt"], []),
            (["planned", "in_doubt", "in_doubt"], ["pa_2"]),
        ]
        assert (await known(journal, 2)).attempts == 1


def test_a_journal_that_is_forgotten_is_told_of_and_let_go(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        forgotten = [runner.run(Journal.open(tmp_path / "run.db"))]
        runner.run(planned(forgotten[0]))
    thread = forgotten[0]._writer._thread
    with pytest.warns(ResourceWarning, match=r"run\.db was not closed"):
        forgotten.clear()
    thread.join()
    assert names_in(tmp_path) == ["run.db"]


def record_after(file: Path, last: str) -> Any:
    """Return what the next run finds of a submission when ``last`` was done as the interpreter ended."""
    program = f"""
import asyncio, sys
from seedance_avatar.journal import Journal

async def main():
    global journal
    journal = await Journal.open(sys.argv[1])
    entry = journal.entry(kind="image", group_id="pg_1", url="https://cdn.example.com/0.jpg")
    await journal.claim([entry])
    await journal.sending(entry.fingerprint)
{textwrap.indent(textwrap.dedent(last), "    ")}
asyncio.run(main())
"""
    with child(program, file) as process:
        assert process.wait() == 0
    assert names_in(file.parent) == [file.name]
    with asyncio.Runner() as runner:
        journal = runner.run(Journal.open(file))
        record = runner.run(known(journal))
        runner.run(journal.aclose())
    return record


def test_what_is_queued_when_the_interpreter_ends_is_written(tmp_path: Path) -> None:
    last = 'journal._writer.put([(journal._change("refused", entry.fingerprint), None)])'
    assert record_after(tmp_path / "run.db", last).state == "refused"


def test_what_is_gathered_when_the_interpreter_ends_is_written(tmp_path: Path) -> None:
    last = """
        journal._writer._rested_at = asyncio.get_running_loop().time() + 3600  # as while one commit follows another
        asyncio.ensure_future(journal.accepted(entry.fingerprint, "pa_1"))
        await asyncio.sleep(0)
    """
    record = record_after(tmp_path / "run.db", last)
    assert (record.state, record.remote_id) == ("accepted", "pa_1")


async def cancelled(action: Awaitable[Any], turns: int) -> None:
    task = asyncio.ensure_future(action)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_a_submission_that_was_cancelled_before_it_left_is_as_before(tmp_path: Path, turns: int) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        first, second = await planned(journal, 1), await planned(journal, 2)
        await journal.sending(second)
        await journal.in_doubt(second, "lost")
        with held_up(journal):
            await cancelled(journal.sending(first), turns)
            await cancelled(journal.sending(second, resend=True), turns)
        was = await known(journal, 1)
        assert (was.state, was.attempts) == ("planned", 0)
        was = await known(journal, 2)
        assert (was.state, was.attempts, was.reason) == ("in_doubt", 1, "lost")
        await journal.sending(first)


@pytest.mark.asyncio
async def test_a_cancellation_that_arrives_with_the_commit_takes_the_intent_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        name = await planned(journal)
        task = asyncio.create_task(journal.sending(name))
        settle = journal_thread.Writer._settle

        def settle_and_cancel(writer: journal_thread.Writer) -> None:
            settle(writer)
            task.cancel()

        with monkeypatch.context() as patch:
            patch.setattr(journal_thread.Writer, "_settle", settle_and_cancel)
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await known(journal)).state == "planned"


@pytest.mark.asyncio
async def test_a_cancellation_while_the_journal_closes_takes_the_intent_back_too(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        name = await planned(journal)
        with held_up(journal):
            task = asyncio.create_task(journal.sending(name))
            await asyncio.sleep(0)
            closing = asyncio.create_task(journal.aclose())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await closing
    async with await Journal.open(tmp_path / "run.db") as journal:
        assert (await known(journal)).state == "planned"


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_facts_are_written_though_nobody_waits_for_them(tmp_path: Path, turns: int) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        names = [await planned(journal, number) for number in range(4)]
        for name in names:
            await journal.sending(name)
        with held_up(journal):
            await cancelled(journal.accepted(names[0], "pa_0"), turns)
            await cancelled(journal.refused(names[1], "no"), turns)
            await cancelled(journal.in_doubt(names[2], "lost"), turns)
            await cancelled(journal.unsent(names[3]), turns)
        states = [(await known(journal, number)).state for number in range(4)]
        assert states == ["accepted", "refused", "in_doubt", "planned"]


async def read_all(pages: Any) -> list[Any]:
    return [item async for item in pages]


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize(
    "ask",
    [
        lambda journal: journal.claim([entry_of(journal, 7)]),
        lambda journal: journal.save_learned("image", {}),
        lambda journal: journal.learned(),
        lambda journal: journal.summary(),
        lambda journal: read_all(journal.records()),
        lambda journal: read_all(journal.samples()),
    ],
    ids=["claim", "save_learned", "learned", "summary", "records", "samples"],
)
async def test_a_question_that_was_cancelled_leaves_the_next_one_its_answer(
    tmp_path: Path, ask: Callable[[Journal], Awaitable[Any]], turns: int
) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        await planned(journal)
        with held_up(journal):
            await cancelled(ask(journal), turns)
        assert (await known(journal)).state == "planned"


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_an_opening_that_was_cancelled_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    writers: list[journal_thread.Writer] = []
    start = journal_thread.Writer.start

    def start_and_tell(self: journal_thread.Writer) -> None:
        writers.append(self)
        start(self)

    monkeypatch.setattr(journal_thread.Writer, "start", start_and_tell)
    await cancelled(Journal.open(tmp_path / "run.db"), turns)
    for writer in writers:
        await asyncio.to_thread(writer._thread.join)
    Lock.acquire(tmp_path / "run.db").release()


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", [1, 2])
async def test_a_closing_that_was_cancelled_goes_on(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "run.db"
    journal = await Journal.open(path)
    name = await planned(journal)
    await journal.sending(name)
    await journal.accepted(name, "pa_1")
    journal.ended(name, "active")
    with held_up(journal):
        await cancelled(journal.aclose(), turns)
    await journal.aclose()
    assert names_in(tmp_path) == ["run.db"]
    async with await Journal.open(path, readonly=True) as journal:
        assert (await journal.summary()).counts == {"image": {"active": 1}}


@pytest.mark.asyncio
async def test_no_secret_is_anywhere_in_the_files(tmp_path: Path) -> None:
    canary = "canary-5f1d"
    url = f"https://user:{canary}@cdn.example.com/a.jpg?X-Signature={canary}&t=1#{canary}"
    quoted = json.dumps({"url": url}).replace("/", "\\/")
    directory = tmp_path / "journal"
    await asyncio.to_thread(directory.mkdir)
    async with await Journal.open(directory / "run.db") as journal:
        signed = journal.entry(kind="image", group_id="pg_1", url=url)
        keyed = journal.entry(kind="video", group_id="pg_1", url=url, key=url)
        prompt = journal.entry(kind="generation", url=quoted, shown=f"as in {url}")
        await journal.claim([signed, keyed, prompt])
        for entry in (signed, keyed, prompt):
            await journal.sending(entry.fingerprint)
        await journal.in_doubt(signed.fingerprint, f"could not fetch {url}")
        await journal.in_doubt(keyed.fingerprint, quoted)
        await journal.accepted(prompt.fingerprint, "task-1")
        journal.ended(prompt.fingerprint, "failed", f"https://cdn.example.com/a.jpg#s={canary} is gone")
        assert await journal.claim([signed]) != [None]
        while_open = {name: (directory / name).read_bytes() for name in names_in(directory)}
    after = (directory / "run.db").read_bytes()
    assert set(while_open) == {"run.db", "run.db-wal", "run.db-shm", "run.db-lock"}
    for content in (*while_open.values(), after):
        assert canary.encode() not in content
    assert b"cdn.example.com/a.jpg" in after
    assert while_open["run.db-lock"] == b"%d\n" % os.getpid()
