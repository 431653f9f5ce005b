"""The plan: no other sequence of looks is cheaper."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedance_avatar.polling.plan import PollPlan


def cost(looks: list[float], ages: list[float], finished: list[float], price: float, delay_scale: float) -> float:
    """Return what a sequence of looks costs, by summing up the law in small steps."""
    total, before, steps = 0.0, 0.0, 60

    def done(age: float) -> float:
        for (low, high), (start, end) in zip(itertools.pairwise(ages), itertools.pairwise(finished), strict=True):
            if age <= high:
                return start + (end - start) * (age - low) / (high - low)
        return finished[-1]

    for look in looks:
        total += price * (1 - done(before))
        for step in range(steps):
            low = before + (look - before) * step / steps
            high = before + (look - before) * (step + 1) / steps
            late = look - (low + high) / 2
            total += (done(high) - done(low)) * (late + late * late / delay_scale)
        before = look
    return total


def sequence(plan: PollPlan, end: float) -> list[float]:
    looks = [plan.next_look(0.0)]
    while looks[-1] < end - 1e-9:
        looks.append(min(end, plan.next_look(looks[-1])))
    return looks


@given(
    st.lists(st.floats(0.0, 1.0), min_size=7, max_size=7),
    st.integers(0, 6),
    st.floats(0.05, 3.0),
    st.floats(1.0, 100.0),
)
@settings(max_examples=40)
def test_no_sequence_of_looks_at_the_knots_is_cheaper(
    masses: list[float], heaviest: int, price: float, delay_scale: float
) -> None:
    masses[heaviest] = 1.0  # only their shares matter, so this leaves none out but *nothing to share*
    ages = [float(age) for age in range(8)]
    finished = [0.0, *itertools.accumulate(mass / sum(masses) for mass in masses)]
    plan = PollPlan.solve(ages, finished, price, delay_scale)
    ours = cost(sequence(plan, 7.0), ages, finished, price, delay_scale)
    for count in range(7):
        for chosen in itertools.combinations(ages[1:-1], count):
            assert ours <= cost([*chosen, 7.0], ages, finished, price, delay_scale) * 1.01 + 1e-6


def test_an_even_hazard_is_looked_at_evenly_at_the_known_distance() -> None:
    ages = [step / 4 for step in range(400)]
    plan = PollPlan.solve(ages, [-math.expm1(-age / 10) for age in ages], 0.2, 1e9)
    looks = sequence(plan, 40.0)
    gaps = [high - low for low, high in itertools.pairwise(looks)]
    assert all(gap == pytest.approx(math.sqrt(2 * 0.2 * 10), rel=0.2) for gap in gaps[:-1])


def test_a_certain_time_is_looked_at_once_just_after_it() -> None:
    ages = [0.0, 12.9, 13.0, 13.1, 60.0]
    plan = PollPlan.solve(ages, [0.0, 0.0, 0.5, 1.0, 1.0], 0.2, 5.0)
    assert plan.next_look(0.0) == pytest.approx(13.1)


def test_a_dearer_look_is_made_less_often_and_dread_closes_the_long_gaps() -> None:
    ages = [step / 4 for step in range(400)]
    finished = [1 / (1 + (10 / age) ** 4) if age else 0.0 for age in ages]
    counts = [len(sequence(PollPlan.solve(ages, finished, price, 4.0), 60.0)) for price in (0.05, 0.2, 1.0)]
    assert counts[0] > counts[1] > counts[2]
    longest = [
        max(b - a for a, b in itertools.pairwise(sequence(PollPlan.solve(ages, finished, 0.2, delay_scale), 60.0)))
        for delay_scale in (1.0, 1000.0)
    ]
    assert longest[0] < longest[1]


@given(st.floats(0, 1e6), st.floats(-0.5, 0.5))
def test_the_next_look_always_lies_ahead(age: float, jitter: float) -> None:
    ages = [step / 2 for step in range(100)]
    plan = PollPlan.solve(ages, [-math.expm1(-age / 5) for age in ages], 0.2, 4.0)
    assert age < plan.next_look(age, jitter) < math.inf
