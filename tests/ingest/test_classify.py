"""Which outcome an error, a journal's record and another source's outcome mean: each is decided in one function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rig.world import sources

from seedance_avatar.assets.adapter import AssetAdapter
from seedance_avatar.errors import (
    ApiError,
    AssetFailed,
    AuthError,
    AvatarError,
    ConnectionFailed,
    ContentRefused,
    InvalidInput,
    InvalidSource,
    JournalError,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    SessionStateError,
    SubmissionInDoubt,
    WaitTimeout,
)
from seedance_avatar.ingest.classify import (
    UNRECORDED,
    outcome_for,
    outcome_of_error,
    outcome_of_record,
    record_end,
    record_not_accepted,
)
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Record, State
from seedance_avatar.models import Asset, AssetSource
from seedance_avatar.outcomes import Active, Failed, InDoubt, Pending, Unsent

SOURCE = AssetSource.image("https://cdn.example.com/a?sig=secret", key="a")
OTHER = AssetSource.image("https://cdn.example.com/b?sig=secret", key="b")
ADAPTER = AssetAdapter("pg_now")


@pytest.mark.parametrize(
    ("error", "end", "halts", "state"),
    [
        (InvalidInput("no"), Failed, False, "refused"),
        (InvalidSource("no"), Failed, False, "refused"),
        (ContentRefused("no", status=400), Failed, False, "refused"),
        (ApiError("no", status=404), Failed, False, "refused"),
        (SubmissionInDoubt("lost"), InDoubt, False, "in_doubt"),
        (AuthError("no", status=401), Unsent, True, "planned"),
        (QuotaExhausted("no", status=402), Unsent, True, "planned"),
        (RateLimited("no", status=429), Unsent, True, "planned"),
        (ConnectionFailed("no"), Unsent, True, "planned"),
        (ConnectionFailed("no", answer_lost=True), Unsent, False, "planned"),
        (JournalError("no"), Unsent, True, "planned"),
        (ServerError("no", status=500), Unsent, False, "planned"),
        (SessionStateError("stopped"), Unsent, False, "planned"),
        (ProtocolError("no"), Unsent, False, "planned"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, AvatarError) else None,
)
@pytest.mark.asyncio
async def test_a_submission_without_an_id_is_recorded_as_what_its_error_means(
    error: AvatarError,
    end: Any,
    halts: bool,  # noqa: FBT001 - a column of the table
    state: State,
    tmp_path: Path,
) -> None:
    assert outcome_of_error(error) == (end, halts)
    async with await Journal.open(tmp_path / "run.db") as journal:
        entry = journal.entry(kind="image", group_id="pg_1", url=SOURCE.source_url)
        await journal.claim([entry])
        await journal.sending(entry.fingerprint)
        await record_not_accepted(journal, entry.fingerprint, end, error)
        (record,) = await journal.known([entry.fingerprint])
        assert record is not None
        assert record.state == state


def record(state: State, remote_id: str | None = None) -> Record:
    facts: dict[str, Any] = {"type": "ContentRefused", "message": "the words of then", "status": 400}
    if state == "in_doubt":
        facts = {"type": "SubmissionInDoubt", "message": "the words of then"}
    return Record(row=1, kind="image", state=state, shown="then", group_id="pg_1", remote_id=remote_id, facts=facts)


@pytest.mark.parametrize(
    ("state", "remote_id", "end", "error"),
    [
        ("active", "pa_1", Active, None),
        ("failed", "pa_1", Failed, AssetFailed),
        ("accepted", "pa_1", Pending, AvatarError),
        ("refused", None, Failed, ContentRefused),
        ("in_doubt", None, InDoubt, SubmissionInDoubt),
        ("sending", None, InDoubt, SubmissionInDoubt),
    ],
)
def test_a_record_means_one_outcome_that_names_the_source_of_now(
    state: State, remote_id: str | None, end: Any, error: type[AvatarError] | None
) -> None:
    outcome: Any = outcome_of_record(record(state, remote_id), SOURCE, ADAPTER)
    assert type(outcome) is end
    assert outcome.source is SOURCE
    if remote_id is not None:
        asset = outcome.asset
        assert (asset.asset_id, asset.group_id) == ("pa_1", "pg_1")  # where it lies, whatever the group of now
    if error is not None:
        assert type(outcome.error) is error
        assert str(outcome.error).startswith(SOURCE.label)
        expected = {"sending": UNRECORDED, "accepted": "accepted as pa_1"}.get(state, "the words of then")
        assert expected in str(outcome.error)
        assert "secret" not in str(outcome.error)


@pytest.mark.parametrize("end", [Active, Failed, Pending, InDoubt, Unsent])
def test_an_outcome_for_another_source_names_that_one_and_keeps_everything_else(end: Any) -> None:
    asset = Asset(asset_id="pa_1", group_id="pg_1", asset_type="image", source=SOURCE)
    facts: dict[str, Any] = {} if end in {InDoubt, Unsent} else {"asset": asset}
    if end is not Active:
        facts["error"] = WaitTimeout("not yet", last=asset).concerning(SOURCE.label)
    first = end(source=SOURCE, account="one", **facts)
    other: Any = outcome_for(OTHER, first, ADAPTER)
    assert type(other) is end
    assert (other.source, other.account) == (OTHER, "one")
    if "asset" in facts:
        assert (other.asset.asset_id, other.asset.source) == ("pa_1", OTHER)
    if end is not Active:
        assert str(other.error).startswith(OTHER.label)
        assert ("accepted as pa_1" in str(other.error)) is (end is Pending)
        assert other.error.last is (other.asset if "asset" in facts else None)
        assert first.error.about == SOURCE.label  # the first one is as it was


@pytest.mark.asyncio
async def test_the_service_s_own_reason_is_what_a_journal_keeps_of_a_failure(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db") as journal:
        for number, failure in enumerate([None, AvatarError("another error")]):
            entry = journal.entry(kind="image", group_id="pg_1", url=sources(2)[number].source_url)
            await journal.claim([entry])
            await journal.sending(entry.fingerprint)
            await journal.accepted(entry.fingerprint, f"pa_{number}")
            asset = Asset(asset_id=f"pa_{number}", asset_type="image", status="failed", reason="too dark")
            record_end(journal, entry.fingerprint, failure or AssetFailed(asset))
        kept = [record.reason async for record in journal.records(states=["failed"])]
    assert kept == ["too dark", "another error"]
