"""Types of arguments, and a lone ``-`` among them, which the parser would take for an option without a name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from seedance_avatar import InvalidInput
from seedance_avatar.text import safe_text

__all__ = ["INVOCATION", "FileOrDash", "Flag", "check_folder", "command_line", "hide_dashes", "show_dashes"]

INVOCATION: ContextVar[Sequence[str]] = ContextVar("INVOCATION", default=())
"""The arguments of the command that is running."""

_DASH: Final = "\x00"
"""Stands for ``-`` while arguments are parsed; no argument of a process can contain it."""


def command_line() -> str:
    """Return the running command, quoted for a shell."""
    return shlex.join(["seedance-avatar", *INVOCATION.get()])


def hide_dashes(arguments: Sequence[str]) -> list[str]:
    """Return ``arguments`` as the parser shall see them.

    Every lone ``-`` is replaced by a character that it leaves alone. A flag that may have a value, behind ``=``, stands
    at the end, where no manifest follows that it could take for one.
    """
    words = [_DASH if word == "-" else word for word in arguments]
    return sorted(words, key="--retry-failed".__eq__)


def show_dashes(text: str) -> str:
    """Return ``text`` with every replaced ``-`` restored."""
    return text.replace(_DASH, "-")


def _shown(_type: Any, tokens: Sequence[Any]) -> str:  # noqa: ANN401 - the signature that cyclopts asks of a converter
    return show_dashes(tokens[0].value)


def check_folder(path: str) -> None:
    """Check, before any work is done, that the file ``path`` can be created in its folder.

    :raises InvalidInput: the folder does not exist.
    """
    if not Path(path).absolute().parent.is_dir():
        message = f"the folder of {safe_text(path)} does not exist"
        raise InvalidInput(message)


FileOrDash = Annotated[str, Parameter(converter=_shown)]
"""The path of a file, or ``-`` for a standard stream."""
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch that is off by default and has no ``--no-`` form."""
