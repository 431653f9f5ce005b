"""An outage on a clock in our hands: who tries, who waits, and when everybody gives up."""

from __future__ import annotations

import asyncio
import random

import pytest

from seedance_avatar.client.circuit_breaker import CircuitBreaker
from seedance_avatar.client.gate import Flow
from seedance_avatar.errors import ConnectionFailed, SessionStateError
from seedance_avatar.options import Retry

GONE = ConnectionFailed("nobody there")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Case:
    """An outage that began at 100, with a patience of 10 s; its pauses take no time worth speaking of."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.outage = CircuitBreaker(Retry(base=0.0001, cap=0.0001, patience=10.0), self.clock, random.Random(1))
        self.flow = Flow("test")
        assert self.outage.record_failure(GONE, probe=False, left_at=99.0)

    async def probed(self, left_at: float) -> None:
        """Be the probe that left then, and reach nothing."""
        self.clock.now = left_at
        assert await self.outage.wait_until_up(self.flow)
        self.clock.now += 1.0
        assert not self.outage.record_failure(GONE, probe=True, left_at=left_at)


@pytest.mark.asyncio
async def test_while_it_is_up_nobody_waits() -> None:
    case = Case()
    assert case.outage.record_success()
    assert not case.outage.record_success()
    assert not await case.outage.wait_until_up(case.flow)


@pytest.mark.asyncio
async def test_one_tries_and_the_others_hear_of_it() -> None:
    case = Case()
    assert await case.outage.wait_until_up(case.flow)
    others = [asyncio.create_task(case.outage.wait_until_up(case.flow)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(other.done() for other in others)
    case.outage.record_success()
    assert await asyncio.gather(*others) == [False, False, False]


@pytest.mark.asyncio
async def test_a_lone_prober_gives_up_when_a_try_after_the_patience_fails() -> None:
    case = Case()
    for left_at in (101.0, 105.0, 109.9):
        await case.probed(left_at)
        assert not case.outage.given_up
    await case.probed(111.0)
    assert case.outage.given_up


@pytest.mark.asyncio
async def test_who_waits_beside_that_try_gives_up_with_it() -> None:
    case = Case()
    await case.probed(105.0)
    case.clock.now = 111.0
    assert await case.outage.wait_until_up(case.flow)
    waiting = asyncio.create_task(case.outage.wait_until_up(case.flow))
    await asyncio.sleep(0.01)
    case.outage.record_failure(GONE, probe=True, left_at=111.0)
    with pytest.raises(ConnectionFailed, match="nobody there"):
        await waiting


@pytest.mark.asyncio
async def test_a_try_that_a_stall_kept_on_the_wire_is_one_try() -> None:
    case = Case()
    await case.probed(101.0)
    case.clock.now = 103.0
    assert await case.outage.wait_until_up(case.flow)
    case.clock.now = 5000.0
    case.outage.record_failure(GONE, probe=True, left_at=103.0)
    assert not case.outage.given_up


@pytest.mark.asyncio
async def test_a_time_in_which_nobody_tried_does_not_count() -> None:
    case = Case()
    await case.probed(105.0)
    await case.probed(5000.0)
    assert not case.outage.given_up
    assert case.outage.since == 5000.0
    await case.probed(5011.0)
    assert case.outage.given_up


@pytest.mark.asyncio
async def test_reached_once_the_patience_begins_anew() -> None:
    case = Case()
    await case.probed(105.0)
    await case.probed(111.0)
    case.outage.record_success()
    assert case.outage.record_failure(GONE, probe=False, left_at=113.0)
    await case.probed(115.0)
    assert not case.outage.given_up


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["cancelled", "halted"])
async def test_a_prober_that_does_not_go_lets_another(how: str) -> None:
    case = Case()
    case.outage._next_at = case.clock.now + 3600.0
    prober = asyncio.create_task(case.outage.wait_until_up(case.flow))
    await asyncio.sleep(0)
    other = asyncio.create_task(case.outage.wait_until_up(Flow("other")))
    await asyncio.sleep(0)
    case.outage._next_at = 0.0
    if how == "cancelled":
        prober.cancel()
    else:
        case.flow.halt(SessionStateError("over"))
    with pytest.raises(asyncio.CancelledError if how == "cancelled" else SessionStateError):
        await prober
    assert await other


@pytest.mark.asyncio
async def test_who_is_cancelled_while_waiting_takes_nothing_along() -> None:
    case = Case()
    assert await case.outage.wait_until_up(case.flow)
    waiting = asyncio.create_task(case.outage.wait_until_up(case.flow))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    case.outage.release_probe()
    assert await case.outage.wait_until_up(case.flow)
