"""What a key stands for: one source of its group, in one run and over runs with a journal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.journals import sql
from rig.leaks import no_leaks
from rig.world import World, world

from seedance_avatar import (
    Active,
    AssetSource,
    Failed,
    InDoubt,
    InvalidInput,
    InvalidSource,
    Outcome,
    Pending,
)
from seedance_avatar.ingest.recorder import plan_for
from seedance_avatar.journal.records import STATES, Record, State
from seedance_avatar.options import Rerun
from seedance_avatar.sandbox.fates import Fate
from seedance_avatar.text import url_path

HOST = "https://cdn.example.com"
image, video, audio = AssetSource.image, AssetSource.video, AssetSource.audio


async def run(w: World, *sources: AssetSource, **options: Any) -> list[Outcome]:
    options.setdefault("group", w.group)
    async with w.session.ingest(list(sources), **options) as stream:
        found = {id(outcome.source): outcome async for outcome in stream.outcomes()}
    honest(w, list(found.values()))
    return [found[id(source)] for source in sources]


def honest(w: World, outcomes: list[Outcome]) -> None:
    """Check that no outcome names what is not its asset's own."""
    for outcome in outcomes:
        asset = getattr(outcome, "asset", None)
        if asset is not None:
            upload = w.sandbox.ledger.asset(asset.asset_id)
            assert upload is not None
            assert upload.asset_type == outcome.source.asset_type == asset.asset_type
            assert url_path(upload.source_url) == url_path(outcome.source.source_url)
            assert upload.group_id == asset.group_id


def uploads(w: World) -> int:
    return w.sandbox.ledger.count(method="POST", kind="assets")


def conflict(outcome: Outcome, *named: str) -> None:
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, InvalidSource)
    for text in named:
        assert text in str(outcome.error)
    assert "secret" not in str(outcome.error)


@pytest.fixture(params=[False, True], ids=["alone", "journal"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"journal": tmp_path / "run.db"} if request.param else {}


# --- one run ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (image(f"{HOST}/front.jpg?sign=secret", key="K"), image(f"{HOST}/back.jpg?sign=secret", key="K")),
        (image(f"{HOST}/Front.jpg", key="K"), image(f"{HOST}/front.jpg", key="K")),
        (image(f"{HOST}/a.jpg", key="K"), image("https://other.example.com/a.jpg", key="K")),
        (image(f"{HOST}/a.jpg", key="K"), image("http://cdn.example.com/a.jpg", key="K")),
        (image(f"{HOST}/x/1", key="K"), image(f"{HOST}/x/10", key="K")),
        (video(f"{HOST}/t.mp4", key="K"), audio(f"{HOST}/t.mp4", key="K")),
        (image(f"{HOST}/t.mp4", key=""), video(f"{HOST}/t.mp4", key="")),
    ],
)
async def test_another_path_host_or_type_under_one_key_is_refused_and_both_are_named(
    first: AssetSource, second: AssetSource, journal: dict[str, Any]
) -> None:
    async with no_leaks(), world() as w:
        one, other = await run(w, first, second, **journal)
        assert isinstance(one, Active)
        path = first.source_url.partition("?")[0].partition("://")[2]
        conflict(other, path, second.source_url.partition("?")[0], first.asset_type, second.asset_type)
        assert uploads(w) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "again",
    [f"{HOST}/a.jpg?sign=2", f"{HOST}/a.jpg", "HTTPS://CDN.example.com/a.jpg", "https://cdn.example.com:443/a.jpg#x"],
)
async def test_another_query_or_spelling_of_the_host_is_the_same_source(again: str, journal: dict[str, Any]) -> None:
    async with no_leaks(), world() as w:
        one, other = await run(w, image(f"{HOST}/a.jpg?sign=1", key="K"), image(again, key="K"), **journal)
        assert isinstance(one, Active)
        assert isinstance(other, Active)
        assert other.asset.asset_id == one.asset.asset_id
        assert uploads(w) == 1


@pytest.mark.asyncio
async def test_in_another_group_it_is_a_source_of_its_own(journal: dict[str, Any]) -> None:
    async with no_leaks(), world() as w:
        villain = await w.session.create_group("villain")

        async def group(source: AssetSource) -> Any:
            await asyncio.sleep(0)
            return villain.group_id if "/v/" in source.source_url else w.group

        one, other = await run(
            w, image(f"{HOST}/f.jpg", key="front"), image(f"{HOST}/v/f.jpg", key="front"), group=group, **journal
        )
        assert isinstance(one, Active)
        assert isinstance(other, Active)
        assert other.asset.group_id == villain.group_id != one.asset.group_id
        assert uploads(w) == 2


@pytest.mark.asyncio
async def test_what_waits_for_another_ingest_of_the_same_key_gets_no_asset_of_another_source(tmp_path: Path) -> None:
    async with no_leaks(), world() as w:
        first, second = await asyncio.gather(
            run(w, image(f"{HOST}/1.jpg", key="K"), journal=tmp_path / "run.db"),
            run(w, image(f"{HOST}/2.jpg", key="K"), journal=tmp_path / "run.db"),
        )
        ends = [*first, *second]
        assert sorted(type(end).__name__ for end in ends) == ["Active", "Failed"]
        conflict(next(end for end in ends if isinstance(end, Failed)), "/1.jpg", "/2.jpg")
        assert uploads(w) == 1


# --- over runs ----------------------------------------------------------------------------------------------

OLD = image(f"{HOST}/old.jpg?sign=secret", key="K")
NEW = image(f"{HOST}/new.jpg?sign=secret", key="K")


async def leave(w: World, state: str, journal: Path) -> None:
    """Run until the journal has ``OLD`` in ``state``."""
    options = {}
    match state:
        case "failed":
            w.sandbox.fail(OLD.source_url, reason="Too DARK")
        case "refused":
            w.sandbox.decide(OLD.source_url, Fate.refused("may contain real person"))
        case "accepted":
            w.sandbox.decide(OLD.source_url, Fate.active(after=4000))
            options["asset_timeout"] = 0.05
        case "in_doubt":
            w.sandbox.faults.add("lost_answer", method="POST", path="assets", times=1)
    (outcome,) = await run(w, OLD, journal=journal, **options)
    ends = {"active": Active, "accepted": Pending, "in_doubt": InDoubt}
    assert isinstance(outcome, ends.get(state, Failed))


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["active", "accepted", "in_doubt"])
async def test_what_exists_or_may_exist_is_not_given_up_for_another_url_unless_asked_for(
    state: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world() as w:
        await leave(w, state, path)
        (refused,) = await run(w, NEW, journal=path)
        conflict(refused, "/old.jpg", "/new.jpg", "on_changed='replace'")
        assert uploads(w) == 1
        (replaced,) = await run(w, NEW, journal=path, on_changed="replace")
        assert isinstance(replaced, Active)
        known, former = await run(w, NEW, journal=path), await run(w, OLD, journal=path)
        assert isinstance(known[0], Active)
        assert known[0].asset.asset_id == replaced.asset.asset_id
        conflict(former[0], "/old.jpg", "/new.jpg")
        assert uploads(w) == 2
        rows = sql(path, "SELECT shown, remote_id FROM item WHERE kind = 0 ORDER BY id")
        assert [shown for shown, _ in rows] == [f"{HOST}/old.jpg?…", f"{HOST}/new.jpg?…"]  # the old id is not lost


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["failed", "refused"])
async def test_what_failed_or_was_refused_is_sent_with_its_new_url(state: str, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world() as w:
        await leave(w, state, path)
        (new,) = await run(w, NEW, journal=path)
        assert isinstance(new, Active)
        (again,) = await run(w, attrs.evolve(NEW, source_url=f"{HOST}/new.jpg?sign=3"), journal=path)
        assert isinstance(again, Active)
        assert again.asset.asset_id == new.asset.asset_id
        assert uploads(w) == 2


@pytest.mark.asyncio
async def test_a_journal_of_the_first_version_tells_sources_apart_by_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world() as w:
        await leave(w, "active", path)
        sql(path, "UPDATE item SET url_hash = NULL, run = NULL")
        (renewed,) = await run(w, attrs.evolve(OLD, source_url=f"{HOST}/old.jpg?sign=2"), journal=path)
        assert isinstance(renewed, Active)
        conflict((await run(w, NEW, journal=path))[0], "/old.jpg", "/new.jpg")
        conflict((await run(w, attrs.evolve(OLD, asset_type="video"), journal=path))[0], "video", "image")
        assert uploads(w) == 1


# --- failed after acceptance --------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("wish", "sent"),
    [
        (False, 0),
        ((), 0),
        (True, 1),
        ("dark", 1),
        (["nothing", " too dark "], 1),
        (iter(["DARK"]), 1),
        (["bright"], 0),
    ],
)
async def test_what_failed_is_submitted_again_as_a_new_asset_on_demand(wish: Any, sent: int, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world() as w:
        await leave(w, "failed", path)
        w.sandbox.decide(OLD.source_url, Fate.active())
        (again,) = await run(w, OLD, journal=path, retry_failed=wish)
        assert uploads(w) == 1 + sent
        assert isinstance(again, Active if sent else Failed)
        ids = [remote_id for (remote_id,) in sql(path, "SELECT remote_id FROM item WHERE kind = 0")]
        assert len(set(ids)) == 1 + sent  # the journal keeps both


@pytest.mark.asyncio
async def test_what_failed_is_tried_once_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), world() as w:
        await leave(w, "failed", path)
        for _ in range(2):
            before = uploads(w)
            async with w.session.ingest(
                [OLD, *(image(f"{HOST}/{i}.jpg") for i in range(40)), OLD],
                group=w.group,
                journal=path,
                retry_failed=True,
                max_pending=2,
            ) as stream:
                ends = [outcome async for outcome in stream.outcomes() if outcome.source is OLD]
            assert [type(end) for end in ends] == [Failed, Failed]
            assert uploads(w) - before in {1, 41}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "options",
    [
        *({"on_changed": word} for word in ("Replace", "", 1, True, None)),
        *({"retry_failed": word} for word in (1, None, "", ["a", " "], ["a", 2], b"dark")),
        {"on_in_doubt": "send"},
    ],
)
async def test_an_option_that_cannot_be_used_is_refused_where_it_is_passed(options: dict[str, Any]) -> None:
    async with world() as w:
        with pytest.raises(InvalidInput, match=next(iter(options))):
            w.session.ingest([OLD], group=w.group, **options)


# --- the decision -------------------------------------------------------------------------------------------


@given(
    state=st.none() | st.sampled_from(STATES),
    same=st.booleans(),
    earlier=st.booleans(),
    rerun=st.builds(
        Rerun,
        resend=st.booleans(),
        retry_refused=st.booleans(),
        retry_failed=st.booleans() | st.just(("dark",)) | st.just(("404",)),
        replace=st.booleans(),
    ),
)
def test_nothing_that_may_exist_is_sent_again_but_on_demand(
    *,
    state: State | None,
    same: bool,
    earlier: bool,
    rerun: Rerun,
) -> None:
    record = (
        None if state is None else Record(row=1, kind="image", state=state, shown="x", facts={"message": "too dark"})
    )
    plan = plan_for(record, same=same, earlier=earlier, rerun=rerun)
    if plan in {"follow", "known"}:
        assert same
    if plan == "conflict":
        assert not same
    if plan in {"send", "renew"} and state in {"sending", "accepted", "active", "in_doubt"}:
        assert (same and state == "in_doubt" and rerun.resend) or (not same and earlier and rerun.replace)
    if state in {"failed", "refused"} and not earlier:
        assert plan == ("known" if same else "conflict")  # what this run came to is not tried again by it
    if plan == "renew" and same:
        assert state == "failed"
        assert rerun.retry_failed in {True, ("dark",)}


def test_a_reason_is_named_by_its_code_as_a_whole() -> None:
    record = Record(row=1, kind="image", state="failed", shown="x", facts={"message": "no", "code": "Bad_Image"})
    for text, plan in (("bad_image", "renew"), ("bad", "known")):
        assert plan_for(record, same=True, earlier=True, rerun=Rerun(retry_failed=(text,))) == plan


# --- keys in other groups -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_keys_that_an_earlier_run_used_in_other_groups_only_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with no_leaks(), world() as w:
        other = await w.session.create_group("made anew")
        keyed = [image(f"{HOST}/{key}.jpg", key=key) for key in "abc"]
        groups = iter([w.group, other])
        await run(w, *keyed, journal=tmp_path / "run.db")
        # In one run two groups may share their keys.
        await run(
            w,
            image(f"{HOST}/d.jpg", key="d"),
            image(f"{HOST}/d.jpg", key="d"),
            group=lambda _: next(groups),
            journal=tmp_path / "run.db",
        )
        assert caplog.messages == []
        await run(w, *keyed, image(f"{HOST}/e.jpg", key="e"), group=other, journal=tmp_path / "run.db")
        (message,) = caplog.messages
        assert message.startswith("3 of the keys")
        assert w.group.group_id in message
        caplog.clear()
        await run(w, *keyed, group=other, journal=tmp_path / "run.db")
        assert caplog.messages == []
