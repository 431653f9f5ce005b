"""Progress of a run: a live frame on a terminal, plain lines on a pipe, or events as JSON Lines."""

from __future__ import annotations

import abc
import asyncio
import math
from collections.abc import Callable
from typing import ClassVar, Final, TextIO

import attrs
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from seedance_avatar import IngestStats, SessionStats
from seedance_avatar.cli.formatting import duration, number, rate
from seedance_avatar.text import safe_text

from .eventlog import EventLog
from .summary import plain_console

__all__ = ["JsonView", "LiveView", "PlainView", "Snapshot", "View", "keep_showing"]

_TITLE: Final = 34
_LINE_UP: Final = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
_WIDEST: Final = 100
"""Columns that a frame uses at most: a terminal breaks no line of it as long as the window is wider."""


@attrs.frozen(kw_only=True)
class Snapshot:
    """A run at one moment.

    :ivar title: what is being done, as ``sources.csv → brand-avatar``.
    :ivar total: number of sources in all, or None while it is not known.
    :ivar rate: sources accepted a second, over the last ten seconds.
    :ivar eta: seconds that the rest will take at the measured rate, or None while it is not known.
    :ivar throttled_ago: seconds since the last 429, or None without any.
    :ivar trouble: one line about an outage or a stop in progress, or an empty string.
    :ivar last_error: the last error, one line, or an empty string.
    """

    title: str
    total: int | None
    stats: IngestStats
    session: SessionStats
    rate: float
    eta: float | None
    throttled_ago: float | None
    trouble: str = ""
    last_error: str = ""
    rejected: int = 0

    @property
    def done(self) -> int:
        """Sources that have their outcome."""
        stats = self.stats
        return stats.active + stats.failed + stats.pending + stats.in_doubt + stats.unsent

    @property
    def counts(self) -> list[tuple[str, int, str]]:
        """The counts to show: name, number, and the colour of a number that is not 0."""
        stats = self.stats
        rows = [
            ("active", stats.active, "green"),
            ("failed", stats.failed, "red"),
            ("in doubt", stats.in_doubt, "yellow"),
            ("pending", stats.polling + stats.pending, "cyan"),
            ("in flight", self.session.submitting + self.session.querying, ""),
        ]
        rows += [("not sent", stats.unsent, "yellow")] if stats.unsent else []
        return rows + ([("rejected", self.rejected, "red")] if self.rejected else [])

    @property
    def limit(self) -> str:
        """The limit that submissions keep to now, and why, as ``pace 5.0/s (a 429 12 s ago)``."""
        why = self.session.submit_why
        if self.throttled_ago is not None and self.throttled_ago < 60:  # noqa: PLR2004 - an older one no longer explains the limit
            why = f"a 429 {duration(max(1.0, self.throttled_ago))} ago"
        return f"pace {rate(self.session.submit_limit)}" + (f" ({safe_text(why, 60)})" if why else "")

    @property
    def pace(self) -> str:
        """The measured rate and the estimated time left."""
        left = f"ETA {duration(max(1.0, self.eta))}" if self.eta is not None else "ETA not known yet"
        return f"{rate(self.rate)} now   {left}" if not self.finished else f"{rate(self.rate)} now"

    @property
    def finished(self) -> bool:
        """True when the manifest was read to its end and every source has its outcome."""
        return self.stats.exhausted and self.done == self.stats.taken


class View(abc.ABC):
    """Shows the progress of a run.

    :ivar every: seconds between two calls of ``show``.
    :ivar farewell: written to the terminal when the process ends without ``close``.
    """

    every: ClassVar[float]
    farewell: ClassVar[str] = ""

    @abc.abstractmethod
    def show(self, snapshot: Snapshot) -> None:
        """Show the progress so far."""

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """Print ``text`` as one line."""

    def close(self) -> None:  # noqa: B027 - what was written as lines stays
        """Take away what ``show`` drew."""


class LiveView(View):
    """A frame at the bottom of a terminal, redrawn four times a second."""

    every: ClassVar[float] = 0.25
    farewell: ClassVar[str] = "\x1b[?25h"

    def __init__(self, stream: TextIO) -> None:
        self._console = plain_console(stream)
        # Standard output may go to a file: only what is written to standard error belongs above the frame.
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._widths: list[int] = []

    def show(self, snapshot: Snapshot) -> None:
        """Draw the frame for ``snapshot`` in place of the last one."""
        self._live.start()
        columns = self._console.width
        lines = frame(snapshot, max(20, min(columns - 1, _WIDEST)))
        # A terminal that became narrower has broken long lines of the last frame in two: those rows go as well.
        broken = sum((width - 1) // columns for width in self._widths)
        self._widths = [text.cell_len for text in lines]
        with self._console:
            # The cursor rests on an empty last line, so that the ^C that a terminal echoes there breaks no other.
            self._live.update(Text("\n").join([*lines, Text()]))
            self._console.control(Control(*_LINE_UP * broken))
            self._live.refresh()

    def say(self, text: str) -> None:
        """Print ``text`` as one line above the frame."""
        self.print(safe_text(text, 1000) + "\n")

    def print(self, lines: str) -> None:
        """Print whole lines, which are printable already, above the frame."""
        self._console.print(Text(lines), end="")

    def close(self) -> None:
        """Take the frame away."""
        self._live.stop()


class PlainView(View):
    """One plain line every ten seconds."""

    every: ClassVar[float] = 10.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, snapshot: Snapshot) -> None:
        """Print the progress so far as one line."""
        self.say(line(snapshot))

    def say(self, text: str) -> None:
        """Print ``text`` as one line."""
        self._stream.write(safe_text(text, 1000) + "\n")
        self._stream.flush()


class JsonView(View):
    """A ``progress`` event every second, among the other events."""

    every: ClassVar[float] = 1.0

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def show(self, snapshot: Snapshot) -> None:
        """Write a ``progress`` event."""
        facts = attrs.asdict(snapshot, filter=lambda attribute, _: attribute.name != "title")
        self._log.write("progress", **facts, done=snapshot.done)

    def say(self, text: str) -> None:
        """Write a ``note`` event."""
        self._log.write("note", text=safe_text(text, 1000))


async def keep_showing(view: View, take: Callable[[], Snapshot]) -> None:
    """Show what ``take`` returns every ``view.every`` seconds, until cancelled."""
    while True:
        if view.every < 1:
            view.show(take())
            await asyncio.sleep(view.every)
        else:
            await asyncio.sleep(view.every)  # a short run on a pipe prints its summary only
            view.show(take())


def line(snapshot: Snapshot) -> str:
    """Return ``snapshot`` as one plain line."""
    of = "" if snapshot.total is None else f" of {number(snapshot.total)}"
    counts = ", ".join(f"{number(count)} {name}" for name, count, _ in snapshot.counts)
    text = f"{number(snapshot.done)}{of} in {duration(snapshot.stats.elapsed)}: {counts}; "
    text += f"{snapshot.pace}; {snapshot.limit}".replace("   ", ", ")
    text += f"; {snapshot.trouble}" if snapshot.trouble else ""
    return text + (f"; last error: {snapshot.last_error}" if snapshot.last_error else "")


def frame(snapshot: Snapshot, width: int) -> list[Text]:
    """Return ``snapshot`` as the lines of a frame, each at most ``width`` columns wide."""
    lines = [_bar(snapshot, width), _counts(snapshot, "   ")]
    if lines[1].cell_len > width:
        lines[1] = _counts(snapshot, "  ")
    lines.append(Text(f" {snapshot.pace}   {snapshot.limit}"))
    if snapshot.trouble:
        lines.append(Text(f" {snapshot.trouble}", style="bold yellow"))
    if snapshot.last_error:
        lines.append(Text(" last error ", style="dim").append(safe_text(snapshot.last_error, 500), style="red not dim"))
    for text in lines:
        text.truncate(width, overflow="ellipsis")
    return lines


def _counts(snapshot: Snapshot, gap: str) -> Text:
    counted = []
    for name, count, colour in snapshot.counts:
        text = Text(f"{name} ", style="dim")
        counted.append(text.append(number(count), style=f"not dim bold {colour}".strip() if count else "not dim"))
    return Text(" ").append_text(Text(gap).join(counted))


def _bar(snapshot: Snapshot, width: int) -> Text:
    title = Text(safe_text(snapshot.title), style="bold")
    title.truncate(min(_TITLE, width // 2), overflow="ellipsis")
    if snapshot.total:
        share = min(1.0, snapshot.done / snapshot.total)
        tail = f"{number(snapshot.done)} of {number(snapshot.total)} {math.floor(share * 100):3d} %"
    else:
        share, tail = 0.0, f"{number(snapshot.done)} done, {number(snapshot.stats.taken)} read"
    room = width - title.cell_len - len(tail) - 5
    text = Text(" ").append_text(title).append("  ")
    if snapshot.total and room >= 8:  # noqa: PLR2004 - a shorter bar is not readable
        halves = round(share * room * 2)
        full, half = divmod(halves, 2)
        text.append("━" * full + "╸" * half, style="green")
        text.append("━" * (room - full - half), style="bright_black")
        text.append("  ")
    return text.append(tail)
