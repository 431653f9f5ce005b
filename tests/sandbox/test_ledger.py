"""The sandbox's ledger, and its comparison with what a client says happened."""

from __future__ import annotations

from typing import Any

import pytest
from rig.raw import PREFIX, sandbox_and_raw

from seedance_avatar import (
    Active,
    Asset,
    AssetFailed,
    AssetSource,
    Failed,
    InDoubt,
    InvalidSource,
    Pending,
    SubmissionInDoubt,
    Unsent,
    WaitTimeout,
)

A, B, C = (f"https://cdn.example.com/{name}.jpg?sig=secret" for name in "abc")
DOUBT = SubmissionInDoubt("the answer was lost")


def told(url: str, asset_id: str, kind: Any = Active, **more: Any) -> Any:
    return kind(source=AssetSource(url), asset=Asset(asset_id=asset_id, status="active"), **more)


@pytest.mark.asyncio
async def test_outcomes_that_say_what_happened_agree() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        group_id = await raw.group()
        sandbox.fail(B, reason="too small")
        active, failed = await raw.upload(group_id, A), await raw.upload(group_id, B)
        sandbox.faults.add("lost_answer", times=1)
        with pytest.raises(Exception, match="disconnected"):
            await raw.post(group_id, C)
        sandbox.advance(60)
        late = await raw.upload(group_id, "https://cdn.example.com/late.jpg")
        bad = Asset(asset_id=failed, status="failed", reason="too small")
        outcomes = [
            told(A, active),
            told(A, active),  # the same source twice in the input: one upload, two outcomes
            Failed(source=AssetSource(B), asset=bad, error=AssetFailed(bad)),
            InDoubt(source=AssetSource(C), error=DOUBT),
            told("https://cdn.example.com/late.jpg", late, Pending, error=WaitTimeout("over")),
            Failed(source=AssetSource("http://localhost/"), error=InvalidSource("not public")),
            Unsent(source=AssetSource("https://cdn.example.com/never.jpg"), error=DOUBT),
            InDoubt(source=AssetSource("https://cdn.example.com/lost.jpg"), error=DOUBT),
        ]
        assert sandbox.ledger.check(outcomes) == []
        assert sandbox.ledger.check(iter(outcomes), group_id=group_id) == []


@pytest.mark.asyncio
async def test_each_disagreement_is_found_and_told_without_secrets() -> None:
    async with sandbox_and_raw(processing={"image": 10.0}) as (sandbox, raw):
        group_id = await raw.group()
        first, second = await raw.upload(group_id, A), await raw.upload(group_id, A)
        other = await raw.upload(group_id, B)
        bad = Asset(asset_id=first, status="failed")

        def check(*outcomes: Any) -> str:
            found = sandbox.ledger.check(outcomes)
            assert "secret" not in str(found)
            return "\n".join(found)

        fine = told(B, other, Pending, error=DOUBT)
        assert f"1 applied that no outcome has the id of ({second}), reported as Pending" in check(
            fine, told(A, first, Pending, error=DOUBT)
        )
        assert "no outcome at all" in check(fine)
        assert "reported as Unsent" in check(fine, Unsent(source=AssetSource(A), error=DOUBT))
        assert "reported as Failed" in check(fine, Failed(source=AssetSource(A), error=DOUBT))
        assert "2 applied that no outcome has" in check(fine, *[InDoubt(source=AssetSource(A), error=DOUBT)] * 2)
        assert "Active pa_X, which was never made" in check(fine, told(A, "pa_X"))
        assert f"Active {other}, which was made from https://cdn.example.com/b.jpg?…" in check(told(A, other))
        assert f"Active {first}, which is processing" in check(fine, told(A, first))
        assert f"Failed {first}, which is processing" in check(
            fine, Failed(source=AssetSource(A), asset=bad, error=AssetFailed(bad))
        )
        assert "Active without an asset" in check(fine, Active(source=AssetSource(A), asset=None))
        sandbox.advance(10)
        assert check(told(B, other), told(A, first), told(A, second)) == ""


@pytest.mark.asyncio
async def test_a_group_can_be_judged_alone() -> None:
    async with sandbox_and_raw(immediate=1.0) as (sandbox, raw):
        one, two = await raw.group("one"), await raw.group("two")
        first, _ = await raw.upload(one, A), await raw.upload(two, A)
        assert sandbox.ledger.check([told(A, first)], group_id=one) == []
        assert len(sandbox.ledger.check([told(A, first)])) == 1
        assert sandbox.ledger.duplicates() == {}
        assert [group.name for group in sandbox.ledger.groups.values()] == ["one", "two"]


@pytest.mark.asyncio
async def test_duplicates_are_uploads_of_one_source_into_one_group() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        group_id = await raw.group()
        await raw.upload(group_id, A, "image")
        await raw.upload(group_id, A, "video")
        assert sandbox.ledger.duplicates() == {}
        await raw.upload(group_id, A, "video", name="again", description="same")
        ((url, uploads),) = sandbox.ledger.duplicates().items()
        assert (url, len(uploads), uploads[-1].name, uploads[-1].description) == (A, 3, "again", "same")
        assert len(sandbox.ledger.uploads_of(A)) == 3
        assert sandbox.ledger.asset("pa_unknown") is None


@pytest.mark.asyncio
async def test_counters_only_count() -> None:
    async with sandbox_and_raw(ledger="counters", immediate=1.0) as (sandbox, raw):
        group_id = await raw.group()
        asset_id = await raw.upload(group_id, A, name="n")
        found = await raw.look(asset_id)
        assert (found["status"], "source_url" in found) == ("active", False)
        for ask in (lambda: sandbox.ledger.uploads_of(A), sandbox.ledger.duplicates, lambda: sandbox.ledger.check([])):
            with pytest.raises(LookupError, match='ledger="all"'):
                ask()
        assert sandbox.ledger.times() == []
        assert sandbox.ledger.summary() == {
            "groups": 1,
            "uploads": 1,
            "processing": 0,
            "active": 1,
            "failed": 0,
            "unanswered": 0,
            "duplicates": None,
            "looks": 1,
            "files": 0,
            "generations": 0,
            "downloads": 0,
            "leaks": 0,
            "throttled": 0,
            "peak": 1,
            "requests": {"GET asset 200": 1, "POST assets 200": 1, "POST groups 200": 1},
        }


@pytest.mark.asyncio
async def test_requests_are_counted_by_method_path_and_status() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        group_id = await raw.group()
        sandbox.faults.add("lost_answer", path="assets", times=1)
        with pytest.raises(Exception, match="disconnected"):
            await raw.post(group_id, A)
        await raw.post(group_id, "http://localhost/")
        await raw.call("GET", f"{PREFIX}/assets/pa_x")
        assert dict(sandbox.ledger.counts) == {
            ("POST", "groups", 200): 1,
            ("POST", "assets", 0): 1,
            ("POST", "assets", 400): 1,
            ("GET", "asset", 404): 1,
        }
        assert sandbox.ledger.count(method="POST") == 3
        assert sandbox.ledger.count(kind="assets", status=400) == 1
