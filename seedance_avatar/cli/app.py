"""The commands of the program, and how an error becomes one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from seedance_avatar import AvatarError, __version__
from seedance_avatar.text import safe_text

from .arguments import INVOCATION, hide_dashes, show_dashes
from .exits import EXIT_CODES, Exit, exit_for_error, exit_for_signal
from .pages import page_pointer
from .streams import Unwritable

__all__ = ["app", "run"]

_HELP: Final = """Turn public URLs of images, videos and voices into active assets that
Seedance 2 can generate videos with.

Try it without a key, against a local copy of the service:

    seedance-avatar demo

Then with your own manifest (CSV with a header, JSON Lines, Parquet, or text
with one URL a line):

    export TOAPIS_API_KEY=sk-...
    seedance-avatar ingest sources.csv --dry-run
    seedance-avatar ingest sources.csv --group-name brand-avatar \\
        --journal run.db --out results.jsonl

If it is interrupted, run the same line again: the journal records what was
sent. Then generate a video with the active assets:

    seedance-avatar generate "She waves at the camera." \\
        --journal run.db --key face-001 --out wave.mp4

More, from a first run to every message: seedance-avatar guide
"""

_EPILOGUE: Final = f"""{EXIT_CODES}

Any command takes --debug, to show the traceback of an unexpected error."""

app: Final = App(
    name="seedance-avatar",
    version=__version__,
    help=_HELP,
    help_epilogue=_EPILOGUE,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
for _name in ("demo", "ingest", "generate", "report", "sandbox", "guide"):
    # Loaded when it is called, so that none waits for what another one needs.
    app.command(f"seedance_avatar.cli.commands.{_name}:{_name}", name=_name)


def run(arguments: Sequence[str]) -> int:
    """Run the command in ``arguments`` and return its exit code; an error is one line on standard error.

    With ``--debug`` among them an unexpected error is raised.
    """
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    INVOCATION.set(arguments)
    try:
        if arguments[:1] in ([], ["--help"], ["-h"]):
            app.resolved_commands()  # the list says in a line what each of them does
        code = app(hide_dashes(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        help_of = " ".join(["seedance-avatar", *(error.command_chain or ()), "--help"])
        return _failed(f"{show_dashes(str(error)).rstrip('.')}; see {help_of}", Exit.USAGE)
    except KeyboardInterrupt:
        return _failed("interrupted", exit_for_signal(2))
    except Exception as error:
        if debug:
            raise
        message = str(error) if isinstance(error, AvatarError | Unwritable) else _unexpected(error)
        return _failed(message, _code(error), page_pointer(error))
    return int(code) if isinstance(code, int) else Exit.DONE


def _code(error: Exception) -> int:
    if isinstance(error, AvatarError):
        return exit_for_error(error)
    return Exit.UNWRITABLE if isinstance(error, Unwritable) else Exit.BROKEN


def _unexpected(error: Exception) -> str:
    return f"a fault in this program: {type(error).__name__}: {error}; run it again with --debug for the traceback"


def _failed(message: str, code: int, pointer: str = "") -> int:
    sys.stderr.write(f"seedance-avatar: {safe_text(message, 700)}{pointer}\n")
    return code
