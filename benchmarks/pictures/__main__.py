"""Makes ``terminal.svg`` (an ingest in a terminal) and ``report.png`` (its report) beside this module.

The terminal is drawn from what the command really writes to one: the demo, stopped in the middle. The report is that
of a run that never was, photographed by Chromium.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import re
import signal
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Final

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from rig.browser import browse
from rig.histories import Past

from seedance_avatar.cli.commands.report import report

HERE: Final = Path(__file__).parent
COLUMNS, ROWS = 92, 16
SECONDS: Final = 5.0


def terminal() -> None:
    """Run the demo on a pseudo-terminal, and draw its screen after some seconds."""
    child, master = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        command = [sys.executable, "-m", "seedance_avatar.cli", "demo"]
        os.execv(sys.executable, command)  # noqa: S606 - our own interpreter
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    begun: float | None = None
    while begun is None or time.monotonic() - begun < SECONDS:
        stream.feed(os.read(master, 65536))
        if begun is None and any("active" in line for line in screen.display):
            begun = time.monotonic()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(master)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    console.print(Text("$ seedance-avatar demo", style="bold"))
    for row in range(ROWS):
        if screen.display[row].strip():
            console.print(line_of(screen, row))
    drawn = console.export_svg(title="seedance-avatar")
    # A picture in a README loads no fonts: what the reader has will do.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL).replace("Fira Code,", "ui-monospace,")
    (HERE / "terminal.svg").write_text(drawn)


def line_of(screen: pyte.Screen, row: int) -> Text:
    """Return one row of ``screen`` with its colours."""
    text = Text(no_wrap=True)
    for column in range(COLUMNS):
        cell = screen.buffer[row][column]
        colour = None if cell.fg == "default" else cell.fg.replace("brown", "yellow").replace("bright", "bright_")
        if colour is not None and len(colour) == 6 and all(digit in "0123456789abcdef" for digit in colour):
            colour = f"#{colour}"
        text.append(cell.data, Style(color=colour, bold=cell.bold))
    text.rstrip()
    return text


async def photograph() -> None:
    """Draw the report of a run that never was."""
    with tempfile.TemporaryDirectory() as directory:
        past = Past(Path(directory) / "run.db")
        await past.run(2_000)
        page = Path(directory) / "report.html"
        await report(str(past.path), html=str(page), manifest="sources.csv")
        page.write_text(page.read_text().replace(directory + "/", ""))
        browse(page, f"--screenshot={HERE / 'report.png'}", width=800, height=1110)


if __name__ == "__main__":
    terminal()
    asyncio.run(photograph())
    for name in ("terminal.svg", "report.png"):
        print(f"{name}: {(HERE / name).stat().st_size // 1000} kB")
