"""The main job: sources in, one outcome for each out, whatever happens in between."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from rig.leaks import no_leaks
from rig.rude import until
from rig.world import World, quick, sources, world

from seedance_avatar import (
    Active,
    AssetFailed,
    AssetGroup,
    AssetSource,
    AuthError,
    ConnectionFailed,
    ContentRefused,
    Failed,
    InDoubt,
    Ingest,
    IngestError,
    InvalidInput,
    InvalidSource,
    Limits,
    Outcome,
    Pending,
    Polling,
    QuotaExhausted,
    Retry,
    SessionStateError,
    SubmissionInDoubt,
    Timeouts,
    Unsent,
    WaitTimeout,
)
from seedance_avatar.assets.adapter import AssetAdapter
from seedance_avatar.ingest.pipeline import Pipeline
from seedance_avatar.ingest.recorder import JournalRecorder
from seedance_avatar.journal.journal import Journal
from seedance_avatar.sandbox import Sandbox
from seedance_avatar.sandbox.fates import Fate


async def outcomes_of(world_: World, items: Any, **options: Any) -> list[Outcome]:
    async with world_.session.ingest(items, group=world_.group, **options) as stream:
        return [outcome async for outcome in stream.outcomes()]


async def consumed(stream: Ingest[Any, Any]) -> None:
    async with stream:
        async for _ in stream.outcomes():
            pass


@pytest.mark.asyncio
async def test_every_source_becomes_active_and_the_ledger_agrees() -> None:
    async with no_leaks(), world() as w:
        outcomes = await outcomes_of(w, sources(60))
        assert [type(outcome) for outcome in outcomes] == [Active] * 60
        assert {outcome.source for outcome in outcomes} == set(sources(60))
        assert w.sandbox.ledger.check(outcomes) == []
        for outcome in outcomes:
            assert isinstance(outcome, Active)
            assert outcome.asset.uri == f"asset://{outcome.asset.asset_id}"
            assert outcome.asset.source is outcome.source


@pytest.mark.asyncio
async def test_assets_are_yielded_as_they_become_active_and_failures_raise_at_the_end() -> None:
    async with no_leaks(), world() as w:
        bad = sources(12)[4]
        w.sandbox.fail(bad.source_url, reason="two faces in the picture")
        ready = []
        with pytest.raises(IngestError) as caught:
            async with w.session.ingest(sources(12), group=w.group) as stream:
                async for asset in stream:
                    ready.append(asset)  # noqa: PERF401 - the loop as a user writes it
        assert len(ready) == 11
        assert all(asset.is_active for asset in ready)
        (error,) = caught.value.exceptions
        assert isinstance(error, AssetFailed)
        assert "two faces" in str(error)
        assert "cdn.example.com/4" in str(caught.value)
        assert "canary" not in str(caught.value)
        assert stream.report.failed == 1
        assert stream.report.unfinished == caught.value.outcomes
        assert stream.report.exhausted


@pytest.mark.asyncio
async def test_the_error_can_be_sorted_by_type() -> None:
    async with world() as w:
        items = [*sources(3), AssetSource.image("http://localhost/x.png"), AssetSource.image("ftp://example.com/x")]
        w.sandbox.fail(items[0].source_url)
        seen: dict[str, int] = {}
        try:
            async with w.session.ingest(items, group=w.group) as stream:
                async for _ in stream:
                    pass
        except* InvalidSource as group:
            seen["invalid"] = len(group.exceptions)
        except* AssetFailed as group:
            seen["failed"] = len(group.exceptions)
        assert seen == {"invalid": 2, "failed": 1}


@pytest.mark.asyncio
async def test_a_bad_source_is_one_failed_outcome_and_nothing_of_it_is_sent() -> None:
    items: list[Any] = [
        AssetSource.image("http://192.168.1.7/x.png"),
        AssetSource("https://cdn.example.com/x", "hologram"),  # type: ignore[arg-type]  # what a manifest may hold
        AssetSource.image("https://cdn.example.com/x", name="n" * 65),
        "https://cdn.example.com/just-a-string?sig=canary",
        None,
        *sources(3),
    ]
    async with world() as w:
        outcomes = await outcomes_of(w, items)
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        assert len(failed) == 5
        assert all(isinstance(outcome.error, InvalidSource) and outcome.asset is None for outcome in failed)
        assert "canary" not in " ".join(str(outcome.error) for outcome in failed)
        assert len(list(w.sandbox.ledger.uploads)) == 3


@pytest.mark.asyncio
async def test_a_refusal_of_the_service_is_failed_without_an_asset() -> None:
    async with world() as w:
        bad = sources(5)[2]
        w.sandbox.decide(bad.source_url, Fate.refused("may contain real person"))
        outcomes = await outcomes_of(w, sources(5))
        (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        assert failed.source == bad
        assert isinstance(failed.error, ContentRefused)
        assert failed.asset is None
        assert w.sandbox.ledger.check(outcomes) == []


@pytest.mark.asyncio
async def test_the_same_source_again_is_one_upload_with_an_outcome_for_each() -> None:
    async with world() as w:
        resigned = [AssetSource.image(f"https://cdn.example.com/a?sig={i}", key="front") for i in range(5)]
        outcomes = await outcomes_of(w, [*sources(3), *sources(3), *resigned])
        assert len(outcomes) == 11
        assert len(list(w.sandbox.ledger.uploads)) == 4
        ids = {o.asset.asset_id for o in outcomes if isinstance(o, Active) and o.source.key == "front"}
        assert len(ids) == 1
        assert all(o.asset.source is o.source for o in outcomes if isinstance(o, Active))


@pytest.mark.asyncio
async def test_a_lost_answer_is_in_doubt_and_never_sent_again() -> None:
    async with no_leaks(), world() as w:
        w.sandbox.faults.add("lost_answer", method="POST", path="assets", times=3)
        outcomes = await outcomes_of(w, sources(20))
        doubtful = [outcome for outcome in outcomes if isinstance(outcome, InDoubt)]
        assert len(doubtful) == 3
        assert all(isinstance(outcome.error, SubmissionInDoubt) for outcome in doubtful)
        assert w.sandbox.ledger.duplicates() == {}
        assert w.sandbox.ledger.check(outcomes) == []


@pytest.mark.asyncio
async def test_throttling_loses_nothing() -> None:
    async with world() as w:
        w.sandbox.faults.add("rate_limited", probability=0.3, times=40, retry_after="none")
        outcomes = await outcomes_of(w, sources(30))
        assert [type(outcome) for outcome in outcomes] == [Active] * 30
        assert w.session.stats().throttled > 0
        assert w.sandbox.ledger.duplicates() == {}


@pytest.mark.parametrize(("fault", "kind"), [("unauthorized", AuthError), ("no_money", QuotaExhausted)])
@pytest.mark.asyncio
async def test_a_refused_account_stops_sending_and_reading_but_follows_what_was_accepted(
    fault: Any, kind: type[Exception]
) -> None:
    read = 0

    def endless() -> Iterator[AssetSource]:
        nonlocal read
        while True:
            yield from sources(1, read)
            read += 1

    async with no_leaks(), world({"limits": Limits(submits_per_second=1e9, max_submitting=4)}) as w:
        w.sandbox.faults.add(fault, method="POST", path="assets", after=20)
        outcomes = await outcomes_of(w, endless())
        assert {type(outcome) for outcome in outcomes} == {Active, Unsent}
        assert sum(isinstance(outcome, Active) for outcome in outcomes) == 20
        assert all(isinstance(o.error, kind) for o in outcomes if isinstance(o, Unsent))
        assert read < 100
        assert w.sandbox.ledger.check(outcomes) == []


@pytest.mark.asyncio
async def test_a_refused_account_is_told_even_when_every_taken_source_became_active() -> None:
    async with world({"limits": Limits(submits_per_second=1e9, max_submitting=1)}) as w:
        w.sandbox.faults.add("unauthorized", method="POST", path="assets", after=2)
        stream = w.session.ingest(sources(50), group=w.group)
        with pytest.raises(IngestError) as caught:
            async with stream:
                assert len([asset async for asset in stream]) == 2
        assert caught.value.subgroup(AuthError) is not None
        assert not stream.report.exhausted


@pytest.mark.asyncio
async def test_polls_that_are_refused_leave_what_was_accepted_pending() -> None:
    async with world() as w:
        w.sandbox.faults.add("unauthorized", method="GET")
        outcomes = await outcomes_of(w, sources(10))
        pending = [outcome for outcome in outcomes if isinstance(outcome, Pending)]
        assert pending
        assert all(isinstance(outcome.error, AuthError) and outcome.asset.asset_id for outcome in pending)
        assert w.sandbox.ledger.check(outcomes) == []


@pytest.mark.asyncio
async def test_on_failure_stop_ends_at_the_first_failure() -> None:
    async with world({"limits": Limits(submits_per_second=1e9, max_submitting=2)}) as w:
        items = [*sources(3), AssetSource.image("https://10.0.0.1/x"), *sources(200, start=3)]
        outcomes = await outcomes_of(w, iter(items), on_failure="stop")
        assert sum(isinstance(outcome, Failed) for outcome in outcomes) == 1
        assert len(outcomes) < 40
        assert {type(outcome) for outcome in outcomes} <= {Active, Failed, Unsent}
        assert w.sandbox.ledger.check(outcomes) == []


@pytest.mark.asyncio
async def test_an_asset_that_never_finishes_is_pending_at_its_deadline() -> None:
    async with world() as w:
        stuck = sources(4)[1]
        w.sandbox.decide(stuck.source_url, Fate.stuck())
        outcomes = await outcomes_of(w, sources(4), asset_timeout=0.2)
        (pending,) = [outcome for outcome in outcomes if isinstance(outcome, Pending)]
        assert pending.source == stuck
        assert isinstance(pending.error, WaitTimeout)
        assert isinstance(pending.error, TimeoutError)
        assert pending.error.last == pending.asset
        assert pending.asset.status == "processing"


@pytest.mark.asyncio
async def test_nothing_reachable_ends_unsent_after_the_patience_is_over() -> None:
    async with Sandbox() as sandbox:
        url = sandbox.url
    async with no_leaks(), quick(url, retry=Retry(base=0.001, cap=0.01, patience=0.15)) as session:
        async with session.ingest(sources(200), group="pg_1") as stream:
            outcomes = [outcome async for outcome in stream.outcomes()]
        assert {type(outcome) for outcome in outcomes} == {Unsent}
        assert all(isinstance(o.error, ConnectionFailed) for o in outcomes if isinstance(o, Unsent))
        assert stream.report.taken == len(outcomes)
        # One probe at a time: far from 64 submitters each trying on their own.
        assert session.stats().requests < 64 + 200


@pytest.mark.asyncio
async def test_a_lone_source_does_not_wait_for_ever_for_a_network_that_is_gone() -> None:
    async with Sandbox() as sandbox:
        url = sandbox.url
    async with (
        no_leaks(),
        asyncio.timeout(20),
        quick(url, retry=Retry(base=0.001, cap=0.01, patience=0.05)) as session,
        session.ingest(sources(1), group="pg_1") as stream,
    ):
        (outcome,) = [outcome async for outcome in stream.outcomes()]
    assert isinstance(outcome, Unsent)
    assert isinstance(outcome.error, ConnectionFailed)


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 30])
async def test_what_is_polled_does_not_wait_for_ever_for_a_network_that_is_gone(count: int) -> None:
    async with no_leaks(), Sandbox() as sandbox:
        retry = Retry(base=0.001, cap=0.01, patience=0.05)
        async with quick(sandbox.url, retry=retry, polling=Polling.fixed(0.005, 0.005)) as session:
            group = await session.create_group("brand")
            async with asyncio.timeout(20), session.ingest(sources(count), group=group) as stream:
                await until(lambda: stream.stats().polling == count)
                await sandbox.aclose()
                outcomes = [outcome async for outcome in stream.outcomes()]
    assert len(outcomes) == count
    assert all(isinstance(o, Pending) and isinstance(o.error, ConnectionFailed) for o in outcomes)


@pytest.mark.asyncio
async def test_an_outage_in_the_middle_loses_nothing() -> None:
    async with no_leaks(), Sandbox(time_scale=0.002) as sandbox:
        limits = Limits(submits_per_second=1e9, max_submitting=4)
        async with quick(sandbox.url, limits=limits, retry=Retry(base=0.001, cap=0.02, patience=20)) as session:
            group = await session.create_group("brand")
            seen: list[Outcome] = []
            async with session.ingest(iter(sources(400)), group=group, max_pending=20) as stream:
                async for outcome in stream.outcomes():
                    seen.append(outcome)
                    if len(seen) == 30:
                        await sandbox.aclose()
                        await until(lambda: session.stats().down_for)
                        await sandbox.start()
        assert len(seen) == 400
        assert sum(isinstance(outcome, Active) for outcome in seen) >= 390
        assert sandbox.ledger.check(seen) == []


# Ends


@pytest.mark.asyncio
async def test_break_stops_and_accounts_for_everything() -> None:
    async with no_leaks(), world() as w:
        taken = []
        async with w.session.ingest(iter(sources(500)), group=w.group) as stream:
            async for outcome in stream.outcomes():
                taken.append(outcome)
                if len(taken) == 20:
                    break
        report = stream.report
        assert report.taken == report.active + report.failed + report.pending + report.in_doubt + report.unsent
        assert report.in_doubt == 0
        known = {o.asset.asset_id for o in report.unfinished if isinstance(o, Pending)}
        applied = {upload.asset_id for upload in w.sandbox.ledger.uploads}
        assert len(applied) == report.active + len(known)
        assert known <= applied
        assert w.session.stats().ingests == 0


@pytest.mark.asyncio
async def test_an_exception_of_the_body_leaves_unwrapped() -> None:
    class Mine(Exception):  # noqa: N818 - a user's own
        pass

    async with no_leaks(), world() as w:
        with pytest.raises(Mine) as caught:
            async with w.session.ingest(iter(sources(100)), group=w.group) as stream:
                async for _ in stream:
                    raise Mine
        assert type(caught.value) is Mine
        assert caught.value.__cause__ is None
        assert w.session.stats().ingests == 0


@pytest.mark.asyncio
async def test_cancellation_brings_home_what_is_on_the_wire_and_then_leaves() -> None:
    async with no_leaks(), world({"limits": Limits(submits_per_second=1e9, max_submitting=8)}) as w:
        w.sandbox.faults.add("slow", method="POST", path="assets", delay=0.1)
        stream = w.session.ingest(sources(40), group=w.group)
        task = asyncio.create_task(consumed(stream))
        await until(lambda: w.session.stats().submitting == 8)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        report = stream.report
        assert report.in_doubt == 0
        applied = {upload.asset_id for upload in w.sandbox.ledger.uploads}
        pending = {o.asset.asset_id for o in report.unfinished if isinstance(o, Pending)}
        assert applied == pending
        assert len(applied) >= 8
        assert w.sandbox.ledger.check(report.unfinished) == []


@pytest.mark.asyncio
async def test_a_second_cancellation_ends_at_once_and_says_in_doubt() -> None:
    async with no_leaks(), world({"limits": Limits(submits_per_second=1e9, max_submitting=4)}) as w:
        w.sandbox.faults.add("slow", method="POST", path="assets", delay=1.5)
        stream = w.session.ingest(sources(10), group=w.group)
        task = asyncio.create_task(consumed(stream))
        await until(lambda: w.session.stats().submitting == 4)
        began = time.monotonic()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 1.2  # the answers would take longer
        assert stream.report.in_doubt == 4
        assert stream.report.unsent == 6


@pytest.mark.asyncio
async def test_the_drain_has_a_deadline() -> None:
    knobs = {"limits": Limits(submits_per_second=1e9, max_submitting=3), "timeouts": Timeouts(drain=0.1)}
    async with no_leaks(), world(knobs) as w:
        w.sandbox.faults.add("slow", method="POST", path="assets", delay=1.5)
        async with w.session.ingest(sources(10), group=w.group) as stream:
            await until(lambda: w.session.stats().submitting == 3)
        assert stream.report.in_doubt == 3
        assert stream.report.unsent == stream.report.taken - 3 > 0


@pytest.mark.asyncio
async def test_a_source_that_raises_gives_outcomes_first_and_then_its_own_exception() -> None:
    class Broken(Exception):  # noqa: N818 - a user's own
        pass

    def items() -> Iterator[AssetSource]:
        yield from sources(10)
        raise Broken

    async def async_items() -> AsyncIterator[AssetSource]:  # noqa: ASYNC900 - a user's own source
        for source in sources(10):
            yield source
        raise Broken

    async with no_leaks(), world() as w:
        for broken in (items(), async_items()):
            seen = []
            with pytest.raises(Broken):
                async with w.session.ingest(broken, group=w.group) as stream:
                    async for outcome in stream.outcomes():
                        seen.append(outcome)  # noqa: PERF401 - the loop as a user writes it
            assert len(seen) == 10
            assert not stream.report.exhausted


@pytest.mark.asyncio
async def test_a_supervisor_that_dies_is_told_and_accounted_for() -> None:
    async with no_leaks(), world() as w:
        with pytest.raises(SessionStateError, match="ended from outside"):
            async with w.session.ingest(iter(sources(400)), group=w.group, max_pending=10) as stream:
                async for _ in stream.outcomes():
                    for task in asyncio.all_tasks():
                        if "ingest" in task.get_name():
                            task.cancel()
        report = stream.report
        assert report.taken == report.active + report.failed + report.pending + report.in_doubt + report.unsent


@pytest.mark.asyncio
async def test_closing_the_session_ends_its_ingests_with_outcomes() -> None:
    async with no_leaks(), world() as w:
        seen = []
        async with w.session.ingest(iter(sources(300)), group=w.group, max_pending=20) as stream:
            async for outcome in stream.outcomes():
                seen.append(outcome)
                if len(seen) == 5:
                    await w.session.aclose()
        assert len(seen) == stream.report.taken < 300
        assert all(isinstance(o.error, SessionStateError) for o in seen if isinstance(o, Unsent | Pending))
        assert w.sandbox.ledger.check(seen) == []


@pytest.mark.asyncio
async def test_drain_ends_ingests_in_order_and_refuses_new_submissions() -> None:
    async with no_leaks(), world() as w:
        seen = []
        async with w.session.ingest(iter(sources(300)), group=w.group, max_pending=20) as stream:
            async for outcome in stream.outcomes():
                seen.append(outcome)
                if len(seen) == 5:
                    await w.session.drain(1.0)
        assert len(seen) == stream.report.taken < 300
        assert stream.report.in_doubt == 0
        assert w.sandbox.ledger.check(seen) == []
        with pytest.raises(SessionStateError, match="draining"):
            await w.session.upload(sources(1)[0], group=w.group)
        with pytest.raises(SessionStateError, match="draining"):
            async with w.session.ingest(sources(1), group=w.group):
                pass
        active = next(o.asset for o in seen if isinstance(o, Active))
        assert (await w.session.get_asset(active.asset_id)).is_active


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "soon", True], ids=str)
async def test_a_drain_of_no_time_that_can_be_is_refused_and_stops_nothing(seconds: Any) -> None:
    async with no_leaks(), world() as w:
        with pytest.raises(InvalidInput, match="timeout must be"):
            await w.session.drain(seconds)
        assert (await w.session.upload(sources(1)[0], group=w.group)).asset_id


@pytest.mark.asyncio
async def test_a_group_that_cannot_be_one_is_told_at_once() -> None:
    async with no_leaks(), world() as w:
        for group in (AssetGroup(group_id="../x"), AssetGroup(group_id=cast("str", 7)), "../x", 7):
            with pytest.raises(InvalidInput, match="group"):
                w.session.ingest(sources(1), group=cast("str", group))
        assert w.sandbox.ledger.check([]) == []


@pytest.mark.asyncio
async def test_stop_sends_nothing_more_and_follows_what_was_accepted() -> None:
    async with no_leaks(), world() as w:
        seen = []
        async with w.session.ingest(iter(sources(300)), group=w.group, max_pending=20) as stream:
            async for outcome in stream.outcomes():
                seen.append(outcome)
                stream.stop()
        assert {type(outcome) for outcome in seen} <= {Active, Unsent}
        assert w.sandbox.ledger.check(seen) == []


@pytest.mark.asyncio
async def test_an_id_whose_commit_is_cut_short_is_pending_and_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def never(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Journal, "accepted", never)
    async with no_leaks(), world() as w:
        async with w.session.ingest(sources(1), group=w.group, journal=tmp_path / "run.db") as stream:
            await reached.wait()
            for task in asyncio.all_tasks():
                if "ingest" in task.get_name():
                    task.cancel()
        (pending,) = stream.report.unfinished
        assert isinstance(pending, Pending)
        assert w.sandbox.ledger.check([pending]) == []


# Sources


@pytest.mark.asyncio
async def test_a_blocking_iterator_does_not_stop_the_loop() -> None:
    release = threading.Event()
    read_by = set()

    def blocking() -> Iterator[AssetSource]:
        read_by.add(threading.current_thread())
        yield from sources(2)
        release.wait(5)
        read_by.add(threading.current_thread())
        yield from sources(2, start=2)

    async with world() as w:
        seen = []
        async with w.session.ingest(blocking(), group=w.group) as stream:
            async for outcome in stream.outcomes():
                seen.append(outcome)
                if len(seen) == 2:
                    release.set()  # reached only because the loop goes on while the source blocks
        assert len(seen) == 4
        assert len(read_by) == 1
        assert threading.main_thread() not in read_by


@pytest.mark.asyncio
async def test_leaving_while_a_source_blocks_does_not_wait_for_it() -> None:
    release = threading.Event()

    def blocking() -> Iterator[AssetSource]:
        yield from sources(1)
        release.wait(30)

    async with world() as w:
        began = time.monotonic()
        async with w.session.ingest(blocking(), group=w.group) as stream:
            async for _ in stream:
                break
        assert time.monotonic() - began < 5
        assert not stream.report.exhausted
        release.set()


@pytest.mark.asyncio
async def test_sources_are_taken_no_faster_than_they_are_handled() -> None:
    taken = 0

    def many() -> Iterator[AssetSource]:
        nonlocal taken
        for source in sources(5000):
            taken += 1
            yield source

    async with world({"limits": Limits(submits_per_second=1e9, max_submitting=4)}) as w:
        async with w.session.ingest(many(), group=w.group, max_pending=30) as stream:
            async for _ in stream.outcomes():
                stats = stream.stats()
                assert stats.taken - stats.active <= 30
                await asyncio.sleep(0.002)
                if stats.active > 60:
                    break
        assert taken <= 60 + 2 * 30


@pytest.mark.asyncio
async def test_an_async_generator_is_closed_when_the_ingest_is_left() -> None:
    closed = asyncio.Event()

    async def items() -> AsyncIterator[AssetSource]:  # noqa: ASYNC900 - a user's own source
        try:
            number = 0
            while True:
                yield sources(1, number)[0]
                number += 1
                await asyncio.sleep(0)
        finally:
            closed.set()

    async with no_leaks(), world() as w:
        async with w.session.ingest(items(), group=w.group) as stream:
            async for _ in stream:
                break
        assert closed.is_set()


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.asyncio
async def test_hardly_any_sources(count: int) -> None:
    async with world() as w:
        assert len(await outcomes_of(w, iter(sources(count)))) == count


@pytest.mark.asyncio
async def test_a_group_for_each_source() -> None:
    async with world() as w:
        other = await w.session.create_group("other")

        async def choose(source: AssetSource) -> Any:
            await asyncio.sleep(0)
            return other if source.asset_type == "video" else w.group.group_id

        async with w.session.ingest(sources(9), group=choose) as stream:
            assets = [asset async for asset in stream]
        placed = {asset.asset_type: asset.group_id for asset in assets}
        assert placed == {"image": w.group.group_id, "video": other.group_id, "audio": w.group.group_id}


@pytest.mark.asyncio
async def test_a_group_function_that_breaks_loses_nothing() -> None:
    def choose(source: AssetSource) -> str:
        if source.source_url.endswith("-7"):
            raise KeyError(source.key)
        return "pg_1"

    async with no_leaks(), world() as w:
        seen: list[Outcome] = []
        with pytest.raises(KeyError):
            async with w.session.ingest(sources(20), group=choose) as stream:
                async for outcome in stream.outcomes():
                    seen.append(outcome)  # noqa: PERF401 - the loop as a user writes it
        assert len(seen) == stream.report.taken == 20


# Misuse


@pytest.mark.asyncio
async def test_misuse_is_told_plainly() -> None:
    async with world() as w:
        with pytest.raises(InvalidInput, match=r"AssetSource\.image"):
            w.session.ingest("https://cdn.example.com/x.png", group=w.group)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(InvalidInput, match="group"):
            w.session.ingest([], group="../../admin")
        with pytest.raises(InvalidInput, match="on_failure"):
            w.session.ingest([], group=w.group, on_failure="explode")  # type: ignore[arg-type]  # the mistake
        with pytest.raises(InvalidInput, match="asset_timeout"):
            w.session.ingest([], group=w.group, asset_timeout=0)
        stream = w.session.ingest([], group=w.group)
        with pytest.raises(SessionStateError, match="async with"):
            async for _ in stream:
                pass
        async with stream:
            pass
        with pytest.raises(SessionStateError, match="runs once"):
            async with stream:
                pass


@pytest.mark.asyncio
async def test_two_consumers_share_a_stream() -> None:
    async with world() as w, w.session.ingest(sources(50), group=w.group) as stream:

        async def consume() -> list[Outcome]:
            return [outcome async for outcome in stream.outcomes()]

        first, second = await asyncio.gather(consume(), consume())
        assert len(first) + len(second) == 50


@pytest.mark.asyncio
async def test_ten_ingests_and_single_calls_share_one_budget_fairly() -> None:
    limits = Limits(submits_per_second=400, queries_per_second=1e9, max_submitting=16)
    async with world({"limits": limits, "polling": Polling.fixed(0.01, 0.01)}) as w:

        async def run(number: int) -> float:
            async with w.session.ingest(sources(20, start=100 * number), group=w.group) as stream:
                assert len([asset async for asset in stream]) == 20
            return asyncio.get_running_loop().time()

        began = asyncio.get_running_loop().time()
        long = asyncio.create_task(run(99))
        ends = await asyncio.gather(*(run(number) for number in range(9)))
        single = await w.session.upload(sources(1, start=5000)[0], group=w.group)
        await long
        assert single.asset_id
        # All at the same pace: the first to end is not far before the last.
        assert min(end - began for end in ends) > 0.4 * max(end - began for end in ends)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("owner", "name"), [(AssetAdapter, "failure"), (JournalRecorder, "ended"), (Pipeline, "_finished")]
)
async def test_what_breaks_as_an_asset_ends_ends_the_run_with_an_error(
    owner: type, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(owner, name, broken)
    outcomes = []
    async with no_leaks(), world() as it:
        with pytest.raises(ZeroDivisionError):
            stream = it.session.ingest(sources(6), group=it.group, journal=tmp_path / "run.db")
            async with asyncio.timeout(2), stream:
                async for outcome in stream.outcomes():
                    outcomes.append(outcome)  # noqa: PERF401 - it raises in the middle
    assert len(outcomes) == stream.report.taken == 6
    assert {type(outcome) for outcome in outcomes} <= {Pending, Unsent}
