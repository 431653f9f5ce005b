"""The proofs of ``python -m tests.proof`` in a size for every day."""

from __future__ import annotations

import asyncio
from pathlib import Path

import attrs
import pytest
from proof.ground import accounts_agree, forge, group_in, told
from proof.kills import prove_kills
from proof.soak import prove_faults, prove_soak
from proof.worker import Task

from seedance_avatar.sandbox import Sandbox


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_nothing_is_sent_twice_and_no_id_is_lost() -> None:
    found = asyncio.run(prove_kills(8, sources=150, seed=20260101))
    assert found.wrong == []
    assert found.kills == 8
    assert found.accepted > 0
    assert found.in_doubt <= found.under_way


@pytest.mark.slow
def test_a_soak_with_faults_of_all_kinds_and_kills_ends_with_equal_accounts() -> None:
    found = asyncio.run(prove_soak(2_000, every=1.5, outage=(0.3, 1.5)))
    assert found.wrong == []
    assert len(found.outages) == 3
    assert found.ends.total() == 2_000
    assert all(found.struck.values())


def test_every_fault_at_two_percent_leaves_one_outcome_for_each_source() -> None:
    found = asyncio.run(prove_faults(700))
    assert found.wrong == []
    assert found.ends.total() == 700
    assert found.ends["Active"] > 400


@pytest.mark.asyncio
async def test_the_comparison_sees_what_does_not_agree(tmp_path: Path) -> None:
    """A proof that cannot fail proves nothing: one outcome changed, one lost, one upload too many."""
    async with forge() as workers, Sandbox(time_scale=0.001) as sandbox:
        journal = tmp_path / "run.db"
        task = Task(
            url=sandbox.url,
            group=await group_in(sandbox),
            journal=str(journal),
            trace=str(tmp_path / "trace"),
            outcomes=str(tmp_path / "outcomes"),
            count=20,
            first_look=0.02,
        )
        await workers.run(task)
        outcomes = told(tmp_path / "outcomes")
        assert await accounts_agree(sandbox, outcomes, journal, 20) == []
        assert "not of the same" in (await accounts_agree(sandbox, outcomes[1:], journal, 20))[0]
        swapped = [outcomes[1], outcomes[1], *outcomes[2:]]
        assert await accounts_agree(sandbox, swapped, journal, 20)
        await workers.run(attrs.evolve(task, journal=str(tmp_path / "another.db")))
        assert any("uploaded 2 times" in it for it in await accounts_agree(sandbox, outcomes, journal, 20))
