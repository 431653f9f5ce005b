"""The standard streams of a command: output that nobody can read costs words, never the work.

What cannot be written to standard error is dropped. What cannot be written to standard output was asked for, so the
first failure is raised as :class:`Unwritable`. What the encoding of a stream cannot show is escaped.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import Any, Final, TextIO

from seedance_avatar import InvalidInput

__all__ = ["Unwritable", "check_standard_input", "open_streams", "write_at_once"]

_AT_ONCE: Final = 4096
"""Bytes that a pipe which is ready for writing takes without waiting (POSIX: PIPE_BUF)."""


class Unwritable(Exception):  # noqa: N818 - the name says what happened, as those of the public errors do
    """Results could not be written; the message says where and why.

    :ivar strerror: why, in the system's words.
    """

    def __init__(self, message: str, strerror: str | None = None) -> None:
        super().__init__(message)
        self.strerror = strerror


class _Output(io.RawIOBase):
    """A descriptor for writing, which drops what comes after a first failure."""

    def __init__(self, descriptor: int, *, required: bool) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._required = required
        self._failed = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - bytes or a view of them, as the buffer above hands them over
        while not self._failed:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # whoever shares the descriptor has made it non-blocking
                select.select((), (self._descriptor,), ())
            except OSError as error:
                self._failed = True
                if self._required:
                    message = f"standard output cannot be written: {error.strerror}"
                    raise Unwritable(message, error.strerror) from None
        return len(data)


def open_streams() -> None:
    """Replace the standard streams by ones that keep to this module's rules.

    The number of a stream that is closed is taken by one that fails in the same way, so that no file which is opened
    later gets the number, and with it what was meant for the stream.
    """
    taken = [_fill(descriptor, os.O_RDONLY if descriptor else os.O_WRONLY) for descriptor in range(3)]
    if sys.stdin is None:
        sys.stdin = os.fdopen(taken[0], encoding="utf-8", closefd=False)
    sys.stdout = _text(sys.stdout, taken[1], required=True)
    sys.stderr = _text(sys.stderr, taken[2], required=False)


def _fill(descriptor: int, flags: int) -> int:
    try:
        os.fstat(descriptor)
    except OSError:
        return os.open(os.devnull, flags)  # the lowest free number, which is this one
    return descriptor


def _text(stream: TextIO | None, descriptor: int, *, required: bool) -> TextIO:
    encoding = "utf-8" if stream is None else stream.encoding
    if os.name == "nt" and isinstance(stream, io.TextIOWrapper) and stream.isatty():
        stream.reconfigure(errors="backslashreplace")  # a console of Windows is more than a descriptor
        return stream
    raw = _Output(descriptor, required=required)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty() or not required,
    )


def check_standard_input() -> None:
    """Check that standard input can be read.

    :raises InvalidInput: it is closed, or a folder.
    """
    try:
        os.read(sys.stdin.fileno(), 0)
    except io.UnsupportedOperation:
        return  # it was replaced by an object without a descriptor
    except OSError as error:
        message = f"standard input cannot be read ({error.strerror}): name a file, or give the manifest through a pipe"
        raise InvalidInput(message) from None


def write_at_once(text: str) -> None:
    """Write ``text`` to standard error, from a signal handler; drop it where that would have to wait."""
    data = text.encode(sys.stderr.encoding or "utf-8", "backslashreplace")[:_AT_ONCE]
    with contextlib.suppress(OSError, ValueError):
        if os.name == "nt" or select.select((), (2,), (), 0)[1]:
            os.write(2, data)
