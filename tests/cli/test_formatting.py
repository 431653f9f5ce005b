from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.cli.formatting import duration, number, plural, rate


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1.0 s"),
        (8.34, "8.3 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.floats(0, 1e9))
def test_no_duration_says_sixty(seconds: float) -> None:
    assert not {"60 s", "60 min"} & {duration(seconds), duration(seconds).partition(" h ")[2]}
    assert not duration(seconds).startswith(("60 s", "60 min", "1000 ms"))


@pytest.mark.parametrize(
    ("per_second", "words"),
    [(None, "unlimited"), (1e9, "unlimited"), (0.0, "0.0/s"), (0.5, "30/min"), (4.96, "5.0/s"), (1234.0, "1,234/s")],
)
def test_rates(per_second: float | None, words: str) -> None:
    assert rate(per_second) == words


def test_counts() -> None:
    assert (number(50_000), plural(1, "row"), plural(2_000, "row")) == ("50,000", "1 row", "2,000 rows")
