"""What is retried and what a failed status request means: plain functions, for any facts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.client.retry import (
    NOT_FOUND_GRACE,
    RetryBudget,
    after_failed_poll,
    as_in_doubt,
    backoff,
    retry_delay,
)
from seedance_avatar.errors import (
    ApiError,
    AuthError,
    AvatarError,
    ConnectionFailed,
    ContentRefused,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    SubmissionInDoubt,
)
from seedance_avatar.options import Retry

REFUSALS: tuple[type[ApiError], ...] = (AuthError, QuotaExhausted, NotFound, InvalidRequest, ContentRefused)
errors = st.sampled_from(
    [
        *(kind("no", status=400) for kind in REFUSALS),
        AuthError("no", status=401),
        ConnectionFailed("gone"),
        ConnectionFailed("gone", fatal=True),
        ConnectionFailed("gone", answer_lost=True),
        ProtocolError("not JSON", status=200),
        ServerError("ill", status=500),
        SubmissionInDoubt("lost"),
    ]
) | st.builds(lambda wait: RateLimited("too many", status=429, retry_after=wait), st.none() | st.floats(0, 5000))
retries = st.builds(Retry, attempts=st.integers(1, 6), cap=st.floats(0, 60), patience=st.floats(0, 5000))


@given(
    error=errors,
    attempt=st.integers(1, 10),
    retry=retries,
    patient=st.booleans(),
    blocked_for=st.floats(0, 5000),
    seed=st.integers(),
)
def test_only_what_may_be_repeated_is_and_never_for_longer_than_is_allowed(
    *,
    error: AvatarError,
    attempt: int,
    retry: Retry,
    patient: bool,
    blocked_for: float,
    seed: int,
) -> None:
    rng = random.Random(seed)
    pause = retry_delay(error, attempt=attempt, retry=retry, patient=patient, blocked_for=blocked_for, rng=rng)
    if pause is None:
        return
    assert 0 <= pause <= retry.cap
    assert isinstance(error, ConnectionFailed | ProtocolError | RateLimited | ServerError)
    asked = getattr(error, "retry_after", None) or 0.0
    if not patient:
        assert attempt < retry.attempts
        assert asked <= retry.max_retry_after
    elif isinstance(error, RateLimited):
        assert blocked_for + asked <= retry.patience
    assert not (isinstance(error, ConnectionFailed) and error.fatal)


@given(errors, st.booleans())
def test_only_an_unclear_answer_to_a_submission_is_in_doubt(error: AvatarError, repeatable: bool) -> None:  # noqa: FBT001 - drawn
    raised = as_in_doubt(error, repeatable=repeatable)
    unclear = isinstance(error, ProtocolError | ServerError) and not repeatable
    assert (raised is not error) is unclear
    assert not unclear or isinstance(raised, SubmissionInDoubt)


@given(
    error=errors,
    age=st.floats(0, 1e6),
    late=st.booleans(),
    misses=st.integers(0, 10),
    attempts=st.integers(1, 6),
    out_of_patience=st.booleans(),
)
def test_an_item_ends_all_others_only_for_a_refused_key_or_a_dead_network(
    *,
    error: AvatarError,
    age: float,
    late: bool,
    misses: int,
    attempts: int,
    out_of_patience: bool,
) -> None:
    meaning = after_failed_poll(
        error, age=age, late=late, misses=misses, attempts=attempts, out_of_patience=out_of_patience
    )
    if meaning == "end all":
        away = isinstance(error, ConnectionFailed | ProtocolError | ServerError) and out_of_patience
        assert getattr(error, "status", None) == 401 or away
    if meaning == "late":
        assert late
    if isinstance(error, RateLimited) and not out_of_patience:
        assert meaning == "again"


@pytest.mark.parametrize(("age", "meaning"), [(0.0, "again"), (NOT_FOUND_GRACE - 1, "again"), (NOT_FOUND_GRACE, "end")])
def test_a_404_is_believed_after_a_minute(age: float, meaning: str) -> None:
    error = NotFound("unknown", status=404)
    facts = {"late": False, "misses": 0, "attempts": 3, "out_of_patience": False}
    assert after_failed_poll(error, age=age, **facts) == meaning  # type: ignore[arg-type]  # a dict of mixed types


@given(st.integers(1, 10_000), st.floats(0, 60), st.floats(0, 600), st.integers())
def test_a_backoff_is_never_over_its_bound(attempt: int, base: float, cap: float, seed: int) -> None:
    assert (
        0 <= backoff(attempt, base=base, cap=cap, rng=random.Random(seed)) <= min(cap, base * 2.0 ** min(attempt, 64))
    )


def test_retries_are_a_fifth_of_many_requests_and_ten_a_second_of_few() -> None:
    few, many = RetryBudget(), RetryBudget()
    assert sum(few.allows(0.0) for _ in range(1000)) == 100
    for _ in range(10_000):
        many.sent(0.0)
    assert sum(many.allows(0.0) for _ in range(10_000)) == 2_000
    assert not many.allows(0.0)
    assert many.allows(60.0)
