"""The command run in this process, against a sandbox in the same loop."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rig.command import ran

from seedance_avatar import AvatarError, InvalidInput, JournalError
from seedance_avatar.cli.commands.ingest import ingest
from seedance_avatar.cli.manifest.formats import ManifestError
from seedance_avatar.cli.streams import Unwritable
from seedance_avatar.journal.journal import Journal
from seedance_avatar.sandbox import Fate, Sandbox


@pytest_asyncio.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(immediate=1.0, time_scale=0.001) as running:
        monkeypatch.setenv("TOAPIS_API_KEY", "sk-sandbox")
        monkeypatch.setenv("TOAPIS_BASE_URL", running.url)
        monkeypatch.chdir(tmp_path)
        yield running


def manifest(count: int, *more: str, columns: str = "source_url,key") -> str:
    rows = [f"https://cdn.example.com/{number}.jpg?sig=CANARY{number},k{number}" for number in range(count)]
    Path("m.csv").write_text("\n".join([columns, *rows, *more]) + "\n")
    return "m.csv"


def results(path: str = "r.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.asyncio
async def test_every_source_becomes_active_and_is_written(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    code = await ingest(manifest(60), group_name="hero", out="r.jsonl")
    assert code == 0
    assert len(sandbox.ledger) == 60
    assert [group.name for group in sandbox.ledger.groups.values()] == ["hero"]
    found = results()
    assert {line["outcome"] for line in found} == {"active"}
    assert sorted(line["line"] for line in found) == list(range(2, 62))
    assert {line["asset_id"] for line in found} == {upload.asset_id for upload in sandbox.ledger.uploads}
    told = capsys.readouterr()
    assert told.out == ""
    assert "m.csv → hero: 60 sources in " in told.err
    assert "  active          60" in told.err
    assert "60 results (JSON Lines)" in told.err
    assert "Next" not in told.err
    assert "CANARY" not in told.err + Path("r.jsonl").read_text()


@pytest.mark.asyncio
async def test_failures_and_rejects_are_told_with_their_reasons(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.fail("https://cdn.example.com/3.jpg?sig=CANARY3", reason="[bold]no[/bold] \x1b[31msubject", after=0)
    sandbox.decide("https://cdn.example.com/5.jpg?sig=CANARY5", Fate.refused("may contain real person"))
    code = await ingest(manifest(10, "http://10.0.0.1/x.jpg,lan", ",none"), group_name="hero", out="r.jsonl")
    told = capsys.readouterr().err
    assert code == 2
    assert "m.csv: 10 sources, 2 rows rejected (m.csv.rejects.jsonl)" in told
    assert "1 failed: [bold]no[/bold] \\x1b[31msubject" in told
    assert "line 5, k3 (https://cdn.example.com/3.jpg?…)" in told
    assert "1 failed: HTTP 422 content_policy_violation: may contain real person" in told
    assert "\x1b" not in told
    assert "correct the rejected rows (m.csv.rejects.jsonl)" in told
    assert [row["line"] for row in results("m.csv.rejects.jsonl")] == [12, 13]
    assert [row["key"] for row in results("m.csv.rejects.jsonl")] == ["lan", "none"]
    failed = [line for line in results() if line["outcome"] == "failed"]
    assert sorted(line["key"] for line in failed) == ["k3", "k5"]
    assert {line["error_type"] for line in failed} == {"AssetFailed", "ContentRefused"}


@pytest.mark.asyncio
async def test_each_group_of_a_manifest_is_created_once(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["hero", "villain", "", "hero"] * 10
    rows = [f"https://x.example.com/{number}.jpg,{name}" for number, name in enumerate(names)]
    Path("m.csv").write_text("source_url,group\n" + "\n".join(rows) + "\n")
    assert await ingest("m.csv", group_name="others", out="r.jsonl") == 0
    groups = {group.group_id: group.name for group in sandbox.ledger.groups.values()}
    assert sorted(groups.values()) == ["hero", "others", "villain"]
    for upload in sandbox.ledger.uploads:
        number = int(upload.source_url.rpartition("/")[2].removesuffix(".jpg"))
        assert groups[upload.group_id] == (names[number] or "others")
    told = capsys.readouterr().err
    assert all(f"group {name}: {group_id}\n" in told for group_id, name in groups.items())


@pytest.mark.asyncio
async def test_a_row_without_any_group_is_rejected(sandbox: Sandbox) -> None:
    Path("m.csv").write_text("source_url,group\nhttps://x.example.com/1.jpg,hero\nhttps://x.example.com/2.jpg,\n")
    assert await ingest("m.csv", out="r.jsonl") == 2
    assert results("m.csv.rejects.jsonl")[0]["reason"] == (
        "it names no group, and neither --group-name nor --group-id does"
    )
    Path("r.jsonl").unlink()
    with pytest.raises(ManifestError, match="holds no row that can be used; the first, in line 2: it names no group"):
        await ingest(manifest(3))


@pytest.mark.asyncio
async def test_a_group_that_exists_is_used_by_its_id(sandbox: Sandbox) -> None:
    assert await ingest(manifest(2), group_name="hero", out="1.jsonl") == 0
    (group_id,) = sandbox.ledger.groups
    Path("m.csv").write_text("source_url\nhttps://x.example.com/new.jpg\n")
    assert await ingest("m.csv", group_id=group_id, out="2.jsonl") == 0
    assert len(sandbox.ledger.groups) == 1
    assert [upload.group_id for upload in sandbox.ledger.uploads] == [group_id] * 3


@pytest.mark.asyncio
async def test_results_go_to_standard_output_and_a_manifest_comes_from_standard_input(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = b"https://x.example.com/a.jpg\nftp://x.example.com/b\nhttps://x.example.com/c.mp4\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert await ingest("-", group_name="hero") == 2
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert sorted((line["line"], line["asset_type"]) for line in found) == [(1, "image"), (3, "video")]
    assert results("rejects.jsonl")[0]["line"] == 2
    assert "standard input → hero: 2 sources" in told.err


@pytest.mark.asyncio
async def test_strict_sends_nothing_when_a_row_is_bad(sandbox: Sandbox) -> None:
    with pytest.raises(ManifestError, match=r"1 row of m.csv cannot be used, the first in line 22 \(no source_url\)"):
        await ingest(manifest(20, ",x"), group_name="hero", strict=True, out="r.jsonl")
    assert sorted(path.name for path in Path().iterdir()) == ["m.csv"]
    assert len(sandbox.ledger) == len(sandbox.ledger.groups) == 0


@pytest.mark.asyncio
async def test_strict_stops_reading_a_stream_at_its_first_bad_row(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = b"https://x.example.com/a.jpg\nftp://x.example.com/b\nhttps://x.example.com/c.mp4\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    with pytest.raises(ManifestError, match=r"line 2 of standard input cannot be used: .*reading stopped"):
        await ingest("-", group_name="hero", strict=True, out="r.jsonl")
    assert [line["line"] for line in results()] == [1]
    assert "standard input → hero: 1 source in" in capsys.readouterr().err


@pytest.mark.asyncio
async def test_a_dry_run_needs_no_key_and_sends_nothing(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TOAPIS_API_KEY")
    path = manifest(100, "http://localhost/x.jpg,bad", "https://cdn.example.com/7.jpg?sig=renewed,k7")
    assert await ingest(path, dry_run=True) == 2
    told = capsys.readouterr().out
    assert "m.csv: 102 rows" in told
    assert "101 good (101 image)" in told
    assert "line 102 [bad]: the service cannot fetch this URL: " in told
    assert "line 103 repeats line 9" in told
    assert "note: 101 rows name no group: give --group-name or --group-id" in told
    assert "100 uploads would take about" in told
    assert "with --limits default" in told
    assert sandbox.ledger.counts.total() == 0
    assert sorted(entry.name for entry in Path().iterdir()) == ["m.csv"]
    assert await ingest(path, dry_run=True, strict=True) == 64
    assert await ingest(manifest(5), dry_run=True, group_name="hero") == 0
    assert "name no group" not in capsys.readouterr().out.partition("m.csv: 5 rows")[2]
    capsys.readouterr()
    assert await ingest(path, dry_run=True, json=True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["event"], facts["uploads"], facts["rejects"]) == ("survey", 5, None)


@pytest.mark.asyncio
async def test_the_same_command_again_with_a_journal_sends_nothing_twice(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.fail("https://cdn.example.com/3.jpg?sig=CANARY3", reason="no subject", after=0)
    told_first: list[dict[str, Any]] = []
    for code, failed in ((2, "failed"), (0, "earlier"), (0, "earlier")):  # exit code and summary count this run
        assert await ingest(manifest(30), group_name="hero", journal="run.db", out="r.jsonl") == code
        assert len(sandbox.ledger) == 30
        assert len(sandbox.ledger.groups) == 1
        by_line = sorted(results(), key=lambda result: int(result["line"]))
        assert len(by_line) == 30
        told_first = told_first or by_line
        assert [result["error"] for result in by_line] == [result["error"] for result in told_first]
        told = capsys.readouterr().err
        assert f"1 {failed}: no subject" in told
        assert f"\n  {failed:<9}        1" in told
        assert ("--retry-refused" in told) == (failed == "earlier")
        assert "the journal: keep it to resume the run" in told


@pytest.mark.asyncio
@pytest.mark.parametrize("out", ["r.jsonl", "res/r.jsonl"])
async def test_an_older_copy_of_the_journal_is_found_out_by_the_results_of_the_last_run(
    sandbox: Sandbox, out: str
) -> None:
    Path("res").mkdir()
    options: dict[str, Any] = {"group_name": "hero", "journal": "run.db", "out": out}
    assert await ingest(manifest(3), **options) == 0
    shutil.copy("run.db", "older.db")
    assert await ingest(manifest(8), **options) == 0
    found = Path(out).read_bytes()
    newer = Path("run.db").rename("newer.db")
    shutil.copy("older.db", "run.db")
    match = rf"does not know 5 of the 8 assets in {out} \(pa_\w+\): it may be an older copy of itself"
    with pytest.raises(JournalError, match=match):
        await ingest(manifest(8), **options)
    assert Path(out).read_bytes() == found
    assert len(sandbox.ledger) == 8
    newer.replace("run.db")
    assert await ingest(manifest(8), **options) == 0
    assert len(sandbox.ledger) == 8


@pytest.mark.asyncio
async def test_results_that_are_none_are_not_asked_for_assets(sandbox: Sandbox) -> None:
    options: dict[str, Any] = {"group_name": "hero", "journal": "run.db", "out": "r.jsonl"}
    assert await ingest(manifest(3), **options) == 0
    Path("r.jsonl").write_bytes(b'\xff\n[]\n{"asset_id": 1}\n{"asset_id": null}\nnot JSON\n')
    assert await ingest(manifest(3), **options) == 0
    assert len(results()) == 3


@pytest.mark.asyncio
async def test_results_that_no_journal_could_give_again_are_not_overwritten(sandbox: Sandbox) -> None:
    Path("r.jsonl").write_text("the only ids of an hour\n")
    for journal in (None, "new.db"):
        with pytest.raises(InvalidInput, match=r"r.jsonl exists and would be overwritten"):
            await ingest(manifest(3), group_name="hero", journal=journal, out="r.jsonl")
    assert Path("r.jsonl").read_text() == "the only ids of an hour\n"
    assert sandbox.ledger.counts.total() == 0


@pytest.mark.asyncio
async def test_what_is_not_finished_in_time_is_pending(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.decide("https://cdn.example.com/1.jpg?sig=CANARY1", Fate.stuck())
    code = await ingest(manifest(3), group_name="hero", journal="run.db", out="r.jsonl", asset_timeout=0.1)
    told = capsys.readouterr().err
    assert code == 3
    assert "pending          1   accepted, not finished yet" in told
    assert "continue where this run ended; nothing is sent twice:" in told
    (pending,) = (line for line in results() if line["outcome"] == "pending")
    assert pending["asset_id"] is not None
    assert pending["asset_uri"] is None


@pytest.mark.asyncio
async def test_a_lost_answer_is_in_doubt_and_without_a_journal_the_advice_is_honest(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.faults.add("lost_answer", path="assets", times=1)
    assert await ingest(manifest(5), group_name="hero", out="r.jsonl") == 3
    told = capsys.readouterr().err
    assert "in doubt         1" in told
    assert "this run kept no journal and cannot be resumed" in told
    assert "what is in doubt may exist at the service and is not sent again by itself" in told
    assert sorted(line["outcome"] for line in results()) == ["active"] * 4 + ["in_doubt"]


@pytest.mark.asyncio
async def test_no_money_in_the_middle_is_code_four_and_what_was_not_sent_is_told(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.account().credits = 10
    assert await ingest(manifest(200), group_name="hero", journal="run.db", out="r.jsonl") == 4
    told = capsys.readouterr().err
    assert "top up the account, then run the same again" in told
    counts = [line["outcome"] for line in results()]
    assert counts.count("active") == len(sandbox.ledger) == 10
    assert counts.count("unsent") == len(counts) - 10


@pytest.mark.asyncio
async def test_a_refused_key_ends_the_command_before_any_source_is_read(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-wrong")
    with pytest.raises(AvatarError, match="HTTP 401"):
        await ingest(manifest(5), group_name="hero", out="r.jsonl")
    assert len(sandbox.ledger) == 0
    assert not Path("r.jsonl").exists()


@pytest.mark.asyncio
async def test_a_group_that_cannot_be_created_in_the_middle_stops_the_run(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"https://x.example.com/{number}.jpg,{'hero' if number < 20 else 'villain'}" for number in range(500)]
    Path("m.csv").write_text("source_url,group\n" + "\n".join(rows) + "\n")
    sandbox.faults.add("unauthorized", path="groups", after=1)
    assert await ingest("m.csv", out="r.jsonl") == 4
    assert "HTTP 401" in capsys.readouterr().err
    assert sandbox.ledger.counts["POST", "groups", 401] == 1
    assert len(sandbox.ledger) <= 20
    outcomes = [line["outcome"] for line in results()]
    assert outcomes.count("active") == len(sandbox.ledger)
    assert len(outcomes) < 500


@pytest.mark.asyncio
async def test_events_are_json_lines_that_end_with_the_summary(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await ingest(manifest(5, ",bad"), group_name="hero", out="r.jsonl", json=True) == 2
    told = capsys.readouterr()
    events = [json.loads(line) for line in told.err.splitlines()]
    kinds = [event["event"] for event in events]
    assert {"note", "request_finished", "accepted", "settled", "ingest_started", "ingest_ended"} <= set(kinds)
    assert kinds[-1] == "summary"
    assert events[-1]["counts"]["active"] == 5
    assert events[-1]["counts"]["rejected"] == 1
    settled = next(event for event in events if event["event"] == "settled")
    assert settled["outcome"]["source"]["key"].startswith("k")
    assert "CANARY" not in told.err
    assert "sk-sandbox" not in told.err


@pytest.mark.asyncio
async def test_results_that_cannot_be_written_stop_the_run_in_order(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(Unwritable, match="Broken pipe"):
        await ingest(manifest(5_000), group_name="hero", journal="run.db")
    assert len(sandbox.ledger) < 5_000
    assert len(asyncio.all_tasks()) <= 3  # this test, the sandbox's two
    monkeypatch.undo()


@pytest.mark.asyncio
async def test_arguments_that_contradict_are_told(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="give only one of them"):
        await ingest(manifest(1), group_name="a", group_id="pg_1")
    with pytest.raises(InvalidInput, match="'bad id' is not a group id"):
        await ingest(manifest(1), group_id="bad id", out="r.jsonl")
    Path("not.db").write_text("not a journal at all " * 100)
    with pytest.raises(JournalError):
        await ingest(manifest(1), group_name="a", journal="not.db", out="r.jsonl")
    monkeypatch.delenv("TOAPIS_API_KEY")
    with pytest.raises(InvalidInput, match="no API key: export TOAPIS_API_KEY"):
        await ingest(manifest(1), group_name="a")


@pytest.mark.asyncio
async def test_a_start_that_fails_leaves_the_files_of_the_first_run_alone(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"journal": "run.db", "out": "r.jsonl", "rejects": "bad.jsonl"}
    assert await ingest(manifest(5, ",bad"), group_name="hero", **options) == 2
    before = {name: Path(name).read_bytes() for name in ("r.jsonl", "bad.jsonl")}
    Path("empty.csv").write_text("")
    Path("not.db").write_text("not a journal at all " * 100)
    sandbox.faults.add("unauthorized", path="groups", times=1)
    failing: list[dict[str, Any]] = [
        {"manifest": "none.csv"},
        {"manifest": "empty.csv"},
        {"strict": True},
        {"group_name": "another, which the service refuses"},
        {"group_id": "pg_1"},
        {"group_name": None, "group_id": "no id"},
        {"journal": "not.db"},
        {"journal": "no/run.db"},
        {"journal": None},
        {"base_url": "ftp://x"},
        {"asset_timeout": -1.0},
        {"rejects": "."},
    ]
    for change in failing:
        given = {"manifest": "m.csv", "group_name": "hero", **options, **change}
        with pytest.raises(AvatarError):
            await ingest(given.pop("manifest"), **given)
        assert {name: Path(name).read_bytes() for name in before} == before, change
    async with await Journal.open("run.db"):
        with pytest.raises(JournalError, match="is already open in this process"):
            await ingest("m.csv", group_name="hero", **options)
    assert {name: Path(name).read_bytes() for name in before} == before
    assert list(Path().glob("*.partial")) == []
    assert len(sandbox.ledger) == 5


@pytest.mark.asyncio
async def test_a_second_run_that_stops_early_keeps_the_results_of_the_first(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await ingest(manifest(300), group_name="hero", journal="run.db", out="r.jsonl") == 0
    first = results()
    path = manifest(300)
    text = Path(path).read_text().splitlines()
    Path(path).write_text("\n".join([text[0], "https://cdn.example.com/new.jpg,new", *text[1:]]) + "\n")
    sandbox.decide("https://cdn.example.com/new.jpg", Fate.refused("no"))
    assert await ingest(path, group_name="hero", journal="run.db", out="r.jsonl", on_failure="stop", max_pending=1) == 3
    told = capsys.readouterr().err
    assert results() == first
    assert results("r.jsonl.partial")[0]["key"] == "new"
    assert "r.jsonl, of an earlier run, holds more and was kept" in told
    assert await ingest(path, group_name="hero", journal="run.db", out="r.jsonl") in {0, 2}
    assert "r.jsonl.partial was left by a run that was killed" in capsys.readouterr().err
    assert len(results()) == 301
    assert not Path("r.jsonl.partial").exists()


@pytest.mark.asyncio
async def test_a_manifest_from_a_pipe_has_its_rejects_beside_the_results(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("m.fifo")
    Path("out").mkdir()

    def write() -> None:
        Path("m.fifo").write_text("source_url\nftp://bad/0.jpg\nhttps://cdn.example.com/1.jpg\n")

    writing = asyncio.create_task(asyncio.to_thread(write))
    assert await ingest("m.fifo", group_name="hero", out="out/r.jsonl") == 2
    await writing
    assert [row["line"] for row in results("out/m.fifo.rejects.jsonl")] == [2]
    assert len(results("out/r.jsonl")) == 1
    assert "out/m.fifo.rejects.jsonl" in capsys.readouterr().err


@pytest.mark.asyncio
async def test_rejects_that_cannot_be_written_do_not_stop_the_good_rows(sandbox: Sandbox) -> None:
    with pytest.raises(Unwritable, match="the rejected rows cannot be written to /dev/full: No space left on device"):
        await ingest(manifest(5, ",bad"), group_name="hero", out="r.jsonl", rejects="/dev/full")
    assert len(results()) == len(sandbox.ledger) == 5


@pytest.mark.asyncio
async def test_what_was_refused_earlier_is_told_apart_from_what_fails_now(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        sandbox.decide(f"https://cdn.example.com/{number}.jpg?sig=CANARY{number}", Fate.refused("not this one"))
    options: dict[str, Any] = {"group_name": "hero", "journal": "run.db", "out": "r.jsonl"}
    assert await ingest(manifest(2), **options) == 2
    capsys.readouterr()
    assert (
        await ingest(manifest(4, "https://cdn.example.com/1.jpg?sig=CANARY1,k1"), **options) == 2
    )  # k2 is refused now
    told = capsys.readouterr().err
    assert "active           2" in told
    assert "failed           1" in told
    assert "earlier          2" in told  # k1 stands in the list twice
    assert await ingest(manifest(4), **options) == 0
    assert await ingest(manifest(4), **options, retry_refused=True) == 2
    told = capsys.readouterr().err
    assert "failed           2" in told.rpartition("sources in")[2]
    assert sum(line["outcome"] == "failed" for line in results()) == 2


@pytest.mark.asyncio
async def test_what_failed_is_uploaded_again_on_demand(sandbox: Sandbox) -> None:
    for number, reason in ((1, "too dark"), (2, "no subject")):
        sandbox.fail(f"https://cdn.example.com/{number}.jpg?sig=CANARY{number}", reason=reason, after=0)
    words = ["ingest", manifest(3), "--group-name", "hero", "--journal", "run.db", "--out", "r.jsonl"]
    found = []
    for more in ([], ["--retry-failed=DARK"], ["--retry-failed"], ["--retry-failed=x", "--retry-failed=subject"], []):
        code, *_ = await ran(*words, *more, url=sandbox.url)
        found.append((code, len(sandbox.ledger)))
    assert found == [(2, 3), (2, 4), (2, 6), (2, 7), (0, 7)]
    assert sorted((line["outcome"], line["earlier"]) for line in results()) == [
        ("active", False),
        ("failed", True),
        ("failed", True),
    ]


@pytest.mark.asyncio
async def test_a_key_that_stood_for_another_source_is_replaced_on_demand(sandbox: Sandbox) -> None:
    options: dict[str, Any] = {"group_name": "hero", "journal": "run.db", "out": "r.jsonl"}
    assert await ingest(manifest(1), **options) == 0
    Path("m.csv").write_text("source_url,key\nhttps://cdn.example.com/another.jpg,k0\n")
    assert await ingest("m.csv", **options) == 2
    assert results()[0]["error_type"] == "InvalidSource"
    assert await ingest("m.csv", **options, on_changed="replace") == 0
    assert [upload.source_url for upload in sandbox.ledger.uploads][1:] == ["https://cdn.example.com/another.jpg"]


@pytest.mark.asyncio
async def test_a_row_whose_key_stands_for_another_source_is_rejected(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = manifest(2, "https://cdn.example.com/another.jpg,k1")
    assert await ingest(path, group_name="hero", dry_run=True) == 2
    assert "line 4 [k1]: its key is that of another source of its group, in line 3" in capsys.readouterr().out
    assert await ingest(path, group_name="hero", out="r.jsonl") == 2
    assert [row["line"] for row in results("m.csv.rejects.jsonl")] == [4]
    assert len(results()) == len(sandbox.ledger) == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(path).read_bytes())))
    assert await ingest("-", group_name="hero", out="s.jsonl") == 2
    assert [row["line"] for row in results("rejects.jsonl")] == [4]
