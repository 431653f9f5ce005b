"""Handles Ctrl-C and SIGTERM: the first ends a run in order, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from seedance_avatar.cli.exits import exit_for_signal

__all__ = ["Interrupts"]


class Interrupts:
    """A context manager in which the first SIGINT or SIGTERM calls ``first``, and the second ends the process.

    The handlers are the interpreter's own and not the loop's, so that the second signal ends a process whose loop
    is stuck.

    :param first: called once, on the loop.
    :param last_words: called in the handler of the second signal; returns the last text on standard error, and must
        not wait for anything.
    :ivar caught: the number of the first signal that came, or None.
    """

    def __init__(self, first: Callable[[], object], last_words: Callable[[], str]) -> None:
        self.caught: int | None = None
        self._first = first
        self._last_words = last_words
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def handle(signum: int, frame: FrameType | None) -> None:
            del frame
            if self.caught is None:
                self.caught = signum
                loop.call_soon_threadsafe(self._first)
                return
            try:
                # Not with sys.stderr: the signal may have come in the middle of a write to it, which is not reentrant.
                os.write(2, self._last_words().encode())
            finally:
                os._exit(exit_for_signal(signum))

        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @property
    def exit(self) -> int | None:
        """The exit code of the signal, or None when none came."""
        return None if self.caught is None else exit_for_signal(self.caught)
