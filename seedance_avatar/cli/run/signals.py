"""Handles Ctrl-C, SIGTERM and SIGHUP: the first ends a run in order, the second ends the process at once."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from seedance_avatar import AvatarError
from seedance_avatar.cli.exits import exit_for_signal
from seedance_avatar.cli.streams import write_at_once

if TYPE_CHECKING:
    from seedance_avatar import AvatarSession

__all__ = ["DRAIN", "Interrupts", "bring_home", "end_on_signals"]

DRAIN: Final = 10.0
"""Seconds to wait, after the first signal, for requests that were already sent."""
_SIGNALS: Final = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Those that end a run; Windows has no SIGHUP."""
_GIVING_UP: Final = 0.1
"""Seconds for an answer to pass through, and between the two cancellations that a call needs which has none."""


class Interrupts:
    """A context manager in which the first signal calls ``first``, and the second ends the process.

    A thread of its own handles the signals. A handler of the interpreter runs only in the main thread and between two
    of its instructions: for a signal that comes just before the loop begins to wait, or while it is stuck, it would
    not run before something else wakes that thread. A SIGHUP that is ignored (nohup) stays so.

    :param first: called once, on the loop; None to end the process with the first signal already.
    :param last_words: called for the signal that ends the process; returns the last text on standard error, and must
        not wait for anything.
    :ivar caught: the number of the first signal that came, or None.
    """

    _entered: ClassVar[list[Interrupts]] = []

    def __init__(self, first: Callable[[], object] | None, last_words: Callable[[], str]) -> None:
        self.caught: int | None = None
        self._first = first
        self._last_words = last_words
        self._loop = asyncio.get_running_loop() if first else None
        self._before: dict[int, Any] = {}
        self._wakeup: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if not self._entered:
            self._listen()
        self._entered.append(self)
        for signum in _SIGNALS:
            if signum in {signal.SIGINT, signal.SIGTERM} or signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, _leave_to_thread)
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._entered.remove(self)
        if self._wakeup is not None:
            before, writing = self._wakeup
            signal.set_wakeup_fd(before)
            os.close(writing)  # which ends the thread

    def _listen(self) -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False), writing

        def listen() -> None:
            while number := os.read(reading, 1):
                if number[0] in _SIGNALS and self._entered:
                    self._entered[-1].handle(number[0])
            os.close(reading)

        threading.Thread(target=listen, name="signals", daemon=True).start()

    def handle(self, signum: int) -> None:
        """Do what the signal asks for, from the thread that listens."""
        if self.caught is None and self._first is not None and self._loop is not None:
            self.caught = signum
            with contextlib.suppress(RuntimeError):  # the loop is closed: its work is over
                self._loop.call_soon_threadsafe(self._first)
            return
        try:
            write_at_once(self._last_words())
        finally:
            os._exit(exit_for_signal(signum))

    @property
    def exit(self) -> int | None:
        """The exit code of the signal, or None when none came."""
        return None if self.caught is None else exit_for_signal(self.caught)


def end_on_signals() -> None:
    """Let a signal end the process at once from here on, wherever no :class:`Interrupts` says otherwise.

    Once the work is over and its exit code stands, signals are ignored: the interpreter, as it ends, would take back
    the handlers, and a second Ctrl-C would kill it.
    """
    atexit.register(lambda: [signal.signal(signum, signal.SIG_IGN) for signum in _SIGNALS])
    Interrupts(None, lambda: "seedance-avatar: interrupted\n").__enter__()


def _leave_to_thread(signum: int, frame: FrameType | None) -> None:
    """Do nothing: the interpreter writes to the thread's pipe only for signals that have a handler."""


async def bring_home(session: AvatarSession, call: asyncio.Future[Any]) -> None:
    """Send nothing new, wait for the answer of ``call`` for :data:`DRAIN` seconds, and then give it up.

    :param call: a single submission of ``session``; what is given up is cancelled.
    """
    with contextlib.suppress(AvatarError):  # the session is closing, which waits for the answer too
        await session.drain(DRAIN)
    await asyncio.wait({call}, timeout=_GIVING_UP)
    while not call.done():  # a first cancellation waits for the answer once more
        call.cancel()
        await asyncio.wait({call}, timeout=_GIVING_UP)
