"""A gate under limits that are shared: turns here, moments from elsewhere; what holds when that is away."""

from __future__ import annotations

import asyncio
import random
from collections import deque

import attrs
import pytest
from rig.leaks import no_leaks
from rig.rude import until
from rig.world import quick, sources

from seedance_avatar import AvatarSession, ConnectionFailed, Retry, SessionStateError, Unsent
from seedance_avatar.client.gate import AHEAD, Flow, SharedGate, gates
from seedance_avatar.options import Permits
from seedance_avatar.sandbox import Sandbox


@attrs.define(eq=False)
class Keeper:
    """Gives the waits that a test wrote down (then none at all), and fails where that says None."""

    waits: deque[float | None] = attrs.field(factory=deque)
    max_submitting: int = 64
    max_polling: int = 64
    asking: int = 0
    asked: list[str] = attrs.field(factory=list)
    braked: list[tuple[str, float]] = attrs.field(factory=list)
    away: bool = False
    closed: bool = False

    async def open(self) -> Permits:
        return self

    async def reserve(self, lane: str) -> float:
        self.asking += 1
        await asyncio.sleep(0)
        self.asked.append(lane)
        wait = self.waits.popleft() if self.waits else 0.0
        if self.away or wait is None:
            message = "the keeper of the limits was not reached"
            raise ConnectionFailed(message)
        return wait

    def brake(self, lane: str, seconds: float) -> None:
        self.braked.append((lane, seconds))

    async def aclose(self) -> None:
        self.closed = True


def gate_of(keeper: Keeper, patience: float = 60.0) -> SharedGate:
    retry = Retry(base=0.001, cap=0.01, patience=patience)
    gate, _ = gates(keeper, keeper, retry=retry, clock=asyncio.get_running_loop().time, rng=random.Random(1))
    assert isinstance(gate, SharedGate)
    return gate


def waits(*given: float | None) -> deque[float | None]:
    return deque(given)


@pytest.mark.asyncio
async def test_a_turn_waits_for_its_moment() -> None:
    gate = gate_of(Keeper(waits(0.0, 0.05)))
    began = gate.clock()
    await gate.acquire(Flow("a"))
    await gate.acquire(Flow("a"))
    assert round(gate.clock() - began, 3) >= 0.05  # uvloop counts milliseconds
    assert gate.inside == 2


@pytest.mark.asyncio
async def test_no_more_moments_are_reserved_ahead_than_a_few() -> None:
    keeper = Keeper(waits(*[60.0] * 20))
    gate, flow = gate_of(keeper), Flow("a")
    callers = [asyncio.create_task(gate.acquire(flow)) for _ in range(20)]
    await asyncio.sleep(0.02)
    assert len(keeper.asked) == AHEAD
    assert gate.waiting == 20 - AHEAD
    flow.halt(SessionStateError("enough"))
    ends = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(end, SessionStateError) for end in ends)
    assert (gate.inside, gate.turns.inside, gate.waiting) == (0, 0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 10])
async def test_cancelled_anywhere_no_turn_is_lost(steps: int) -> None:
    gate = gate_of(Keeper(waits(60.0)))
    caller = asyncio.create_task(gate.acquire(Flow("a")))
    for _ in range(steps):
        await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (gate.inside, gate.turns.inside) == (0, 0)
    gate.permits.waits.clear()  # type: ignore[attr-defined]  # the keeper of this test
    await gate.acquire(Flow("b"))
    assert gate.inside == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("waited", [0.0, 60.0])
async def test_closed_while_a_moment_is_waited_for(waited: float) -> None:
    keeper = Keeper(waits(waited))
    gate = gate_of(keeper)
    caller = asyncio.create_task(gate.acquire(Flow("a")))
    if not keeper.asking:  # an eager task is there already
        await asyncio.sleep(0)
    if waited > 0.0:
        await until(lambda: gate._asleep)
    gate.close(SessionStateError("closed"))
    with pytest.raises(SessionStateError, match="closed"):
        await caller
    assert gate.inside == 0


@pytest.mark.asyncio
async def test_a_keeper_that_is_back_in_time_costs_nothing_but_time() -> None:
    keeper = Keeper(waits(None, None, None, 0.0))
    gate = gate_of(keeper)
    await gate.acquire(Flow("a"))
    assert len(keeper.asked) == 4


@pytest.mark.asyncio
async def test_patience_with_a_keeper_that_is_away_ends() -> None:
    gate = gate_of(Keeper(away=True), patience=0.05)
    with pytest.raises(ConnectionFailed):
        await gate.acquire(Flow("a"))
    assert (gate.inside, gate.turns.inside) == (0, 0)


@pytest.mark.asyncio
async def test_a_brake_here_is_a_brake_for_all_and_holds_back_who_has_a_moment() -> None:
    keeper = Keeper(waits(0.02))
    gate = gate_of(keeper)
    caller = asyncio.create_task(gate.acquire(Flow("a")))
    await asyncio.sleep(0.005)
    began = gate.clock()
    gate.brake(0.1)
    await caller
    assert gate.clock() - began >= 0.095
    assert keeper.braked == [("submit", 0.1)]


@pytest.mark.asyncio
async def test_a_session_asks_for_every_request_and_ends_the_line() -> None:
    keeper = Keeper()
    async with no_leaks(), Sandbox(time_scale=0.002) as sandbox:
        async with quick(sandbox.url, limits=keeper) as session:
            group = await session.create_group("brand")
            async with session.ingest(sources(20), group=group) as stream:
                assert len([asset async for asset in stream]) == 20
        assert keeper.asked.count("submit") == 21
        assert keeper.asked.count("query") >= sandbox.ledger.count(method="GET")
    assert keeper.closed


@pytest.mark.asyncio
async def test_a_429_of_the_service_brakes_the_others_too() -> None:
    keeper = Keeper()
    async with Sandbox(time_scale=0.002) as sandbox, quick(sandbox.url, limits=keeper) as session:
        sandbox.faults.add("rate_limited", method="POST", path="groups", times=1, retry_after=30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.create_group("brand"), 0.2)
    assert keeper.braked == [("submit", 30.0)]


@pytest.mark.asyncio
async def test_a_keeper_that_stays_away_leaves_sources_unsent() -> None:
    keeper = Keeper()
    async with no_leaks(), Sandbox(time_scale=0.002) as sandbox:
        session: AvatarSession = quick(sandbox.url, limits=keeper, retry=Retry(base=0.001, cap=0.01, patience=0.05))
        async with session:
            group = await session.create_group("brand")
            keeper.away = True
            async with session.ingest(sources(50), group=group) as stream:
                outcomes = [outcome async for outcome in stream.outcomes()]
        assert outcomes
        assert all(isinstance(outcome, Unsent) for outcome in outcomes)
        assert all(isinstance(outcome.error, ConnectionFailed) for outcome in outcomes if isinstance(outcome, Unsent))
        assert stream.report.taken == stream.report.unsent
        assert sandbox.ledger.check(outcomes) == []
