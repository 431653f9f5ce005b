"""The benchmarks run; how fast is not for a test to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import overhead
from benchmarks.gateway import serve
from benchmarks.tables import Table, write_readme

_ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    told = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True, timeout=55)  # noqa: S603 - ourselves
    return told.stdout.splitlines()


@pytest.mark.slow
def test_overhead_has_a_row_for_each_of_ours_and_for_bare_aiohttp() -> None:
    lines = _run(
        "overhead", "--quick", "--only=seedance-avatar, call by call", "--only=seedance-avatar, ingest, journal"
    )
    assert [line.split(" µs")[0].rsplit(None, 1)[0].strip() for line in lines if " µs " in line] == [
        "bare aiohttp",
        "seedance-avatar, call by call",
        "seedance-avatar, ingest, journal",
    ]


@pytest.mark.slow
def test_memory_has_a_row_for_each_promise() -> None:
    lines = _run("memory", "--quick", "--sources=20000")
    assert [line.partition("  ")[0] for line in lines[5:11]] == [
        "bytes for each pending asset",
        "growth of resident memory",
        "CPU for each asset",
        "the same",
        "ratio of the two",
        "taken for a consumer that stands still",
    ]


@pytest.mark.slow
def test_limits_are_met_over_sockets_by_us_and_by_what_is_usual() -> None:
    command = [sys.executable, "-m", "benchmarks.held", "--quick"]
    told = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True, timeout=55)  # noqa: S603 - ourselves
    rows = [line.split() for line in told.stdout.splitlines() if line.startswith("100/s, burst 5")]
    assert [row[3] for row in rows] == ["ingest", "gather"]


@pytest.mark.slow
def test_imports_are_measured_beside_what_they_stand_on() -> None:
    found = overhead.import_times(1)
    assert list(found)[:2] == ["aiohttp, attrs, cattrs, anyio", "seedance_avatar"]
    assert any("ingest" in name for name in found)
    assert all(value > 0 for values in found.values() for value in values)


def test_a_name_that_is_none_is_told_what_names_there_are() -> None:
    command = [sys.executable, "-m", "benchmarks", "speed"]
    told = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=55)  # noqa: S603 - ourselves
    assert told.returncode == 2
    assert "overhead, limits, polling, memory, journal, all" in told.stdout


def test_the_gateway_counts_what_it_serves_and_ends_with_its_caller() -> None:
    with serve() as gateway:
        told = gateway.tally()
    assert (told["submitted"], told["asked"]) == (0, 0)
    assert told["cpu"] > 0


def test_a_table_reads_the_same_in_a_terminal_and_in_the_readme() -> None:
    table = Table(title="T", note="N", command="C", head=("who", "n"), rows=(("a", "1"), ("bb", "22")))
    assert table.text().splitlines() == ["T", "N", "", "who   n", "a     1", "bb   22"]
    assert table.markdown().splitlines() == [
        "**T** (`C`)",
        "",
        "| who | n |",
        "| --- | ---: |",
        "| a | 1 |",
        "| bb | 22 |",
        "",
        "N",
    ]


def test_tables_go_into_their_place_and_the_others_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmarks -->\nkept\n<!-- /benchmarks -->\nafter\n", encoding="utf-8")
    for _ in range(2):  # the second time it is replaced, not added
        assert write_readme({"platform": ["platform"]}, readme) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- benchmarks -->\nkept\n")
    assert text.count("<!-- benchmark platform -->") == text.count("`python -m platform`") == 1
    assert text.endswith("<!-- /benchmarks -->\nafter\n")
    readme.write_text("no block", encoding="utf-8")
    assert write_readme({}, readme) == 1
    assert "no block" in capsys.readouterr().out
