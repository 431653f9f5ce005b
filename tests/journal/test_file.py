"""The journal's file: what is not a journal stays untouched, and one process writes at a time."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import signal
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from rig.journals import HOLDER, child, directory_not_ours, entry_of, known, may_not_write, names_in, planned, sql

from seedance_avatar.errors import JournalError, SessionStateError
from seedance_avatar.journal import file as journal_file
from seedance_avatar.journal.file import MIGRATIONS
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.lock import Lock


async def make(path: Path) -> None:
    async with await Journal.open(path) as journal:
        await planned(journal)


def foreign(path: Path) -> None:
    sql(path, "CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)")


@pytest.mark.asyncio
@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("content", [b"hello\n", b"SQLite format 3\0", b"\0" * 4096, None])
async def test_what_is_not_a_journal_is_refused_and_not_touched(
    tmp_path: Path, content: bytes | None, *, readonly: bool
) -> None:
    path = tmp_path / "run.db"
    if content is None:
        foreign(path)
    else:
        path.write_bytes(content)
    before = path.read_bytes(), path.stat()
    with pytest.raises(JournalError, match=r"run\.db: is not a journal of this library and was not touched"):
        await Journal.open(path, readonly=readonly)
    assert path.read_bytes() == before[0]
    assert path.stat().st_mtime_ns == before[1].st_mtime_ns
    assert names_in(tmp_path) == ["run.db"]


@pytest.mark.asyncio
@pytest.mark.parametrize("readonly", [False, True])
async def test_a_newer_version_is_refused_and_not_touched(tmp_path: Path, *, readonly: bool) -> None:
    path = tmp_path / "run.db"
    await make(path)
    sql(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"has version \d and was not touched"):
        await Journal.open(path, readonly=readonly)
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["run.db"]


@pytest.mark.asyncio
async def test_a_newer_version_that_only_the_log_knows_of_is_seen_too(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await make(path)
    # A newer library that was killed before the log was merged: the header still has the old version.
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        before = path.read_bytes()
        assert journal_file.read_version(path) == len(MIGRATIONS)
        with pytest.raises(JournalError, match="was not touched"):
            await Journal.open(path)
        assert path.read_bytes() == before
    finally:
        other.close()


@pytest.mark.asyncio
async def test_an_empty_file_becomes_a_journal_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    path.touch(mode=0o644)
    # What a removed journal or a killed creation left must not be read as this one's.
    (tmp_path / "run.db-wal").touch()
    (tmp_path / "run.db-shm").write_bytes((3007000).to_bytes(4, sys.byteorder) + bytes(32764))
    (tmp_path / "run.db-new").touch()
    async with await Journal.open(path) as journal:
        await planned(journal)
        modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names_in(tmp_path)}
    assert modes == dict.fromkeys(["run.db", "run.db-lock", "run.db-shm", "run.db-wal"], 0o600)
    assert names_in(tmp_path) == ["run.db"]
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.asyncio
async def test_places_where_no_journal_can_be(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file or directory"):
        await Journal.open(tmp_path / "nowhere" / "run.db")
    with pytest.raises(JournalError, match="there is no journal to read"):
        await Journal.open(tmp_path / "run.db", readonly=True)
    assert names_in(tmp_path) == []


@pytest.mark.asyncio
async def test_a_directory_that_cannot_be_written_takes_no_journal_but_can_be_read() -> None:
    with directory_not_ours() as directory:
        with may_not_write(directory), pytest.raises(JournalError, match=r"Permission denied.*can be written"):
            await Journal.open(directory / "run.db")
        await make(directory / "run.db")
        (directory / "run.db").chmod(0o644)
        with may_not_write(directory):
            async with await Journal.open(directory / "run.db", readonly=True) as journal:
                assert [record.state async for record in journal.records()] == ["planned"]
            with pytest.raises(JournalError, match="Permission denied"):
                await Journal.open(directory / "run.db")
        assert names_in(directory) == ["run.db"]


@pytest.mark.asyncio
async def test_a_damaged_journal_is_an_error_with_nothing_left_open(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await make(path)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    for readonly in (False, True):
        with pytest.raises(JournalError, match="cannot be used: database disk image is malformed"):
            await Journal.open(path, readonly=readonly)
    assert "run.db-lock" not in names_in(tmp_path)


@pytest.mark.asyncio
async def test_a_second_writer_is_refused_by_name_and_a_kill_frees_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with child(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(JournalError, match=f"is held by process {holder.pid}; wait until it has ended"):
            await Journal.open(path)
        async with await Journal.open(path, readonly=True) as reader:
            assert [record.state async for record in reader.records()] == ["sending"]
            assert reader.recovered == 0
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert "run.db-lock" in names_in(tmp_path)
    async with await Journal.open(path) as journal:
        assert journal.recovered == 1
        assert (await known(journal)).state == "in_doubt"
        with pytest.raises(JournalError, match="is already open in this process; close it there first"):
            await Journal.open(path)
        # Another name of the same file is the same journal.
        (tmp_path / "alias.db").symlink_to(path)
        with pytest.raises(JournalError, match="already open"):
            await Journal.open(tmp_path / "alias.db")
    assert names_in(tmp_path) == ["alias.db", "run.db"]


@pytest.mark.asyncio
async def test_a_reader_sees_what_is_written_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await make(path)
    before = path.read_bytes()
    async with await Journal.open(path, readonly=True) as reader:
        name = entry_of(reader).fingerprint
        with pytest.raises(JournalError, match="opened for reading only"):
            await reader.sending(name)
        with pytest.raises(JournalError, match="opened for reading only"):
            reader.ended(name, "active")
        with pytest.raises(JournalError, match="opened for reading only"):
            await reader.claim([entry_of(reader)])
        with pytest.raises(JournalError, match="opened for reading only"):
            await reader.save_learned("image", {})
        with pytest.raises(JournalError, match="opened for reading only"):
            reader.note({"rate": 1})
        assert path.read_bytes() == before
        async with await Journal.open(path) as journal:
            await journal.sending(name)
            assert [record.state async for record in reader.records()] == ["sending"]


def test_the_lock_that_was_waited_for_is_not_a_ghost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "run.db"
    true_flock = fcntl.flock
    removed: list[int] = []

    def flock_behind_a_removal(number: int, operation: int) -> None:
        # The holder goes away, its file with it, between our opening of the file and our locking it.
        if not removed:
            removed.append(number)
            (tmp_path / "run.db-lock").unlink()
        true_flock(number, operation)

    monkeypatch.setattr(fcntl, "flock", flock_behind_a_removal)
    lock = Lock.acquire(journal)
    try:
        assert (tmp_path / "run.db-lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(JournalError, match="already open"):
            Lock.acquire(journal)
    finally:
        lock.release()
        lock.release()
    assert names_in(tmp_path) == []


@pytest.mark.asyncio
async def test_an_older_version_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.db"
    await make(path)
    newer = (*MIGRATIONS, ("ALTER TABLE item ADD COLUMN colour TEXT", "UPDATE item SET colour = 'red'"))
    monkeypatch.setattr(journal_file, "MIGRATIONS", newer)
    async with await Journal.open(path) as journal:
        assert (await known(journal)).state == "planned"
    assert sql(path, "SELECT colour FROM item") == [("red",)]
    assert sql(path, "PRAGMA user_version") == [(len(newer),)]


@pytest.mark.asyncio
async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.db"
    await make(path)
    broken = (*MIGRATIONS, ("ALTER TABLE item ADD COLUMN colour TEXT", "UPDATE absent SET x = 1"))
    with monkeypatch.context() as patch:
        patch.setattr(journal_file, "MIGRATIONS", broken)
        with pytest.raises(JournalError, match="no such table: absent"):
            await Journal.open(path)
        with pytest.raises(JournalError, match="no such table: absent"):
            await Journal.open(tmp_path / "fresh.db")
    assert sql(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    async with await Journal.open(path) as journal:
        assert (await known(journal)).state == "planned"
    assert not (tmp_path / "fresh.db").exists()


@pytest.mark.asyncio
async def test_a_reader_of_an_older_version_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.db"
    await make(path)
    version = len(MIGRATIONS)
    monkeypatch.setattr(journal_file, "MIGRATIONS", (*MIGRATIONS, ("ALTER TABLE item ADD COLUMN colour TEXT",)))
    with pytest.raises(JournalError, match=f"has the older version {version}; open it once for writing"):
        await Journal.open(path, readonly=True)
    assert sql(path, "PRAGMA user_version") == [(version,)]


@pytest.mark.asyncio
async def test_keys_of_a_version_1_journal_belong_to_their_groups(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    secret = bytes(range(32))

    def version_1_name(*parts: str) -> bytes:
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.blake2b(text.encode(), digest_size=16, key=secret).digest()

    names = [
        version_1_name("asset", "front"),
        version_1_name("asset", "image", "pg_1", "https://cdn.example.com/0.jpg"),
        version_1_name("group", "brand"),
    ]
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("UPDATE secret SET value = ?", (secret,))
    connection.execute("INSERT INTO place VALUES (1, 'pg_1')")
    for number, (name, kind, place, key) in enumerate(
        zip(names, (0, 0, 4), (1, 1, None), ("front", None, "brand"), strict=True)
    ):
        row = name, kind, 3, 1, place, "shown", key, f"id_{number}", 1
        query = """INSERT INTO item (fingerprint, kind, state, attempts, place, shown, key, remote_id, planned_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
        connection.execute(query, row)
    connection.execute(f"PRAGMA application_id = {journal_file.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    async with await Journal.open(path) as journal:
        url = "https://cdn.example.com/0.jpg"
        entries = [
            journal.entry(kind="image", group_id="pg_1", url="https://cdn.example.com/9.jpg", key="front"),
            journal.entry(kind="image", group_id="pg_1", url=url),
            journal.entry(kind="group", key="brand"),
            journal.entry(kind="image", group_id="pg_2", url=url, key="front"),
        ]
        found = await journal.known([entry.fingerprint for entry in entries])
        assert [it and it.remote_id for it in found] == ["id_0", "id_1", "id_2", None]
        assert [(it.url_hash, it.run) for it in found if it is not None] == [(None, None)] * 3


@pytest.mark.asyncio
async def test_an_sqlite_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_file, "_OLDEST_SQLITE", (99, 0))
    with pytest.raises(JournalError, match=r"needs SQLite 99\.0 or newer, and Python was built with"):
        await Journal.open(tmp_path / "run.db")
    assert names_in(tmp_path) == []


def test_a_forked_child_is_told_and_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    program = """
import asyncio, os, sys, signal, warnings
from seedance_avatar.errors import SessionStateError
from seedance_avatar.journal import Journal

warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on a fork with threads is warned of

async def main():
    journal = await Journal.open(sys.argv[1])
    if os.fork() == 0:
        try:
            journal.note({"x": 1})
        except SessionStateError as error:
            print(error, flush=True)
        sys.stdin.read()  # outlives its parent
        os._exit(0)
    os.wait3(os.WNOHANG)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    with child(program, path) as parent:
        assert parent.stdout is not None
        assert f"was opened by process {parent.pid}: a forked child must not use it" in parent.stdout.readline()
        parent.kill()
        os.waitpid(parent.pid, 0)
        lock = Lock.acquire(path)
        lock.release()


def test_a_journal_belongs_to_its_loop(tmp_path: Path) -> None:
    async def use_elsewhere(journal: Journal) -> None:
        with pytest.raises(SessionStateError, match="was opened on another event loop"):
            await journal.summary()
        with pytest.raises(SessionStateError, match="was opened on another event loop"):
            await journal.aclose()

    with asyncio.Runner() as runner, asyncio.Runner() as other:
        journal = runner.run(Journal.open(tmp_path / "run.db"))
        other.run(use_elsewhere(journal))
        runner.run(journal.aclose())
