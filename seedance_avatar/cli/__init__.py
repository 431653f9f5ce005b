"""The command line ``seedance-avatar``; it uses only the public face."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command that the process was started with, and return its exit code."""
    try:
        from .app import run  # noqa: PLC0415 - the extra may be missing, which deserves better than a traceback
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"cyclopts", "rich"}:
            raise
        sys.stderr.write("seedance-avatar needs its command line extra: pip install 'seedance-avatar[cli]'\n")
        return 64
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # Its reader is gone, which was told where it mattered; the interpreter shall not stumble over it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
