"""Many generations: the stream, outcomes and accounts of an ingest, and a journal that generates nothing twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from rig.rude import until
from rig.studio import Studio, studio
from rig.world import quick

from seedance_avatar import (
    Active,
    Asset,
    AvatarSession,
    Failed,
    GenerationFailed,
    GenerationRequest,
    InDoubt,
    IngestError,
    InvalidInput,
    Pending,
    QuotaExhausted,
    Reference,
    SubmissionInDoubt,
    Unsent,
    WaitTimeout,
)
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Record
from seedance_avatar.videos import rules
from seedance_avatar.wire import public_urls


def session(service: Studio, **knobs: Any) -> AvatarSession:
    made = quick(service.url, **knobs)
    made._videos.adapter.looks = (0.0, 0.0)
    return made


def requests(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"Shot {number}", key=f"shot-{number}") for number in range(count)]


async def fates(avatars: AvatarSession, wanted: Any, **options: Any) -> list[Any]:
    async with avatars.generate_many(wanted, **options) as stream:
        return [outcome async for outcome in stream.outcomes()]


async def recorded(path: Path) -> list[Record]:
    async with await Journal.open(path, readonly=True) as journal:
        return [record async for record in journal.records()]


@pytest.mark.asyncio
async def test_each_request_ends_as_a_finished_video() -> None:
    wanted = iter(requests(30))
    async with studio(looks=2) as service, session(service) as avatars, avatars.generate_many(wanted) as stream:
        videos = [video async for video in stream]
        report = stream.report
    assert len({video.url for video in videos}) == 30
    assert all(video.is_completed for video in videos)
    assert (report.taken, report.active, report.exhausted) == (30, 30, True)
    assert len({told["client_business_id"] for told in service.submissions}) == 30


@pytest.mark.asyncio
async def test_every_way_to_end_is_an_outcome_of_its_own() -> None:
    wanted = [
        GenerationRequest("good"),
        GenerationRequest("bad", duration=99),
        GenerationRequest("early", references=[Asset(asset_id="pa_1", asset_type="image")]),
        "not a request",
    ]
    async with studio() as service, session(service) as avatars:
        outcomes = {outcome.source: outcome for outcome in await fates(avatars, wanted)}
        assert isinstance(outcomes[wanted[0]], Active)
        for source, words in zip(
            wanted[1:], ("no video of 99 seconds", "not active", "must be a GenerationRequest"), strict=True
        ):
            assert isinstance(outcomes[source], Failed)
            assert isinstance(outcomes[source].error, InvalidInput)
            assert words in str(outcomes[source].error)
        service.ending = {"status": "failed", "fail_reason": "too dark"}
        (failed,) = await fates(avatars, [GenerationRequest("dark")])
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, GenerationFailed)
        assert failed.asset is not None
        assert "too dark" in str(failed.error)
        service.ending, service.looks = {"status": "completed"}, 10**6
        (pending,) = await fates(avatars, [GenerationRequest("slow")], video_timeout=0.05)
        assert isinstance(pending, Pending)
        assert isinstance(pending.error, WaitTimeout)
        assert pending.asset.status == "in_progress"
        service.script.extend(["lose request"] * 3)
        (doubted,) = await fates(avatars, [GenerationRequest("lost")])
        assert isinstance(doubted, InDoubt)
        service.script.append((402, {"error": {"code": "insufficient_quota", "message": "no money"}}))
        (unsent,) = await fates(avatars, [GenerationRequest("poor")])
        assert isinstance(unsent, Unsent)
        assert isinstance(unsent.error, QuotaExhausted)


@pytest.mark.asyncio
async def test_what_has_no_video_is_raised_at_the_end_with_its_name() -> None:
    async with studio() as service, session(service) as avatars:
        with pytest.raises(IngestError, match="no video of 99 seconds") as caught:
            async with avatars.generate_many([*requests(3), GenerationRequest("bad", duration=99)]) as stream:
                assert len([video async for video in stream]) == 3
    assert len(caught.value.outcomes) == 1


@pytest.mark.asyncio
async def test_one_key_or_business_id_is_one_video_and_equal_requests_are_many() -> None:
    same_key = [GenerationRequest("a", key="k"), GenerationRequest("a", key="k")]
    same_id = [GenerationRequest("b", client_business_id="b-1"), GenerationRequest("b", client_business_id="b-1")]
    equal = [GenerationRequest("c"), GenerationRequest("c")]
    async with studio() as service, session(service) as avatars:
        outcomes = await fates(avatars, [*same_key, *same_id, *equal])
    assert len(outcomes) == 6
    assert sorted(told["prompt"] for told in service.submissions) == ["a", "b", "c", "c"]


@pytest.mark.asyncio
async def test_lost_answers_make_no_second_video() -> None:
    script = ["lose answer", "lose request", "garble", "apply late"] * 3
    async with studio(script=script) as service, session(service) as avatars:
        outcomes = await fates(avatars, requests(20))
    assert all(isinstance(outcome, Active) for outcome in outcomes)
    by_id = [task["client_business_id"] for task in service.tasks.values()]
    assert len(by_id) == len(set(by_id)) == 20


@pytest.mark.asyncio
async def test_options_that_cannot_be_used_are_refused_at_once() -> None:
    async with studio() as service, session(service) as avatars:
        for options in ({"video_timeout": 0}, {"max_pending": 0}, {"on_failure": "explode"}):
            with pytest.raises(InvalidInput):
                avatars.generate_many([], **options)
        with pytest.raises(InvalidInput):
            avatars.generate_many(7)  # type: ignore[arg-type]  # the case


# With a journal


@pytest.mark.asyncio
async def test_a_second_run_with_the_journal_generates_nothing_again(tmp_path: Path) -> None:
    wanted = [
        *requests(4),
        GenerationRequest("x"),
        GenerationRequest("x"),
        GenerationRequest("y", client_business_id="b"),
    ]
    outcomes: list[Any] = []
    async with studio() as service:
        for _ in range(2):
            async with session(service) as avatars:
                outcomes = await fates(avatars, wanted, journal=tmp_path / "run.db")
                assert [type(outcome) for outcome in outcomes] == [Active] * 7
                tasks = {outcome.asset.task_id for outcome in outcomes}
                assert tasks == {f"tsk_{number}" for number in range(1, 8)}
                assert all(outcome.asset.is_completed for outcome in outcomes)
        assert len(service.submissions) == 7
        async with session(service) as avatars:
            # What an earlier run finished has no URL in the journal: it is asked for.
            path = await avatars.download(outcomes[0].asset, tmp_path / "v.mp4")
            assert path.exists()
    kept = {record.business_id for record in await recorded(tmp_path / "run.db")}
    assert kept == {told["client_business_id"] for told in service.submissions}


@pytest.mark.asyncio
async def test_the_third_of_equal_requests_is_the_third_in_the_next_run_too(tmp_path: Path) -> None:
    async with studio() as service:
        async with session(service) as avatars:
            await fates(avatars, [GenerationRequest("x")] * 2, journal=tmp_path / "run.db")
        async with session(service) as avatars:
            await fates(avatars, [GenerationRequest("x")] * 3, journal=tmp_path / "run.db")
    assert len(service.submissions) == 3


@pytest.mark.asyncio
async def test_what_an_earlier_run_left_in_doubt_is_asked_for_before_anything_is_sent(tmp_path: Path) -> None:
    applied, lost = requests(2)
    async with studio(script=["lose answer"], deaf=True) as service:
        async with session(service) as avatars:
            (first,) = await fates(avatars, [applied], journal=tmp_path / "run.db")
        service.script.append("lose request")
        async with session(service) as avatars:
            (second,) = await fates(avatars, [lost], journal=tmp_path / "run.db")
        assert [type(first), type(second)] == [InDoubt, InDoubt]
        service.deaf = False
        asked = len(service.asked)
        async with session(service) as avatars:
            outcomes = await fates(avatars, [applied, lost], journal=tmp_path / "run.db")
        assert [type(outcome) for outcome in outcomes] == [Active, Active]
        assert len(service.tasks) == 2
        # The applied one was found by its id; the lost one was not, and went out again under the same id.
        assert len(service.submissions) == 3
        assert service.submissions[1] == service.submissions[2]
        assert set(service.asked[asked : asked + 2]) == {told["client_business_id"] for told in service.submissions[:2]}


@pytest.mark.asyncio
async def test_a_doubt_that_cannot_be_asked_about_stays_one(tmp_path: Path) -> None:
    async with studio(script=["lose answer"], deaf=True) as service:
        for _ in range(2):
            async with session(service) as avatars:
                (outcome,) = await fates(avatars, requests(1), journal=tmp_path / "run.db")
                assert isinstance(outcome, InDoubt)
                assert isinstance(outcome.error, SubmissionInDoubt)
        assert len(service.submissions) == 1
        (record,) = await recorded(tmp_path / "run.db")
        assert record.state == "in_doubt"


@pytest.mark.asyncio
async def test_a_run_that_was_left_goes_on_with_what_was_accepted(tmp_path: Path) -> None:
    async with studio(looks=10**6) as service:
        async with (
            session(service) as avatars,
            avatars.generate_many(requests(3), journal=tmp_path / "run.db") as stream,
        ):
            await until(lambda: stream.stats().polling == 3)
        assert stream.report.pending == 3
        service.looks = 0
        async with session(service) as avatars:
            outcomes = await fates(avatars, requests(3), journal=tmp_path / "run.db")
        assert [type(outcome) for outcome in outcomes] == [Active] * 3
        assert len(service.submissions) == 3


@pytest.mark.asyncio
async def test_left_between_two_looks_for_a_lost_answer_it_is_in_doubt(tmp_path: Path) -> None:
    async with studio(script=["lose request"]) as service, session(service) as avatars:
        avatars._videos.adapter.looks = (30.0,)
        async with avatars.generate_many(requests(1), journal=tmp_path / "run.db") as stream:
            await service.arrived.wait()
            await asyncio.sleep(0.02)
        (outcome,) = stream.report.unfinished
        assert isinstance(outcome, InDoubt)
        (record,) = await recorded(tmp_path / "run.db")
        assert record.state == "in_doubt"
    assert len(service.submissions) == 1


@pytest.mark.asyncio
async def test_references_of_one_run_may_be_assets_and_urls(tmp_path: Path) -> None:
    asset = Asset(asset_id="pa_1", asset_type="image", status="active")
    wanted = GenerationRequest("x", references=[asset, Reference.image("https://cdn.example.com/a.jpg?sig=s3cret")])
    async with studio() as service, session(service) as avatars:
        await fates(avatars, [wanted], journal=tmp_path / "run.db")
    assert b"s3cret" not in (tmp_path / "run.db").read_bytes()
    assert service.submissions[0]["image_with_roles"][1]["url"].endswith("s3cret")


@pytest.mark.asyncio
@pytest.mark.parametrize("journal", [False, True])
async def test_each_url_of_a_request_is_judged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, journal: bool
) -> None:
    judged: list[object] = []

    def judge_url(url: object, **options: Any) -> str | None:
        judged.append(url)
        return public_urls.judge_url(url, **options)

    monkeypatch.setattr(rules, "judge_url", judge_url)
    urls = [f"https://cdn.example.com/{number}.jpg" for number in range(3)]
    options: dict[str, Any] = {"journal": tmp_path / "run.db"} if journal else {}
    async with studio() as service, session(service) as avatars:
        wanted = [
            GenerationRequest("Shot", references=[Reference.image(url)], callback_url=f"{url}/done") for url in urls
        ]
        outcomes = await fates(avatars, wanted, **options)
        assert all(isinstance(outcome, Active) for outcome in outcomes)
        assert sorted(map(str, judged)) == sorted([*urls, *(f"{url}/done" for url in urls)])
        judged.clear()
        await avatars.generate("Shot", references=Reference.image(urls[0]), **options)
        assert judged == urls[:1]
    assert len(service.submissions) == 4
