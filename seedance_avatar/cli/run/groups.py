"""The groups of one run: each name is created once, when the first source needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from seedance_avatar import AssetGroup, AssetSource, AvatarError, InvalidSource
from seedance_avatar.cli.manifest.manifest import ManifestSource

__all__ = ["Groups"]


class Groups:
    """Says which group a source goes to; it is what ``session.ingest(group=…)`` takes.

    :param create: creates a group by its name.
    :param name: the group of sources that name none, or None.
    :param group_id: its id, where it exists already, or None.
    :ivar default: that name; ``group_id`` likewise.
    :ivar error: why a group could not be created, or None.
    """

    def __init__(
        self,
        create: Callable[[str], Awaitable[AssetGroup]],
        *,
        name: str | None = None,
        group_id: str | None = None,
    ) -> None:
        self.error: AvatarError | None = None
        self._create = create
        self.default = name
        self.group_id = group_id
        self._made: dict[str, asyncio.Future[AssetGroup]] = {}

    def check(self, source: AssetSource) -> None:
        """Refuse a source that has no group to go to.

        :raises InvalidSource: it names none, and the command names none.
        """
        if self.group_id is None and self.name_of(source) is None:
            message = "it names no group, and neither --group-name nor --group-id does"
            raise InvalidSource(message, about=source.label)

    def name_of(self, source: AssetSource) -> str | None:
        """Return the name of the group that ``source`` goes to, or None for the one known by its id."""
        named = source.group if isinstance(source, ManifestSource) else None
        return named or self.default

    async def __call__(self, source: AssetSource) -> AssetGroup | str:
        """Return the group of ``source``; it is created on the first call that needs it.

        :raises AvatarError: it could not be created; the same for every source that needs it.
        """
        name = self.name_of(source)
        if name is None and self.group_id is not None:
            return self.group_id
        return await self.made(name or "")

    async def made(self, name: str) -> AssetGroup:
        """Return the group called ``name``, created if it was not yet."""
        making = self._made.get(name)
        if making is None:
            making = self._made[name] = asyncio.ensure_future(self._create(name))
        try:
            return await making
        except AvatarError as error:
            self.error = self.error or error
            raise
