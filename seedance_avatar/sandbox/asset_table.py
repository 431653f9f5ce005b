"""A table of all assets, stored by column: some 40 bytes for each beside its URL.

A million assets as objects would take half a gigabyte. No task runs for an asset either: its status is computed from
the time at which it is queried.
"""

from __future__ import annotations

from array import array

import attrs

from seedance_avatar.models import ASSET_TYPES

from .clock import Clock
from .fates import Fate
from .ids import Ids

__all__ = ["AssetTable"]


@attrs.define(eq=False)
class AssetTable:
    """The columns of the table; a row's number is the number of the asset.

    :ivar accepted: when it was accepted, seconds on the sandbox's clock.
    :ivar ready: when its processing ends; infinity for never.
    :ivar fate: an index into ``fates``.
    :ivar type: an index into ``ASSET_TYPES``.
    :ivar group: the group's number; ``account`` the account's.
    :ivar answered: 1 once the whole answer to its POST was written.
    :ivar looks: how often its status was queried.
    :ivar urls: the source URLs, or None when they are not kept.
    :ivar words: name and description of the assets that have one.
    """

    ids: Ids
    clock: Clock
    urls: list[str] | None
    accepted: array[float] = attrs.field(init=False, factory=lambda: array("d"))
    ready: array[float] = attrs.field(init=False, factory=lambda: array("d"))
    fate: array[int] = attrs.field(init=False, factory=lambda: array("H"))
    type: bytearray = attrs.field(init=False, factory=bytearray)
    group: array[int] = attrs.field(init=False, factory=lambda: array("L"))
    account: bytearray = attrs.field(init=False, factory=bytearray)
    answered: bytearray = attrs.field(init=False, factory=bytearray)
    looks: array[int] = attrs.field(init=False, factory=lambda: array("L"))
    words: dict[int, tuple[str | None, str | None]] = attrs.field(init=False, factory=dict)
    fates: list[Fate] = attrs.field(init=False, factory=list)
    _fate_numbers: dict[Fate, int] = attrs.field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self.accepted)

    def add(  # noqa: PLR0913 - one argument for each column
        self, *, source_url: str, asset_type: str, group: int, account: int, now: float, fate: Fate, ready: float
    ) -> int:
        """Add an asset and return its number."""
        number = len(self.accepted)
        known = self._fate_numbers.get(fate)
        if known is None:
            known = self._fate_numbers[fate] = len(self.fates)
            self.fates.append(fate)
        self.accepted.append(now)
        self.ready.append(ready)
        self.fate.append(known)
        self.type.append(ASSET_TYPES.index(asset_type))
        self.group.append(group)
        self.account.append(account)
        self.answered.append(0)
        self.looks.append(0)
        if self.urls is not None:
            self.urls.append(source_url)
        return number

    def id_of(self, number: int) -> str:
        """Return the id of asset ``number``."""
        return self.ids.mint(number, self.clock.wall_at(self.accepted[number]))

    def find(self, asset_id: str) -> int | None:
        """Return the number of the asset with this id, or None."""
        number = self.ids.number_of(asset_id)
        if number is None or number >= len(self.accepted) or self.id_of(number) != asset_id:
            return None
        return number

    def status(self, number: int, now: float) -> str:
        """Return the status of asset ``number`` at ``now``: ``processing``, ``active`` or ``failed``."""
        return self.fates[self.fate[number]].status if now >= self.ready[number] else "processing"
