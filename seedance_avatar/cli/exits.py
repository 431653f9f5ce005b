"""The exit codes of the commands, and which one an error or a signal gives."""

from __future__ import annotations

import signal
from enum import IntEnum
from typing import Final

from seedance_avatar import (
    AssetFailed,
    AuthError,
    ContentRefused,
    GenerationFailed,
    InvalidInput,
    InvalidRequest,
    JournalError,
    NotFound,
    QuotaExhausted,
)

__all__ = ["EXIT_CODES", "Exit", "exit_for_error", "exit_for_signal"]


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    FAILED = 2
    UNFINISHED = 3
    REFUSED = 4
    USAGE = 64
    BROKEN = 70
    UNWRITABLE = 74


EXIT_CODES: Final = """Exit codes (the last one that applies):

    0    all active, or the video downloaded (demo: only the expected failures)
    2    some failed or were rejected, in this run (not in an earlier one)
    3    some are in doubt, pending or not sent
    4    the service refused the key, or the account has no quota
    64   the command, the manifest or the journal cannot be used
    70   a fault in this program
    74   the results could not be written
    129  ended by SIGHUP (the terminal was closed)
    130  interrupted by Ctrl-C (SIGINT)
    143  ended by SIGTERM"""


def exit_for_error(error: BaseException) -> Exit:
    """Return the exit code of a command that ``error`` ended."""
    match error:
        case AuthError() | QuotaExhausted():
            return Exit.REFUSED
        case InvalidInput() | JournalError():
            return Exit.USAGE
        case AssetFailed() | GenerationFailed() | ContentRefused() | InvalidRequest() | NotFound():
            return Exit.FAILED
        case _:
            return Exit.UNFINISHED


def exit_for_signal(signum: int) -> int:
    """Return the exit code of a command that ``signum`` ended, as shells count: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + signal.Signals(signum)
