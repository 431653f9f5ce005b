"""``seedance-avatar report``: summarises a run from its journal, as text or as a page."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from rich.text import Text

from seedance_avatar import InvalidInput
from seedance_avatar.cli.arguments import FileOrDash
from seedance_avatar.cli.exits import Exit
from seedance_avatar.cli.formatting import duration, number, plural, rate, size
from seedance_avatar.cli.output import OutputFile, check_distinct
from seedance_avatar.cli.report.advice import Step, next_steps, when
from seedance_avatar.cli.report.history import KIND_NAMES, QUANTILES, STATES, History, quantile, read_history
from seedance_avatar.cli.run.summary import plain_console
from seedance_avatar.cli.run.tally import reason_of
from seedance_avatar.text import safe_text

__all__ = ["report"]

_REASONS: Final = 10
_DOUBTS: Final = 10


async def report(journal: str, /, *, html: FileOrDash | None = None, manifest: str | None = None) -> int:
    """Summarise a run from its journal.

    Examples:
        seedance-avatar report run.db

        seedance-avatar report run.db --html report.html

    The journal is only read, and an ingest may be writing it. With --html the
    report is one page that needs no network and no script: a timeline, times
    to active, throughput with limit and 429s, reasons of failure, what is in
    doubt, and the commands to run next. URLs are shown without their query.

    :param journal: the file that ingest was given as --journal.
    :param html: file for the report as a page; - is standard output.
    :param manifest: manifest of the run, to be named in the commands to run next.
    """
    check_distinct(("--html", None if html == "-" else html), ("the manifest", manifest), journal=journal)
    draw = None if html is None else _page_maker()
    file = None if html is None or html == "-" else OutputFile(html, "the report")
    if file is not None:
        file.check()
    history = await read_history(journal)
    steps = next_steps(history, manifest=manifest)
    if draw is None or html is None:
        console = plain_console(sys.stdout)
        for line in [*_lines(history), *_next(steps)]:
            console.print(line, soft_wrap=True)
        return Exit.DONE
    page = await asyncio.to_thread(draw, history, steps)
    if file is None:
        sys.stdout.write(page)
        return Exit.DONE
    await asyncio.to_thread(_write, file, page)
    sys.stderr.write(f"the report is in {safe_text(html)} ({size(len(page))})\n")
    return Exit.DONE


def _page_maker() -> Callable[[History, Sequence[Step]], str]:
    try:
        from seedance_avatar.cli.report.page import report_page  # noqa: PLC0415 - matplotlib is an extra, and slow to import
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        message = "a report with charts needs matplotlib: pip install 'seedance-avatar[report]'"
        raise InvalidInput(message) from None
    return lambda history, steps: report_page(history, steps=steps, now=time.time())


def _write(file: OutputFile, page: str) -> None:
    file.open()
    file.write(page)
    file.close(whole=True)


def _lines(history: History) -> list[Text]:
    about = f": {plural(history.count(), 'source')}, {when(history)}"
    lines = [Text(safe_text(history.path), style="bold").append(about, style="not bold")]
    for name, states, meaning in STATES:
        count = history.count(*states)
        if count or name in {"active", "failed"}:
            lines.append(Text(f"  {name:<9}{number(count):>9}   {meaning}"))
    lines += _times(history)
    reasons = history.reasons.top(_REASONS)
    if reasons:
        lines += [Text(), Text("Reasons", style="bold")]
    for reason in reasons:
        lines.append(Text(f"  {number(reason.count)} {reason.outcome}: {reason.text}"))
        lines += [Text(f"      {label}", style="dim") for label in reason.named]
    if history.doubts:
        lines += [Text(), Text("In doubt", style="bold")]
        for record in history.doubts[:_DOUBTS]:
            lines.append(Text(f"  {safe_text(record.label, 300)}: {safe_text(reason_of(record.error()), 300)}"))
        if history.doubted > _DOUBTS:
            lines.append(Text(f"  and {number(history.doubted - _DOUBTS)} more (--html lists them)", style="dim"))
    return lines


def _next(steps: Sequence[Step]) -> list[Text]:
    lines = [Text(), Text("Next", style="bold")] if steps else []
    for step in steps:
        lines.append(Text(f"  {step.says}"))
        if step.command:
            lines += [Text(), Text(f"    {step.command}"), Text()]
    return lines


def _times(history: History) -> list[Text]:
    lines = [Text()]
    for kind, name in KIND_NAMES.items():
        waits = history.to_active.get(kind)
        if waits:
            lines.append(Text(f"  {f'{name} to active':<26}{_quantiles(waits)}"))
    if history.to_accept:
        lines.append(Text(f"  {'submission':<26}{_quantiles(history.to_accept)}"))
    if history.accepted:
        mean = len(history.accepted) / max(history.worked.total, 0.001)
        lines.append(Text(f"  {'accepted on average':<26}{rate(mean)}"))
    if history.requests:
        throttled = sum(more for _, more in history.throttled)
        text = f", {number(throttled)} of them answered with 429 (too fast)" if throttled else ""
        lines.append(Text(f"  {'requests':<26}{number(history.requests)}{text}"))
    return lines if len(lines) > 1 else []


def _quantiles(ordered: Sequence[float]) -> str:
    return "   ".join(f"{label} {duration(quantile(ordered, share))}" for label, share in QUANTILES)
