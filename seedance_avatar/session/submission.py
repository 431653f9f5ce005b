"""One submission of one caller: its id survives a cancellation, and a journal keeps it from being repeated."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
import attrs

from seedance_avatar.errors import AvatarError, SessionStateError, SubmissionInDoubt, SubmissionTimeout, WaitTimeout
from seedance_avatar.events import CallAbandoned
from seedance_avatar.ingest.classify import UNRECORDED, outcome_of_error, record_not_accepted
from seedance_avatar.options import check_positive
from seedance_avatar.outcomes import AnyOutcome, InDoubt, Pending, Unsent
from seedance_avatar.polling.expiry import GRACE

from .engine import Engine

if TYPE_CHECKING:
    from seedance_avatar.journal.claims import Claimant
    from seedance_avatar.journal.journal import Journal
    from seedance_avatar.journal.records import Entry, Record

_log = logging.getLogger("seedance_avatar")

_NO_HARM: Final = "it does no harm to upload it again"

T = TypeVar("T")


@attrs.frozen
class Kept(Generic[T]):
    """A submission that is made once over all runs with the journal at ``path``."""

    path: str | os.PathLike[str]
    entry: Callable[[Journal], Entry]
    """Returns what the journal knows it by."""
    found: Callable[[str], Awaitable[T]]
    """Returns what came of it, by the id that the journal holds."""
    resend: bool = attrs.field(kw_only=True)
    """Whether what an earlier run left in doubt is submitted again; without it that raises the error of then."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Submission(Generic[T]):
    """A single submission and how far it is. It is its own ``Passage``, and its own claimant in a journal.

    :ivar call: given the submission as passage, submits it under its ``target_id``.
    :ivar id_of: returns the service's id of what came of it.
    :ivar about: the label of what is submitted, without secrets.
    :ivar target_id: the ``client_business_id`` that it goes out under; a journal may know an earlier one.
    :ivar kept: what makes it once over all runs, or None.
    :ivar harmless: True where it does no harm to submit it again: it is stopped where others are waited for.
    :ivar resend: True when it goes out although an earlier attempt is in doubt.
    :ivar on_wire: True from before its first byte until its answer is clear.
    """

    call: Callable[[Submission[T]], Awaitable[T]]
    id_of: Callable[[T], str]
    about: str
    target_id: str = ""
    kept: Kept[T] | None = None
    harmless: bool = False
    resend: bool = False
    on_wire: bool = False
    item_id: str = ""
    _item: Any = None
    _written: tuple[Journal, bytes] | None = None
    _outcome: AnyOutcome | None = None
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)
    _refused: asyncio.Event = attrs.field(factory=asyncio.Event)

    # As a passage

    async def before_send(self) -> None:
        """Commit the intent, then note that it is on the wire."""
        if self._written is not None:
            journal, fingerprint = self._written
            await journal.sending(fingerprint, resend=self.resend)
        self.on_wire = True

    async def not_applied(self) -> None:
        """Note that nothing came of it, and take the intent back."""
        self.on_wire = self.harmless  # then a try whose answer was lost is repeated as well
        self._refused.set()
        if self._written is not None:
            journal, fingerprint = self._written
            await journal.unsent(fingerprint)

    # As a claimant

    def holder_accepted(self) -> None:
        """Look into the journal again."""
        self._news.set()

    def holder_done(self, holder: Claimant, outcome: AnyOutcome) -> None:  # noqa: ARG002 - of any claimant
        """Look into the journal again, whatever became of the holder: this call then acts as if it came only now."""
        self._news.set()

    async def finish(self, engine: Engine, timeout: float | None = None) -> T:  # noqa: ASYNC109 - its error says what became of the submission
        """Submit in a task of ``engine``, so that a cancelled caller does not lose an id.

        :class:`AvatarSession` says what ``timeout`` and a cancellation do; a second cancellation ends the wait for an
        answer, and :attr:`harmless` spares it.
        """
        if timeout is not None:
            check_positive("timeout", timeout)
        task = engine.singles.spawn(self._run(engine), name="seedance-avatar: submission")
        try:
            if timeout is None or await self._over_within(task, timeout):
                return await asyncio.shield(task)
        except asyncio.CancelledError as error:
            caller = asyncio.current_task()
            if task.cancelled() and caller is not None and not caller.cancelling():
                raise self._session_closed() from None
            if self.harmless or not self.on_wire:
                task.cancel()
            try:
                with anyio.move_on_after(engine.timeouts.drain, shield=True):
                    await asyncio.wait({task})
            except asyncio.CancelledError as second:  # it ends the wait
                second.add_note(self._abandon(engine, task))
                raise
            error.add_note(self._abandon(engine, task))
            raise
        raise self._timed_out(engine, task, timeout)

    async def _over_within(self, task: asyncio.Task[T], timeout: float) -> bool:  # noqa: ASYNC109 - the task goes on after it
        """Wait for ``task``; on the wire for two seconds longer, which an answer may take that is on its way."""
        await asyncio.wait({task}, timeout=timeout)
        if not task.done() and self.on_wire and not self.harmless:
            # A refusal that would be repeated is an answer too: nothing was sent.
            self._refused.clear()
            refused = asyncio.ensure_future(self._refused.wait())
            try:
                await asyncio.wait({task, refused}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
            finally:
                refused.cancel()
        return task.done()

    def _timed_out(self, engine: Engine, task: asyncio.Task[T], timeout: float) -> AvatarError:
        """Return the error for a timeout that has passed; what is on the wire is brought home in the background."""
        if self.on_wire and not self.harmless:
            engine.singles.spawn(self._bring_home(engine, task), name="seedance-avatar: answer after a timeout")
        else:
            self._abandon(engine, task)
        if self.item_id:
            message = f"accepted as {self.item_id}, and not recorded or looked at within {timeout:g} s"
            return WaitTimeout(message, last=self._item, about=self.about)
        if self.harmless:
            return WaitTimeout(f"not uploaded within {timeout:g} s", about=self.about, hint=_NO_HARM)
        if self.on_wire:
            return SubmissionTimeout(f"no answer within {timeout:g} s: in doubt", about=self.about)
        message = f"not sent within {timeout:g} s: nothing was sent"
        return WaitTimeout(message, about=self.about, hint="send it again, with more time")

    async def _bring_home(self, engine: Engine, task: asyncio.Task[T]) -> None:
        try:
            await asyncio.wait({task}, timeout=engine.timeouts.drain)
        finally:
            self._abandon(engine, task)

    def _abandon(self, engine: Engine, task: asyncio.Task[T]) -> str:
        """End ``task``, whose caller has left; return what became of it, as observer and log are told."""
        error: AvatarError | None = SessionStateError("the caller left before it was sent: nothing was sent")
        failure = task.exception() if task.done() and not task.cancelled() else None
        if task.done() and not task.cancelled() and failure is None:
            self.item_id, error = self.id_of(task.result()), None
        elif isinstance(failure, AvatarError):
            error = failure
        elif self.item_id:
            error = None
        elif self.on_wire:
            error = SubmissionInDoubt("in doubt, for the wait for its answer was given up", about=self.about)
            if self.harmless:
                error = SubmissionInDoubt(f"stopped, and {_NO_HARM}", about=self.about, hint="")
        task.cancel()
        said = f"accepted as {self.item_id}" if error is None else error.describe()
        if error is None or isinstance(error, SubmissionInDoubt):
            doubt = "" if error is None else "; it may exist"
            _log.warning("%s: its caller left while it was on the wire: %s%s", self.about, said, doubt)
        if (observer := engine.client.observer) is not None:
            item_id = self.item_id or None if error is None else None
            observer(CallAbandoned(at=engine.client.clock(), about=self.about, item_id=item_id, error=error))
        return f"{self.about}: {said}"

    def _session_closed(self) -> AvatarError:
        if self.harmless:
            return SessionStateError(f"the session was closed before the answer came; {_NO_HARM}")
        if self.on_wire:
            return SubmissionInDoubt("the session was closed before the answer came")
        return SessionStateError("the session was closed before this was sent: nothing of it exists")

    async def _run(self, engine: Engine) -> T:
        if (kept := self.kept) is None:
            return await self.call(self)
        journal = await engine.open_journal(kept.path)
        try:
            item = await self._once(journal, kept)
        finally:
            with anyio.CancelScope(shield=True):
                await engine.journals.release(journal)
        return await kept.found(self.item_id) if item is None else item

    async def _once(self, journal: Journal, kept: Kept[T]) -> T | None:
        """Submit it; or return None once the journal holds an id of it, which is ``item_id`` then."""
        entry = kept.entry(journal)
        while True:
            self._news.clear()
            holder = journal.claims.take(entry.fingerprint, self)
            try:
                (record,) = await journal.claim([entry])
                if record is not None and record.remote_id is not None:
                    self.item_id = record.remote_id
                    return None
                if holder is None:
                    return await self._submit(journal, entry.fingerprint, record, kept)
                await self._news.wait()
            finally:
                unsent = Unsent[Any, Any](source=None, error=SessionStateError("it was given up before it was sent"))
                journal.claims.release(entry.fingerprint, self, self._outcome or unsent)

    async def _submit(self, journal: Journal, fingerprint: bytes, record: Record | None, kept: Kept[T]) -> T:
        if record is not None:
            self.target_id = record.business_id or self.target_id
            self.resend = record.state == "in_doubt"
            if record.state == "sending" or (self.resend and not kept.resend):
                error = record.error() if self.resend else SubmissionInDoubt(UNRECORDED)
                self._outcome = InDoubt(source=None, error=error)
                raise error
        self._written = journal, fingerprint
        try:
            item = await self.call(self)
        except AvatarError as error:
            end, _ = outcome_of_error(error)
            self._outcome = end(source=None, error=error)
            await record_not_accepted(journal, fingerprint, end, error)
            raise
        except asyncio.CancelledError:
            if self.on_wire:
                lost = SubmissionInDoubt("the wait for its answer was given up")
                self._outcome = InDoubt(source=None, error=lost)
                with anyio.CancelScope(shield=True):
                    await journal.in_doubt(fingerprint, lost)
            raise
        self.item_id, self._item = self.id_of(item), item
        following = AvatarError("the call that submitted it does not follow it")
        self._outcome = Pending(source=None, asset=item, error=following)
        await journal.accepted(fingerprint, self.item_id)
        return item
