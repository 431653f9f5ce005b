"""The active assets in the journal of an ingest, by key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from collections.abc import Sequence
from pathlib import Path

from seedance_avatar import Asset, InvalidInput, JournalError
from seedance_avatar.journal.journal import Journal
from seedance_avatar.models import ASSET_TYPES
from seedance_avatar.text import safe_text

__all__ = ["check_results", "remembered_assets"]


def _asset_ids(results: str) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(OSError):
        if stat.S_ISREG(Path(results).stat().st_mode):
            with Path(results).open("rb") as lines:
                for line in lines:
                    with contextlib.suppress(ValueError):
                        row = json.loads(line)
                        if isinstance(row, dict) and isinstance(row.get("asset_id"), str):
                            found.append(row["asset_id"])
    return found


async def check_results(results: str, journal: str) -> None:
    """Refuse to replace results that name assets which the journal at ``journal`` does not know.

    They are another journal's, or the journal is an older copy of itself and would upload those sources again.

    :raises JournalError: so it is; it names the files and one asset.
    """
    if not (asset_ids := await asyncio.to_thread(_asset_ids, results)):
        return
    try:
        async with await Journal.open(journal, readonly=True) as opened:
            unknown = await opened.unknown(asset_ids)
    except JournalError:
        return  # an older version, which this run brings up to date; or the run itself says what is wrong with it
    if unknown:
        message = (
            f"does not know {len(unknown)} of the {len(asset_ids)} assets in {safe_text(results, 160)} "
            f"({safe_text(unknown[0], 80)}): it may be an older copy of itself. Nothing was sent; bring the newer "
            "journal back, or move these results away if they are another journal's"
        )
        raise JournalError(message, about=f"journal {safe_text(journal, 160)}")


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
