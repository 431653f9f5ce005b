"""The accounts that share a run: what each may take, what its journal knows, and why it left."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from typing import Any

import attrs

from seedance_avatar.assets.adapter import AssetAdapter
from seedance_avatar.errors import AvatarError
from seedance_avatar.ingest.classify import key_conflict, outcome_of_record
from seedance_avatar.ingest.pipeline import Pipeline
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Record
from seedance_avatar.models import AssetSource
from seedance_avatar.outcomes import AnyOutcome, Failed

__all__ = ["InFlight", "PoolMember"]


@attrs.define(eq=False, repr=False, kw_only=True)
class PoolMember:
    """One account in a run.

    :ivar begin: starts its pipeline over what it is given.
    :ivar own: what only this account may take, each with what its journal knows of it.
    :ivar lost: why it has left the run, or None.
    :ivar waiter: set while its pipeline waits for a source.
    """

    name: str
    adapter: AssetAdapter
    begin: Callable[[AsyncIterator[Any]], Awaitable[Pipeline]]
    journal: Journal | None = None
    pipeline: Pipeline | None = None
    own: deque[tuple[Any, Record | None]] = attrs.field(factory=deque)
    lost: AvatarError | None = None
    waiter: asyncio.Future[None] | None = None
    _group_ids: dict[str, str] = attrs.field(factory=dict)

    @property
    def is_down(self) -> bool:
        """Whether no submission may leave now, because the service is not reached, or ill, for this account."""
        return self.pipeline is not None and not self.pipeline.client.breaker.closed("submit")

    def wake(self) -> None:
        """Let it look again whether there is a source for it."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def known(self, sources: Sequence[Any], group_of: Callable[[AssetSource], str]) -> dict[int, Record]:
        """Return what its journal knows of ``sources``, by their indices; what was only planned counts as unknown."""
        journal = self.journal
        if journal is None:
            return {}
        fingerprints: dict[int, bytes] = {}
        for at, source in enumerate(sources):
            if isinstance(source, AssetSource):
                group_id = await self._group_id(journal, group_of(source))
                if group_id is not None:
                    fingerprints[at] = self.adapter.entry(journal, source, group_id).fingerprint
        records = await journal.known(list(fingerprints.values()))
        return {
            at: record
            for at, record in zip(fingerprints, records, strict=True)
            if record is not None and record.state != "planned"
        }

    async def _group_id(self, journal: Journal, name: str) -> str | None:
        if name not in self._group_ids:
            (record,) = await journal.known([journal.fingerprint(kind="group", key=name)])
            if record is None or record.remote_id is None:
                return None
            self._group_ids[name] = record.remote_id
        return self._group_ids[name]

    def outcome_of(self, source: AssetSource, record: Record) -> AnyOutcome:
        """Return the outcome of what only this account could have gone on with, by what its journal holds."""
        outcome: AnyOutcome
        earlier = self.pipeline is None or self.pipeline.recorder.is_earlier(record)
        if self.journal is not None and not record.is_of(
            self.adapter.entry(self.journal, source, record.group_id or "")
        ):
            conflict = key_conflict(source, f"{record.kind} {record.shown}", earlier=earlier)
            outcome = Failed(source=source, error=conflict)
        else:
            outcome = outcome_of_record(record, source, self.adapter, unfinished=self.lost, earlier=earlier)
        return attrs.evolve(outcome, account=self.name)

    def take_back(self, alike: Callable[[Any], Hashable], identity: Hashable) -> list[Any]:
        """Remove from its own the sources whose identity is ``identity``, and return them."""
        taken = [source for source, _ in self.own if alike(source) == identity]
        if taken:
            self.own = deque(pair for pair in self.own if alike(pair[0]) != identity)
        return taken


@attrs.define(eq=False, repr=False)
class InFlight:
    """Where the sources of one identity are under way: what comes later and is like them goes there too.

    :ivar record: what the account's journal knew of them, or None: nothing that was sent goes elsewhere.
    """

    member: PoolMember
    record: Record | None = None
    under_way: int = 0
