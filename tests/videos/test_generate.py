"""Generations, one at a time: judged, submitted exactly once, waited for, fetched."""

from __future__ import annotations

import asyncio
import inspect
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from rig.leaks import no_leaks
from rig.rude import until
from rig.studio import MP4, Studio, studio
from rig.suspend import counted
from rig.world import quick

from seedance_avatar import (
    VIDEO_MODELS,
    Asset,
    AvatarSession,
    AvatarWarning,
    ConnectionFailed,
    ContentRefused,
    GenerationFailed,
    InvalidInput,
    NotFound,
    Polling,
    ProtocolError,
    QuotaExhausted,
    Reference,
    SessionStateError,
    SubmissionInDoubt,
    VideoModel,
    VideoTask,
    WaitTimeout,
)
from seedance_avatar.events import Accepted, ReferenceRegistered
from seedance_avatar.session import engine

PHOTO = "https://cdn.example.com/her.jpg?sig=s3cret"


def session(service: Studio, looks: tuple[float, ...] = (0.0, 0.0, 0.0), **knobs: Any) -> AvatarSession:
    made = quick(service.url, **knobs)
    made._videos.adapter.looks = looks
    return made


@pytest.mark.asyncio
async def test_from_a_prompt_to_a_file(tmp_path: Path) -> None:
    events: list[Any] = []
    async with studio() as service, session(service, observer=events.append) as avatars:
        asset = Asset(asset_id="pa_1", asset_type="image", status="active")
        task = await avatars.generate("She waves.", references=asset, duration=5, aspect_ratio="9:16")
        assert not task.is_terminal
        video = await avatars.wait_for_video(task)
        assert video.task_id == task.task_id
        told: list[int] = []
        path = await avatars.download(video, tmp_path / "wave.mp4", progress=lambda done, _: told.append(done))
        assert path.read_bytes() == MP4
        assert told == [len(MP4)]
        assert "Authorization" not in service.downloads[0].headers
        assert (await avatars.get_video(video)).is_completed
    (sent,) = service.submissions
    assert sent["client_business_id"].startswith("sa-")
    assert sent["image_with_roles"] == [{"url": "asset://pa_1", "role": "reference_image"}]
    assert (sent["duration"], sent["aspect_ratio"], "ratio" in sent) == (5, "9:16", False)
    (accepted,) = [event for event in events if isinstance(event, Accepted)]
    assert (accepted.asset.task_id, accepted.ingest, accepted.source.prompt) == (task.task_id, None, "She waves.")


@pytest.mark.asyncio
async def test_the_callers_id_goes_out_and_finds_the_task() -> None:
    async with studio() as service, session(service) as avatars:
        await avatars.generate("She waves.", client_business_id="order-7")
        assert (await avatars.get_video("order-7")).task_id == "tsk_1"
        assert (await avatars.wait_for_video("order-7")).is_completed
    assert service.submissions[0]["client_business_id"] == "order-7"


@pytest.mark.asyncio
async def test_what_breaks_a_rule_is_never_sent() -> None:
    async with studio() as service, session(service) as avatars:
        with pytest.raises(InvalidInput, match="a last frame without a first"):
            await avatars.generate("She waves.", last_frame="https://cdn.example.com/a.jpg")
        with pytest.raises(InvalidInput, match="is processing, not active"):
            await avatars.generate("She waves.", references=[Asset(asset_id="pa_1", asset_type="image")])
    assert service.submissions == []


@pytest.mark.asyncio
async def test_an_unknown_model_is_warned_of_and_sent() -> None:
    async with studio() as service, session(service) as avatars:
        with pytest.warns(AvatarWarning, match="'seedance-9' is not known here"):
            await avatars.generate("She waves.", model="seedance-9", duration=99)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InvalidInput, match="'seedance-9' is not known here"):
                await avatars.generate("She waves.", model="seedance-9")
    assert len(service.submissions) == 1


@pytest.mark.asyncio
async def test_the_table_of_models_is_the_sessions() -> None:
    models = {**VIDEO_MODELS, "seedance-9": VideoModel(name="seedance-9", longest=99)}
    async with studio() as service, session(service, video_models=models) as avatars:
        await avatars.generate("She waves.", model="seedance-9", duration=99)
        with pytest.raises(InvalidInput, match="4 to 99 seconds"):
            await avatars.generate("She waves.", model="seedance-9", duration=100)


# Exactly once


@pytest.mark.asyncio
@pytest.mark.parametrize("act", ["lose answer", "garble"])
async def test_a_lost_answer_ends_with_one_task(act: str) -> None:
    async with studio(script=[act]) as service, session(service) as avatars:
        task = await avatars.generate("She waves.")
    assert (task.task_id, list(service.tasks)) == ("tsk_1", ["tsk_1"])
    assert len(service.submissions) == 1
    assert service.asked == [service.submissions[0]["client_business_id"]]


@pytest.mark.asyncio
async def test_what_never_arrived_is_sent_again_with_the_same_id() -> None:
    async with studio(script=["lose request"]) as service, session(service) as avatars:
        task = await avatars.generate("She waves.")
    assert (task.task_id, list(service.tasks)) == ("tsk_1", ["tsk_1"])
    first, second = service.submissions
    assert first == second
    assert len(service.asked) == 3  # a single "not found" is not believed


@pytest.mark.asyncio
async def test_what_is_applied_after_its_connection_broke_is_waited_for() -> None:
    async with studio(script=["apply late"], late=2) as service, session(service) as avatars:
        await avatars.generate("She waves.")
    assert (len(service.submissions), list(service.tasks)) == (1, ["tsk_1"])


@pytest.mark.asyncio
async def test_answers_that_are_lost_again_and_again_end_in_doubt() -> None:
    async with studio(script=["lose request"] * 9) as service, session(service) as avatars:
        with pytest.raises(SubmissionInDoubt) as caught:
            await avatars.generate("She waves.")
    assert len(service.submissions) == 3
    assert '"She waves."' in str(caught.value)


@pytest.mark.asyncio
async def test_a_service_that_cannot_be_asked_leaves_the_doubt() -> None:
    async with studio(script=["lose answer"], deaf=True) as service, session(service) as avatars:
        with pytest.raises(SubmissionInDoubt) as caught:
            await avatars.generate("She waves.")
    assert isinstance(caught.value.__cause__, ConnectionFailed)
    assert len(service.submissions) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (402, {"error": {"message": "no money", "code": "insufficient_quota"}}, QuotaExhausted),
        (422, {"error": {"message": "no", "code": "content_policy_violation"}}, ContentRefused),
        (404, {"message": "no such model"}, NotFound),
    ],
)
async def test_a_clear_refusal_is_no_doubt(status: int, body: dict[str, Any], error: type[Exception]) -> None:
    async with studio(script=[(status, body)]) as service, session(service) as avatars:
        with pytest.raises(error):
            await avatars.generate("She waves.")
    assert (len(service.submissions), service.asked) == (1, [])


@pytest.mark.asyncio
async def test_too_fast_is_sent_again_by_itself() -> None:
    async with studio(script=[(429, {})]) as service, session(service) as avatars:
        await avatars.generate("She waves.")
    first, second = service.submissions
    assert first["client_business_id"] == second["client_business_id"]


@pytest.mark.asyncio
async def test_cancelled_on_the_wire_the_answer_is_brought_home(caplog: pytest.LogCaptureFixture) -> None:
    async with studio(hold=asyncio.Event()) as service, session(service) as avatars:
        run = asyncio.create_task(avatars.generate("She waves."))
        await service.arrived.wait()
        run.cancel()
        await asyncio.sleep(0)
        assert service.hold is not None
        service.hold.set()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert "accepted as tsk_1" in caplog.text


@pytest.mark.asyncio
async def test_cancelled_between_looks_it_is_told_to_be_in_doubt(caplog: pytest.LogCaptureFixture) -> None:
    async with studio(script=["lose answer"]) as service, session(service, (30.0,), timeouts=None) as avatars:
        run = asyncio.create_task(avatars.generate("She waves."))
        await service.arrived.wait()
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(avatars.drain(0.05))
        with pytest.raises(SubmissionInDoubt):
            await run
        await closing
    assert len(service.submissions) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("script", [[], ["lose answer"], ["garble"]], ids=["all goes well", "lost", "garbled"])
async def test_cancelled_at_every_await_nothing_is_paid_for_unknown(
    script: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def perform(at: int | None) -> int:
        caplog.clear()
        returned: list[str] = []
        async with no_leaks(), studio(script=list(script)) as service:
            with counted() as suspensions:
                async with session(service) as avatars:

                    async def scenario() -> None:
                        task = await avatars.generate("She waves.")
                        returned.append(task.task_id)
                        await avatars.wait_for_video(task)

                    begun = suspensions.count
                    run = asyncio.get_running_loop().create_task(suspensions.wrap(scenario()))
                    if at is not None:
                        suspensions.at(begun + at, run.cancel)
                    await asyncio.wait({run}, timeout=10)
                    assert run.done()
                    assert run.cancelled() or run.exception() is None
                    total = suspensions.count - begun
        assert len({told["client_business_id"] for told in service.submissions}) <= 1
        for task_id in service.tasks:
            assert task_id in returned or task_id in caplog.text or "may exist" in caplog.text
        return total

    total = await perform(None)
    assert total > 5
    for at in range(1, total + 1):
        await perform(at)


# Waiting


@pytest.mark.asyncio
async def test_a_wait_ends_with_the_failure_and_its_reason() -> None:
    ending = {"status": "failed", "error": {"code": "OutputVideoSensitive", "message": "no such scene"}}
    async with studio(ending=ending) as service, session(service) as avatars:
        with pytest.raises(GenerationFailed, match="no such scene") as caught:
            await avatars.wait_for_video(await avatars.generate("She waves."))
    assert (caught.value.task.code, caught.value.task.status) == ("OutputVideoSensitive", "failed")


@pytest.mark.asyncio
async def test_a_finished_task_without_a_url_is_no_failed_one_and_keeps_what_came() -> None:
    async with (
        studio(ending={"status": "completed", "result": {"oddly": "put"}}) as service,
        session(service) as avatars,
    ):
        with pytest.raises(ProtocolError, match="no URL of the video was found") as caught:
            await avatars.wait_for_video(await avatars.generate("She waves."))
    assert caught.value.task is not None
    assert "oddly" in caught.value.body
    assert caught.value.task.raw["result"] == {"oddly": "put"}


@pytest.mark.asyncio
async def test_a_deadline_carries_the_last_task_seen() -> None:
    async with studio(looks=10**6) as service, session(service) as avatars:
        task = await avatars.generate("She waves.")
        with pytest.raises(WaitTimeout) as caught:
            await avatars.wait_for_video(task, timeout=0.05)
        assert isinstance(caught.value.last, VideoTask)
        assert caught.value.last.status == "in_progress"
        with pytest.raises(InvalidInput, match="timeout must be more than 0"):
            await avatars.wait_for_video(task, timeout=0)


@pytest.mark.asyncio
async def test_transient_errors_do_not_end_a_wait() -> None:
    async with studio(looks=3) as service, session(service) as avatars:
        task = await avatars.generate("She waves.")
        waiting = asyncio.create_task(avatars.wait_for_video(task))
        service.deaf = True
        await until(lambda: len(service.asked) >= 3)
        service.deaf = False
        assert (await waiting).is_completed


@pytest.mark.asyncio
async def test_what_is_finished_already_is_not_asked_for() -> None:
    async with studio() as service, session(service) as avatars:
        done = VideoTask(task_id="tsk_9", status="completed", url="https://files.example.com/v.mp4")
        assert await avatars.wait_for_video(done) is done
    assert service.asked == []


@pytest.mark.asyncio
async def test_what_was_accepted_long_ago_is_looked_at_before_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_REMEMBERED", 1)
    async with studio(looks=0) as service, session(service, video_polling=Polling.fixed(30, 30)) as avatars:
        first = await avatars.generate("She waves.")
        await avatars.generate("She waves back.")
        # Forgotten, it may be old: the first look does not wait for the schedule.
        assert (await avatars.wait_for_video(first)).is_completed


def test_the_schedule_of_videos_is_the_documented_one() -> None:
    assert AvatarSession("sk-x")._start.keywords["video_polling"] == Polling.fixed(5, 10)
    assert inspect.signature(AvatarSession.wait_for_video).parameters["timeout"].default == 600


@pytest.mark.asyncio
async def test_an_unknown_id_is_not_waited_for() -> None:
    async with studio() as service, session(service) as avatars:
        with pytest.raises(NotFound):
            await avatars.wait_for_video("tsk_404")
        with pytest.raises(InvalidInput, match="is not a task id"):
            await avatars.get_video("../groups")


@pytest.mark.asyncio
async def test_a_session_that_is_not_open_says_so(tmp_path: Path) -> None:
    avatars = quick("http://127.0.0.1:9")
    for call in (
        avatars.generate("She waves."),
        avatars.get_video("tsk_1"),
        avatars.wait_for_video("tsk_1"),
        avatars.download("tsk_1", tmp_path / "v.mp4"),
        avatars.upload_file(tmp_path / "a.png"),
    ):
        with pytest.raises(SessionStateError, match="not open"):
            await call


# The refusal of real persons


def refusal(
    words: str, code: str = "InputImageSensitiveContentDetected.PrivacyInformation"
) -> tuple[int, dict[str, Any]]:
    inner = json.dumps({"error": {"code": code, "message": words}})
    return 422, {"error": {"message": inner, "type": "upstream_error", "code": "content_policy_violation"}}


@pytest.mark.asyncio
async def test_a_refused_image_is_registered_and_submitted_as_an_asset() -> None:
    events: list[Any] = []
    script = [refusal("The request failed because content[2] may contain real person.")]
    async with studio(script=script) as service, session(service, observer=events.append) as avatars:
        await avatars.generate(
            "She waves to image 1.",
            references=[Reference.image("https://cdn.example.com/house.jpg"), Reference.image(PHOTO)],
            register_refused="pg_1",
        )
    (registered,) = service.assets
    assert (registered["group_id"], registered["source_url"], registered["asset_type"]) == ("pg_1", PHOTO, "image")
    assert [part["url"] for part in service.submissions[1]["image_with_roles"]] == [
        "https://cdn.example.com/house.jpg",
        "asset://pa_1",
    ]
    (event,) = [event for event in events if isinstance(event, ReferenceRegistered)]
    assert (event.asset.asset_id, event.asset.source.source_url) == ("pa_1", PHOTO)
    assert isinstance(event.error, ContentRefused)
    assert "s3cret" not in repr(event)


@pytest.mark.asyncio
async def test_content_is_counted_as_it_was_sent_not_as_it_was_passed() -> None:
    script = [refusal("content[1] may contain real person")]
    async with studio(script=script) as service, session(service) as avatars:
        await avatars.generate(
            "She waves.",
            references=[Reference.video("https://cdn.example.com/v.mp4"), Reference.image(PHOTO)],
            register_refused="pg_1",
        )
    assert service.assets[0]["source_url"] == PHOTO


@pytest.mark.asyncio
async def test_a_refused_first_frame_is_registered_too() -> None:
    async with studio(script=[refusal("the image may contain real person")]) as service, session(service) as avatars:
        await avatars.generate("She waves.", first_frame=PHOTO, register_refused="pg_1")
    assert service.submissions[1]["image_with_roles"] == [{"url": "asset://pa_1", "role": "first_frame"}]


@pytest.mark.asyncio
async def test_it_is_off_by_default_and_registers_nothing_else() -> None:
    person = refusal("content[1] may contain real person")
    cases: list[tuple[tuple[int, dict[str, Any]], dict[str, Any]]] = [
        (person, {"register_refused": None, "references": Reference.image(PHOTO)}),
        (refusal("content[1] is violent", "ViolentContent"), {"references": Reference.image(PHOTO)}),
        (refusal("content[0] may contain real person"), {"references": Reference.image(PHOTO)}),
        (refusal("content[7] may contain real person"), {"references": Reference.image(PHOTO)}),
        (person, {"references": Reference.image("asset://pa_9")}),
        (person, {"references": Reference.video("https://cdn.example.com/v.mp4")}),
        (
            refusal("an image may contain real person"),
            {"references": [Reference.image(PHOTO), Reference.image("https://cdn.example.com/b.jpg")]},
        ),
    ]
    for answer, fields in cases:
        async with studio(script=[answer]) as service, session(service) as avatars:
            with pytest.raises(ContentRefused):
                await avatars.generate("She waves.", **{"register_refused": "pg_1", **fields})
        assert (len(service.submissions), service.assets) == (1, [])


@pytest.mark.asyncio
async def test_a_refusal_that_stays_is_raised() -> None:
    script = [refusal("content[1] may contain real person"), refusal("content[1] may contain real person")]
    async with studio(script=script) as service, session(service) as avatars:
        with pytest.raises(ContentRefused):
            await avatars.generate("She waves.", references=Reference.image(PHOTO), register_refused="pg_1")
    assert (len(service.submissions), len(service.assets)) == (2, 1)


@pytest.mark.asyncio
async def test_two_persons_are_registered_one_after_the_other() -> None:
    script = [refusal("content[2] may contain real person"), refusal("content[1] may contain real person")]
    async with studio(script=script) as service, session(service) as avatars:
        both = [Reference.image(PHOTO), Reference.image("https://cdn.example.com/him.jpg")]
        await avatars.generate("They wave.", references=both, register_refused="pg_1")
    assert [part["url"] for part in service.submissions[2]["image_with_roles"]] == ["asset://pa_2", "asset://pa_1"]
