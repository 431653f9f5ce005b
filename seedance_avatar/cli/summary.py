"""What a person reads at the end of a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

import attrs
from rich.console import Console
from rich.text import Text

from seedance_avatar.text import safe_text

from .meter import Histogram, Meter
from .tally import Tally
from .words import duration, number, plural

__all__ = ["Summary", "go_on", "print_summary"]

_ROWS: Final = (
    ("active", "green", ""),
    ("failed", "red", ""),
    ("pending", "yellow", "accepted, not finished yet"),
    ("in_doubt", "yellow", "sent, the answer lost: they may exist, and are not sent again by themselves"),
    ("unsent", "yellow", "nothing of them exists"),
)


@attrs.frozen(kw_only=True)
class Summary:
    """The end of a run.

    :ivar title: what was done.
    :ivar elapsed: seconds it took.
    :ivar files: what was written: a path and what stands in it.
    :ivar advice: what to do next, whole lines; the last may be a command.
    """

    title: str
    elapsed: float
    tally: Tally
    meter: Meter
    files: Sequence[tuple[str, str]] = ()
    advice: Sequence[str] = ()


def print_summary(console: Console, summary: Summary) -> None:
    """Print ``summary``; nothing in it is read as markup."""
    tally, meter = summary.tally, summary.meter
    head = f"{plural(tally.total, 'source')} in {duration(summary.elapsed)}"
    lines = [Text(), Text(f"{safe_text(summary.title)}: ", style="bold").append(head, style="not bold")]
    for name, colour, meaning in _ROWS:
        count = tally.counts[name]
        if count or name in {"active", "failed"}:
            lines.append(_row(name.replace("_", " "), count, colour if count else "", meaning))
    if tally.rejected:
        lines.append(_row("rejected", tally.rejected, "red", "rows of the manifest that cannot be used"))
    lines += _speed(meter)
    lines += _reasons(tally)
    if summary.files:
        lines += [Text(), Text("Files", style="bold")]
        lines += [Text(f"  {safe_text(path)}  ").append(safe_text(what), style="dim") for path, what in summary.files]
    if summary.advice:
        lines += [Text(), Text("Next", style="bold")]
        lines += [Text(f"  {line}") for line in summary.advice]
    for line in lines:
        console.print(line, soft_wrap=True)


def _row(name: str, count: int, colour: str, meaning: str) -> Text:
    text = Text(f"  {name:<9}", style="").append(f"{number(count):>9}", style=f"bold {colour}".strip())
    return text.append(f"   {meaning}", style="dim") if meaning else text


def _speed(meter: Meter) -> list[Text]:
    lines = [Text()]
    for name, histogram in (("time to active", meter.to_active), ("submission", meter.submission)):
        if histogram.count:
            lines.append(Text(f"  {name:<16}{_percentiles(histogram)}"))
    requests = number(meter.requests)
    if meter.throttled:
        requests += f", {number(meter.throttled)} of them answered with 429 (too fast)"
    if meter.repeated:
        requests += f", {number(meter.repeated)} repeated"
    lines.append(Text(f"  {'requests':<16}{requests}"))
    return lines


def _percentiles(histogram: Histogram) -> str:
    found = [(name, histogram.percentile(share)) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))]
    return "   ".join(f"{name} {duration(seconds)}" for name, seconds in found if seconds is not None)


def _reasons(tally: Tally) -> list[Text]:
    lines: list[Text] = []
    for reason in tally.top_reasons():
        if not lines:
            lines += [Text(), Text("Reasons", style="bold")]
        lines.append(
            Text(f"  {number(reason.count)} {reason.outcome.replace('_', ' ')}: ").append(reason.text, style="red")
        )
        lines += [Text(f"      {label}", style="dim") for label in reason.named]
        if reason.count > len(reason.named):
            lines.append(Text(f"      and {number(reason.count - len(reason.named))} more", style="dim"))
    return lines


def go_on(arguments: Sequence[str]) -> str:
    """Return the command line with ``arguments``, as it can be pasted into a shell."""
    return shlex.join(["seedance-avatar", *arguments])
