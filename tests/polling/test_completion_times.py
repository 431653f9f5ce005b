"""The learned distribution: estimated from polls that bracket, followed when it moves, kept for the next run."""

import json
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedance_avatar.polling.completion_times import TYPICAL, CompletionTimes
from seedance_avatar.polling.hazard import bracket, em_step, interpolate, log_logistic, resampled, smoothed

anything = st.floats(allow_nan=True, allow_infinity=True)
json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["ages", "hazard", "x"]), inner),
    max_leaves=20,
)


def sound(times: CompletionTimes) -> None:
    assert times.ages[0] == 0
    assert all(low < high for low, high in zip(times.ages, times.ages[1:], strict=False))
    assert all(0 <= value <= 1 for value in times.finished)
    assert all(low <= high + 1e-12 for low, high in zip(times.finished, times.finished[1:], strict=False))
    assert 0 < times.median < math.inf


def taught(
    times: CompletionTimes, draw: Callable[[], float], count: int, *, start: float = 0.0, gap: float = 2.0
) -> CompletionTimes:
    """Let ``times`` see items looked at about every ``gap`` seconds, one accepted each second."""
    rng = random.Random(5)
    for number in range(count):
        took, age, before = draw(), gap * rng.random(), 0.0
        while age < took:
            times.observe(before, age, done=False)
            before, age = age, age + gap
        times.observe(before, age, done=True)
        if times.wants_refit(start + number):
            times.refit(start + number)
    return times


@pytest.mark.parametrize("kind", [*TYPICAL, "something else"])
def test_before_anything_is_learned_the_recorded_times_are_assumed(kind: str) -> None:
    times = CompletionTimes.of(kind)
    sound(times)
    assert times.median == pytest.approx(TYPICAL.get(kind, 13.0), rel=0.02)
    assert times.finished_by(0) == 0
    assert times.finished_by(1e12) > 0.99


@pytest.mark.slow
def test_a_law_is_found_though_every_time_is_only_known_within_two_seconds() -> None:
    def draw() -> float:
        drawn.append(rng.uniform(20, 40))
        return drawn[-1]

    laws, drawn = [], list[float]()
    for seed in range(4):
        rng = random.Random(seed)
        laws.append(taught(CompletionTimes.of("image"), draw, 800))
        sound(laws[-1])
        # At some 16 looks each, this is how many its memory holds.
        held = drawn[-128:]
        for age in (15, 25, 30, 35, 45):
            share = sum(time <= age for time in held) / len(held)
            assert laws[-1].finished_by(age) == pytest.approx(share, abs=0.08)
    for age, share in ((15, 0.0), (25, 0.25), (30, 0.5), (35, 0.75), (45, 1.0)):
        assert sum(times.finished_by(age) for times in laws) / 4 == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize(("first", "then"), [(25.0, 5.0), (5.0, 25.0)])
def test_a_law_that_jumps_is_followed_within_tens_of_completions(first: float, then: float) -> None:
    rng = random.Random(2)
    times = taught(CompletionTimes.of("image"), lambda: first * rng.lognormvariate(0, 0.2), 600)
    assert times.median == pytest.approx(first, rel=0.15)
    taught(times, lambda: then * rng.lognormvariate(0, 0.2), 80, start=600)
    assert times.median == pytest.approx(then, rel=0.25)


@pytest.mark.parametrize("scale", [0.02, 20_000.0])
def test_a_law_far_from_the_assumed_one_is_reached(scale: float) -> None:
    rng = random.Random(3)
    times = CompletionTimes.of("image")
    now = 0.0
    for _ in range(400):
        took, age, before = scale * rng.lognormvariate(0, 0.3), scale / 4, 0.0
        while age < took:
            times.observe(before, age, done=False)
            before, age = age, age * 1.3
        times.observe(before, age, done=True)
        now += 10 * scale
        if times.wants_refit(now):
            times.refit(now)
    sound(times)
    assert times.median == pytest.approx(scale, rel=0.3)


def test_what_never_finishes_makes_the_law_slower() -> None:
    times = CompletionTimes.of("image")
    before = times.finished_by(60)
    for _ in range(200):
        times.observe(0.0, 30.0, done=False)
        times.observe(30.0, 60.0, done=False)
    times.refit(1.0)
    assert times.finished_by(60) < before / 2


def test_an_earlier_run_is_remembered_and_gives_way_to_what_is_seen() -> None:
    rng = random.Random(4)
    earlier = taught(CompletionTimes.of("image"), lambda: 40 * rng.lognormvariate(0, 0.2), 400)
    times = CompletionTimes.restored(json.loads(json.dumps(earlier.snapshot())))
    assert times is not None
    sound(times)
    for age in (10, 30, 40, 50, 80):
        assert times.finished_by(age) == pytest.approx(earlier.finished_by(age), abs=0.05)
    times.observe(38.0, 42.0, done=True)
    times.observe(36.0, 41.0, done=True)
    times.refit(0.0)
    assert times.median == pytest.approx(40, rel=0.15)
    taught(times, lambda: 10 * rng.lognormvariate(0, 0.2), 300)
    assert times.median == pytest.approx(10, rel=0.2)


@given(json_like)
def test_a_snapshot_that_cannot_be_used_is_ignored(snapshot: object) -> None:
    times = CompletionTimes.restored(snapshot)
    if times is not None:
        sound(times)


@pytest.mark.parametrize(
    ("ages", "hazard"),
    [
        ([0, 1], [0]),
        ([0], [0]),
        ([0, 1], [0, -1]),
        ([0, 1], [0, 0]),
        ([1, 2], [0, 1]),
        ([0, 1], [1, 2]),
        ([0, 2, 1], [0, 1, 2]),
        ([0, 1, 2], [0, 2, 1]),
        ([0, math.nan], [0, 1]),
        ([0, 1], [0, math.inf]),
        ([0, True], [0, 1]),
        ([0, "1"], [0, 1]),
        (list(range(2000)), list(range(2000))),
    ],
)
def test_a_snapshot_that_is_no_law_is_refused(ages: list[object], hazard: list[object]) -> None:
    assert CompletionTimes.restored({"ages": ages, "hazard": hazard}) is None


@given(st.lists(st.tuples(anything, anything, st.booleans()), max_size=40))
@settings(max_examples=60)
def test_whatever_is_observed_the_law_stays_a_law(looks: list[tuple[float, float, bool]]) -> None:
    times = CompletionTimes.of("video")
    for number, (after, by, done) in enumerate(looks):
        times.observe(after, by, done=done)
        if number % 7 == 0:
            times.refit(float(number))
    times.refit(100.0)
    sound(times)
    assert json.dumps(times.snapshot(), allow_nan=False)
    assert CompletionTimes.restored(times.snapshot()) is not None


def test_a_refit_is_not_wanted_before_something_was_seen_nor_too_often() -> None:
    times = CompletionTimes.of("image")
    assert not times.wants_refit(0.0)
    times.observe(0.0, 5.0, done=False)
    times.observe(5.0, 10.0, done=True)
    assert times.wants_refit(0.0)
    times.refit(0.0)
    for _ in range(100):
        times.observe(5.0, 10.0, done=True)
    assert not times.wants_refit(0.01)
    assert times.wants_refit(2.0)


def test_the_long_memory_forgets_slowly_and_holds_no_more_than_its_ring() -> None:
    rng = random.Random(6)
    times = taught(CompletionTimes.of("image"), lambda: rng.uniform(5, 15), 3000)
    assert times.completed == 3000
    assert len(times._after) == len(times._by) == 2048


ages = [0.0, 1.0, 2.0, 4.0, 8.0]


def test_a_line_is_read_between_its_knots_and_beyond() -> None:
    values = [0.0, 1.0, 2.0, 3.0, 4.0]
    assert interpolate(ages, values, 3.0) == 2.5
    assert interpolate(ages, values, 100.0) == 4.0
    assert resampled(ages, values, [0.0, 0.5, 3.0, 8.0, 12.0]) == [0.0, 0.5, 2.5, 4.0, 5.0]


@pytest.mark.parametrize(
    ("after", "by", "expected"),
    [
        (0.0, 1.0, (0, 0.0, 1, 0.0)),
        (0.5, 3.0, (0, 0.5, 2, 0.5)),
        (2.0, 8.0, (2, 0.0, 3, 1.0)),
        (5.0, 99.0, (3, 0.25, 3, 1.0)),
        (50.0, 99.0, (3, 1.0, 3, 1.0)),
    ],
)
def test_a_stretch_is_placed_among_the_knots(after: float, by: float, expected: tuple[int, float, int, float]) -> None:
    assert bracket(ages, after, by, done=True) == (True, *expected)


def test_an_even_hazard_is_its_own_evening() -> None:
    even = smoothed(ages, ages, 2)
    assert even == pytest.approx([1, 1, 2, 4])


@pytest.mark.parametrize(("width", "even"), [(0.0, 20), (1e-3, 20), (0.16, 6.7), (1e6, 0.1)])
def test_a_spike_is_evened_out_over_what_looks_cannot_tell_apart(width: float, even: float) -> None:
    fine = [step / 10 for step in range(201)]
    spiked = [float(age) if age < 10 else age + 2 for age in fine]  # 2 more in the bin that ends at 10
    assert smoothed(fine, spiked, 0, width)[99] == pytest.approx(0.1 * (1 + even), rel=0.01)


def test_exact_looks_give_the_share_that_finished() -> None:
    looks = [bracket(ages, 0.0, 1.0, done=False)] * 50 + [bracket(ages, 0.0, 1.0, done=True)] * 50
    hazard = log_logistic(ages, 3.0, 2.0)
    for _ in range(200):
        hazard = em_step(hazard, looks, window=1e9, prior_events=[0.0] * 4, prior_weight=1e-6)
    assert 1 - math.exp(-hazard[1]) == pytest.approx(0.5, abs=0.01)
