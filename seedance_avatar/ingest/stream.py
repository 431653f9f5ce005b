"""The stream that a caller holds: an async context manager and async iterator over one pipeline.

A class, never an async generator: a ``break`` out of a generator that has tasks inside leaves them
running, or cancels the wrong task (PEP 789).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Final, Generic, NoReturn, Self, TypeVar

import attrs

from seedance_avatar.errors import IngestError, SessionStateError
from seedance_avatar.outcomes import Active, AnyOutcome, Failed, InDoubt, IngestReport, IngestStats, Pending, Unsent

from .run import Run

__all__ = [
    "Ingest",
]

S = TypeVar("S")
A = TypeVar("A")

_NAMED: Final = 5
"""Sources that an IngestError names in its own line; all of them are in its exceptions."""


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
    on the wire gets its answer (at most ``timeouts.drain`` seconds), and everything is accounted for in
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
        pipeline.abandoned = True
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
    counted = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    named = "; ".join(str(error) for error in errors[:_NAMED])
    more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    message = f"{len(errors)} of {report.taken} sources are not active ({counted}): {named}{more}"
    return IngestError(message, errors, outcomes=unfinished)
