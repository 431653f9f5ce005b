from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from rig.command import environment, ran, started

from seedance_avatar import AuthError, __version__
from seedance_avatar.cli.app import app, run
from seedance_avatar.cli.exits import EXIT_CODES

REFUSED = AuthError("the key is not known", status=401)


@pytest.mark.parametrize(
    "words", [["--help"], [], ["ingest", "--help"], ["demo", "-h"], ["generate", "--help"], ["sandbox", "--help"]]
)
def test_help_teaches_in_eighty_columns(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(words) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    assert EXIT_CODES in told
    if words in ([], ["--help"]):
        assert all(f"│ {name} " in told for name in ("demo", "ingest", "generate", "sandbox", "guide"))
        assert "seedance-avatar ingest sources.csv --dry-run" in told
    if words[:1] == ["ingest"]:
        assert "produce-urls | seedance-avatar ingest - --group-name brand-avatar" in told
        assert "seedance-avatar ingest sources.csv --group-name brand-avatar \\\n" in told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ingets"], 'Unknown command "ingets". Did you mean "ingest"?'),
        (["ingest"], 'Command "ingest" parameter MANIFEST requires an argument'),
        (["ingest", "-", "--dry"], "Unknown option: --dry. Did you mean --dry-run?"),
        (["ingest", "--typo", "m.csv"], "Unknown option: --typo"),
        (["ingest", "m.csv", "--limits", "fast"], 'Invalid value "fast" for --limits'),
        (
            ["ingest", "m.csv", "--max-pending", "many"],
            'Invalid value for --max-pending: unable to convert "many" into int',
        ),
        (["ingest", "m.csv", "x\x1b[31m"], "x\\x1b[31m"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_64(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 64
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("seedance-avatar: ")
    command = " ingest" if words[0] == "ingest" else ""
    assert line.endswith(f"; see seedance-avatar{command} --help")
    assert says in line
    assert line.isprintable()


def test_an_async_command_is_awaited_and_its_result_is_the_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @app.command
    async def probe(*, fail: str = "") -> int:
        await asyncio.sleep(0)
        if fail == "key":
            raise REFUSED
        if fail == "fault":
            message = "a bug\x1b[2J\nin here"
            raise LookupError(message)
        if fail == "interrupt":
            raise KeyboardInterrupt
        return 3

    try:
        assert run(["probe"]) == 3
        assert run(["probe", "--fail", "key"]) == 4
        assert run(["probe", "--fail", "fault"]) == 70
        assert run(["probe", "--fail", "interrupt"]) == 130
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == (
            "seedance-avatar: HTTP 401: the key is not known; check the API key (TOAPIS_API_KEY) and what it may do"
            " (seedance-avatar guide troubleshooting)"
        )
        assert lines[1].startswith("seedance-avatar: a fault in this program: LookupError: a bug\\x1b[2J in here; ")
        assert lines[2] == "seedance-avatar: interrupted"
        with pytest.raises(LookupError):
            run(["probe", "--fail", "fault", "--debug"])
    finally:
        del app["probe"]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.asyncio
async def test_the_sandbox_serves_any_client_and_says_how() -> None:
    async with started("sandbox", "--port", "0", "--key", "sk-mine", "--time-scale", "0.001") as process:
        assert process.process.stdout is not None
        greeting = ""
        while "Ctrl-C" not in greeting:
            greeting += (await process.process.stdout.readline()).decode()
        url = greeting.split("URL")[1].split()[0]
        (curl,) = (text for text in greeting.split("\n\n") if text.lstrip().startswith("curl"))
        assert "Bearer sk-mine" in curl
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                f"{url}/v1/videos/doubao-seedance-2-0/private-avatar/groups",
                headers={"Authorization": "Bearer sk-mine"},
                json={"name": "test"},
            ) as answer,
        ):
            assert (await answer.json())["data"]["name"] == "test"
        process.send(signal.SIGTERM)
        assert (await process.end())[0] == 143
    assert process.err == ""


@pytest.mark.asyncio
async def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, told = await ran("sandbox", "--port", str(port))
    assert code == 64
    assert told.startswith(f"seedance-avatar: cannot listen on 127.0.0.1:{port}: ")
    assert told.count("\n") == 1


@pytest.mark.asyncio
async def test_the_demo_ends_with_a_video_and_shows_what_it_made_fail(tmp_path: Path) -> None:
    video = tmp_path / "demo.mp4"
    code, out, told = await ran(
        "demo", "--json", "--speed", "100", "--out", str(video), TOAPIS_API_KEY="", TOAPIS_BASE_URL="http://203.0.113.1"
    )
    assert code == 0, told
    assert out == ""
    summary = json.loads(told.splitlines()[-1])
    assert summary["counts"]["active"] == 195
    assert summary["counts"]["failed"] == 5
    assert summary["files"] == [str(video)]
    assert video.read_bytes()[4:8] == b"ftyp"
    assert {reason["count"] for reason in summary["reasons"]} == {1}
    assert any("face-101" in label for reason in summary["reasons"] for label in reason["named"])


@pytest.mark.asyncio
async def test_a_demo_that_is_interrupted_says_what_became_of_its_sources(tmp_path: Path) -> None:
    async with started("demo", "--json", "--speed", "20", "--out", str(tmp_path / "demo.mp4")) as process:
        await process.until('"event": "settled"')
        process.send(signal.SIGINT)
        code, _ = await process.end()
    assert code == 130
    summary = json.loads(process.err.splitlines()[-1])
    assert summary["event"] == "summary"
    assert summary["counts"]["unsent"] > 0
    assert not (tmp_path / "demo.mp4").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sandbox", "--port", "99999"], "--port must be 0 to 65535, not 99999"),
        (["sandbox", "--fail-rate", "5"], "--fail-rate must be 0 to 1, not 5"),
        (["sandbox", "--time-scale", "nan"], "--time-scale must be 0 or more, not nan"),
        (["demo", "--out", "/no/such/folder/x.mp4"], "the folder of /no/such/folder/x.mp4 does not exist"),
        (["demo", "--speed", "0"], "--speed must be more than 0, not 0"),
    ],
)
def test_a_mistake_in_an_option_is_one_line_that_names_it(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 64
    told = capsys.readouterr().err
    assert told.startswith("seedance-avatar: ")
    assert told.count("\n") == 1
    assert says in told


@pytest.mark.parametrize(
    "words", [["--retry-failed", "m.txt"], ["m.txt", "--retry-failed"], ["--retry-failed=x", "m.txt"]]
)
def test_a_flag_that_may_have_a_value_takes_no_manifest_for_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.txt").write_text("https://cdn.example.com/1.jpg\n")
    assert run(["ingest", *words, "--group-name", "hero", "--dry-run"]) == 0
    assert "1 good" in capsys.readouterr().out


def test_a_command_loads_only_what_it_needs() -> None:
    program = (
        "import sys\nbefore = set(sys.modules)\nfrom seedance_avatar.cli.app import run\n"
        "assert run(['guide', 'files']) == 0\n"
        "assert not {'aiohttp', 'sqlite3', 'seedance_avatar.sandbox'} & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), stdout=subprocess.DEVNULL, check=True)  # noqa: S603 - our own interpreter
