"""Cancelled at every await: whatever was under way is brought home and known, and nothing is left behind.

Each scenario is run once to count the suspensions of all its tasks, then once for each of them, cancelled there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from rig.leaks import no_leaks
from rig.rude import RudeServer
from rig.service import Service
from rig.suspend import counted
from rig.world import FAST, quick, sources

from seedance_avatar import Active, AvatarSession, InDoubt, Limits, Polling, SessionStateError, SubmissionInDoubt
from seedance_avatar.events import Accepted, Event, Settled
from seedance_avatar.journal.journal import Journal

NARROW = {**FAST, "limits": Limits(submits_per_second=1e9, queries_per_second=1e9, max_submitting=2, max_polling=2)}
NARROW["polling"] = Polling.fixed(0.001, 0.001)


@attrs.define(eq=False)
class Play:
    """One performance of a scenario, and what is known after it."""

    session: AvatarSession
    service: Service
    journal: Path
    streams: list[Any] = attrs.field(factory=list)
    returned: list[Any] = attrs.field(factory=list)
    seen: list[Counter[str]] = attrs.field(factory=list)


async def ingest(play: Play) -> None:
    stream = play.session.ingest(sources(4), group="pg_1")
    play.streams.append(stream)
    async with stream:
        async for outcome in stream.outcomes():
            play.returned.append(outcome)


async def ingest_with_a_journal(play: Play) -> None:
    stream = play.session.ingest(iter(sources(3)), group="pg_1", journal=play.journal)
    play.streams.append(stream)
    async with stream:
        async for outcome in stream.outcomes():
            play.returned.append(outcome)


async def ingest_left_early(play: Play) -> None:
    stream = play.session.ingest(sources(6), group="pg_1", journal=play.journal)
    play.streams.append(stream)
    async with stream:
        async for outcome in stream.outcomes():
            play.returned.append(outcome)
            break


async def ingest_drained(play: Play) -> None:
    stream = play.session.ingest(sources(6), group="pg_1")
    play.streams.append(stream)
    async with stream:
        play.returned.append(await anext(stream.outcomes()))
        await play.session.drain(2.0)


async def ingest_closed(play: Play) -> None:
    stream = play.session.ingest(sources(6), group="pg_1")
    play.streams.append(stream)
    async with stream:
        play.returned.append(await anext(stream.outcomes()))
        await play.session.aclose()


async def upload_and_wait(play: Play) -> None:
    asset = await play.session.upload(sources(1)[0], group="pg_1")
    play.returned.append(asset)
    play.returned.append(await play.session.wait_until_active(asset))


async def create_group(play: Play) -> None:
    play.returned.append(await play.session.create_group("brand"))


async def create_group_with_a_journal(play: Play) -> None:
    play.returned.append(await play.session.create_group("brand", journal=play.journal))


SCENARIOS: list[Callable[[Play], Awaitable[None]]] = [
    ingest,
    ingest_with_a_journal,
    ingest_left_early,
    ingest_drained,
    ingest_closed,
    upload_and_wait,
    create_group,
    create_group_with_a_journal,
]
HOW = ["task", "scope", "twice"]


async def perform(
    scenario: Callable[[Play], Awaitable[None]],
    home: Path,
    *,
    at: int | None,
    how: str,
    log: Callable[[], str],
    seen: list[Counter[str]],
) -> int:
    """Play the scenario, cancelled at suspension ``at``; check what is left; return how many suspensions there were."""
    events: list[Event] = []
    service = Service()
    home.mkdir()
    async with no_leaks(), RudeServer(service) as server:
        with counted() as suspensions:
            async with quick(server.url, **NARROW, observer=events.append) as session:
                play = Play(session, service, home / "run.db", seen=seen)
                scope = anyio.CancelScope()

                async def scoped() -> None:
                    with scope:
                        await scenario(play)

                begun = suspensions.count
                task = asyncio.get_running_loop().create_task(suspensions.wrap(scoped()))
                if at is not None:
                    suspensions.at(begun + at, scope.cancel if how == "scope" else task.cancel)
                    if how == "twice":
                        suspensions.at(begun + at + 1, task.cancel)
                        suspensions.at(begun + at + 2, task.cancel)
                await asyncio.wait({task}, timeout=10)
                assert task.done()
                if not task.cancelled() and (error := task.exception()) is not None:
                    # Cancelled while the session closes, the work may hear of the closing first.
                    assert isinstance(error, SessionStateError)
                total = suspensions.count - begun
        for stream in play.streams:
            if stream._pipeline is not None:
                check_accounts(stream, service, events, in_doubt=how == "twice")
        check_ids(play, events, log(), in_doubt=how == "twice")
        await check_journal(play, events, server.url)
    return total


def check_accounts(stream: Any, service: Service, events: list[Event], *, in_doubt: bool) -> None:
    report = stream.report
    assert report.taken == report.active + report.failed + report.pending + report.in_doubt + report.unsent
    settled = [event.outcome for event in events if isinstance(event, Settled)]
    assert len(settled) == report.taken
    assert service.most_posts() <= 1
    doubtful = {outcome.source.source_url for outcome in settled if isinstance(outcome, InDoubt)}
    if not in_doubt:
        assert doubtful == set()
    named = {outcome.asset.asset_id for outcome in settled if getattr(outcome, "asset", None) is not None}
    made = {asset_id for url, asset_id in service.made.items() if url not in doubtful}
    assert made <= named


def check_ids(play: Play, events: list[Event], log: str, *, in_doubt: bool) -> None:
    """Each id that the service gave is known: returned, told in an event, or logged."""
    known = {event.asset.asset_id for event in events if isinstance(event, Accepted)}
    known |= {getattr(thing, "asset_id", "") for thing in play.returned}
    settled = [event.outcome for event in events if isinstance(event, Settled)]
    doubtful = {outcome.source.source_url for outcome in settled if isinstance(outcome, InDoubt)}
    for url, asset_id in play.service.made.items():
        assert asset_id in known or asset_id in log or url in doubtful or (in_doubt and "may exist" in log)


async def check_journal(play: Play, events: list[Event], url: str) -> None:
    """Nothing in it is still being sent, what was told is in it, and what is left (once each) can be taken up."""
    if not play.journal.exists():
        return
    told = {event.asset.asset_id for event in events if isinstance(event, Accepted)}
    async with await Journal.open(play.journal, readonly=True) as journal:
        records = [record async for record in journal.records()]
    assert "sending" not in {record.state for record in records}
    assert told <= {record.remote_id for record in records}
    left: Counter[str] = Counter(record.state for record in records)
    if left in play.seen:
        return
    play.seen.append(left)
    sent_before = list(play.service.posts)
    async with quick(url, **NARROW) as session:  # the same service: a journal belongs to one
        if not play.streams:
            with_doubt = any(record.state == "in_doubt" for record in records)
            try:
                await session.create_group("brand", journal=play.journal)
            except SubmissionInDoubt:
                assert with_doubt
            return
        async with session.ingest(sources(6), group="pg_1", journal=play.journal) as stream:
            outcomes = [outcome async for outcome in stream.outcomes()]
    assert {type(outcome) for outcome in outcomes} <= {Active, InDoubt}
    assert play.service.most_posts() == 1
    assert len(play.service.posts) >= len(sent_before)


@pytest.mark.asyncio
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_cancelled_at_every_await(
    scenario: Callable[[Play], Awaitable[None]], how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    seen: list[Counter[str]] = []
    total = await perform(scenario, tmp_path / "whole", at=None, how=how, log=lambda: caplog.text, seen=seen)
    assert total > 3
    for at in range(1, total + 4):
        caplog.clear()
        await perform(scenario, tmp_path / str(at), at=at, how=how, log=lambda: caplog.text, seen=seen)
