"""One submission of one caller: brought home when it is cancelled, and journaled where a journal is given."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio
import attrs

from seedance_avatar.client.client import Passage
from seedance_avatar.errors import (
    ApiError,
    AuthError,
    AvatarError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    SessionStateError,
    SubmissionInDoubt,
)

from .engine import Engine

if TYPE_CHECKING:
    from seedance_avatar.journal.journal import Journal

__all__ = ["Submission"]

_log = logging.getLogger("seedance_avatar")

IN_HAND: Final = "another call of this process is sending it: ask again once that one is done"

T = TypeVar("T")


@attrs.define(eq=False, repr=False, kw_only=True)
class Submission(Generic[T]):
    """A single submission and where it is.

    :ivar call: given this as its passage, submits.
    :ivar item_id: returns the service's id of what came of it.
    :ivar about: the label of what is submitted, without secrets.
    :ivar journal: where it is recorded, or None.
    :ivar release: gives the journal back, once the submission is over, however it ends.
    :ivar mark: its fingerprint there; it has been claimed.
    :ivar resend: True when it goes out although an earlier run left it in doubt.
    :ivar on_wire: True from before its first byte until its answer is clear.
    """

    call: Callable[[Passage], Awaitable[T]]
    item_id: Callable[[T], str]
    about: str
    journal: Journal | None = None
    release: Callable[[Journal], Awaitable[None]] | None = None
    mark: bytes = b""
    resend: bool = False
    on_wire: bool = False

    async def before_send(self) -> None:
        """Commit the intent, then note that it is on the wire."""
        if self.journal is not None:
            await self.journal.sending(self.mark, resend=self.resend)
        self.on_wire = True

    async def not_applied(self) -> None:
        """Note that nothing came of it, and take the intent back."""
        self.on_wire = False
        if self.journal is not None:
            await self.journal.unsent(self.mark)

    async def finish(self, engine: Engine) -> T:
        """Submit in a task of ``engine``, so that a cancelled caller does not lose an id.

        Cancelled before anything was sent, nothing is sent. Cancelled on the wire, the answer is waited for
        (``timeouts.drain`` seconds; a second cancellation ends that) so that observer, log and journal get it,
        and then the cancellation leaves.
        """
        task = engine.singles.spawn(self.run(), name="seedance-avatar: submission")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and caller is not None and not caller.cancelling():
                raise self._session_closed() from None
            if not self.on_wire:
                task.cancel()
            try:
                with anyio.move_on_after(engine.timeouts.drain, shield=True):
                    await asyncio.wait({task})
            finally:  # a second cancellation ends the wait, and is logged the same
                if task.done() and not task.cancelled() and task.exception() is None:
                    _log.warning("%s: cancelled while on the wire; it was accepted: %r", self.about, task.result())
                elif self.on_wire:
                    task.cancel()
                    _log.warning("%s: cancelled while on the wire; it may exist at the service", self.about)
            raise

    def _session_closed(self) -> AvatarError:
        if self.on_wire:
            return SubmissionInDoubt("the session was closed before the answer came")
        return SessionStateError("the session was closed before this was sent: nothing of it exists")

    async def run(self) -> T:
        """Submit, and record how it ended.

        :raises SubmissionInDoubt: another call of this process has the same item in hand.
        """
        journal = self.journal
        if journal is None:
            return await self._submit()
        try:
            if self.mark in journal.busy:
                raise SubmissionInDoubt(IN_HAND)
            journal.busy.add(self.mark)
            try:
                return await self._submit()
            finally:
                journal.busy.discard(self.mark)
        finally:
            if self.release is not None:
                with anyio.CancelScope(shield=True):
                    await self.release(journal)

    async def _submit(self) -> T:
        try:
            item = await self.call(self)
        except AvatarError as error:
            if self.journal is not None:
                await self._not_accepted(self.journal, error)
            raise
        except asyncio.CancelledError:
            if self.journal is not None and self.on_wire:
                with anyio.CancelScope(shield=True):
                    await self.journal.in_doubt(self.mark, SubmissionInDoubt("the wait for its answer was given up"))
            raise
        if self.journal is not None:
            await self.journal.accepted(self.mark, self.item_id(item))
        return item

    async def _not_accepted(self, journal: Journal, error: AvatarError) -> None:
        match error:
            case SubmissionInDoubt():
                await journal.in_doubt(self.mark, error)
            case AuthError() | QuotaExhausted() | RateLimited() | ServerError():
                await journal.unsent(self.mark)
            case ApiError():
                await journal.refused(self.mark, error)
            case _:
                await journal.unsent(self.mark)
