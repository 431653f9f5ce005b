"""An outage on a clock in our hands: who tries, who waits, and when everybody gives up."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.client.circuit_breaker import CircuitBreaker, is_ill, opens
from seedance_avatar.client.gate import Flow
from seedance_avatar.errors import (
    AuthError,
    AvatarError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    SessionStateError,
    SubmissionInDoubt,
)
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


# An ill service

LOST = SubmissionInDoubt("no answer came")


@pytest.mark.parametrize(
    ("error", "ill"),
    [
        (LOST, True),
        (ConnectionFailed("no answer came", answer_lost=True), True),
        (ProtocolError("a page"), True),
        (ServerError("busy", status=502), True),
        (GONE, False),
        (RateLimited("slow down", status=429), False),
        (RateLimited("limiter down", status=503, code="rate_limit_unavailable"), False),
        (AuthError("no", status=401), False),
        (NotFound("no", status=404), False),
        (InvalidRequest("no model", status=503, code="model_not_found"), False),
    ],
)
def test_a_clear_refusal_is_a_healthy_answer(error: AvatarError, *, ill: bool) -> None:
    assert is_ill(error) is ill


@given(st.lists(st.booleans(), max_size=40))
def test_three_submissions_in_a_row_or_half_of_twenty_mean_an_outage(ills: list[bool]) -> None:
    submissions = [(float(n), ill) for n, ill in enumerate(ills[-20:])]
    expected = (len(ills) >= 3 and all(ills[-3:])) or sum(ills[-20:]) >= 10
    assert opens(submissions, [], 20.0) is expected
    assert not opens(submissions, [], 1000.0)  # what is long ago says nothing of now


@given(st.lists(st.tuples(st.sampled_from(["submit", "query"]), st.booleans()), max_size=3))
def test_ill_answers_to_status_requests_alone_mean_no_outage(latest: list[Any]) -> None:
    mixed = len(latest) == 3 and all(ill for _, ill in latest) and "submit" in {lane for lane, _ in latest}
    assert opens([], latest, 0.0) is mixed


def ill_case(*, pending: bool = False, patience: float = 10.0) -> Case:
    """A service that has answered three submissions ill."""
    case = Case()
    case.outage = CircuitBreaker(Retry(base=0.0001, cap=0.0001, patience=patience), case.clock, random.Random(1))
    case.outage.askable = lambda: pending
    began = [case.outage.record_ill(LOST, "submit", probe=False, left_at=99.0) for _ in range(3)]
    assert began == [False, False, True]
    assert case.outage.ill
    return case


@pytest.mark.asyncio
async def test_a_submission_probes_only_where_there_is_nothing_to_ask() -> None:
    case = ill_case(pending=True)
    submission = asyncio.create_task(case.outage.wait_until_up(case.flow, "submit"))
    await asyncio.sleep(0.01)
    assert not submission.done()
    assert await case.outage.wait_until_up(case.flow, "query")
    case.outage.askable = lambda: False
    case.outage.release_probe()
    assert await submission  # what was pending has ended: nothing is left to ask


@pytest.mark.asyncio
async def test_what_was_on_the_wire_neither_ends_nor_prolongs_an_outage() -> None:
    case = ill_case()
    assert not case.outage.record_success("submit", left_at=99.5)
    assert not case.outage.record_ill(LOST, "submit", probe=False, left_at=99.5)
    assert case.outage.since == 100.0
    assert case.outage.record_success("submit", left_at=101.0)
    assert case.outage.closed("submit")


@pytest.mark.asyncio
async def test_after_a_healthy_look_the_first_submission_leaves_alone() -> None:
    case = ill_case()
    assert case.outage.record_success("query", left_at=101.0)
    assert case.outage.closed("query")
    first, second = (asyncio.create_task(case.outage.wait_until_up(case.flow, "submit")) for _ in range(2))
    await asyncio.sleep(0.01)
    assert (first.done(), second.done()) == (True, False)
    assert await first
    case.outage.record_success("submit", left_at=101.5, probe=True)
    assert not await second


@pytest.mark.asyncio
async def test_healthy_looks_do_not_renew_the_patience_of_submissions() -> None:
    case = ill_case()
    for left_at in (101.0, 105.0, 109.0):
        case.clock.now = left_at
        case.outage.record_success("query", left_at=left_at)
        assert await case.outage.wait_until_up(case.flow, "submit")
        case.outage.record_ill(LOST, "submit", probe=True, left_at=left_at)
        assert not case.outage.given_up
    case.outage.record_success("query", left_at=110.0)
    assert await case.outage.wait_until_up(case.flow, "submit")
    case.outage.record_ill(LOST, "submit", probe=True, left_at=111.0)
    assert case.outage.given_up
    assert case.outage.outages == 1


@pytest.mark.asyncio
async def test_a_single_call_waits_for_the_next_probe_only() -> None:
    case = ill_case(patience=1e6)
    assert await case.outage.wait_until_up(case.flow, "submit")
    single = asyncio.create_task(case.outage.wait_until_up(case.flow, "submit", patient=False))
    patient = asyncio.create_task(case.outage.wait_until_up(case.flow, "submit"))
    await asyncio.sleep(0.01)
    case.outage.record_ill(LOST, "submit", probe=True, left_at=101.0)
    with pytest.raises(ConnectionFailed, match="the service is ill: no answer came; nothing was sent"):
        await single
    assert await patient


@pytest.mark.asyncio
async def test_a_probe_that_comes_back_after_the_end_keeps_nobody_waiting() -> None:
    case = ill_case()
    assert await case.outage.wait_until_up(case.flow, "submit")
    case.outage.record_success("submit", left_at=101.0)
    case.outage.record_success("submit", left_at=100.5, probe=True)
    for _ in range(3):
        case.outage.record_ill(LOST, "submit", probe=False, left_at=102.0)
    assert await asyncio.wait_for(case.outage.wait_until_up(case.flow, "submit"), 5)


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["cancelled", "halted"])
async def test_a_submission_that_gives_up_waiting_takes_nothing_along(how: str) -> None:
    case = ill_case(pending=True)
    waiting = asyncio.create_task(case.outage.wait_until_up(case.flow, "submit"))
    await asyncio.sleep(0)
    if how == "cancelled":
        waiting.cancel()
    else:
        case.flow.halt(SessionStateError("over"))
    with pytest.raises(asyncio.CancelledError if how == "cancelled" else SessionStateError):
        await waiting
    assert not case.outage._news
    assert await case.outage.wait_until_up(Flow("other"), "query")
