"""The journal's benchmark runs; how fast is not for a test to say."""

from __future__ import annotations

import pytest

from benchmarks import journal


def test_it_prints_a_row_for_each_peer(capsys: pytest.CaptureFixture[str]) -> None:
    journal.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:] if " ours " in line] == ["FULL", "NORMAL"]
    assert sum(" to_thread " in line for line in lines) == 2
