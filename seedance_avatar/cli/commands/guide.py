"""``seedance-avatar guide``: read the guide that comes with the package."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console
from rich.markdown import Markdown

from seedance_avatar.cli.exits import Exit
from seedance_avatar.cli.pages import PAGES, read_page

__all__ = ["guide"]

_WIDEST: Final = 100
"""Columns that text may fill on a wide terminal; longer lines are hard to read."""


def guide(page: str | None = None, /) -> int:
    """Read the guide: a first run, a tutorial, errors by message, and more.

    Examples:
        seedance-avatar guide

        seedance-avatar guide tutorial

        seedance-avatar guide troubleshooting | grep -i -A 3 "in doubt"

    Without a page it lists the pages. On a terminal a page is laid out; into a
    pipe or a file it goes as plain text (Markdown).

    :param page: name of a page; without it they are listed.
    """
    text = _contents() if page is None else read_page(page)
    if sys.stdout.isatty():
        console = Console(file=sys.stdout)
        console.print(Markdown(text, hyperlinks=False), width=min(console.width, _WIDEST))
    else:
        sys.stdout.write(text)
    return Exit.DONE


def _contents() -> str:
    """Return the list of the pages, each with its title."""
    width = max(map(len, PAGES))
    rows = [f"    {name:<{width}}  {read_page(name).partition(chr(10))[0].removeprefix('# ')}" for name in PAGES]
    return "\n".join(["The guide. Read a page by: seedance-avatar guide PAGE", "", *rows, ""])
