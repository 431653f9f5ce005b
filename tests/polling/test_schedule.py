"""The schedule: what goes in comes out, at its time, once, and nothing is left behind."""

import json
import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from seedance_avatar.options import Polling
from seedance_avatar.polling.schedule import PendingItem, Schedule

KINDS = ("image", "video", "audio", "generation")
POLLINGS = [Polling.learned(), Polling.fixed(0, 0), Polling.fixed(5, 10), Polling.learned(price=5)]

pollings = st.sampled_from(POLLINGS)
seeds = st.integers(0, 2**32)
times = st.floats(0, 1e5)
states = st.recursive(
    st.none() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KINDS, "ages"]), inner, max_size=4),
    max_leaves=10,
)


def build(polling: Polling = POLLINGS[0], seed: int = 0) -> Schedule:
    return Schedule.build(polling, random.Random(seed))


def test_a_fixed_schedule_is_one_line_and_looks_first_then_every() -> None:
    schedule = build(Polling.fixed(5, 10))
    schedule.add(PendingItem("image", 100.0), 100.0)
    due = schedule.next_due()
    assert due is not None
    assert 105 <= due <= 105.5
    assert schedule.pop(104.9) is None
    pending = schedule.pop(due)
    assert pending is not None
    schedule.still_pending(pending, due)
    again = schedule.next_due()
    assert again is not None
    assert due + 10 <= again <= due + 11


def test_zero_looks_again_at_once() -> None:
    schedule = build(Polling.fixed(0, 0))
    schedule.add(PendingItem("video", 7.0), 7.0)
    for _ in range(3):
        pending = schedule.pop(7.0)
        assert pending is not None
        schedule.still_pending(pending, 7.0)
    assert len(schedule) == 1


def test_each_kind_may_have_its_own_schedule() -> None:
    schedule = Schedule.build(Polling.learned(), random.Random(1), {"generation": Polling.fixed(5, 10)})
    schedule.add(PendingItem("generation", 0.0), 0.0)
    due = schedule.next_due()
    assert due is not None
    assert 5 <= due <= 5.5


def test_what_was_accepted_at_once_is_not_looked_at_at_once() -> None:
    for polling in (Polling.learned(), Polling.fixed(5, 10)):
        schedule = build(polling)
        for _ in range(1000):
            schedule.add(PendingItem("image", 0.0), 0.0)
        first = schedule.next_due()
        assert first is not None
        together = 0
        while schedule.pop(first + 0.01) is not None:
            together += 1
        assert together < 100


@settings(max_examples=60)
@given(pollings, seeds, st.lists(st.tuples(st.sampled_from(KINDS), times), min_size=1, max_size=40), times)
def test_everything_added_comes_out_once_in_order_and_never_early(
    polling: Polling, seed: int, added: list[tuple[str, float]], now: float
) -> None:
    schedule = build(polling, seed)
    for number, (kind, accepted_at) in enumerate(added):
        schedule.add(PendingItem(kind, accepted_at, number), now)
    assert len(schedule) == len(added)
    out = []
    clock = now
    while (due := schedule.next_due()) is not None:
        assert due >= now
        if due > clock:
            assert schedule.pop(math.nextafter(due, 0)) is None
            clock = due
        pending = schedule.pop(clock)
        assert pending is not None
        out.append(pending.payload)
    assert sorted(out) == list(range(len(added)))
    assert len(schedule) == 0


@settings(max_examples=60)
@given(pollings, seeds, times, st.floats(0, 1000), st.floats(0, 50))
def test_a_deadline_gets_its_look_and_only_one_is_forced(
    polling: Polling, seed: int, accepted_at: float, allowed: float, stall: float
) -> None:
    schedule = build(polling, seed)
    deadline = accepted_at + allowed
    schedule.add(PendingItem("image", accepted_at, deadline=deadline), accepted_at)
    for _ in range(300):
        due = schedule.next_due()
        assert due is not None
        assert due <= deadline
        now = max(due, accepted_at) + stall
        pending = schedule.pop(now)
        assert pending is not None
        if now >= deadline:
            break
        schedule.still_pending(pending, now)
    else:
        assert polling == Polling.fixed(0, 0)
        return
    # The look past the deadline was made: what puts it back is the caller's wish, at its ordinary distance.
    schedule.defer(pending, now + 30)
    assert schedule.next_due() == now + 30


def test_an_answer_that_comes_after_the_deadline_to_a_look_before_it_brings_one_more_look() -> None:
    schedule = build(Polling.fixed(1, 100))
    schedule.add(PendingItem("image", 0.0, deadline=5.0), 0.0)
    pending = schedule.pop(2.0)
    assert pending is not None
    schedule.still_pending(pending, 9.0, looked_at=2.0)
    assert schedule.next_due() == 9.0


def test_what_is_deferred_comes_back_then_or_at_its_deadline() -> None:
    schedule = build(Polling.fixed(1, 1))
    schedule.add(PendingItem("image", 0.0), 0.0)
    pending = schedule.pop(2.0)
    assert pending is not None
    schedule.defer(pending, 60.0)
    assert schedule.next_due() == 60.0
    schedule.add(PendingItem("image", 0.0, deadline=40.0), 0.0)
    pending = schedule.pop(2.0)
    assert pending is not None
    schedule.defer(pending, 60.0)
    assert schedule.next_due() == 40.0


def test_what_nobody_waits_for_any_more_is_gone_and_leaves_nothing() -> None:
    schedule = build()
    for _ in range(20):
        many = [PendingItem("image", 0.0) for _ in range(1000)]
        for pending in many:
            schedule.add(pending, 0.0)
        for pending in many:
            schedule.discard(pending)
            schedule.discard(pending)
    assert len(schedule) == 0
    assert schedule.next_due() is None
    assert schedule.pop(1e9) is None
    assert len(schedule._heap) <= 64


def test_where_more_is_due_than_may_be_looked_at_the_likelier_goes_first_but_nothing_starves() -> None:
    schedule = build()
    fresh = [PendingItem("image", 100.0, "fresh", deadline=104.0) for _ in range(50)]
    ripe = [PendingItem("image", 60.0, "ripe", deadline=104.0) for _ in range(50)]
    for pending in fresh + ripe:
        schedule.add(pending, 100.0)
    assert [getattr(schedule.pop(104.0), "payload", None) for _ in range(50)] == ["ripe"] * 50
    # One a second may go, and something ripe comes every second: the fresh wait ten seconds for it, not for ever.
    order = []
    for second in range(80):
        now = 104.0 + second
        schedule.add(PendingItem("image", now - 60, "ripe", deadline=now), now)
        taken = schedule.pop(now)
        assert taken is not None
        order.append(taken.payload)
    assert "fresh" in order[:14]
    assert order.count("fresh") == 50


@settings(max_examples=60)
@given(seeds, st.lists(st.tuples(st.sampled_from("apdfsl"), st.floats(0, 30)), max_size=120))
def test_what_is_pending_is_exactly_what_was_added_and_not_ended(seed: int, steps: list[tuple[str, float]]) -> None:
    schedule = build(seed=seed)
    inside: set[PendingItem] = set()
    out: list[PendingItem] = []
    now = 0.0
    for step, passed in steps:
        now += passed
        if step == "a":
            pending = PendingItem("video", now, deadline=now + 100)
            schedule.add(pending, now)
            inside.add(pending)
        elif step == "p":
            taken = schedule.pop(now)
            assert (taken is None) == all(pending.due > now for pending in inside)
            if taken is not None:
                inside.remove(taken)
                out.append(taken)
        elif step == "l" and inside:
            lost = min(inside, key=lambda pending: pending.due)
            schedule.discard(lost)
            inside.remove(lost)
        elif out and step in "dfs":
            pending = out.pop()
            if step == "d":
                schedule.defer(pending, now + 5)
                inside.add(pending)
            elif step == "s":
                schedule.still_pending(pending, now)
                inside.add(pending)
            else:
                schedule.finished(pending, now)
        assert len(schedule) == len(inside)
        assert all(pending.due < math.inf for pending in inside)
        due = schedule.next_due()
        assert (due is None) == (not inside)


def test_what_was_learned_survives_into_the_next_run() -> None:
    schedule = build()
    schedule.restore({"audio": {"ages": [0, 50, 60], "hazard": [0, 0.01, 5]}, "video": "nonsense", "image": None})
    now = 0.0
    for number in range(300):
        now = max(now, float(number))
        schedule.add(PendingItem("video", now), now)
        while (due := schedule.next_due()) is not None and due <= number + 1:
            now = max(now, due)
            pending = schedule.pop(now)
            assert pending is not None
            if now - pending.accepted_at >= 50:
                schedule.finished(pending, now, looked_at=now)
            else:
                schedule.still_pending(pending, now, looked_at=now)
    kept = json.loads(json.dumps(schedule.snapshot(), allow_nan=False))
    assert sorted(kept) == ["audio", "video"]
    again = build()
    again.add(PendingItem("video", 0.0), 0.0)
    again.restore(kept)
    firsts = []
    for number in range(100):
        pending = PendingItem("video", 0.0, number)
        again.add(pending, 0.0)
        firsts.append(pending.due)
    # Before anything was learned the first look at a video comes after some 11 s.
    assert 30 < sorted(firsts)[50] < 56


@given(states)
@settings(max_examples=60)
def test_a_state_that_cannot_be_used_is_ignored(state: object) -> None:
    schedule = build()
    schedule.restore(state)
    assert schedule.snapshot() == {}


def test_failures_teach_nothing() -> None:
    schedule = build()
    for _ in range(100):
        pending = PendingItem("image", 0.0)
        schedule.add(pending, 0.0)
        schedule.discard(pending)
    assert len(schedule) == 0
    assert schedule.snapshot() == {}


def test_a_guessed_time_of_acceptance_teaches_nothing() -> None:
    schedule = build()
    for _ in range(100):
        pending = PendingItem("image", 0.0, teaches=False)
        schedule.add(pending, 0.0)
        schedule.finished(pending, 1.0)
    assert schedule.snapshot() == {}


def test_a_law_that_has_become_faster_brings_forward_what_is_scheduled_but_not_what_was_deferred() -> None:
    schedule = build()
    waiting = [PendingItem("generation", 0.0) for _ in range(50)]
    for pending in waiting:
        schedule.add(pending, 0.0)
    deferred = PendingItem("generation", 0.0)
    schedule.add(deferred, 0.0)
    deferred.taken_at = 1.0
    schedule.defer(deferred, 400.0)
    before = [pending.due for pending in waiting]
    for number in range(60):
        quick = PendingItem("generation", float(number))
        schedule.add(quick, float(number))
        schedule.finished(quick, number + 2.0)
    assert sum(new.due < old for new, old in zip(waiting, before, strict=True)) > 40
    assert deferred.due == 400.0
