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
    assert lines[2] == " 4.9/s now   ETA 2 h 45 min   pace 5.0/s (as documented)"
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
    assert attrs.evolve(SNAPSHOT, throttled_ago=12.0).limit == "pace 5.0/s (a 429 12 s ago)"
    assert attrs.evolve(SNAPSHOT, throttled_ago=61.0).limit == "pace 5.0/s (as documented)"


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
        "4.9/s now, ETA 2 h 45 min; pace 5.0/s (as documented); stopping; "
        "last error: line 812, face-07 (https://cdn.example.com/…): [red]no subject[/red] was found\\x1b[2J\n"
    )
    assert line(attrs.evolve(SNAPSHOT, total=None)).startswith("1,112 in 2 min")


def test_a_live_view_keeps_what_was_said_above_its_frame_and_takes_the_frame_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(monkeypatch)
    terminal.write("$ command\r\n")
    view = LiveView(terminal)
    view.show(SNAPSHOT)
    view.say("a line of \x1b[31mnews")
    view.show(SNAPSHOT)
    assert terminal.lines[:2] == ["$ command", "a line of \\x1b[31mnews"]
    assert [text.rstrip() for text in terminal.lines[2:]] == [text.plain for text in frame(SNAPSHOT, 79)]
    assert terminal.screen.cursor.hidden
    view.say("the last")
    view.close()
    assert terminal.lines == ["$ command", "a line of \\x1b[31mnews", "the last"]
    assert (terminal.screen.cursor.y, terminal.screen.cursor.x, terminal.screen.cursor.hidden) == (3, 0, False)


def test_a_shorter_frame_leaves_nothing_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    view = LiveView(terminal)
    view.show(attrs.evolve(SNAPSHOT, trouble="stopping", total=None))
    short = attrs.evolve(SNAPSHOT, last_error="", title="x")
    view.show(short)
    assert terminal.lines == [text.plain for text in frame(short, 79)]


def test_a_frame_is_one_write_so_that_no_half_of_it_is_ever_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    view = LiveView(terminal)
    view.show(SNAPSHOT)
    before = len(terminal.writes)
    view.show(SNAPSHOT)
    assert len(terminal.writes) == before + 1


def test_what_is_printed_scrolls_past_above_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, rows=9)
    view = LiveView(terminal)
    for number in range(9):
        view.show(SNAPSHOT)
        view.print(f'{{"line": {number}, "long": "{"x" * 100}"}}\n')
    assert [text[:10] for text in terminal.lines[:3:2]] == ['{"line": 7', '{"line": 8']
    assert sum("brand-avatar" in text for text in terminal.lines) == 1


@pytest.mark.parametrize("columns", [79, 50, 40, 21])
def test_a_window_that_became_narrower_keeps_no_rest_of_the_wider_frame(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    terminal = Terminal(monkeypatch, columns=100)
    view = LiveView(terminal)
    view.say("above")
    view.show(SNAPSHOT)
    terminal.resize(columns)
    view.show(SNAPSHOT)
    assert terminal.lines == ["above", *(text.plain for text in frame(SNAPSHOT, columns - 1))]


def test_what_the_terminal_echoes_at_ctrl_c_leaves_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    view = LiveView(terminal)
    view.show(SNAPSHOT)  # its last line is as long as the window is wide
    terminal.write("^C")
    view.say("stopping")
    view.close()
    assert terminal.lines == ["stopping"]


def test_a_window_too_low_for_the_frame_shows_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, rows=3)
    view = LiveView(terminal)
    for _ in range(3):
        view.show(SNAPSHOT)
    assert terminal.lines[0] == frame(SNAPSHOT, 79)[0].plain
    view.close()
    assert sum("brand-avatar" in text for text in terminal.lines) == 0


def test_a_frame_uses_no_more_than_a_hundred_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, columns=250)
    LiveView(terminal).show(SNAPSHOT)
    assert max(map(len, terminal.lines)) == 100


def test_colours_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    LiveView(terminal).show(SNAPSHOT)
    assert "\x1b[1;32m" in "".join(terminal.writes)
    terminal = Terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    LiveView(terminal).show(SNAPSHOT)
    assert "\x1b[1;32m" not in "".join(terminal.writes)


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
