"""The lock that lets one process at a time write a journal."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from seedance_avatar.errors import JournalError
from seedance_avatar.text import safe_text

_FAR: Final = 1 << 30
"""The offset of the byte that is locked on Windows: others cannot read it, and they read the pid at the beginning."""


def refused(path: Path, what: str, advice: str) -> JournalError:
    """Return the error for a journal that cannot be used: ``what`` is wrong with it, and what to do."""
    return JournalError(f"{what}; {advice}", about=f"journal {safe_text(path, 160)}")


def _locker(journal: Path) -> Callable[[int], None]:
    """Return the function that locks an open file for this process, and raises OSError when another one has it."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        try:
            import msvcrt  # noqa: PLC0415 - only Windows has it
        except ImportError:
            what = "cannot be locked: this Python has neither fcntl nor msvcrt"
            raise refused(journal, what, "use a Python that has one of them") from None

        def lock_byte(number: int) -> None:
            os.lseek(number, _FAR, os.SEEK_SET)
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]  # not there for a checker on Unix

        return lock_byte
    return lambda number: fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


@attrs.define(eq=False, repr=False)
class Lock:
    """An exclusive lock of the operating system on a file beside the journal, which holds the writer's pid.

    The system frees it when the process ends, however it ends, so it cannot be stale.
    """

    _path: Path
    _number: int

    @classmethod
    def acquire(cls, journal: Path) -> Lock:
        """Take the lock.

        :raises JournalError: another process, or another ``Journal`` of this one, holds it.
        """
        path = Path(f"{journal}-lock")
        lock = _locker(journal)
        while True:
            number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
            try:
                try:
                    lock(number)
                except (BlockingIOError, PermissionError):  # what fcntl and msvcrt say of a lock that is taken
                    os.lseek(number, 0, os.SEEK_SET)
                    raise _held(journal, os.read(number, 20)) from None
                # Who held it before may have removed the file between our two calls: then the lock is on no file.
                held = cls(path, number)
                if held.in_place():
                    os.ftruncate(number, 0)
                    os.lseek(number, 0, os.SEEK_SET)
                    os.write(number, b"%d\n" % os.getpid())
                    _held_here.add(held)
                    return held
            except BaseException:
                os.close(number)
                raise
            os.close(number)

    def in_place(self) -> bool:
        """Return whether the file that is locked still lies where others look for it."""
        try:
            return os.path.samestat(os.fstat(self._number), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock back and remove its file; a second time does nothing."""
        if self._number >= 0:
            ours = self.in_place()  # else it is another writer's
            if ours:
                with contextlib.suppress(OSError):
                    self._path.unlink()
            self.forget()
            if ours and os.name == "nt":
                with contextlib.suppress(OSError):  # Windows removes no open file, so also not one that another opened
                    self._path.unlink()

    def forget(self) -> None:
        """Close our handle without touching the lock itself: what a forked child does with its copy."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)


def _held(path: Path, content: bytes) -> JournalError:
    pid = content.strip().decode("ascii", "replace")
    if pid == str(os.getpid()):
        return refused(path, "is already open in this process", "close it there first")
    holder = f"process {pid}" if pid.isdigit() else "another process"
    return refused(path, f"is held by {holder}", "wait until it has ended, or open it with readonly=True")


_held_here: weakref.WeakSet[Lock] = weakref.WeakSet()


def _after_fork() -> None:
    # A child's copy of the handle would keep the lock alive after its parent is dead.
    for lock in list(_held_here):
        lock.forget()


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(after_in_child=_after_fork)
