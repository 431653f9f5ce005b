"""Calls for single groups, assets and files."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs

from seedance_avatar.assets.adapter import group_id_of
from seedance_avatar.assets.messages import (
    asset_query,
    asset_request,
    check_source,
    group_request,
    read_asset,
    read_group,
)
from seedance_avatar.assets.uploads import judge, published, upload_file
from seedance_avatar.client.client import Passage
from seedance_avatar.errors import AssetFailed
from seedance_avatar.events import Accepted
from seedance_avatar.models import Asset, AssetGroup, AssetSource
from seedance_avatar.text import safe_text
from seedance_avatar.wire.response import Response

from .engine import Engine
from .submission import Kept, Submission
from .waiting import Recent, wait_until_finished

if TYPE_CHECKING:
    from seedance_avatar.journal.journal import Journal
    from seedance_avatar.journal.records import Entry

__all__ = ["Assets"]


@attrs.define(eq=False, repr=False)
class Assets:
    """The calls of a session for one group, asset or file; :class:`AvatarSession` documents them."""

    engine: Callable[[], Engine]
    allow_private: bool = False
    _recent: Recent = attrs.field(factory=Recent)

    async def create_group(
        self,
        name: str,
        description: str | None,
        path: str | os.PathLike[str] | None,
        *,
        resend: bool,
        timeout: float | None = None,  # noqa: ASYNC109 - its error says what became of the submission
    ) -> AssetGroup:
        """Create a group; with a journal at ``path``, return the one that it knows by this name."""
        engine = self.engine()
        request = group_request(name, description)

        async def call(passage: Passage) -> AssetGroup:
            return await engine.client.call(request, read_group, flow=engine.alone, passage=passage)

        async def found(group_id: str) -> AssetGroup:
            return AssetGroup(group_id=group_id, name=name)

        def entry(journal: Journal) -> Entry:
            return journal.entry(kind="group", key=name, shown=name)

        kept = None if path is None else Kept(path=path, entry=entry, found=found, resend=resend)
        submission = Submission(call=call, id_of=lambda group: group.group_id, about=request.about, kept=kept)
        return await submission.finish(engine, timeout)

    async def upload_file(self, path: str | os.PathLike[str], timeout: float | None = None) -> str:  # noqa: ASYNC109 - its error is one of ours
        """Upload a local file, and return its public URL."""
        engine = self.engine()

        async def call(passage: Passage) -> str:
            return await upload_file(path, client=engine.client, flow=engine.alone, passage=passage)

        submission = Submission(call=call, id_of=str, about=safe_text(path), harmless=True)
        return await submission.finish(engine, timeout)

    async def upload(self, source: AssetSource, group: AssetGroup | str, timeout: float | None = None) -> Asset:  # noqa: ASYNC109 - its error says what became of the submission
        """Upload one source and return its asset."""
        engine, group_id = self.engine(), group_id_of(group)
        check_source(source, allow_private=self.allow_private)
        client = engine.client

        def read(response: Response) -> Asset:
            asset = read_asset(response, source=source)
            now = client.clock()
            self._recent.note(asset.asset_id, now)
            if client.observer is not None:
                client.observer(Accepted(at=now, ingest=None, source=source, asset=asset))
            return asset

        async def call(passage: Passage) -> Asset:
            sent = await published(source, await judge(source), client=client, flow=engine.alone)
            request = asset_request(sent, group_id)
            return await client.call(request, read, flow=engine.alone, passage=passage)

        submission = Submission(call=call, id_of=lambda asset: asset.asset_id, about=source.label)
        return await submission.finish(engine, timeout)

    async def get(self, asset_id: str) -> Asset:
        """Return an asset as it is now."""
        engine = self.engine()
        return await engine.client.call(asset_query(asset_id), partial(read_asset, asked=asset_id), flow=engine.asking)

    async def wait(self, asset: Asset | str, timeout: float = 600.0) -> Asset:  # noqa: ASYNC109 - its error carries the asset as last seen
        """Wait until an asset is active.

        :raises AssetFailed: it failed.
        :raises WaitTimeout: not yet.
        """
        seen = asset if isinstance(asset, Asset) else None
        asset_id = asset.asset_id if isinstance(asset, Asset) else asset
        return await wait_until_finished(
            self.engine(),
            seen,
            question=asset_query(asset_id),
            accepted_at=self._recent.take(asset_id),
            timeout=timeout,
            read=partial(read_asset, source=None if seen is None else seen.source, asked=asset_id),
            kind=lambda last: None if last is None else last.asset_type,
            failure=lambda last: AssetFailed(last) if last.is_failed else None,
        )
