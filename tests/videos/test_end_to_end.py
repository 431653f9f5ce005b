"""Videos from end to end against the sandbox, and what its ledger says of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rig.media import png
from rig.world import quick, world
from tinytag import TinyTag

from seedance_avatar import (
    Active,
    AssetFailed,
    AssetSource,
    GenerationFailed,
    GenerationRequest,
    NotFound,
    Reference,
    SubmissionInDoubt,
    WebhookEvent,
    verify_webhook,
)
from seedance_avatar.sandbox import Fate, Sandbox, Vintage


@pytest.mark.asyncio
async def test_from_urls_to_a_video_that_a_player_opens(tmp_path: Path) -> None:
    urls = ["https://cdn.example.com/front.jpg", "https://cdn.example.com/side.jpg"]
    async with world() as it:
        async with it.session.ingest(map(AssetSource.image, urls), group=it.group) as stream:
            ready = [asset async for asset in stream]
        task = await it.session.generate(
            "She waves at the camera.", references=ready, duration=6, return_last_frame=True
        )
        video = await it.session.wait_for_video(task)
        path = await it.session.download(video, tmp_path / "wave.mp4")
        assert it.sandbox.ledger.leaks == []
        (generation,) = it.sandbox.ledger.generations
    assert generation.task_id == task.task_id
    assert [part["url"] for part in generation.request["image_with_roles"]] == [asset.uri for asset in ready]
    assert TinyTag.get(path, tags=False).duration == pytest.approx(6, abs=0.2)
    assert video.last_frame_url is not None


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["lost_answer", "truncated", "not_json", "reset", "server_error"])
async def test_whatever_becomes_of_an_answer_there_is_one_task_for_each_request(fault: Any) -> None:
    async with world() as it:
        it.session._videos.adapter.looks = (0.0, 0.0, 0.0)
        it.sandbox.faults.add(fault, path="generations", probability=0.4)
        wanted = [GenerationRequest(f"Shot {number}", key=str(number)) for number in range(25)]
        async with it.session.generate_many(wanted) as stream:
            outcomes = [outcome async for outcome in stream.outcomes()]
        generations = it.sandbox.ledger.generations
    assert len(outcomes) == 25
    active = {outcome.asset.task_id for outcome in outcomes if isinstance(outcome, Active)}
    assert active <= {generation.task_id for generation in generations}
    # Three times in a row is 6 in 100: such a one is in doubt, never a second task.
    assert len(active) > 15
    prompts = [generation.request["prompt"] for generation in generations]
    assert len(prompts) == len(set(prompts))
    assert all(generation.repeats == 0 for generation in generations)


@pytest.mark.asyncio
@pytest.mark.parametrize("vintage", [Vintage(), Vintage(tasks="older"), Vintage(tasks="engine")])
async def test_the_fates_of_videos_are_told_in_every_vintage(vintage: Vintage) -> None:
    def decide(wanted: Any) -> Fate | None:
        return Fate(status="failed", reason="too dark") if wanted["prompt"] == "dark" else None

    async with world(videos=decide, vintage=vintage) as it:
        bright, dark = await it.session.generate("bright"), await it.session.generate("dark")
        assert (await it.session.wait_for_video(bright)).is_completed
        with pytest.raises(GenerationFailed, match="too dark"):
            await it.session.wait_for_video(dark)
        with pytest.raises(NotFound):
            await it.session.get_video("nobody-knows-it")


@pytest.mark.asyncio
async def test_a_real_person_is_registered_and_the_video_made() -> None:
    async with world() as it:
        references = [
            Reference.image("https://cdn.example.com/house.jpg"),
            Reference.image("https://cdn.example.com/real-person.jpg"),
        ]
        task = await it.session.generate("She waves.", references=references, register_refused=it.group)
        assert (await it.session.wait_for_video(task)).is_completed
        (upload,) = it.sandbox.ledger.uploads
        (generation,) = it.sandbox.ledger.generations
    assert upload.source_url == "https://cdn.example.com/real-person.jpg"
    assert generation.request["image_with_roles"][1]["url"] == f"asset://{upload.asset_id}"


@pytest.mark.asyncio
async def test_local_files_become_assets_and_references(tmp_path: Path) -> None:
    (tmp_path / "her.png").write_bytes(png(600, 600))
    async with world() as it:
        sources = [AssetSource.from_file(tmp_path / "her.png")]
        async with it.session.ingest(sources, group=it.group) as stream:
            (asset,) = [asset async for asset in stream]
        assert asset.source == sources[0]
        await it.session.wait_for_video(await it.session.generate("She waves.", references=asset))
        assert await it.session.upload_file(tmp_path / "her.png")


@pytest.mark.asyncio
async def test_an_expired_url_is_renewed_until_the_day_is_over(tmp_path: Path) -> None:
    async with Sandbox(stepped=True, url_lives=60) as sandbox, quick(sandbox.url) as session:
        task = await session.generate("She waves.")
        sandbox.advance(600)
        video = await session.wait_for_video(task)
        sandbox.advance(61)
        path = await session.download(video, tmp_path / "v.mp4")
        assert path.stat().st_size > 1000
        sandbox.advance(86_400)
        with pytest.raises(NotFound, match="24 hours"):
            await session.download(video, tmp_path / "late.mp4")
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.mp4"]


@asynccontextmanager
async def listening(secrets: list[str]) -> AsyncIterator[tuple[str, asyncio.Queue[WebhookEvent]]]:
    told: asyncio.Queue[WebhookEvent] = asyncio.Queue()

    async def hook(request: web.Request) -> web.Response:
        told.put_nowait(verify_webhook(request.headers, await request.read(), secrets, now=time.time()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", told
    finally:
        await runner.cleanup()


@pytest.mark.asyncio
async def test_a_webhook_tells_what_polling_tells() -> None:
    private: dict[str, Any] = {"allow_private": True, "webhook_secrets": ("whsec-new", "whsec-old")}
    async with (
        listening(["whsec-old"]) as (url, told),
        world({"allow_private_sources": True}, **private) as it,
    ):
        task = await it.session.generate("She waves.", callback_url=url, client_business_id="order-7")
        event = await asyncio.wait_for(told.get(), 5)
        polled = await it.session.wait_for_video(task)
    assert event.task is not None
    assert (event.kind, event.event_type) == ("completed", "generation.completed")
    assert (event.task.task_id, event.task.client_business_id) == (polled.task_id, "order-7")
    assert (event.task.is_completed, event.task.progress) == (True, 100.0)
    assert event.task.url is not None
    assert polled.url is not None
    assert event.task.url.partition("?")[0] == polled.url.partition("?")[0]


@pytest.mark.asyncio
async def test_a_single_generation_with_a_journal_is_submitted_once_over_all_runs(tmp_path: Path) -> None:
    journal = tmp_path / "videos.db"
    async with Sandbox(time_scale=0.002) as sandbox:
        async with quick(sandbox.url) as session:
            first = await session.generate("She waves.", journal=journal)
            again = await session.generate("She waves.", journal=journal)
            await session.drain(1.0)
            assert (await session.get_video(first)).task_id == first.task_id
        async with quick(sandbox.url) as session:
            resumed = await session.generate("She waves.", journal=journal)
            named = await session.generate("She waves.", journal=journal, client_business_id="wave-1")
        async with quick(sandbox.url) as session:
            assert (await session.generate("?", journal=journal, client_business_id="wave-1")).task_id == named.task_id
        assert first.task_id != again.task_id  # the second call of one program is a second video
        assert resumed.task_id == first.task_id
        assert len(sandbox.ledger.generations) == 3


@pytest.mark.asyncio
async def test_a_generation_that_a_run_left_in_doubt_is_asked_for_and_not_made_twice(tmp_path: Path) -> None:
    journal = tmp_path / "videos.db"
    async with Sandbox(time_scale=0.002) as sandbox:
        async with quick(sandbox.url) as session:
            session._videos.adapter.looks = (0.0,)
            sandbox.faults.add("lost_answer", method="POST", path="generations", times=1)
            closed = sandbox.faults.add("server_error", method="GET", path="generation", status=500)
            with pytest.raises(SubmissionInDoubt):
                await session.generate("She waves.", journal=journal)
            sandbox.faults.remove(closed)
        async with quick(sandbox.url) as session:
            task = await session.generate("She waves.", journal=journal)
        assert [generation.task_id for generation in sandbox.ledger.generations] == [task.task_id]


@pytest.mark.asyncio
async def test_the_engine_s_own_words_end_a_wait_with_the_video_s_url(tmp_path: Path) -> None:
    vintage = Vintage(tasks="engine", id_only=True, extra=True)
    async with Sandbox(time_scale=0.002, vintage=vintage) as sandbox, quick(sandbox.url) as session:
        group = await session.create_group("brand")
        async with session.ingest([AssetSource.image("https://x.example.com/1.jpg")], group=group) as stream:
            (ready,) = [asset async for asset in stream]
        video = await session.wait_for_video(await session.generate("She waves.", references=[ready]))
        assert (video.status, video.is_completed) == ("success", True)
        path = await session.download(video, tmp_path / "v.mp4")
        assert path.read_bytes()[4:8] == b"ftyp"
        sandbox.decide("https://x.example.com/2.jpg", Fate.failed())
        with pytest.raises(AssetFailed, match="the service gave no reason"):
            await session.wait_until_active(
                await session.upload(AssetSource.image("https://x.example.com/2.jpg"), group=group)
            )
