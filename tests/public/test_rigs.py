"""The rigs do what they say: a fault that is not one proves nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib

import pytest
from rig.leaks import no_leaks, open_sockets
from rig.proxy import FaultProxy, black_hole
from rig.rude import (
    Bytes,
    Close,
    Cut,
    Drip,
    Endless,
    Late,
    Reset,
    RudeServer,
    Silence,
    gzip_bomb,
    json_answer,
    raw_answer,
    redirect,
    until,
)
from rig.tls import client_context, server_context

ASK = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}'
CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
OK = json_answer({"ok": True})


class Caller:
    """A connection spoken to in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int) -> Caller:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, data: bytes, size: int) -> bytes:
        self.writer.write(data)
        return await self.reader.readexactly(size)

    async def rest(self, data: bytes = b"") -> bytes:
        self.writer.write(data)
        return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.mark.asyncio
async def test_requests_are_recorded_whole() -> None:
    async with RudeServer(OK) as server:
        caller = await Caller.to(server.port)
        for data in (ASK, POST, CHUNKED):
            assert await caller.ask(data, len(OK.data)) == OK.data
        await caller.close()
        await until(lambda: not server.open_connections)
    asked, posted, chunked = server.requests
    assert (asked.method, asked.path, asked.body, asked.headers["host"]) == ("GET", "/a", b"", "x")
    assert posted.json() == {"a": 1}
    assert chunked.body == b"abcde"
    assert server.received == len(ASK) + len(POST) + len(b"abcde") + CHUNKED.index(b"\r\n\r\n") + 4
    assert server.connections == 1


@pytest.mark.asyncio
async def test_half_a_request_is_none() -> None:
    async with RudeServer(OK) as server:
        caller = await Caller.to(server.port)
        caller.writer.write(POST[:-1])
        await caller.writer.drain()
        await caller.close()
        await until(lambda: server.connections and not server.open_connections)
    assert server.requests == []


@pytest.mark.asyncio
async def test_a_script_is_played_in_order_and_its_last_act_for_ever() -> None:
    refusal = json_answer({}, 429)
    async with RudeServer(OK, refusal, redirect("http://x.example/"), OK) as server:
        caller = await Caller.to(server.port)
        statuses = []
        for _ in range(5):
            caller.writer.write(POST)
            head = await caller.reader.readuntil(b"\r\n\r\n")
            statuses.append(int(head.split()[1]))
            await caller.reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        await caller.close()
    assert statuses == [200, 429, 307, 200, 200]
    assert len(server.applied) == 3


@pytest.mark.asyncio
async def test_a_callable_decides_by_the_request() -> None:
    async with RudeServer(lambda seen: OK if seen.path == "/a" else Close()) as server:
        caller = await Caller.to(server.port)
        assert await caller.ask(ASK, len(OK.data)) == OK.data
        assert await caller.rest(POST) == b""
        await caller.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("at", [0, 1, 17, len(OK.data) - 1])
async def test_a_cut_ends_after_so_many_bytes(at: int) -> None:
    async with RudeServer(Cut(OK, at)) as server:
        caller = await Caller.to(server.port)
        assert await caller.rest(ASK) == OK.data[:at]
        await caller.close()
    assert len(server.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("act", [Reset(), Reset(on_accept=True), Cut(OK, 0, reset=True), Bytes(b"", then="reset")])
async def test_a_reset_is_a_reset(act: Reset | Cut | Bytes) -> None:
    async with RudeServer(act) as server:
        caller = await Caller.to(server.port)
        with pytest.raises(ConnectionResetError):
            await caller.rest(ASK)
        caller.writer.close()
    assert len(server.requests) == (0 if act.on_accept else 1)


@pytest.mark.asyncio
async def test_closing_on_accept_reads_nothing() -> None:
    async with RudeServer(Close(on_accept=True), OK) as server:
        first = await Caller.to(server.port)
        assert await first.rest() == b""
        second = await Caller.to(server.port)
        assert await second.ask(ASK, len(OK.data)) == OK.data
        await first.close()
        await second.close()
    assert server.connections == 2


@pytest.mark.asyncio
async def test_a_drip_comes_in_pieces_and_is_whole() -> None:
    async with RudeServer(Drip(OK, every=0.001, size=7, after=20)) as server:
        caller = await Caller.to(server.port)
        assert await caller.ask(ASK, len(OK.data)) == OK.data
        await caller.close()


@pytest.mark.asyncio
async def test_silence_lasts_until_the_caller_goes() -> None:
    async with RudeServer(Silence()) as server:
        caller = await Caller.to(server.port)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.rest(ASK), 0.05)
        await caller.close()
        await until(lambda: not server.open_connections)


@pytest.mark.asyncio
async def test_what_is_late_waits_for_its_sign() -> None:
    sign = asyncio.Event()
    async with RudeServer(Late(OK, sign)) as server:
        caller = await Caller.to(server.port)
        answer = asyncio.create_task(caller.ask(ASK, len(OK.data)))
        await until(lambda: server.requests)
        assert not answer.done()
        sign.set()
        assert await answer == OK.data
        await caller.close()


@pytest.mark.asyncio
async def test_the_endless_ends_with_its_reader() -> None:
    async with RudeServer(Endless(b"head ", b"x" * 1000)) as server:
        caller = await Caller.to(server.port)
        assert await caller.ask(ASK, 100_005) == b"head " + b"x" * 100_000
        await caller.close()
        await until(lambda: not server.open_connections)


def test_a_bomb_unpacks_to_a_thousand_times_itself() -> None:
    bomb = gzip_bomb()
    packed = bomb.head.partition(b"\r\n\r\n")[2] + bomb.chunk * 3
    plain = zlib.decompressobj().decompress(packed)
    assert plain == b"{" + bytes(3 << 20)
    assert len(packed) < 5000


def test_raw_answers_say_what_they_are_told_to() -> None:
    assert raw_answer(b"{}", 404).data == (
        b"HTTP/1.1 404 Whatever\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert b"Content-Length: 9" in raw_answer(b"{}", length=9).data
    assert b"Content-Length" not in raw_answer(b"{}", length=-1).data
    assert b"Content-Length" not in raw_answer(b"", headers={"Transfer-Encoding": "chunked"}).data


# --- the proxy --------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_proxy_passes_bytes_and_counts_them() -> None:
    async with RudeServer(OK) as server, FaultProxy(server.port) as proxy, no_leaks():
        proxy.latency = 0.001
        caller = await Caller.to(proxy.port)
        assert await caller.ask(POST, len(OK.data)) == OK.data
        await caller.close()
        await until(lambda: not server.open_connections)
    assert (proxy.up, proxy.down, proxy.connections) == (len(POST), len(OK.data), 1)


@pytest.mark.asyncio
async def test_the_proxy_cuts_downwards() -> None:
    async with RudeServer(OK) as server, FaultProxy(server.port) as proxy:
        proxy.cut_down = 10
        caller = await Caller.to(proxy.port)
        assert await caller.rest(POST) == OK.data[:10]
        await caller.close()
    assert len(server.applied) == 1


@pytest.mark.asyncio
async def test_the_proxy_cuts_upwards() -> None:
    async with RudeServer(OK) as server, FaultProxy(server.port) as proxy:
        proxy.cut_up = len(POST) - 1
        caller = await Caller.to(proxy.port)
        assert await caller.rest(POST) == b""
        await caller.close()
    assert server.requests == []


@pytest.mark.asyncio
async def test_the_proxy_resets() -> None:
    async with RudeServer(OK) as server, FaultProxy(server.port) as proxy:
        proxy.cut_down, proxy.reset = 0, True
        caller = await Caller.to(proxy.port)
        with pytest.raises(ConnectionResetError):
            await caller.rest(POST)
        caller.writer.close()
    assert len(server.applied) == 1


@pytest.mark.asyncio
async def test_the_proxy_stops_and_flows_again() -> None:
    async with RudeServer(OK) as server, FaultProxy(server.port) as proxy:
        proxy.flowing.clear()
        caller = await Caller.to(proxy.port)
        answer = asyncio.create_task(caller.ask(POST, len(OK.data)))
        await until(lambda: server.connections)
        await asyncio.sleep(0.02)
        assert server.received == 0
        proxy.flowing.set()
        assert await answer == OK.data
        await caller.close()


@pytest.mark.asyncio
async def test_the_proxy_passes_on_half_an_end() -> None:
    async with RudeServer(Bytes(OK.data, then="close")) as server, FaultProxy(server.port) as proxy:
        proxy.half_close = True
        caller = await Caller.to(proxy.port)
        assert await caller.rest(POST) == OK.data  # the end was passed on …
        caller.writer.write(b"still listened to")
        await until(lambda: proxy.up == len(POST) + len(b"still listened to"))  # … and this way is still open
        await caller.close()


@pytest.mark.asyncio
async def test_the_proxy_hangs_up_when_nobody_is_behind_it() -> None:
    async with RudeServer(OK) as server:
        port = server.port
    async with FaultProxy(port) as proxy:
        caller = await Caller.to(proxy.port)
        assert await caller.rest() == b""
        await caller.close()


def test_a_black_hole_neither_accepts_nor_refuses() -> None:
    with black_hole() as port, socket.socket() as sock:
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.connect(("127.0.0.1", port))


# --- certificates and leaks -------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("server_side", "words"),
    [
        (server_context(), None),
        (server_context("elsewhere.example"), "IP address mismatch"),
        (server_context(expired=True), "certificate has expired"),
    ],
)
async def test_certificates_are_as_bad_as_they_shall_be(server_side: ssl.SSLContext, words: str | None) -> None:
    async with RudeServer(OK, tls=server_side) as server:
        if words is None:
            caller = Caller(*await asyncio.open_connection("127.0.0.1", server.port, ssl=client_context()))
            assert await caller.ask(ASK, len(OK.data)) == OK.data
            await caller.close()
            return
        with pytest.raises(ssl.SSLCertVerificationError, match=words):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=client_context())


@pytest.mark.asyncio
async def test_what_leaks_is_found() -> None:
    sleeper: list[asyncio.Task[None]] = []
    with pytest.raises(AssertionError, match="left behind: tasks"):
        async with no_leaks(patience=0.02):
            sleeper.append(asyncio.create_task(asyncio.sleep(60)))
    sleeper[0].cancel()
    sock = socket.socket()
    sock.close()
    with pytest.raises(AssertionError, match="socket:"):
        async with no_leaks(patience=0.02):
            sock = socket.socket()
    sock.close()
    assert all(entry.startswith("socket:") for entry in open_sockets())
