"""Turns, single sends and what a failed status request means; and a cancellation at every await of a call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rig.leaks import no_leaks
from rig.rude import Act, RudeServer, Silence, json_answer, raw_answer, until
from rig.trips import get, opened, post

from seedance_avatar.client.circuit_breaker import CircuitBreaker
from seedance_avatar.client.client import Client, Turn
from seedance_avatar.client.gate import Flow, Gate
from seedance_avatar.errors import (
    AvatarError,
    ConnectionFailed,
    RateLimited,
    ServerError,
    SessionStateError,
    SubmissionInDoubt,
)
from seedance_avatar.events import Event, Outage
from seedance_avatar.limits.pacer import QUERIES, SUBMITS, Pacer
from seedance_avatar.options import Retry
from seedance_avatar.wire.refusals import read_object
from seedance_avatar.wire.response import Response

GONE = ConnectionFailed("nobody there")
RETRY = Retry(attempts=2, base=0.001, throttle_base=0.001, cap=0.002, patience=10.0)


def read(response: Response) -> dict[str, Any]:
    return read_object(response, "id")


def ready(rate: float = 1e9, *, width: int = 10, retry: Retry = RETRY, transport: Any = None, **more: Any) -> Client:
    """Return a client with gates of ``rate`` (one request at a time without waiting) and ``width``."""
    clock, rng = asyncio.get_running_loop().time, random.Random(1)
    burst = 1 if rate < 1e9 else None
    submit, query = (
        Gate(Pacer.build(rate=rate, burst=burst, start=start, rng=rng), width, clock) for start in (SUBMITS, QUERIES)
    )
    breaker = CircuitBreaker(retry, clock, rng)
    return Client(
        transport=transport, submit=submit, query=query, retry=retry, breaker=breaker, clock=clock, rng=rng, **more
    )


def down(client: Client) -> None:
    client.breaker.record_failure(GONE, probe=False, left_at=client.clock())


@asynccontextmanager
async def against(*script: Act, **options: Any) -> AsyncIterator[tuple[Client, RudeServer]]:
    async with no_leaks(), RudeServer(*script) as server, opened(server.url) as transport:
        yield ready(transport=transport, **options), server


class Steps:
    """A passage that notes its steps, and waits in one of them."""

    resend = False

    def __init__(self, wait_in: str = "") -> None:
        self.taken: list[str] = []
        self.wait_in = wait_in
        self.waiting = False

    async def _step(self, name: str) -> None:
        self.taken.append(name)
        if name == self.wait_in:
            self.waiting = True
            await asyncio.sleep(60)

    async def before_send(self) -> None:
        await self._step("before_send")

    async def not_applied(self) -> None:
        await self._step("not_applied")


async def cancelled_once(condition: Callable[[], object], work: Any) -> None:
    """Run ``work``, cancel it as soon as ``condition()`` is true, and see that it ends by that."""
    task = asyncio.ensure_future(work)
    await until(condition)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Turns


@pytest.mark.asyncio
async def test_a_turn_is_taken_at_the_gate_of_its_lane_and_given_back() -> None:
    client, flow = ready(), Flow("f")
    submit, query = await client.take_turn(flow, lane="submit"), await client.take_turn(flow)
    assert (submit, query) == (Turn(client.submit, probe=False), Turn(client.query, probe=False))
    assert (client.figures().submitting, client.figures().querying) == (1, 1)
    client.give_back(submit)
    client.give_back(query)
    assert (client.figures().submitting, client.figures().querying) == (0, 0)


@pytest.mark.asyncio
async def test_a_turn_that_is_free_now_is_taken_without_waiting_but_not_during_an_outage() -> None:
    client, flow = ready(width=1), Flow("f")
    turn = client.try_turn(flow)
    assert turn == Turn(client.query, probe=False)
    assert client.try_turn(flow) is None
    client.give_back(turn)
    down(client)
    assert client.try_turn(flow) is None
    client.breaker.record_success()
    assert client.try_turn(flow) is not None


@pytest.mark.asyncio
async def test_during_an_outage_one_patient_caller_is_the_probe_and_the_impatient_do_not_wait() -> None:
    client, flow = ready(), Flow("f")
    down(client)
    probe = await client.take_turn(flow)
    assert probe.probe
    waiting = asyncio.create_task(client.take_turn(flow))
    assert not (await client.take_turn(flow, patient=False)).probe
    assert not waiting.done()
    client.give_back(probe)  # another becomes the probe
    assert (await waiting).probe


@pytest.mark.asyncio
async def test_cancelled_while_it_waits_for_the_end_of_an_outage_another_may_probe() -> None:
    client, flow = ready(), Flow("f")
    down(client)
    probe = await client.take_turn(flow)
    waits = asyncio.create_task(client.take_turn(flow))
    await asyncio.sleep(0)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    client.give_back(probe)
    assert (await client.take_turn(flow)).probe
    assert client.figures().querying == 1


@pytest.mark.asyncio
async def test_a_probe_cancelled_while_it_waits_for_its_turn_lets_another_probe() -> None:
    client, flow = ready(width=1), Flow("f")
    held = await client.take_turn(flow)
    down(client)
    await cancelled_once(lambda: client.figures().waiting, client.take_turn(flow))
    client.give_back(held)
    assert (await client.take_turn(flow)).probe


@pytest.mark.asyncio
async def test_a_halted_flow_gets_no_turn_and_keeps_no_probe() -> None:
    client, stopped = ready(), Flow("stopped")
    stopped.halt(SessionStateError("stopped"))
    down(client)
    with pytest.raises(SessionStateError):
        await client.take_turn(stopped)
    assert (await client.take_turn(Flow("other"))).probe


# Sending


@pytest.mark.asyncio
async def test_a_send_ends_its_turn_whatever_comes_back() -> None:
    async with against(json_answer({"id": "t_1"}), raw_answer(b"", 500), json_answer({"id": "t_1"})) as (client, _):
        flow = Flow("f")
        assert await client.send(await client.take_turn(flow), get(), read) == {"id": "t_1"}
        with pytest.raises(ServerError):
            await client.send(await client.take_turn(flow), get(), read)
        with pytest.raises(ZeroDivisionError):
            await client.send(await client.take_turn(flow), get(), lambda _: 1 / 0)
        assert (client.figures().querying, client.figures().requests) == (0, 3)


@pytest.mark.asyncio
async def test_a_probe_that_reaches_the_service_ends_the_outage_and_says_so() -> None:
    events: list[Event] = []
    async with against(json_answer({"id": "t_1"}), observer=events.append) as (client, _):
        down(client)
        assert client.figures().down_for is not None
        await client.send(await client.take_turn(Flow("f")), get(), read)
        assert client.figures().down_for is None
        assert [event.down for event in events if isinstance(event, Outage)] == [False]


@pytest.mark.asyncio
@pytest.mark.parametrize("probe", [True, False])
async def test_cancelled_on_the_wire_a_send_ends_its_turn_and_lets_another_probe(probe: bool) -> None:  # noqa: FBT001 - a parameter
    async with against(Silence()) as (client, server):
        if probe:
            down(client)
        turn = await client.take_turn(Flow("f"))
        await cancelled_once(lambda: server.requests, client.send(turn, get(), read))
        assert client.figures().querying == 0
        assert (await client.take_turn(Flow("f"))).probe is probe


# Calls


@pytest.mark.asyncio
async def test_a_clear_refusal_is_recorded_as_not_applied_and_tried_again() -> None:
    steps = Steps()
    async with against(raw_answer(b"", 429), json_answer({"id": "t_1"})) as (client, _):
        assert await client.call(post(), read, flow=Flow("f"), passage=steps) == {"id": "t_1"}
        assert steps.taken == ["before_send", "not_applied", "before_send"]
        assert (client.figures().retries, client.figures().throttled) == (1, 1)


@pytest.mark.asyncio
async def test_a_submission_without_a_clear_response_is_in_doubt_and_not_repeated() -> None:
    async with against(raw_answer(b"", 500)) as (client, server):
        with pytest.raises(SubmissionInDoubt):
            await client.call(post(), read, flow=Flow("f"))
        assert len(server.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("patient", [True, False])
async def test_patience_bounds_how_long_a_call_is_held_off(patient: bool) -> None:  # noqa: FBT001 - a parameter
    retry = Retry(attempts=2, base=0.001, throttle_base=0.001, cap=0.002, patience=0.2)
    async with against(raw_answer(b"", 429), retry=retry) as (client, server):
        began = client.clock()
        with pytest.raises(RateLimited):
            await client.call(get(), read, flow=Flow("f"), patient=patient)
        assert (round(client.clock() - began, 3) >= 0.2) is patient  # uvloop counts milliseconds
        assert (len(server.requests) > 2) is patient


@pytest.mark.asyncio
async def test_cancelled_before_it_is_sent_a_call_gives_its_turn_back() -> None:
    steps = Steps(wait_in="before_send")
    async with against(json_answer({"id": "t_1"})) as (client, server):
        await cancelled_once(lambda: steps.waiting, client.call(post(), read, flow=Flow("f"), passage=steps))
        assert (client.figures().submitting, server.requests) == (0, [])


@pytest.mark.asyncio
async def test_a_passage_that_raises_gives_the_turn_and_the_probe_back() -> None:
    class Broken(Steps):
        async def before_send(self) -> None:
            raise ZeroDivisionError

    async with against(json_answer({"id": "t_1"})) as (client, server):
        down(client)
        with pytest.raises(ZeroDivisionError):
            await client.call(post(), read, flow=Flow("f"), passage=Broken(), patient=True)
        assert (client.figures().submitting, server.requests) == (0, [])
        assert (await client.take_turn(Flow("f"))).probe


@pytest.mark.asyncio
async def test_cancelled_between_two_tries_nothing_is_held() -> None:
    steps = Steps(wait_in="not_applied")
    async with against(raw_answer(b"", 429)) as (client, server):
        await cancelled_once(lambda: steps.waiting, client.call(post(), read, flow=Flow("f"), passage=steps))
        assert (client.figures().submitting, len(server.requests)) == (0, 1)
    slow = Retry(attempts=5, throttle_base=1000, cap=1000)
    async with against(raw_answer(b"", 429), retry=slow) as (client, server):
        flow = Flow("f")
        await cancelled_once(lambda: server.requests and not client.submit.inside, client.call(post(), read, flow=flow))
        assert (client.figures().submitting, len(server.requests)) == (0, 1)


# What a failed status request means


@pytest.mark.asyncio
async def test_a_failed_poll_ends_all_only_for_a_probe_that_is_out_of_patience() -> None:
    client = ready(retry=Retry(patience=0.0))
    usual, probe = Turn(client.query, probe=False), Turn(client.query, probe=True)
    client.breaker.record_failure(GONE, probe=False, left_at=client.clock())
    client.breaker.record_failure(GONE, probe=True, left_at=client.clock() + 1)
    assert client.breaker.given_up
    facts: dict[str, Any] = {"age": 100.0, "late": False, "misses": 0}
    assert client.after_failed_poll(usual, GONE, **facts)[0] == "again"
    assert client.after_failed_poll(probe, GONE, **facts)[0] == "end all"


@pytest.mark.asyncio
async def test_throttled_for_longer_than_patience_an_item_ends() -> None:
    client = ready(retry=Retry(patience=5.0))
    turn, facts = Turn(client.query, probe=False), {"age": 100.0, "late": False, "misses": 0}
    error: AvatarError = RateLimited("too many", status=429)
    now = client.clock()
    client.query.pacer.on_answer(now, left_at=now, throttled=True, hints=None)
    assert client.after_failed_poll(turn, error, **facts)[0] == "again"  # type: ignore[arg-type]  # a dict of mixed types
    client.clock = lambda: now + 5.1
    assert client.after_failed_poll(turn, error, **facts)[0] == "end"  # type: ignore[arg-type]  # a dict of mixed types


@pytest.mark.asyncio
async def test_the_pause_before_the_next_poll_grows_and_is_never_always_zero() -> None:
    client = ready(retry=Retry(base=0.0, cap=60.0))
    turn = Turn(client.query, probe=False)

    def longest(misses: int) -> float:
        error = ServerError("ill", status=500)
        return max(client.after_failed_poll(turn, error, age=0.0, late=False, misses=misses)[1] for _ in range(200))

    assert 0.005 < longest(0) <= 0.01
    assert 0.5 < longest(7) <= 1.28
    assert longest(100) <= 60.0


@pytest.mark.asyncio
async def test_a_key_provider_is_asked_before_the_submission_is_recorded_as_sent() -> None:
    asked = asyncio.Event()

    async def never() -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    for request, ends in ((0.05, ConnectionFailed), (5.0, asyncio.CancelledError)):
        asked.clear()
        async with RudeServer(json_answer({})) as server, opened(server.url, key=never, request=request) as transport:
            client, steps = ready(transport=transport, retry=Retry(attempts=1)), Steps()
            task = asyncio.create_task(client.call(post(), read, flow=Flow("one"), passage=steps))
            await asked.wait()
            if ends is asyncio.CancelledError:
                task.cancel()
            with pytest.raises(ends):
                await task
            assert "before_send" not in steps.taken
            assert (client.figures().submitting, server.requests) == (0, [])
