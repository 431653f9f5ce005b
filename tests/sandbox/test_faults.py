"""Every fault of the sandbox, seen by a bare HTTP client, and what the ledger says was done all the same."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from typing import Any, get_args

import aiohttp
import pytest
from rig.raw import PREFIX, Raw, sandbox_and_raw, until

from seedance_avatar.sandbox import Fault, Faults
from seedance_avatar.sandbox.faults import FaultKind

URL = "https://cdn.example.com/front.jpg"


async def answer_or_loss(raw: Raw, group_id: str) -> tuple[int | str, Any]:
    try:
        status, _, body = await raw.post(group_id, URL)
    except (aiohttp.ClientError, ConnectionError) as error:
        return type(error).__name__, None
    except ValueError:
        return "not JSON", None
    return status, body


@pytest.mark.parametrize(
    ("kind", "knobs", "seen", "applied"),
    [
        ("rate_limited", {}, {429}, 0),
        ("server_error", {"status": 502, "applied": True}, {502}, 1),
        ("server_error", {"status": 504, "applied": False}, {504}, 0),
        ("unavailable", {}, {503}, 0),
        ("limiter_down", {}, {503}, 0),
        ("dropped", {}, {"ServerDisconnectedError"}, 0),
        ("lost_answer", {}, {"ServerDisconnectedError"}, 1),
        ("reset", {"applied": True}, {"ServerDisconnectedError", "ClientOSError"}, 1),
        ("reset", {"applied": False}, {"ServerDisconnectedError", "ClientOSError"}, 0),
        ("truncated", {}, {"ClientPayloadError"}, 1),
        ("empty", {}, {200}, 1),
        ("not_json", {}, {200}, 1),
        ("refused", {}, {200}, 0),
        ("slow", {"delay": 0.0}, {200}, 1),
        ("unauthorized", {}, {401}, 0),
        ("no_money", {}, {402}, 0),
    ],
)
@pytest.mark.asyncio
async def test_each_fault_shows_itself_once_and_the_ledger_knows_what_was_done(
    kind: FaultKind, knobs: dict[str, Any], seen: set[int | str], applied: int
) -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        group_id = await raw.group()
        rule = sandbox.faults.add(kind, method="POST", path="assets", times=1, **knobs)
        status, body = await answer_or_loss(raw, group_id)
        assert status in seen
        assert rule.hits == 1
        assert len(sandbox.ledger.uploads_of(URL)) == applied
        if applied and kind != "slow":
            assert next(sandbox.ledger.uploads).answered is False
        if kind == "refused":
            assert body["success"] is False
        if kind == "empty":
            assert body is None  # what aiohttp makes of it
        await raw.upload(group_id, URL)  # spent: the next one is well
        assert rule.hits == 1
        assert len(sandbox.ledger) == applied + 1


def test_every_kind_is_shown_above() -> None:
    marks = vars(test_each_fault_shows_itself_once_and_the_ledger_knows_what_was_done)["pytestmark"]
    rows = next(mark for mark in marks if mark.name == "parametrize").args[1]
    assert {row[0] for row in rows} == set(get_args(FaultKind))


@pytest.mark.asyncio
async def test_a_429_tells_when_to_come_back_in_every_known_way() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        found: dict[str, set[str | None]] = {}
        for hint in (7, "date", "none", "absurd"):
            sandbox.faults.clear()
            sandbox.faults.add("rate_limited", retry_after=hint)
            for _ in range(20):
                status, headers, _ = await raw.call("POST", f"{PREFIX}/groups", json={"name": "x"})
                assert status == 429
                told = headers.get("Retry-After")
                if hint == "date":
                    ahead = parsedate_to_datetime(told) - parsedate_to_datetime(headers["Date"])
                    assert ahead.total_seconds() == 2
                else:
                    found.setdefault(str(hint), set()).add(told)
        assert found["7"] == {"7"}
        assert found["none"] == {None}
        assert {"-1", "NaN", "soon"} <= found["absurd"]


@pytest.mark.asyncio
async def test_a_fault_can_wait_be_aimed_and_be_taken_away() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        group_id = await raw.group()
        late = sandbox.faults.add("unauthorized", after=2)
        asset_id = await raw.upload(group_id, URL)
        await raw.look(asset_id)
        for _ in range(3):
            assert (await raw.post(group_id, URL))[0] == 401
        sandbox.faults.remove(late)
        sandbox.faults.add("server_error", method="GET", path="asset", status=500)
        await raw.upload(group_id, URL)
        status, headers, page = await raw.call("GET", f"{PREFIX}/assets/{asset_id}")
        assert (status, headers["Content-Type"], "<h1>500" in page) == (500, "text/html", True)
        assert [rule.kind for rule in sandbox.faults] == ["server_error"]
        sandbox.faults.clear()
        await raw.look(asset_id)
        with pytest.raises(ValueError, match="kind"):
            sandbox.faults.add("gremlins")  # type: ignore[arg-type]  # the point


@pytest.mark.asyncio
async def test_a_slow_answer_comes_after_its_delay() -> None:
    async with sandbox_and_raw(faults=[Fault("slow", delay=30.0, path="assets")]) as (sandbox, raw):
        post = asyncio.ensure_future(raw.upload(await raw.group(), URL))
        await until(lambda: sandbox.ledger.in_flight == 1)
        assert len(sandbox.ledger) == 0
        sandbox.advance(29)
        assert not post.done()
        sandbox.advance(2)
        await post
        assert len(sandbox.ledger) == 1


@pytest.mark.asyncio
async def test_everything_strikes_with_its_probability_and_ends_no_run() -> None:
    faults = Faults.everything(0.03, delay=0.0)
    assert {rule.kind for rule in faults} == set(get_args(FaultKind)) - {"unauthorized", "no_money"}
    async with sandbox_and_raw(faults=faults) as (sandbox, raw):
        struck = 0
        for _ in range(600):
            try:
                status, _, body = await raw.call("POST", f"{PREFIX}/groups", json={"name": "x"})
                struck += status != 200 or not isinstance(body, dict) or not body["success"]
            except (aiohttp.ClientError, ConnectionError, ValueError):
                struck += 1
        # 11 of the 12 kinds can be seen from outside, each at 3 %; the first that strikes is the only one.
        assert 110 < struck < 260
        assert all(rule.hits for rule in sandbox.faults)


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_leaves_an_unanswered_upload() -> None:
    async with sandbox_and_raw(latency=10.0) as (sandbox, raw):
        group = asyncio.ensure_future(raw.group())
        await until(lambda: sandbox.ledger.in_flight == 1)
        sandbox.advance(10)
        post = asyncio.ensure_future(raw.upload(await group, URL))
        await until(lambda: sandbox.ledger.in_flight == 1)
        post.cancel()
        await asyncio.gather(post, return_exceptions=True)
        await asyncio.sleep(0.02)
        sandbox.advance(10)
        await until(lambda: sandbox.ledger.in_flight == 0)
        (upload,) = sandbox.ledger.uploads_of(URL)
        assert upload.answered is False
        assert sandbox.ledger.peak == 1
