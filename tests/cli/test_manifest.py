from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import sys
import tracemalloc
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar import AssetSource, InvalidSource
from seedance_avatar.cli.manifest.formats import Format, ManifestError, read_records
from seedance_avatar.cli.manifest.manifest import Manifest, ManifestSource, RejectedRow, open_manifest


def judge(source: AssetSource) -> None:
    if not source.source_url.startswith(("http://", "https://")):
        message = "not a public URL"
        raise InvalidSource(message, about=source.label)
    if source.asset_type not in {"image", "video", "audio"}:
        message = f"unknown asset_type {source.asset_type}"
        raise InvalidSource(message, about=source.label)


def rows(
    data: str | bytes, form: Format | None = None, name: str = "standard input"
) -> list[ManifestSource | RejectedRow]:
    raw = data.encode() if isinstance(data, str) else data
    return list(Manifest(name, io.BytesIO(raw), judge, form))


A, B = "https://cdn.example.com/a.jpg", "https://cdn.example.com/b.mp4"


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("csv", ["source_url,key", f"{A},one", f"{B},two"]),
        ("jsonl", [json.dumps({"source_url": A, "key": "one"}), "", json.dumps({"source_url": B, "key": "two"})]),
    ],
)
def test_every_format_is_found_with_and_without_mark_and_either_line_end(
    form: str, lines: list[str], end: str, bom: bytes
) -> None:
    for text in (end.join(lines), end.join(lines) + end):
        found = rows(bom + text.encode())
        assert [
            (row.line, row.source_url, row.key, row.asset_type) for row in found if isinstance(row, ManifestSource)
        ] == [
            (2 if form == "csv" else 1, A, "one", "image"),
            (3, B, "two", "video"),
        ]


def test_plain_text_is_one_url_a_line_with_blanks_and_comments() -> None:
    found = rows(f"# the brand's avatar\n\n{A}\r\n   \n  {B}  \n#{A}\nftp://old.example.com/x.mp3\n")
    assert [(row.line, type(row).__name__) for row in found] == [
        (3, "ManifestSource"),
        (5, "ManifestSource"),
        (7, "RejectedRow"),
    ]


def test_a_url_is_kept_byte_for_byte() -> None:
    signed = "https://cdn.example.com/a%2Fb.jpg?X-Sig=%2B%7e+=&b=%20"
    [text] = rows(f"{signed}\n")
    [row] = rows(json.dumps({"source_url": signed}))
    assert isinstance(text, ManifestSource)
    assert isinstance(row, ManifestSource)
    assert text.source_url == row.source_url == signed


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_quotes_and_every_delimiter_and_column_order(delimiter: str) -> None:
    cells = ["Name", "KEY", "group", "asset_type", "description", " source_url "]
    row = ['"He said ""hi"""', "k1", "hero", "VIDEO", f'"two\nlines{delimiter} one cell"', A]
    first, second = rows(f"{delimiter.join(cells)}\n{delimiter.join(row)}\n\n{delimiter * 5}{B}\n", "csv")
    assert first == ManifestSource(A, "video", 'He said "hi"', f"two\nlines{delimiter} one cell", "k1", 2, "hero")
    assert second == ManifestSource(B, "video", None, None, None, 5, None)


def test_a_bad_csv_row_is_told_with_its_line_and_the_next_one_is_read() -> None:
    text = f'source_url,name\n{A},x\n{A}\n{A},y,z\n{A},"ab"c\n{B},fine\nhttp://\x1b[31m,\n,nothing\n'
    found = rows(text, "csv")
    assert [(row.line, isinstance(row, RejectedRow)) for row in found] == [
        (2, False),
        (3, False),
        (4, True),
        (5, True),
        (6, False),
        (7, False),
        (8, True),
    ]
    reasons = [row.reason for row in found if isinstance(row, RejectedRow)]
    assert reasons[0] == "3 fields, but the first line names 2 columns"
    assert reasons[1].startswith("not CSV: ")
    assert reasons[-1] == "no source_url"


def test_an_open_quote_says_which_lines_it_took_along() -> None:
    bad, *rest = rows(f'source_url\n"{A}\n{A}\n{A}\n', "csv")
    assert isinstance(bad, RejectedRow)
    assert "lines 2 to 4 were read as one row" in bad.reason
    assert rest == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"source_url": "https://x.example.com/a.jpg",}', "not JSON: "),
        (b"[1]", "not a JSON object but a list"),
        (b'"https://x.example.com/a.jpg"', "not a JSON object but a string"),
        (b"null", "not a JSON object but null"),
        (b"[" * 100_000, "not JSON: nested too deeply"),
        (b'{"source_url": 5}', "source_url is not text"),
        (b'{"source_url": "https://x.example.com/a.jpg", "name": ["n"]}', "name is not text"),
        (b'{"source_url": "https://x.example.com/a.jpg", "name": "\\ud800"}', "name is not UTF-8"),
        (b'{"source_url": "https://x.example.com/\xff.jpg"}', "source_url is not UTF-8"),
        (b'{"address": "https://x.example.com/a.jpg"}', "no source_url"),
        (b'{"source_url": "https://x.example.com/a.jpg", "asset_type": "gif"}', "unknown asset_type gif"),
        (b'{"source_url": "https://x.example.com/a.jpg", "group": "' + b"g" * 65 + b'"}', "the group's name has 65"),
    ],
)
def test_a_bad_json_line_is_told_and_the_next_one_is_read(line: bytes, reason: str) -> None:
    first, bad, last = rows(
        b'{"source_url": "%s"}\n%s\n{"source_url": "%s"}\n' % (A.encode(), line, B.encode()), "jsonl"
    )
    assert isinstance(first, ManifestSource)
    assert isinstance(last, ManifestSource)
    assert isinstance(bad, RejectedRow)
    assert (bad.line, last.line) == (2, 3)
    assert bad.reason.startswith(reason)


def test_a_number_is_a_key() -> None:
    [row] = rows(json.dumps({"source_url": A, "key": 17}))
    assert isinstance(row, ManifestSource)
    assert row.key == "17"


def test_a_rejected_row_shows_no_query_and_no_escape() -> None:
    [row] = rows(json.dumps({"source_url": "ftp://u:pw@x.example.com/a.jpg?sig=CANARY", "key": "k\x1b[31m\nx"}))
    assert isinstance(row, RejectedRow)
    assert row.source == "ftp://x.example.com/a.jpg?…"
    assert row.key == "k\\x1b[31m x"
    assert "CANARY" not in repr(row)


def test_a_source_is_named_by_its_line() -> None:
    [row] = rows(json.dumps({"source_url": A + "?sig=CANARY", "key": "k1"}))
    assert isinstance(row, ManifestSource)
    assert row.label == "line 1, k1 (https://cdn.example.com/a.jpg?…)"


@pytest.mark.parametrize(
    ("url", "kind", "guessed"),
    [
        ("https://x.example.com/a.JPEG", "image", 0),
        ("https://x.example.com/v1.2/a.mp4?x=.mp3#.jpg", "video", 0),
        ("https://x.example.com/voice.wav", "audio", 0),
        ("https://x.example.com/v1.mp4/", "image", 1),
        ("https://x.example.com/mp4", "video", 0),
        ("https://x.example.com/get?file=a.mp4", "image", 1),
        ("https://[broken/a.mp4", "image", 0),
    ],
)
def test_a_type_that_is_not_given_is_guessed_from_the_path(url: str, kind: str, guessed: int) -> None:
    manifest = Manifest("m", io.BytesIO(json.dumps({"source_url": url, "asset_type": " "}).encode()), judge, "jsonl")
    [row] = manifest
    assert isinstance(row, ManifestSource)
    assert (row.asset_type, manifest.guessed) == (kind, guessed)


def test_unknown_columns_are_left_out_and_named_once_and_boundedly() -> None:
    lines = [json.dumps({"source_url": A, f"extra{number}\x1b": 1}) for number in range(40)]
    manifest = Manifest("m", io.BytesIO("\n".join(lines).encode()), judge, "jsonl")
    assert len(list(manifest)) == 40
    assert len(manifest.unknown) == 20
    assert next(iter(manifest.unknown)) == "extra0\\x1b"


@pytest.mark.parametrize(
    ("data", "form", "says"),
    [
        (b"", None, "is empty"),
        (b"\n# only words\n", None, "is empty"),
        (b"", "csv", "is empty"),
        (b"\n \n", "csv", "is empty"),
        (b"hello there\n", None, "cannot be detected"),
        (b"url,link\nx,y\n", "csv", "has no column source_url"),
        (b"source_url,name,Name\n", "csv", "names a column twice"),
        (b"source_url," + b"x" * 200_000, "csv", "a first line that is not CSV: field larger than"),
        (b"PAR1 not really", "parquet", "cannot be read as Parquet"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_why(data: bytes, form: Format | None, says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        rows(data, form)


def test_the_name_tells_the_format_before_the_content_does() -> None:
    [row] = rows("source_url\n", name="list.txt")
    assert isinstance(row, RejectedRow)
    assert rows("source_url\n", name="LIST.CSV") == []


def test_a_line_without_end_is_not_read_into_memory() -> None:
    endless = b'{"source_url": "' + b"x" * (3 << 20) + b'"}\n' + json.dumps({"source_url": A}).encode()
    bad, good = rows(endless, "jsonl")
    assert isinstance(bad, RejectedRow)
    assert bad.reason == "the line is longer than a million characters"
    assert isinstance(good, ManifestSource)
    assert good.line == 2


def test_fifty_thousand_rows_in_constant_memory() -> None:
    class Endless(io.RawIOBase):
        """A file of 50,000 rows of which none exists before it is read."""

        def __init__(self) -> None:
            self.coming = (f"https://cdn.example.com/{number}.jpg,k{number}\n".encode() for number in range(50_000))
            self.rest = b"source_url,key\n"

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            chunk, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
            buffer[: len(chunk)] = chunk
            self.rest = self.rest or next(self.coming, b"")
            return len(chunk)

    tracemalloc.start()
    try:
        count = sum(1 for _ in Manifest("m", cast("BinaryIO", io.BufferedReader(Endless())), judge, "csv"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 50_000
    assert peak < 1_000_000


def test_parquet_is_read_in_batches_with_row_numbers(tmp_path: Path) -> None:
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    path = tmp_path / "sources.parquet"
    urls = [f"https://cdn.example.com/{number}.wav" for number in range(5_000)]
    urls[3] = "ftp://cdn.example.com/3.wav"
    table = arrow.table({"Source_URL": urls, "key": list(range(5_000)), "size": [1.5] * 5_000})
    parquet.write_table(table, path, row_group_size=1_000)
    with open_manifest(str(path), judge) as manifest:
        found = list(manifest)
    assert len(found) == 5_000
    assert found[4_999] == ManifestSource(urls[4_999], "audio", None, None, "4999", 5_000, None)
    assert isinstance(found[3], RejectedRow)
    assert (found[3].line, found[3].key) == (4, "3")
    assert list(manifest.unknown) == ["size"]


def test_parquet_from_a_pipe_or_without_its_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(ManifestError, match="give the name of a file"):
        list(read_records(Pipe(b""), "standard input", "parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ManifestError, match=r"pip install 'seedance-avatar\[parquet\]'"):
        list(read_records(io.BytesIO(b""), "x.parquet"))


@pytest.mark.parametrize(
    ("names", "second", "says"),
    [
        (["address", "key"], "k", "no column source_url"),
        (["source_url", "Source_URL"], "k", "names a column twice"),
        (["source_url", "made"], 2**62, "cannot be read as Parquet: date value out of range"),
    ],
)
def test_parquet_that_holds_no_manifest_is_refused(names: list[str], second: object, says: str, tmp_path: Path) -> None:
    arrow = importlib.import_module("pyarrow")
    path = tmp_path / "x.pq"
    columns = [[A], [second] if isinstance(second, str) else arrow.array([second], arrow.timestamp("us"))]
    importlib.import_module("pyarrow.parquet").write_table(arrow.table(columns, names=names), path)
    with open_manifest(str(path), judge) as manifest, pytest.raises(ManifestError, match=says):
        list(manifest)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ManifestError, match="cannot be read: No such file"),
        open_manifest(str(tmp_path / "no.csv"), judge),
    ):
        pass


def test_standard_input_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(f"{A}\n{B}\n".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    with open_manifest("-", judge) as manifest:
        assert len(list(manifest)) == 2
    assert not stdin.buffer.closed


def test_a_reading_that_is_broken_off_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_text(f"{A}\n{B}\n")
    with open_manifest(str(path), judge) as manifest:
        reading = iter(manifest)
        next(reading)
    del reading  # an error here would reach pytest as an unraisable one


@given(st.binary(max_size=400), st.sampled_from(["csv", "jsonl", "text", "parquet", None]))
def test_no_bytes_raise_anything_but_a_manifest_error(data: bytes, form: Format | None) -> None:
    try:
        found = rows(b"source_url,name\n" + data if form == "csv" else data, form)
    except ManifestError:
        return
    for row in found:
        assert row.line >= 1
        if isinstance(row, RejectedRow):
            assert row.reason.isprintable()


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30), min_size=1, max_size=5))
def test_what_csv_writes_is_what_is_read(names: list[str]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["source_url", "name"])
    writer.writerows([A, name] for name in names)
    found = rows(out.getvalue(), "csv")
    assert [row.name for row in found if isinstance(row, ManifestSource)] == [name.strip() or None for name in names]


def compressed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


TABLE = f"source_url,name\r\n{A},Müller\r\n{B},Zoë\r\n"
CHINESE = f"source_url,name\r\n{A},正面照\r\n{B},侧面\r\n"


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (TABLE.encode("utf-8-sig"), ["Müller", "Zoë"]),
        (b"\xef\xbb\xbf" + TABLE.encode("utf-8-sig"), ["Müller", "Zoë"]),
        (TABLE.encode("utf-16"), ["Müller", "Zoë"]),
        (TABLE.encode("utf-16-le"), ["Müller", "Zoë"]),
        (TABLE.encode("utf-16-be"), ["Müller", "Zoë"]),
        (TABLE.encode("cp1252"), ["Müller", "Zoë"]),
        (CHINESE.encode("gbk"), ["正面照", "侧面"]),
        (CHINESE.encode("gb18030"), ["正面照", "侧面"]),
        (CHINESE.encode(), ["正面照", "侧面"]),
        (compressed(CHINESE.encode()), ["正面照", "侧面"]),
        (compressed(TABLE.encode("utf-16")), ["Müller", "Zoë"]),
        (f"sep=;\r\nsource_url;name\r\n{A};a, b\r\n{B};b\r\n".encode(), ["a, b", "b"]),
        (f"source_url\tname\n{A}\ta\n{B}\n".encode(), ["a", None]),
        (f'source_url, name\n{A}, "Doe, Jane"\n{B}, x\n'.encode(), ["Doe, Jane", "x"]),
        (f"source_url,name,,\n{A},a,,\n\n,,,\n{B},b\n".encode(), ["a", "b"]),
        (f"Name,Source URL\na,{A}\nb,{B}\n".encode(), ["a", "b"]),
        (f"NAME,Image-URL,Type\na,{A},image\nb,{B},video\n".encode(), ["a", "b"]),
    ],
)
def test_a_table_is_read_as_its_program_wrote_it(data: bytes, names: list[str | None]) -> None:
    found = rows(data, name="t.csv.gz" if data[:2] == b"\x1f\x8b" else "t.csv")
    assert all(isinstance(row, ManifestSource) for row in found), found
    assert [(row.source_url, row.name) for row in found if isinstance(row, ManifestSource)] == list(
        zip([A, B], names, strict=True)
    )


@pytest.mark.parametrize("size", [1, 3, 3000])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("form", [None, "json", "jsonl"])
def test_a_json_array_is_read_an_element_at_a_time(size: int, indent: int | None, form: Any) -> None:
    given = [{"Source URL": f"https://cdn.example.com/{n}.jpg", "key": n + 0.0} for n in range(size)]
    found = rows(json.dumps([*given, 5], indent=indent).encode(), form)
    assert [row.key for row in found] == [*map(str, range(size)), None]
    assert found[-1].line == size + 1
    assert isinstance(found[-1], RejectedRow)


@pytest.mark.parametrize("text", ['[{"source_url": "x"', "[{]", '[{"source_url": 1}} , 2'])
def test_an_array_that_breaks_off_is_told(text: str) -> None:
    assert isinstance(rows(text, "json")[-1], RejectedRow)


def test_what_was_assumed_is_said() -> None:
    manifest = Manifest("m", io.BytesIO(f"link,type,sku\n{A},image,né\n".encode("cp1252")), judge, "csv")
    [row] = manifest
    assert isinstance(row, ManifestSource)
    assert (row.source_url, row.asset_type, row.key) == (A, "image", "né")
    said = " ".join(manifest.assumed)
    for words in ("cp1252", "link is taken as source_url", "type is taken as asset_type", "sku is taken as key"):
        assert words in said


def test_what_is_packed_badly_is_one_line() -> None:
    for data in (compressed(TABLE.encode())[:-9], b"\x1f\x8bnothing of the kind"):
        with pytest.raises(ManifestError, match="cannot be unpacked"):
            rows(data, name="t.csv.gz")


def test_cells_of_parquet_are_read_as_what_they_mean(tmp_path: Path) -> None:
    arrow = importlib.import_module("pyarrow")
    path = tmp_path / "x.parquet"
    table = arrow.table(
        {
            "url": arrow.array([A.encode(), B.encode()], arrow.binary()),
            "key": arrow.array([17.0, None], arrow.float64()),
            "name": arrow.array([Decimal("3.50"), Decimal(4)], arrow.decimal128(5, 2)),
            "description": arrow.array([date(2026, 1, 2), None], arrow.date32()),
        }
    )
    importlib.import_module("pyarrow.parquet").write_table(table, path)
    with open_manifest(str(path), judge) as manifest:
        first, second = manifest
    assert isinstance(first, ManifestSource)
    assert isinstance(second, ManifestSource)
    assert (first.source_url, first.key, first.name, first.description) == (A, "17", "3.50", "2026-01-02")
    assert (second.source_url, second.key, second.name, second.description) == (B, None, "4", None)
