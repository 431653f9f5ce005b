from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from seedance_avatar import (
    Active,
    Asset,
    AssetSource,
    Failed,
    InDoubt,
    InvalidInput,
    InvalidRequest,
    Outcome,
    Pending,
    SubmissionInDoubt,
    WaitTimeout,
)
from seedance_avatar.cli.manifest.manifest import ManifestSource, RejectedRow
from seedance_avatar.cli.output import OutputFile
from seedance_avatar.cli.run.results import Rejects, Results, record, rejects_file
from seedance_avatar.cli.streams import Unwritable

SOURCE: AssetSource = ManifestSource(
    "https://u:pw@cdn.example.com/a.jpg?sig=CANARY", "image", None, None, "k1", 17, "hero"
)
ASSET = Asset(asset_id="pa_1", status="active", source_url=SOURCE.source_url)
ACTIVE: Outcome = Active(source=SOURCE, asset=ASSET)
ENDS: list[Outcome] = [
    ACTIVE,
    Failed(source=SOURCE, error=InvalidRequest("no", status=400, code="bad", request_id="r1", about=SOURCE.label)),
    Pending(source=SOURCE, asset=Asset(asset_id="pa_2"), error=WaitTimeout("late")),
    InDoubt(source=SOURCE, error=SubmissionInDoubt("lost", request_id="r2")),
]


def test_a_record_says_what_became_of_the_source_and_nothing_secret() -> None:
    records = [record(outcome) for outcome in ENDS]
    assert records[0] == {
        "line": 17,
        "key": "k1",
        "source": "https://cdn.example.com/a.jpg?…",
        "asset_type": "image",
        "group": "hero",
        "group_id": None,
        "outcome": "active",
        "earlier": False,
        "asset_id": "pa_1",
        "asset_uri": "asset://pa_1",
        "status": "active",
        "error": None,
        "error_type": None,
        "request_id": None,
    }
    assert [each["outcome"] for each in records] == ["active", "failed", "pending", "in_doubt"]
    assert [each["asset_id"] for each in records] == ["pa_1", None, "pa_2", None]
    assert [each["asset_uri"] for each in records[1:]] == [None] * 3
    assert [each["request_id"] for each in records] == [None, "r1", None, "r2"]
    assert [each["error_type"] for each in records][1:] == ["InvalidRequest", "WaitTimeout", "SubmissionInDoubt"]
    assert "CANARY" not in json.dumps(records)
    assert "pw" not in json.dumps(records)


@pytest.mark.asyncio
async def test_every_line_is_written_in_order_and_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    async with Results(str(path)) as results:
        for outcome in ENDS * 100:
            await results.put(outcome)
        for _ in range(10_000):
            if len((tmp_path / "r.jsonl.partial").read_bytes().splitlines()) == 400:
                break
            await asyncio.sleep(0.001)
        else:
            pytest.fail("the lines were not written before the end")
    assert results.written == 400
    assert [json.loads(line)["outcome"] for line in path.read_text().splitlines()] == [
        "active",
        "failed",
        "pending",
        "in_doubt",
    ] * 100


@pytest.mark.asyncio
async def test_a_reader_who_pauses_does_not_stop_the_loop_and_at_last_holds_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stdout, os.fdopen(reading, "rb") as reader:
        monkeypatch.setattr(sys, "stdout", stdout)
        results = await Results("-").__aenter__()

        async def fill() -> None:
            while True:
                await results.put(ACTIVE)
                await asyncio.sleep(0)

        filling = asyncio.create_task(fill())
        held = 0
        while held < 200:  # the loop goes on turning while nothing more is taken
            before = len(results._waiting)
            await asyncio.sleep(0)
            held = held + 1 if len(results._waiting) == before > 1_000 else 0
        assert len(results._waiting) == 10_001
        filling.cancel()
        draining = asyncio.create_task(asyncio.to_thread(reader.read))
        await results.aclose()
        stdout.close()
        lines = (await draining).splitlines()
    assert len(lines) == results.written
    assert len(lines) > 10_000
    assert all(line.endswith(b"}") for line in lines)


@pytest.mark.asyncio
@pytest.mark.parametrize("broken", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")])
async def test_results_that_cannot_be_written_are_told(monkeypatch: pytest.MonkeyPatch, broken: OSError) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise broken

    monkeypatch.setattr(sys, "stdout", Full())

    async def run() -> None:
        async with Results("-") as results:
            for _ in range(10_000):
                await results.put(ACTIVE)
                await asyncio.sleep(0.001)

    with pytest.raises(Unwritable, match=f"the results cannot be written to standard output: {broken.strerror}"):
        await run()


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_opened_is_a_wrong_argument(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file or directory"):
        await Results(str(tmp_path / "no" / "r.jsonl")).__aenter__()


@pytest.mark.asyncio
async def test_what_waits_is_written_when_the_process_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    results = await Results(str(path)).__aenter__()
    await results.put(ACTIVE)
    results.abandon()
    assert json.loads((tmp_path / "r.jsonl.partial").read_text())["asset_id"] == "pa_1"
    await results.aclose()
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.asyncio
async def test_a_cancelled_close_can_be_repeated(tmp_path: Path) -> None:
    results = await Results(str(tmp_path / "r.jsonl")).__aenter__()
    await results.put(ACTIVE)
    closing = asyncio.create_task(results.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await results.aclose()
    assert results.written == 1


@pytest.mark.asyncio
async def test_lines_for_a_shared_terminal_go_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    async with Results("-", terminal=lines.append) as results:
        source: AssetSource = ManifestSource("https://cdn.example.com/a.jpg", key="\x9b31mred")
        await results.put(Active(source=source, asset=ASSET))
    assert "".join(lines).isascii()
    assert "".join(lines).count("\n") == 1


def rejects_at(path: Path) -> Rejects:
    return Rejects(OutputFile(str(path), "the rejected rows"))


def test_rejects_make_a_file_only_when_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    rejects = rejects_at(path)
    rejects.close(whole=True)
    assert list(tmp_path.iterdir()) == []
    rejects = rejects_at(path)
    for number in (3, 4):
        rejects.add(RejectedRow(line=number, reason="no source_url"))
    rejects.close(whole=True)
    rejects.add(RejectedRow(line=5, reason="too late"))
    found: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[0] == {"line": 3, "reason": "no source_url", "source": None, "key": None}
    assert len(found) == rejects.count == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", [Path("no/r.jsonl"), Path("/dev/full")])
def test_rejects_that_cannot_be_written_are_kept_for_the_end(path: Path) -> None:
    rejects = rejects_at(path)
    for number in (3, 4):
        rejects.add(RejectedRow(line=number, reason="no source_url"))
    rejects.close(whole=True)
    assert str(rejects.error).startswith(f"the rejected rows cannot be written to {path}: ")


def test_rejects_lie_beside_the_manifest_or_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in", "out", "runs"):
        Path(name).mkdir()
    Path("in/m.csv").write_text("source_url\n")
    os.mkfifo("in/m.fifo")
    others = ("out/r.jsonl", "runs/run.db")
    assert rejects_file(None, "in/m.csv", others).path == "in/m.csv.rejects.jsonl"
    assert rejects_file(None, "in/m.fifo", others).path == "out/m.fifo.rejects.jsonl"
    assert rejects_file(None, "/dev/fd/63", ("-", "runs/run.db")).path == "runs/rejects.jsonl"
    assert rejects_file(None, "-", ("-", None)).path == "rejects.jsonl"
    Path("in/m.csv.rejects.jsonl").mkdir()  # as good as a folder that cannot be written, which root never meets
    assert rejects_file(None, "in/m.csv", others).path == "out/m.csv.rejects.jsonl"
    with pytest.raises(InvalidInput, match=r"in/m.csv.rejects.jsonl is a folder"):
        rejects_file("in/m.csv.rejects.jsonl", "in/m.csv", others)


@pytest.mark.asyncio
async def test_results_that_only_a_partial_file_holds_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    killed = await Results(str(path)).__aenter__()
    await killed.put(ACTIVE)
    with pytest.raises(InvalidInput, match=r"r.jsonl.partial holds the results of a run that was killed"):
        Results(str(path)).check()
    with pytest.raises(InvalidInput, match="File exists"):  # two that begin at the same time
        await Results(str(path)).__aenter__()
    async with Results(str(path), again=True) as results:
        assert results.left == f"{path}.partial"
    assert killed.file is not None
    killed.file.abandon()
    await killed.aclose()
    path.write_text("the only results\n")
    async with Results(str(path), again=True) as results:
        assert results.left == ""
        results.whole = True
    path.write_text("the only results\n")
    with pytest.raises(InvalidInput, match=r"r.jsonl exists and would be overwritten"):
        Results(str(path)).check()


@pytest.mark.asyncio
async def test_a_run_that_ends_early_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("1\n2\n3\n")
    for count, whole, kept in ((2, False, True), (2, True, False), (2, False, False), (3, False, False)):
        async with Results(str(path), again=True) as results:
            for _ in range(count):
                await results.put(ACTIVE)
            results.whole = whole
        assert results.file is not None
        assert results.file.kept == kept
        assert len(path.read_text().splitlines()) == (3 if kept else count)
        assert (tmp_path / "r.jsonl.partial").exists() == kept


@pytest.mark.asyncio
async def test_a_cancelled_put_loses_no_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    monkeypatch.setattr("seedance_avatar.cli.run.results._AHEAD", 0)
    async with Results(str(path)) as results:
        putting = asyncio.create_task(results.put(ACTIVE))
        await asyncio.sleep(0)
        putting.cancel()
        await asyncio.wait([putting])
    assert len(path.read_text().splitlines()) == 1
