"""Several accounts through one stream: who takes what, who leaves, what moves and what never does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rig.leaks import no_leaks
from rig.media import png
from rig.world import FAST, sources

from seedance_avatar import (
    AccountPool,
    Active,
    AssetSource,
    AuthError,
    Failed,
    IngestError,
    InvalidInput,
    InvalidSource,
    JournalError,
    Limits,
    Outcome,
    Pending,
    QuotaExhausted,
    Retry,
    Unsent,
)
from seedance_avatar.sandbox import Sandbox

KEYS = {"sk-one": "one", "sk-two": "two", "sk-three": "three"}
NAMED = {name: key for key, name in KEYS.items()}


@asynccontextmanager
async def pooled(
    sandbox_knobs: dict[str, Any] | None = None, **knobs: Any
) -> AsyncIterator[tuple[Sandbox, AccountPool]]:
    async with (
        no_leaks(),
        Sandbox(**{"time_scale": 0.002, "keys": KEYS, **(sandbox_knobs or {})}) as sandbox,
        AccountPool(NAMED, base_url=sandbox.url, **{**FAST, **knobs}) as pool,
    ):
        yield sandbox, pool


async def all_of(pool: AccountPool, given: Iterable[AssetSource], **options: Any) -> list[Outcome]:
    async with pool.ingest(given, **{"group_name": "brand", **options}) as stream:
        outcomes = [outcome async for outcome in stream.outcomes()]
    report = stream.report
    ends = report.active + report.failed + report.pending + report.in_doubt + report.unsent
    assert report.taken == len(outcomes) == ends
    assert stream.stats().queued == 0
    return outcomes


def agree(sandbox: Sandbox, outcomes: list[Outcome]) -> None:
    assert sandbox.ledger.check(outcomes) == []
    assert all(len(sandbox.ledger.uploads_of(outcome.source.source_url)) <= 1 for outcome in outcomes)


def accounts(outcomes: list[Outcome]) -> Counter[str | None]:
    return Counter(outcome.account for outcome in outcomes)


@pytest.mark.asyncio
async def test_all_share_the_work_and_each_has_its_group() -> None:
    async with pooled() as (sandbox, pool):
        outcomes = await all_of(pool, sources(300))
        agree(sandbox, outcomes)
        assert set(accounts(outcomes)) == set(NAMED)
        assert all(isinstance(outcome, Active) for outcome in outcomes)
        assert len(sandbox.ledger.groups) == 3
        for outcome in outcomes:
            assert isinstance(outcome, Active)
            upload = sandbox.ledger.asset(outcome.asset.asset_id)
            assert upload is not None
            assert upload.account == outcome.account
            assert pool.session_of(outcome.asset) is pool.sessions[str(outcome.account)]
            assert sandbox.ledger.groups[upload.group_id].account == outcome.account


@pytest.mark.asyncio
async def test_the_stream_yields_assets_and_names_what_is_not_active() -> None:
    async with pooled() as (sandbox, pool):
        sandbox.fail(sources(4)[1].source_url)
        ready = 0
        async with pool.ingest(iter(sources(4)), group_name="brand") as stream:
            with pytest.raises(IngestError, match="1 of 4"):
                async for _ in stream:
                    ready += 1
        assert ready == 3
        assert stream.report.exhausted


@pytest.mark.asyncio
async def test_the_faster_account_takes_more() -> None:
    def limits(name: str) -> Limits:
        rate = 20.0 if name == "one" else 400.0
        return Limits(submits_per_second=rate, submit_burst=1, queries_per_second=1e6, max_submitting=4)

    async with pooled(limits=limits) as (sandbox, pool):
        outcomes = await all_of(pool, sources(200))
        agree(sandbox, outcomes)
        shares = accounts(outcomes)
        assert shares["one"] * 2 < shares["two"]
        assert shares["one"] * 2 < shares["three"]


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["revoked", "no money"])
async def test_a_key_that_is_refused_leaves_and_its_rest_goes_to_the_others(how: str) -> None:
    async with pooled() as (sandbox, pool):

        def given() -> Iterator[AssetSource]:
            for at, source in enumerate(sources(400)):
                if at == 200:
                    if how == "revoked":
                        sandbox.revoke("sk-one")
                    else:
                        sandbox.account("sk-one").credits = 0
                yield source

        outcomes = await all_of(pool, given())
        agree(sandbox, outcomes)
        assert len(outcomes) == 400
        # What it had sent stays with it, as far as it could still be followed; nothing is unsent.
        assert {type(outcome) for outcome in outcomes} <= {Active, Pending}
        assert all(outcome.account == "one" for outcome in outcomes if isinstance(outcome, Pending))
        if how == "no money":
            assert all(isinstance(outcome, Active) for outcome in outcomes)


@pytest.mark.asyncio
async def test_a_key_that_never_was_good() -> None:
    async with pooled() as (sandbox, pool):
        sandbox.revoke("sk-two")
        outcomes = await all_of(pool, sources(60))
        agree(sandbox, outcomes)
        assert all(isinstance(outcome, Active) and outcome.account != "two" for outcome in outcomes)


@pytest.mark.asyncio
async def test_when_all_have_left_the_rest_is_unsent() -> None:
    async with pooled({"quota": 20}) as (sandbox, pool):
        outcomes = await all_of(pool, iter(sources(500)))
        agree(sandbox, outcomes)
        assert sum(isinstance(outcome, Active) for outcome in outcomes) == 60 == len(sandbox.ledger)
        rest = [outcome for outcome in outcomes if not isinstance(outcome, Active)]
        assert rest
        assert all(isinstance(outcome, Unsent) and isinstance(outcome.error, QuotaExhausted) for outcome in rest)
        for key in KEYS:
            sandbox.revoke(key)
        outcomes = await all_of(pool, iter(sources(100, 500)))
        assert all(isinstance(outcome, Unsent) and isinstance(outcome.error, AuthError) for outcome in outcomes)


@pytest.mark.asyncio
async def test_the_same_source_again_is_one_upload_in_one_account() -> None:
    async with pooled({"time_scale": 0.02}) as (sandbox, pool):
        twice = [source for source in sources(60) for _ in range(2)]
        outcomes = await all_of(pool, twice)
        assert len(outcomes) == 120
        assert len(sandbox.ledger) == 60
        assert all(isinstance(outcome, Active) for outcome in outcomes)


@pytest.mark.asyncio
async def test_the_same_source_again_when_its_account_leaves() -> None:
    async with pooled({"time_scale": 0.02}) as (sandbox, pool):

        def given() -> Iterator[AssetSource]:
            for at, source in enumerate(sources(200)):
                if at == 100:
                    sandbox.account("sk-one").credits = 0
                yield source
                yield source

        outcomes = await all_of(pool, given())
        assert len(outcomes) == 400
        assert len(sandbox.ledger) == 200
        assert all(isinstance(outcome, Active) for outcome in outcomes)


@pytest.mark.asyncio
async def test_a_journal_brings_each_source_back_to_its_account(tmp_path: Path) -> None:
    async with Sandbox(time_scale=0.002, keys=KEYS) as sandbox:
        first: list[Outcome] = []
        async with (
            AccountPool(NAMED, base_url=sandbox.url, **FAST) as pool,
            pool.ingest(sources(150), group_name="brand", journal=tmp_path / "runs") as stream,
        ):
            async for outcome in stream.outcomes():
                first.append(outcome)
                if len(first) == 40:
                    break
        uploaded = len(sandbox.ledger)
        assert uploaded >= 40
        async with no_leaks(), AccountPool(NAMED, base_url=sandbox.url, **FAST) as pool:
            again = await all_of(pool, iter(sources(150)), journal=tmp_path / "runs")
        agree(sandbox, again)
        assert len(sandbox.ledger) == len(again) == 150
        assert len(sandbox.ledger.groups) == 3
        homes = {outcome.source.source_url: outcome.account for outcome in again}
        for upload in sandbox.ledger.uploads:
            assert homes[upload.source_url] == upload.account
        assert {path.name for path in (tmp_path / "runs").glob("*.db")} == {"one.db", "two.db", "three.db"}


@pytest.mark.asyncio
async def test_what_a_lost_account_knows_is_told_and_not_sent_again(tmp_path: Path) -> None:
    async with Sandbox(time_scale=0.002, keys=KEYS) as sandbox:
        sandbox.fail(sources(120)[7].source_url, reason="blurred")
        async with AccountPool(NAMED, base_url=sandbox.url, **FAST) as pool:
            before = await all_of(pool, sources(120), journal=tmp_path)
        ends = {outcome.source.source_url: (type(outcome), outcome.account) for outcome in before}
        sandbox.revoke("sk-one")
        async with AccountPool(NAMED, base_url=sandbox.url, **FAST) as pool:
            given = [source for pair in zip(sources(120, 120), sources(120), strict=True) for source in pair]
            after = await all_of(pool, given, journal=tmp_path)
        agree(sandbox, after)
        assert len(sandbox.ledger) == 240
        for outcome in after:
            url = outcome.source.source_url
            if url in ends:
                assert (type(outcome), outcome.account) == ends[url]
            else:
                assert outcome.account != "one"


@pytest.mark.asyncio
@pytest.mark.parametrize("gone", [False, True])
async def test_another_source_under_a_key_gets_no_asset_of_the_first(tmp_path: Path, gone: bool) -> None:  # noqa: FBT001 - a case of the table
    def keyed(name: str) -> list[AssetSource]:
        return [AssetSource.image(f"https://cdn.example.com/{name}-{n}.jpg", key=f"k{n}") for n in range(6)]

    async with Sandbox(time_scale=0.002, keys=KEYS) as sandbox:
        async with AccountPool(NAMED, base_url=sandbox.url, **FAST) as pool:
            before = await all_of(pool, keyed("a"), journal=tmp_path)
        homes = {outcome.source.key: outcome.account for outcome in before}
        if gone:  # it leaves with the first of the new sources, long before the others are read
            sandbox.revoke("sk-one")
        async with AccountPool(NAMED, base_url=sandbox.url, **FAST) as pool:
            after = await all_of(pool, [*sources(200), *keyed("b")], journal=tmp_path)
        assert len(sandbox.ledger) == 206
    for outcome in (outcome for outcome in after if outcome.source.key is not None):
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, InvalidSource)
        assert outcome.account == homes[outcome.source.key]
        assert f"/a-{(outcome.source.key or '')[1:]}.jpg" in str(outcome.error)


@pytest.mark.asyncio
async def test_two_sources_of_one_key_at_one_time_when_their_account_leaves() -> None:
    async with pooled({"time_scale": 0.02}) as (sandbox, pool):

        def given() -> Iterator[AssetSource]:
            for at in range(150):
                if at == 75:
                    sandbox.account("sk-one").credits = 0
                yield AssetSource.image(f"https://cdn.example.com/{at}.jpg", key=f"k{at}")
                yield AssetSource.video(f"https://cdn.example.com/{at}.mp4", key=f"k{at}")

        for outcome in await all_of(pool, given()):
            if isinstance(outcome, Active):
                assert outcome.asset.source_url == outcome.source.source_url
                assert outcome.asset.asset_type == outcome.source.asset_type
            else:
                assert isinstance(outcome.error, InvalidSource)


@pytest.mark.asyncio
async def test_a_local_file_goes_to_the_account_whose_journal_knows_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n}.png").write_bytes(png(400, 400 + n))
    async with Sandbox(time_scale=0.002, keys=KEYS) as sandbox:
        homes: dict[str, str | None] = {}
        for name in ("{}.png", "renamed-{}.png"):
            given = [AssetSource.from_file(folder / name.format(n)) for n in range(12)]
            async with AccountPool(NAMED, base_url=sandbox.url, **FAST) as pool:
                for outcome in await all_of(pool, given, journal=tmp_path / "runs"):
                    assert isinstance(outcome, Active)
                    assert homes.setdefault(outcome.asset.asset_id, outcome.account) == outcome.account
            for n in range(12 if name == "{}.png" else 0):
                (folder / f"{n}.png").rename(folder / f"renamed-{n}.png")
        assert len(homes) == len(sandbox.ledger) == 12


@pytest.mark.asyncio
async def test_a_failure_of_an_earlier_run_is_told_as_such(tmp_path: Path) -> None:
    async with Sandbox(time_scale=0.002, keys=KEYS, fail_rate=1.0) as sandbox:
        for run in range(3):
            if run == 2:
                sandbox.revoke("sk-one")
            fresh = sources(200, 100 + 200 * run) if run else []
            async with AccountPool(NAMED, base_url=sandbox.url, **FAST) as pool:
                outcomes = await all_of(pool, [*fresh, *sources(9)], journal=tmp_path)
            known = [outcome for outcome in outcomes if outcome.source in sources(9)]
            assert {isinstance(outcome, Failed) and outcome.earlier for outcome in known} == {run > 0}
        assert len(sandbox.ledger) == 409


@pytest.mark.asyncio
async def test_a_journal_of_an_account_that_is_not_here_is_not_passed_over(tmp_path: Path) -> None:
    async with Sandbox(time_scale=0.002, keys=KEYS) as sandbox:
        async with AccountPool(NAMED, base_url=sandbox.url, **FAST) as pool:
            await all_of(pool, sources(3), journal=tmp_path)
        async with no_leaks(), AccountPool({"one": "sk-one"}, base_url=sandbox.url, **FAST) as pool:
            with pytest.raises(JournalError, match="three, two"):
                async with pool.ingest(sources(3), group_name="brand", journal=tmp_path):
                    pass
            async with pool.ingest(sources(3), group_name="brand") as stream:
                assert len([asset async for asset in stream]) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["break", "cancel", "close", "raise", "stop"])
async def test_left_early_nothing_is_left_behind_and_all_is_accounted_for(how: str, tmp_path: Path) -> None:
    async with pooled({"time_scale": 0.02}) as (sandbox, pool):
        outcomes: list[Outcome] = []
        stream = pool.ingest(iter(sources(400)), group_name="brand", journal=tmp_path)

        async def consume() -> None:
            async with stream:
                async for outcome in stream.outcomes():
                    outcomes.append(outcome)
                    if how == "stop":
                        stream.stop()
                    elif len(outcomes) == 20:
                        if how == "break":
                            break
                        if how == "raise":
                            raise KeyError(how)
                        ready.set()
                        if how == "close":
                            await asyncio.sleep(0)

        ready = asyncio.Event()
        task = asyncio.create_task(consume())
        if how in {"cancel", "close"}:
            await ready.wait()
            if how == "cancel":
                task.cancel()
            else:
                await pool.aclose()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(end, {"cancel": asyncio.CancelledError, "raise": KeyError}.get(how, type(None)))
        report = stream.report
        assert report.taken == report.active + report.failed + report.pending + report.in_doubt + report.unsent
        assert len(sandbox.ledger) == report.active + report.pending
        if how == "stop":
            assert report.pending == 0


@pytest.mark.asyncio
async def test_stop_at_the_first_failure() -> None:
    async with pooled() as (sandbox, pool):
        given = sources(500)
        for source in given[100:]:
            sandbox.fail(source.source_url)
        outcomes = await all_of(pool, iter(given), on_failure="stop", max_pending=60)
        agree(sandbox, outcomes)
        assert any(isinstance(outcome, Failed) for outcome in outcomes)
        assert len(outcomes) < 500


@pytest.mark.asyncio
async def test_a_source_that_breaks_and_sources_that_are_none() -> None:
    async with pooled() as (sandbox, pool):
        page = "page 2"

        def given() -> Iterator[Any]:
            yield from sources(10)
            yield "no source"
            yield "no source"
            raise KeyError(page)

        ends: Counter[type] = Counter()
        async with pool.ingest(given(), group_name="brand") as stream:
            with pytest.raises(KeyError, match=page):
                async for outcome in stream.outcomes():
                    ends[type(outcome)] += 1
        assert ends == {Active: 10, Failed: 2}
        assert len(sandbox.ledger) == 10


@pytest.mark.asyncio
async def test_groups_by_source_and_a_group_function_that_breaks() -> None:
    async with pooled() as (sandbox, pool):

        def group(source: AssetSource) -> str:
            if source.source_url.endswith("-55"):
                message = "no group for 55"
                raise LookupError(message)
            return "anna" if source.asset_type == "image" else "berta"

        outcomes = await all_of(pool, sources(50), group_name=group)
        agree(sandbox, outcomes)
        assert Counter(made.name for made in sandbox.ledger.groups.values()) == {"anna": 3, "berta": 3}
        async with pool.ingest(sources(100), group_name=group) as stream:
            with pytest.raises(LookupError, match="no group for 55"):
                async for _ in stream.outcomes():
                    pass
        assert stream.report.taken == stream.report.active + stream.report.unsent
        assert len(sandbox.ledger.groups) == 6


@pytest.mark.asyncio
async def test_a_network_that_is_gone_ends_in_order() -> None:
    async with pooled(retry=Retry(base=0.001, cap=0.01, patience=0.05)) as (sandbox, pool):
        outcomes = []
        async with pool.ingest(iter(sources(300)), group_name="brand") as stream:
            async for outcome in stream.outcomes():
                outcomes.append(outcome)
                if len(outcomes) == 30:
                    await sandbox.aclose()
        assert stream.report.taken == len(outcomes)
        agree(sandbox, outcomes)


@pytest.mark.asyncio
async def test_names_without_a_mapping_are_stable_and_hide_the_key() -> None:
    one, other = AccountPool(["sk-canary-1", "sk-canary-2"]), AccountPool(["sk-canary-2", "sk-canary-1"])
    assert set(one.sessions) == set(other.sessions)
    assert "canary" not in repr(one)
    with pytest.raises(InvalidInput, match="has used"):
        one.session_of("pg_1")


@pytest.mark.parametrize(
    "keys",
    ["sk-one", [], {}, ["sk-one", "sk-one"], [lambda: "sk"], {"../x": "sk"}, {"": "sk"}, 5],
    ids=["a text", "none", "no names", "twice", "a callable without a name", "a path", "an empty name", "a number"],
)
def test_keys_that_cannot_be_used(keys: Any) -> None:
    with pytest.raises(InvalidInput):
        AccountPool(keys)


@pytest.mark.parametrize(
    "options",
    [{"group_name": ""}, {"asset_timeout": 0}, {"max_pending": 0}, {"on_failure": "x"}, {"on_in_doubt": "x"}],
    ids=str,
)
def test_options_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        AccountPool(["sk-one"]).ingest([], **{"group_name": "brand", **options})
