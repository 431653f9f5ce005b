from __future__ import annotations

import asyncio
import io
import json

import attrs
import pytest
from rig.terminal import Terminal

from seedance_avatar import IngestStats, SessionStats
from seedance_avatar.cli.run.eventlog import EventLog
from seedance_avatar.cli.run.progress import JsonView, LiveView, PlainView, Snapshot, frame, keep_showing, line

SNAPSHOT = Snapshot(
    title="sources.csv → brand-avatar",
    total=50_000,
    stats=IngestStats(elapsed=130, taken=1_332, submitting=2, polling=118, active=1_100, failed=12, queued=100),
    session=SessionStats(submitting=2, querying=3, submit_limit=5.0, submit_why="as documented"),
    rate=4.93,
    eta=9_900,
    throttled_ago=None,
    last_error="line 812, face-07 (https://cdn.example.com/…): [red]no subject[/red] was found\x1b[2J",
)


def test_a_frame_says_everything_in_eighty_columns() -> None:
    lines = [text.plain for text in frame(SNAPSHOT, 79)]
    assert lines[0].startswith(" sources.csv → brand-avatar  ╸━")
    assert lines[0].endswith("1,112 of 50,000   2 %")
    assert lines[1].split() == [
        "active",
        "1,100",
        "failed",
        "12",
        "in",
        "doubt",
        "0",
        "pending",
        "118",
        "in",
        "flight",
        "5",
    ]
    assert lines[2] == " 4.9/s now   ETA 2 h 45 min   limit 5.0/s (as documented)"
    assert lines[3].startswith(" last error line 812, face-07")
    assert "\\x1b[2J" in frame(SNAPSHOT, 200)[3].plain
    assert all(len(text) <= 79 for text in lines)


def test_large_counts_of_every_kind_fit_eighty_columns() -> None:
    stats = IngestStats(active=49_100, failed=561, in_doubt=12, pending=90)
    (counts,) = (text.plain for text in frame(attrs.evolve(SNAPSHOT, stats=stats, rejected=200), 79)[1:2])
    assert counts == " active 49,100  failed 561  in doubt 12  pending 90  in flight 5  rejected 200"


@pytest.mark.parametrize("width", [20, 33, 40, 60, 79, 100])
def test_a_frame_fits_every_width(width: int) -> None:
    full = attrs.evolve(
        SNAPSHOT, trouble="the service cannot be reached: " + "x" * 100, title="漢字の名前" * 10, rejected=3
    )
    for snapshot in (SNAPSHOT, full, attrs.evolve(full, total=None), attrs.evolve(full, total=0)):
        assert all(text.cell_len <= width for text in frame(snapshot, width))


def test_the_limit_is_explained_by_a_429_as_long_as_that_is_fresh() -> None:
    assert attrs.evolve(SNAPSHOT, throttled_ago=12.0).limit == "limit 5.0/s (a 429 12 s ago)"
    assert attrs.evolve(SNAPSHOT, throttled_ago=61.0).limit == "limit 5.0/s (as documented)"


def test_the_bar_is_full_only_when_all_is_done() -> None:
    stats = IngestStats(taken=1_000, active=999, polling=1)
    nearly = frame(attrs.evolve(SNAPSHOT, total=1_000, stats=stats), 79)[0].plain
    assert nearly.endswith(" 99 %")
    whole = attrs.evolve(SNAPSHOT, total=1_000, stats=IngestStats(taken=1_000, active=1_000, exhausted=True))
    assert frame(whole, 79)[0].plain.endswith("100 %")
    assert "ETA" not in frame(whole, 79)[2].plain


def test_a_plain_line_is_one_safe_line_with_everything() -> None:
    out = io.StringIO()
    PlainView(out).show(attrs.evolve(SNAPSHOT, trouble="stopping"))
    assert out.getvalue() == (
        "1,112 of 50,000 in 2 min 10 s: 1,100 active, 12 failed, 0 in doubt, 118 pending, 5 in flight; "
        "4.9/s now, ETA 2 h 45 min; limit 5.0/s (as documented); stopping; "
        "last error: line 812, face-07 (https://cdn.example.com/…): [red]no subject[/red] was found\\x1b[2J\n"
    )
    assert line(attrs.evolve(SNAPSHOT, total=None)).startswith("1,112 in 2 min")


def test_a_live_view_keeps_what_was_said_above_its_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    view = LiveView(terminal)
    view.show(SNAPSHOT)
    view.say("a line of \x1b[31mnews")
    view.show(SNAPSHOT)
    assert terminal.lines[0] == "a line of \\x1b[31mnews"
    assert terminal.lines[1].startswith(" sources.csv")
    view.say("the last")
    view.close()
    assert terminal.lines == ["a line of \\x1b[31mnews", "the last"]


def test_json_progress_is_one_object_a_line() -> None:
    out = io.StringIO()
    view = JsonView(EventLog(out))
    view.show(SNAPSHOT)
    view.say("news")
    progress, note = (json.loads(text) for text in out.getvalue().splitlines())
    assert progress["event"] == "progress"
    assert progress["stats"]["active"] == 1_100
    assert progress["done"] == 1_112
    assert note == {"event": "note", "text": "news"}


@pytest.mark.asyncio
async def test_showing_goes_on_until_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    monkeypatch.setattr(LiveView, "every", 0.001)
    shown = asyncio.Event()
    count = 0

    def take() -> Snapshot:
        nonlocal count
        count += 1
        if count == 3:
            shown.set()
        return SNAPSHOT

    task = asyncio.create_task(keep_showing(LiveView(terminal), take))
    await shown.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
