"""The private-avatar endpoints of the sandbox, seen by a bare HTTP client."""

from __future__ import annotations

import math
from typing import Any

import aiohttp
import pytest
from rig.raw import PREFIX, Raw, sandbox_and_raw

from seedance_avatar.sandbox import Fate, Sandbox, Vintage

URL = "https://cdn.example.com/front.jpg?sig=a%2Fb"


@pytest.mark.asyncio
async def test_an_image_becomes_active_after_its_time_and_not_before() -> None:
    async with sandbox_and_raw(processing={"image": 13.0}) as (sandbox, raw):
        group_id = await raw.group()
        status, headers, body = await raw.post(group_id, URL, name="front")
        assert status == 200
        assert headers["X-Oneapi-Request-Id"]
        asset_id = body["data"]["asset_id"]
        assert body == {
            "success": True,
            "message": "",
            "data": {
                "asset_id": asset_id,
                "asset_url": f"asset://{asset_id}",
                "group_id": group_id,
                "asset_type": "image",
                "source_url": URL,
                "status": "processing",
                "name": "front",
            },
        }
        sandbox.advance(12.9)
        assert (await raw.look(asset_id))["status"] == "processing"
        sandbox.advance(0.2)
        assert (await raw.look(asset_id))["status"] == "active"
        upload = sandbox.ledger.asset(asset_id)
        assert upload is not None
        assert (upload.looks, upload.answered, upload.status, upload.source_url) == (2, True, "active", URL)


@pytest.mark.asyncio
async def test_processing_times_are_those_that_clients_recorded() -> None:
    async with sandbox_and_raw(seed=7) as (sandbox, raw):
        group_id = await raw.group()
        for asset_type in ("image", "video", "audio"):
            for number in range(40):
                await raw.upload(group_id, f"https://cdn.example.com/{number}", asset_type)
        took: dict[str, list[float]] = {}
        for upload in sandbox.ledger.uploads:
            took.setdefault(upload.asset_type, []).append(upload.ready_at - upload.at)
        assert 12 < sum(took["image"]) / 40 < 14
        assert 18 <= min(took["video"]) < max(took["video"]) <= 27
        assert 9 < sum(took["audio"]) / 40 < 11


@pytest.mark.asyncio
async def test_the_same_seed_gives_the_same_fates_in_any_order() -> None:
    urls = [f"https://cdn.example.com/{number}.jpg" for number in range(60)]
    seen = []
    for order in (urls, urls[::-1]):
        async with sandbox_and_raw(seed=3, fail_rate=0.3) as (sandbox, raw):
            group_id = await raw.group()
            for url in order:
                await raw.upload(group_id, url)
            seen.append({u.source_url: (u.fate, u.reason, u.ready_at - u.at) for u in sandbox.ledger.uploads})
    assert seen[0] == seen[1]
    failed = [fate for fate, _, _ in seen[0].values() if fate == "failed"]
    assert 8 <= len(failed) <= 30


@pytest.mark.asyncio
async def test_a_source_can_be_given_its_fate() -> None:
    def decide(url: str, asset_type: str) -> Fate | None:
        return Fate.refused("not this one") if "policy" in url else Fate.stuck() if asset_type == "audio" else None

    async with sandbox_and_raw(fates=decide, time_scale=0.5) as (sandbox, raw):
        group_id = await raw.group()
        sandbox.fail(URL, reason="image width is less than 300 px", after=2)
        failing = await raw.upload(group_id, URL)
        stuck = await raw.upload(group_id, "https://cdn.example.com/voice.mp3", "audio")
        status, _, body = await raw.post(group_id, "https://cdn.example.com/policy.jpg")
        assert (status, body["error"]["code"]) == (422, "content_policy_violation")
        sandbox.advance(1.01)
        found = await raw.look(failing)
        assert (found["status"], found["reason"]) == ("failed", "image width is less than 300 px")
        sandbox.advance(1e6)
        assert (await raw.look(stuck))["status"] == "processing"
        assert [u.ready_at for u in sandbox.ledger.uploads][1] == math.inf
        assert sandbox.ledger.uploads_of("https://cdn.example.com/policy.jpg") == []
        sandbox.decide(URL, None)
        await raw.upload(group_id, URL)
        assert [u.fate for u in sandbox.ledger.uploads_of(URL)] == ["failed", "active"]


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/a.jpg",
        "http://127.0.0.1/a.jpg",
        "http://192.168.1.4/a.jpg",
        "http://[::1]/a.jpg",
        "http://2130706433/a.jpg",
        "http://0x7f.1/a.jpg",
        "http://nas/a.jpg",
        "http://nas.local/a.jpg",
        "data:image/png;base64,AAAA",
        "ftp://cdn.example.com/a.jpg",
        "https://",
        "https://cdn.example.com:99999/a.jpg",
        "",
    ],
)
@pytest.mark.asyncio
async def test_what_is_not_public_is_refused_without_a_reason(url: str) -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        group_id = await raw.group()
        status, _, body = await raw.post(group_id, url)
        assert (status, body) == (400, {"message": "invalid request body", "success": False})
        assert len(sandbox.ledger) == 0


@pytest.mark.asyncio
async def test_private_sources_pass_where_they_are_allowed() -> None:
    async with sandbox_and_raw(allow_private=True) as (_, raw):
        assert await raw.upload(await raw.group(), "http://127.0.0.1:9/a.jpg")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"asset_type": "picture"}, 400, "asset_type must be one of"),
        ({"asset_type": None}, 400, "asset_type must be one of"),
        ({"name": "n" * 65}, 400, "name must be at most 64 characters"),
        ({"description": "n" * 301}, 400, "description must be at most 300 characters"),
        ({"name": 7}, 400, "invalid request body"),
        ({"group_id": "pg_01M821APY37Q0PY23701DX3TCN"}, 404, "asset group not found"),
        ({"group_id": None}, 400, "invalid request body"),
        ({"source_url": None}, 400, "invalid request body"),
    ],
)
@pytest.mark.asyncio
async def test_a_bad_field_is_refused(body: dict[str, Any], status: int, message: str) -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        good = {"group_id": await raw.group(), "asset_type": "image", "source_url": URL}
        got, _, answer = await raw.call("POST", f"{PREFIX}/assets", json={**good, **body})
        assert got == status
        assert answer["success"] is False
        assert answer["message"].startswith(message)
        assert len(sandbox.ledger) == 0


@pytest.mark.asyncio
async def test_multipart_and_nonsense_are_refused() -> None:
    async with sandbox_and_raw() as (_, raw):
        form = aiohttp.FormData()
        form.add_field("file", b"x", filename="a.jpg")
        for payload in (form, b"[1, 2]", b"{", b"\xff\xfe"):
            status, _, body = await raw.call("POST", f"{PREFIX}/assets", data=payload)
            assert (status, body) == (400, {"message": "invalid request body", "success": False})
        status, _, _ = await raw.call("POST", f"{PREFIX}/groups", json={"name": "n" * 65})
        assert status == 400
        status, _, _ = await raw.call("POST", f"{PREFIX}/groups", json={"name": " "})
        assert status == 400


@pytest.mark.asyncio
async def test_keys_are_accounts_with_groups_of_their_own() -> None:
    async with sandbox_and_raw(keys=("sk-a", "sk-b")) as (sandbox, raw):
        mine, other = raw.with_key("sk-a"), raw.with_key("sk-b")
        group_id = await mine.group()
        asset_id = await mine.upload(group_id, URL)
        assert (await other.post(group_id, URL))[0] == 404
        assert (await other.call("GET", f"{PREFIX}/assets/{asset_id}"))[0] == 404
        assert (await mine.look(asset_id))["asset_id"] == asset_id
        assert next(sandbox.ledger.uploads).account == "account-1"


@pytest.mark.asyncio
async def test_a_mapping_puts_several_keys_into_one_account() -> None:
    async with sandbox_and_raw(keys={"sk-a": "us", "sk-b": "us"}) as (sandbox, raw):
        group_id = await raw.with_key("sk-a").group()
        await raw.with_key("sk-b").upload(group_id, URL)
        sandbox.revoke("sk-a")
        assert (await raw.with_key("sk-a").post(group_id, URL))[0] == 401
        sandbox.admit("sk-c")
        await raw.with_key("sk-c").upload(group_id, URL)


@pytest.mark.asyncio
async def test_a_missing_and_a_wrong_key_are_refused_each_in_its_shape() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        status, headers, body = await raw.with_key(None).call("GET", f"{PREFIX}/assets/pa_x")
        assert (status, body["error"]["type"], body["error"]["code"]) == (401, "new_api_error", "")
        assert f"(request id: {headers['X-Oneapi-Request-Id']})" in body["error"]["message"]
        status, _, body = await raw.with_key("sk-wrong").call("POST", f"{PREFIX}/groups", json={"name": "x"})
        assert (status, body["error"]["code"]) == (401, "authentication_error")
        assert sandbox.ledger.groups == {}
        assert sandbox.ledger.count(status=401) == 2


@pytest.mark.parametrize(("money", "code"), [(402, "insufficient_quota"), (403, "insufficient_user_quota")])
@pytest.mark.asyncio
async def test_when_the_money_is_gone_uploads_are_refused_and_looks_go_on(money: Any, code: str) -> None:
    async with sandbox_and_raw(quota=2, vintage=Vintage(money=money)) as (sandbox, raw):
        group_id = await raw.group()
        ids = [await raw.upload(group_id, f"https://cdn.example.com/{n}") for n in range(2)]
        status, _, body = await raw.post(group_id, URL)
        assert (status, body["error"]["code"]) == (money, code)
        assert (await raw.look(ids[0]))["asset_id"] == ids[0]
        sandbox.account().credits = 1
        await raw.upload(group_id, URL)
        assert len(sandbox.ledger) == 3


@pytest.mark.parametrize(
    "path", [f"{PREFIX}/assets/pa_01M821APY37Q0PY23701DX3TCN", f"{PREFIX}/assets/../x", "/v1/v1/x"]
)
@pytest.mark.asyncio
async def test_what_does_not_exist_is_not_found(path: str) -> None:
    async with sandbox_and_raw() as (_, raw):
        assert (await raw.call("GET", path))[0] == 404


@pytest.mark.asyncio
async def test_every_id_is_found_again_in_either_style() -> None:
    for style, start in (("ulid", "pa_"), ("dated", "asset-")):
        async with sandbox_and_raw(vintage=Vintage(ids=style)) as (_, raw):  # type: ignore[arg-type]  # one of the two
            group_id = await raw.group()
            ids = [await raw.upload(group_id, URL) for _ in range(50)]
            assert len(set(ids)) == 50
            assert all(asset_id.startswith(start) for asset_id in ids)
            assert [(await raw.look(asset_id))["asset_id"] for asset_id in ids] == ids


@pytest.mark.asyncio
async def test_a_vintage_changes_the_dress() -> None:
    vintage = Vintage(envelope=False, casing="title", between=("queued", "reviewing"), extra=True, lag=1.0)
    async with sandbox_and_raw(vintage=vintage, processing={"image": 10.0}) as (sandbox, raw):
        group_id = await raw.group()
        status, _, body = await raw.post(group_id, URL)
        assert (status, body["status"], body["provider"]) == (200, "Queued", "volcengine")
        path = f"{PREFIX}/assets/{body['asset_id']}"
        assert (await raw.call("GET", path))[0] == 404  # not replicated yet
        sandbox.advance(6)
        assert (await raw.call("GET", path))[2]["status"] == "Reviewing"
        sandbox.advance(6)
        assert (await raw.call("GET", path))[2]["status"] == "Active"


@pytest.mark.asyncio
async def test_a_bare_answer_has_only_id_and_status() -> None:
    async with sandbox_and_raw(vintage=Vintage(bare=True, envelope=False, casing="upper"), immediate=1.0) as (_, raw):
        _, _, body = await raw.post(await raw.group(), URL)
        assert set(body) == {"asset_id", "status"}
        assert body["status"] == "ACTIVE"


@pytest.mark.asyncio
async def test_the_reason_sits_in_every_field_in_turn() -> None:
    async with sandbox_and_raw(vintage=Vintage(reason="mixed"), fail_rate=1.0) as (sandbox, raw):
        group_id = await raw.group()
        ids = [await raw.upload(group_id, URL) for _ in range(6)]
        sandbox.advance(30)
        reason = next(sandbox.ledger.uploads).reason
        fields = []
        for asset_id in ids:
            found = await raw.look(asset_id)
            fields += [
                field
                for field in ("reason", "message", "fail_reason", "error", "detail")
                if found.get(field) in (reason, {"code": "asset_processing_failed", "message": reason})
            ]
        assert fields == ["reason", "message", "fail_reason", "error", "error", "detail"]


@pytest.mark.asyncio
async def test_it_can_be_stopped_and_started_again_with_all_it_knew() -> None:
    sandbox = Sandbox(stepped=True)
    await sandbox.start()
    url = sandbox.url
    async with aiohttp.ClientSession() as session:
        raw = Raw(url, session)
        asset_id = await raw.upload(await raw.group(), URL)
        with pytest.raises(RuntimeError, match="running already"):
            await sandbox.start()
        await sandbox.aclose()
        await sandbox.aclose()
        with pytest.raises(aiohttp.ClientConnectorError):
            await raw.look(asset_id)
        await sandbox.start()
        assert sandbox.url == url
        assert (await raw.look(asset_id))["asset_id"] == asset_id
    await sandbox.aclose()


@pytest.mark.asyncio
async def test_only_a_stepped_sandbox_can_be_advanced() -> None:
    with pytest.raises(RuntimeError, match="stepped=True"):
        Sandbox().advance(1)
    with pytest.raises(ValueError, match="forward only"):
        Sandbox(stepped=True).advance(-1)
    moment = [100.0]
    sandbox = Sandbox(clock=lambda: moment[0])
    moment[0] = 107.5
    assert sandbox.now == 7.5
