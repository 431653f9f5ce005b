"""Video generations of the sandbox, seen by a bare HTTP client: every rule of the contract's page on them."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from rig.raw import Raw, sandbox_and_raw

from seedance_avatar.sandbox import Fate, Sandbox, Vintage

GENERATIONS = "/v1/videos/generations"
PICTURE = "https://cdn.example.com/front.jpg"


def ref(kind: str = "image", number: int = 1, role: str | None = None) -> list[dict[str, str]]:
    return [{"url": f"https://cdn.example.com/{kind}/{n}", "role": role or f"reference_{kind}"} for n in range(number)]


async def generate(raw: Raw, **fields: Any) -> tuple[int, Any]:
    body = {"model": "seedance-2", "prompt": "She waves.", **fields}
    status, _, answer = await raw.call("POST", GENERATIONS, json=body)
    return status, answer


async def active_asset(sandbox: Sandbox, raw: Raw, asset_type: str = "image") -> str:
    asset_id = await raw.upload(await raw.group(), PICTURE, asset_type)
    sandbox.advance(60)
    return f"asset://{asset_id}"


@pytest.mark.asyncio
async def test_a_task_goes_through_its_stages_to_a_video() -> None:
    async with sandbox_and_raw(processing={"generation": 100.0}) as (sandbox, raw):
        uri = await active_asset(sandbox, raw)
        status, task = await generate(
            raw,
            image_with_roles=[{"url": uri, "role": "reference_image"}],
            return_last_frame=True,
            aspect_ratio="9:16",
            client_business_id="shot-1",
        )
        assert status == 200
        assert task == {
            "id": task["id"],
            "object": "generation.task",
            "model": "seedance-2",
            "status": "queued",
            "progress": 0,
            "created_at": task["created_at"],
            "client_business_id": "shot-1",
        }
        sandbox.advance(50)
        found = (await raw.call("GET", f"{GENERATIONS}/{task['id']}"))[2]
        assert (found["status"], found["progress"], "result" in found) == ("in_progress", 10, False)
        sandbox.advance(49)
        found = (await raw.call("GET", f"{GENERATIONS}/shot-1"))[2]
        assert (found["status"], found["progress"]) == ("in_progress", 10)  # it sticks there
        sandbox.advance(1)
        found = (await raw.call("GET", f"{GENERATIONS}/shot-1"))[2]
        assert (found["status"], found["progress"]) == ("completed", 100)
        assert found["completed_at"] == task["created_at"] + 100
        assert found["expires_at"] == found["completed_at"] + 86_400
        (result,) = found["result"]["data"]
        assert result["format"] == "mp4"
        assert result["url"].startswith(sandbox.files_url)
        assert result["last_frame_url"].startswith(sandbox.files_url)
        (generation,) = sandbox.ledger.generations
        assert (generation.client_business_id, generation.status, generation.looks) == ("shot-1", "completed", 3)


@pytest.mark.asyncio
async def test_the_same_business_id_is_the_same_task_and_paid_once() -> None:
    async with sandbox_and_raw(quota=100, keys=("sk-a", "sk-b")) as (sandbox, raw):
        mine, other = raw.with_key("sk-a"), raw.with_key("sk-b")
        first = (await generate(mine, client_business_id="shot/1"))[1]["id"]
        assert (await generate(mine, client_business_id="shot/1", prompt="again"))[1]["id"] == first
        assert (await generate(other, client_business_id="shot/1"))[1]["id"] != first
        assert [g.repeats for g in sandbox.ledger.generations] == [1, 0]
        assert sandbox.account("sk-a").credits == 90
        assert (await mine.call("GET", f"{GENERATIONS}/shot%2F1"))[2]["id"] == first
        assert (await other.call("GET", f"{GENERATIONS}/{first}"))[0] == 404


GOOD: list[dict[str, Any]] = [
    {},
    {"model": "doubao-seedance-2-0"},
    {"duration": 4},
    {"duration": 15},
    {"duration": 0},
    {"duration": -1},
    {"model": "seedance-2-5", "duration": 30},
    {"model": "seedance-2-5", "duration": -1},
    {"model": "seedance-2-mini", "image_with_roles": ref(role="first_frame")},
    {"model": "seedance-2-5", "image_with_roles": ref(role="first_frame"), "aspect_ratio": "adaptive"},
    {"tools": [{"type": "web_search"}]},
    {"callback_url": "https://example.com/hook"},
    {"resolution": "4k", "seed": 7, "generate_audio": False},
    {"ratio": "not looked at"},
    {"image_with_roles": ref(number=9), "video_with_roles": ref("video", 3), "audio_with_roles": ref("audio", 3)},
    {"image_with_roles": ref(role="first_frame") + ref(role="last_frame")},
    {"image_with_roles": ref(role="first_frame")},
    {"image_urls": [PICTURE] * 9},
    {"audio_with_roles": ref("audio"), "video_with_roles": ref("video")},
    {"model": "seedance-2-5", "audio_with_roles": ref("audio", 10)},
    {"model": "seedance-2-5", "image_with_roles": ref(number=30), "video_with_roles": ref("video", 10)},
    {"prompt": "", "image_with_roles": ref()},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": 7}, "prompt must be a string"),
    ({"prompt": " "}, "prompt is required"),
    ({"duration": 3}, "duration must be 4 to 15"),
    ({"duration": 16}, "duration must be 4 to 15"),
    ({"duration": 5.5}, "duration must be"),
    ({"duration": True}, "duration must be"),
    ({"duration": "5"}, "duration must be"),
    ({"model": "seedance-2-mini", "duration": -1}, "duration must be 4 to 15"),
    ({"model": "seedance-2-5", "duration": 31}, "duration must be 4 to 30"),
    ({"model": "seedance-2-5", "duration": 0}, "duration must be 4 to 30 seconds, or -1 for auto"),
    ({"model": "seedance-2-5", "resolution": "4k"}, "resolution must be one of 480p, 720p, 1080p"),
    ({"model": "seedance-2-fast", "resolution": "1080p"}, "resolution must be one of 480p, 720p"),
    ({"tools": [{"type": "web_search"}], "image_with_roles": ref()}, "tools cannot be used with media"),
    ({"callback_url": "http://example.com/hook"}, "callback_url must be https"),
    ({"aspect_ratio": "2:1"}, "aspect_ratio must be one of"),
    ({"resolution": "8k"}, "resolution must be one of"),
    ({"generate_audio": "yes"}, "generate_audio must be a boolean"),
    ({"seed": "7"}, "seed must be an integer"),
    ({"client_business_id": 7}, "client_business_id must be a string"),
    ({"callback_url": ""}, "callback_url must be a string"),
    ({"image_with_roles": ref(number=10)}, "at most 9 reference_image"),
    ({"video_with_roles": ref("video", 4)}, "at most 3 reference_video"),
    ({"image_with_roles": ref(), "audio_with_roles": ref("audio", 4)}, "at most 3 reference_audio"),
    ({"audio_with_roles": ref("audio")}, "reference_audio needs an image or a video"),
    ({"image_with_roles": ref(role="last_frame")}, "last_frame needs a first_frame"),
    ({"image_with_roles": ref(number=2, role="first_frame")}, "at most one first_frame"),
    ({"image_with_roles": ref(role="first_frame") + ref(number=2, role="last_frame")}, "at most one last_frame"),
    ({"image_with_roles": ref(role="first_frame") + ref()}, "cannot be mixed"),
    ({"image_with_roles": ref(role="first_frame"), "video_with_roles": ref("video")}, "cannot be mixed"),
    ({"image_with_roles": ref(), "image_urls": [PICTURE]}, "must not be given together"),
    ({"image_with_roles": {"url": PICTURE}}, "must be an array"),
    ({"image_with_roles": [PICTURE]}, "needs a url and a role"),
    ({"image_with_roles": ref(role="reference_video")}, "needs a url and a role"),
    ({"video_with_roles": ref("video", role="first_frame")}, "needs a url and a role"),
    ({"image_with_roles": [{"url": "http://localhost/a.jpg", "role": "reference_image"}]}, "must be a public"),
    ({"model": "seedance-2-5", "image_with_roles": ref(number=31)}, "at most 30 reference_image"),
    (
        {
            "model": "seedance-2-5",
            "image_with_roles": ref(number=30),
            "video_with_roles": ref("video", 10),
            "audio_with_roles": ref("audio", 11),
        },
        "at most 10 reference_audio",
    ),
]


@pytest.mark.parametrize("fields", GOOD, ids=str)
@pytest.mark.asyncio
async def test_what_keeps_the_rules_is_accepted(fields: dict[str, Any]) -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        status, answer = await generate(raw, **fields)
        assert status == 200, answer
        assert len(sandbox.ledger.generations) == 1


@pytest.mark.asyncio
async def test_frames_without_the_adaptive_ratio_are_accepted_and_fail_later() -> None:
    async with sandbox_and_raw(time_scale=0) as (_, raw):
        _, task = await generate(raw, model="seedance-2-5", image_with_roles=ref(role="first_frame"))
        found = (await raw.call("GET", f"{GENERATIONS}/{task['id']}"))[2]
    assert (found["status"], found["error"]["code"]) == ("failed", "InvalidParameter.TaskTypeConstraint")


@pytest.mark.asyncio
@pytest.mark.parametrize("model", [None, "sora"])
async def test_a_model_that_is_not_there_is_a_503_that_costs_nothing(model: str | None) -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        status, answer = await generate(raw, model=model)
        assert (status, answer["error"]["code"]) == (503, "model_not_found")
        assert sandbox.ledger.generations == []


@pytest.mark.asyncio
async def test_without_a_webhook_secret_a_callback_is_refused() -> None:
    async with sandbox_and_raw(webhook_secrets=()) as (_, raw):
        status, answer = await generate(raw, callback_url="https://example.com/hook")
    assert (status, answer["error"]["code"]) == (400, "webhook_not_configured")


@pytest.mark.parametrize(("fields", "why"), BAD, ids=[why for _, why in BAD])
@pytest.mark.asyncio
async def test_what_breaks_a_rule_is_refused_and_costs_nothing(fields: dict[str, Any], why: str) -> None:
    async with sandbox_and_raw(quota=10) as (sandbox, raw):
        status, answer = await generate(raw, **fields)
        assert status == 400
        assert why in answer["error"]["message"]
        assert sandbox.ledger.generations == []
        assert sandbox.account().credits == 10


@pytest.mark.asyncio
async def test_only_own_active_assets_of_the_right_type_are_taken() -> None:
    async with sandbox_and_raw(keys=("sk-a", "sk-b")) as (sandbox, raw):
        mine, other = raw.with_key("sk-a"), raw.with_key("sk-b")
        uri = await active_asset(sandbox, mine)
        new = await mine.upload(await mine.group(), PICTURE)

        async def refused(raw: Raw, url: str, kind: str = "image") -> str:
            status, answer = await generate(raw, **{f"{kind}_with_roles": [{"url": url, "role": f"reference_{kind}"}]})
            assert status == 400
            return str(answer["error"]["message"])

        assert "content[1]: the asset is not active" in await refused(mine, f"asset://{new}")
        assert "does not exist" in await refused(mine, "asset://pa_nobody")
        assert "does not exist" in await refused(other, uri)
        assert "is no video" in await refused(mine, uri, "video")
        sandbox.advance(60)
        good = [{"url": url, "role": "reference_image"} for url in (uri, f"asset://{new}")]
        assert (await generate(mine, image_with_roles=good))[0] == 200


@pytest.mark.asyncio
async def test_a_real_person_in_a_plain_picture_is_refused_by_its_place() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        uri = await active_asset(sandbox, raw)
        urls = [uri, "https://cdn.example.com/real-person.jpg", "https://cdn.example.com/real-person-2.jpg"]
        entries = [{"url": url, "role": "reference_image"} for url in urls]
        status, answer = await generate(raw, image_with_roles=entries)
        assert status == 422
        assert answer["error"]["code"] == "InputImageSensitiveContentDetected.PrivacyInformation"
        assert "content[2] may contain real person" in answer["error"]["message"]
        # The same picture as an asset is what private avatars are for.
        person = await raw.upload(await raw.group(), urls[1])
        sandbox.advance(60)
        assert (await generate(raw, image_with_roles=[{"url": f"asset://{person}", "role": "reference_image"}]))[
            0
        ] == 200


@pytest.mark.asyncio
async def test_a_generation_can_be_given_its_fate() -> None:
    def decide(wanted: Any) -> Fate | None:
        if "naughty" in wanted["prompt"]:
            return Fate.refused("the prompt is not allowed")
        return Fate.failed("out of memory", after=5) if "hard" in wanted["prompt"] else None

    async with sandbox_and_raw(videos=decide) as (sandbox, raw):
        status, answer = await generate(raw, prompt="naughty")
        assert (status, answer["error"]["code"]) == (422, "content_policy_violation")
        task = (await generate(raw, prompt="hard"))[1]
        sandbox.advance(5)
        found = (await raw.call("GET", f"{GENERATIONS}/{task['id']}"))[2]
        assert (found["status"], found["error"]["message"]) == ("failed", "out of memory")
        assert "result" not in found


@pytest.mark.asyncio
async def test_the_older_vintage_speaks_in_other_words() -> None:
    vintage = Vintage(tasks="older", casing="upper")
    async with sandbox_and_raw(vintage=vintage, videos=lambda _: Fate.failed("no", after=100)) as (sandbox, raw):
        task = (await generate(raw))[1]
        assert (task["status"], task["progress"]) == ("SUBMITTED", "0%")
        path = f"{GENERATIONS}/{task['id']}"
        sandbox.advance(20)
        found = (await raw.call("GET", path))[2]
        assert (found["status"], found["progress"]) == ("PROCESSING", "10%")
        sandbox.advance(80)
        found = (await raw.call("GET", path))[2]
        assert (found["status"], found["fail_reason"]) == ("FAILURE", "no")
        status, _, answer = await raw.call("GET", f"{GENERATIONS}/task_nobody")
        assert (status, answer["error"]["code"]) == (400, "task_not_exist")


@pytest.mark.asyncio
async def test_money_and_unknown_tasks() -> None:
    async with sandbox_and_raw(quota=15) as (sandbox, raw):
        assert (await generate(raw))[0] == 200
        status, answer = await generate(raw)
        assert (status, answer["error"]["code"]) == (402, "insufficient_quota")
        status, _, answer = await raw.call("GET", f"{GENERATIONS}/task_nobody")
        assert (status, answer["error"]["code"]) == (404, "task_not_found")
        assert sandbox.ledger.count(kind="generations") == 2


@pytest.mark.asyncio
async def test_a_lost_answer_leaves_a_task_that_its_business_id_finds() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        sandbox.faults.add("lost_answer", path="generations", times=1)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await generate(raw, client_business_id="shot-1")
        assert (await raw.call("GET", f"{GENERATIONS}/shot-1"))[0] == 200
        assert (await generate(raw, client_business_id="shot-1"))[0] == 200
        assert len(sandbox.ledger.generations) == 1
