"""The command line ``seedance-avatar``, written with the public names of this package."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command that the process was started with, and return its exit code."""
    try:
        from .app import run  # noqa: PLC0415 - the extra may be missing: one line says what to install
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"cyclopts", "rich"}:
            raise
        sys.stderr.write("seedance-avatar needs its command line extra: pip install 'seedance-avatar[cli]'\n")
        return 64
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # The reader of the pipe has gone, which was reported already. The interpreter flushes once more as it ends,
        # and would print a second error: it is given something that can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
