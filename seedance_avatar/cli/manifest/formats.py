"""Reads the records of a manifest with their line numbers, one at a time, from CSV, JSON Lines, text or Parquet.

Each reader is a generator that holds one record (Parquet: one batch). A record that cannot be read is a
:class:`BadRecord` in its place; a manifest that cannot be read as a whole raises :class:`ManifestError`.
"""

from __future__ import annotations

import csv
import importlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import BinaryIO, Final, Literal, TypeAlias

import attrs

from seedance_avatar import InvalidInput
from seedance_avatar.text import safe_text

__all__ = ["BadRecord", "Format", "ManifestError", "read_records"]

Format: TypeAlias = Literal["csv", "jsonl", "text", "parquet"]
_SUFFIXES: Final[Mapping[str, Format]] = {
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".txt", ".urls"), "text"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_LONGEST_LINE: Final = 1 << 20
"""Characters. A file without line ends must not be read into memory as one line."""
_JSON_ARRAY: Final = "is a JSON array: write JSON Lines, one object a line"
_PEEKED_LINES: Final = 200
_BATCH_ROWS: Final = 2048


class ManifestError(InvalidInput):
    """The manifest as a whole cannot be read; nothing of it was sent."""


@attrs.frozen
class BadRecord:
    """A record that cannot be read, and why."""

    reason: str


Record: TypeAlias = tuple[int, Mapping[str, object] | BadRecord]
"""A line number (Parquet: a row number), from 1, and the record on that line."""


def read_records(stream: BinaryIO, name: str, form: Format | None = None) -> Iterator[Record]:
    """Read ``stream`` as the manifest ``name``; keys are column names in lower case.

    :param form: its format, or None: by the name's ending, else by the first line that is neither empty nor a comment.
    :raises ManifestError: at the first step: not UTF-8, no column ``source_url``, a format that cannot be detected,
        or Parquet without its extra or from a pipe.
    """
    form = form or _SUFFIXES.get(PurePath(name).suffix.lower())
    if form == "parquet":
        yield from _parquet(stream, name)
        return
    lines = _lines(stream, name)
    if form is None:
        form, head = _sniffed(lines, name)
        lines = itertools.chain(head, lines)
    if form == "text":
        urls = ((number, line.strip()) for number, line in enumerate(lines, 1))
        yield from ((number, {"source_url": url}) for number, url in urls if url and not url.startswith("#"))
    else:
        yield from (_csv if form == "csv" else _jsonl)(lines, name)


def _unreadable(name: str, why: str) -> ManifestError:
    return ManifestError(f"{name} {why}")


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    # Bytes that are not UTF-8 become lone surrogates, so that only the row they are in is rejected.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    first = True
    try:
        while line := text.readline(_LONGEST_LINE):
            if first and line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
                raise _unreadable(name, "is UTF-16, not UTF-8: save it as UTF-8 and run this again")
            first = False
            yield line
            while len(line) == _LONGEST_LINE and not line.endswith(("\n", "\r")):
                line = text.readline(_LONGEST_LINE)
    finally:
        if not stream.closed:
            text.detach()  # the caller closes the stream


def _sniffed(lines: Iterator[str], name: str) -> tuple[Format, list[str]]:
    """Detect the format by the first line with content; return it and the lines that were read for that."""
    head: list[str] = []
    first = ""
    for line in itertools.islice(lines, _PEEKED_LINES):
        head.append(line)
        first = "" if line.lstrip().startswith("#") else line.strip()
        if first:
            break
    if first.startswith("["):
        raise _unreadable(name, _JSON_ARRAY)
    if first.startswith("{"):
        return "jsonl", head
    if "source_url" in first.lower() and "://" not in first:
        return "csv", head
    if "://" in first and not any(mark in first for mark in ' "\t;'):
        return "text", head
    if not first:
        raise _unreadable(name, "is empty")
    raise _unreadable(name, "has a format that cannot be detected: give --format csv, jsonl, text or parquet")


def _jsonl(lines: Iterator[str], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith("["):
            raise _unreadable(name, _JSON_ARRAY)
        if len(line) >= _LONGEST_LINE:
            yield number, BadRecord("the line is longer than a million characters")
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply, or a number too long"
            yield number, BadRecord(f"not JSON: {safe_text(reason, 80)}")
            continue
        if isinstance(found, dict):
            yield number, {str(key).strip().lower(): value for key, value in found.items()}
        else:
            kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
            yield number, BadRecord(f"not a JSON object but {kinds.get(type(found), 'a number')}")


def _csv(lines: Iterator[str], name: str) -> Iterator[Record]:
    skipped, header_line = next(((number, line) for number, line in enumerate(lines, 1) if line.strip()), (0, ""))
    if not header_line:
        raise _unreadable(name, "is empty")
    delimiter = max(",;\t", key=header_line.count)
    try:
        columns = _columns(next(csv.reader([header_line], delimiter=delimiter), []), name)
    except csv.Error as error:
        raise _unreadable(name, f"has a first line that is not CSV: {safe_text(error, 80)}") from None
    # Strict: a quote that is never closed, or text after its end, is an error of its row instead of joining rows.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = skipped + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = skipped + reader.line_num
            # An open quote extends over the following lines (csv stops it at 128 KiB): the message names them.
            taken = f"; lines {number} to {last} were read as one row: close its quotes" if last > number else ""
            yield number, BadRecord(f"not CSV: {safe_text(error, 80)}{taken}")
            continue
        if not cells:
            continue
        if len(cells) == len(columns):
            yield number, dict(zip(columns, cells, strict=True))
        else:
            yield number, BadRecord(f"{len(cells)} fields, but the first line names {len(columns)} columns")


def _columns(names: Iterable[object], name: str) -> list[str]:
    """Return ``names`` as they are compared: in lower case."""
    columns = [str(column).strip().lower() for column in names]
    shown = safe_text(", ".join(columns), 120) or "nothing"
    if "source_url" not in columns:
        raise _unreadable(name, f"has no column source_url (CSV: in its first line); it names: {shown}")
    if len(set(columns)) < len(columns):
        raise _unreadable(name, f"names a column twice: {shown}")
    return columns


def _parquet(stream: BinaryIO, name: str) -> Iterator[Record]:
    if not stream.seekable():
        raise _unreadable(name, "is a pipe, and Parquet has its index at its end: give the name of a file")
    try:
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise _unreadable(name, "is Parquet, which needs an extra: pip install 'seedance-avatar[parquet]'") from None
    try:
        file = parquet.ParquetFile(stream)
        columns = _columns(file.schema_arrow.names, name)
        batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=_BATCH_ROWS))
        for number, row in enumerate(itertools.chain.from_iterable(batches), 1):
            yield number, dict(zip(columns, row.values(), strict=True))
    except ManifestError:
        raise
    except (OSError, ValueError, ArithmeticError, arrow.ArrowException) as error:
        raise _unreadable(name, f"cannot be read as Parquet: {safe_text(error, 160)}") from None
