"""What a benchmark found, as a table for the terminal and for ``benchmarks/README.md``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

__all__ = ["Table", "machine", "show", "spread", "write_readme"]

_NAMED: Final = ("aiohttp", "openai", "httpx", "requests")
_README: Final = Path(__file__).parent / "README.md"
_BLOCK: Final = ("<!-- benchmarks -->", "<!-- /benchmarks -->")


@attrs.frozen(kw_only=True)
class Table:
    """One table.

    :ivar title: what was measured.
    :ivar note: how, on what.
    :ivar command: what repeats it.
    :ivar head: the columns' names.
    :ivar rows: as many texts each.
    """

    title: str
    note: str
    command: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Return it for a terminal."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        drawn = [
            "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(columns))
            for columns in (zip(line, widths, strict=True) for line in lines)
        ]
        return "\n".join((self.title, self.note, "", *drawn))

    def markdown(self) -> str:
        """Return it as Markdown."""

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(cells)} |"

        def lines() -> Iterator[str]:
            yield f"**{self.title}** (`{self.command}`)"
            yield ""
            yield line(self.head)
            yield line(["---", *(["---:"] * (len(self.head) - 1))])
            yield from map(line, self.rows)
            yield ""
            yield self.note

        return "\n".join(lines())


def spread(values: Sequence[float]) -> str:
    """Return the lowest and the highest."""
    return f"{min(values):,.0f} to {max(values):,.0f}"


def machine() -> str:
    """Return what it was measured with, and when."""
    found = []
    for name in _NAMED:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {', '.join(found)}; {_processor()}, {os.cpu_count()} cores; {time.strftime('%Y-%m-%d')}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a file of the kernel's
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def show(tables: Sequence[Table]) -> None:
    """Print ``tables``: as Markdown where :func:`write_readme` asks for them, else for a terminal."""
    markdown = "BENCHMARKS_MARKDOWN" in os.environ
    print("\n\n".join(table.markdown() if markdown else table.text() for table in tables))


def _measured(name: str, modules: Sequence[str]) -> str:
    """Run ``modules`` and return what they print as a part of the page, between comments of its own."""
    parts = []
    for module in modules:
        print(f"== python -m {module}", flush=True)
        run = [sys.executable, "-m", module]
        environment = {**os.environ, "BENCHMARKS_MARKDOWN": "1"}
        told = subprocess.run(run, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603 - ourselves
        shown = told.strip()
        if not shown.startswith("**"):  # it has no title of its own; what is no table either is drawn for a terminal
            shown = f"`python -m {module}`\n\n" + (shown if shown.startswith("|") else f"```text\n{shown}\n```")
        parts.append(shown)
    return "\n".join((f"<!-- benchmark {name} -->", "\n\n".join(parts), f"<!-- /benchmark {name} -->"))


def write_readme(wanted: Mapping[str, Sequence[str]], readme: Path = _README) -> int:
    """Measure what is ``wanted``, and write it into ``readme`` between its two comments; return the exit status.

    What is not wanted stays as it was measured before.
    """
    start, end = _BLOCK
    before, found, rest = readme.read_text(encoding="utf-8").partition(start)
    block, closed, after = rest.partition(end)
    if not found or not closed:
        print(f"{readme.name} has no block between {start} and {end}")
        return 1
    for name, modules in wanted.items():
        part = _measured(name, modules)
        old = re.compile(f"<!-- benchmark {name} -->.*<!-- /benchmark {name} -->", re.DOTALL)
        place = old.search(block)
        head, tail = (
            (block.rstrip() + "\n\n", "\n") if place is None else (block[: place.start()], block[place.end() :])
        )
        block = head + part + tail
        # Written after each: the next may take an hour, and be interrupted.
        readme.write_text(f"{before}{start}{block}{end}{after}", encoding="utf-8")
    return 0
