from __future__ import annotations

import pytest

from seedance_avatar import (
    Active,
    ApiError,
    Asset,
    AssetFailed,
    AssetSource,
    AuthError,
    ConnectionFailed,
    Failed,
    InDoubt,
    InvalidSource,
    JournalError,
    Outcome,
    Pending,
    QuotaExhausted,
    SubmissionInDoubt,
    Unsent,
    WaitTimeout,
)
from seedance_avatar.cli.exits import EXIT_CODES, Exit, exit_for_error, exit_for_signal
from seedance_avatar.cli.run.tally import Tally, reason_of

SOURCE = AssetSource("https://cdn.example.com/a.jpg?sig=CANARY", key="k1")
ASSET = Asset(asset_id="pa_1", status="processing")
AUTH = AuthError("no", status=401)
OUTCOMES: dict[str, Outcome] = {
    "active": Active(source=SOURCE, asset=Asset(asset_id="pa_1", status="active")),
    "failed": Failed(source=SOURCE, error=InvalidSource("too long")),
    "pending": Pending(source=SOURCE, asset=ASSET, error=WaitTimeout("late")),
    "in_doubt": InDoubt(source=SOURCE, error=SubmissionInDoubt("lost")),
    "unsent": Unsent(source=SOURCE, error=ConnectionFailed("no network")),
    "refused": Unsent(source=SOURCE, error=AUTH),
    "no_money": Pending(source=SOURCE, asset=ASSET, error=QuotaExhausted("empty", status=402)),
}


@pytest.mark.parametrize(
    ("names", "rejected", "code"),
    [
        ([], 0, Exit.DONE),
        (["active"], 0, Exit.DONE),
        (["active"], 1, Exit.FAILED),
        (["active", "failed"], 0, Exit.FAILED),
        (["failed", "pending"], 3, Exit.UNFINISHED),
        (["failed", "in_doubt"], 0, Exit.UNFINISHED),
        (["active", "unsent"], 0, Exit.UNFINISHED),
        (["failed", "in_doubt", "refused"], 1, Exit.REFUSED),
        (["active", "no_money"], 0, Exit.REFUSED),
    ],
)
def test_refused_comes_before_unfinished_before_failed(names: list[str], rejected: int, code: Exit) -> None:
    tally = Tally(rejected=rejected)
    for name in names:
        tally.add(OUTCOMES[name])
    assert tally.exit is code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AUTH, 4),
        (QuotaExhausted("x", status=403), 4),
        (JournalError("held"), 64),
        (InvalidSource("x"), 64),
        (ConnectionFailed("x"), 3),
        (SubmissionInDoubt("x"), 3),
    ],
)
def test_an_error_that_ended_the_command_has_its_code(error: Exception, code: int) -> None:
    assert exit_for_error(error) == code


def test_every_code_is_documented() -> None:
    documented = [int(line.split()[0]) for line in EXIT_CODES.splitlines()[2:]]
    assert documented == sorted([*Exit, *map(exit_for_signal, (1, 2, 15))])


def test_reasons_are_gathered_across_ids_and_name_the_first_sources() -> None:
    tally = Tally()
    for number in range(5):
        asset = Asset(asset_id=f"pa_{number}", status="failed", reason="no subject was found")
        source = AssetSource("https://cdn.example.com/a.jpg?sig=CANARY", key=f"k{number}")
        tally.add(Failed(source=source, error=AssetFailed(asset), asset=asset))
    assert tally.last_error == "k4: no subject was found"
    tally.add(OUTCOMES["in_doubt"])
    first, second = tally.reasons.top(5)
    assert (first.text, first.outcome, first.count) == ("no subject was found", "failed", 5)
    assert [label.split()[0] for label in first.named] == ["k0", "k1", "k2"]
    assert (second.outcome, second.count) == ("in_doubt", 1)
    assert "CANARY" not in repr([reason.named for reason in (first, second)]) + tally.last_error


def test_request_ids_do_not_make_reasons_differ() -> None:
    errors = [
        ApiError(f"bad name (request id: {number})", status=400, code="x", request_id=f"r{number}") for number in (1, 2)
    ]
    assert {reason_of(error) for error in errors} == {"HTTP 400 x: bad name"}


def test_a_service_that_never_says_the_same_twice_does_not_fill_the_memory() -> None:
    tally = Tally()
    for number in range(1_000):
        tally.add(Failed(source=SOURCE, error=ApiError(f"reason {number}", status=400)))
    reasons = tally.reasons.top(10_000)
    assert len(reasons) <= 201
    assert sum(reason.count for reason in reasons) == 1_000
    assert reasons[0].text == "other reasons"
