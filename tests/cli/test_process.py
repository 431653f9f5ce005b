"""The command as a user starts it: a process with pipes, signals and a terminal."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rig.command import command, environment, on_terminal, ran, started

from seedance_avatar.sandbox import Fate, Sandbox


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Every second source is active at once, every other one never is."""

    def fate(url: str, _type: str) -> Fate | None:
        return Fate.active(after=0) if int(re.sub(r"\D", "", url)) % 2 else Fate.stuck()

    async with Sandbox(fates=fate) as running:
        yield running


def manifest(path: Path, count: int) -> str:
    rows = [f"https://cdn.example.com/{number}.jpg?sig=CANARY,k{number}" for number in range(1, count + 1)]
    path.joinpath("m.csv").write_text("\n".join(["source_url,key", *rows]) + "\n")
    return str(path / "m.csv")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.asyncio
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_first_signal_drains_and_says_how_to_go_on(
    sandbox: Sandbox, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    out, journal = tmp_path / "r.jsonl", tmp_path / "run.db"
    arguments = ["ingest", manifest(tmp_path, 40), "--group-name", "the hero", "--journal", str(journal)]
    arguments += ["--out", str(out), "--json"]
    async with started(*arguments, url=sandbox.url) as process:
        while process.err.count('"event": "settled"') < 5:
            seen = process.err.count("\n")
            await process.until('"event": "settled"' if not seen else f"{process.err}{{")
        process.send(signum)
        ended, _ = await process.end()
    assert ended == code
    summary = json.loads(process.err.splitlines()[-1])
    assert summary["event"] == "summary"
    told = " ".join(summary["next"])
    assert "continue where this run ended; nothing is sent twice" in told
    assert "--group-name 'the hero' --journal" in told
    found = lines(out)
    assert len(found) == summary["counts"]["active"] + summary["counts"]["pending"] + summary["counts"]["unsent"]
    assert {line["asset_id"] for line in found} - {None} == {upload.asset_id for upload in sandbox.ledger.uploads}


@pytest.mark.asyncio
async def test_a_second_signal_ends_at_once_and_the_same_command_resumes(sandbox: Sandbox, tmp_path: Path) -> None:
    arguments = ["ingest", manifest(tmp_path, 20), "--group-name", "hero", "--journal", str(tmp_path / "run.db")]
    arguments += ["--out", str(tmp_path / "r.jsonl"), "--json"]
    async with started(*arguments, url=sandbox.url) as process:
        await process.until('"event": "settled"')
        sandbox.latency = 30.0  # what is on the wire now does not come home
        await process.until('"event": "progress"')
        process.send(signal.SIGINT)
        await process.until("stopping: waiting (10 s at most) for requests that were already sent")
        process.send(signal.SIGINT)
        code, _ = await process.end()
    assert code == 130
    assert "ended at once" in process.err
    assert "Traceback" not in process.err
    sandbox.latency = 0.0
    for number in range(1, 21):
        sandbox.decide(f"https://cdn.example.com/{number}.jpg?sig=CANARY", Fate.active(after=0))
    code, _, told = await ran(*arguments, "--asset-timeout", "0.1", url=sandbox.url)
    assert code == 3
    uploads = [upload.source_url for upload in sandbox.ledger.uploads]
    assert len(set(uploads)) == len(uploads)
    assert len(sandbox.ledger.groups) == 1
    found = lines(tmp_path / "r.jsonl")
    assert sorted(line["line"] for line in found) == list(range(2, 22))
    in_doubt = {line["key"] for line in found if line["outcome"] == "in_doubt"}
    assert in_doubt  # what was on the wire when it ended; the sandbox let none of it through
    assert len(in_doubt) + len(uploads) == 20
    assert json.loads(told.splitlines()[-1])["counts"]["in_doubt"] == len(in_doubt)


@pytest.mark.asyncio
async def test_results_grow_beside_their_name_and_a_killed_run_leaves_them_there(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    out, partial = tmp_path / "r.jsonl", tmp_path / "r.jsonl.partial"
    arguments = ["ingest", manifest(tmp_path, 20), "--group-name", "hero", "--journal", str(tmp_path / "run.db")]
    arguments += ["--out", str(out), "--json"]
    async with started(*arguments, url=sandbox.url) as process:
        await process.until('"event": "settled"')
        await process.until('"event": "progress"')
        before = partial.read_bytes()
        code, _, told = await ran(*arguments, url=sandbox.url)  # the second start meets the lock
        assert code == 64
        assert "is held by process" in told
        assert "killed" not in told
        assert partial.read_bytes().startswith(before)
        process.send(signal.SIGKILL)
        await process.end()
    assert before
    assert not out.exists()
    for number in range(1, 21):
        sandbox.decide(f"https://cdn.example.com/{number}.jpg?sig=CANARY", Fate.active(after=0))
    _, _, told = await ran(*arguments, "--asset-timeout", "0.1", url=sandbox.url)
    assert "r.jsonl.partial was left by a run that was killed; this run gives its results again" in told
    assert sorted(line["line"] for line in lines(out)) == list(range(2, 22))
    assert not partial.exists()


@pytest.mark.asyncio
async def test_a_producer_that_pauses_holds_nothing_back_and_does_not_hinder_the_end(sandbox: Sandbox) -> None:
    async with started("ingest", "-", "--group-name", "hero", "--json", url=sandbox.url, pipe=True) as process:
        assert process.process.stdin is not None
        process.process.stdin.write(b"https://x.example.com/1.jpg\n")
        await process.until('"event": "settled"')  # although the producer has not said what comes next
        process.send(signal.SIGINT)
        code, out = await process.end()
    assert code == 130
    assert json.loads(out)["outcome"] == "active"
    assert json.loads(process.err.splitlines()[-1])["event"] == "summary"


@pytest.mark.asyncio
async def test_on_a_terminal_the_run_is_one_frame_that_ends_as_a_summary(sandbox: Sandbox, tmp_path: Path) -> None:
    arguments = ["ingest", manifest(tmp_path, 40), "--group-name", "hero", "--out", str(tmp_path / "r.jsonl")]
    with on_terminal(*arguments, url=sandbox.url) as terminal:
        await terminal.until(lambda text: "20 of 40  50 %" in text and "pending 20" in " ".join(text.split()))
        frames = [line for line in terminal.lines if "m.csv → hero" in line]
        assert len(frames) == 1
        assert "━" in frames[0]
        (counts,) = (line for line in terminal.lines if line.startswith(" active "))
        assert " ".join(counts.split()) == "active 20 failed 0 in doubt 0 pending 20 in flight 0"
        assert terminal.screen.cursor.hidden
        terminal.resize(50, 24)
        await terminal.until(lambda text: max(map(len, text.splitlines())) <= 50 and " ETA " in text)
        terminal.press(b"\x03")
        assert await terminal.end() == 130
        assert not terminal.screen.cursor.hidden
    shown = terminal.raw.decode()
    assert "CANARY" not in shown
    assert "accepted, not finished yet" in shown
    assert "ended at once" not in shown


@pytest.mark.asyncio
async def test_results_and_frame_share_a_terminal(sandbox: Sandbox, tmp_path: Path) -> None:
    path = manifest(tmp_path, 3)
    for number in (1, 2, 3):
        sandbox.decide(f"https://cdn.example.com/{number}.jpg?sig=CANARY", Fate.active(after=0))
    with on_terminal("ingest", path, "--group-name", "hero", url=sandbox.url, columns=400, NO_COLOR="1") as terminal:
        assert await terminal.end() == 0
    found = [json.loads(line) for line in terminal.lines if line.startswith("{")]
    assert sorted(line["key"] for line in found) == ["k1", "k2", "k3"]
    assert not re.search(r"\x1b\[[0-9;]*[39][0-7]m", terminal.raw.decode())


@pytest.mark.asyncio
async def test_errors_are_one_line_with_a_documented_code(sandbox: Sandbox, tmp_path: Path) -> None:
    cases: list[tuple[list[str], str, int, str]] = [
        (["ingest", str(tmp_path / "none.csv"), "--group-name", "x"], "sk-sandbox", 64, "cannot be read: No such file"),
        (["ingest", "-", "--group", "x"], "sk-sandbox", 64, "Unknown option: --group. Did you mean --group-id"),
        (["ingest", manifest(tmp_path, 2), "--group-name", "x"], "sk-wrong", 4, "HTTP 401"),
    ]
    for arguments, key, expected, says in cases:
        code, out, told = await ran(*arguments, url=sandbox.url, TOAPIS_API_KEY=key)
        assert (code, out) == (expected, "")
        *_, last = told.splitlines()
        assert last.startswith("seedance-avatar: ")
        assert says in last
        assert "Traceback" not in told


@pytest.mark.asyncio
async def test_a_reader_that_goes_away_ends_the_run_with_one_line(sandbox: Sandbox, tmp_path: Path) -> None:
    path = manifest(tmp_path, 50)
    script = f"{' '.join(command('ingest', path, '--group-name', 'x'))} | head -n 1; echo ${{PIPESTATUS[0]}}"
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", script, env=environment(sandbox.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await shell.communicate()
    first, code = out.decode().splitlines()
    assert json.loads(first)["outcome"] == "active"
    assert code == "74"
    assert "the results cannot be written to standard output: Broken pipe" in err.decode()
    assert "Traceback" not in err.decode()


def test_without_the_extra_one_line_says_what_to_install() -> None:
    hide = "import sys; sys.modules['cyclopts'] = None; from seedance_avatar.cli import main; sys.exit(main())"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", hide], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert done.stderr == "seedance-avatar needs its command line extra: pip install 'seedance-avatar[cli]'\n"
