"""The promises of a pacer that is told nothing, kept in front of simulated gateways (in simulated time)."""

from __future__ import annotations

import pytest

from benchmarks.limits.scenarios import Scenario, kept_aside, play, tuned

SCENARIOS = {f"{scenario.kind}: {scenario.name}".strip(): scenario for scenario in tuned()}


def named(*parts: str) -> list[Scenario]:
    found = [scenario for name, scenario in SCENARIOS.items() if all(part in name for part in parts)]
    assert found
    return found


@pytest.mark.parametrize(
    ("rate", "burst"), [("5/s", "10"), ("5/s", "50"), ("30/s", "5"), ("30/s", "60"), ("100/s", "50"), ("100/s", "200")]
)
@pytest.mark.parametrize("latency", ["0.005 ", "0.05 "])
def test_it_holds_what_is_permitted_with_few_refusals(rate: str, burst: str, latency: str) -> None:
    for scenario in named(f": {rate} burst {burst} latency {latency}"):
        run, held = play(scenario, 7)
        assert held >= 0.95, scenario.name
        # At 5 a second, 120 s are 600 requests, and each refusal is 0.16 %.
        assert run.refusals <= (0.0085 if rate == "5/s" else 0.0055), scenario.name


@pytest.mark.parametrize("announce", ["", "retry"])
def test_it_is_back_within_ten_seconds_of_a_brake_and_in_no_crowd(announce: str) -> None:
    for rate in (5, 30, 100):
        scenario = SCENARIOS[f"brake of 30 s{', retry' if announce else ''}: {rate}/s {announce}".strip()]
        run, _ = play(scenario, 7)
        assert scenario.back_at is not None
        assert run.recovery(scenario.back_at) <= 10.0, scenario.name
        assert run.crowd(scenario.back_at) <= 2 + 0.2 * rate, scenario.name


@pytest.mark.parametrize("name", ["100/s, then 30/s", "500/s, then 100/s", "100/s, then 300/s"])
def test_it_follows_a_limit_that_changes(name: str) -> None:
    _, held = play(named(f": {name}")[0], 7)
    assert held >= 0.95


def test_it_makes_room_for_another_client_and_takes_the_room_back() -> None:
    _, held = play(named("100/s, another takes 50/s")[0], 7)
    assert held >= 0.9


def test_the_documented_windows_are_kept_with_few_refusals() -> None:
    run, held = play(SCENARIOS["window, limits retry: any 10 s: 50, any minute: 300 limits retry"], 7)
    assert held >= 0.9
    assert run.refusals <= 0.006


def test_gateways_that_nothing_was_tuned_on_are_held_too() -> None:
    runs = [play(scenario, 7) for scenario in kept_aside(7, 12)]
    assert sum(held >= 0.95 for _, held in runs) >= 10
    assert sum(run.refusals <= 0.005 for run, _ in runs) >= 8
