"""Writes one result for each source as JSON Lines, as soon as it is known."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TextIO

import attrs

from seedance_avatar import Active, Asset, AvatarError, InvalidInput, Outcome
from seedance_avatar.cli.manifest.manifest import ManifestSource, RejectedRow
from seedance_avatar.cli.streams import Unwritable
from seedance_avatar.text import redact_url, safe_text

from .tally import outcome_name

__all__ = ["Rejects", "Results", "record"]

_AHEAD: Final = 10_000
"""Lines that may wait for a slow reader of the results before the run waits too."""


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
    """

    def __init__(self, path: str, *, terminal: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.written: int = 0
        self._terminal = terminal
        self._stream: TextIO | None = None
        self._waiting: list[str] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._busy = False

    async def __aenter__(self) -> Self:
        """Open the file.

        :raises InvalidInput: it cannot be opened.
        """
        self._stream = sys.stdout if self.path == "-" else self._open()
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
        if self._task is None or self._stream is None:
            return
        self._closing = True
        self._news.set()
        await asyncio.wait([self._task])
        if self._stream is not sys.stdout:
            self._stream.close()
        self._check()

    def abandon(self) -> None:
        """Write what is queued, from a signal handler, because the process is about to end."""
        if not self._busy:  # a write in progress may be waiting for a reader, and a second one would wait too
            self._write("".join(self._waiting))
            self._waiting = []

    def _open(self) -> TextIO:
        try:
            return Path(self.path).open("w", encoding="utf-8")
        except OSError as error:
            message = f"the results cannot be written to {safe_text(self.path)}: {error.strerror}"
            raise InvalidInput(message) from None

    def _check(self) -> None:
        if self._task is not None and self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            if error is not None:
                where = "standard output" if self.path == "-" else safe_text(self.path)
                reason = getattr(error, "strerror", None) or type(error).__name__
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
        elif self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


@attrs.define(eq=False)
class Rejects:
    """Writes rejected rows as JSON Lines, to a file that is created with the first of them.

    :ivar path: path of the file.
    :ivar count: number of rows written.
    """

    path: str
    count: int = 0
    _stream: TextIO | None = None

    def add(self, row: RejectedRow) -> None:
        """Write ``row``.

        :raises Unwritable: the file cannot be written.
        """
        self.count += 1
        try:
            if self._stream is None:
                self._stream = Path(self.path).open("w", encoding="utf-8")  # noqa: SIM115 - open from row to row, until close()
            self._stream.write(json.dumps(attrs.asdict(row), ensure_ascii=False) + "\n")
        except OSError as error:
            message = f"the rejected rows cannot be written to {safe_text(self.path)}: {error.strerror}"
            raise Unwritable(message) from None

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._stream is not None:
            self._stream.close()
