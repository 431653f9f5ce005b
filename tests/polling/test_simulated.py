"""The learned schedule on a clock of its own, against the best fixed interval in hindsight; the benchmark too."""

import random

import pytest

from benchmarks.polling import __main__ as benchmark
from benchmarks.polling.laws import HELD_OUT, TUNED
from benchmarks.polling.simulator import Run, arrivals, best_first_then_every, best_fixed, simulate
from seedance_avatar.options import Polling
from seedance_avatar.polling.schedule import Schedule


def run(
    law: str, count: int = 500, polling: Polling | None = None, limit: float | None = None
) -> tuple[Run, list[float]]:
    rng = random.Random(7)
    accepted = arrivals(rng, count)
    took = TUNED[law](rng, accepted)
    schedule = Schedule.build(polling or Polling.learned(), random.Random(7))
    return Run.of(*simulate(schedule, accepted, took, queries_per_second=limit)), took


@pytest.mark.parametrize(
    ("law", "better"),
    [
        ("lognormal 13 s, narrow", 1.6),
        ("two humps, 6 s and 25 s", 1.5),
        ("nearly fixed 13 s", 1.2),
        ("exponential 10 s", 0.85),
        ("sudden 8 s to 30 s", 1.5),
        ("minutes, lognormal 150 s", 1.0),
    ],
)
@pytest.mark.slow
def test_it_beats_the_best_fixed_interval_at_equal_looks(law: str, better: float) -> None:
    ours, took = run(law)
    assert best_fixed(took, ours.polls)[0].mean > better * ours.mean


def test_a_sudden_speed_up_is_noticed() -> None:
    ours, took = run("sudden 25 s to 6 s", count=1500)
    assert best_fixed(took, ours.polls)[0].mean > 1.3 * ours.mean


@pytest.mark.slow
def test_a_sudden_speed_up_of_what_takes_minutes_keeps_nobody_waiting_long() -> None:
    ours, took = run("sudden 100 s to 30 s", count=1500)
    assert best_fixed(took, ours.polls)[1].p95 > 1.1 * ours.p95


@pytest.mark.slow
def test_a_memoryless_law_is_looked_at_nearly_as_evenly_as_by_a_fixed_interval() -> None:
    ours, took = run("exponential 10 s", count=1500)
    assert best_fixed(took, ours.polls)[1].p95 > 0.87 * ours.p95


def test_a_fixed_schedule_costs_what_hindsight_says_it_costs() -> None:
    ours, took = run("gamma 13 s, shape 4", polling=Polling.fixed(3, 3))
    fixed = best_fixed(took, ours.polls)[0]
    assert ours.mean == pytest.approx(fixed.mean, rel=0.15)
    assert best_first_then_every(took, ours.polls)[0].mean <= fixed.mean * 1.01


def test_under_a_limit_everything_is_still_found_and_a_schedule_tuned_by_hand_is_hardly_better() -> None:
    learned, _ = run("lognormal 13 s, narrow", limit=8)
    fixed, _ = run("lognormal 13 s, narrow", polling=Polling.fixed(10, 3), limit=8)
    assert learned.polls <= 8 / 5 * 1.1
    assert learned.mean < 1.2 * fixed.mean


def test_two_kinds_are_learned_apart() -> None:
    rng = random.Random(3)
    accepted = arrivals(rng, 600)
    took = [3.0 + rng.random() if number % 2 else 60 + 5 * rng.random() for number in range(600)]
    schedule = Schedule.build(Polling.learned(), rng)
    kinds = ("video", "image")
    looks, delays = simulate(schedule, accepted, took, kind=lambda number: kinds[number % 2])
    late = delays[400:]
    assert looks / 600 < 8
    assert sum(late[1::2]) / 100 < 0.8
    assert sum(late[::2]) / 100 < 3


def test_the_laws_are_laws() -> None:
    for name, law in {**TUNED, **HELD_OUT}.items():
        rng = random.Random(name)
        accepted = arrivals(rng, 200)
        took = law(rng, accepted)
        assert len(took) == 200, name
        assert min(took) > 0, name
    assert not TUNED.keys() & HELD_OUT.keys()


@pytest.mark.slow
def test_the_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["polling", "--quick", "--warm"])
    benchmark.main()
    printed = capsys.readouterr().out
    assert "sudden 25 s to 6 s" in printed
    assert "bytes for each pending asset" in printed
