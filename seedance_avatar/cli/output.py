"""The files that a command writes: looked at before they are opened, and never in place of something else."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import Final

from seedance_avatar import InvalidInput
from seedance_avatar.text import safe_text

from .streams import Unwritable

__all__ = ["PARTIAL", "OutputFile", "check_distinct"]

PARTIAL: Final = ".partial"
"""What a file's name ends with until it is whole."""
_NEIGHBOURS: Final = ("-wal", "-shm", "-journal", "-lock", "-new")
"""What the names of files end with that a journal keeps beside itself."""
_DESCRIPTORS: Final = re.compile(r"/dev/fd|/proc/[0-9]+(/task/[0-9]+)?/fd")


class OutputFile:
    """One file that a command writes, a text at a time; it grows as ``NAME.partial`` and takes its name at the end.

    A pipe or a device is written to as it is. A symbolic link stays one: the file that it names is written.

    :param path: its name.
    :param what: what it holds, as the messages begin: ``the results``.
    :ivar partial: where it grows, or an empty text for a pipe or a device.
    :ivar kept: True when it did not take its name, since an earlier file of that name holds more.
    """

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        self.kept: bool = False
        self._what = what
        self._target = os.path.realpath(path)
        self.partial: str = f"{self._target}{PARTIAL}" if _is_replaceable(path) else ""
        self._number: int | None = None

    @property
    def shown(self) -> str:
        """The path of what was written, for people."""
        return self.shown_partial if self.kept else self.path

    @property
    def shown_partial(self) -> str:
        """Where it grows, for people."""
        return self.partial if Path(self.path).is_symlink() else f"{self.path}{PARTIAL}"

    def check(self) -> None:
        """Check that it can be written, and open nothing.

        :raises InvalidInput: it cannot.
        """
        for path in (self.path, self.partial) if self.partial else (self.path,):
            mode = _mode(path)
            if mode is None or (stat.S_ISREG(mode) and os.access(path, os.W_OK)):
                continue
            if path == self.partial or not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
                flaw = "is read-only" if stat.S_ISREG(mode) else "is a folder" if stat.S_ISDIR(mode) else "is no file"
                self._refuse(f"{safe_text(path)} {flaw}")
        folder = Path(self._target).parent
        if self.partial and not folder.is_dir():
            self._refuse("No such file or directory")
        if self.partial and not os.access(folder, os.W_OK | os.X_OK):
            self._refuse(f"the folder {safe_text(folder)} is read-only")

    def open(self, *, replace: bool = True) -> None:
        """Open it; waits for the reader of a named pipe.

        :param replace: begin a partial file anew that another run has left; else that is refused.
        :raises InvalidInput: it cannot be written.
        """
        flags = os.O_APPEND if not self.partial else os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL)
        flags |= getattr(os, "O_CLOEXEC", 0) | (getattr(os, "O_NOFOLLOW", 0) if self.partial else 0)
        try:
            self._number = os.open(self.partial or self.path, os.O_WRONLY | flags, 0o666)
        except OSError as error:
            self._refuse(error.strerror or "")

    def write(self, text: str) -> None:
        """Write ``text``, whole.

        :raises Unwritable: it could not be written.
        """
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        try:
            while data and self._number is not None:
                data = data[os.write(self._number, data) :]
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self, *, whole: bool, lines: int = 0) -> None:
        """Close it, and let it take its name.

        :param whole: False for a run that ended early: a file that holds more than ``lines`` lines is kept then, and
            this one keeps the name of a partial file.
        :raises Unwritable: it could not be renamed.
        """
        if self._number is None:
            return
        number, self._number = self._number, None
        try:
            os.close(number)
            if self.partial and not (whole or lines >= _lines(self._target)):
                self.kept = True
            elif self.partial:
                mode = _mode(self._target)
                if mode is not None:
                    Path(self.partial).chmod(stat.S_IMODE(mode))
                Path(self.partial).replace(self._target)
        except OSError as error:
            raise self._unwritable(error) from None

    def abandon(self) -> None:
        """Close it and leave it where it grew, for it is not to be trusted."""
        number, self._number = self._number, None
        if number is not None:
            with contextlib.suppress(OSError):
                os.close(number)

    def _refuse(self, why: str) -> None:
        message = f"{self._what} cannot be written to {safe_text(self.path)}: {why}"
        raise InvalidInput(message)

    def _unwritable(self, error: OSError) -> Unwritable:
        message = f"{self._what} cannot be written to {safe_text(self.path)}: {error.strerror}"
        return Unwritable(message, error.strerror)


def check_distinct(*named: tuple[str, str | int | None], journal: str | None = None) -> None:
    """Check, before anything is opened, that no two of the files of a command are one file under whatever names.

    :param named: what each is called in the message, and its path, its descriptor or None; for those beginning with
        ``--`` the partial file counts too.
    :param journal: the path of the journal; the files that it keeps beside itself count too.
    :raises InvalidInput: two are one.
    """
    seen: dict[object, str] = {}
    roles = [*named, ("--journal", journal)]
    for role, path in roles:
        names = [path]
        if isinstance(path, str) and role.startswith("--"):
            real = os.path.realpath(path)
            ends = _NEIGHBOURS if role == "--journal" else (PARTIAL,) if _is_replaceable(path) else ()
            names += [f"{real}{end}" for end in ends]
        for name in names:
            identity = None if name is None else _identity(name)
            if identity is not None and seen.setdefault(identity, role) != role:
                message = f"{seen[identity]} and {role} would be one file ({safe_text(path)}): name another one"
                raise InvalidInput(message)


def _identity(path: str | int) -> object:
    """Return what two names of one file have in common, or None for what many may share (a terminal, ``/dev/null``)."""
    try:
        facts = os.fstat(path) if isinstance(path, int) else Path(path).stat()
    except (OSError, ValueError):
        return None if isinstance(path, int) else os.path.normcase(os.path.realpath(path))
    if stat.S_ISREG(facts.st_mode) or stat.S_ISFIFO(facts.st_mode):
        return facts.st_dev, facts.st_ino
    return None


def _mode(path: str) -> int | None:
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        message = f"{safe_text(path)} cannot be written: {getattr(error, 'strerror', None) or error}"
        raise InvalidInput(message) from None


def _is_replaceable(name: str) -> bool:
    """Return whether ``name`` is that of a regular file, or of none yet, and of no descriptor (``/dev/stdout``)."""
    path = Path(name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
    except (OSError, ValueError):
        return True
    while not _DESCRIPTORS.fullmatch(os.path.realpath(path.parent)):
        if not path.is_symlink():
            return True
        path = path.parent / path.readlink()
    return False


def _lines(path: str) -> int:
    try:
        with Path(path).open("rb") as stream:
            return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    except OSError:
        return 0
