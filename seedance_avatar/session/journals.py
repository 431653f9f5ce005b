"""The journals that a session has open: one for each file, shared by all that use it, closed by the last."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from seedance_avatar.assets.messages import asset_query, read_asset
from seedance_avatar.client.client import Client
from seedance_avatar.client.gate import Flow
from seedance_avatar.errors import AuthError, AvatarError, JournalError, NotFound, SessionStateError
from seedance_avatar.polling.schedule import Schedule
from seedance_avatar.text import safe_text

if TYPE_CHECKING:
    from seedance_avatar.journal.journal import Journal


async def prove(journal: Journal, client: Client, flow: Flow) -> None:
    """Make sure that ``journal`` belongs to the service and account of ``client``, and have it remember both.

    Where it does not know them yet, the service is asked for one asset that it holds.

    :raises JournalError: it belongs to another service or account, or the look had no clear answer.
    :raises AuthError: the service refuses the key.
    """
    base_url, key = client.transport.base_url, (await client.transport.current_key()).reveal()
    origin = await journal.origin(base_url, key)
    if origin.known:
        return
    about = f"journal {safe_text(journal.path, 160)}"
    known = " and ".join(origin.base_urls) or "a service that it does not name"
    own = "give each service and each account a journal of its own"
    if (asset_id := origin.asset_id) is not None:
        try:
            await client.call(asset_query(asset_id), partial(read_asset, asked=asset_id), flow=flow)
        except NotFound:
            with_key = " with this API key" if base_url in origin.base_urls else ""
            message = (
                f"belongs to {known}; {base_url} does not know its asset {asset_id}{with_key}. Nothing was sent; {own}"
            )
            raise JournalError(message, about=about) from None
        except (AuthError, SessionStateError):
            raise
        except AvatarError as error:
            message = (
                f"was used with {known}; whether {base_url} knows its asset {asset_id} with this API key could not be "
                f"found out: {error}. Nothing was sent; try again later, or with the service and key of before"
            )
            raise JournalError(message, about=about) from error
    elif origin.base_urls and base_url not in origin.base_urls and not origin.empty:
        message = f"belongs to {known}, and holds no asset that {base_url} could be asked for. Nothing was sent; {own}"
        raise JournalError(message, about=about)
    await journal.remember(base_url, key)


@attrs.define(eq=False, repr=False)
class _Shared:
    opening: asyncio.Task[Journal] = attrs.field(init=False)
    users: int = 0
    proving: bool = False


@attrs.define(eq=False, repr=False)
class Journals:
    """Opens a journal for its first user and closes it after its last.

    Two ingests of one session may share a journal; two processes may not, which the journal itself sees to.
    What was learned about polling comes in at the opening, and goes back before the closing.
    """

    schedule: Schedule
    client: Client
    flow: Flow
    _shared: dict[Path, _Shared] = attrs.field(factory=dict)
    _closing: dict[Path, asyncio.Task[None]] = attrs.field(factory=dict)

    async def acquire(self, path: str | os.PathLike[str]) -> Journal:
        """Return the journal at ``path``, open; every success needs one :meth:`release`.

        :raises JournalError: it cannot be used, see :meth:`Journal.open`; or it belongs to another service or account.

        Cancelled, it is not held.
        """
        from seedance_avatar.journal.file import locate  # noqa: PLC0415 - a session without a journal goes without SQLite too

        where = locate(path)
        shared = self._shared.get(where)
        if shared is None:
            shared = self._shared[where] = _Shared()
            shared.opening = asyncio.get_running_loop().create_task(self._open(where, shared))
        shared.users += 1
        try:
            # Shielded: several may wait for the one opening, and one of them be cancelled.
            return await asyncio.shield(shared.opening)
        except BaseException:
            await self._release(where)
            raise

    async def release(self, journal: Journal) -> None:
        """Give up what :meth:`acquire` returned; the last one to do so closes it.

        :raises JournalError: something that has happened could not be written.
        """
        await self._release(journal.path)

    async def _release(self, where: Path) -> None:
        shared = self._shared[where]
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
        if shared.proving:
            shared.opening.cancel()  # nobody waits for the service's answer any more
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

    async def _open(self, path: Path, shared: _Shared) -> Journal:
        if (closing := self._closing.get(path)) is not None:
            await asyncio.wait({closing})
        from seedance_avatar.journal.journal import Journal  # noqa: PLC0415 - a session without a journal goes without SQLite too

        journal = await Journal.open(path)
        try:
            shared.proving = True
            await prove(journal, self.client, self.flow)
            shared.proving = False
            self.schedule.restore(await journal.learned())
        except BaseException:
            await journal.aclose()
            raise
        return journal
