"""What the finder of limits concludes from single refusals, and what holds whatever it is told."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.limits.gateways import Bucket
from benchmarks.limits.simulate import Net, Run, simulate
from seedance_avatar.limits.pacer import SUBMITS, Pacer
from seedance_avatar.limits.rate_finder import (
    MAX_SLACK,
    MIN_SLACK,
    TARGET_REFUSALS,
    DepartureLog,
    RateFinder,
)


def pass_evenly(finder: RateFinder, now: float, seconds: float, rate: float) -> float:
    """Let requests through at an even rate, each answered at once; return when the last left."""
    for _ in range(round(seconds * rate)):
        now += 1.0 / rate
        finder.on_success(now, now, paced=True)
    return now


def refuse(finder: RateFinder, now: float, pause: float = 0.0, *, late: bool = False) -> float | None:
    return finder.on_refusal(now, now, pause, late=late)


def measured(rate: float = 50.0, burst: int = 0) -> tuple[RateFinder, float]:
    """Return a finder that has met a bucket and measured its rate, just cut."""
    finder = RateFinder.start(SUBMITS)
    now = 100.0
    for _ in range(burst):
        finder.on_success(now, now, paced=True)
    for _ in range(3):
        now = pass_evenly(finder, now, 6.0, rate)
        refuse(finder, now + 1e-6)
    return finder, now


def run_against(rate: float, burst: float, net: Net, length: float) -> Run:
    pacer = Pacer.build(rate=None, burst=None, start=SUBMITS, rng=random.Random(3))
    return simulate(pacer, Bucket(rate, burst), length=length, net=net, rng=random.Random(4))


@given(st.lists(st.floats(0.001, 2.0), min_size=1, max_size=400), st.floats(0.1, 100.0))
def test_a_trail_tells_the_depth_however_it_is_thinned_out(gaps: list[float], rate: float) -> None:
    cycle, now, left = DepartureLog(), 0.0, []
    for gap in gaps:
        now += gap
        left.append(now)
        cycle.add(now)
    cycle.end = now
    exact = max(len(left) - count - rate * (now - at) for count, at in enumerate(left))
    assert cycle.total == len(left)
    assert len(cycle._times) <= 64
    assert cycle.depth(rate) <= exact + 1e-6
    if len(gaps) < 64:
        assert cycle.depth(rate) == pytest.approx(exact)


def test_what_is_let_through_between_two_refusals_is_the_limit() -> None:
    finder, _ = measured(50.0)
    assert finder.rate == pytest.approx(50.0, rel=0.03)
    assert finder.rate < 50.0


def test_it_cruises_until_the_next_refusal_is_paid_for_and_then_probes() -> None:
    finder, now = measured(50.0)
    cruising = 0
    while finder.rate < 50.5:
        now = pass_evenly(finder, now, 0.02, 50.0)
        cruising += 1
        assert cruising < 5000
    # Three refusals of three times three hundred so far: with a fourth, the share is to be the target again.
    assert cruising >= min(4.0 / TARGET_REFUSALS - 900, 1.5 / TARGET_REFUSALS) - 2
    assert finder.rate <= 1.1 * 50.5


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_more_let_through_than_the_measure_permits_proves_a_higher_limit() -> None:
    finder, now = measured(50.0)
    rates = []
    for _ in range(40):
        now = pass_evenly(finder, now, 1.0, max(finder.rate, 1.0))
        rates.append(finder.rate)
    assert rates[-1] > 150.0


def test_a_crowd_of_late_ones_that_is_refused_was_too_large_and_the_pace_was_not() -> None:
    finder, now = measured(50.0, burst=50)
    now = pass_evenly(finder, now, 3.0, 49.0)
    before = finder.rate
    refuse(finder, now + 1e-6, late=True)
    assert finder.slack == MAX_SLACK / 2
    assert finder.rate == pytest.approx(before)
    for _ in range(10):
        now = pass_evenly(finder, now + 0.1, 3.0, 49.0)
        refuse(finder, now + 1e-6, late=True)
    assert finder.slack == MIN_SLACK


def test_a_refusal_in_the_middle_of_a_cruise_is_doubted_once() -> None:
    finder, now = measured(50.0, burst=50)
    before = finder.rate
    rates = []
    for _ in range(2):  # the copy of the bucket fills, for less is sent than was measured
        now = pass_evenly(finder, now, 3.0, 40.0)
        refuse(finder, now + 1e-6)
        rates.append(finder.rate)
    assert rates[0] == pytest.approx(before, rel=0.02)
    assert rates[1] < 0.9 * before


def test_a_single_early_refusal_costs_little_and_a_second_much() -> None:
    finder, now = measured(50.0)
    now = pass_evenly(finder, now, 0.2, 50.0)
    refuse(finder, now + 1e-6)
    assert finder.rate > 45.0
    now = pass_evenly(finder, now, 0.1, 30.0)
    refuse(finder, now + 1e-6)
    assert finder.rate < 36.0


def test_while_nothing_is_let_through_the_tries_grow_rare_and_the_rate_stays() -> None:
    finder, now = measured(50.0)
    rate = finder.rate
    waits = []
    for _ in range(10):
        now += 1.0
        wait = refuse(finder, now)
        assert wait is not None
        waits.append(wait)
    assert waits == sorted(waits)
    assert waits[-1] <= 6.0
    finder.on_success(now + 6.0, now + 5.9, paced=True)
    assert finder.rate == pytest.approx(rate, rel=0.03)


def test_a_pause_that_is_asked_for_with_each_refusal_makes_the_cruise_longer() -> None:
    def cruise(pause: float) -> int:
        finder, now = measured(50.0)
        now = pass_evenly(finder, now, 30.0, 50.0)
        refuse(finder, now + 1e-6, pause)
        now += pause
        count = 0
        while finder.why != "no 429 for long: probing" and count < 10_000:
            now = pass_evenly(finder, now, 0.02, 50.0)
            count += 1
        return count

    assert cruise(1.0) > 2 * cruise(0.0)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["passed", "refused", "late", "idled", "old"]),
            st.floats(0.0, 10.0),
            st.floats(0.0, 2.0),
            st.floats(0.0, 60.0),
        ),
        max_size=300,
    ),
    st.integers(1, 80),
)
def test_whatever_it_is_told_the_rate_is_finite_and_no_wait_is_long(
    story: list[tuple[str, float, float, float]], times: int
) -> None:
    finder, now = RateFinder.start(SUBMITS), 1e6
    for what, gap, trip, pause in story:
        now += gap
        if what == "passed":
            for _ in range(times):
                finder.on_success(now, now - trip, paced=True)
        elif what == "idled":
            finder.on_idle(gap)
        else:
            left_at = finder.cut_at - 1.0 if what == "old" and finder.cut_at > 0.0 else now - trip
            wait = finder.on_refusal(now, left_at, pause, late=what == "late")
            assert wait is None or 0.0 < wait < 60.0
        assert math.isfinite(finder.rate)
        assert finder.rate > 0.0
        assert MIN_SLACK <= finder.slack <= MAX_SLACK
        assert finder.why


@pytest.mark.parametrize(("rate", "burst"), [(30.0, 30.0), (100.0, 100.0), (500.0, 500.0)])
def test_an_event_loop_that_always_wakes_late_holds_the_limit_all_the_same(rate: float, burst: float) -> None:
    run = run_against(rate, burst, Net(latency=0.01, timer=0.06), 40.0)
    assert run.held(10.0) >= 0.95
    assert run.refusals <= 0.01


def test_a_client_that_stands_still_now_and_then_holds_a_shallow_bucket() -> None:
    run = run_against(100.0, 10.0, Net(latency=0.01, timer=0.01, stall=0.1), 60.0)
    assert run.held(10.0) >= 0.9
    assert run.refusals <= 0.005
