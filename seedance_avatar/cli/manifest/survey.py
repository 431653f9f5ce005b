"""Checks a whole manifest before anything is sent: good, bad and repeated rows, and the time it will take."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from hashlib import blake2b
from typing import Final

import attrs

from seedance_avatar import Limits

from .manifest import Manifest, ManifestSource, RejectedRow

__all__ = ["TIERS", "Duplicates", "Survey", "estimate", "survey"]

TIERS: Final[Mapping[str, Limits]] = {"default": Limits.default(), "vip": Limits.vip(), "svip": Limits.svip()}
"""The documented limits of an account, by the name of the tier on the command line."""

_TYPICAL: Final = {"image": 13.0, "audio": 13.0, "video": 27.0}
"""Seconds until an asset is active, as clients of the service recorded them."""
_LISTED: Final = 20
_CACHE_KIB: Final = 8_192


class Duplicates:
    """Finds repeated sources in constant memory, with a table in a temporary file."""

    def __init__(self) -> None:
        # An empty name is a private database on disk that is deleted with its connection. It need not survive a crash,
        # so neither a journal nor synchronous writes are needed.
        self._seen = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._seen.execute("PRAGMA journal_mode = OFF")
        self._seen.execute("PRAGMA synchronous = OFF")
        self._seen.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._seen.execute("CREATE TABLE seen (mark INTEGER PRIMARY KEY, line INTEGER NOT NULL)")
        self._seen.execute("BEGIN")

    def first_line(self, source: ManifestSource) -> int | None:
        """Return the line that named the same source first, or None and remember ``source``."""
        named = [source.key] if source.key is not None else [source.group, source.asset_type, source.source_url]
        mark = int.from_bytes(blake2b(repr(named).encode(), digest_size=8).digest(), "big", signed=True)
        added = self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (mark, source.line))
        if added.rowcount:
            return None
        found: tuple[int] = self._seen.execute("SELECT line FROM seen WHERE mark = ?", (mark,)).fetchone()
        return found[0]

    def close(self) -> None:
        """Delete the table."""
        self._seen.close()


@attrs.define(eq=False)
class Survey:
    """The contents of a whole manifest.

    :ivar good: rows that can be sent; ``types`` and ``groups`` count them (None: rows that name no group).
    :ivar rejected: rows that cannot; ``bad`` holds the first twenty.
    :ivar repeated: rows that name a source again; ``repeats`` holds their line and the first such line, twenty at most.
    """

    good: int = 0
    rejected: int = 0
    repeated: int = 0
    types: Counter[str] = attrs.field(factory=Counter)
    groups: Counter[str | None] = attrs.field(factory=Counter)
    bad: list[RejectedRow] = attrs.field(factory=list)
    repeats: list[tuple[int, int]] = attrs.field(factory=list)

    @property
    def uploads(self) -> int:
        """The number of uploads: one for each source, however many rows name it."""
        return self.good - self.repeated


def survey(manifest: Manifest) -> Survey:
    """Read ``manifest`` to its end, and return the contents."""
    found = Survey()
    with closing(Duplicates()) as duplicates:
        for row in manifest:
            if isinstance(row, RejectedRow):
                found.rejected += 1
                if len(found.bad) < _LISTED:
                    found.bad.append(row)
                continue
            found.good += 1
            found.types[row.asset_type] += 1
            found.groups[row.group] += 1
            first = duplicates.first_line(row)
            if first is not None:
                found.repeated += 1
                if len(found.repeats) < _LISTED:
                    found.repeats.append((row.line, first))
    return found


def estimate(found: Survey, limits: Limits) -> float:
    """Return the seconds that the uploads of ``found`` take under ``limits``, the last one's processing included."""
    per_second, burst = limits.submits_per_second or 1.0, limits.submit_burst or 0
    last = max((_TYPICAL.get(kind, 0.0) for kind in found.types), default=0.0)
    return max(0, found.uploads - burst) / per_second + last
