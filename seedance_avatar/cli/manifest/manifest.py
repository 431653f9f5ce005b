"""Turns the rows of a manifest into sources, and says of every other row why it cannot be used.

A manifest is read once from start to end, a row at a time, in constant memory. A bad row is reported with its line
number and its reason and does not end the reading.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias, cast
from urllib.parse import urlsplit

import attrs

from seedance_avatar import AssetSource, InvalidSource
from seedance_avatar.models import ASSET_TYPES, AssetType
from seedance_avatar.text import redact_url, safe_text

from .formats import BadRecord, Format, ManifestError, read_records

__all__ = ["COLUMNS", "Judge", "Manifest", "ManifestSource", "RejectedRow", "open_manifest"]

COLUMNS: Final = ("source_url", "asset_type", "name", "description", "key", "group")

_EXTENSIONS: Final[Mapping[str, AssetType]] = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "heic", "heif"), "image"),
    **dict.fromkeys(("mp4", "mov", "m4v", "webm"), "video"),
    **dict.fromkeys(("mp3", "wav", "m4a", "aac"), "audio"),
}
_LONGEST_GROUP: Final = 64
"""Characters of a group's name, the service's own limit."""

Judge: TypeAlias = Callable[[AssetSource], object]
"""Raises :class:`~seedance_avatar.InvalidSource` for a source that the service would refuse."""


@attrs.frozen
class ManifestSource(AssetSource):
    """A source with its place in a manifest.

    :ivar line: its line in the manifest (Parquet: its row), from 1.
    :ivar group: name of its group, or None for the group of the command.
    """

    line: int = 0
    group: str | None = None

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


class _RowError(Exception):
    """A row cannot be used; the message says why."""


@attrs.define(eq=False)
class Manifest:
    """An open manifest, to be iterated once.

    :ivar name: its name in messages.
    :ivar unknown: names of unknown columns, which are left out, in order of appearance (20 at most).
    :ivar guessed: rows without an ``asset_type`` whose URL has no known ending; they were taken as ``fallback``.
    """

    name: str
    _stream: BinaryIO
    _judge: Judge
    _format: Format | None = None
    fallback: AssetType = "image"
    unknown: dict[str, None] = attrs.field(factory=dict, init=False)
    guessed: int = attrs.field(default=0, init=False)

    def __iter__(self) -> Iterator[ManifestSource | RejectedRow]:
        """Yield each row, good or bad, in order.

        :raises ManifestError: the manifest as a whole cannot be read.
        """
        for line, record in read_records(self._stream, self.name, self._format):
            if isinstance(record, BadRecord):
                yield RejectedRow(line=line, reason=record.reason)
                continue
            try:
                yield self._source(line, record)
            except (_RowError, InvalidSource) as error:
                reason = error.describe() if isinstance(error, InvalidSource) else str(error)
                url, key = record.get("source_url"), record.get("key")
                yield RejectedRow(
                    line=line,
                    reason=safe_text(reason, 300),
                    source=redact_url(url) if isinstance(url, str) and url else None,
                    key=safe_text(key, 80) if isinstance(key, str | int) and key != "" else None,
                )

    def _source(self, line: int, record: Mapping[str, object]) -> ManifestSource:
        for column in record.keys() - COLUMNS if len(self.unknown) < 20 else ():  # noqa: PLR2004 - the number in the class's docstring
            self.unknown[safe_text(column, 40)] = None
        url, kind, name, description, key, group = (_cell(record, column) for column in COLUMNS)
        if url is None:
            message = "no source_url"
            raise _RowError(message)
        if group is not None and len(group) > _LONGEST_GROUP:
            message = f"the group's name has {len(group)} characters, the service takes at most {_LONGEST_GROUP}"
            raise _RowError(message)
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
    if isinstance(value, int) and not isinstance(value, bool) and column != "source_url":
        value = str(value)  # a key is often a number
    if value is None:
        return None
    if not isinstance(value, str):
        message = f"{column} is not text"
        raise _RowError(message)
    value = value.strip()
    try:
        value.encode()
    except UnicodeEncodeError:
        message = f"{column} is not UTF-8"
        raise _RowError(message) from None
    return value or None


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
