"""The short way: the same on the wire as aiohttp's, and left where somebody else is in it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses
from multidict import CIMultiDict
from rig.leaks import no_leaks, open_sockets
from rig.rude import Bytes, RudeServer, Silence, json_answer, raw_answer, until
from rig.tls import client_context, server_context
from rig.trips import get, opened, post
from yarl import URL

from seedance_avatar.client.fast_path import FastPath
from seedance_avatar.client.internals import Internals
from seedance_avatar.errors import ConnectionFailed

OK = json_answer({"asset_id": "pa_1"})
BODY = OK.data.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def short_way(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[FastPath]:
    connector = aiohttp.TCPConnector() if tls is None else aiohttp.TCPConnector(ssl=tls)
    async with aiohttp.ClientSession(connector=connector) as session:
        way = FastPath.to(URL(url), session, aiohttp.ClientTimeout(total=None), Internals())
        assert way is not None
        way.use(CIMultiDict({"Authorization": "Bearer k"}))
        yield way


@asynccontextmanager
async def unread(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """Yield the URL of a server that does ``serve`` for each connection, and takes no more of what comes."""
    tasks: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()
        await server.wait_closed()


@pytest.mark.asyncio
@pytest.mark.parametrize("request_", [get("/v1/thing?x=%C3%A4"), post('{"name":"ä"}'.encode())], ids=["get", "post"])
@pytest.mark.parametrize("prefix", ["", "/gate/way"])
async def test_the_server_sees_the_same_request_either_way(
    request_: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RudeServer(OK) as server, no_leaks():
        async with opened(server.url + prefix) as transport:
            assert transport._fast is not None
            await transport.send(request_)
        monkeypatch.setattr(FastPath, "to", classmethod(lambda *_: None))
        async with opened(server.url + prefix) as transport:
            assert transport._fast is None
            await transport.send(request_)
    mine, theirs = server.requests
    assert (mine.method, mine.path, mine.body) == (theirs.method, theirs.path, theirs.body)
    assert mine.headers == theirs.headers


@pytest.mark.asyncio
async def test_who_steps_in_afterwards_is_met_and_who_leaves_is_not() -> None:
    async with RudeServer(OK) as server, opened(server.url) as transport:
        with aioresponses() as mocked:
            mocked.get(f"{server.url}/v1/thing", payload={"from": "the double"})
            assert b"the double" in (await transport.send(get())).body
        assert b"pa_1" in (await transport.send(get())).body
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_what_has_a_right_to_be_in_the_way_is_not_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    origin, timeout = URL("http://127.0.0.1:1"), aiohttp.ClientTimeout()
    async with aiohttp.ClientSession(trust_env=True) as session:
        assert FastPath.to(origin, session, timeout, Internals()) is None
    async with aiohttp.ClientSession(trace_configs=[aiohttp.TraceConfig()]) as session:
        assert FastPath.to(origin, session, timeout, Internals()) is None
    async with aiohttp.ClientSession() as session:
        assert FastPath.to(origin, session, timeout, Internals()) is not None
        usual = aiohttp.ClientSession._request

        async def probed(*args: Any, **kwargs: Any) -> aiohttp.ClientResponse:
            return await usual(*args, **kwargs)

        monkeypatch.setattr(aiohttp.ClientSession, "_request", probed)
        assert FastPath.to(origin, session, timeout, Internals()) is None


@pytest.mark.asyncio
async def test_a_borrowed_session_is_used_as_it_is() -> None:
    async with (
        RudeServer(OK) as server,
        aiohttp.ClientSession(headers={"X-Mine": "1"}) as session,
        opened(server.url, http=session) as transport,
    ):
        await transport.send(post())
    assert server.requests[0].headers["x-mine"] == "1"


@pytest.mark.asyncio
async def test_nothing_can_be_smuggled_into_a_request() -> None:
    async with RudeServer(OK) as server, short_way(server.url) as way, no_leaks():
        for target in ("/a b", "/a\r\nX: y", "/ä", "a", "http://elsewhere/"):
            with pytest.raises(ValueError, match="percent-encoded"):
                await way.request("GET", target, None)
        with pytest.raises(ValueError, match="X-Bad"):
            way.use(CIMultiDict({"X-Bad": "a\r\nX-Worse: b"}))
    assert server.requests == []


@pytest.mark.asyncio
async def test_a_path_that_cannot_stand_in_a_request_is_told_as_not_sent() -> None:
    async with RudeServer(OK) as server, no_leaks(), opened(server.url) as transport:
        with pytest.raises(ConnectionFailed) as caught:
            await transport.send(post(path="/v1/a b"))
    assert caught.value.fatal
    assert server.requests == []


@pytest.mark.asyncio
async def test_a_body_read_to_its_end_gives_the_connection_back_and_any_other_is_closed() -> None:
    async with RudeServer(OK) as server, short_way(server.url) as way:
        reply = await way.request("GET", "/a", None)
        assert (reply.status, await reply.content.read(), reply.closed) == (
            200,
            BODY,
            True,
        )
        reply.close()  # no harm
        reply.release()
        (await way.request("GET", "/b", None)).close()
        (await way.request("GET", "/c", None)).release()
    connections = [seen.connection for seen in server.requests]
    assert connections[0] == connections[1]


@pytest.mark.asyncio
async def test_words_before_the_answer_are_passed_over() -> None:
    early = Bytes(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OK.data)
    async with RudeServer(early) as server, short_way(server.url) as way:
        reply = await way.request("GET", "/a", None)
        assert (reply.status, await reply.content.read()) == (200, BODY)


@pytest.mark.asyncio
async def test_cancelled_it_closes_its_connection() -> None:
    async with RudeServer(Silence()) as server, short_way(server.url) as way, no_leaks():
        task = asyncio.ensure_future(way.request("POST", "/a", b"{}"))
        await until(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.open_connections == 0)


@pytest.mark.asyncio
async def test_over_tls_it_goes_to_the_one_who_is_meant_and_to_nobody_else() -> None:
    async with RudeServer(OK, tls=server_context()) as server, short_way(server.url, client_context()) as way:
        for _ in range(2):
            reply = await way.request("POST", "/a", b"{}")
            assert await reply.content.read() == BODY
    assert len({seen.connection for seen in server.requests}) == 1
    async with (
        no_leaks(),
        RudeServer(OK, tls=server_context("elsewhere.example")) as server,
        short_way(server.url, client_context()) as way,
    ):
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await way.request("POST", "/a", b"{}")
    assert server.requests == []


@pytest.mark.asyncio
async def test_a_status_that_is_none_ends_the_wait() -> None:
    none = Bytes(b"HTTP/1.1 099 Whatever\r\nContent-Length: 2\r\n\r\n{}")
    async with RudeServer(none) as server, short_way(server.url) as way:
        async with asyncio.timeout(5):
            assert (await way.request("GET", "/a", None)).status == 99


@pytest.mark.asyncio
async def test_a_connection_that_still_holds_half_a_request_is_not_used_again() -> None:
    early = raw_answer(b"{}", 413)

    async def answer_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(early.data)
        await asyncio.sleep(3600)

    async with (
        no_leaks(),
        unread(answer_unread) as url,
        short_way(url) as way,
    ):
        reply = await way.request("POST", "/a", bytes(1 << 24))
        assert (reply.status, await reply.content.read()) == (413, b"{}")
        assert reply.closed
        assert not way._connector._conns


@pytest.mark.asyncio
async def test_cancelled_while_it_writes_it_keeps_no_socket() -> None:
    begun = asyncio.Event()

    async def read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.sleep(3600)
        del reader, writer

    async with unread(read_nothing) as url, short_way(url) as way:
        before = open_sockets()
        task = asyncio.ensure_future(way.request("POST", "/a", bytes(1 << 24)))
        await begun.wait()
        held = open_sockets() - before
        assert len(held) == 2  # the other is the server's
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(open_sockets() & held) == 1)


@pytest.mark.asyncio
async def test_whatever_keeps_a_connection_away_means_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        message = "a resolver of somebody's"
        raise RuntimeError(message)

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", broken)
    async with no_leaks(), opened("http://somewhere.invalid") as transport:
        with pytest.raises(ConnectionFailed, match="a resolver of somebody's"):
            await transport.send(post())
