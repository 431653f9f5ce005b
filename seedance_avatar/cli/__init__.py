"""The command line ``seedance-avatar``, written with the public names of this package."""

from __future__ import annotations

import sys

from .run.signals import end_on_signals
from .streams import open_streams

__all__ = ["main"]


def main() -> int:
    """Run the command that the process was started with, and return its exit code."""
    open_streams()
    end_on_signals()
    try:
        from .app import run  # noqa: PLC0415 - the extra may be missing: one line says what to install
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"cyclopts", "rich"}:
            raise
        sys.stderr.write("seedance-avatar needs its command line extra: pip install 'seedance-avatar[cli]'\n")
        return 64
    return run(sys.argv[1:])
