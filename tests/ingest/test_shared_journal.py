"""One journal, several at once: still one upload of each source."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from rig.world import sources, world

from seedance_avatar import Active, AssetGroup, InDoubt, Outcome, SubmissionInDoubt

pytestmark = pytest.mark.asyncio


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
        fates = Counter(outcome.source for outcomes in runs for outcome in outcomes if isinstance(outcome, Active))
        assert set(fates) == set(sources(40))  # each is active in one of them at least
        assert all(isinstance(outcome, Active) for outcome in await run(0))
        assert it.sandbox.ledger.duplicates() == {}


async def test_a_group_that_two_calls_want_is_made_once(tmp_path: Path) -> None:
    journal = tmp_path / "run.db"
    async with world() as it:
        before = len(it.sandbox.ledger.groups)
        first, second = await asyncio.gather(
            it.session.create_group("twin", journal=journal),
            it.session.create_group("twin", journal=journal),
            return_exceptions=True,
        )
        assert isinstance(first, AssetGroup)
        assert isinstance(second, SubmissionInDoubt)
        assert "ask again" in str(second)
        assert (await it.session.create_group("twin", journal=journal)).group_id == first.group_id
        assert len(it.sandbox.ledger.groups) == before + 1
