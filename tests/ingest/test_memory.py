"""What a run without a journal remembers of sources that are finished, and how much memory that takes."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.leaks import no_leaks
from rig.world import World, world

from seedance_avatar import (
    Active,
    AssetFailed,
    AssetSource,
    ContentRefused,
    Failed,
    InDoubt,
    InvalidSource,
    Limits,
    Outcome,
    Pending,
)
from seedance_avatar.ingest.memory import Memory
from seedance_avatar.sandbox.fates import Fate

SAME = AssetSource.image("https://cdn.example.com/same.jpg?sign=secret", key="K")
MANY = [AssetSource.image(f"https://cdn.example.com/{number}.jpg") for number in range(40)]


def uploads(w: World, source: AssetSource) -> int:
    return len(w.sandbox.ledger.uploads_of(source.source_url))


async def far_apart(w: World, first: AssetSource, last: AssetSource, **options: Any) -> tuple[Outcome, Outcome]:
    """Return the outcomes of two sources of which the second is read when the first is long finished."""
    async with w.session.ingest([first, *MANY, last], group=w.group, max_pending=2, **options) as stream:
        found = {id(outcome.source): outcome async for outcome in stream.outcomes()}
    return found[id(first)], found[id(last)]


@pytest.mark.asyncio
async def test_the_same_source_is_one_upload_however_far_apart() -> None:
    async with no_leaks(), world() as w:
        again = AssetSource.image("https://cdn.example.com/same.jpg?sign=2", key="K", name="another name")
        first, last = await far_apart(w, SAME, again)
        assert isinstance(first, Active)
        assert isinstance(last, Active)
        assert last.source is again
        assert (last.asset.asset_id, last.asset.group_id) == (first.asset.asset_id, first.asset.group_id)
        assert last.asset.source is again
        assert uploads(w, SAME) == 1
        assert uploads(w, again) == 0


@pytest.mark.asyncio
async def test_another_source_under_its_key_is_refused_however_far_apart() -> None:
    async with no_leaks(), world() as w:
        for other in (
            AssetSource.image("https://cdn.example.com/other.jpg", key="K"),
            AssetSource.video("https://cdn.example.com/same.jpg", key="K"),
        ):
            first, last = await far_apart(w, SAME, other)
            assert isinstance(first, Active)
            assert isinstance(last, Failed)
            assert isinstance(last.error, InvalidSource)
            assert f"image {first.asset.asset_id}" in str(last.error)
            assert "on_changed" not in str(last.error)
            assert uploads(w, other) == 0


@pytest.mark.asyncio
async def test_in_another_group_it_is_sent() -> None:
    async with no_leaks(), world() as w:
        other = await w.session.create_group("other")
        groups = iter([w.group, *[w.group] * len(MANY), other])
        async with w.session.ingest([SAME, *MANY, SAME], group=lambda _: next(groups), max_pending=2) as stream:
            found = [asset async for asset in stream]
        assert len({asset.asset_id for asset in found}) == len(found)
        assert uploads(w, SAME) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["failed", "refused", "in doubt", "pending"])
async def test_what_it_came_to_is_not_tried_again(how: str) -> None:
    async with no_leaks(), world({"limits": Limits(submits_per_second=1e9, max_submitting=1)}) as w:
        options = {}
        match how:
            case "failed":
                w.sandbox.fail(SAME.source_url, reason="too dark")
            case "refused":
                w.sandbox.decide(SAME.source_url, Fate.refused("may contain real person"))
            case "in doubt":
                w.sandbox.faults.add("lost_answer", method="POST", path="assets", times=1)
            case _:
                w.sandbox.decide(SAME.source_url, Fate.active(after=40_000))
                options["asset_timeout"] = 0.3
        first, last = await far_apart(w, SAME, SAME, **options) if how == "pending" else await twice(w)
        assert type(last) is type(first)
        assert uploads(w, SAME) == (0 if how == "refused" else 1)
        match first, last:
            case Failed(), Failed():
                assert str(last.error) == str(first.error)
                assert type(last.error) is {"failed": AssetFailed, "refused": ContentRefused}[how]
            case Pending(), Pending():
                assert last.asset.asset_id == first.asset.asset_id
            case _:
                assert isinstance(first, InDoubt)


async def twice(w: World) -> tuple[Outcome, Outcome]:
    again = AssetSource.image(SAME.source_url, key=SAME.key)
    return await far_apart(w, SAME, again)


# --- the table ----------------------------------------------------------------------------------------------


def name(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=12).digest()


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.binary(min_size=4, max_size=4), st.integers(0, 255), st.binary(max_size=200)),
        max_size=60,
    )
)
def test_it_gives_back_what_was_put_last(facts: list[tuple[int, bytes, int, bytes]]) -> None:
    memory, expected = Memory(), {}
    for number, content, kind, value in facts:
        memory.put(name(number), content, kind, value)
        expected[number] = (content, kind, value)
    for number in range(31):
        assert memory.find(name(number)) == expected.get(number)


def test_names_of_one_bucket_do_not_disturb_each_other_and_the_oldest_are_forgotten() -> None:
    memory = Memory()
    names = [bytes(2) + number.to_bytes(10, "big") for number in range(1, 200)]
    for it in names:
        memory.put(it, b"1234", 7, b"x" * 26)
    kept = [it for it in names if memory.find(it) is not None]
    assert kept == names[-len(kept) :]
    assert len(kept) == 2048 // (17 + 26)
    memory.put(names[0], b"1234", 7, b"y" * 5_000)
    found = memory.find(names[0])
    assert found is not None
    assert len(found[2]) == 512


def test_a_source_takes_some_fifty_bytes_and_all_of_them_32_mib() -> None:
    tracemalloc.start()
    try:
        memory = Memory()
        for number in range(200_000):
            memory.put(name(number), b"1234", 0, b"pa_01M8EDEW1FY8BRFXH303X0JRT6")
        assert tracemalloc.get_traced_memory()[0] < 200_000 * 62
    finally:
        tracemalloc.stop()
    assert memory.find(name(0)) is not None
