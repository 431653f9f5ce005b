"""What the journal records, and what a later run reads in it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rig.journals import entry_of, known, names_in, planned

from seedance_avatar.errors import (
    AvatarError,
    InvalidInput,
    InvalidRequest,
    JournalError,
    ProtocolError,
    SessionStateError,
    SubmissionInDoubt,
)
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Entry, Record, Run, Sample


@pytest.mark.asyncio
async def test_a_thing_goes_its_way_and_a_later_run_knows_it(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    ticks = iter(range(100, 200))
    async with await Journal.open(path, clock=lambda: next(ticks)) as journal:
        name = await planned(journal)
        await journal.sending(name)
        await journal.accepted(name, "pa_1")
        journal.ended(name, "active")
    async with await Journal.open(path) as journal:
        assert await known(journal) == Record(
            row=1,
            kind="image",
            state="active",
            shown="https://cdn.example.com/0.jpg",
            group_id="pg_1",
            attempts=1,
            remote_id="pa_1",
            planned_at=101.0,
            sent_at=102.0,
            accepted_at=103.0,
            ended_at=104.0,
            url_hash=entry_of(journal).url_hash,
            run=1,
        )


@pytest.mark.asyncio
async def test_claim_tells_new_from_known_also_within_one_batch(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        first, second = entry_of(journal, 1), entry_of(journal, 2)
        assert await journal.claim([]) == []
        assert await journal.claim([first]) == [None]
        again = await journal.claim([second, first, second])
        assert again[0] is None
        assert again[1] is not None
        assert again[1].row == 1
        assert again[2] is not None
        assert (again[2].row, again[2].state) == (2, "planned")


@pytest.mark.asyncio
async def test_what_was_being_sent_when_its_process_died_is_in_doubt(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with await Journal.open(path) as journal:
        for number in range(4):
            await planned(journal, number)
        await journal.sending(entry_of(journal, 1).fingerprint)
        await journal.sending(entry_of(journal, 2).fingerprint)
        await journal.accepted(entry_of(journal, 2).fingerprint, "pa_2")
    async with await Journal.open(path, clock=lambda: 5000.0) as journal:
        assert journal.recovered == 1
        states = [(await known(journal, number)).state for number in range(4)]
        assert states == ["planned", "in_doubt", "accepted", "planned"]
        lost = await known(journal, 1)
        assert (lost.doubted_at, lost.may_be_duplicate) == (5000.0, False)
        assert "ended before the answer" in (lost.reason or "")
        with pytest.raises(JournalError, match="in_doubt in the journal cannot become sending by itself"):
            await journal.sending(entry_of(journal, 1).fingerprint)
        await journal.sending(entry_of(journal, 1).fingerprint, resend=True)
        await journal.accepted(entry_of(journal, 1).fingerprint, "pa_1")
        sent_twice = await known(journal, 1)
        assert (sent_twice.state, sent_twice.attempts, sent_twice.may_be_duplicate) == ("accepted", 2, True)
    async with await Journal.open(path) as journal:
        assert journal.recovered == 0


@pytest.mark.asyncio
async def test_unsent_turns_back_what_was_sending_and_nothing_else(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        name = await planned(journal)
        await journal.unsent(name)
        assert (await known(journal)).state == "planned"
        await journal.sending(name)
        await journal.unsent(name)
        back = await known(journal)
        assert (back.state, back.attempts) == ("planned", 0)
        await journal.sending(name)
        await journal.in_doubt(name, "the answer was lost")
        await journal.sending(name, resend=True)
        await journal.unsent(name)
        doubtful = await known(journal)
        assert (doubtful.state, doubtful.attempts, doubtful.reason) == ("in_doubt", 1, "the answer was lost")
        await journal.accepted(name, "pa_1")
        with pytest.raises(JournalError, match="accepted in the journal cannot become planned"):
            await journal.unsent(name)


@pytest.mark.asyncio
async def test_nothing_is_sent_twice_and_no_id_is_replaced(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        name = await planned(journal)
        await journal.sending(name)
        with pytest.raises(JournalError, match="sending in the journal cannot become sending"):
            await journal.sending(name)
        await journal.accepted(name, "pa_1")
        await journal.accepted(name, "pa_1")
        with pytest.raises(JournalError, match="accepted in the journal cannot become accepted"):
            await journal.accepted(name, "pa_2")
        with pytest.raises(JournalError, match="accepted in the journal cannot become sending"):
            await journal.sending(name, resend=True)
        assert (await known(journal)).remote_id == "pa_1"
        stranger = entry_of(journal, 9).fingerprint
        with pytest.raises(JournalError, match="never claimed"):
            await journal.sending(stranger)


@pytest.mark.asyncio
async def test_one_mistake_in_a_batch_is_that_one_alone(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        names = [await planned(journal, number) for number in range(6)]
        await journal.sending(names[2])
        stranger = entry_of(journal, 9).fingerprint
        moves = [journal.sending(name) for name in (*names, stranger)]
        results = await asyncio.gather(*moves, return_exceptions=True)
        assert [type(result).__name__ for result in results] == [
            *["NoneType"] * 2,
            "JournalError",
            *["NoneType"] * 3,
            "JournalError",
        ]
        assert (await journal.summary()).count("sending") == 6
        only_a_stranger = await asyncio.gather(
            journal.accepted(names[0], "pa_0"), journal.accepted(stranger, "pa_9"), return_exceptions=True
        )
        assert only_a_stranger[0] is None
        assert isinstance(only_a_stranger[1], JournalError)
        assert (await known(journal, 0)).remote_id == "pa_0"


@pytest.mark.asyncio
async def test_moves_of_one_thing_keep_their_order_within_a_batch(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        name = await planned(journal)
        sending = asyncio.ensure_future(journal.sending(name))
        await asyncio.sleep(0)
        await asyncio.gather(sending, journal.accepted(name, "pa_1"))
        journal.ended(name, "failed", "no face found")
        record = await known(journal)
        assert (record.state, record.reason, record.remote_id) == ("failed", "no face found", "pa_1")


@pytest.mark.asyncio
async def test_an_error_comes_back_as_the_error_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    refusal = InvalidRequest("bad body", status=422, code="nope", request_id="r-1", about="x")
    doubt = SubmissionInDoubt("no answer", evidence='{"id": "pa_', request_id="r-2")
    broken = ProtocolError("not JSON", status=200, body="<html>")
    async with await Journal.open(path) as journal:
        names = [await planned(journal, number) for number in range(4)]
        for name in names[1:]:
            await journal.sending(name)
        await journal.refused(names[0], broken)
        await journal.refused(names[1], refusal)
        await journal.in_doubt(names[2], doubt)
        await journal.accepted(names[3], "pa_3")
        journal.ended(names[3], "failed")
    async with await Journal.open(path) as journal:
        zero = (await known(journal, 0)).error()
        assert isinstance(zero, ProtocolError)
        assert (zero.status, zero.body) == (200, "<html>")
        one = (await known(journal, 1)).error()
        assert isinstance(one, InvalidRequest)
        assert (one.status, one.code, one.request_id, one.message) == (422, "nope", "r-1", "bad body")
        assert one.about == "https://cdn.example.com/1.jpg"
        two = (await known(journal, 2)).error()
        assert isinstance(two, SubmissionInDoubt)
        assert (two.evidence, two.request_id) == ('{"id": "pa_', "r-2")
        three = (await known(journal, 3)).error()
        assert type(three) is AvatarError
        assert (await known(journal, 3)).reason is None


@pytest.mark.asyncio
async def test_groups_and_generations_go_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with await Journal.open(path) as journal:
        group = journal.entry(kind="group", key="hero", shown="hero")
        video = journal.entry(kind="generation", url='{"prompt": "wave"}', shown="wave", business_id="b-1")
        assert await journal.claim([group, video]) == [None, None]
        await journal.sending(group.fingerprint)
        await journal.accepted(group.fingerprint, "pg_1")
        await journal.sending(video.fingerprint)
    async with await Journal.open(path) as journal:
        group = journal.entry(kind="group", key="hero")
        video = journal.entry(kind="generation", url='{"prompt": "wave"}', business_id="b-2")
        was, lost = await journal.claim([group, video])
        assert was is not None
        assert lost is not None
        assert (was.state, was.remote_id, was.label) == ("accepted", "pg_1", "hero (hero)")
        # Asked for by the id it was sent with, not by the one it would be given today.
        assert (lost.state, lost.business_id) == ("in_doubt", "b-1")


@pytest.mark.asyncio
async def test_what_was_learned_and_noted_is_there_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    ticks = iter(range(100, 200))
    async with await Journal.open(path, clock=lambda: next(ticks)) as journal:
        await journal.save_learned("image", {"bins": [1, 2.5]})
        await journal.save_learned("image", {"bins": [3]})
        journal.note({"submits": 4, "limit": 5.5})
        journal.note({"submits": 6})
    async with await Journal.open(path, readonly=True) as journal:
        assert await journal.learned() == {"image": {"bins": [3]}}
        assert [sample async for sample in journal.samples()] == [
            Sample(at=101.0, name="submits", value=4.0),
            Sample(at=101.0, name="limit", value=5.5),
            Sample(at=102.0, name="submits", value=6.0),
        ]
        runs = (await journal.summary()).runs
        assert [run.started_at for run in runs] == [100.0]
        assert isinstance(runs[0], Run)
        assert runs[0].ended_at is not None


@pytest.mark.asyncio
async def test_each_run_of_an_open_journal_has_a_number_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with await Journal.open(path) as journal:
        assert [journal.begin_run(), journal.begin_run(), journal.run] == [1, 2, 2]
        await journal.refused(await planned(journal), "no")
    async with await Journal.open(path) as journal:
        assert (await known(journal)).run == 2
        assert journal.begin_run() == 3
        runs = (await journal.summary()).runs
    assert [run.ended_at is None for run in runs] == [False, False, True]


@pytest.mark.asyncio
async def test_records_come_in_pages_and_by_state(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        entries = [entry_of(journal, number) for number in range(2500)]
        await journal.claim(entries)
        await asyncio.gather(*(journal.sending(entry.fingerprint) for entry in entries[::5]))
        rows = [record.row async for record in journal.records()]
        assert rows == list(range(1, 2501))
        sent = [record.row async for record in journal.records(states=["sending"], kinds=["image"])]
        assert sent == list(range(1, 2501, 5))
        assert [record async for record in journal.records(kinds=["group"])] == []
        summary = await journal.summary()
        assert summary.counts == {"image": {"planned": 2000, "sending": 500}}
        assert (summary.count(), summary.count("sending"), summary.count(kinds=("group",))) == (2500, 500, 0)


@pytest.mark.asyncio
async def test_values_that_would_spoil_a_batch_are_refused_alone(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        name = await planned(journal)
        with pytest.raises(JournalError, match="16 bytes, not 3"):
            await journal.sending(b"abc")
        with pytest.raises(JournalError, match="16 bytes, not 0"):
            await journal.claim([Entry(fingerprint=b"", kind="image", shown="x")])
        await journal.sending(name)
        with pytest.raises(JournalError, match="not printable"):
            await journal.accepted(name, "pa_\ud800")
        with pytest.raises(JournalError, match="not printable"):
            journal.entry(kind="image", group_id="pg\n", url="https://a.example/")
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.note({"rate": float("nan")})
        await journal.in_doubt(name, "\ud800 \x1b[31m \u202e")
        assert (await known(journal)).reason == "\\ud800 \\x1b[31m \\u202e"


@pytest.mark.asyncio
async def test_a_closed_journal_says_so_and_closes_again_quietly(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "run.db")
    name = await planned(journal)
    await journal.aclose()
    await journal.aclose()
    with pytest.raises(SessionStateError, match="is closed"):
        await journal.sending(name)
    with pytest.raises(SessionStateError, match="is closed"):
        journal.ended(name, "active")
    assert names_in(tmp_path) == ["run.db"]


@pytest.mark.asyncio
async def test_a_durability_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'power' or 'process', not 'FULL'"):
        await Journal.open(tmp_path / "run.db", durability="FULL")  # type: ignore[arg-type]  # which is the point
    assert names_in(tmp_path) == []
