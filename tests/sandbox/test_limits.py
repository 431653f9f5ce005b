"""The sandbox's rate limits: pure gates, and how an account meets them over HTTP."""

from __future__ import annotations

from bisect import bisect_right
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.raw import PREFIX, sandbox_and_raw

from seedance_avatar.sandbox import Bucket, RateLimits, Window

URL = "https://cdn.example.com/front.jpg"
GAPS = st.lists(st.floats(0, 5), min_size=1, max_size=80)


def passed(gate: Bucket | Window, gaps: list[float]) -> list[float]:
    now, times = 100.0, []
    for gap in gaps:
        now += gap
        if not gate.wait(now):
            gate.take(now)
            times.append(now)
    return times


@given(rate=st.floats(0.1, 50), burst=st.integers(1, 20), gaps=GAPS, span=st.floats(0.01, 60))
def test_a_bucket_never_lets_more_through_than_its_rate_and_burst(
    rate: float, burst: int, gaps: list[float], span: float
) -> None:
    times = passed(Bucket(rate, burst), gaps)
    for index, moment in enumerate(times):
        inside = index + 1 - bisect_right(times, moment - span)
        assert inside <= burst + span * rate + 1e-6


@given(limit=st.integers(1, 20), seconds=st.floats(0.1, 60), gaps=GAPS)
def test_a_window_never_holds_more_than_its_limit(limit: int, seconds: float, gaps: list[float]) -> None:
    times = passed(Window(limit, seconds), gaps)
    for index, moment in enumerate(times):
        assert index + 1 - bisect_right(times, moment - seconds) <= limit


@given(
    gate=st.one_of(
        st.builds(Bucket, st.floats(0.1, 50), st.integers(1, 9)),
        st.builds(Window, st.integers(1, 9), st.floats(0.1, 60)),
    )
)
def test_who_waits_as_told_is_let_through(gate: Bucket | Window) -> None:
    now = 0.0
    for _ in range(30):
        wait = gate.wait(now)
        assert gate.wait(now) == wait  # asking takes nothing
        now += wait
        # A wait added to a large clock may lose its last bit.
        now += 1e-9 if gate.wait(now) else 0.0
        assert gate.wait(now) <= 1e-9
        gate.take(now)


@pytest.mark.asyncio
async def test_too_fast_is_refused_consumes_nothing_and_says_when_to_come_back() -> None:
    limits = RateLimits.per_second(submits=2, submit_burst=3)
    async with sandbox_and_raw(limits=limits) as (sandbox, raw):
        group_id = await raw.group()  # counts as a submission
        status, headers, _ = await raw.post(group_id, URL)
        assert (status, headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == (200, "3", "1")
        assert headers["X-RateLimit-Reset"] == "1"
        await raw.upload(group_id, URL)
        for _ in range(5):
            status, headers, body = await raw.post(group_id, URL)
            assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
            assert (headers["Retry-After"], headers["X-RateLimit-Remaining"]) == ("1", "0")
        sandbox.advance(0.5)
        await raw.upload(group_id, URL)
        ledger = sandbox.ledger
        assert len(ledger) == 3
        assert ledger.throttled == 5
        assert ledger.times() == [0.0, 0.0, 0.0, 0.5]
        assert ledger.times(refused=True) == [0.0] * 5
        assert (ledger.most_in(0.4), ledger.most_in(1.0)) == (3, 4)


@pytest.mark.asyncio
async def test_submissions_and_queries_have_limits_of_their_own_and_each_account_too() -> None:
    limits = RateLimits.per_second(submits=1, submit_burst=2, queries=1, query_burst=1, announce=False)
    async with sandbox_and_raw(keys=("sk-a", "sk-b"), limits=limits) as (sandbox, raw):
        mine, other = raw.with_key("sk-a"), raw.with_key("sk-b")
        asset_id = await mine.upload(await mine.group(), URL)
        assert (await mine.call("POST", f"{PREFIX}/groups", json={"name": "x"}))[0] == 429
        await mine.look(asset_id)
        status, headers, _ = await mine.call("GET", f"{PREFIX}/assets/{asset_id}")
        assert status == 429
        assert "X-RateLimit-Limit" not in headers
        await other.upload(await other.group(), URL)
        assert sandbox.ledger.most_in(1, account="account-2") == 2


@pytest.mark.asyncio
async def test_limits_change_while_it_runs() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        group_id = await raw.group()
        assert sandbox.limits is None
        sandbox.limits = RateLimits(submits=(Bucket(1, 1),), retry_after="date", reset="epoch")
        await raw.upload(group_id, URL)
        status, headers, _ = await raw.post(group_id, URL)
        assert status == 429
        date = parsedate_to_datetime(headers["Date"])
        assert (parsedate_to_datetime(headers["Retry-After"]) - date).total_seconds() == 1
        assert int(headers["X-RateLimit-Reset"]) - date.timestamp() == 1
        sandbox.limits.submits = (Bucket(1, 10), Window(2, 60))
        for _ in range(2):
            await raw.upload(group_id, URL)
        status, headers, _ = await raw.post(group_id, URL)
        assert (status, headers["X-RateLimit-Limit"]) == (429, "2")  # the tightest gate speaks
        sandbox.limits.retry_after = "none"
        assert "Retry-After" not in (await raw.post(group_id, URL))[1]
        sandbox.limits = None
        await raw.upload(group_id, URL)


@pytest.mark.parametrize(("tier", "minute", "burst"), [("default", 300, 50), ("vip", 1000, 166), ("svip", 2000, 333)])
def test_a_tier_is_the_documented_one(tier: str, minute: int, burst: int) -> None:
    limits = RateLimits.tier(tier)  # type: ignore[arg-type]  # one of the three
    times: list[float] = []
    for tick in range(1200):  # one minute, ten tries every tenth of a second
        for _ in range(10):
            now = tick / 20
            _, refused = limits.pass_or_refuse(limits.submits, now, now)
            if refused is None:
                times.append(now)
    assert len(times) <= minute
    assert len(times) >= minute - 4
    assert sum(moment < 10 for moment in times) == burst
