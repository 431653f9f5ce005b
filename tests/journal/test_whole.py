"""A journal is the file that it was, with its log and its lock; else nothing more is written, and nothing is sent."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from rig.journals import HOLDER, child, entry_of, known, names_in, planned, sql
from rig.leaks import no_leaks
from rig.world import sources, world

from seedance_avatar import JournalError, Limits, Unsent
from seedance_avatar.journal import store as journal_store
from seedance_avatar.journal.journal import Journal, JournalReader


@pytest.fixture(autouse=True)
def _looked_after_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_store, "_CHECK_EVERY", 0.0)


def backup(path: Path, to: Path) -> None:
    with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(to)) as copy:
        live.backup(copy)


async def filled(path: Path, *, count: int = 3) -> None:
    async with await Journal.open(path) as journal:
        for number in range(count):
            name = await planned(journal, number)
            await journal.sending(name)
            await journal.accepted(name, f"pa_{number}")


def _removed(path: Path) -> None:
    for file in path.parent.glob("run.db*"):
        if not file.name.endswith("-lock"):
            file.unlink()


def _replaced_by_its_copy(path: Path) -> None:
    (path.parent / "older.db").replace(path)


def _overwritten_by_its_copy(path: Path) -> None:
    path.write_bytes((path.parent / "older.db").read_bytes())


def _a_folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_link_instead(path: Path) -> None:
    path.rename(path.parent / "moved.db")
    path.symlink_to(path.parent / "older.db")


LOSSES: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (_removed, "run.db was removed or moved away"),
    "moved": (lambda path: path.rename(path.parent / "moved.db"), "run.db was removed or moved away"),
    "its log removed": (lambda path: Path(f"{path}-wal").unlink(), "run.db-wal was removed"),
    "its lock removed": (lambda path: Path(f"{path}-lock").unlink(), "run.db-lock was removed"),
    "replaced by an older copy": (_replaced_by_its_copy, "run.db was replaced by another file"),
    "overwritten by an older copy": (_overwritten_by_its_copy, "run.db was overwritten"),
    "overwritten by zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "run.db was overwritten"),
    "a folder instead": (_a_folder_instead, "run.db was replaced by another file"),
    "a link instead": (_a_link_instead, "run.db was replaced by another file"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", LOSSES)
async def test_a_loss_is_noticed_before_the_next_intent(tmp_path: Path, name: str) -> None:
    lose, what = LOSSES[name]
    path = tmp_path / "run.db"
    await filled(path)
    backup(path, tmp_path / "older.db")
    async with await Journal.open(path) as journal:  # merges: the copy is older than the file alone
        await journal.claim([entry_of(journal, 10)])
    older = (tmp_path / "older.db").read_bytes()
    journal = await Journal.open(path)
    waiting, sent = await planned(journal, 20), await planned(journal, 21)
    await journal.sending(sent)
    lose(path)
    with pytest.raises(JournalError, match=f"{what}.* while it was in use; nothing more is sent"):
        await journal.sending(waiting)
    with pytest.raises(JournalError, match=what):
        await journal.accepted(sent, "pa_21")
    with pytest.raises(JournalError, match=f"{what}.*1 change could not be written .*: accepted pa_21") as caught:
        await journal.aclose()
    assert [change.remote_id for change in caught.value.unwritten] == ["pa_21"]
    assert "run.db-lock" not in names_in(tmp_path)
    if "older copy" in name:  # what was put there is as it was put there, without a log that is not its own
        assert path.read_bytes() == older
        assert "run.db-wal" not in names_in(tmp_path)
        async with await Journal.open(path) as journal:
            assert (await known(journal, 2)).remote_id == "pa_2"
            assert await journal.known([entry_of(journal, 20).fingerprint]) == [None]


@pytest.mark.asyncio
async def test_a_loss_without_another_write_is_told_by_closing(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = await Journal.open(path)
    _removed(path)
    with pytest.raises(JournalError, match="was removed or moved away"):
        await journal.aclose()


@pytest.mark.asyncio
async def test_a_file_that_was_only_touched_or_read_is_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with await Journal.open(path) as journal:
        os.utime(path, (1, 1))
        path.chmod(0o640)
        await journal.sending(await planned(journal))
        backup(path, tmp_path / "copy.db")
        async with JournalReader(path) as reader:
            assert (await reader.summary()).count("sending") == 1
        with closing(sqlite3.connect(path)) as other:  # by hand, while it is in use
            other.execute("UPDATE item SET shown = 'by hand'")
            other.commit()
            other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        await journal.sending(await planned(journal, 1))
        assert (await known(journal)).shown == "by hand"


@pytest.mark.asyncio
async def test_a_large_log_is_merged_and_the_file_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_store, "_LARGE_WAL", 1 << 14)
    path = tmp_path / "run.db"
    async with await Journal.open(path) as journal:
        for number in range(300):
            await journal.sending(await planned(journal, number))
        assert Path(f"{path}-wal").stat().st_size < 1 << 18
        # The file alone says that it is not whole without its log.
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as alone:
            ((merges, whole),) = alone.execute("SELECT merges, whole FROM head").fetchall()
        assert merges > 5
        assert whole == 0
    assert sql(path, "SELECT whole FROM head") == [(1,)]


@pytest.mark.asyncio
async def test_a_run_ends_with_the_loss_and_tells_what_had_happened(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world({"limits": Limits(submits_per_second=1e9, max_submitting=4)}) as w:
        outcomes, sent = [], 0
        with pytest.raises(JournalError, match=r"run\.db was removed or moved away while it was in use"):
            async with w.session.ingest(iter(sources(2000)), group=w.group, journal=path) as stream:
                async for outcome in stream.outcomes():
                    outcomes.append(outcome)
                    if len(outcomes) == 10:
                        _removed(path)
                        sent = w.sandbox.ledger.count(method="POST", kind="assets")
        assert w.sandbox.ledger.count(method="POST", kind="assets") <= sent + 8
        assert len(outcomes) == stream.report.taken < 2000
        assert any(isinstance(outcome, Unsent) and isinstance(outcome.error, JournalError) for outcome in outcomes)
        assert w.sandbox.ledger.check(outcomes) == []


# --- between two runs ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_without_the_log_of_a_killed_run_it_is_refused_and_not_touched(tmp_path: Path) -> None:
    path, moved = tmp_path / "run.db", tmp_path / "elsewhere"
    moved.mkdir()
    with child(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
    shutil.copy(path, moved)
    for log in (None, b""):
        if log is not None:
            (moved / "run.db-wal").write_bytes(log)
        before = (moved / "run.db").read_bytes()
        with pytest.raises(JournalError, match=r"was not closed, and its log run\.db-wal.*is missing; put the log"):
            await Journal.open(moved / "run.db")
        assert (moved / "run.db").read_bytes() == before
    shutil.copy(f"{path}-wal", moved)
    for place in (moved / "run.db", path):
        async with await Journal.open(place) as journal:
            assert journal.recovered == 1


@pytest.mark.asyncio
async def test_a_killed_journal_that_another_program_merged_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with child(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
    assert sql(path, "SELECT state FROM item") == [(1,)]  # closing it merged and removed the log
    assert "run.db-wal" not in names_in(tmp_path)
    async with await Journal.open(path) as journal:
        assert journal.recovered == 1


@pytest.mark.asyncio
async def test_a_closed_journal_can_be_moved_alone_and_a_log_alone_is_no_new_journal(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await filled(path)
    moved = path.rename(tmp_path / "moved.db")
    async with await Journal.open(moved) as journal:
        assert (await known(journal)).remote_id == "pa_0"
        shutil.copy(f"{moved}-wal", tmp_path / "other.db-wal")
    with pytest.raises(JournalError, match=r"is not there, but its log other\.db-wal is; bring the journal back"):
        await Journal.open(tmp_path / "other.db")
    assert names_in(tmp_path) == ["moved.db", "other.db-wal"]


# --- what is not a journal's --------------------------------------------------------------------------------


def _device(path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def _socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))


@pytest.mark.asyncio
@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("make", [_device, os.mkfifo, Path.mkdir, _socket], ids=["device", "pipe", "folder", "socket"])
async def test_what_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None], *, link: bool
) -> None:
    path = tmp_path / "it"
    make(path)
    if link:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    before = path.lstat().st_mode, path.stat().st_mode
    for readonly in (False, True):
        with pytest.raises(JournalError, match="is a folder, a device or a pipe and was not touched"):
            async with asyncio.timeout(2):
                await Journal.open(path, readonly=readonly)
    assert (path.lstat().st_mode, path.stat().st_mode) == before
    assert names_in(tmp_path) == (["it", "link"] if link else ["it"])


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["a\0b", "", ".", None, 1, "\ud800", b"run.db/", "x" * 300])
async def test_a_path_that_no_file_can_have_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: object
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.db").mkdir()
    with pytest.raises(JournalError):
        await Journal.open(path)  # type: ignore[arg-type]  # what is given by mistake
    assert names_in(tmp_path) == ["run.db"]


NEIGHBOURS = ["-new", "-new-wal", "-new-shm", "-new-journal", "-wal", "-shm", "-lock", "-journal"]


@pytest.mark.asyncio
@pytest.mark.parametrize("suffix", NEIGHBOURS)
@pytest.mark.parametrize("form", ["file", "folder", "link", "hard link"])
async def test_a_neighbour_that_is_not_ours_is_named_and_not_touched(tmp_path: Path, suffix: str, form: str) -> None:
    precious, beside = tmp_path / "precious", tmp_path / f"run{suffix}"
    # The second name of a file is not ours even if what is in it looks as if it were.
    precious.write_text("999999\n" if "link" in form else "mine\n")
    match form:
        case "file":
            precious.rename(beside)
        case "folder":
            beside.mkdir()
        case "link":
            beside.symlink_to(precious)
        case _:
            beside.hardlink_to(precious)
    before = names_in(tmp_path), beside.lstat().st_mode
    with pytest.raises(JournalError, match=rf"needs the name run{suffix} beside it, which something else has"):
        await Journal.open(tmp_path / "run")
    assert (names_in(tmp_path), beside.lstat().st_mode) == before
    assert form != "file" or beside.read_text() == "mine\n"
    assert form == "file" or precious.read_text() == ("999999\n" if "link" in form else "mine\n")


@pytest.mark.asyncio
@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-lock", "-journal"])
async def test_a_journal_that_is_there_touches_no_neighbour_either(tmp_path: Path, suffix: str) -> None:
    await filled(tmp_path / "run")
    (tmp_path / f"run{suffix}").write_text("mine\n" * 400)
    with pytest.raises(JournalError, match=rf"needs the name run{suffix} beside it"):
        await Journal.open(tmp_path / "run")
    assert (tmp_path / f"run{suffix}").read_text() == "mine\n" * 400


@pytest.mark.asyncio
async def test_a_half_made_journal_of_ours_is_cleared_away(tmp_path: Path) -> None:
    await filled(tmp_path / "other")
    (tmp_path / "other").rename(tmp_path / "run-new")
    async with await Journal.open(tmp_path / "run") as journal:
        assert await journal.known([entry_of(journal).fingerprint]) == [None]
    assert names_in(tmp_path) == ["run"]
