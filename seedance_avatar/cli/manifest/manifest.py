"""Turns the rows of a manifest into sources, says of every other row why it cannot be used, and counts them all.

A manifest is read once from start to end, a row at a time, in constant memory. A bad row is reported with its line
number and its reason and does not end the reading.
"""

from __future__ import annotations

import math
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import date
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias, cast
from urllib.parse import urlsplit

import attrs

from seedance_avatar import AssetSource, InvalidSource, Limits
from seedance_avatar.models import ASSET_TYPES, AssetType
from seedance_avatar.text import redact_url, safe_text

from .formats import BadRecord, Format, ManifestError, read_records

__all__ = ["COLUMNS", "TIERS", "Manifest", "ManifestSource", "RejectedRow", "Survey", "estimate", "open_manifest"]

COLUMNS: Final = ("source_url", "asset_type", "name", "description", "key", "group")

_EXTENSIONS: Final[Mapping[str, AssetType]] = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "heic", "heif"), "image"),
    **dict.fromkeys(("mp4", "mov", "m4v", "webm"), "video"),
    **dict.fromkeys(("mp3", "wav", "m4a", "aac"), "audio"),
}
_LONGEST_GROUP: Final = 64
"""Characters of a group's name, the service's own limit."""
_LISTED: Final = 20

TIERS: Final[Mapping[str, Limits]] = {"default": Limits.default(), "vip": Limits.vip(), "svip": Limits.svip()}
"""The documented limits of an account, by the name of the tier on the command line."""

_TYPICAL: Final = {"image": 13.0, "audio": 13.0, "video": 27.0}
"""Seconds until an asset is active, as clients of the service recorded them."""

Judge: TypeAlias = Callable[[AssetSource], object]
"""Raises :class:`~seedance_avatar.InvalidSource` for a source that the service would refuse."""


@attrs.frozen
class ManifestSource(AssetSource):
    """A source with its place in a manifest.

    :ivar line: its line in the manifest (Parquet: its row), from 1.
    :ivar group: name of its group, or None for the group of the command.
    :ivar repeats: the line that named the same source first, or None.
    """

    line: int = 0
    group: str | None = None
    repeats: int | None = None

    @property
    def label(self) -> str:
        """The name of this source in messages: its line, its key, its URL without secrets."""
        return f"line {self.line}, {super().label}"


@attrs.frozen(kw_only=True)
class RejectedRow:
    """A row that cannot be used.

    :ivar source: its URL without secrets, or None where it has none.
    """

    line: int
    reason: str
    source: str | None = None
    key: str | None = None


@attrs.define(eq=False)
class Manifest:
    """An open manifest, to be iterated once.

    :ivar name: its name in messages.
    :ivar unknown: names of unknown columns, which are left out, in order of appearance (20 at most).
    :ivar assumed: sentences about what was assumed of its encoding and its columns.
    :ivar guessed: rows without an ``asset_type`` whose URL has no known ending; they were taken as ``fallback``.
    """

    name: str
    _stream: BinaryIO
    _judge: Judge
    _format: Format | None = None
    fallback: AssetType = "image"
    unknown: dict[str, None] = attrs.field(factory=dict, init=False)
    assumed: dict[str, None] = attrs.field(factory=dict, init=False)
    guessed: int = attrs.field(default=0, init=False)

    def __iter__(self) -> Iterator[ManifestSource | RejectedRow]:
        """Yield each row, good or bad, in order.

        :raises ManifestError: the manifest as a whole cannot be read.
        """
        with closing(_table()) as seen:
            for line, record in read_records(self._stream, self.name, self._format, say=self._assume):
                if isinstance(record, BadRecord):
                    yield RejectedRow(line=line, reason=record.reason)
                    continue
                row: ManifestSource | RejectedRow
                try:
                    source = self._source(line, record)
                    first = _first_line(seen, source)
                    row = source if first is None else attrs.evolve(source, repeats=first)
                except InvalidSource as error:
                    url, key = record.get("source_url"), record.get("key")
                    row = RejectedRow(
                        line=line,
                        reason=safe_text(error.describe(), 500),
                        source=redact_url(url) if isinstance(url, str) and url else None,
                        key=safe_text(key, 80) if isinstance(key, str | int) and key != "" else None,
                    )
                yield row

    def _assume(self, text: str) -> None:
        self.assumed[text] = None

    def _source(self, line: int, record: Mapping[str, object]) -> ManifestSource:
        for column in record.keys() - COLUMNS if len(self.unknown) < _LISTED else ():
            self.unknown[safe_text(column, 40)] = None
        url, kind, name, description, key, group = (_cell(record, column) for column in COLUMNS)
        if url is None:
            message = "no source_url"
            raise InvalidSource(message)
        if group is not None and len(group) > _LONGEST_GROUP:
            message = f"the group's name has {len(group)} characters, the service takes at most {_LONGEST_GROUP}"
            raise InvalidSource(message)
        known = self._guess(url) if kind is None else cast("AssetType", kind.lower())
        source = ManifestSource(url, known, name, description, key, line, group)
        self._judge(source)
        return source

    def _guess(self, url: str) -> AssetType:
        try:
            path = urlsplit(url).path
        except ValueError:
            return self.fallback  # not a URL at all: the judge rejects it with a reason
        found = _EXTENSIONS.get(path.rpartition("/")[2].rpartition(".")[2].lower())
        if found is None:
            self.guessed += 1
        return found or self.fallback


def _cell(record: Mapping[str, Any], column: str) -> str | None:
    value = record.get(column)
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    elif isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return None  # what data frames write for an empty cell
        value = int(value) if value == int(value) else str(value)  # numbers with a hole among them are 17.0
    if isinstance(value, int | date) and not isinstance(value, bool) and column != "source_url":
        value = str(value)  # a key is often a number
    if value is None:
        return None
    if not isinstance(value, str):
        message = f"{column} is not text"
        raise InvalidSource(message)
    value = value.strip()
    try:
        value.encode()
    except UnicodeEncodeError:
        message = f"{column} is not UTF-8"
        raise InvalidSource(message) from None
    return value or None


def _table() -> sqlite3.Connection:
    """Return a table of the sources that were named so far: in a file, so that memory is constant."""
    # An empty name is a private database on disk that is deleted with its connection. It need not survive a crash,
    # so neither a journal nor synchronous writes are needed.
    table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    table.executescript(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8192;"
        "CREATE TABLE seen (mark INTEGER PRIMARY KEY, line INTEGER NOT NULL, what INTEGER NOT NULL, shown TEXT); BEGIN"
    )
    return table


def _first_line(seen: sqlite3.Connection, source: ManifestSource) -> int | None:
    """Return the line that named the same source first, or None and remember ``source``.

    :raises InvalidSource: its key stands for another source of its group: another type, or URL up to its query.
    """
    what = _mark([source.asset_type, source.source_url.partition("#")[0].partition("?")[0]])
    mark = _mark([source.group, *([source.asset_type, source.source_url] if source.key is None else [source.key])])
    shown = f"{source.asset_type} {redact_url(source.source_url)}"
    if seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", (mark, source.line, what, shown)).rowcount:
        return None
    line: int
    line, first, named = seen.execute("SELECT line, what, shown FROM seen WHERE mark = ?", (mark,)).fetchone()
    if first != what:
        message = (
            f"its key is that of another source of its group, in line {line} ({named}): {shown} needs a key of its own"
        )
        raise InvalidSource(message)
    return line


def _mark(words: Sequence[str | None]) -> int:
    text = repr(words).encode(errors="backslashreplace")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)


@contextmanager
def open_manifest(
    path: str, judge: Judge, *, form: Format | None = None, fallback: AssetType = "image"
) -> Iterator[Manifest]:
    """Open the manifest at ``path`` (``-`` is standard input) for one reading.

    :param judge: raises ``InvalidSource`` for a source that must be rejected.
    :param form: its format, or None to detect it.
    :param fallback: the type of a row that names none and whose URL has no known ending.
    :raises ManifestError: there is no such file, or it may not be read.
    """
    if fallback not in ASSET_TYPES:
        message = f"a source is an image, a video or an audio, not {safe_text(fallback, 40)}"
        raise ManifestError(message)
    if path == "-":
        yield Manifest("standard input", _standard_input(), judge, form, fallback)
        return
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 - closed below; only the opening is to be caught here
    except OSError as error:
        message = f"{safe_text(path)} cannot be read: {error.strerror}"
        raise ManifestError(message) from None
    with stream:
        yield Manifest(safe_text(path), stream, judge, form, fallback)


def _standard_input() -> BinaryIO:
    # Not sys.stdin: a run that is stopped during a read leaves the reading thread behind, and the interpreter, which
    # closes sys.stdin as it ends, would abort over its lock.
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError:  # standard input was replaced by an object without a descriptor
        return sys.stdin.buffer


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

    @classmethod
    def of(cls, manifest: Manifest) -> Survey:
        """Read ``manifest`` to its end, and return the contents."""
        found = cls()
        for row in manifest:
            if isinstance(row, RejectedRow):
                found.rejected += 1
                if len(found.bad) < _LISTED:
                    found.bad.append(row)
                continue
            found.good += 1
            found.types[row.asset_type] += 1
            found.groups[row.group] += 1
            if row.repeats is not None:
                found.repeated += 1
                if len(found.repeats) < _LISTED:
                    found.repeats.append((row.line, row.repeats))
        return found

    @property
    def uploads(self) -> int:
        """The number of uploads: one for each source, however many rows name it."""
        return self.good - self.repeated


def estimate(found: Survey, limits: Limits) -> float:
    """Return the seconds that the uploads of ``found`` take under ``limits``, the last one's processing included."""
    per_second, burst = limits.submits_per_second or 1.0, limits.submit_burst or 0
    last = max((_TYPICAL.get(kind, 0.0) for kind in found.types), default=0.0)
    return max(0, found.uploads - burst) / per_second + last
