"""Compares a client's outcomes with the uploads that arrived, source by source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from seedance_avatar.errors import AssetFailed
from seedance_avatar.text import redact_url, safe_text

from .records import Upload

__all__ = ["disagreements"]


def disagreements(uploads: Iterable[Upload], outcomes: Iterable[Any]) -> list[str]:
    """Return the differences between ``outcomes`` and ``uploads``, one line each.

    An outcome with an asset accounts for exactly one upload, with that id and that URL; several outcomes of one asset
    are the same source given several times. An outcome in doubt accounts for one upload or none, any other for none.
    An upload without an outcome is a difference too. URLs are compared byte for byte.
    """
    unclaimed: dict[str, dict[str, Upload]] = {}
    by_id: dict[str, Upload] = {}
    for upload in uploads:
        unclaimed.setdefault(upload.source_url, {})[upload.asset_id] = upload
        by_id[upload.asset_id] = upload

    found: list[str] = []
    reported: dict[str, set[str]] = {}
    doubtful: dict[str, set[tuple[Any, ...]]] = {}
    for outcome in outcomes:
        source, kind = outcome.source, type(outcome).__name__
        reported.setdefault(source.source_url, set()).add(kind)
        asset = getattr(outcome, "asset", None)
        if kind == "InDoubt":
            # The same source given twice is one upload, and in doubt once.
            same = (source.key,) if source.key is not None else (source.asset_type,)
            doubtful.setdefault(source.source_url, set()).add(same)
        elif asset is not None:
            found += _about_asset(outcome, kind, by_id.get(asset.asset_id))
            unclaimed.get(source.source_url, {}).pop(asset.asset_id, None)
        elif kind in {"Active", "Pending"}:
            found.append(f"{redact_url(source.source_url)}: {kind} without an asset")
        elif kind not in {"Failed", "Unsent"}:
            found.append(f"{redact_url(source.source_url)}: {safe_text(kind, 40)} is no outcome")

    for url, left in unclaimed.items():
        spare = len(left) - len(doubtful.get(url, ()))
        if spare > 0:
            ids = ", ".join(sorted(left))
            kinds = " and ".join(sorted(reported.get(url, ()))) or "no outcome at all"
            found.append(
                f"{redact_url(url)}: {len(left)} applied that no outcome has the id of ({ids}), reported as {kinds}"
            )
    return found


def _about_asset(outcome: Any, kind: str, upload: Upload | None) -> list[str]:  # noqa: ANN401 - any class of outcome
    label = f"{redact_url(outcome.source.source_url)}: {kind} {safe_text(outcome.asset.asset_id, 64)}"
    if upload is None:
        return [f"{label}, which was never made"]
    if upload.source_url != outcome.source.source_url:
        return [f"{label}, which was made from {redact_url(upload.source_url)}"]
    failed = isinstance(getattr(outcome, "error", None), AssetFailed)
    if (kind == "Active" and upload.status != "active") or (failed and upload.status != "failed"):
        return [f"{label}, which is {upload.status}"]
    return []
