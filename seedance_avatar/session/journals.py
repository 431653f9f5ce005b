"""The journals that a session has open: one for each file, shared by all that use it, closed by the last."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from seedance_avatar.polling.schedule import Schedule

if TYPE_CHECKING:
    from seedance_avatar.journal.journal import Journal

__all__ = ["Journals"]


@attrs.define(eq=False, repr=False)
class _Shared:
    opening: asyncio.Task[Journal]
    users: int = 0


@attrs.define(eq=False, repr=False)
class Journals:
    """Opens a journal for its first user and closes it after its last.

    Two ingests of one session may share a journal; two processes may not, which the journal itself sees to.
    What was learned about polling comes in at the opening, and goes back before the closing.
    """

    schedule: Schedule
    _shared: dict[Path, _Shared] = attrs.field(factory=dict)
    _closing: dict[Path, asyncio.Task[None]] = attrs.field(factory=dict)

    async def acquire(self, path: str | os.PathLike[str]) -> Journal:
        """Return the journal at ``path``, open; every success needs one :meth:`release`.

        :raises JournalError: it cannot be used; see :meth:`Journal.open`.

        Cancelled, it is not held.
        """
        where = Path(path).resolve()  # noqa: ASYNC240 - one look at the disk when an ingest begins
        shared = self._shared.get(where)
        if shared is None:
            shared = self._shared[where] = _Shared(asyncio.get_running_loop().create_task(self._open(where)))
        shared.users += 1
        try:
            # Shielded: several may wait for the one opening, and one of them be cancelled.
            return await asyncio.shield(shared.opening)
        except BaseException:
            await self._release(where, shared)
            raise

    async def release(self, journal: Journal) -> None:
        """Give up what :meth:`acquire` returned; the last one to do so closes it.

        :raises JournalError: something that has happened could not be written.
        """
        where = journal.path
        await self._release(where, self._shared[where])

    async def _release(self, where: Path, shared: _Shared) -> None:
        shared.users -= 1
        if shared.users:
            return
        del self._shared[where]
        # A task of its own: whoever waits for it can be cancelled twice, and what was opened is closed all the same.
        closing = asyncio.get_running_loop().create_task(self._close(shared), name="seedance-avatar: journal closing")
        self._closing[where] = closing
        closing.add_done_callback(lambda _: self._closed(where, closing))
        with anyio.CancelScope(shield=True):
            await asyncio.shield(closing)

    def _closed(self, where: Path, closing: asyncio.Task[None]) -> None:
        if self._closing.get(where) is closing:
            del self._closing[where]
        if not closing.cancelled():
            closing.exception()  # who waited has it; where nobody did any more, the journal has logged it

    async def _close(self, shared: _Shared) -> None:
        await asyncio.wait({shared.opening})
        if shared.opening.cancelled() or shared.opening.exception() is not None:
            return
        journal = shared.opening.result()
        try:
            for kind, facts in self.schedule.snapshot().items():
                await journal.save_learned(kind, facts)
        finally:
            await journal.aclose()

    async def aclose(self) -> None:
        """Wait until every journal that was given up is closed."""
        if self._closing:
            await asyncio.wait(self._closing.values())

    async def _open(self, path: Path) -> Journal:
        if (closing := self._closing.get(path)) is not None:
            await asyncio.wait({closing})
        from seedance_avatar.journal.journal import Journal  # noqa: PLC0415 - a session without a journal goes without SQLite too

        journal = await Journal.open(path)
        self.schedule.restore(await journal.learned())
        return journal
