"""Something inside breaks: the run ends with that error at once, and every source that was taken has its outcome."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rig.leaks import no_leaks
from rig.world import sources, world

from seedance_avatar.ingest.admission import Admission
from seedance_avatar.ingest.outcome_queue import OutcomeQueue
from seedance_avatar.ingest.pipeline import Pipeline
from seedance_avatar.ingest.recorder import Recorder
from seedance_avatar.ingest.run import Run

INSIDE = [
    (Pipeline, "_room"),
    (Pipeline, "_admit"),
    (Pipeline, "_carry_out"),
    (Pipeline, "_enlist"),
    (Pipeline, "_submit"),
    (Pipeline, "_accepted"),
    (Pipeline, "_watch"),
    (Pipeline, "_finished"),
    (Pipeline, "_settle"),
    (Pipeline, "_book"),
    (Run, "_stop_reading"),
    (Admission, "admit"),
    (Admission, "forget"),
    (Recorder, "claim"),
    (Recorder, "recognise"),
    (Recorder, "before_send"),
    (Recorder, "accepted"),
    (Recorder, "ended"),
    (Recorder, "done"),
    (OutcomeQueue, "settle"),
]


class Broken(Exception):  # noqa: N818 - the name says what happened
    """What breaks."""


def break_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after: int) -> None:
    whole, calls = getattr(owner, name), 0

    def breaking(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after + 1:
            raise Broken
        return whole(*arguments, **named)

    monkeypatch.setattr(owner, name, breaking)


@pytest.mark.asyncio
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(("owner", "name"), INSIDE)
async def test_a_run_that_breaks_inside_ends_with_the_error_and_an_outcome_for_each(
    owner: type, name: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_once(monkeypatch, owner, name, after)
    outcomes: list[Any] = []
    raised: BaseException | None = None
    async with no_leaks(), world() as w, asyncio.timeout(5):
        stream = w.session.ingest(sources(40), group=w.group, max_pending=8, journal=tmp_path / "run.db")
        try:
            async with stream:
                async for outcome in stream.outcomes():
                    outcomes.append(outcome)  # noqa: PERF401 - what came before it broke counts
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at below
            raised = error
        report = stream.report
    assert not isinstance(raised, TimeoutError)
    assert report.taken == report.active + report.failed + report.pending + report.in_doubt + report.unsent
    counts = Counter(outcome.source for outcome in outcomes)
    assert len(outcomes) == report.taken == len(counts)
    assert w.sandbox.ledger.duplicates() == {}
    if raised is None:
        assert report.taken == 40, "it may be called less often than that"
    else:
        assert isinstance(raised, Broken | ExceptionGroup)
