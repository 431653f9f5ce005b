"""When more sources are read: in batches while there is work, and at once when there is none."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.ingest.admission import room, worth_reading
from seedance_avatar.ingest.sources import SourceReader

AHEAD = 16
"""Sources read ahead, for eight submissions on the wire."""


def space(*, queued: int, in_hand: int, max_pending: int = 1000, undelivered: int = 0) -> int:
    return room(undelivered=undelivered, in_hand=in_hand, max_pending=max_pending, queued=queued, ahead=AHEAD)


@pytest.mark.parametrize(
    ("queued", "in_hand", "worth"),
    [
        (0, 0, True),  # nothing is there
        (16, 24, False),  # all that may be read ahead is
        (9, 17, False),  # less than half of it is gone,
        (8, 16, True),  # half of it
        (0, 999, True),  # one may be taken, and there is nothing else to do
        (1, 999, False),  # one may be taken, but there is other work first
        (0, 1000, False),  # none may be taken
    ],
)
def test_more_is_read_when_it_is_worth_the_trouble(queued: int, in_hand: int, worth: bool) -> None:  # noqa: FBT001 - a column of the table
    assert worth_reading(space(queued=queued, in_hand=in_hand), queued=queued, ahead=AHEAD) is worth


def test_one_at_a_time_is_read_one_at_a_time() -> None:
    assert space(queued=0, in_hand=0, max_pending=1) == 1
    assert space(queued=0, in_hand=1, max_pending=1) <= 0


@given(
    undelivered=st.integers(0, 3000),
    more=st.integers(0, 3000),
    max_pending=st.integers(1, 3000),
    queued=st.integers(0, 200),
    ahead=st.integers(2, 200),
)
def test_what_there_is_room_for_keeps_to_every_bound(
    undelivered: int, more: int, max_pending: int, queued: int, ahead: int
) -> None:
    in_hand = undelivered + more
    count = room(undelivered=undelivered, in_hand=in_hand, max_pending=max_pending, queued=queued, ahead=ahead)
    if count > 0:
        assert in_hand + count <= max_pending
        assert queued + count <= ahead
        assert undelivered < 1024
    elif queued < ahead and in_hand < max_pending:
        assert undelivered >= 1024  # nothing but a slow consumer keeps it from reading


@pytest.mark.asyncio
async def test_once_it_is_closed_no_more_is_read_than_what_the_source_was_at() -> None:
    go: queue.SimpleQueue[None] = queue.SimpleQueue()
    read = []

    def slow() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number
            go.get()

    reader = SourceReader.of(slow())
    assert await reader.take(10) == [0]
    await reader.aclose()
    for _ in range(100):
        go.put(None)
    assert reader._reader is not None
    reader._reader._thread.join()
    assert len(read) <= 2  # the second, where it had begun with it by then
