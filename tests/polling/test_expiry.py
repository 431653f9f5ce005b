"""When the waits of pending items end: on time, after one more poll where the loop stalled, and each once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.polling.expiry import GRACE, STALLED, Expiry
from seedance_avatar.polling.schedule import PendingItem


def item(deadline: float | None) -> PendingItem:
    return PendingItem(kind="image", accepted_at=0.0, deadline=deadline)


@given(st.lists(st.floats(0, 1e6) | st.none(), max_size=60), st.sets(st.integers(0, 59)))
def test_each_ends_once_within_two_seconds_of_its_deadline(deadlines: list[float | None], gone: set[int]) -> None:
    expiry, items = Expiry(), [item(deadline) for deadline in deadlines]
    for pending in items:
        expiry.add(pending)
    assert len(expiry) == len(items) == len(set(expiry))
    for n in gone:
        if n < len(items):
            assert expiry.discard(items[n])
            assert not expiry.discard(items[n])
    ended = []
    while (now := expiry.next_at()) is not None:
        for pending in expiry.expired(now):
            assert pending.deadline is not None
            assert pending.deadline + 1 < now <= pending.deadline + GRACE
            assert pending not in expiry
            ended.append(pending)
    assert len(ended) == len(set(ended))
    assert set(ended) == {p for n, p in enumerate(items) if n not in gone and p.deadline is not None}
    assert set(expiry) == {p for n, p in enumerate(items) if n not in gone and p.deadline is None}
    assert len(expiry) == len(list(expiry))


@pytest.mark.parametrize("stall_begins", [0.5, 2.4])
def test_after_a_stall_there_is_time_for_one_look_and_no_more(stall_begins: float) -> None:
    expiry, pending, gone = Expiry(), item(2.0), item(2.0)
    expiry.add(pending)
    expiry.add(gone)
    assert expiry.expired(stall_begins) == []
    assert expiry.expired(10.0) == []
    assert expiry.discard(gone)
    assert expiry.next_at() == 10.0 + GRACE
    assert expiry.expired(10.0 + GRACE) == [pending]
    assert expiry.next_at() is None
    assert len(expiry) == 0


def test_stalls_without_end_end_the_wait() -> None:
    expiry, pending = Expiry(), item(2.0)
    expiry.add(pending)
    assert [expiry.expired(now) for now in (10.0, 20.0, 30.0)] == [[], [], [pending]]


def test_a_timer_that_is_a_little_late_ends_what_it_was_set_for() -> None:
    expiry, pending = Expiry(), item(1.0)
    expiry.add(pending)
    assert expiry.expired(1.0 + STALLED / 2) == []
    end = expiry.next_at()
    assert end is not None
    assert end <= 1.0 + GRACE
    assert expiry.expired(end + STALLED / 2) == [pending]
