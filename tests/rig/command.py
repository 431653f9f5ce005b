"""The command line as a process of its own, on pipes or on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pyte

ROOT = Path(__file__).parents[2]


def environment(url: str = "", **more: str) -> dict[str, str]:
    """The environment of a command: of ours only what a process needs."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "LANG"} or name.startswith("COVERAGE_")
    }
    given = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "TOAPIS_API_KEY": "sk-sandbox", "TOAPIS_BASE_URL": url}
    return kept | given | more


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "seedance_avatar.cli", *arguments]


class Process:
    """A command on pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.err = ""

    async def until(self, text: str) -> None:
        """Wait until ``text`` was said on standard error."""
        assert self.process.stderr is not None
        while text not in self.err:
            line = await self.process.stderr.readline()
            assert line, f"it ended without saying {text!r}: {self.err}"
            self.err += line.decode()

    def send(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    async def end(self) -> tuple[int, str]:
        """Wait until it ended; return its code and what it said on standard output."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        # Not communicate(), which closes a standard input that shall stay open.
        out, err, _ = await asyncio.gather(self.process.stdout.read(), self.process.stderr.read(), self.process.wait())
        self.err += err.decode()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode()


@contextlib.asynccontextmanager
async def started(
    *arguments: str, url: str = "", pipe: bool = False, cwd: Path | None = None, **more: str
) -> AsyncIterator[Process]:
    """Start a command on pipes, in the folder ``cwd``; it is killed when the block is left before its end.

    :param pipe: give it a standard input that stays open, instead of none.
    """
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        cwd=cwd,
        env=environment(url, **more),
        stdin=asyncio.subprocess.PIPE if pipe else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ran(*arguments: str, url: str = "", cwd: Path | None = None, **more: str) -> tuple[int, str, str]:
    """Run a command on pipes to its end; return its code, its standard output and its standard error."""
    async with started(*arguments, url=url, pipe=False, cwd=cwd, **more) as process:
        code, out = await process.end()
        return code, out, process.err


class Pty:
    """A command on a terminal whose screen can be read."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, columns: int, rows: int) -> None:
        self.process = process
        self.raw = b""
        self.screen: Any = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream: Any = pyte.ByteStream(self.screen)
        self._master = master

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def until(self, seen: Callable[[str], bool]) -> None:
        """Read until the screen satisfies ``seen``."""
        while not seen(self.text):
            assert await self._read(), f"it ended before that was seen:\n{self.text}"

    async def end(self) -> int:
        """Read to the end; return the exit code."""
        while await self._read():
            pass
        return await asyncio.to_thread(self.process.wait)

    async def _read(self) -> bool:
        try:
            data = await asyncio.to_thread(os.read, self._master, 65_536)
        except OSError:  # Linux says so when the last process has closed its side
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        _set_size(self._master, columns, rows)


def _set_size(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def on_terminal(*arguments: str, url: str = "", columns: int = 80, rows: int = 24, **more: str) -> Iterator[Pty]:
    """Start a command on a terminal of its own; it is killed when the block is left before its end."""
    master, slave = pty.openpty()
    _set_size(master, columns, rows)
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        command(*arguments),
        env=environment(url, TERM="xterm-256color", **more),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - it takes no lock that another thread could hold
    ) as process:
        os.close(slave)
        try:
            yield Pty(process, master, columns, rows)
        finally:
            if process.poll() is None:
                process.kill()
            os.close(master)
