"""Checks a whole manifest before anything is sent: good, bad and repeated rows, and the time it will take."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from typing import Final

import attrs

from seedance_avatar import InvalidSource, Limits
from seedance_avatar.text import redact_url, safe_text

from .manifest import Manifest, ManifestSource, RejectedRow

__all__ = ["TIERS", "Duplicates", "Survey", "estimate", "rows", "survey"]

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
        self._seen.execute(
            "CREATE TABLE seen (mark INTEGER PRIMARY KEY, line INTEGER NOT NULL, what INTEGER NOT NULL, shown TEXT)"
        )
        self._seen.execute("BEGIN")

    def first_line(self, source: ManifestSource) -> int | None:
        """Return the line that named the same source first, or None and remember ``source``.

        :raises InvalidSource: its key stands for another source of its group: another type, or URL up to its query.
        """
        what = [source.asset_type, source.source_url.partition("#")[0].partition("?")[0]]
        named = [source.asset_type, source.source_url] if source.key is None else [source.key]
        shown = f"{source.asset_type} {redact_url(source.source_url)}"
        row = (_mark([source.group, *named]), source.line, _mark(what), shown)
        if self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", row).rowcount:
            return None
        found: tuple[int, int, str] = self._seen.execute(
            "SELECT line, what, shown FROM seen WHERE mark = ?", row[:1]
        ).fetchone()
        if found[1] != row[2]:
            first = f"its key is that of another source of its group, in line {found[0]} ({found[2]})"
            message = f"{first}: {shown} needs a key of its own"
            raise InvalidSource(message, about=source.label)
        return found[0]

    def close(self) -> None:
        """Delete the table."""
        self._seen.close()


def _mark(words: Sequence[str | None]) -> int:
    text = repr(words).encode(errors="backslashreplace")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)


def rows(manifest: Manifest) -> Iterator[tuple[ManifestSource | RejectedRow, int | None]]:
    """Yield the rows of ``manifest``, each good one with the line that it repeats, or None.

    A row whose key stands for another source is a bad one.
    """
    with closing(Duplicates()) as duplicates:
        for row in manifest:
            if isinstance(row, RejectedRow):
                yield row, None
                continue
            try:
                first = duplicates.first_line(row)
            except InvalidSource as error:
                reason, key = error.describe(), None if row.key is None else safe_text(row.key, 80)
                yield RejectedRow(line=row.line, reason=reason, source=redact_url(row.source_url), key=key), None
            else:
                yield row, first


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
    for row, first in rows(manifest):
        if isinstance(row, RejectedRow):
            found.rejected += 1
            if len(found.bad) < _LISTED:
                found.bad.append(row)
            continue
        found.good += 1
        found.types[row.asset_type] += 1
        found.groups[row.group] += 1
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
