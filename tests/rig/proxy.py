"""A TCP proxy that breaks what passes through it, and a port where connecting never ends.

async with FaultProxy(server.port) as proxy:
    proxy.cut_down = 100        # the next connections end after 100 bytes of the server's
    Transport(proxy.url, …)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from .rude import hard_close

__all__ = ["FaultProxy", "black_hole", "unused_port"]


class FaultProxy:
    """Passes bytes between a client and ``127.0.0.1:<target>``; the faults can be set and lifted at any time.

    :ivar latency: seconds that every piece waits, either way.
    :ivar cut_up: bytes of the client's after which a connection ends (these bytes still pass), or None.
    :ivar cut_down: the same for the server's bytes.
    :ivar reset: True to end by a reset instead of an orderly close.
    :ivar flowing: an event; cleared, what comes in is read and not passed on until it is set again.
    :ivar half_close: True to pass the server's orderly end on to the client as an end of sending only.
    :ivar up: bytes of the client's that were passed on; ``down`` the server's.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.latency = 0.0
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        self.reset = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.half_close = False
        self.up = 0
        self.down = 0
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        far: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[bool]] = []
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
            pumps = [
                asyncio.create_task(self._pump(reader, far, upwards=True)),
                asyncio.create_task(self._pump(far_reader, writer, upwards=False)),
            ]
            # A pump ends with True where its side ended in an orderly way and the other may still speak.
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self.half_close and all(pump.exception() is None and pump.result() for pump in done):
                await asyncio.wait(pumps)
        except (OSError, asyncio.CancelledError):
            pass  # the far side is not there, or the test is over
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, far):
                if end is not None and self.reset:
                    hard_close(end)
                elif end is not None:
                    end.close()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upwards: bool) -> bool:
        """Pass bytes on until the end or the cut; return True at an end that the sender made."""
        passed = 0
        while data := await reader.read(65536):
            await self.flowing.wait()
            if self.latency:
                await asyncio.sleep(self.latency)
            cut = self.cut_up if upwards else self.cut_down
            piece = data if cut is None else data[: max(0, cut - passed)]
            writer.write(piece)
            await writer.drain()
            passed += len(piece)
            if upwards:
                self.up += len(piece)
            else:
                self.down += len(piece)
            if len(piece) < len(data) or passed == cut:
                return False
        if self.half_close and writer.can_write_eof():
            writer.write_eof()
        return True


def unused_port() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Yield a port where a connection is never made and never refused: a listener whose backlog is full."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            sock = held.enter_context(socket.socket())
            sock.settimeout(0)
            sock.connect_ex(("127.0.0.1", port))
        yield port
