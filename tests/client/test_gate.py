"""Whose turn it is: fair between flows, stoppable flow by flow, and no turn is ever lost."""

from __future__ import annotations

import asyncio
import random

import pytest
from rig.clock import loop_clock

from seedance_avatar.client.gate import Flow, Gate
from seedance_avatar.errors import SessionStateError
from seedance_avatar.limits.pacer import SUBMITS, Pacer

STOPPED = SessionStateError("stopped")


def gate_of(rate: float = 1e9, burst: int | None = None, width: int = 1000) -> Gate:
    pacer = Pacer.build(rate=rate, burst=burst, start=SUBMITS, rng=random.Random(1))
    return Gate(pacer, width, asyncio.get_running_loop().time)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Line:
    """Callers of one gate, and the order in which they came through."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.through: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def _enter(self, flow: Flow, name: str) -> None:
        await self.gate.acquire(flow)
        self.through.append(name)

    def join(self, flow: Flow, *names: str) -> None:
        self.tasks += [asyncio.create_task(self._enter(flow, name)) for name in names]


@pytest.mark.asyncio
async def test_no_more_than_the_width_are_inside_and_turns_go_round() -> None:
    gate = gate_of(width=1)
    line, many, few = Line(gate), Flow("many"), Flow("few")
    line.join(many, "m1", "m2", "m3", "m4")
    await turns()
    line.join(few, "f1", "f2")
    await turns()
    assert (line.through, gate.inside, gate.waiting) == (["m1"], 1, 5)
    for _ in range(5):
        gate.release()
        await turns()
    assert line.through == ["m1", "m2", "f1", "m3", "f2", "m4"]
    gate.release()
    assert (gate.inside, gate.waiting) == (0, 0)
    await asyncio.gather(*line.tasks)


@pytest.mark.asyncio
async def test_the_pacer_decides_when() -> None:
    with loop_clock(200.0) as clock:
        gate = gate_of(rate=10.0, burst=1)
        began = clock.now()
        line = Line(gate)
        line.join(Flow("one"), *"abcd")
        await asyncio.gather(*line.tasks)
        assert clock.now() - began >= 0.29
        assert not gate.try_acquire(Flow("another"))
        gate.brake(50.0)
        braked = clock.now()
        await gate.acquire(Flow("late"))
        assert clock.now() - braked >= 49.9


@pytest.mark.asyncio
async def test_a_brake_and_its_end_are_seen_by_those_who_wait() -> None:
    gate = gate_of(rate=1e-6, burst=1)
    await gate.acquire(Flow("first"))
    line = Line(gate)
    line.join(Flow("second"), "x")
    await turns()
    gate.pacer = gate_of().pacer  # a higher rate was found
    gate.release()
    await turns()
    assert line.through == ["x"]


@pytest.mark.asyncio
async def test_halted_a_flow_waits_no_more_and_the_others_do() -> None:
    gate = gate_of(width=1)
    line, stopped, other = Line(gate), Flow("stopped"), Flow("other")
    await gate.acquire(other)
    line.join(stopped, "s1", "s2")
    line.join(other, "o1")
    await turns()
    stopped.halt(STOPPED)
    stopped.halt(SessionStateError("too late: the first holds"))
    await turns()
    gate.release()
    await turns()
    assert line.through == ["o1"]
    with pytest.raises(SessionStateError, match="stopped"):
        await gate.acquire(stopped)
    assert not gate.try_acquire(stopped)
    with pytest.raises(SessionStateError, match="stopped"):
        await stopped.sleep(3600.0)
    ends = await asyncio.gather(*line.tasks, return_exceptions=True)
    assert [str(end) for end in ends if end is not None] == ["stopped", "stopped"]


@pytest.mark.asyncio
async def test_halted_a_flow_that_sleeps_wakes_up() -> None:
    flow = Flow("asleep")
    task = asyncio.create_task(flow.sleep(3600.0))
    await turns()
    flow.halt(STOPPED)
    with pytest.raises(SessionStateError, match="stopped"):
        await task
    await Flow("awake").sleep(0.0)


@pytest.mark.asyncio
async def test_closed_nobody_comes_in() -> None:
    gate = gate_of(width=1)
    flow = Flow("any")
    await gate.acquire(flow)
    line = Line(gate)
    line.join(flow, "x")
    await turns()
    gate.close(STOPPED)
    with pytest.raises(SessionStateError, match="stopped"):
        await line.tasks[0]
    with pytest.raises(SessionStateError, match="stopped"):
        await gate.acquire(flow)
    assert not gate.try_acquire(flow)
    gate.release()
    assert (gate.inside, gate.waiting) == (0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("when", ["while it waits", "as its turn comes"])
async def test_cancelled_no_turn_is_taken_and_none_is_lost(when: str) -> None:
    gate = gate_of(width=1)
    flow = Flow("any")
    await gate.acquire(flow)
    line = Line(gate)
    line.join(flow, "gone", "next")
    await turns()
    if when == "as its turn comes":
        gate.release()  # its turn is there, and it has not run yet
    line.tasks[0].cancel()
    await turns()
    if when == "while it waits":
        gate.release()
        await turns()
    assert line.through == ["next"]
    gate.release()
    assert (gate.inside, gate.waiting) == (0, 0)
    assert line.tasks[0].cancelled()


@pytest.mark.asyncio
async def test_given_back_a_turn_is_as_if_never_taken() -> None:
    gate = gate_of(rate=1.0, burst=1)  # no lower: the sum of a huge wait and now is rounded up from now
    await gate.acquire(Flow("did not go"))
    gate.cancel()
    assert gate.try_acquire(Flow("goes instead"))
    assert not gate.try_acquire(Flow("has to wait"))
