"""The short way: the same on the wire as aiohttp's, and left where somebody else is in it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses
from multidict import CIMultiDict
from rig.leaks import no_leaks
from rig.rude import Bytes, RudeServer, Silence, json_answer, until
from rig.tls import client_context, server_context
from rig.trips import get, opened, post
from yarl import URL

from seedance_avatar.errors import ConnectionFailed
from seedance_avatar.roundtrip import ShortWay

OK = json_answer({"asset_id": "pa_1"})
BODY = OK.data.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def short_way(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[ShortWay]:
    connector = aiohttp.TCPConnector() if tls is None else aiohttp.TCPConnector(ssl=tls)
    async with aiohttp.ClientSession(connector=connector) as session:
        way = ShortWay.to(URL(url), session, aiohttp.ClientTimeout(total=None))
        assert way is not None
        way.use(CIMultiDict({"Authorization": "Bearer k"}))
        yield way


@pytest.mark.asyncio
@pytest.mark.parametrize("request_", [get("/v1/thing?x=%C3%A4"), post('{"name":"ä"}'.encode())], ids=["get", "post"])
@pytest.mark.parametrize("prefix", ["", "/gate/way"])
async def test_the_server_sees_the_same_request_either_way(
    request_: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RudeServer(OK) as server, no_leaks():
        async with opened(server.url + prefix) as transport:
            assert transport._short is not None
            await transport.send(request_)
        monkeypatch.setattr(ShortWay, "to", classmethod(lambda *_: None))
        async with opened(server.url + prefix) as transport:
            assert transport._short is None
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
        assert ShortWay.to(origin, session, timeout) is None
    async with aiohttp.ClientSession(trace_configs=[aiohttp.TraceConfig()]) as session:
        assert ShortWay.to(origin, session, timeout) is None
    async with aiohttp.ClientSession() as session:
        assert ShortWay.to(origin, session, timeout) is not None
        usual = aiohttp.ClientSession._request

        async def probed(*args: Any, **kwargs: Any) -> aiohttp.ClientResponse:
            return await usual(*args, **kwargs)

        monkeypatch.setattr(aiohttp.ClientSession, "_request", probed)
        assert ShortWay.to(origin, session, timeout) is None


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
