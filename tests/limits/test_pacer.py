"""What a pacer promises, whatever it is told and whenever."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.limits.gateways import Bucket
from benchmarks.limits.simulate import Net, simulate
from seedance_avatar.limits.pacer import QUERIES, SUBMITS, AnnouncedLimit, Pacer
from seedance_avatar.options import Limits
from seedance_avatar.wire.response import RateHints

moments = st.floats(0, 1e9)
waits = st.one_of(st.floats(0, 0.5), st.floats(0, 60), st.just(0.0))


def pacer_of(rate: float | None, burst: int | None = None) -> Pacer:
    return Pacer.build(rate=rate, burst=burst, start=SUBMITS, rng=random.Random(1))


def leave_while(pacer: Pacer, now: float, until: float, most: int = 5000) -> list[float]:
    """Let everything out that may go until a moment, as a gate does with work always waiting."""
    left: list[float] = []
    while now <= until and len(left) < most:
        at = pacer.next_at(now)
        if at > now:
            now = at
            continue
        pacer.take(now)
        left.append(now)
    return left


def most_within(left: list[float], span: float) -> int:
    return max(bisect_right(left, at + span - 1e-6) - index for index, at in enumerate(left))


def test_a_given_burst_leaves_at_once_and_then_the_rate_holds() -> None:
    left = leave_while(pacer_of(5.0, 3), 1e6, 1e6 + 0.65)
    assert [round(at - 1e6, 6) for at in left] == [0, 0, 0, 0.2, 0.4, 0.6]


@given(st.floats(0.01, 1000), st.integers(1, 50), moments, st.lists(waits, max_size=60), st.floats(0.01, 30))
def test_never_more_than_burst_and_rate_in_any_time(
    rate: float, burst: int, start: float, pauses: list[float], span: float
) -> None:
    pacer, now, left = pacer_of(rate, burst), start, []
    for pause in pauses:
        now += pause
        some = leave_while(pacer, now, now + 0.1, most=20)
        left += some
        now = max(now, *some) if some else now
    if left:
        assert most_within(left, span) <= burst + rate * span + 1e-3


@pytest.mark.parametrize(
    ("limits", "submits", "queries"),
    [
        (Limits.default(), [(50, 10), (300, 60)], [(500, 10), (3_000, 60)]),
        (Limits.vip(), [(1_000, 60)], [(10_000, 60)]),
        (Limits.svip(), [(2_000, 60)], [(30_000, 60)]),
    ],
    ids=["default", "vip", "svip"],
)
def test_the_presets_keep_within_every_documented_window(
    limits: Limits, submits: list[tuple[int, float]], queries: list[tuple[int, float]]
) -> None:
    for rate, burst, start, windows in (
        (limits.submits_per_second, limits.submit_burst, SUBMITS, submits),
        (limits.queries_per_second, limits.query_burst, QUERIES, queries),
    ):
        assert rate is not None
        assert burst is not None
        pacer = Pacer.build(rate=rate, burst=burst, start=start)
        idle = 20.0  # and a second burst after it
        left = leave_while(pacer, 0.0, 65.0, most=10**6)
        left += leave_while(pacer, 65.0 + idle, 65.0 + idle + 61.0, most=10**6)
        for most, span in windows:
            assert burst + rate * span <= most
            assert most_within(left, span) <= most


@settings(max_examples=200)
@given(
    st.sampled_from([None, 1e-9, 0.3, 5.0, 500.0, 1e9]),
    st.sampled_from([None, 1, 50]),
    moments,
    st.lists(
        st.tuples(
            st.sampled_from(["take", "ok", "429", "429 hint", "back", "brake", "wait"]),
            st.one_of(st.floats(0, 100), st.just(math.nan), st.just(math.inf), st.floats(-5, 5)),
            st.floats(0, 3),
        ),
        max_size=150,
    ),
)
def test_whatever_happens_the_next_moment_is_finite_and_comes(
    rate: float | None, burst: int | None, start: float, story: list[tuple[str, float, float]]
) -> None:
    pacer, now = pacer_of(rate, burst), start
    for what, number, pause in story:
        now += pause
        if what == "take":
            pacer.take(now)
        elif what == "back":
            pacer.take(now)
            pacer.cancel()
        elif what == "brake":
            pacer.brake(now, number)
        elif what != "wait":
            whole = 7 if not math.isfinite(number) else int(number)
            hints = RateHints(limit=60, remaining=whole, reset=number, retry_after=number)
            pacer.on_answer(now, left_at=now - pause, throttled=what != "ok", hints=None if what == "429" else hints)
        at = pacer.next_at(now)
        assert math.isfinite(at)
        assert at >= now
        assert pacer.rate is None or (math.isfinite(pacer.rate) and pacer.rate > 0)
        assert pacer.why
    # Asked again at the moment that was named, it lets one go: nothing is put off for ever.
    at = pacer.next_at(now)
    for _ in range(200):
        if pacer.next_at(at) <= at:
            break
        at = pacer.next_at(at)
    assert pacer.next_at(at) == at


@given(st.sampled_from([None, 5.0]), st.sampled_from([None, 1, 10]), st.integers(0, 30))
def test_what_is_given_back_was_never_taken(rate: float | None, burst: int | None, before: int) -> None:
    pacer = pacer_of(rate, burst)
    now = 100.0
    pacer.on_answer(now, left_at=now, throttled=False, hints=None)
    for _ in range(before):
        now = pacer.next_at(now)
        pacer.take(now)
    at = pacer.next_at(now)
    pacer.take(at)
    pacer.cancel()
    assert pacer.next_at(at) == pytest.approx(at)


@given(st.sampled_from([None, 5.0, 1e9]), st.sampled_from([None, 50]), st.floats(0.01, 1e4), st.floats(0, 1e4))
def test_a_brake_holds_and_the_longer_one_wins(
    rate: float | None, burst: int | None, first: float, second: float
) -> None:
    pacer = pacer_of(rate, burst)
    pacer.brake(10.0, first)
    pacer.brake(10.0, second)
    assert pacer.next_at(10.0) == pytest.approx(10.0 + max(first, second))


def test_nothing_leaves_in_a_burst_after_a_brake() -> None:
    for pacer in (pacer_of(10.0, 50), pacer_of(None)):
        pacer.brake(0.0, 30.0)
        left = leave_while(pacer, 0.0, 31.0)
        assert left[0] >= 30.0
        assert most_within(left, 0.1) <= 3


def test_nothing_leaves_in_a_burst_after_a_quiet_time_when_the_rate_is_found() -> None:
    pacer = pacer_of(None)
    for _ in range(5):
        pacer.take(pacer.next_at(0.0))
    pacer.on_answer(1.0, left_at=0.5, throttled=False, hints=None)
    left = leave_while(pacer, 3600.0, 3600.5)
    assert most_within(left, 0.04) <= 2


def test_a_late_timer_is_made_up_for() -> None:
    pacer = pacer_of(500.0)
    now, left = 0.0, 0
    while now < 10.0:
        at = pacer.next_at(now)
        if at > now:
            now = at + 0.003  # every wake-up comes late
            continue
        pacer.take(now)
        left += 1
    assert left > 0.98 * 5000


def test_some_tens_leave_in_the_first_second_when_answers_come() -> None:
    pacer, now, left = pacer_of(None), 0.0, 0
    while now < 1.0:
        at = pacer.next_at(now)
        if at > now:
            now = at
            continue
        pacer.take(now)
        left += 1
        pacer.on_answer(now + 0.01, left_at=now, throttled=False, hints=None)
    assert 20 <= left <= 50


def test_without_any_answer_only_a_few_leave() -> None:
    left = leave_while(pacer_of(None), 0.0, 3.0)
    assert 6 <= len(left) <= 10


def test_refusals_of_what_left_before_a_cut_do_not_cut_again() -> None:
    pacer = pacer_of(None)
    for number in range(200):
        at = pacer.next_at(number / 20)
        pacer.take(at)
        pacer.on_answer(at + 0.02, left_at=at, throttled=False, hints=None)
    before = pacer.rate
    assert pacer.on_answer(20.0, left_at=19.0, throttled=True, hints=None)
    after = pacer.rate
    assert before is not None
    assert after is not None
    assert after < before
    for number in range(50):
        assert not pacer.on_answer(20.1, left_at=19.0 + number / 100, throttled=True, hints=None)
    assert pacer.rate == after


@pytest.mark.parametrize("every", [1.0, 600.0])
def test_a_quiet_time_is_not_taken_for_a_low_limit(every: float) -> None:
    pacer, now = pacer_of(None), 0.0
    for number in range(400):  # some work at full pace, refused twice, then hours of almost none
        now = max(now + (every if number > 100 else 0.0), pacer.next_at(now))
        pacer.take(now)
        pacer.on_answer(now + 0.02, left_at=now, throttled=number in {40, 80}, hints=None)
    before = pacer.rate
    for number in range(30):  # and a burst of it that is refused at the end
        now = pacer.next_at(now)
        pacer.take(now)
        pacer.on_answer(now + 0.02, left_at=now, throttled=number == 29, hints=None)
    assert before is not None
    assert pacer.rate is not None
    assert pacer.rate > 0.4 * before


def test_it_tells_since_when_nothing_is_let_through() -> None:
    pacer = pacer_of(None)
    seen = [pacer.blocked_since]
    for now, throttled in ((1.0, False), (2.0, True), (3.0, True), (4.0, False)):
        pacer.on_answer(now, left_at=now - 0.5, throttled=throttled, hints=None)
        seen.append(pacer.blocked_since)
    assert seen == [None, None, 2.0, 2.0, None]


def test_while_nothing_is_let_through_only_single_tries_leave() -> None:
    pacer, now = pacer_of(None), 0.0
    left = []
    while now < 60.0:
        at = pacer.next_at(now)
        if at > now:
            now = at
            continue
        pacer.take(now)
        left.append(now)
        pacer.on_answer(now + 0.01, left_at=now, throttled=True, hints=None)
        now += 0.01
    assert len(left) < 30
    assert max(later - earlier for earlier, later in pairwise(left)) <= 5.1


def test_a_retry_after_is_kept_and_a_senseless_one_is_not() -> None:
    pacer = pacer_of(5.0)
    pacer.on_answer(1.0, left_at=0.9, throttled=True, hints=RateHints(retry_after=30.0))
    assert pacer.next_at(1.0) == 31.0
    pacer = pacer_of(5.0)
    for senseless in (-1.0, math.nan, math.inf, 0.0):
        pacer.on_answer(1.0, left_at=0.9, throttled=True, hints=RateHints(retry_after=senseless))
    assert pacer.next_at(1.0) == 1.0


def test_an_announced_allowance_lowers_even_a_given_rate() -> None:
    pacer = pacer_of(20.0)
    run = simulate(
        pacer, Bucket(10.0, 60.0), length=60.0, net=Net(latency=0.02), rng=random.Random(1), announce="limits"
    )
    assert pacer.rate == pytest.approx(10.0, rel=0.2)
    assert pacer.why == "from the service's headers"
    assert run.refusals == 0.0
    assert run.held(10.0) > 0.95


@given(st.lists(st.tuples(st.integers(-3, 80), st.integers(-3, 80), st.floats(0, 3)), max_size=50))
def test_senseless_announcements_never_stop_it(seen: list[tuple[int, int, float]]) -> None:
    announced, now = AnnouncedLimit(), 0.0
    for limit, remaining, pause in seen:
        now += pause
        announced.observe(now, RateHints(limit=limit, remaining=remaining, reset=pause), throttled=False)
        assert announced.ceiling >= 0.2
