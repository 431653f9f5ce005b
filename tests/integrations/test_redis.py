"""Limits that are kept in Redis, against a real one: held by many as by one, and what holds when it is away."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from rich.pretty import pretty_repr
from rig.canaries import everything_of
from rig.fleet import started
from rig.leaks import no_leaks
from rig.redis_server import RedisServer, redis_server
from rig.rude import until
from rig.world import quick, sources

from seedance_avatar import ConnectionFailed, InvalidInput, Limits, Retry, Unsent
from seedance_avatar.client.gate import AHEAD
from seedance_avatar.integrations.redis import RedisLimits
from seedance_avatar.sandbox import Sandbox

NARROW = {"max_submitting": AHEAD, "max_polling": AHEAD}
"""So few on the wire that it does not matter how late any process is: no more can arrive at once."""
HUNDRED = Limits(submits_per_second=100, submit_burst=1, queries_per_second=1000, query_burst=10, **NARROW)


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


@pytest.mark.asyncio
async def test_moments_are_given_out_once_and_evenly(redis: RedisServer) -> None:
    slow = Limits(submits_per_second=0.01, submit_burst=3, queries_per_second=1.0)
    one, other = await RedisLimits(redis.url, limits=slow).open(), await RedisLimits(redis.url, limits=slow).open()
    try:
        waits = sorted([await line.reserve("submit") for line in (one, other) * 3])
        assert waits[:3] == [0.0, 0.0, 0.0]
        assert waits[3:] == pytest.approx([100.0, 200.0, 300.0], abs=2.0)
        assert await one.reserve("query") == 0.0  # a lane of its own
        stranger = await RedisLimits(redis.url, limits=slow, account="other").open()
        assert await stranger.reserve("submit") == 0.0  # an account of its own
        await stranger.aclose()
    finally:
        await one.aclose()
        await other.aclose()


@pytest.mark.asyncio
async def test_a_brake_holds_back_every_process_and_leaves_no_burst(redis: RedisServer) -> None:
    limits = RedisLimits(redis.url, limits=Limits(submits_per_second=1.0, submit_burst=5, queries_per_second=1.0))
    one, other = await limits.open(), await limits.open()
    one.brake("submit", 30.0)
    await one.aclose()  # waits until it is told
    assert await other.reserve("submit") == pytest.approx(30.0, abs=2.0)
    assert await other.reserve("submit") == pytest.approx(31.0, abs=2.0)
    await other.aclose()


@pytest.mark.asyncio
async def test_a_clock_that_is_set_back_makes_nobody_wait_longer(redis: RedisServer) -> None:
    line = await RedisLimits(redis.url, limits=Limits(submits_per_second=0.1, queries_per_second=1.0)).open()
    await line.reserve("submit")
    async with Redis.from_url(redis.url, decode_responses=True) as client:
        (key,) = await client.keys("seedance-avatar:*")
        assert 0 < await client.pttl(key) <= 75_000  # what is not used goes by itself
        kept = {name: float(value) + 3.6e9 for name, value in (await client.hgetall(key)).items()}
        await client.hset(key, mapping=kept)  # type: ignore[arg-type]  # the stubs know no floats
    assert await line.reserve("submit") == pytest.approx(10.0, abs=2.0)
    await line.aclose()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_two_processes_hold_a_limit_as_one(redis: RedisServer) -> None:
    async with Sandbox(time_scale=0.002) as sandbox:
        async with quick(sandbox.url) as session:
            group = await session.create_group("brand")
        told = {"redis": redis.url, "url": sandbox.url, "group": group.group_id, "count": 120}
        rates = {"submits_per_second": 100, "submit_burst": 2, "queries_per_second": 500, "query_burst": 20}
        told["limits"] = {**rates, **NARROW}
        async with started({**told, "start": 0}) as one, started({**told, "start": 120}) as other:
            texts = await asyncio.gather(one.communicate(), other.communicate())
        assert [json.loads(text) for text, _ in texts] == [{"Active": 120}, {"Active": 120}]
        # What was given out, and what each process at most uses late.
        assert sandbox.ledger.most_in(1.0) <= 100 + 2 + 2 * AHEAD
        assert sandbox.ledger.most_in(1.0, "query") <= 500 + 20 + 2 * AHEAD
        assert len(sandbox.ledger) == 240
        assert sandbox.ledger.duplicates() == {}
        times = sandbox.ledger.times("submit")
        assert times[-1] - times[1] >= 0.95 * (240 - 2) / 100


async def _ingested(sandbox: Sandbox, redis: RedisServer, limits: RedisLimits, *, patience: float) -> Any:
    """Ingest 150 sources at 100 a second; Redis is killed at the thirtieth outcome."""
    retry = Retry(base=0.01, cap=0.05, patience=patience)
    async with no_leaks(), quick(sandbox.url, limits=limits, retry=retry) as session:
        group = await session.create_group("brand")
        outcomes = []
        async with session.ingest(sources(150), group=group, max_pending=60) as stream:
            async for outcome in stream.outcomes():
                outcomes.append(outcome)
                if len(outcomes) == 30:
                    redis.kill()
    assert sandbox.ledger.check(outcomes) == []
    return outcomes, stream.report


@pytest.mark.asyncio
async def test_redis_killed_and_waited_for_in_vain(redis: RedisServer) -> None:
    async with Sandbox(time_scale=0.002) as sandbox:
        outcomes, report = await _ingested(sandbox, redis, RedisLimits(redis.url, limits=HUNDRED), patience=0.2)
        assert report.unsent > 0
        assert report.taken == len(outcomes) < 150
        assert not report.exhausted
        for outcome in outcomes:
            if isinstance(outcome, Unsent):
                assert isinstance(outcome.error, ConnectionFailed)
                assert "nothing was sent" in str(outcome.error)


@pytest.mark.asyncio
async def test_redis_killed_and_back_within_patience(redis: RedisServer) -> None:
    async def revive() -> None:
        await redis.killed.wait()
        await asyncio.sleep(0.1)
        await redis.start()

    async with Sandbox(time_scale=0.002) as sandbox:
        reviving = asyncio.create_task(revive())
        outcomes, report = await _ingested(sandbox, redis, RedisLimits(redis.url, limits=HUNDRED), patience=30.0)
        await reviving
        assert report.active == len(outcomes) == 150


@pytest.mark.asyncio
async def test_redis_killed_and_gone_on_without(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    alone = Limits(submits_per_second=200, submit_burst=1, queries_per_second=1000, query_burst=10)
    limits = RedisLimits(redis.url, limits=HUNDRED, when_away="alone", alone=alone)
    async with Sandbox(time_scale=0.002) as sandbox:
        with caplog.at_level(logging.WARNING, logger="seedance_avatar"):
            outcomes, report = await _ingested(sandbox, redis, limits, patience=0.2)
        assert report.active == len(outcomes) == 150
        assert sandbox.ledger.most_in(0.5) <= 100 + 2 + 2 * AHEAD
        assert any("alone until it is back" in record.getMessage() for record in caplog.records)


@pytest.mark.asyncio
async def test_alone_until_redis_is_back(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedance_avatar.integrations.redis._RECONNECT_AFTER", 0.05)
    slow = Limits(submits_per_second=0.01, queries_per_second=1.0)
    line = await RedisLimits(redis.url, limits=slow, when_away="alone", alone=HUNDRED).open()
    await line.reserve("submit")
    redis.kill()
    assert [round(await line.reserve("submit"), 2) for _ in range(3)] == [0.0, 0.01, 0.02]
    line.brake("submit", 7.0)
    assert await line.reserve("submit") == pytest.approx(7.0, abs=0.5)
    await redis.start()
    await asyncio.sleep(0.06)
    assert await line.reserve("submit") == 0.0  # Redis has forgotten
    assert await line.reserve("submit") == pytest.approx(100.0, abs=2.0)
    await line.aclose()


@pytest.mark.asyncio
async def test_cancelled_while_waiting_for_a_moment(redis: RedisServer) -> None:
    slow = RedisLimits(redis.url, limits=Limits(submits_per_second=0.02, queries_per_second=10.0))
    async with no_leaks(), Sandbox() as sandbox, quick(sandbox.url, limits=slow) as session:
        group = await session.create_group("brand")
        uploads = [asyncio.create_task(session.upload(source, group=group)) for source in sources(8)]
        await asyncio.sleep(0.05)
        for upload in uploads:
            upload.cancel()
        ends = await asyncio.gather(*uploads, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        assert len(sandbox.ledger) == 0
        assert session.stats().submitting == 0


@pytest.mark.asyncio
async def test_a_wrong_password_is_said_at_once_and_not_shown(redis: RedisServer) -> None:
    async with Redis.from_url(redis.url) as client:
        await client.config_set("requirepass", "right")
    limits = RedisLimits(f"unix://:canary@{redis.socket}")
    assert "canary" not in repr(limits)
    async with Sandbox() as sandbox, quick(sandbox.url, limits=limits, retry=Retry(patience=3600.0)) as session:
        with pytest.raises(ConnectionFailed) as caught:
            await session.create_group("brand")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "knobs",
    [
        {"url": "http://localhost"},
        {"url": "redis://localhost:99999"},
        {"url": "redis://localhost:six"},
        {"url": "redis://[::1"},
        {"url": "redis://localhost/0?nosuch=1"},
        {"url": "redis://localhost?db=x"},
        {"url": "redis://localhost?protocol=9"},
        {"url": "rediss://localhost?ssl_cert_reqs=x"},
        {"url": ""},
        {"url": None},
        {"url": b"redis://localhost"},
        {"account": 7},
        {"limits": Limits()},
        {"limits": 100},
        {"when_away": "panic"},
        {"when_away": "alone"},
        {"alone": HUNDRED},
        {"timeout": 0},
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        RedisLimits(**{"url": "redis://localhost", **knobs})


@pytest.mark.parametrize(
    "url",
    [
        "redis://[::1]:6379/1",
        "REDIS://localhost",
        "rediss://limits.example:6380",
        "redis://user:canary@limits.example",
        "unix:///run/redis.sock?db=2",
        "redis://limits.example/0?health_check_interval=5",
    ],
)
def test_a_url_that_can_be_used_is_taken_and_not_shown(url: str) -> None:
    limits = RedisLimits(url)
    assert limits.url.reveal() == url
    assert "canary" not in repr(limits) + pretty_repr(limits)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\1garbage\r\n", b"-ERR unknown\r\n" * 9, b""]
)
async def test_what_listens_there_may_be_no_redis(answer: bytes) -> None:
    talking = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal talking
        talking += 1
        await reader.read(10)
        writer.write(answer)
        await reader.read()
        writer.close()
        talking -= 1

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = await RedisLimits(f"redis://:canary@127.0.0.1:{port}", timeout=0.2).open()
        with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}") as caught:
            await line.reserve("submit")
        assert ":canary@" not in everything_of(caught.value)
        await line.aclose()
        await until(lambda: not talking)


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["..", "a" * 300])
async def test_a_host_that_no_network_has_is_not_reached(host: str) -> None:
    line = await RedisLimits(f"redis://{host}:1").open()
    with pytest.raises(ConnectionFailed):
        await line.reserve("submit")
    await line.aclose()


@pytest.mark.parametrize("url", ["redis://:canary@localhost:99999", "ftp://user:canary@localhost"])
def test_a_url_that_is_refused_is_in_no_frame_of_the_error(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        RedisLimits(url)
    assert "canary@" not in everything_of(caught.value)
