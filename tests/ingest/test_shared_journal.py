"""One journal, several users at once, bulk runs and single calls alike: each item is still submitted once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from rig.rude import until
from rig.studio import Studio, studio
from rig.world import FAST, quick, sources, world

from seedance_avatar import (
    AccountPool,
    Active,
    AssetGroup,
    AuthError,
    AvatarSession,
    ContentRefused,
    Failed,
    GenerationRequest,
    InDoubt,
    JournalError,
    Limits,
    Outcome,
    Pending,
    SessionStateError,
    SubmissionInDoubt,
    Unsent,
    VideoTask,
)
from seedance_avatar.journal.journal import Journal
from seedance_avatar.sandbox import Sandbox

pytestmark = pytest.mark.asyncio

SHARED = GenerationRequest("shared", client_business_id="shared-1")
ONE_AT_A_TIME: dict[str, Any] = {"limits": Limits(submits_per_second=1e9, queries_per_second=1e9, max_submitting=1)}


async def test_ingests_that_share_a_journal_and_their_sources_send_each_once(tmp_path: Path) -> None:
    journal = tmp_path / "run.db"
    async with world() as it:

        async def run(turns: int) -> list[Outcome]:
            for _ in range(turns):
                await asyncio.sleep(0)
            async with it.session.ingest(sources(40), group=it.group, journal=journal) as stream:
                return [outcome async for outcome in stream.outcomes()]

        runs = await asyncio.gather(run(0), run(0), run(30))
        assert it.sandbox.ledger.duplicates() == {}
        for outcomes in runs:
            assert len(outcomes) == 40
            assert {type(outcome) for outcome in outcomes} <= {Active, InDoubt}
        found = Counter(outcome.source for outcomes in runs for outcome in outcomes if isinstance(outcome, Active))
        assert set(found) == set(sources(40))  # each is active in one of them at least
        assert all(isinstance(outcome, Active) for outcome in await run(0))
        assert it.sandbox.ledger.duplicates() == {}


async def test_a_group_that_two_calls_want_is_made_once(tmp_path: Path) -> None:
    journal = tmp_path / "run.db"
    async with world() as it:
        before = len(it.sandbox.ledger.groups)
        groups = await asyncio.gather(*(it.session.create_group("twin", journal=journal) for _ in range(3)))
        assert len({group.group_id for group in groups}) == 1
        assert {type(group) for group in groups} == {AssetGroup}
        assert len(it.sandbox.ledger.groups) == before + 1


# One generation, wanted by a single call and by a bulk run at the same time


@attrs.define
class Wanted:
    """A service and a session, and one way for each of the two to ask for the shared request.

    :ivar others: further requests of the bulk run.
    """

    service: Studio
    session: AvatarSession
    journal: Path
    others: list[GenerationRequest] = attrs.field(factory=list)

    def single(self) -> asyncio.Task[VideoTask]:
        wish = self.session.generate(SHARED.prompt, client_business_id=SHARED.client_business_id, journal=self.journal)
        return asyncio.ensure_future(wish)

    def bulk(self) -> asyncio.Task[list[Any]]:
        async def run() -> list[Any]:
            async with self.session.generate_many([SHARED, *self.others], journal=self.journal) as stream:
                return [outcome async for outcome in stream.outcomes()]

        return asyncio.ensure_future(run())

    def start(self, who: Literal["single", "bulk"]) -> asyncio.Task[Any]:
        return self.single() if who == "single" else self.bulk()

    def sent(self) -> int:
        """Return how often the shared request arrived."""
        return sum(told["client_business_id"] == SHARED.client_business_id for told in self.service.submissions)


@asynccontextmanager
async def wanted(tmp_path: Path, session_knobs: dict[str, Any] | None = None, **script: Any) -> AsyncIterator[Wanted]:
    async with studio(**script) as service, quick(service.url, **(session_knobs or {})) as session:
        session._videos.adapter.looks = (0.0, 0.0)
        yield Wanted(service, session, tmp_path / "run.db")


async def shared_outcome(outcomes: list[Any]) -> Any:
    (found,) = [outcome for outcome in outcomes if outcome.source == SHARED]
    return found


async def state_of_shared(journal: Path) -> str:
    async with await Journal.open(journal, readonly=True) as reader:
        (record,) = [record async for record in reader.records() if record.business_id == SHARED.client_business_id]
        return record.state


@pytest.mark.parametrize("first", ["single", "bulk"])
async def test_a_single_call_and_a_bulk_run_that_wait_for_their_turns_send_once(
    first: Literal["single", "bulk"], tmp_path: Path
) -> None:
    others = [GenerationRequest(f"Shot {number}", key=f"shot-{number}") for number in range(10)]
    async with wanted(tmp_path, ONE_AT_A_TIME, hold=asyncio.Event()) as it:
        it.others = others
        assert it.service.hold is not None
        occupant = asyncio.ensure_future(it.session.generate("occupant"))
        await it.service.arrived.wait()
        tasks = {who: it.start(who) for who in (first, "bulk" if first == "single" else "single")}
        await asyncio.sleep(0.1)  # both have planned it and wait for the one turn there is
        it.service.hold.set()
        task, outcomes = await tasks["single"], await tasks["bulk"]
        await occupant
        assert it.sent() == 1
        assert isinstance(task, VideoTask)
        assert [type(outcome) for outcome in outcomes] == [Active] * 11
        assert (await shared_outcome(outcomes)).asset.task_id == task.task_id


@pytest.mark.parametrize("first", ["single", "bulk"])
async def test_whoever_comes_while_the_other_one_is_on_the_wire_joins_it(
    first: Literal["single", "bulk"], tmp_path: Path
) -> None:
    async with wanted(tmp_path, hold=asyncio.Event()) as it:
        assert it.service.hold is not None
        tasks = {first: it.start(first)}
        await it.service.arrived.wait()
        second: Literal["single", "bulk"] = "bulk" if first == "single" else "single"
        tasks[second] = it.start(second)
        await asyncio.sleep(0.1)
        it.service.hold.set()
        task, outcomes = await tasks["single"], await tasks["bulk"]
        assert it.sent() == 1
        (outcome,) = outcomes
        assert isinstance(outcome, Active)
        assert outcome.asset.task_id == task.task_id


async def test_a_single_call_does_not_wait_until_a_bulk_run_has_followed_the_video_to_its_end(tmp_path: Path) -> None:
    async with wanted(tmp_path, looks=10**6) as it:
        bulk = it.bulk()
        waiting = it.single()
        early = await asyncio.wait_for(waiting, 5)
        late = await asyncio.wait_for(it.single(), 5)
        assert early.task_id == late.task_id
        assert not bulk.done()
        it.service.looks = 0
        (outcome,) = await bulk
        assert isinstance(outcome, Active)
        assert it.sent() == 1


async def test_single_calls_of_one_id_at_once_all_get_the_one_task(tmp_path: Path) -> None:
    async with wanted(tmp_path) as it:
        tasks = await asyncio.gather(*(it.single() for _ in range(5)))
        assert len({task.task_id for task in tasks}) == 1
        assert it.sent() == 1


@pytest.mark.parametrize("waiting", ["single", "bulk"])
async def test_when_the_sender_is_refused_nothing_is_sent_by_a_bulk_run_and_a_single_call_hears_it_too(
    waiting: Literal["single", "bulk"], tmp_path: Path
) -> None:
    refusal = (400, {"error": {"code": "content_policy_violation", "message": "no"}})
    async with wanted(tmp_path, hold=asyncio.Event(), script=[refusal, refusal]) as it:
        assert it.service.hold is not None
        first: Literal["single", "bulk"] = "bulk" if waiting == "single" else "single"
        tasks = {first: it.start(first)}
        await it.service.arrived.wait()
        tasks[waiting] = it.start(waiting)
        await asyncio.sleep(0.1)
        it.service.hold.set()
        with pytest.raises(ContentRefused):
            await tasks["single"]
        (outcome,) = await tasks["bulk"]
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ContentRefused)
        assert it.sent() == (2 if waiting == "single" else 1)  # a call is always a wish of its own
    assert await state_of_shared(it.journal) == "refused"


@pytest.mark.parametrize("waiting", ["single", "bulk"])
async def test_when_the_sender_is_in_doubt_a_bulk_run_is_too_and_a_single_call_asks_for_the_task(
    waiting: Literal["single", "bulk"], tmp_path: Path
) -> None:
    async with wanted(tmp_path, hold=asyncio.Event(), script=["lose answer"], deaf=True) as it:
        assert it.service.hold is not None
        first: Literal["single", "bulk"] = "bulk" if waiting == "single" else "single"
        sender = it.start(first)
        await it.service.arrived.wait()
        waiter = it.start(waiting)
        await asyncio.sleep(0.05)
        it.service.hold.set()
        if first == "single":
            with pytest.raises(SubmissionInDoubt):
                await sender
            (outcome,) = await waiter
        else:
            (outcome,) = await sender
            it.service.deaf = False
            assert (await waiter).task_id == "tsk_1"
        assert isinstance(outcome, InDoubt)
        assert it.sent() == 1


@pytest.mark.parametrize("on_wire", [False, True])
async def test_when_the_single_call_that_came_first_is_cancelled_the_bulk_run_goes_on(
    on_wire: bool,  # noqa: FBT001 - a column of the table
    tmp_path: Path,
) -> None:
    async with wanted(tmp_path, ONE_AT_A_TIME, hold=asyncio.Event()) as it:
        assert it.service.hold is not None
        occupant = None if on_wire else asyncio.ensure_future(it.session.generate("occupant"))
        if occupant is not None:
            await it.service.arrived.wait()
        single = it.single()
        await (until(it.sent) if on_wire else asyncio.sleep(0.05))
        bulk = it.bulk()
        await asyncio.sleep(0.05)
        single.cancel()
        await asyncio.sleep(0.02)
        it.service.hold.set()
        with pytest.raises(asyncio.CancelledError):
            await single
        (outcome,) = await bulk
        assert isinstance(outcome, Active)
        assert it.sent() == 1  # on the wire: its answer was waited for, and the bulk run follows what came of it
        if occupant is not None:
            await occupant


@pytest.mark.parametrize("on_wire", [False, True])
async def test_when_the_bulk_run_that_came_first_is_left_the_single_call_goes_on(
    on_wire: bool,  # noqa: FBT001 - a column of the table
    tmp_path: Path,
) -> None:
    async with wanted(tmp_path, ONE_AT_A_TIME, hold=asyncio.Event()) as it:
        assert it.service.hold is not None
        occupant = None if on_wire else asyncio.ensure_future(it.session.generate("occupant"))
        if occupant is not None:
            await it.service.arrived.wait()
        bulk = it.bulk()
        await (until(it.sent) if on_wire else asyncio.sleep(0.05))
        single = it.single()
        await asyncio.sleep(0.05)
        bulk.cancel()
        await asyncio.sleep(0.02)
        it.service.hold.set()
        task = await single
        with pytest.raises(asyncio.CancelledError):
            await bulk
        assert isinstance(task, VideoTask)
        assert it.sent() == 1
        if occupant is not None:
            await occupant


async def test_a_call_that_waits_for_another_can_be_cancelled(tmp_path: Path) -> None:
    async with wanted(tmp_path, hold=asyncio.Event()) as it:
        assert it.service.hold is not None
        first = it.single()
        await until(it.sent)
        second, third = it.single(), it.single()
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        it.service.hold.set()
        assert (await first).task_id == (await third).task_id
        assert it.sent() == 1


@pytest.mark.parametrize("first", ["single", "bulk"])
async def test_when_the_account_is_refused_nobody_waits_for_ever(
    first: Literal["single", "bulk"], tmp_path: Path
) -> None:
    refusal = (401, {"error": {"code": "invalid_api_key", "message": "no"}})
    async with wanted(tmp_path, hold=asyncio.Event(), script=[refusal, refusal]) as it:
        assert it.service.hold is not None
        tasks = {first: it.start(first)}
        await until(it.sent)
        second: Literal["single", "bulk"] = "bulk" if first == "single" else "single"
        tasks[second] = it.start(second)
        await asyncio.sleep(0.05)
        it.service.hold.set()
        with pytest.raises(AuthError):
            await tasks["single"]
        (outcome,) = await tasks["bulk"]
        assert isinstance(outcome, Unsent)
        assert isinstance(outcome.error, AuthError)
    assert await state_of_shared(it.journal) == "planned"


@pytest.mark.parametrize("first", ["single", "bulk"])
async def test_a_session_that_closes_ends_the_sender_and_who_waits_for_it(
    first: Literal["single", "bulk"], tmp_path: Path
) -> None:
    async with studio(hold=asyncio.Event()) as service:
        session = await quick(service.url).open()
        it = Wanted(service, session, tmp_path / "run.db")
        tasks = {first: it.start(first)}
        await until(it.sent)
        second: Literal["single", "bulk"] = "bulk" if first == "single" else "single"
        tasks[second] = it.start(second)
        await asyncio.sleep(0.05)
        closing = asyncio.ensure_future(session.aclose())
        await asyncio.sleep(0.05)
        assert service.hold is not None
        service.hold.set()
        await asyncio.wait_for(closing, 10)
        single, bulk = await asyncio.gather(*(tasks[who] for who in ("single", "bulk")), return_exceptions=True)
        assert isinstance(single, VideoTask | SessionStateError)
        assert isinstance(bulk, list)
        assert type(bulk[0]) in {Pending, Unsent, Active}
        assert it.sent() == 1
    assert await state_of_shared(it.journal) == "accepted"


async def test_what_an_earlier_run_left_in_doubt_is_taken_over_as_such(tmp_path: Path) -> None:
    """The one that was about to send it once more is cancelled; whoever waited for it asks for the task first."""
    async with wanted(tmp_path, ONE_AT_A_TIME, script=["lose answer"], deaf=True) as it:
        with pytest.raises(SubmissionInDoubt):
            await it.single()
        it.service.deaf = False
        it.service.hold = asyncio.Event()
        it.service.arrived.clear()
        occupant = asyncio.ensure_future(it.session.generate("occupant"))
        await it.service.arrived.wait()
        async with await Journal.open(it.journal) as journal:
            assert [record.state async for record in journal.records()] == ["in_doubt"]
        it.service.tasks.clear()  # what had arrived was lost at the service too
        single = it.single()
        await asyncio.sleep(0.05)
        bulk = it.bulk()
        await asyncio.sleep(0.05)
        single.cancel()
        await asyncio.sleep(0.02)
        it.service.hold.set()
        (outcome,) = await bulk
        assert isinstance(outcome, Active), outcome
        await occupant
        await asyncio.wait({single})
    assert await state_of_shared(it.journal) == "active"


async def test_a_journal_that_a_session_has_open_is_nobody_else_s(tmp_path: Path) -> None:
    """A second session, as a coordinator of a cluster does, opens the file itself: it is told, and sends nothing."""
    async with wanted(tmp_path, looks=10**6) as it, quick(it.service.url) as second:
        bulk = it.bulk()
        await until(it.sent)
        with pytest.raises(JournalError, match="already open in this process"):
            await second.generate(SHARED.prompt, client_business_id=SHARED.client_business_id, journal=it.journal)
        it.service.looks = 0
        await bulk
        assert it.sent() == 1


async def test_runs_of_a_pool_and_of_its_session_with_one_directory_upload_each_source_once(tmp_path: Path) -> None:
    async with Sandbox(time_scale=0.002) as sandbox:
        async with AccountPool({"a": "sk-sandbox"}, base_url=sandbox.url, **FAST) as pool:

            async def run() -> list[Any]:
                async with pool.ingest(sources(20), group_name="brand", journal=tmp_path) as stream:
                    return [outcome async for outcome in stream.outcomes()]

            async def one_by_one() -> list[Any]:
                group = await pool.sessions["a"].create_group("brand", journal=tmp_path / "a.db")
                session = pool.sessions["a"]
                async with session.ingest(sources(20), group=group, journal=tmp_path / "a.db") as stream:
                    return [outcome async for outcome in stream.outcomes()]

            runs = await asyncio.gather(run(), one_by_one(), run())
        assert sandbox.ledger.duplicates() == {}
        assert len(sandbox.ledger.groups) == 1
        assert [type(outcome) for outcomes in runs for outcome in outcomes] == [Active] * 60
