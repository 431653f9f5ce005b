"""Polling everything pending: how each item ends, and a cancellation at every await of the poller."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from rig.leaks import no_leaks
from rig.rude import Act, Close, Late, RudeServer, Seen, Silence, json_answer, raw_answer, until
from rig.trips import opened

from seedance_avatar.client.circuit_breaker import CircuitBreaker
from seedance_avatar.client.client import Client
from seedance_avatar.client.gate import Gate
from seedance_avatar.client.poller import Poller, PollingBroke
from seedance_avatar.client.tasks import TaskSet
from seedance_avatar.errors import AuthError, AvatarError, ConnectionFailed, NotFound, SessionStateError, WaitTimeout
from seedance_avatar.limits.pacer import QUERIES, SUBMITS, Pacer
from seedance_avatar.models import VideoTask
from seedance_avatar.options import Polling, Retry
from seedance_avatar.polling import expiry
from seedance_avatar.polling.schedule import PendingItem, Schedule
from seedance_avatar.videos.messages import read_video, video_query
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

QUEUED, DONE = {"id": "t", "status": "queued"}, {"id": "t", "status": "completed", "url": "https://x.example/v.mp4"}
STOPPED = SessionStateError("stopped")


@attrs.define(eq=False)
class Item:
    """An item that remembers what it was given."""

    number: int
    misses: int = 0
    teaches: bool = True
    unfinished: int = 0
    results: list[VideoTask | AvatarError | None] = attrs.field(factory=list)
    broken: bool = False

    def question(self) -> Request:
        return video_query(f"t_{self.number}")

    def read(self, response: Response, /) -> VideoTask:
        if self.broken:
            raise ZeroDivisionError
        return read_video(response)

    def saw(self, item: Any) -> None:
        del item
        self.unfinished += 1

    def ended(self, item: Any, error: AvatarError | None) -> None:
        self.results.append(item or error)


@attrs.define(eq=False)
class Setup:
    poller: Poller
    server: RudeServer

    def add(self, number: int, timeout: float | None = None, **facts: Any) -> Item:
        item = Item(number, **facts)
        now = self.poller.client.clock()
        deadline = None if timeout is None else now + timeout
        self.poller.add(PendingItem(kind="generation", accepted_at=now, deadline=deadline, payload=item, teaches=True))
        return item


@asynccontextmanager
async def polling(
    *script: Act | Callable[[Seen], Act], width: int = 10, every: float = 0.005, patience: float = 60.0
) -> AsyncIterator[Setup]:
    clock, rng = asyncio.get_running_loop().time, random.Random(1)
    retry = Retry(attempts=3, base=0.001, throttle_base=0.001, cap=0.002, patience=patience)
    async with no_leaks(), RudeServer(*script) as server, opened(server.url) as transport:
        submit, query = (
            Gate(Pacer.build(rate=1e9, burst=None, start=start, rng=rng), width, clock) for start in (SUBMITS, QUERIES)
        )
        client = Client(
            transport=transport,
            submit=submit,
            query=query,
            retry=retry,
            breaker=CircuitBreaker(retry, clock, rng),
            clock=clock,
            rng=rng,
        )
        tasks = TaskSet()
        schedule = Schedule.build(Polling.fixed(0, every), rng, {})
        yield Setup(Poller(client, schedule, tasks), server)
        await tasks.aclose()
        assert client.query.inside == 0


def by_path(answers: dict[str, Act]) -> Callable[[Seen], Act]:
    return lambda seen: answers[seen.path.rsplit("/", 1)[1]]


@pytest.mark.asyncio
async def test_each_item_ends_once_as_its_own_response_says() -> None:
    script = by_path({"t_1": json_answer(DONE), "t_2": raw_answer(b"", 404), "t_3": json_answer(QUEUED)})
    async with polling(script) as it:
        done, gone, late = it.add(1), it.add(2), it.add(3, timeout=0.05)
        gone_at = it.poller.client.clock
        it.poller.client.clock = lambda: gone_at() + 61.0  # the minute in which a 404 is not believed has passed
        await until(lambda: done.results and gone.results and late.results)
        assert isinstance(done.results[0], VideoTask)
        assert isinstance(gone.results[0], NotFound)
        assert isinstance(late.results[0], WaitTimeout)
        assert len(it.poller) == 0
        assert [len(item.results) for item in (done, gone, late)] == [1, 1, 1]


@pytest.mark.asyncio
async def test_an_item_that_is_not_finished_is_asked_for_again() -> None:
    async with polling(json_answer(QUEUED), json_answer(QUEUED), raw_answer(b"", 500), json_answer(DONE)) as it:
        item = it.add(1)
        await until(lambda: item.results)
        assert (item.unfinished, item.misses, len(it.server.requests)) == (2, 0, 4)


@pytest.mark.asyncio
async def test_a_refused_key_ends_everything() -> None:
    async with polling(raw_answer(b"", 401)) as it:
        items = [it.add(number) for number in range(3)]
        await until(lambda: all(item.results for item in items))
        assert all(isinstance(item.results[0], AuthError) for item in items)


@pytest.mark.asyncio
async def test_an_outage_that_outlasts_patience_ends_everything() -> None:
    async with polling(json_answer(QUEUED), patience=0.0) as it:
        it.poller.client.breaker.record_failure(ConnectionFailed("gone"), probe=False, left_at=0.0)
        await it.server.__aexit__(None, None, None)
        items = [it.add(number) for number in range(3)]
        await until(lambda: all(item.results for item in items))
        assert all(isinstance(item.results[0], ConnectionFailed) for item in items)


@pytest.mark.asyncio
async def test_a_bug_in_a_reader_ends_its_item_and_not_the_poller(caplog: pytest.LogCaptureFixture) -> None:
    async with polling(json_answer(DONE)) as it:
        broken = it.add(1, broken=True)
        await until(lambda: broken.results)
        assert isinstance(broken.results[0], AvatarError)
        after = it.add(2)
        await until(lambda: after.results)
        assert isinstance(after.results[0], VideoTask)
    assert "unexpected error" in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("owner", "name"), [(Poller, "_look_once"), (Schedule, "pop"), (Schedule, "still_pending"), (Item, "saw")]
)
async def test_where_a_task_of_it_dies_everything_ends_and_the_next_item_is_polled(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def die(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async with polling(json_answer(QUEUED), json_answer(DONE)) as it:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            items = [it.add(number) for number in range(2)]
            await until(lambda: all(item.results for item in items), patience=1.0)
        assert any("polling broke: ZeroDivisionError" in str(item.results[0]) for item in items)
        assert [len(item.results) for item in items] == [1, 1]
        after = it.add(3)
        await until(lambda: after.results)
        assert isinstance(after.results[0], VideoTask)
    assert "polling broke" in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["polling", "looks"])
async def test_a_task_of_it_that_is_cancelled_from_outside_ends_everything(name: str) -> None:
    async with polling(Silence()) as it:
        items = [it.add(number) for number in range(2)]
        await until(lambda: it.server.requests)
        for task in asyncio.all_tasks():
            if task.get_name() == f"seedance-avatar: {name}":
                task.cancel()
        await until(lambda: all(item.results for item in items), patience=1.0)
        assert all("polling broke: it was cancelled from outside" in str(item.results[0]) for item in items)


@pytest.mark.asyncio
async def test_halted_it_ends_what_is_pending_and_what_comes_later() -> None:
    async with polling(Silence()) as it:
        before = it.add(1)
        await until(lambda: it.server.requests)
        it.poller.halt(STOPPED)
        after = it.add(2)
        assert (before.results, after.results) == ([STOPPED], [STOPPED])


@pytest.mark.asyncio
async def test_discarded_on_the_wire_it_is_not_told() -> None:
    release = asyncio.Event()
    async with polling(Late(json_answer(DONE), release)) as it:
        now = it.poller.client.clock()
        item = Item(1)
        pending = PendingItem(kind="generation", accepted_at=now, deadline=None, payload=item, teaches=True)
        it.poller.add(pending)
        await until(lambda: it.server.requests)
        it.poller.discard(pending)
        release.set()
        await until(lambda: not it.poller.client.query.inside)
        assert (item.results, len(it.poller)) == ([], 0)


REFUSALS = {
    "hangs": Silence(),
    "is closed": Close(),
    "is braked": raw_answer(b"{}", 429),
    "is braked for an hour": raw_answer(b"{}", 429, {"Retry-After": "3600"}),
    "waits for a turn": json_answer(QUEUED),
    "waits for an outage to end": json_answer(QUEUED),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("look", REFUSALS)
async def test_a_deadline_passes_whatever_becomes_of_the_looks(look: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "GRACE", 0.2)
    monkeypatch.setattr(expiry, "_STEP", 0.05)
    async with polling(REFUSALS[look], width=1) as it:
        client, turn = it.poller.client, None
        if look == "waits for a turn":
            turn = await client.take_turn(it.poller.flow)
        elif look == "waits for an outage to end":
            await it.server.__aexit__(None, None, None)
        items = [it.add(number, timeout=0.1) for number in range(3)]
        unbounded = it.add(4)
        await until(lambda: all(item.results for item in items))
        assert [type(item.results[0]) for item in items] == [WaitTimeout] * 3
        assert (len(it.poller), unbounded.results) == (1, [])
        it.poller.halt(STOPPED)
        await asyncio.sleep(0.01)  # a task that is cancelled before its first step gives no turn back
        if turn is not None:
            client.give_back(turn)


@pytest.mark.asyncio
async def test_with_nothing_pending_no_timer_keeps_the_poller() -> None:
    async with polling(json_answer(DONE)) as it:
        items = [it.add(number, timeout=3600) for number in range(3)]
        assert it.poller._timer is not None
        await until(lambda: all(item.results for item in items))
        assert it.poller._timer is None


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["asleep", "waiting for a turn", "waiting for an outage to end", "on the wire"])
async def test_cancelled_wherever_it_waits_it_holds_nothing(state: str) -> None:
    act = Silence() if state == "on the wire" else json_answer(QUEUED)
    async with polling(act, width=1, every=3600 if state == "asleep" else 0.001) as it:
        client = it.poller.client
        turn = None
        if state == "waiting for a turn":
            turn = await client.take_turn(it.poller.flow)
        elif state == "waiting for an outage to end":
            client.breaker.record_failure(ConnectionFailed("gone"), probe=False, left_at=client.clock())
            probe = await client.take_turn(it.poller.flow)
            client.query.release()
            assert probe.probe
        item = it.add(1)
        match state:
            case "asleep":
                await until(lambda: item.unfinished and not client.query.inside)
            case "on the wire":
                await until(lambda: it.server.requests)
            case "waiting for a turn":
                await until(lambda: client.query.waiting)
            case _:
                await until(lambda: client.breaker._news)
        await it.poller.tasks.aclose()
        if turn is not None:
            client.give_back(turn)
        assert (client.query.inside, client.query.waiting, client.breaker._news) == (0, 0, set())
        assert [type(result) for result in item.results] == [PollingBroke]  # it is told, for nobody looks any more
