"""A few lines at the bottom of a terminal that are redrawn in place.

Each frame is one write that overwrites the last one line by line and erases nothing beforehand, inside a synchronised
update where the terminal knows them: there is no moment at which it is half drawn, so it does not flicker.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

__all__ = ["SHOW_CURSOR", "Screen", "terminal_size"]

_HIDE_CURSOR: Final = "\x1b[?25l"
SHOW_CURSOR: Final = "\x1b[?25h"
_BEGIN: Final = "\x1b[?2026h\x1b[?7l"  # synchronised update; no automatic wrapping while a frame is drawn
_END: Final = "\x1b[?7h\x1b[?2026l"
_ERASE: Final = "\x1b[K"
_WIDEST: Final = 100
"""Columns that a frame uses at most: what is no wider than the window is left alone when it is resized."""


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Return columns and rows of the terminal behind ``stream``, 80 and 24 where it does not say."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24


class Screen:
    """Draws frames on ``stream``, a terminal; the cursor rests below the last one.

    :param colour: False draws without colours (``NO_COLOR``).
    """

    def __init__(self, stream: TextIO, *, colour: bool = True) -> None:
        self._stream = stream
        self._console = Console(
            file=io.StringIO(),
            force_terminal=True,
            no_color=not colour,
            highlight=False,
            markup=False,
            emoji=False,
            width=500,
        )
        self._widths: list[int] = []

    def width(self) -> int:
        """Return how many columns a line of the next frame may have."""
        return max(20, min(terminal_size(self._stream)[0] - 1, _WIDEST))

    def draw(self, lines: Sequence[Text], *, above: str = "") -> None:
        """Show ``lines`` in place of the last frame; ``above`` (whole lines, printable) scrolls past over it."""
        columns, rows = terminal_size(self._stream)
        shown = list(lines)[: max(rows - 1, 0)]
        for line in shown:
            line.truncate(columns - 1, overflow="ellipsis")
        out = [_HIDE_CURSOR, self._to_top(columns)]
        # Line by line: some terminals keep what a whole screen held when all of it is erased at once.
        out += [above.replace("\n", f"{_ERASE}\r\n"), _BEGIN]
        out += [f"{self._rendered(line)}{_ERASE}\r\n" for line in shown]
        out += ["\x1b[J", _END]
        self._widths = [line.cell_len for line in shown]
        self._write("".join(out))

    def clear(self) -> None:
        """Take the last frame away and give the cursor back."""
        to_top = self._to_top(terminal_size(self._stream)[0])
        erased = f"{_ERASE}\r\n" * len(self._widths)
        self._write(f"{to_top}{erased}\x1b[J{to_top}{SHOW_CURSOR}")
        self._widths = []

    def _to_top(self, columns: int) -> str:
        # A terminal that became narrower has broken the longer lines of the last frame into several.
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        return f"\r\x1b[{rows}A" if rows else "\r"

    def _rendered(self, line: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(line, end="", no_wrap=True, overflow="ignore", crop=False)
        return captured.get()

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
