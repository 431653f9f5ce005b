"""A real Redis that a test starts, kills and starts again."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

__all__ = ["RedisServer", "redis_server"]


@attrs.define(eq=False)
class RedisServer:
    """A ``redis-server`` on a socket of its own; it keeps nothing on disk."""

    program: str
    socket: Path
    killed: asyncio.Event = attrs.field(factory=asyncio.Event)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What :class:`RedisLimits` takes."""
        return f"unix://{self.socket}"

    async def start(self) -> None:
        """Start it and wait until it answers."""
        told = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own words, and it starts in a moment
            [self.program, *told, "--dir", str(self.socket.parent)], stdout=subprocess.DEVNULL
        )
        async with Redis.from_url(self.url) as client:
            for _ in range(500):
                try:
                    await client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.01)
                else:
                    return
        pytest.fail("redis-server did not start in 5 s")

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.killed.set()


@asynccontextmanager
async def redis_server(directory: Path) -> AsyncIterator[RedisServer]:
    """Yield a running server; skip the test where there is none to run, and fail it there in CI."""
    program = shutil.which("redis-server")
    if program is None:
        reason = "there is no redis-server here: install it (Debian: apt-get install redis-server)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = RedisServer(program, directory / "redis.sock")
    await server.start()
    try:
        yield server
    finally:
        server.kill()
