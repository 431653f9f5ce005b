"""Ctrl-C, SIGTERM and SIGHUP at every point of a command, whatever a thread still reads and the service still holds."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rig.command import command, environment, ran, started

from seedance_avatar.cli.run.signals import Interrupts

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
GROUP = {"success": True, "message": "", "data": {"group_id": "pg_1", "name": "hero"}}
TASK = {"id": "task_1", "object": "generation.task", "status": "queued", "progress": 0}


class Holding:
    """A service that holds every request until it is released, and then gives the same answer to all."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.url = ""
        self.got = asyncio.Event()
        self.release = asyncio.Event()
        self._body = json.dumps(answer).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.got.set()
            await self.release.wait()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(self._body)}\r\n\r\n"
            writer.write(head.encode() + self._body)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def holding(answer: dict[str, Any]) -> AsyncIterator[Holding]:
    service = Holding(answer)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield service
    finally:
        service.release.set()
        server.close()
        await server.wait_closed()


def manifest(path: Path) -> str:
    path.joinpath("m.txt").write_text("https://cdn.example.com/1.jpg\n")
    return str(path / "m.txt")


@pytest.mark.asyncio
@pytest.mark.parametrize(("signum", "code"), SIGNALS)
async def test_a_dry_run_ends_at_once_although_a_thread_waits_for_its_manifest(
    tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    fifo = tmp_path / "m.fifo"
    os.mkfifo(fifo)
    async with started("ingest", str(fifo), "--dry-run", "--group-name", "hero") as process:
        writing = await asyncio.to_thread(os.open, fifo, os.O_WRONLY)  # returns when the command reads
        process.send(signum)
        assert await process.end() == (code, "")
        os.close(writing)
    assert process.err == "seedance-avatar: interrupted\n"


@pytest.mark.asyncio
@pytest.mark.parametrize(("signum", "code"), SIGNALS)
async def test_a_survey_is_not_waited_for(tmp_path: Path, signum: signal.Signals, code: int) -> None:
    program = (
        "import sys, time\nfrom seedance_avatar.cli import main\nfrom seedance_avatar.cli.run.reading import Reading\n"
        "def survey(self):\n    sys.stderr.write('surveying\\n')\n    time.sleep(1000)\n"
        f"Reading.survey = survey\nsys.argv[1:] = ['ingest', {manifest(tmp_path)!r}, '--group-name', 'hero']\nmain()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment("http://127.0.0.1:9"), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert await process.stderr.readline() == b"surveying\n"
    process.send_signal(signum)
    assert await process.wait() == code
    assert await process.stderr.read() == b"interrupted before anything was sent\n"


@pytest.mark.asyncio
async def test_a_group_that_comes_home_during_the_stop_is_not_created_again(tmp_path: Path) -> None:
    arguments = ["ingest", manifest(tmp_path), "--group-name", "hero", "--journal", str(tmp_path / "run.db")]
    arguments += ["--out", str(tmp_path / "r.jsonl")]
    async with holding(GROUP) as service, started(*arguments, url=service.url) as process:
        await service.got.wait()
        process.send(signal.SIGINT)
        await process.until("stopping: waiting (10 s at most)")
        service.release.set()
        code, _ = await process.end()
    assert code == 130
    assert "group hero: pg_1" in process.err
    assert "continue where this run ended; nothing is sent twice" in process.err
    assert "before anything was sent" not in process.err


@pytest.mark.asyncio
@pytest.mark.parametrize("journal", [True, False])
async def test_a_group_without_an_answer_may_exist_and_that_is_said(tmp_path: Path, journal: bool) -> None:  # noqa: FBT001 - a case of the table
    arguments = ["ingest", manifest(tmp_path), "--group-name", "hero", "--out", str(tmp_path / "r.jsonl")]
    arguments += ["--journal", str(tmp_path / "run.db")] if journal else []
    async with holding(GROUP) as service, started(*arguments, url=service.url) as process:
        await service.got.wait()
        process.send(signal.SIGINT)
        await process.until("stopping: waiting (10 s at most)")
        process.send(signal.SIGINT)
        code, _ = await process.end()
    assert code == 130
    assert "the group hero was sent, and no answer came: it may exist" in process.err
    assert ("--on-in-doubt resend" in process.err) == journal
    assert "before anything was sent" not in process.err
    assert "nothing is sent twice" not in process.err
    if journal:
        code, _, told = await ran(*arguments, url=service.url)
        assert code == 3
        assert "the process that sent it ended before the answer was recorded" in told


@pytest.mark.asyncio
async def test_a_generation_that_comes_home_during_the_stop_can_be_fetched_later(tmp_path: Path) -> None:
    arguments = ["generate", "x", "--out", str(tmp_path / "v.mp4")]
    async with holding(TASK) as service, started(*arguments, url=service.url) as process:
        await service.got.wait()
        process.send(signal.SIGTERM)
        await process.until("stopping: waiting (10 s at most)")
        service.release.set()
        code, _ = await process.end()
    assert code == 143
    assert "get the video with: seedance-avatar generate --task task_1" in process.err


@pytest.mark.asyncio
async def test_a_generation_without_an_answer_may_exist_and_that_is_said(tmp_path: Path) -> None:
    async with (
        holding(TASK) as service,
        started("generate", "x", "--out", str(tmp_path / "v.mp4"), url=service.url) as process,
    ):
        await service.got.wait()
        process.send(signal.SIGINT)
        await process.until("stopping: waiting (10 s at most)")
        process.send(signal.SIGINT)
        code, _ = await process.end()
    assert code == 130
    assert "it may exist at the service" in process.err
    assert "nothing was sent" not in process.err


@pytest.mark.asyncio
async def test_a_reader_that_does_not_read_holds_up_no_end() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = await asyncio.create_subprocess_exec(
        *command("guide", "troubleshooting"), env=environment(), stdout=writing, stderr=writing
    )
    waiting = array.array("i", [0])
    while waiting[0] < 4096:  # until it waits for a reader
        await asyncio.sleep(0.01)
        fcntl.ioctl(reading, termios.FIONREAD, waiting)
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    os.close(reading)
    os.close(writing)


@pytest.mark.asyncio
@pytest.mark.parametrize(("signum", "code"), SIGNALS)
async def test_a_sandbox_ends_with_the_code_of_its_signal(signum: signal.Signals, code: int) -> None:
    async with started("sandbox", "--port", "0") as process:
        assert process.process.stdout is not None
        await process.process.stdout.readline()
        process.send(signum)
        ended, _ = await process.end()
    assert ended == code
    assert process.err == ""


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts(None, str):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.asyncio
async def test_a_second_signal_while_the_interpreter_ends_changes_no_code() -> None:
    # What is deleted as the interpreter ends is deleted after it took back all handlers of signals.
    program = (
        "import os, signal, sys, time\nfrom seedance_avatar.cli import main\nfrom seedance_avatar.cli import run\n"
        "class Late:\n    def __del__(self, kill=os.kill, pid=os.getpid(), sleep=time.sleep):\n"
        "        kill(pid, 2)\n        sleep(0.05)\n"
        "run.late = Late()\nsys.argv[1:] = ['--version']\nsys.exit(main())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment(), stdout=subprocess.PIPE
    )
    await process.communicate()
    assert process.returncode == 0


@pytest.mark.asyncio
@pytest.mark.parametrize(("signum", "code"), SIGNALS)
async def test_a_signal_that_does_not_wake_the_main_thread_ends_the_command(signum: signal.Signals, code: int) -> None:
    # As one does that comes between the last step of the interpreter and the wait of the loop. Here the main thread
    # blocks the signal, so that the system hands it to another one.
    program = (
        "import signal, sys, time\nfrom seedance_avatar.cli.run.signals import end_on_signals\nend_on_signals()\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(signum)}])\nsys.stderr.write('waiting\\n')\ntime.sleep(1000)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment(), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert await process.stderr.readline() == b"waiting\n"
    process.send_signal(signum)
    assert await process.wait() == code
