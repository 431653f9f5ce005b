"""``benchmarks/README.md`` shows the simulation of very large ingests as it is; what can be checked in it is right."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from benchmarks.scaling import PROCESSING, Plan, main, measure, simulate, tables, told


def test_the_readme_of_the_benchmarks_holds_the_simulation_s_own_tables() -> None:
    readme = Path(__file__).parents[2] / "benchmarks" / "README.md"
    assert tables() in readme.read_text(encoding="utf-8")
    assert main(["--check"]) == 0


def test_submissions_bound_what_has_queries_enough() -> None:
    run = simulate(Plan(assets=3_000, submits=10.0, queries=100.0, looks=5.0))
    assert run.bound == "the accounts' limits"
    assert run.seconds == pytest.approx(300.0 + PROCESSING[-1], abs=2.0)
    assert run.pending == pytest.approx(10.0 * sum(PROCESSING) / len(PROCESSING), rel=0.1)
    assert run.requests == 18_000


def test_queries_bound_where_there_are_too_few() -> None:
    run = simulate(Plan(assets=3_000, submits=10.0, queries=25.0, looks=5.0))
    assert run.bound == "the accounts' limits of queries"
    assert run.seconds == pytest.approx(600.0 + PROCESSING[0], abs=5.0)


def test_more_accounts_help_until_something_else_binds() -> None:
    def seconds(accounts: int, workers: int, upstream: float | None = None) -> float:
        million = Plan(assets=10**6, submits=30.0, queries=500.0, process=100.0)
        return simulate(attrs.evolve(million, accounts=accounts, workers=workers, upstream=upstream)).seconds

    assert seconds(2, 1) == pytest.approx(seconds(1, 1) / 2, rel=0.01)
    assert seconds(10, 1) == pytest.approx(10**4, rel=0.01)
    assert seconds(10, 2) == pytest.approx(seconds(10, 1) / 2, rel=0.01)
    assert seconds(10, 2, upstream=30.0) == pytest.approx(seconds(1, 1), rel=0.01)


@pytest.mark.slow
def test_a_measured_run_stays_within_its_limit() -> None:
    _, rate, looks, throttled = measure(2, 40, 40.0, time_scale=0.02)
    assert rate <= 40.0 * 1.6  # the burst counts for much in so few
    assert looks >= 1.0
    assert throttled == 0


def test_times_as_people_say_them() -> None:
    assert [told(s) for s in (59, 600, 7200, 2e6)] == ["59 s", "10.0 minutes", "2.0 hours", "23.1 days"]
