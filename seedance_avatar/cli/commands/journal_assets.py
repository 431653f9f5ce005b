"""The active assets in the journal of an ingest, by key."""

from __future__ import annotations

from collections.abc import Sequence

from seedance_avatar import Asset, InvalidInput
from seedance_avatar.journal.journal import Journal
from seedance_avatar.models import ASSET_TYPES
from seedance_avatar.text import safe_text

__all__ = ["remembered_assets"]


async def remembered_assets(path: str, keys: Sequence[str], *, most: int) -> list[Asset]:
    """Return the active assets in the journal at ``path``: those of ``keys`` in their order, else all, oldest first.

    An ingest may be writing the journal.

    :param most: how many the caller can use; at most one more is returned.
    :raises InvalidInput: no active asset of such a key is in it, or none at all.
    :raises JournalError: there is no such file, or it is not a journal.
    """
    wanted = dict.fromkeys(keys)
    found: list[Asset] = []
    async with await Journal.open(path, readonly=True) as journal:
        async for record in journal.records(states=("active",), kinds=ASSET_TYPES):
            if record.remote_id is not None and (not wanted or record.key in wanted):
                found.append(Asset(asset_id=record.remote_id, asset_type=record.kind, status="active", name=record.key))
            if len(found) > most:
                break
    missing = [key for key in wanted if key not in {asset.name for asset in found}]
    if missing or not found:
        what = f"with the key {safe_text(missing[0], 80)}" if missing else "at all"
        message = f"{safe_text(path)} holds no active asset {what}"
        raise InvalidInput(message)
    order = list(wanted)
    return sorted(found, key=lambda asset: order.index(str(asset.name))) if wanted else found
