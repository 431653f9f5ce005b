"""The stream that a caller holds: an async context manager and async iterator over one pipeline.

A class, never an async generator: a ``break`` out of a generator that has tasks inside leaves them
running, or cancels the wrong task (PEP 789).
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, NoReturn, Protocol, Self, TypeAlias, TypeVar

import attrs

from .accounts import Accounts, AnyOutcome
from .client import Client, Passage
from .errors import AssetFailed, AvatarError, IngestError, InvalidInput, InvalidSource, SessionStateError
from .gate import Flow
from .local_files import judge, published
from .models import Asset, AssetGroup, AssetSource
from .outcomes import Active, Failed, InDoubt, IngestReport, IngestStats, Pending, Unsent
from .text import safe_text
from .wire import Answer, Request, asset_query, asset_request, check_source, is_id, read_asset

if TYPE_CHECKING:
    from .journal import Entry, Journal

__all__ = ["AssetTrade", "GroupOf", "Ingest", "Run"]

S = TypeVar("S")
A = TypeVar("A")

GroupOf: TypeAlias = Callable[[AssetSource], AssetGroup | str | Awaitable[AssetGroup | str]]
"""Which group a source goes to, where one ingest serves several; sync or async."""

_NAMED: Final = 5
"""Sources that an IngestError names in its own line; all of them are in its exceptions."""


def group_id_of(group: object) -> str:
    """Return the id of ``group``, checked.

    :raises InvalidInput: it is neither a group nor an id.
    """
    group_id = group.group_id if isinstance(group, AssetGroup) else group
    if not isinstance(group_id, str):
        message = f"group must be an AssetGroup or a group id, not {type(group).__name__}"
        raise InvalidInput(message)
    if not is_id(group_id):
        message = f"{safe_text(group_id, 80)!r} is not a group id: pass what create_group() returned, or its group_id"
        raise InvalidInput(message)
    return group_id


@attrs.define(eq=False, repr=False)
class AssetTrade:
    """How sources become assets: what a :class:`~seedance_avatar.pipeline.Pipeline` needs to know of them."""

    group: AssetGroup | str | GroupOf
    allow_private: bool = False
    kind: str = "assets"
    settles_doubt: bool = False

    def label(self, source: object) -> str:
        """Return the source's label."""
        return source.label if isinstance(source, AssetSource) else f"<{type(source).__name__}>"

    def polling_kind(self, source: AssetSource) -> str:
        """Return its asset type: each type has its own law of time."""
        return source.asset_type

    async def place(self, source: object) -> str:
        """Judge the source, and return the id of the group it goes to."""
        if not isinstance(source, AssetSource):
            message = f"a source must be an AssetSource, not {type(source).__name__}: use AssetSource.image(url)"
            raise InvalidSource(message)
        check_source(source, allow_private=self.allow_private)
        if source.path is not None:
            await judge(source)
        group = self.group
        if callable(group):
            found = group(source)
            group = await found if inspect.isawaitable(found) else found
        return group_id_of(group)

    def identity(self, source: AssetSource, place: str) -> Hashable:
        """Return the source's key, else its group, type and URL (one upload for what is equal in it)."""
        return source.key if source.key is not None else (place, source.asset_type, source.source_url)

    async def submit(self, source: AssetSource, place: str, *, client: Client, flow: Flow, passage: Passage) -> Asset:
        """Upload the source, and before it, where it is a local file, the file."""

        def read(answer: Answer) -> Asset:
            return read_asset(answer, source=source)

        sent = await published(source, client=client, flow=flow, patient=True)
        # Where the service itself has put a file, it can fetch it from.
        request = asset_request(sent, place, allow_private=self.allow_private or sent is not source)
        return await client.call(request, read, flow=flow, patient=True, passage=passage)

    def question(self, item_id: str) -> Request:
        """Return the status request."""
        return asset_query(item_id)

    def read(self, answer: Answer, source: AssetSource, item_id: str) -> Asset:
        """Read the answer to it."""
        return read_asset(answer, source=source, asked=item_id)

    def entry(self, journal: Journal, source: AssetSource, place: str) -> Entry:
        """Return what a journal knows the source by."""
        return journal.entry(kind=source.asset_type, group_id=place, url=source.source_url, key=source.key)

    def item_id(self, thing: Asset) -> str:
        """Return the asset's id."""
        return thing.asset_id

    def recall(self, source: AssetSource, place: str, item_id: str, status: str) -> Asset:
        """Return the asset as last seen."""
        return Asset(asset_id=item_id, group_id=place, asset_type=source.asset_type, status=status, source=source)

    def own(self, thing: Asset, source: AssetSource) -> Asset:
        """Return the asset with another of the sources that share it."""
        return attrs.evolve(thing, source=source)

    def failure(self, thing: Asset) -> AvatarError | None:
        """Return why the asset failed, or None when it is active."""
        return AssetFailed(thing) if thing.is_failed else None


class Run(Protocol):
    """What stands behind a stream: one :class:`~seedance_avatar.pipeline.Pipeline`, or several as one."""

    @property
    def accounts(self) -> Accounts:
        """What ended how, and what waits for the consumer."""

    @property
    def ended(self) -> bool:
        """True when there will be no more outcomes."""

    @property
    def crash(self) -> BaseException | None:
        """What ended it before its time, or None."""

    def halt(self, error: AvatarError) -> None:
        """Take no more sources and send nothing more; follow what was accepted."""

    def leave(self, error: AvatarError) -> None:
        """Halt, and follow nothing."""

    async def gone(self) -> None:
        """Wait until it is over."""

    def made_room(self) -> None:
        """Note that the consumer took an outcome."""

    def stats(self) -> IngestStats:
        """Return the accounts at this moment."""

    def report(self) -> IngestReport:
        """Return the accounts with all that is not active."""


def _misused(what: str) -> NoReturn:
    message = f"{what}: use `async with session.ingest(...) as stream:` around it"
    raise SessionStateError(message)


@attrs.define(eq=False, repr=False)
class Ingest(Generic[S, A]):
    """One run over many sources. Enter it with ``async with``, then iterate it once.

    * ``async for asset in stream`` yields each asset as it becomes active; after the last one,
      :class:`~seedance_avatar.IngestError` is raised if any source did not become active.
    * ``async for outcome in stream.outcomes()`` yields one outcome for every source and raises nothing for them.

    An exception of the source iterator is raised as it is, after the outcomes of what was taken before it.

    Leaving the block early (``break``, an exception, a cancellation) stops the run: nothing new is sent, what is
    on the wire comes home (at most ``timeouts.drain`` seconds), and everything is accounted for in
    :attr:`report`. Several tasks may iterate one stream; each outcome goes to one of them.
    """

    _begin: Callable[[], Awaitable[Run]]
    _pipeline: Run | None = None
    _entered: bool = False
    _raised: bool = False

    async def __aenter__(self) -> Self:
        if self._entered:
            _misused("an ingest runs once; call ingest() again for another run")
        self._entered = True
        self._pipeline = await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the run as leaving the block early does, and wait until it is over. Safe to call twice."""
        pipeline = self._running()
        pipeline.leave(SessionStateError("the ingest was left before it was finished"))
        await pipeline.gone()

    def _running(self) -> Run:
        if self._pipeline is None:
            _misused("this ingest has not begun")
        return self._pipeline

    def stop(self) -> None:
        """Take no more sources and send nothing more; what was accepted is followed to its end."""
        self._running().halt(SessionStateError("stopped by stop()"))

    def stats(self) -> IngestStats:
        """Return the accounts at this moment; cheap enough to be called many times a second."""
        return self._running().stats()

    @property
    def report(self) -> IngestReport:
        """The accounts with every outcome that is not active; final once the block was left."""
        return self._running().report()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> A:
        pipeline = self._running()
        while (outcome := await self._next(handed_over=False)) is not None:
            if isinstance(outcome, Active):
                asset: A = outcome.asset
                return asset
        if not self._raised:
            self._raised = True
            unfinished = pipeline.accounts.unfinished()
            if unfinished:
                raise _ingest_error(unfinished, pipeline.report())
        raise StopAsyncIteration

    def outcomes(
        self,
    ) -> AsyncIterator[Active[S, A] | Failed[S, A] | Pending[S, A] | InDoubt[S, A] | Unsent[S, A]]:
        """Return an async iterator over one outcome for every source, in the order in which they are known."""
        return _Outcomes(self)

    async def _next(self, *, handed_over: bool) -> AnyOutcome | None:
        """Return the next outcome, or None after the last one; raise what broke the run, once, before that."""
        pipeline = self._running()
        while (outcome := pipeline.accounts.pop(handed_over=handed_over)) is None:
            if pipeline.ended:
                if pipeline.crash is not None and not self._raised:
                    self._raised = True
                    raise pipeline.crash
                return None
            await pipeline.accounts.news()
        pipeline.made_room()
        return outcome


@attrs.define(eq=False, repr=False)
class _Outcomes(Generic[S, A]):
    _ingest: Ingest[S, A]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Active[S, A] | Failed[S, A] | Pending[S, A] | InDoubt[S, A] | Unsent[S, A]:
        outcome = await self._ingest._next(handed_over=True)  # noqa: SLF001 - the other half of the same class
        if outcome is None:
            raise StopAsyncIteration
        return outcome


def _ingest_error(unfinished: tuple[AnyOutcome, ...], report: IngestReport) -> IngestError:
    errors = [outcome.error for outcome in unfinished if not isinstance(outcome, Active)]
    counts = {
        "failed": report.failed,
        "pending": report.pending,
        "in doubt": report.in_doubt,
        "unsent": report.unsent,
    }
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    named = "; ".join(str(error) for error in errors[:_NAMED])
    more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    message = f"{len(errors)} of {report.taken} sources are not active ({told}): {named}{more}"
    return IngestError(message, errors, outcomes=unfinished)
