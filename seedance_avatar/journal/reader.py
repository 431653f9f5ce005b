"""A journal as a reader sees it: for reports and checks, also while another process writes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from seedance_avatar.errors import SessionStateError

from .journal import Journal
from .records import KINDS, STATES, Kind, Record, Sample, State, Summary

__all__ = ["JournalReader"]


class JournalReader:
    """What a journal holds, for reports and checks.

    It never changes the file, and may read while an ingest writes it::

        async with JournalReader("run.db") as journal:
            async for record in journal.records(states=["in_doubt"]):
                print(record.label, record.reason)

    :param path: the file that was given to an ingest as ``journal``.

    Entering raises :class:`~seedance_avatar.JournalError` when there is none, or it is not a journal. Leaving gives
    the file back; every method raises :class:`~seedance_avatar.SessionStateError` before and after.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._journal: Journal | None = None

    async def __aenter__(self) -> Self:
        self._journal = await Journal.open(self.path, readonly=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            await self._journal.aclose()

    def records(self, *, states: Sequence[State] = STATES, kinds: Sequence[Kind] = KINDS) -> AsyncIterator[Record]:
        """Iterate over what is known, oldest first, a page at a time: never in memory as a whole.

        :param states: only what is in one of these states; by default in any.
        :param kinds: only items of these kinds; by default of any: assets, generations and groups.
        """
        return self._open().records(states=states, kinds=kinds)

    def samples(self) -> AsyncIterator[Sample]:
        """Iterate over the figures that the runs noted once a second or less often, oldest first.

        Their names are ``requests`` and ``throttled`` (counted from each run's beginning), ``submitting`` and
        ``pending``, ``submit_limit`` and ``query_limit`` (per second, absent while unlimited).
        """
        return self._open().samples()

    async def summary(self) -> Summary:
        """Return the counts by kind and state, and when runs began and ended."""
        return await self._open().summary()

    def _open(self) -> Journal:
        if self._journal is None:
            message = "this reader is not open: use `async with JournalReader(path) as journal:`"
            raise SessionStateError(message)
        return self._journal
