"""``seedance-avatar report``: summarises a run from its journal, as text or as a page."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from seedance_avatar import InvalidInput
from seedance_avatar.cli.arguments import FileOrDash
from seedance_avatar.cli.exits import Exit
from seedance_avatar.cli.formatting import size
from seedance_avatar.cli.report.advice import Step, next_steps
from seedance_avatar.cli.report.history import History, read_history
from seedance_avatar.cli.report.overview import print_overview
from seedance_avatar.cli.run.summary import plain_console
from seedance_avatar.cli.streams import Unwritable
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
    draw = None if html is None else _page_maker()
    history = await read_history(journal)
    steps = next_steps(history, manifest=manifest)
    if draw is None or html is None:
        print_overview(plain_console(sys.stdout), history, steps)
        return Exit.DONE
    page = await asyncio.to_thread(draw, history, steps)
    if html == "-":
        sys.stdout.write(page)
        return Exit.DONE
    await asyncio.to_thread(_write, html, page)
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


def _write(path: str, page: str) -> None:
    """Replace the file at ``path`` by ``page`` atomically: a reader sees the old report or the new one."""
    target = Path(path)
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name[:40]}.", delete=False
        ) as file:
            file.write(page)
        try:
            Path(file.name).chmod(0o666 & ~_umask())
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink()
            raise
    except OSError as error:
        message = f"the report cannot be written to {safe_text(path)}: {error.strerror}"
        raise Unwritable(message) from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
