"""Waiting for one asset or video: the first look, the deadline, the failure, and a cancellation at each await."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from rig.leaks import no_leaks
from rig.rude import Late, RudeServer, Silence, json_answer, until
from rig.world import quick, sources

from seedance_avatar import Asset, AssetFailed, AvatarSession, GenerationFailed, Polling, VideoTask, WaitTimeout

LATE = Polling.fixed(3600, 3600)
"""A schedule whose own looks come too late for any test."""


def asset(status: str = "processing") -> dict[str, Any]:
    return {"success": True, "data": {"asset_id": "pa_1", "status": status, "asset_type": "image"}}


def task(status: str = "queued") -> dict[str, Any]:
    return {"id": "t_1", "status": status, "url": "https://cdn.example.com/v.mp4" if status == "completed" else None}


async def wait(session: AvatarSession, item: Asset | VideoTask | str, timeout: float = 5) -> Asset | VideoTask:  # noqa: ASYNC109 - what is tested
    if isinstance(item, VideoTask) or item == "t_1":
        return await session.wait_for_video(item, timeout=timeout)
    return await session.wait_until_active(item, timeout=timeout)


UNKNOWN = [
    pytest.param("pa_1", asset("active"), id="an asset's id"),
    pytest.param(Asset(asset_id="pa_1", status="processing"), asset("active"), id="an asset"),
    pytest.param("t_1", task("completed"), id="a video's id"),
    pytest.param(VideoTask(task_id="t_1", status="queued"), task("completed"), id="a video"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("item", "body"), UNKNOWN)
async def test_what_was_not_seen_accepted_is_looked_at_at_once(item: Any, body: dict[str, Any]) -> None:
    async with (
        RudeServer(json_answer(body)) as server,
        quick(server.url, polling=LATE, video_polling=LATE) as session,
    ):
        found = await wait(session, item)
        assert found.is_terminal
        assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_what_was_accepted_here_is_looked_at_when_the_schedule_says() -> None:
    async with RudeServer(json_answer(asset())) as server, quick(server.url, polling=LATE) as session:
        accepted = await session.upload(sources(1)[0], group="pg_1")
        waiting = asyncio.create_task(wait(session, accepted))
        await until(lambda: session.stats().pending)
        assert len(server.requests) == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("item", "failure"),
    [
        (Asset(asset_id="pa_1", status="failed"), AssetFailed),
        (VideoTask(task_id="t_1", status="failed"), GenerationFailed),
    ],
)
async def test_what_is_known_to_have_failed_is_not_asked_for(item: Any, failure: type[Exception]) -> None:
    async with RudeServer(Silence()) as server, quick(server.url) as session:
        with pytest.raises(failure):
            await wait(session, item)
        assert server.requests == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("item", "body"), [("pa_1", asset()), ("t_1", task())])
async def test_a_timeout_carries_what_was_last_seen(item: str, body: dict[str, Any]) -> None:
    async with RudeServer(json_answer(body)) as server, quick(server.url) as session:
        with pytest.raises(WaitTimeout) as caught:
            await wait(session, item, 0.4)
        assert caught.value.last is not None
        assert caught.value.last.status in {"processing", "queued"}
        assert session.stats().pending == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("item", ["pa_1", "t_1"])
async def test_cancelled_at_its_first_look_nothing_is_left(item: str) -> None:
    async with no_leaks(), RudeServer(Silence()) as server, quick(server.url) as session:
        waiting = asyncio.create_task(wait(session, item))
        await until(lambda: server.requests)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (session.stats().pending, session.stats().querying) == (0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize(("item", "body"), [("pa_1", asset()), ("t_1", task())])
async def test_cancelled_between_looks_the_polling_of_it_stops(item: str, body: dict[str, Any]) -> None:
    async with no_leaks(), RudeServer(json_answer(body)) as server, quick(server.url) as session:
        waiting = asyncio.create_task(wait(session, item))
        await until(lambda: len(server.requests) > 2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert session.stats().pending == 0
        await until(lambda: not session.stats().querying)
        asked = len(server.requests)
        await asyncio.sleep(0.1)
        assert len(server.requests) == asked


@pytest.mark.asyncio
async def test_the_oldest_times_are_forgotten_and_each_is_given_once() -> None:
    async with quick("http://127.0.0.1:9") as session:
        for number in range(1_001):
            session.engine.accepted(None, Asset(asset_id=f"pa_{number}"))
        assert session.engine.take_accepted_at("pa_0") is None
        assert session.engine.take_accepted_at("pa_1") is not None
        assert session.engine.take_accepted_at("pa_1") is None


@pytest.mark.asyncio
@pytest.mark.parametrize("item", ["pa_1", "t_1"])
async def test_the_timeout_bounds_the_first_look_too(item: str) -> None:
    async with no_leaks(), RudeServer(Silence()) as server, quick(server.url) as session:
        with pytest.raises(WaitTimeout) as caught:
            await asyncio.wait_for(wait(session, item, timeout=0.1), 5)
        assert caught.value.last is None
        assert item in str(caught.value)


@pytest.mark.asyncio
async def test_after_a_stall_over_the_timeout_there_is_one_look() -> None:
    release = asyncio.Event()
    async with (
        RudeServer(Late(json_answer(asset("active")), release), json_answer(asset("active"))) as server,
        quick(server.url) as session,
    ):
        waiting = asyncio.create_task(wait(session, "pa_1", timeout=0.2))
        await until(lambda: server.requests)
        time.sleep(0.6)  # noqa: ASYNC251 - the stall
        found = await waiting
        release.set()
        assert isinstance(found, Asset)
        assert found.is_active
