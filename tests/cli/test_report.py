"""The report of a journal: what is counted, what is said, and what a hostile text cannot do."""

from __future__ import annotations

import re
import subprocess
import sys
from array import array
from html.parser import HTMLParser
from pathlib import Path

import pytest
import pytest_asyncio
from rig.histories import BEGAN, HOSTILE, Past
from rig.journals import child

from seedance_avatar import InvalidInput, JournalError, JournalReader, SessionStateError
from seedance_avatar.cli.app import run
from seedance_avatar.cli.commands.report import report
from seedance_avatar.cli.report.advice import next_steps
from seedance_avatar.cli.report.charts import draw_speed, draw_timeline, draw_waits
from seedance_avatar.cli.report.history import Worked, quantile, read_history
from seedance_avatar.cli.report.page import report_page
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Run

VOID = {"meta", "br", "img", "link", "input", "hr", "path", "use"}


class Reader(HTMLParser):
    """Checks the nesting of a page and keeps its attributes and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


@pytest_asyncio.fixture
async def past(tmp_path: Path) -> Past:
    past = Past(tmp_path / "run.db")
    await past.run(300, fail=HOSTILE)
    return past


@pytest.mark.asyncio
async def test_every_thing_is_counted_once(past: Past) -> None:
    history = await read_history(str(past.path))
    assert (history.count(), history.count("active"), history.count("failed")) == (300, 285, 6)
    assert (history.count("refused"), history.doubted, history.unfinished) == (6, 3, 0)
    assert (len(history.sent), len(history.accepted)) == (300, 291)
    assert (len(history.active), len(history.failed)) == (285, 12)
    assert sum(len(waits) for waits in history.to_active.values()) == 285
    assert 5 <= history.to_active["image"][0] <= history.to_active["image"][-1] <= 20.1
    assert history.groups == {"pg_1": "hero"}
    assert {(reason.outcome, reason.count) for reason in history.reasons.top(20)} == {("failed", 6), ("refused", 6)}
    assert sum(more for _, more in history.throttled) == 280 // 50
    assert history.requests == 280


@pytest.mark.asyncio
async def test_a_pause_between_runs_is_left_out(tmp_path: Path) -> None:
    past = Past(tmp_path / "run.db")
    await past.run(20)
    first = past.now - BEGAN
    past.now += 86_400
    await past.run(20)
    history = await read_history(str(past.path))
    assert len(history.worked.spans) == 2
    assert history.worked.total == pytest.approx(past.now - BEGAN - 86_400, abs=0.01)
    assert history.worked.resumed == [pytest.approx(first, abs=0.01)]
    assert max(history.active) <= history.worked.total


def test_worked_time_ends_where_the_last_thing_happened_in_a_run_that_was_killed() -> None:
    runs = [
        Run(started_at=100, ended_at=None),
        Run(started_at=1000, ended_at=1010),
        Run(started_at=1011, ended_at=1020),
    ]
    worked = Worked.of(runs, [101, 130, 1005])
    assert list(worked.spans) == [(100, 130), (1000, 1020)]
    assert (worked.total, worked.at(90), worked.at(110), worked.at(500), worked.at(1001)) == (50, 0, 10, 30, 31)
    assert [worked.together(101, last) for last in (130, 1001)] == [True, False]
    assert Worked.of([], []).total == 0


def test_quantiles() -> None:
    ordered = array("d", range(1, 101))
    assert [quantile(ordered, share) for share in (0, 0.5, 0.9, 0.99, 1)] == [1, 50, 90, 99, 100]
    assert quantile(array("d", [7]), 0.5) == 7


@pytest.mark.asyncio
async def test_what_became_active_after_a_pause_teaches_no_time(tmp_path: Path) -> None:
    for started, now in ((True, BEGAN), (False, BEGAN + 3600)):
        async with await Journal.open(tmp_path / "run.db", clock=iter([now] * 20).__next__) as journal:
            entry = journal.entry(kind="image", group_id="pg_1", url="https://cdn.example.com/1.jpg")
            await journal.claim([entry])
            if started:
                await journal.sending(entry.fingerprint)
                await journal.accepted(entry.fingerprint, "pa_1")
            else:
                journal.ended(entry.fingerprint, "active")
    history = await read_history(str(tmp_path / "run.db"))
    assert (history.apart, len(history.active), list(history.to_active["image"])) == (1, 1, [])
    assert draw_waits(history) is None
    assert "What to do next" not in report_page(history, steps=[], now=BEGAN)


@pytest.mark.asyncio
async def test_the_page_is_well_formed_and_loads_nothing(past: Past) -> None:
    history = await read_history(str(past.path))
    page = Reader(report_page(history, steps=next_steps(history, manifest="m.csv"), now=past.now))
    assert "script" not in page.tags
    assert "img" not in page.tags
    for name in ("src", "srcset", "action", "data", "poster", "background"):
        assert page.values(name) == []
    assert all(value.startswith("#") for value in page.values("href") + page.values("xlink:href"))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in page.values("href")} <= set(ids)
    assert set(" ".join(page.values("aria-labelledby") + page.values("aria-describedby")).split()) <= set(ids)
    policy = next(value for tag, name, value in page.attributes if (tag, name) == ("meta", "content"))
    assert policy.startswith("default-src 'none'")


@pytest.mark.asyncio
async def test_hostile_text_stays_text_and_no_secret_is_told(past: Past) -> None:
    history = await read_history(str(past.path))
    markup = report_page(history, steps=next_steps(history, manifest="<script>.csv"), now=past.now)
    text = " ".join("".join(Reader(markup).text).split())
    assert "</title><script>document.title='HACKED'</script> javascript:alert(1) \\u202egpj.exe \\x1b[31mred" in text
    assert "<img src=x onerror=alert(1)> (https://cdn.example.com/1.jpg?…)" in text
    assert "request id <b>id</b>" in text
    assert "'<script>.csv' --group-name hero" in text
    assert "CANARY" not in markup
    assert "\x1b" not in markup
    assert "\u202e" not in markup


@pytest.mark.asyncio
async def test_the_charts_have_the_figures_of_the_run(past: Past) -> None:
    history = await read_history(str(past.path))
    timeline, waits, speed = draw_timeline(history), draw_waits(history), draw_speed(history)
    assert timeline.says.startswith("300 submitted, 291 accepted, 285 active, 12 failed in 3")
    assert timeline.rows[-1][1:] == ["300", "291", "285", "12"]
    assert waits is not None
    assert [row[:2] for row in waits.rows] == [["images", "141"], ["videos", "72"], ["audio", "72"]]
    assert "5 times 429" in speed.says
    assert sum(int(row[-1]) for row in speed.rows) == 5
    assert {row[3] for row in speed.rows} == {"20.0"}
    for chart in (timeline, waits, speed):
        assert chart.svg.count("<svg") == 2
        assert not re.search("#0100", chart.svg)
        assert "var(--" in chart.svg
    assert draw_timeline(history).svg == timeline.svg


@pytest.mark.asyncio
async def test_what_to_do_names_the_very_command(past: Past, tmp_path: Path) -> None:
    steps = next_steps(await read_history(str(past.path)), manifest="my sources.csv")
    commands = [step.command for step in steps if step.command]
    ingest = f"seedance-avatar ingest 'my sources.csv' --group-name hero --journal {past.path}"
    assert commands == [f"{ingest} --{option}" for option in ("on-in-doubt resend", "retry-refused", "retry-failed")]
    async with await Journal.open(tmp_path / "other.db") as journal:
        entries = [
            journal.entry(kind="image", group_id="pg_9", url=f"https://cdn.example.com/{number}.jpg")
            for number in range(2)
        ]
        await journal.claim(entries)
    (resume, stands) = next_steps(await read_history(str(tmp_path / "other.db")), manifest=None)
    assert resume.command == f"seedance-avatar ingest MANIFEST --group-id pg_9 --journal {tmp_path / 'other.db'}"
    assert resume.says.startswith("2 sources are not finished")
    assert stands.says.startswith("Replace MANIFEST")


@pytest.mark.asyncio
async def test_an_empty_journal_has_a_report(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "run.db"):
        pass
    history = await read_history(str(tmp_path / "run.db"))
    assert next_steps(history, manifest=None) == []
    assert "Ingest report: run.db" in "".join(Reader(report_page(history, steps=[], now=BEGAN)).text)


@pytest.mark.asyncio
async def test_the_file_is_bounded_whatever_is_in_the_journal(tmp_path: Path) -> None:
    past = Past(tmp_path / "run.db")
    await past.run(200)
    small = await read_history(str(past.path))
    size = len(report_page(small, steps=[], now=BEGAN))
    for name in ("sent", "accepted", "active", "failed"):
        setattr(small, name, array("d", sorted(past.draw.uniform(0, 60) for _ in range(50_000))))
    small.to_active = {"image": array("d", sorted(past.draw.expovariate(0.1) for _ in range(50_000)))}
    small.limits = [(number / 100, past.draw.uniform(1, 30)) for number in range(6_000)]
    small.throttled = [(number / 100, 1) for number in range(6_000)]
    assert len(report_page(small, steps=[], now=BEGAN)) < size + 100_000


def test_the_command_prints_or_writes(past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(past.path)]) == 0
    told = capsys.readouterr().out
    assert f"{past.path}: 300 sources, begun 2026-09-21 14:13:20 UTC" in told
    assert (
        "  active         285   ready to be used\n  failed          12   refused, or failed while processing\n" in told
    )
    assert "  in doubt         3   sent, but the answer was lost\n" in told
    assert "images to active" in told
    assert "--on-in-doubt resend" in told
    assert "\x1b" not in told
    page = tmp_path / "report.html"
    page.write_text("an earlier one")
    assert run(["report", str(past.path), "--html", str(page)]) == 0
    assert "the report is in" in capsys.readouterr().err
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert page.stat().st_mode & 0o777 == 0o644
    assert run(["report", str(past.path), "--html", "-"]) == 0
    assert capsys.readouterr().out.endswith("</html>\n")
    assert [it.name for it in tmp_path.iterdir() if it.suffix in {".html", ".tmp"}] == ["report.html"]


@pytest.mark.asyncio
async def test_what_cannot_be_read_or_written_is_told(past: Past, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal to read"):
        await report(str(tmp_path / "none.db"))
    with pytest.raises(InvalidInput, match=r"cannot be written to .*nowhere"):
        await report(str(past.path), html=str(tmp_path / "nowhere" / "report.html"))


@pytest.mark.asyncio
async def test_without_the_extra_the_error_names_it(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("charts", "page"):
        monkeypatch.delitem(sys.modules, f"seedance_avatar.cli.report.{name}")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InvalidInput, match=r"pip install 'seedance-avatar\[report\]'"):
        await report(str(past.path), html=str(tmp_path / "report.html"))
    assert await report(str(past.path)) == 0
    assert "  active         285" in capsys.readouterr().out


def test_the_plain_report_needs_no_plotting_library(past: Past) -> None:
    program = "import sys; from seedance_avatar.cli import main; sys.argv[1:] = ['report', sys.stdin.read()]\n"
    program += "try:\n    main()\nfinally:\n    assert 'matplotlib' not in sys.modules"
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program], input=str(past.path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.asyncio
async def test_a_journal_is_read_while_another_process_writes_it(past: Past) -> None:
    writer = "import asyncio, sys\nfrom seedance_avatar.journal import Journal\nasync def main():\n"
    writer += "    async with await Journal.open(sys.argv[1]):\n        print('held', flush=True)\n"
    writer += "        await asyncio.to_thread(sys.stdin.read)\nasyncio.run(main())\n"
    with child(writer, past.path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert (await read_history(str(past.path))).count("active") == 285


@pytest.mark.asyncio
async def test_a_reader_reads_only_while_it_is_open(past: Past) -> None:
    reader = JournalReader(past.path)
    with pytest.raises(SessionStateError, match="async with JournalReader"):
        await reader.summary()
    async with reader as journal:
        doubts = [record async for record in journal.records(states=["in_doubt"])]
        assert [record.state for record in doubts] == ["in_doubt"] * 3
        assert {sample.name async for sample in journal.samples()} == {"requests", "throttled", "submit_limit"}
    with pytest.raises(SessionStateError, match="closed"):
        await reader.summary()
