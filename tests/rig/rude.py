"""A scripted HTTP server on a raw socket: it behaves as badly as it is told, and knows what truly arrived.

    async with RudeServer(json_answer({"id": 1}), Close()) as server:   # answers once, then hangs up
        ...
        assert [seen.path for seen in server.requests] == ["/a", "/b"]

A script is a row of acts, one for each request in the order in which they are read whole, over all
connections; its last act goes on for ever. Instead of a row, one callable from the request to an act.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import attrs

__all__ = [
    "Act",
    "Bytes",
    "Close",
    "Cut",
    "Drip",
    "Endless",
    "Late",
    "Reset",
    "RudeServer",
    "Seen",
    "Silence",
    "gzip_bomb",
    "hard_close",
    "json_answer",
    "raw_answer",
    "redirect",
    "until",
]

REASONS: Final = {200: "OK", 307: "Temporary Redirect", 429: "Too Many Requests", 503: "Service Unavailable"}


@attrs.define
class Seen:
    """A request that was read whole; ``applied`` unless it was refused by a status of 300 and above."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    applied: bool = True

    def json(self) -> Any:
        return json.loads(self.body)


@attrs.define(eq=False)
class Peer:
    """One connection, as an act sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Wait until the client hangs up."""
        while await self.reader.read(65536):
            pass


async def until(condition: Callable[[], object], patience: float = 5.0) -> None:
    """Wait until ``condition()`` is true, for ``patience`` seconds at most."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - the condition can be anything, so nothing can signal it
            await asyncio.sleep(0.002)


def hard_close(writer: asyncio.StreamWriter) -> None:
    """Close with a reset (RST) instead of an orderly end (FIN)."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Act:
    """What is done about one request. ``play`` returns True when the connection may serve another."""

    on_accept: bool = False  # played when the connection is accepted, before anything is read
    applies: bool = True

    async def play(self, peer: Peer) -> bool:
        raise NotImplementedError


@attrs.frozen
class Bytes(Act):
    """Send these bytes as they are; ``then`` may be ``"keep"``, ``"close"`` or ``"reset"``."""

    data: bytes
    then: str = "keep"
    applies: bool = True

    async def play(self, peer: Peer) -> bool:
        await peer.send(self.data)
        if self.then == "reset":
            hard_close(peer.writer)
        return self.then == "keep"


def raw_answer(
    body: bytes = b"",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    length: int | None = None,
    then: str = "keep",
) -> Bytes:
    """A whole answer; ``length`` is what Content-Length shall say, -1 for no such header."""
    head = {"Content-Type": "application/json", **(headers or {})}
    if length != -1 and "Transfer-Encoding" not in head:
        head["Content-Length"] = str(len(body) if length is None else length)
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Whatever')}", *(f"{k}: {v}" for k, v in head.items())]
    return Bytes("\r\n".join([*lines, "", ""]).encode() + body, then=then, applies=status < 300)


def json_answer(obj: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, then: str = "keep") -> Bytes:
    """An ordinary answer with ``obj`` as its JSON body."""
    return raw_answer(json.dumps(obj).encode(), status, headers, then=then)


def redirect(location: str, status: int = 307) -> Bytes:
    return raw_answer(b"", status, {"Location": location})


@attrs.frozen
class Cut(Act):
    """Send the first ``at`` bytes of an answer, then close, or reset where ``reset``."""

    answer: Bytes
    at: int
    reset: bool = False

    async def play(self, peer: Peer) -> bool:
        await peer.send(self.answer.data[: self.at])
        if self.reset:
            hard_close(peer.writer)
        return False


@attrs.frozen
class Drip(Act):
    """Send an answer ``size`` bytes at a time, ``every`` seconds, from byte ``after`` on; before it, at once."""

    answer: Bytes
    every: float = 0.02
    size: int = 1
    after: int = 0

    async def play(self, peer: Peer) -> bool:
        await peer.send(self.answer.data[: self.after])
        for start in range(self.after, len(self.answer.data), self.size):
            await asyncio.sleep(self.every)
            await peer.send(self.answer.data[start : start + self.size])
        return True


@attrs.frozen
class Endless(Act):
    """Send ``head``, then ``chunk`` again and again until the client hangs up."""

    head: bytes
    chunk: bytes

    async def play(self, peer: Peer) -> bool:
        await peer.send(self.head)
        while True:
            await peer.send(self.chunk)
            await asyncio.sleep(0)


def gzip_bomb() -> Endless:
    """A body without end whose every KiB becomes a MiB (deflate blocks that refer to nothing before them)."""
    packer = zlib.compressobj(9)
    start = packer.compress(b"{") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: deflate\r\n\r\n"
    return Endless(head + start, block)


@attrs.frozen
class Reset(Act):
    """Reset the connection: after the request was read, or right after it was accepted."""

    on_accept: bool = False

    async def play(self, peer: Peer) -> bool:
        hard_close(peer.writer)
        return False


@attrs.frozen
class Close(Act):
    """Hang up in an orderly way without an answer."""

    on_accept: bool = False

    async def play(self, peer: Peer) -> bool:
        del peer  # the server hangs up on False
        return False


@attrs.frozen
class Silence(Act):
    """Say nothing until the client hangs up."""

    on_accept: bool = False

    async def play(self, peer: Peer) -> bool:
        await peer.until_gone()
        return False


@attrs.frozen
class Late(Act):
    """Do ``act`` once ``event`` is set."""

    act: Act
    event: asyncio.Event

    async def play(self, peer: Peer) -> bool:
        await self.event.wait()
        return await self.act.play(peer)


Script = Callable[[Seen], Act]


class RudeServer:
    """The server; an async context manager that closes everything at its end.

    ``requests`` are those that were read whole, ``applied`` those of them that a service would have acted on,
    ``connections`` how many were accepted, ``received`` how many bytes came in, whole requests or not.
    """

    def __init__(self, *script: Act | Script, tls: ssl.SSLContext | None = None) -> None:
        assert script, "a server needs a script"
        self._choose = script[0] if len(script) == 1 and not isinstance(script[0], Act) else None
        self._acts: list[Act] = [act for act in script if isinstance(act, Act)]
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.requests: list[Seen] = []
        self.connections = 0
        self.received = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def applied(self) -> list[Seen]:
        return [seen for seen in self.requests if seen.applied]

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port, ssl=self._tls, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _next(self, seen: Seen | None) -> Act | None:
        """Return the act for ``seen``; for None, the act to play at accept, if the next is one."""
        if self._choose is not None:
            return None if seen is None else self._choose(seen)
        act = self._acts[0]
        if seen is None and not act.on_accept:
            return None
        if len(self._acts) > 1:
            self._acts.pop(0)
        return act

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            await self._serve(Peer(reader, writer, self.connections))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, or the server closes: both are the end of this connection
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _serve(self, peer: Peer) -> None:
        act = self._next(None)
        if act is not None:
            await act.play(peer)
            return
        while True:
            seen = await self._read(peer)
            act = self._next(seen)
            assert act is not None
            seen.applied = act.applies
            self.requests.append(seen)
            if not await act.play(peer):
                return

    async def _read(self, peer: Peer) -> Seen:
        """Read one request whole."""
        reader = peer.reader
        head = await reader.readuntil(b"\r\n\r\n")
        self.received += len(head)
        start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, _ = start.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b"".join([chunk async for chunk in _chunks(reader)])
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.received += len(body)
        return Seen(method, path, headers, body, peer.number)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:  # noqa: ASYNC900 - read to its end in one place
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()
