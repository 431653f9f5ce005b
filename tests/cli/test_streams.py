"""Standard streams that are closed, full, left by their reader, or in an encoding that cannot show what is said."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from rig.command import command, environment, ran

from seedance_avatar.sandbox import Fate, Sandbox

COUNT = 20
NOBODY = {
    "closed": ">&- 2>&-",
    "all closed": "<&- >&- 2>&-",
    "full": "> /dev/full 2>&1",
    "left": "2>&1 | (exec 0<&-; sleep 0.05)",
    "left early": "2>&1 | head -n 1 > /dev/null",
}


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    rows = "".join(f"https://cdn.example.com/{number}.jpg\n" for number in range(COUNT))
    tmp_path.joinpath("m.txt").write_text(rows)
    async with Sandbox(immediate=1.0, time_scale=0.001) as running:
        yield running


async def shell(script: str, folder: Path, url: str = "", **more: str) -> tuple[int, str, str]:
    """Run ``script`` with CLI for the command; return the command's code, and what the shell still heard."""
    words = script.replace("CLI", shlex.join(command()))
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        f"{words}\nexit ${{PIPESTATUS[0]}}",
        cwd=folder,
        env=environment(url, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


@pytest.mark.asyncio
@pytest.mark.parametrize("how", NOBODY)
async def test_words_that_nobody_can_see_cost_no_work(sandbox: Sandbox, tmp_path: Path, how: str) -> None:
    arguments = "ingest m.txt --group-name hero --journal run.db --out r.jsonl --limits unlimited"
    code, out, err = await shell(f"CLI {arguments} {NOBODY[how]}", tmp_path, sandbox.url)
    assert (code, out, err) == (0, "", "")
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == COUNT
    # No file was opened under the number of a closed stream, and took its words.
    assert b"sources in" not in (tmp_path / "run.db").read_bytes()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "--version",
        "guide",
        "guide architecture",
        "ingest m.txt --dry-run",
        "ingest m.txt --dry-run --json",
        "ingest m.txt --group-name hero",
        "report run.db",
    ],
)
async def test_what_was_asked_for_and_cannot_be_written_is_code_74(
    sandbox: Sandbox, tmp_path: Path, words: str
) -> None:
    ingest = "ingest m.txt --group-name hero"
    if words.startswith("report"):
        arguments = f"{ingest} --journal run.db --out r.jsonl".split()
        await ran(*arguments, url=sandbox.url, cwd=tmp_path)
    what = (
        "the results cannot be written to standard output" if words == ingest else "standard output cannot be written"
    )
    for how, reason in (("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
        code, out, err = await shell(f"CLI {words} {how}", tmp_path, sandbox.url)
        assert (code, out) == (74, ""), err
        assert err.splitlines()[-1] == f"seedance-avatar: {what}: {reason}"
        assert "Traceback" not in err


@pytest.mark.asyncio
async def test_a_closed_standard_error_changes_no_code(sandbox: Sandbox, tmp_path: Path) -> None:
    cases = [("ingest", 64), ("ingest none.txt --group-name hero", 64), ("guide nothing", 64), ("--version", 0)]
    for how in ("2>&-", "2> /dev/full"):
        for words, code in cases:
            assert (await shell(f"CLI {words} {how}", tmp_path, sandbox.url))[0] == code


@pytest.mark.asyncio
async def test_a_manifest_from_a_closed_standard_input_is_a_usage_error(sandbox: Sandbox, tmp_path: Path) -> None:
    for words in ("ingest - --group-name hero", "ingest - --group-name hero --dry-run"):
        for how in ("<&-", "0> out.txt"):
            code, _, err = await shell(f"CLI {words} {how}", tmp_path, sandbox.url)
            assert code == 64
            assert "standard input cannot be read" in err
    assert sandbox.ledger.counts.total() == 0


@pytest.mark.asyncio
async def test_a_sandbox_serves_although_its_greeting_is_lost(tmp_path: Path) -> None:
    script = "CLI sandbox --port 0 > /dev/full & sleep 1; kill -TERM $!; wait $!; echo $?"
    _, out, err = await shell(script, tmp_path)
    assert (out, err) == ("143\n", "")


OTHER_ENCODINGS = ("ascii", "cp1252", "latin-1:strict", "gbk")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "how",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
        *(pytest.param({"PYTHONIOENCODING": name}, marks=pytest.mark.slow) for name in OTHER_ENCODINGS),
    ],
)
async def test_what_an_encoding_cannot_show_is_escaped(tmp_path: Path, how: dict[str, str]) -> None:
    rows = "source_url,key\nhttps://cdn.example.com/1.jpg,正面\nhttps://cdn.example.com/2.jpg,🎤\nftp://x/正面.jpg,é\n"
    (tmp_path / "清单.csv").write_text(rows, encoding="utf-8")
    async with Sandbox(immediate=1.0, fates=lambda _url, _type: Fate.failed("太暗了", after=0)) as sandbox:
        more = {"PYTHONUTF8": "0", **how}
        for words, expected in (
            ("ingest 清单.csv --dry-run --group-name hero", 2),
            ("ingest 清单.csv --group-name hero --out r.jsonl", 2),
            ("ingest 清单.csv --group-name hero", 2),
            ("ingest 清单.csv --正面", 64),
            ("report 没有.db", 64),
        ):
            code, out, err = await shell(f"CLI {words}", tmp_path, sandbox.url, **more)
            assert code == expected, err
            assert "Traceback" not in err
            assert "a fault in this program" not in out + err
    assert {"正面", "🎤"} <= set((tmp_path / "r.jsonl").read_text(encoding="utf-8").split('"'))


def test_the_module_is_the_command() -> None:
    words = [word.removesuffix(".cli") for word in command("--version")]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
    assert (done.returncode, done.stderr) == (0, "")
    assert os.linesep in done.stdout
