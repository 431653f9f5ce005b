"""When more sources are read: in batches while there is work, and at once when there is none."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from seedance_avatar.ingest.admission import Admission
from seedance_avatar.ingest.outcome_queue import OutcomeQueue
from seedance_avatar.ingest.sources import SourceReader


def feeder_of(*, queued: int, in_hand: int, max_pending: int = 1000, done: bool = False) -> Admission:
    """Return an admission that reads sixteen ahead, for eight submissions on the wire."""
    pipeline: Any = SimpleNamespace(queued=queued, max_submitting=8, accounts=OutcomeQueue(taken=in_hand))
    return Admission(cast("Any", pipeline), SourceReader.of([]), max_pending, done=done)


@pytest.mark.parametrize(
    ("queued", "in_hand", "hungry"),
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
@pytest.mark.asyncio
async def test_it_is_hungry_when_taking_is_worth_the_trouble(queued: int, in_hand: int, hungry: bool) -> None:  # noqa: FBT001 - a column of the table
    assert feeder_of(queued=queued, in_hand=in_hand).hungry is hungry


@pytest.mark.asyncio
async def test_it_is_not_hungry_any_more_when_it_is_done() -> None:
    assert not feeder_of(queued=0, in_hand=0, done=True).hungry


@pytest.mark.asyncio
async def test_one_at_a_time_is_read_one_at_a_time() -> None:
    assert feeder_of(queued=0, in_hand=0, max_pending=1).hungry
    assert not feeder_of(queued=0, in_hand=1, max_pending=1).hungry


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
