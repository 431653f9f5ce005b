"""One run over the sources of several accounts: a pipeline for each, and one queue that they take from.

A source is in exactly one state: common (any account may take it), an account's own (only that one may), under way in
an account's pipeline, or settled. Whoever has room takes next, so the faster account takes more. A source that
comes back unsent from an account that has left goes to the others; nothing else ever moves between accounts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
import attrs

from seedance_avatar.errors import AvatarError, InvalidSource, SessionStateError
from seedance_avatar.ingest.admission import room
from seedance_avatar.ingest.classify import outcome_if_same
from seedance_avatar.ingest.pipeline import Pipeline
from seedance_avatar.ingest.run import Run
from seedance_avatar.journal.records import Record
from seedance_avatar.models import AssetSource
from seedance_avatar.outcomes import AnyOutcome, Unsent

from .member import InFlight, PoolMember

__all__ = ["PooledRun"]

_log = logging.getLogger("seedance_avatar")

_RECONSIDER: Final = 0.25
"""Seconds after which an account that left sources to the others looks at them again."""

_BATCH: Final = 64
"""Sources that are read, and looked up in the journals, at one time."""


@attrs.define(eq=False, repr=False)
class _Feed:
    """What one account's pipeline reads: an async iterator that gives it a source when it asks."""

    run: PooledRun
    member: PoolMember

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - whatever the caller's iterable held
        return await self.run.next_for(self.member)


@attrs.define(eq=False, repr=False, kw_only=True)
class PooledRun(Run):
    """The run behind the stream of a pool.

    :ivar group_of: the name of the group that a source goes to.
    :ivar release: gives the journals back.
    """

    members: list[PoolMember]
    group_of: Callable[[AssetSource], str]
    max_pending: int
    release: Callable[[], Awaitable[None]]
    _common: deque[Any] = attrs.field(factory=deque)
    _routing: list[Any] = attrs.field(factory=list)
    _in_flight: dict[Hashable, InFlight] = attrs.field(factory=dict)
    _given_out: int = 0

    def _pipelines(self) -> list[Pipeline]:
        return [member.pipeline for member in self.members if member.pipeline is not None]

    def outages(self) -> int:
        """Return how many outages began, over all accounts."""
        return sum(pipeline.outages() for pipeline in self._pipelines())

    def _under_way(self) -> tuple[int, int]:
        parts = [pipeline.stats() for pipeline in self._pipelines()]
        return sum(part.submitting for part in parts), sum(part.polling for part in parts)

    def _on_halt(self, error: AvatarError) -> None:
        self._flush(error)
        for pipeline in self._pipelines():
            pipeline.halt(error)
        self._wake_all()

    def _on_leave(self, error: AvatarError) -> None:
        for pipeline in self._pipelines():
            pipeline.leave(error)

    def _settle_rest(self) -> None:
        self._flush(self.stopped())

    def _closings(self) -> Sequence[Callable[[], Awaitable[Any]]]:
        return self.reader.aclose, self.release

    async def _work(self) -> None:
        async with anyio.create_task_group() as tasks:
            for member in self.members:
                tasks.start_soon(self._serve, member)
            try:
                await self._read_all()
            except Exception as error:  # noqa: BLE001 - the caller's own, or ours: raised after the outcomes
                self._broke(error)
            await self._stop_reading()
            self.all_read = True
            self._wake_all()

    def _wake_all(self) -> None:
        self._moved.set()
        for member in self.members:
            member.wake()

    # Reading

    async def _read_all(self) -> None:
        with self._reading:
            while self.halted is None:
                if (count := self._room()) <= 0:
                    await self._movement()
                    continue
                self._routing = await self.reader.take(count)
                if not self._routing:
                    return
                self.accounts.taken += len(self._routing)
                for source in self._routing:
                    if isinstance(source, AssetSource):
                        with suppress(InvalidSource):  # the account that takes it says so
                            await self.members[0].adapter.examine(source)
                    self._identity(source)  # a group function that breaks does so here, where nothing is under way
                await self._route()
                self._wake_all()

    def _room(self) -> int:
        """Return how many sources to read: none while nobody is waiting for one."""
        hungry = any(member.waiter is not None for member in self.members)
        if not hungry or self._common:
            return 0
        accounts = self.accounts
        return room(
            undelivered=accounts.undelivered,
            in_hand=accounts.in_hand,
            max_pending=self.max_pending,
            queued=0,
            ahead=_BATCH,
        )

    async def _route(self) -> None:
        """Give each source that was read to the account whose journal knows it, and all others to whoever has room."""
        known: dict[int, tuple[PoolMember, Record]] = {}
        for member in self.members:
            for at, record in (await member.known(self._routing, self.group_of)).items():
                # That more than one knows it is what this prevents; where it is so, an id tells the most.
                if at not in known or (record.remote_id is not None and known[at][1].remote_id is None):
                    known[at] = (member, record)
        routed, self._routing = self._routing, []
        for at, source in enumerate(routed):
            if at not in known:
                self._common.append(source)
                continue
            member, record = known[at]
            if member.lost is None:
                member.own.append((source, record))
            else:
                self.book(member.outcome_of(source, record))

    # Giving

    async def next_for(self, member: PoolMember) -> Any:  # noqa: ANN401 - whatever the caller's iterable held
        """Return the next source for ``member``'s pipeline, or raise StopAsyncIteration when there are no more.

        Cancelled, it has given nothing.
        """
        while self.halted is None and member.lost is None:
            if member.own:
                return self._given(member, *member.own.popleft())
            while self._common and not self._passes(member):
                source = self._common.popleft()
                flight = self._in_flight.get(self._identity(source))
                if flight is None or flight.member is member:
                    return self._given(member, source)
                # An equal source is under way in another account: one upload, an outcome for each.
                flight.member.own.append((source, None))
                flight.member.wake()
            if self.all_read and not self._given_out and not any(other.own for other in self.members):
                self._wake_all()
                break
            member.waiter = asyncio.get_running_loop().create_future()
            self._moved.set()
            try:
                # An account begins and ends to be ill without a word.
                await asyncio.wait({member.waiter}, timeout=_RECONSIDER if self._common else None)
            finally:
                member.waiter = None
        raise StopAsyncIteration

    def _passes(self, member: PoolMember) -> bool:
        """Return whether ``member`` leaves new sources to the others: its service is ill or away, and not theirs."""
        return member.is_down and any(other.lost is None and not other.is_down for other in self.members)

    def _identity(self, source: Any) -> Hashable:  # noqa: ANN401 - whatever the caller's iterable held
        if not isinstance(source, AssetSource):
            return None
        return self.members[0].adapter.identity(source, self.group_of(source))

    def _given(self, member: PoolMember, source: Any, record: Record | None = None) -> Any:  # noqa: ANN401 - whatever the caller's iterable held
        identity = self._identity(source)
        if identity is not None:
            flight = self._in_flight.setdefault(identity, InFlight(member))
            flight.under_way += 1
            flight.record = flight.record or record
        self._given_out += 1
        return source

    # Serving one account

    async def _serve(self, member: PoolMember) -> None:
        try:
            pipeline = member.pipeline = await member.begin(_Feed(self, member))
        except AvatarError as error:
            self._lose(member, error)
            return
        if self.halted is not None:
            pipeline.halt(self.halted)
        if self.left is not None:
            pipeline.leave(self.left)
        try:
            while (outcome := pipeline.accounts.pop(handed_over=True)) is not None or not pipeline.ended:
                if outcome is None:
                    await pipeline.accounts.news()
                else:
                    pipeline.made_room()
                    self._take(member, outcome, pipeline.halted)
        finally:
            pipeline.leave(SessionStateError("the ingest was ended from outside"))
            await pipeline.gone()
            while (outcome := pipeline.accounts.pop(handed_over=True)) is not None:
                self._take(member, outcome, pipeline.halted)
        if pipeline.crash is not None:
            self._broke(pipeline.crash)
        if pipeline.halted is not None:
            self._lose(member, pipeline.halted)

    def _take(self, member: PoolMember, outcome: AnyOutcome, halted: AvatarError | None) -> None:
        """Book an outcome of ``member``, or let another account have the source where this one has left it unsent."""
        self._given_out -= 1
        source = outcome.source
        identity = self._identity(source)
        flight = self._in_flight.get(identity)
        if flight is not None:
            flight.under_way -= 1
            if not flight.under_way:
                del self._in_flight[identity]
        if halted is not None:
            self._lose(member, halted)
        # Equal sources that wait for this one, and that a pipeline which takes nothing more cannot be given.
        gone = identity is not None and (member.lost is not None or self.halted is not None)
        alike = member.take_back(self._identity, identity) if gone else []
        if isinstance(outcome, Unsent) and member.lost is not None and self.halted is None:
            if flight is not None and flight.record is not None:
                outcome = member.outcome_of(source, flight.record)  # unsent by this run, but not by an earlier one
            else:
                self._common.extend([source, *alike])
                self._wake_all()
                return
        outcome = attrs.evolve(outcome, account=member.name)
        self.book(outcome)
        for other in alike:
            self.book(outcome_if_same(other, source, outcome, member.adapter))
        self._wake_all()

    def _lose(self, member: PoolMember, error: AvatarError) -> None:
        """Let ``member`` leave: what it has not taken goes to the others, as far as its journal does not know it."""
        if member.lost is not None or self.halted is not None:
            return
        member.lost = error
        waiting, member.own = member.own, deque()
        for source, record in waiting:
            if record is not None:
                self.book(member.outcome_of(source, record))
            elif self._identity(source) in self._in_flight:
                member.own.append((source, None))
            else:
                self._common.append(source)
        if all(other.lost is not None for other in self.members):
            self.halt(error)
        else:
            _log.warning("account %s leaves the pool, what it has not sent goes to the others: %s", member.name, error)
        self._wake_all()

    # Ending

    def _flush(self, error: AvatarError) -> None:
        """Settle everything that no pipeline has, but for sources that wait for an equal one in a pipeline."""
        for member in self.members:
            waiting, member.own = member.own, deque()
            for source, record in waiting:
                if record is not None:
                    self.book(member.outcome_of(source, record))
                elif self._identity(source) in self._in_flight:
                    member.own.append((source, None))
                else:
                    self._unsent(source, error)
        while self._common:
            self._unsent(self._common.popleft(), error)
        routing, self._routing = self._routing, []
        for source in routing:
            self._unsent(source, error)

    def _settle_unsent(self, source: Any) -> None:  # noqa: ANN401 - whatever the caller's iterable held
        self._unsent(source, self.stopped())

    def _unsent(self, source: Any, error: AvatarError) -> None:  # noqa: ANN401 - whatever the caller's iterable held
        label = self.members[0].adapter.label(source)
        self.book(Unsent(source=source, error=error.concerning(label)))
