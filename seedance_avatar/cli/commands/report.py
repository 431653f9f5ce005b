"""``seedance-avatar report``: summarises a run from its journal, as text or as a page."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence

from seedance_avatar import InvalidInput
from seedance_avatar.cli.arguments import FileOrDash
from seedance_avatar.cli.exits import Exit
from seedance_avatar.cli.formatting import size
from seedance_avatar.cli.output import OutputFile, check_distinct
from seedance_avatar.cli.report.advice import Step, next_steps
from seedance_avatar.cli.report.history import History, read_history
from seedance_avatar.cli.report.overview import print_overview
from seedance_avatar.cli.run.summary import plain_console
from seedance_avatar.text import safe_text

__all__ = ["report"]


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
        print_overview(plain_console(sys.stdout), history, steps)
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
