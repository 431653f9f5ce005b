"""The same ingest again, after any end: what a journal remembers, what is sent, and what is never sent again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import stat
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rig.journals import HOLDER, child, directory_not_ours, may_not_write, pragma, sql
from rig.leaks import no_leaks
from rig.rude import Close, RudeServer, json_answer, until
from rig.service import Service
from rig.world import World, quick, sources, world

from seedance_avatar import (
    Active,
    AssetFailed,
    AssetSource,
    ContentRefused,
    Failed,
    InDoubt,
    JournalError,
    Limits,
    Outcome,
    Pending,
    Polling,
    SessionStateError,
    SubmissionInDoubt,
    Unsent,
)
from seedance_avatar.journal.journal import Journal
from seedance_avatar.polling.schedule import Schedule
from seedance_avatar.sandbox.fates import Fate

NARROW = {"limits": Limits(submits_per_second=1e9, max_submitting=4)}


async def run(w: World, items: Any, journal: Path, **options: Any) -> list[Outcome]:
    async with w.session.ingest(items, group=w.group, journal=journal, **options) as stream:
        return [outcome async for outcome in stream.outcomes()]


def uploads(w: World) -> int:
    return w.sandbox.ledger.count(method="POST", kind="assets")


def looks(w: World) -> int:
    return w.sandbox.ledger.count(method="GET")


async def states(journal: Path) -> Counter[str]:
    async with await Journal.open(journal, readonly=True) as reader:
        return Counter([record.state async for record in reader.records()])


def ends(outcomes: list[Outcome]) -> dict[type, int]:
    return dict(Counter(type(outcome) for outcome in outcomes))


# --- the same command again ---------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_is_finished_costs_no_request(tmp_path: Path) -> None:
    async with no_leaks(), world() as w:
        bad, refused = sources(30)[4], sources(30)[9]
        w.sandbox.fail(bad.source_url, reason="two faces")
        w.sandbox.decide(refused.source_url, Fate.refused("may contain real person"))
        first = await run(w, sources(30), tmp_path / "run.db")
        sent, asked = uploads(w), looks(w)
        again = await run(w, sources(30), tmp_path / "run.db")
        assert (uploads(w), looks(w)) == (sent, asked)
        assert ends(first) == ends(again) == {Active: 28, Failed: 2}
        ids = {o.source: o.asset.asset_id for o in first if isinstance(o, Active)}
        assert {o.source: o.asset.asset_id for o in again if isinstance(o, Active)} == ids
        told = {o.source: o for o in again if isinstance(o, Failed)}
        assert isinstance(told[bad].error, AssetFailed)
        assert "two faces" in str(told[bad].error)
        assert isinstance(told[refused].error, ContentRefused)
        assert "real person" in str(told[refused].error)
        assert w.sandbox.ledger.check(again) == []


@pytest.mark.asyncio
async def test_a_broken_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Accepted is polled, what never left is sent, nothing is sent twice; run after run, until all is done."""
    async with no_leaks(), world(NARROW) as w:
        done: set[str] = set()
        for _ in range(30):
            async with w.session.ingest(sources(60), group=w.group, journal=tmp_path / "run.db") as stream:
                fresh = 0
                async for outcome in stream.outcomes():
                    assert isinstance(outcome, Active)
                    fresh += outcome.asset.asset_id not in done
                    done.add(outcome.asset.asset_id)
                    if fresh == 7:
                        break
            assert stream.report.in_doubt == 0
            if fresh < 7:
                break
        assert len(done) == 60
        assert w.sandbox.ledger.duplicates() == {}
        assert uploads(w) == 60
        assert await states(tmp_path / "run.db") == {"active": 60}


@pytest.mark.asyncio
async def test_what_was_accepted_is_polled_and_not_sent(tmp_path: Path) -> None:
    async with no_leaks(), world() as w:
        for source in sources(10):
            w.sandbox.decide(source.source_url, Fate.active(after=400))
        first = await run(w, sources(10), tmp_path / "run.db", asset_timeout=0.05)
        assert ends(first) == {Pending: 10}
        second = await run(w, sources(10), tmp_path / "run.db", asset_timeout=30)
        assert ends(second) == {Active: 10}
        assert uploads(w) == 10
        ids = {o.asset.asset_id for o in first if isinstance(o, Pending)}
        assert {o.asset.asset_id for o in second if isinstance(o, Active)} == ids


@pytest.mark.asyncio
async def test_what_never_left_is_sent(tmp_path: Path) -> None:
    async with no_leaks(), world(NARROW) as w:
        fault = w.sandbox.faults.add("unauthorized", method="POST", path="assets", after=5)
        first = await run(w, sources(30), tmp_path / "run.db")
        assert set(ends(first)) == {Active, Unsent}
        w.sandbox.faults.remove(fault)
        assert ends(await run(w, sources(30), tmp_path / "run.db")) == {Active: 30}
        assert w.sandbox.ledger.duplicates() == {}


@pytest.mark.asyncio
async def test_a_cancelled_run_is_resumed(tmp_path: Path) -> None:
    async with no_leaks(), world(NARROW) as w:
        w.sandbox.faults.add("slow", method="POST", path="assets", delay=0.05)
        task = asyncio.create_task(run(w, sources(40), tmp_path / "run.db"))
        await until(lambda: len(w.sandbox.ledger) >= 6)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        w.sandbox.faults.clear()
        outcomes = await run(w, sources(40), tmp_path / "run.db")
        assert ends(outcomes) == {Active: 40}
        assert uploads(w) == 40


@pytest.mark.asyncio
async def test_a_drained_run_is_resumed_in_another_session(tmp_path: Path) -> None:
    async with no_leaks(), world(NARROW) as w:
        async with w.session.ingest(iter(sources(40)), group=w.group, journal=tmp_path / "run.db") as stream:
            await anext(stream.outcomes())
            await w.session.drain(2.0)
        assert stream.report.in_doubt == 0
        async with quick(w.sandbox.url) as session:
            outcomes = await run(World(w.sandbox, session, w.group), sources(40), tmp_path / "run.db")
        assert ends(outcomes) == {Active: 40}
        assert uploads(w) == 40


@pytest.mark.asyncio
async def test_what_was_refused_is_tried_again_on_demand(tmp_path: Path) -> None:
    async with no_leaks(), world() as w:
        refused, failed = sources(5)[1], sources(5)[2]
        w.sandbox.decide(refused.source_url, Fate.refused("not now"))
        w.sandbox.fail(failed.source_url)
        await run(w, sources(5), tmp_path / "run.db")
        w.sandbox.decide(refused.source_url, None)
        assert ends(await run(w, sources(5), tmp_path / "run.db")) == {Active: 3, Failed: 2}
        again = await run(w, sources(5), tmp_path / "run.db", retry_refused=True)
        assert ends(again) == {Active: 4, Failed: 1}
        assert w.sandbox.ledger.duplicates() == {}


@pytest.mark.asyncio
@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
async def test_which_run_was_refused_is_known_whatever_the_clock_said(tmp_path: Path, ahead: float) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world() as w:
        (source,) = sources(1)
        async with await Journal.open(path, clock=lambda: time.time() + ahead) as journal:
            entry = journal.entry(kind="image", group_id=w.group.group_id, url=source.source_url)
            await journal.claim([entry])
            await journal.refused(entry.fingerprint, "not now")
        assert ends(await run(w, [source, source], path, retry_refused=True)) == {Active: 2}
        # What this very run was refused it does not try again, though it comes to it again.
        w.sandbox.decide("https://cdn.example.com/no.jpg", Fate.refused("not now"))
        no = AssetSource.image("https://cdn.example.com/no.jpg")
        outcomes = await run(w, [no, *sources(60), no], path, retry_refused=True, max_pending=1)
        assert ends(outcomes) == {Active: 60, Failed: 2}
        assert uploads(w) == 61


# --- in doubt -----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_was_on_the_wire_at_a_kill_is_in_doubt_and_never_sent_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with child(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
    source = AssetSource.image("https://cdn.example.com/0.jpg")
    service = Service()
    async with no_leaks(), RudeServer(service) as server, quick(server.url) as session:
        for _ in range(2):
            async with session.ingest([source], group="pg_1", journal=path) as stream:
                (outcome,) = [outcome async for outcome in stream.outcomes()]
            assert isinstance(outcome, InDoubt)
            assert isinstance(outcome.error, SubmissionInDoubt)
            assert "the process that sent it ended" in str(outcome.error)
            assert outcome.source is source
        assert service.posts == []
        async with session.ingest([source], group="pg_1", journal=path, on_in_doubt="resend") as stream:
            (outcome,) = [outcome async for outcome in stream.outcomes()]
        assert isinstance(outcome, Active)
        assert len(service.posts) == 1
        # Once it is known, there is nothing left to be sent again.
        async with session.ingest([source], group="pg_1", journal=path, on_in_doubt="resend") as stream:
            (outcome,) = [outcome async for outcome in stream.outcomes()]
        assert isinstance(outcome, Active)
        assert len(service.posts) == 1


@pytest.mark.asyncio
async def test_a_lost_answer_stays_in_doubt_run_after_run(tmp_path: Path) -> None:
    async with no_leaks(), world() as w:
        w.sandbox.faults.add("lost_answer", method="POST", path="assets", times=3)
        first = await run(w, sources(12), tmp_path / "run.db")
        assert ends(first) == {Active: 9, InDoubt: 3}
        second = await run(w, sources(12), tmp_path / "run.db")
        doubts = [{o.source for o in outcomes if isinstance(o, InDoubt)} for outcomes in (first, second)]
        assert doubts[0] == doubts[1]
        assert uploads(w) == 12
        assert w.sandbox.ledger.check(second) == []
        third = await run(w, sources(12), tmp_path / "run.db", on_in_doubt="resend")
        assert ends(third) == {Active: 12}
        # Just what was asked for: those three, and no others, may now exist twice.
        assert set(w.sandbox.ledger.duplicates()) == {source.source_url for source in doubts[0]}


@pytest.mark.asyncio
async def test_a_resend_that_is_lost_again_is_in_doubt_again(tmp_path: Path) -> None:
    async with no_leaks(), world() as w:
        w.sandbox.faults.add("lost_answer", method="POST", path="assets", times=2)
        for _ in range(2):
            outcomes = await run(w, sources(1), tmp_path / "run.db", on_in_doubt="resend")
            assert ends(outcomes) == {InDoubt: 1}
        assert uploads(w) == 2
        assert ends(await run(w, sources(1), tmp_path / "run.db")) == {InDoubt: 1}


# --- the same source ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_same_source_is_one_upload_over_all_runs(tmp_path: Path) -> None:
    """By its key, however it is signed; without a key by group, type and URL."""

    def signed(turn: int) -> list[AssetSource]:
        keyed = [AssetSource.image(f"https://cdn.example.com/k{n}?sig={turn}", key=f"front-{n}") for n in range(5)]
        return [*sources(10), *keyed, *sources(10), *keyed]

    async with no_leaks(), world() as w:
        for turn in range(3):
            outcomes = await run(w, signed(turn), tmp_path / "run.db")
            assert ends(outcomes) == {Active: 30}
            assert len({o.asset.asset_id for o in outcomes if isinstance(o, Active)}) == 15
            assert all(o.asset.source is o.source for o in outcomes if isinstance(o, Active))
        assert uploads(w) == 15


@pytest.mark.asyncio
async def test_the_same_source_long_after_the_first_is_known_from_the_journal(tmp_path: Path) -> None:
    async with no_leaks(), world() as w:
        items = [*sources(1), *sources(200, start=1), *sources(1)]
        outcomes = await run(w, iter(items), tmp_path / "run.db", max_pending=8)
        assert ends(outcomes) == {Active: 202}
        assert uploads(w) == 201


@pytest.mark.asyncio
async def test_another_group_or_type_is_another_upload(tmp_path: Path) -> None:
    async with no_leaks(), world() as w:
        other = await w.session.create_group("other")
        url = "https://cdn.example.com/a"
        outcomes = await run(w, [AssetSource.image(url), AssetSource.video(url)], tmp_path / "run.db")
        outcomes += await run(World(w.sandbox, w.session, other), [AssetSource.image(url)], tmp_path / "run.db")
        assert len({o.asset.asset_id for o in outcomes if isinstance(o, Active)}) == 3


@pytest.mark.asyncio
async def test_two_ingests_of_one_session_share_a_journal(tmp_path: Path) -> None:
    """What both have is sent by one of them; the other has an outcome for it all the same."""
    async with no_leaks(), world(NARROW) as w:
        w.sandbox.faults.add("slow", method="POST", path="assets", delay=0.01)
        journal = tmp_path / "run.db"
        first, second = await asyncio.gather(
            run(w, iter(sources(40)), journal), run(w, iter(sources(40, start=20)), journal)
        )
        assert len(first) == len(second) == 40
        assert w.sandbox.ledger.duplicates() == {}
        assert len(w.sandbox.ledger) == 60
        assert {type(outcome) for outcome in [*first, *second]} == {Active}
        assert ends(await run(w, sources(60), journal)) == {Active: 60}
        assert uploads(w) == 60


@pytest.mark.asyncio
@pytest.mark.parametrize("after", [0, 1, 5])
async def test_what_the_first_of_two_leaves_the_second_takes_up(tmp_path: Path, after: int) -> None:
    async with no_leaks(), world(NARROW) as w:
        w.sandbox.faults.add("slow", method="POST", path="assets", delay=0.01)
        journal = tmp_path / "run.db"
        first = w.session.ingest(iter(sources(30)), group=w.group, journal=journal)
        async with first:
            second = asyncio.create_task(run(w, iter(sources(30)), journal))
            await until(lambda: len(w.sandbox.ledger) >= 5)
            for _ in range(after):
                await anext(first.outcomes())
        outcomes = await second
        assert ends(outcomes) == {Active: 30}
        assert w.sandbox.ledger.duplicates() == {}
        assert w.sandbox.ledger.check(outcomes) == []


@pytest.mark.asyncio
async def test_the_second_of_two_may_leave_first(tmp_path: Path) -> None:
    async with no_leaks(), world(NARROW) as w:
        w.sandbox.faults.add("slow", method="POST", path="assets", delay=0.03)
        journal = tmp_path / "run.db"
        first = asyncio.create_task(run(w, iter(sources(12)), journal))
        await until(lambda: len(w.sandbox.ledger) >= 2)
        async with w.session.ingest(sources(12), group=w.group, journal=journal) as second:
            await until(lambda: second.stats().taken == 12)
        report = second.report
        assert report.taken == 12 == report.active + report.pending + report.in_doubt + report.unsent
        # What the other has on the wire may exist: that is said, and nothing worse is done.
        assert all(isinstance(outcome.error, SessionStateError | SubmissionInDoubt) for outcome in report.unfinished)  # type: ignore[union-attr]  # none of them is active
        assert ends(await first) == {Active: 12}
        assert uploads(w) == 12


# --- the file -----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    service = Service()
    async with no_leaks(), RudeServer(service) as server, quick(server.url) as session:
        with child(HOLDER, path) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(JournalError, match=str(holder.pid)):
                async with session.ingest(sources(3), group="pg_1", journal=path):
                    pass
            async with await Journal.open(path, readonly=True) as reader:
                assert (await reader.summary()).count("sending") == 1
            holder.kill()
            holder.wait()
        assert service.posts == []
        # Freed by the kill itself: no stale lock has to be taken away by hand.
        async with session.ingest(sources(3), group="pg_1", journal=path) as stream:
            assert len([asset async for asset in stream]) == 3


@pytest.mark.asyncio
async def test_what_is_no_journal_of_ours_is_refused_and_not_touched(tmp_path: Path) -> None:
    foreign, newer, text = tmp_path / "foreign.db", tmp_path / "newer.db", tmp_path / "notes.txt"
    sql(foreign, "CREATE TABLE mine (x)")
    async with await Journal.open(newer):
        pass
    sql(newer, "PRAGMA user_version = 99")
    text.write_text("my notes")
    before = {path: path.read_bytes() for path in (foreign, newer, text)}
    service = Service()
    async with no_leaks(), RudeServer(service) as server, quick(server.url) as session:
        for path in before:
            with pytest.raises(JournalError, match=path.name) as caught:
                async with session.ingest(sources(3), group="pg_1", journal=path):
                    pass
            assert str(caught.value).isprintable()
    assert {path: path.read_bytes() for path in before} == before
    assert service.posts == []


@pytest.mark.asyncio
async def test_a_journal_that_cannot_be_written_is_refused_before_anything_is_sent() -> None:
    service = Service()
    async with no_leaks(), RudeServer(service) as server, quick(server.url) as session:
        with directory_not_ours() as directory, may_not_write(directory):
            with pytest.raises(JournalError, match=r"run\.db"):
                async with session.ingest(sources(3), group="pg_1", journal=directory / "run.db"):
                    pass
            with pytest.raises(JournalError):
                await session.create_group("x", journal=directory / "run.db")
        assert server.requests == []


@pytest.mark.asyncio
async def test_the_disk_fills_in_the_middle(tmp_path: Path) -> None:
    """Nothing leaves without its intent on disk; what is on the wire comes home and is reported."""
    path = tmp_path / "run.db"
    async with no_leaks(), world(NARROW) as w:
        w.sandbox.faults.add("slow", method="POST", path="assets", delay=0.02)
        seen: list[Outcome] = []
        stream = w.session.ingest(iter(sources(4000)), group=w.group, journal=path)
        with contextlib.suppress(JournalError):
            async with stream:
                async for outcome in stream.outcomes():
                    seen.append(outcome)
                    if len(seen) == 10:
                        assert w.session._engine is not None
                        (shared,) = w.session._engine.journals._shared.values()
                        await pragma(shared.opening.result(), "max_page_count = 1")
        report = stream.report
        assert report.taken == len(seen) < 4000
        unsent = [outcome for outcome in seen if isinstance(outcome, Unsent)]
        assert unsent
        assert any(isinstance(outcome.error, JournalError) for outcome in unsent)
        assert w.sandbox.ledger.check(seen) == []
        # Each upload that arrived was announced in the file first.
        async with await Journal.open(path, readonly=True) as reader:
            begun = {record.shown async for record in reader.records() if record.state != "planned"}
        arrived = {upload.source_url.partition("?")[0] for upload in w.sandbox.ledger.uploads}
        assert arrived == {shown.partition("?")[0] for shown in begun}
        # With room again the same run goes on, and sends nothing twice.
        outcomes = await run(w, sources(120), path)
        assert w.sandbox.ledger.duplicates() == {}
        assert w.sandbox.ledger.check([*outcomes, *(o for o in seen if o.source not in set(sources(120)))]) == []


@pytest.mark.asyncio
async def test_the_file_is_for_its_owner_only_and_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world() as w:
        w.sandbox.faults.add("lost_answer", method="POST", path="assets", times=2)
        await run(w, sources(20), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"canary" not in content
    assert b"sk-sandbox" not in content


@pytest.mark.asyncio
async def test_what_was_learned_about_polling_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world({"polling": Polling.learned()}) as w:
        await run(w, sources(30), path)
        assert w.session._engine is not None
        learned = w.session._engine.poller.schedule.snapshot()
        assert {"image", "video", "audio"} <= set(learned)
        async with await Journal.open(path) as journal:
            assert await journal.learned() == learned
        expected = Schedule.build(Polling.learned(), random.Random(0))
        expected.restore(learned)
        async with quick(w.sandbox.url, polling=Polling.learned()) as session:
            assert session._engine is not None
            schedule = session._engine.poller.schedule
            assert schedule.snapshot() != expected.snapshot()
            async with session.ingest([], group="pg_1", journal=path):
                assert schedule.snapshot() == expected.snapshot()


# --- groups -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_group_is_made_once_for_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world() as w:
        first = await w.session.create_group("hero", journal=path)
        again = await w.session.create_group("hero", journal=path)
        other = await w.session.create_group("villain", journal=path)
        assert first.group_id == again.group_id != other.group_id
        async with quick(w.sandbox.url) as session:
            assert (await session.create_group("hero", journal=path)).group_id == first.group_id
        assert w.sandbox.ledger.count(method="POST", kind="groups") == 3


@pytest.mark.asyncio
async def test_a_group_in_doubt_is_not_made_again_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    group = json_answer({"success": True, "data": {"group_id": "pg_7", "name": "hero"}})
    async with no_leaks(), RudeServer(Close(), group) as server, quick(server.url) as session:
        with pytest.raises(SubmissionInDoubt):
            await session.create_group("hero", journal=path)
        with pytest.raises(SubmissionInDoubt, match="hero"):
            await session.create_group("hero", journal=path)
        assert len(server.requests) == 1
        assert (await session.create_group("hero", journal=path, on_in_doubt="resend")).group_id == "pg_7"
        assert (await session.create_group("hero", journal=path)).group_id == "pg_7"
        assert len(server.requests) == 2


@pytest.mark.asyncio
async def test_a_closed_session_opens_no_journal(tmp_path: Path) -> None:
    async with quick("http://127.0.0.1:9") as session:
        stream = session.ingest(sources(1), group="pg_1", journal=tmp_path / "run.db")
    with pytest.raises(SessionStateError):
        async with stream:
            pass
    assert list(tmp_path.iterdir()) == []
