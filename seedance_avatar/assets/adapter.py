"""The adapter with which a pipeline submits sources and polls assets."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

import attrs

from seedance_avatar.client.client import Client, Passage
from seedance_avatar.client.gate import Flow
from seedance_avatar.client.tasks import being_cancelled, raisable
from seedance_avatar.errors import AssetFailed, AvatarError, InvalidInput, InvalidSource
from seedance_avatar.models import Asset, AssetGroup, AssetSource
from seedance_avatar.text import redact_url, safe_text, url_path
from seedance_avatar.wire.refusals import is_id
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .media import MediaFacts
from .messages import asset_query, asset_request, check_source, read_asset
from .uploads import judge, published

if TYPE_CHECKING:
    from seedance_avatar.journal.journal import Journal
    from seedance_avatar.journal.records import Entry

__all__ = ["AssetAdapter", "GroupOf"]

GroupOf: TypeAlias = Callable[[AssetSource], AssetGroup | str | Awaitable[AssetGroup | str]]
"""A function that returns the group of a source, where one ingest serves several groups; sync or async."""


def group_id_of(group: object) -> str:
    """Return the id of ``group``.

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
class AssetAdapter:
    """How sources become assets: what a :class:`~seedance_avatar.ingest.pipeline.Pipeline` needs to know of them."""

    group: AssetGroup | str | GroupOf
    allow_private: bool = False
    kind: str = "assets"
    idempotent: bool = False
    # What is known of the local files from prepare() to submit(); a source that is never submitted takes its own along.
    facts: WeakKeyDictionary[AssetSource, MediaFacts] = attrs.field(factory=WeakKeyDictionary)

    def label(self, source: object) -> str:
        """Return the source's label."""
        return source.label if isinstance(source, AssetSource) else f"<{type(source).__name__}>"

    def polling_kind(self, source: AssetSource) -> str:
        """Return its asset type: each type takes a different time, and has its own schedule."""
        return source.asset_type

    async def prepare(self, source: object) -> str:
        """Check the source and its local file, and return the id of the group that it goes to."""
        if not isinstance(source, AssetSource):
            message = f"a source must be an AssetSource, not {type(source).__name__}: use AssetSource.image(url)"
            raise InvalidSource(message)
        check_source(source, allow_private=self.allow_private)
        await self.examine(source)
        group = self.group
        if callable(group):
            try:
                found = group(source)
                group = await found if inspect.isawaitable(found) else found
            except BaseException as error:
                if being_cancelled(error):
                    raise
                raise raisable(error, "the group callable")  # noqa: B904 - its cause is set, where it is another error
        return group_id_of(group)

    def identity(self, source: AssetSource, target_id: str) -> Hashable:
        """Return group and key of the source, else its group, type and URL: what is equal is one upload.

        A local file without a key is known by its content.
        """
        if source.key is not None:
            return target_id, source.key
        return target_id, source.asset_type, self._file_content(source) or source.source_url

    def content(self, source: AssetSource) -> Hashable:
        """Return the source's type, and its URL up to the query; of a local file its content."""
        return source.asset_type, self._file_content(source) or url_path(source.source_url)

    async def examine(self, source: AssetSource) -> None:
        """Check the local file of the source, if it has one, and remember its content.

        :raises InvalidSource: it cannot become an asset.
        """
        if (facts := await judge(source)) is not None:
            self.facts.pop(source, None)  # the key lives as long as the source that brought it, an equal one maybe
            self.facts[source] = facts

    def _file_content(self, source: AssetSource) -> str | None:
        facts = None if source.path is None else self.facts.get(source)
        return None if facts is None else f"{source.asset_type} {facts.digest}"

    async def submit(
        self, source: AssetSource, target_id: str, *, client: Client, flow: Flow, passage: Passage
    ) -> Asset:
        """Upload the local file of the source, if it has one, and submit the source."""

        def read(answer: Response) -> Asset:
            return read_asset(answer, source=source)

        # Without facts where an equal source took them with it: then the file is checked once more.
        facts = self.facts.get(source) or await judge(source)
        sent = await published(source, facts, client=client, flow=flow, patient=True)
        request = asset_request(sent, target_id)
        return await client.call(request, read, flow=flow, patient=True, passage=passage)

    def question(self, item_id: str) -> Request:
        """Return the status request."""
        return asset_query(item_id)

    def read(self, answer: Response, source: AssetSource, item_id: str) -> Asset:
        """Read the answer to the status request."""
        return read_asset(answer, source=source, asked=item_id)

    def entry(self, journal: Journal, source: AssetSource, target_id: str) -> Entry:
        """Return the journal entry of the source."""
        kind, url, content = source.asset_type, source.source_url, self._file_content(source)
        if content is None:
            return journal.entry(kind=kind, group_id=target_id, url=url, key=source.key)
        key = content if source.key is None else source.key
        entry = journal.entry(kind=kind, group_id=target_id, url=content, key=key, shown=redact_url(url))
        if source.key is not None:
            return entry
        # A journal of version 1 knows the file by its path.
        return attrs.evolve(entry, former=journal.fingerprint(kind=kind, group_id=target_id, url=url))

    def item_id(self, item: Asset) -> str:
        """Return the asset's id."""
        return item.asset_id

    def from_record(self, source: AssetSource, target_id: str, item_id: str, status: str) -> Asset:
        """Return the asset that the journal remembers."""
        return Asset(asset_id=item_id, group_id=target_id, asset_type=source.asset_type, status=status, source=source)

    def for_source(self, item: Asset, source: AssetSource) -> Asset:
        """Return the asset for another source of the same identity."""
        return attrs.evolve(item, source=source)

    def failure(self, item: Asset) -> AvatarError | None:
        """Return why the asset failed, or None when it is active."""
        return AssetFailed(item) if item.is_failed else None
