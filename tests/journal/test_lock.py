"""The lock where Python has no ``fcntl``: Windows' own, here in the shape of Linux' locks of an open file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from rig.journals import child, names_in

from seedance_avatar.errors import JournalError
from seedance_avatar.journal.lock import Lock

WINDOWS = """
import asyncio, sqlite3, ssl, tempfile
import fcntl, os, struct, sys, types

def locking(number, mode, count):
    # Like Windows': a range of bytes from here on, for this handle, and an error at once when another has it.
    at = os.lseek(number, 0, os.SEEK_CUR)
    try:
        fcntl.fcntl(number, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, at, count, 0))  # F_OFD_SETLK
    except OSError:
        raise PermissionError(13, "Permission denied") from None

sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
for name in ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "readline", "syslog"):
    sys.modules[name] = None
for name in ("register_at_fork", "pread", "pwrite", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "getuid"):
    delattr(os, name)
open_file = os.open

def open_no_folder(path, *flags, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied")
    return open_file(path, *flags, **options)

os.open = open_no_folder
"""
"""Takes from a process what only Unix has, and gives it Windows' lock."""

HOLDER = (
    WINDOWS
    + """
import asyncio
from seedance_avatar.journal import Journal

async def main():
    async with await Journal.open(sys.argv[1]) as journal:
        try:
            await Journal.open(sys.argv[1])
        except Exception as error:
            print(error, flush=True)
        sys.stdin.readline()
    print("closed", flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""
)

OTHER = (
    WINDOWS
    + """
import asyncio
from seedance_avatar.journal import Journal

async def main():
    try:
        async with await Journal.open(sys.argv[1]):
            print("held", flush=True)
            sys.stdin.readline()
    except Exception as error:
        print(error, flush=True)

asyncio.run(main())
"""
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="Windows' lock is played by one that only Linux has")


@linux
def test_the_lock_of_windows_keeps_others_out_says_who_holds_it_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with child(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert "is already open in this process; close it there first" in holder.stdout.readline()
        with child(OTHER, path) as other:
            assert other.stdout is not None
            assert f"is held by process {holder.pid}; wait until it has ended" in other.stdout.readline()
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "closed\n"
        assert names_in(tmp_path) == ["run.db"]
        with child(OTHER, path) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            other.kill()
            other.wait()
            with child(OTHER, path) as third:
                assert third.stdout is not None
                assert third.stdout.readline() == "held\n"


def test_without_any_lock_of_the_system_there_is_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fcntl", "msvcrt"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(JournalError, match=r"run\.db: cannot be locked: this Python has neither fcntl nor msvcrt"):
        Lock.acquire(tmp_path / "run.db")
    assert names_in(tmp_path) == []


def test_a_lock_whose_file_another_writer_has_made_anew_leaves_that_alone(tmp_path: Path) -> None:
    journal = tmp_path / "run.db"
    first = Lock.acquire(journal)
    (tmp_path / "run.db-lock").unlink()
    assert not first.in_place()
    second = Lock.acquire(journal)
    first.release()
    assert second.in_place()
    assert (tmp_path / "run.db-lock").read_text() == f"{os.getpid()}\n"
    second.release()
    assert names_in(tmp_path) == []
    assert not second.in_place()


@linux
def test_everything_can_be_imported_where_only_windows_is(tmp_path: Path) -> None:
    program = (
        # The libraries know Windows by its name, not by what is missing there.
        "import aiohttp, anyio, cyclopts, rich.console, rich.live\n"
        + WINDOWS
        + """
import importlib, pkgutil, seedance_avatar
names = [it.name for it in pkgutil.walk_packages(seedance_avatar.__path__, "seedance_avatar.")]
for name in names:
    if not name.endswith("__main__") and ".integrations." not in name:
        importlib.import_module(name)
print(len(names))
"""
    )
    with child(program, tmp_path) as process:
        assert process.stdout is not None
        assert int(process.stdout.read() or 0) > 100
