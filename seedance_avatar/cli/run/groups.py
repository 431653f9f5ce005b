"""Creates the groups of a run: each name once, when the first source needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from seedance_avatar import AssetGroup, AssetSource, AvatarError, InvalidSource, SubmissionInDoubt
from seedance_avatar.cli.manifest.manifest import ManifestSource

__all__ = ["Groups"]


class Groups:
    """Returns the group of a source, as ``session.ingest(group=…)`` expects it.

    :param create: creates a group by its name.
    :param name: name of the group for sources that name none, or None; kept as ``default``.
    :param group_id: id of an existing group for sources that name none, or None.
    :ivar error: why a group could not be created, or None.
    :ivar unclear: names of groups whose creation has no answer, not yet or never: they may exist.
    """

    def __init__(
        self,
        create: Callable[[str], Awaitable[AssetGroup]],
        *,
        name: str | None = None,
        group_id: str | None = None,
    ) -> None:
        self.error: AvatarError | None = None
        self.unclear: dict[str, None] = {}
        self._create = create
        self.default = name
        self.group_id = group_id
        self._made: dict[str, asyncio.Future[AssetGroup]] = {}

    @property
    def asked(self) -> bool:
        """True once the creation of a group was begun."""
        return bool(self._made)

    def check(self, source: AssetSource) -> None:
        """Check that ``source`` has a group.

        :raises InvalidSource: it names none, and the command names none.
        """
        if self.group_id is None and self.name_of(source) is None:
            message = "it names no group, and neither --group-name nor --group-id does"
            raise InvalidSource(message, about=source.label)

    def name_of(self, source: AssetSource) -> str | None:
        """Return the name of the group of ``source``, or None for the existing group with ``group_id``."""
        named = source.group if isinstance(source, ManifestSource) else None
        return named or self.default

    async def __call__(self, source: AssetSource) -> AssetGroup | str:
        """Return the group of ``source``, and create it on the first call that needs it.

        :raises AvatarError: it could not be created; the same for every source that needs it.
        """
        name = self.name_of(source)
        if name is None and self.group_id is not None:
            return self.group_id
        return await self.made(name or "")

    async def made(self, name: str) -> AssetGroup:
        """Return the group called ``name``, and create it on the first call."""
        making = self._made.get(name)
        if making is None:
            making = self._made[name] = asyncio.ensure_future(self._making(name))
        return await making

    async def _making(self, name: str) -> AssetGroup:
        self.unclear[name] = None
        try:
            group = await self._create(name)
        except SubmissionInDoubt as error:
            self.error = self.error or error
            raise
        except AvatarError as error:
            del self.unclear[name]
            self.error = self.error or error
            raise
        del self.unclear[name]
        return group
