"""A terminal of so many columns and rows, as a text screen that can be read back."""

from __future__ import annotations

import io
import os
from typing import Any

import pyte
import pytest


class Terminal(io.StringIO):
    """A stream that draws what is written to it on a screen of ``columns`` by ``rows``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int = 80, rows: int = 24) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.screen: Any = None
        monkeypatch.setattr(os, "get_terminal_size", lambda _: self.size)
        monkeypatch.setenv("TERM", "xterm-256color")
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            monkeypatch.delenv(name, raising=False)
        self.resize(columns, rows)

    def fileno(self) -> int:
        return 99

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes.append(text)
        self._stream.feed(text)
        return len(text)

    def resize(self, columns: int, rows: int = 24) -> None:
        """Give the window another size; lines that are longer than it is wide are broken, as terminals do."""
        kept = [] if self.screen is None else self.screen.display[: self.screen.cursor.y + 1]
        self.size = os.terminal_size((columns, rows))
        self.screen = pyte.Screen(columns, rows)
        self.screen.set_mode(pyte.modes.LNM)  # a line feed returns too, as a terminal's driver makes it
        self._stream: Any = pyte.Stream(self.screen)
        self._stream.feed("\n".join(line.rstrip() for line in kept))

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without the empty lines at its end."""
        shown = [line.rstrip() for line in self.screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown
