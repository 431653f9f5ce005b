"""The summary at the end of a run, as text or as JSON, and the advice in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

import attrs
from rich.console import Console
from rich.text import Text

from seedance_avatar import AvatarError
from seedance_avatar.cli.formatting import duration, number, plural
from seedance_avatar.cli.pages import page_pointer, pointer
from seedance_avatar.text import safe_text

from .eventlog import EventLog
from .meter import Histogram, Meter
from .tally import Tally

__all__ = ["Summary", "advice", "plain_console", "show_summary"]

_ROWS: Final = (
    ("active", "green", ""),
    ("failed", "red", ""),
    ("earlier", "yellow", "failed or refused in an earlier run, and not sent again"),
    ("pending", "yellow", "accepted, not finished yet"),
    ("in_doubt", "yellow", "sent, but the answer was lost: they may exist, and are not sent again"),
    ("unsent", "yellow", "not sent, or not applied: they do not exist"),
)
_NAMED: Final = ("failed", "earlier", "in_doubt")
"""Outcomes whose reasons are listed with the sources that have them."""


@attrs.frozen(kw_only=True)
class Summary:
    """The facts of a summary.

    :ivar title: what was done.
    :ivar elapsed: seconds it took.
    :ivar files: the files that were written: path and content.
    :ivar advice: what to do next, whole lines; the last may be a command.
    """

    title: str
    elapsed: float
    tally: Tally
    meter: Meter
    files: Sequence[tuple[str, str]] = ()
    advice: Sequence[str] = ()


def show_summary(summary: Summary, log: EventLog | None) -> None:
    """Print ``summary`` on standard error, or write it to ``log`` as an event."""
    if log is not None:
        log.write("summary", **_facts(summary))
    else:
        _print(plain_console(sys.stderr), summary)


def plain_console(stream: TextIO) -> Console:
    """Return a console that prints text as it is: no markup, no emoji, no highlighting, no wrapping."""
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _print(console: Console, summary: Summary) -> None:
    tally, meter = summary.tally, summary.meter
    head = f"{plural(tally.total, 'source')} in {duration(summary.elapsed)}"
    lines = [Text(), Text(f"{safe_text(summary.title)}: ", style="bold").append(head, style="not bold")]
    for name, colour, meaning in _ROWS:
        count = tally.counts[name]
        if count or name in {"active", "failed"}:
            lines.append(_row(name.replace("_", " "), count, colour if count else "", meaning))
    if tally.unread:
        lines.append(_row("not read", tally.unread, "yellow", "the run ended before they were read"))
    if tally.rejected:
        lines.append(_row("rejected", tally.rejected, "red", "rows of the manifest that cannot be used"))
    lines += _speed(meter)
    lines += _reasons(tally)
    if summary.files:
        lines += [Text(), Text("Files", style="bold")]
        width = max(len(path) for path, _ in summary.files)
        lines += [
            Text(f"  {safe_text(path):<{width}}  ").append(safe_text(what), style="dim") for path, what in summary.files
        ]
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
    if meter.outages:
        times = plural(meter.outages, "time")
        lines.append(Text(f"  {'outages':<16}{times} the service was not reached or ill, and nothing new was sent"))
    return lines


def _shares(histogram: Histogram) -> dict[str, float | None]:
    return {name: histogram.percentile(share) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}


def _percentiles(histogram: Histogram) -> str:
    found = _shares(histogram)
    return "   ".join(f"{name} {duration(seconds)}" for name, seconds in found.items() if seconds is not None)


def _reasons(tally: Tally) -> list[Text]:
    lines: list[Text] = []
    for reason in tally.reasons.top(5):
        if not lines:
            lines += [Text(), Text("Reasons", style="bold")]
        lines.append(
            Text(f"  {number(reason.count)} {reason.outcome.replace('_', ' ')}: ").append(reason.text, style="red")
        )
        if reason.outcome not in _NAMED:
            continue
        lines += [Text(f"      {label}", style="dim") for label in reason.named]
        if reason.count > len(reason.named):
            lines.append(Text(f"      and {number(reason.count - len(reason.named))} more", style="dim"))
    return lines


def _facts(summary: Summary) -> dict[str, Any]:
    """Return what the summary shows as plain values for JSON."""
    tally, meter = summary.tally, summary.meter
    return {
        "title": summary.title,
        "elapsed": summary.elapsed,
        "counts": {name: tally.counts[name] for name, *_ in _ROWS}
        | {"unread": tally.unread, "rejected": tally.rejected},
        "time_to_active": _shares(meter.to_active),
        "submission": _shares(meter.submission),
        "requests": meter.requests,
        "throttled": meter.throttled,
        "repeated": meter.repeated,
        "outages": meter.outages,
        "reasons": [attrs.asdict(reason) for reason in tally.reasons.top(20)],
        "files": [path for path, _ in summary.files],
        "next": list(summary.advice),
    }


def advice(  # noqa: PLR0913 - each is a fact that the advice depends on
    tally: Tally,
    *,
    command: str,
    journal: str | None,
    interrupted: bool,
    rejects: str,
    error: AvatarError | None = None,
    groups: Iterable[str] = (),
) -> list[str]:
    """Return what to do next, line by line; an empty list when there is nothing to do.

    :param error: the error that ended the run, or None.
    :param groups: names of groups that were sent and have no answer.
    """
    lines: list[str] = []
    stopped = tally.refused or error
    if stopped is not None:
        lines.append(f"{stopped.describe()}" + (f"; {stopped.hint}" if stopped.hint else "") + page_pointer(stopped))
    unclear = [safe_text(name) for name in groups]
    lines += [f"the group {name} was sent, and no answer came: it may exist{pointer('in-doubt')}" for name in unclear]
    if unclear and journal is not None:
        lines += ["this creates it again, and continues:", "", f"    {command} --on-in-doubt resend", ""]
    elif journal is not None and (tally.unfinished or interrupted):
        lines += ["continue where this run ended; nothing is sent twice:", "", f"    {command}", ""]
    elif tally.unfinished or interrupted:
        lines.append(
            "this run kept no journal and cannot be resumed: ingest only the sources that are not active in the "
            "results, and add --journal run.db"
        )
    if tally.counts["in_doubt"]:
        how = "; --on-in-doubt resend sends it again, which may make duplicates" if journal is not None else ""
        lines.append(
            f"what is in doubt may exist at the service and is not sent again by itself{how}{pointer('in-doubt')}"
        )
    if tally.counts["earlier"]:
        lines.append(
            "what was refused in an earlier run is sent again with --retry-refused, and what failed then with "
            "--retry-failed, as a new asset, once the causes are fixed"
        )
    if tally.rejected:
        lines.append(f"correct the rejected rows ({rejects}) and ingest them as a manifest of their own")
    return lines
