"""Writes one result for each source as JSON Lines, as soon as it is known."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Self

import attrs

from seedance_avatar import Active, Asset, AvatarError, Failed, InvalidInput, Outcome
from seedance_avatar.cli.manifest.manifest import ManifestSource, RejectedRow
from seedance_avatar.cli.output import OutputFile
from seedance_avatar.cli.streams import Unwritable
from seedance_avatar.text import redact_url, safe_text

from .tally import outcome_name

__all__ = ["Rejects", "Results", "record", "rejects_file"]

_AHEAD: Final = 10_000
"""Lines that may wait for a slow reader of the results before the run waits too."""
_LAST: Final = 0.5
"""Seconds that the last lines may take when the process ends at once."""


def record(outcome: Outcome) -> dict[str, Any]:
    """Return ``outcome`` as one object of the results, without query strings and raw answers."""
    source = outcome.source
    asset: Asset | None = getattr(outcome, "asset", None)
    error: AvatarError | None = getattr(outcome, "error", None)
    return {
        "line": source.line if isinstance(source, ManifestSource) else None,
        "key": source.key,
        "source": redact_url(source.source_url),
        "asset_type": source.asset_type,
        "group": source.group if isinstance(source, ManifestSource) else None,
        "group_id": asset.group_id if asset else None,
        "outcome": outcome_name(outcome),
        "earlier": isinstance(outcome, Failed) and outcome.earlier,
        "asset_id": asset.asset_id if asset else None,
        "asset_uri": asset.uri if asset and isinstance(outcome, Active) else None,
        "status": asset.status if asset else None,
        "error": str(error) if error else None,
        "error_type": type(error).__name__ if error else None,
        "request_id": getattr(error, "request_id", None),
    }


class Results:
    """Writes results in a thread, in order, so that a reader who pauses does not block the event loop.

    :param path: a file, or ``-`` for standard output.
    :param terminal: prints whole lines above a live frame; instead of standard output, where both are one terminal.
    :param again: True when a journal gives all results of earlier runs again, so that their files may be replaced.
    :ivar file: the file, or None for standard output.
    :ivar left: once it is open, the partial file of a run that was killed, which it began anew; empty without any.
    :ivar whole: set it before the end, to True when every source has its result.
    """

    def __init__(self, path: str, *, terminal: Callable[[str], None] | None = None, again: bool = False) -> None:
        self.path = path
        self.written: int = 0
        self.left: str = ""
        self.whole = False
        self.file: OutputFile | None = None if path == "-" else OutputFile(path, "the results")
        self._again = again
        self._terminal = terminal
        self._waiting: list[str] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._busy = False

    def check(self) -> None:
        """Check that the file can be written and takes no results away; open nothing.

        :raises InvalidInput: it cannot be written, or holds results that no journal could give again.
        """
        if self.file is None:
            return
        self.file.check()
        if not self.file.partial or self._again:
            return
        if Path(self.file.partial).exists():
            message = f"{self.file.shown_partial} holds the results of a run that was killed, or has not ended"
        elif Path(self.path).exists() and Path(self.path).stat().st_size:
            message = f"{self.path} exists and would be overwritten"
        else:
            return
        message += ": move it away, or name another --out"
        raise InvalidInput(message)

    async def __aenter__(self) -> Self:
        """Open the file; waits for the reader of a named pipe.

        :raises InvalidInput: it cannot be opened.
        """
        if self.file is not None:
            self.left = self.file.shown_partial if self.file.partial and Path(self.file.partial).exists() else ""  # noqa: ASYNC240 - one look before the run begins
            await asyncio.to_thread(self.file.open, replace=self._again)
        self._task = asyncio.create_task(self._write_all(), name="results")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def put(self, outcome: Outcome) -> None:
        """Queue the line of ``outcome``; wait only while ten thousand lines are queued.

        :raises Unwritable: an earlier line could not be written.
        """
        # Standard output may be a terminal, and JSON leaves some control characters as they are: ASCII only there.
        self._waiting.append(json.dumps(record(outcome), ensure_ascii=self.path == "-") + "\n")
        self._news.set()
        while len(self._waiting) > _AHEAD and self._task is not None and not self._task.done():
            self._room.clear()
            await self._room.wait()
        self._check()

    async def aclose(self) -> None:
        """Write what is queued and close the file.

        :raises Unwritable: something could not be written.
        """
        if self._task is None:
            return
        self._closing = True
        self._news.set()
        await asyncio.wait([self._task])
        self._check()
        if self.file is not None:
            self.file.close(whole=self.whole, lines=self.written)

    def abandon(self) -> None:
        """Write what is queued, from any thread, because the process is about to end; wait for no reader."""
        if not self._busy:
            lines, self._waiting = self._waiting, []
            writing = threading.Thread(target=self._write_last, args=("".join(lines),), daemon=True)
            writing.start()
            writing.join(_LAST)

    def _check(self) -> None:
        if self._task is not None and self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            if error is not None:
                if self.file is not None:
                    self.file.abandon()
                reason = getattr(error, "strerror", None) or type(error).__name__
                where = safe_text(self.path) if self.file is not None else "standard output"
                message = f"the results cannot be written to {where}: {reason}"
                raise Unwritable(message) from None

    async def _write_all(self) -> None:
        try:
            while True:
                lines, self._waiting = self._waiting, []
                self._room.set()
                if lines:
                    self._busy = True
                    await asyncio.to_thread(self._write, "".join(lines))
                    self._busy = False
                    self.written += len(lines)
                elif self._closing:
                    return
                else:
                    self._news.clear()
                    await self._news.wait()
        finally:
            self._room.set()

    def _write(self, text: str) -> None:
        if self._terminal is not None:
            self._terminal(text)
        elif self.file is not None:
            self.file.write(text)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    def _write_last(self, text: str) -> None:
        with contextlib.suppress(Exception):  # the process ends, with or without these lines
            self._write(text)


@attrs.define(eq=False)
class Rejects:
    """Writes rejected rows as JSON Lines, to a file that is made with the first of them.

    A row that cannot be written does not end the run.

    :ivar file: the file.
    :ivar count: number of rows written.
    :ivar error: why rows could not be written, or None.
    """

    file: OutputFile
    count: int = 0
    error: InvalidInput | Unwritable | None = None
    _closed: bool = False

    @property
    def path(self) -> str:
        """Its path, for people."""
        return safe_text(self.file.shown)

    def add(self, row: RejectedRow) -> None:
        """Write ``row``; after a failure, and once it is closed, nothing."""
        if self.error is not None or self._closed:
            return
        try:
            if not self.count:
                self.file.open()
            self.count += 1
            self.file.write(json.dumps(attrs.asdict(row), ensure_ascii=False) + "\n")
        except (InvalidInput, Unwritable) as error:
            self.error = error

    def close(self, *, whole: bool) -> None:
        """Close the file, if there is one.

        :param whole: True when every row was read.
        """
        self._closed = True
        if self.error is not None:
            self.file.abandon()
        try:
            self.file.close(whole=whole, lines=self.count)
        except Unwritable as error:
            self.error = error


def rejects_file(named: str | None, manifest: str, others: Iterable[str | None]) -> OutputFile:
    """Return the file of rejects: the one that was ``named``, else one beside the manifest, else beside another file.

    :param others: paths of other files of the run, in order of preference; the last resort is the working folder.
    :raises InvalidInput: the file that was named cannot be written.
    """
    if named is not None:
        file = OutputFile(named, "the rejected rows")
        file.check()
        return file
    path = Path(manifest)
    name = "rejects.jsonl" if manifest == "-" or path.parent.name == "fd" else f"{path.name}.rejects.jsonl"
    places = [str(Path(other).parent / name) for other in others if other is not None and other != "-"]
    if path.is_file() and OutputFile(manifest, "").partial:
        places.insert(0, f"{manifest}.rejects.jsonl")
    for place in places:
        with contextlib.suppress(InvalidInput):
            file = OutputFile(place, "the rejected rows")
            file.check()
            return file
    return OutputFile(name, "the rejected rows")
