"""Reads the records of a manifest with their line numbers, one at a time, from CSV, JSON, text or Parquet.

Each reader is a generator that holds one record (Parquet: one batch). A record that cannot be read is a
:class:`BadRecord` in its place; a manifest that cannot be read as a whole raises :class:`ManifestError`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import importlib
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import BinaryIO, Final, Literal, TextIO, TypeAlias, cast

import attrs

from seedance_avatar import InvalidInput
from seedance_avatar.text import safe_text

__all__ = ["BadRecord", "Format", "ManifestError", "read_records"]

Format: TypeAlias = Literal["csv", "jsonl", "json", "text", "parquet"]
_SUFFIXES: Final[Mapping[str, Format]] = {
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".json": "json",
    **dict.fromkeys((".txt", ".urls"), "text"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_LONGEST_LINE: Final = 1 << 20
"""Characters. A file without line ends must not be read into memory as one line."""
_PEEKED_LINES: Final = 200
_PEEKED: Final = 8192
"""Bytes by which an encoding is detected."""
_BATCH_ROWS: Final = 2048
_OTHER_NAMES: Final[Mapping[str, Sequence[str]]] = {
    "source_url": ("url", "link", "image_url", "video_url", "audio_url", "file_url"),
    "asset_type": ("type", "media_type"),
    "key": ("sku",),
}
"""What columns are called elsewhere; each is taken where it is the only one of its kind."""


class ManifestError(InvalidInput):
    """The manifest as a whole cannot be read; nothing of it was sent."""


@attrs.frozen
class BadRecord:
    """A record that cannot be read, and why."""

    reason: str


Record: TypeAlias = tuple[int, Mapping[str, object] | BadRecord]
"""A line number (Parquet: a row number), from 1, and the record on that line."""


def read_records(
    stream: BinaryIO, name: str, form: Format | None = None, *, say: Callable[[str], object] = str
) -> Iterator[Record]:
    """Read ``stream`` as the manifest ``name``; keys are column names in lower case, with ``_`` for a space.

    What gzip has packed is unpacked. Text is UTF-8, or what its first 8 KiB show it to be.

    :param form: its format, or None: by the name's ending, else by the first line that is neither empty nor a comment.
    :param say: called with what was assumed: an encoding, a column that is taken for another.
    :raises ManifestError: at the first step: no column ``source_url``, a format that cannot be detected,
        or Parquet without its extra or from a pipe.
    """
    path = PurePath(name)
    whole = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", stream))
    opened = whole
    if opened.peek(2)[:2] == b"\x1f\x8b":
        opened, path = io.BufferedReader(gzip.GzipFile(fileobj=whole)), path.with_suffix("")
    form = form or _SUFFIXES.get(path.suffix.lower())
    try:
        if form == "parquet":
            yield from _parquet(stream, name, say)
            return
        head = opened.peek(_PEEKED)
        encoding = _encoding(head)
        if encoding != "utf-8":
            say(f"it is read as {encoding}, not as UTF-8, which it is not")
        if form in {None, "jsonl"} and head.decode(encoding, "replace").lstrip("\ufeff \t\r\n").startswith("["):
            form = "json"
        # Bytes that are not UTF-8 become lone surrogates, so that only the row they are in is rejected.
        errors = "surrogateescape" if encoding == "utf-8" else "replace"
        text = io.TextIOWrapper(opened, encoding=encoding, errors=errors, newline="")
        try:
            yield from _records(text, name, form, say)
        finally:
            if not stream.closed:
                text.detach()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _unreadable(name, f"cannot be unpacked: {safe_text(error, 80)}") from None
    finally:
        if whole is not stream and not stream.closed:
            whole.detach()  # the caller closes the stream


def _records(text: TextIO, name: str, form: Format | None, say: Callable[[str], object]) -> Iterator[Record]:
    if form == "json":
        yield from _json(text)
        return
    lines = _lines(text)
    if form is None:
        form, head = _sniffed(lines, name)
        lines = itertools.chain(head, lines)
    if form == "text":
        urls = ((number, line.strip()) for number, line in enumerate(lines, 1))
        yield from ((number, {"source_url": url}) for number, url in urls if url and not url.startswith("#"))
    elif form == "csv":
        yield from _csv(lines, name, say)
    else:
        yield from _jsonl(lines)


def _encoding(head: bytes) -> str:
    """Return the encoding that the beginning of a file shows: Excel writes UTF-16, or what the country has."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if zeros.count(0) * 2 > len(zeros) > 0:
            return encoding
    try:
        if not head.lstrip().startswith((b"{", b"[")):  # JSON is UTF-8
            codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        # Pairs of high bytes that begin with 0xB0 to 0xD7 are the common Chinese characters of GB 2312.
        runs = re.findall(rb"[\x80-\xff]+", head[:-4] or head)
        common = sum(0xB0 <= run[at] <= 0xD7 for run in runs for at in range(0, len(run), 2))  # noqa: PLR2004 - GB 2312
        pairs = sum(len(run) for run in runs) / 2
        return "gb18030" if common > pairs / 2 and not any(len(run) % 2 for run in runs) else "cp1252"
    return "utf-8"


def _unreadable(name: str, why: str) -> ManifestError:
    return ManifestError(f"{name} {why}")


def _lines(text: TextIO) -> Iterator[str]:
    line = text.readline(_LONGEST_LINE).lstrip("\ufeff")  # one mark of the encoding, or two
    while line:
        yield line
        while len(line) >= _LONGEST_LINE and not line.endswith(("\n", "\r")):
            line = text.readline(_LONGEST_LINE)
        line = text.readline(_LONGEST_LINE)


def _json(text: TextIO) -> Iterator[Record]:
    """Read the elements of a JSON array, one at a time; their number stands for the line."""
    decode, buffer, at, number = json.JSONDecoder().raw_decode, "", 0, 0
    while more := text.read(_PEEKED):
        buffer, at = buffer[at:] + more, 0
        while True:
            while at < len(buffer) and buffer[at] in "\ufeff \t\r\n,[":
                at += 1
            try:
                found, at = decode(buffer, at)
            except RecursionError:
                yield number + 1, BadRecord("not JSON: nested too deeply")
                return
            except ValueError:
                break  # the rest of it is still to come
            number += 1
            yield number, _row(found)
        if len(buffer) - at > _LONGEST_LINE:
            break
    if buffer[at:].strip() not in {"", "]"}:
        yield number + 1, BadRecord("not JSON from here on")


def _sniffed(lines: Iterator[str], name: str) -> tuple[Format, list[str]]:
    """Detect the format by the first line with content; return it and the lines that were read for that."""
    head: list[str] = []
    first = ""
    for line in itertools.islice(lines, _PEEKED_LINES):
        head.append(line)
        first = "" if line.lstrip().startswith("#") else line.strip()
        if first:
            break
    if first.startswith("{"):
        return "jsonl", head
    if "://" not in first and (first.startswith("sep=") or _named(re.split(r"[,;\t]", first))):
        return "csv", head
    if "://" in first and not any(mark in first for mark in ' "\t;'):
        return "text", head
    if not first:
        raise _unreadable(name, "is empty")
    raise _unreadable(name, "has a format that cannot be detected: give --format csv, jsonl, text or parquet")


def _jsonl(lines: Iterator[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) >= _LONGEST_LINE:
            yield number, BadRecord("the line is longer than a million characters")
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply, or a number too long"
            yield number, BadRecord(f"not JSON: {safe_text(reason, 80)}")
            continue
        yield number, _row(found)


def _row(found: object) -> Mapping[str, object] | BadRecord:
    if isinstance(found, dict):
        return dict(zip(_named(found) or _plain(found), found.values(), strict=True))
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return BadRecord(f"not a JSON object but {kinds.get(type(found), 'a number')}")


def _csv(lines: Iterator[str], name: str, say: Callable[[str], object]) -> Iterator[Record]:
    numbered = enumerate(lines, 1)
    skipped, header = next(((number, line) for number, line in numbered if line.strip()), (0, ""))
    # Excel writes and reads a first line that names the separator.
    delimiter = header.strip()[4:5] if header.lower().startswith("sep=") else ""
    if delimiter:
        skipped, header = next(((number, line) for number, line in numbered if line.strip()), (0, ""))
    if not header:
        raise _unreadable(name, "is empty")
    delimiter = delimiter or max(",;\t", key=header.count)
    if delimiter not in header:
        delimiter = "\x1f"  # one column: the commas of its URLs separate nothing
    try:
        names = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error as error:
        raise _unreadable(name, f"has a first line that is not CSV: {safe_text(error, 80)}") from None
    columns = _columns(names, name, say)
    # Strict: a quote that is never closed, or text after its end, is an error of its row instead of joining rows.
    rest = (line for _, line in numbered)
    reader = csv.reader(rest, delimiter=delimiter, strict=True, skipinitialspace=True)
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
        if not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[len(columns) :]):
            yield number, BadRecord(f"{len(cells)} fields, but the first line names {len(columns)} columns")
        else:  # programs leave out, or add, empty cells at the end
            yield number, {column: cell for column, cell in zip(columns, cells, strict=False) if column}


def _plain(names: Iterable[object]) -> list[str]:
    """Return ``names`` as they are compared: in lower case, with ``_`` for a space or a hyphen."""
    return [re.sub(r"[\s-]+", "_", str(column).strip().lower()) for column in names]


def _named(names: Iterable[object]) -> list[str] | None:
    """Return ``names`` as the columns that they stand for, or None where none of them, or more than one, is the URL."""
    columns = _plain(names)
    for column, others in _OTHER_NAMES.items():
        found = [name for name in columns if name in others]
        if column not in columns and len(found) == 1:
            columns[columns.index(found[0])] = column
    return columns if "source_url" in columns else None


def _columns(names: Sequence[object], name: str, say: Callable[[str], object]) -> list[str]:
    plain, columns = _plain(names), _named(names)
    shown = safe_text(", ".join(plain), 120) or "nothing"
    if columns is None:
        raise _unreadable(name, f"has no column source_url (CSV: in its first line); it names: {shown}")
    filled = [column for column in columns if column]
    if len(set(filled)) < len(filled):
        raise _unreadable(name, f"names a column twice: {shown}")
    for before, after in zip(plain, columns, strict=True):
        if before != after:
            say(f"its column {safe_text(before, 40)} is taken as {after}")
    return columns


def _parquet(stream: BinaryIO, name: str, say: Callable[[str], object]) -> Iterator[Record]:
    if not stream.seekable():
        raise _unreadable(name, "is a pipe, and Parquet has its index at its end: give the name of a file")
    try:
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise _unreadable(name, "is Parquet, which needs an extra: pip install 'seedance-avatar[parquet]'") from None
    try:
        file = parquet.ParquetFile(stream)
        columns = _columns(file.schema_arrow.names, name, say)
        batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=_BATCH_ROWS))
        for number, row in enumerate(itertools.chain.from_iterable(batches), 1):
            yield number, dict(zip(columns, row.values(), strict=True))
    except ManifestError:
        raise
    except (OSError, ValueError, ArithmeticError, arrow.ArrowException) as error:
        raise _unreadable(name, f"cannot be read as Parquet: {safe_text(error, 160)}") from None
