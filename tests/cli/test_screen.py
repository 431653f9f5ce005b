from __future__ import annotations

import io

import pytest
from rich.text import Text
from rig.terminal import Terminal

from seedance_avatar.cli.run.screen import Screen, terminal_size


def test_a_frame_replaces_the_last_one_and_leaves_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    terminal.write("$ command\r\n")
    screen = Screen(terminal)
    screen.draw([Text("a long first line"), Text("two"), Text("three")])
    screen.draw([Text("short"), Text("two")])
    assert terminal.lines == ["$ command", "short", "two"]
    assert terminal.screen.cursor.hidden
    screen.clear()
    assert terminal.lines == ["$ command"]
    assert (terminal.screen.cursor.y, terminal.screen.cursor.x, terminal.screen.cursor.hidden) == (1, 0, False)


def test_a_frame_is_one_write_that_erases_no_line_before_it_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    screen = Screen(terminal)
    screen.draw([Text("one"), Text("two")])
    screen.draw([Text("one"), Text("two")])
    assert len(terminal.writes) == 2
    head = terminal.writes[1].partition("one")[0]
    assert "\x1b[J" not in head
    assert "\x1b[2K" not in head


def test_what_is_printed_above_scrolls_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, rows=5)
    screen = Screen(terminal)
    for number in range(9):
        screen.draw([Text("frame"), Text("foot")], above=f"line {number}\n")
    assert terminal.lines == ["line 7", "line 8", "frame", "foot"]


def test_no_line_is_wider_than_the_window_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, columns=30)
    screen = Screen(terminal)
    for _ in range(3):
        screen.draw([Text("漢字" * 40), Text("x" * 200), Text("end")])
    assert len(terminal.lines) == 3
    assert terminal.lines[1] == "x" * 28 + "…"
    assert terminal.lines[2] == "end"


def test_a_window_too_low_for_the_frame_shows_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, rows=3)
    screen = Screen(terminal)
    for _ in range(3):
        screen.draw([Text(str(number)) for number in range(5)])
    assert terminal.lines == ["0", "1"]


def test_a_window_that_became_narrower_is_counted_in_broken_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, columns=100)
    screen = Screen(terminal)
    screen.draw([Text("x" * 90), Text("y" * 10), Text("z" * 40)])
    terminal.resize(40)
    screen.draw([Text("x" * 90)])
    # 90 columns are three rows in 40, 10 and 40 are one each: that is how far it went up.
    assert "\r\x1b[5A" in terminal.writes[-1]
    assert screen.width() == 39


def test_a_frame_uses_no_more_than_a_hundred_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, columns=250)
    assert Screen(terminal).width() == 100


def test_colours_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    Screen(terminal, colour=False).draw([Text("red", style="red")])
    assert "\x1b[31m" not in terminal.writes[-1]
    Screen(terminal).draw([Text("red", style="red")])
    assert "\x1b[31m" in terminal.writes[-1]


def test_what_is_no_terminal_has_a_usual_size() -> None:
    assert terminal_size(io.StringIO()) == (80, 24)
