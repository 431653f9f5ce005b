"""Each fault of the wire, and the verdict on it: not sent, or perhaps applied."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.client_proto import ResponseHandler
from rig.leaks import no_leaks
from rig.proxy import FaultProxy, black_hole, unused_port
from rig.rude import (
    Act,
    Bytes,
    Close,
    Cut,
    Drip,
    Endless,
    Late,
    Reset,
    RudeServer,
    Silence,
    json_answer,
    raw_answer,
    redirect,
    until,
)
from rig.tls import client_context, server_context
from rig.trips import get, opened, post

from seedance_avatar.client.transport import ResponseLost, Transport
from seedance_avatar.errors import ConnectionFailed
from seedance_avatar.wire.request import Request

pytestmark = pytest.mark.usefixtures("every_way")

OK = json_answer({"success": True, "data": {"asset_id": "pa_1"}}, headers={"X-Oneapi-Request-Id": "r-1"})


def usable_connections(transport: Transport) -> int:
    """Count the idle connections on which the other side has neither said nor closed anything."""
    assert transport._session is not None
    assert transport._session.connector is not None
    idle = [protocol for row in transport._session.connector._conns.values() for protocol, _ in row]
    return sum(protocol.is_connected() and not protocol.should_close for protocol in idle)


# --- not sent ---------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("request_", [get(), post()], ids=["get", "post"])
async def test_a_refused_connection_is_not_sent(request_: Request) -> None:
    port = unused_port()
    async with no_leaks(), opened(f"http://127.0.0.1:{port}") as transport:
        with pytest.raises(ConnectionFailed, match=r"cannot connect to 127\.0\.0\.1") as caught:
            await transport.send(request_)
    assert not caught.value.fatal
    assert caught.value.about == request_.about


@pytest.mark.asyncio
async def test_an_unknown_host_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with no_leaks(), opened("http://nowhere.invalid") as transport:
        with pytest.raises(ConnectionFailed, match=r"nowhere\.invalid.*Name or service not known") as caught:
            await transport.send(post())
    assert not caught.value.fatal


@pytest.mark.asyncio
async def test_a_host_that_is_no_name_for_everybody_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    async with opened("http://xn--a.com") as transport:
        with pytest.raises(ConnectionFailed, match=r"xn--a\.com"):
            await transport.send(post())


@pytest.mark.asyncio
async def test_a_stalled_resolver_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    stalled = asyncio.Event()

    async def stall(*_: Any, **__: Any) -> Any:
        stalled.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", stall)
    async with no_leaks(), opened("http://slow.invalid", connect=0.1) as transport:
        with pytest.raises(ConnectionFailed, match=r"no connection within 0\.1 s"):
            await transport.send(post())
    assert stalled.is_set()


@pytest.mark.asyncio
async def test_a_connection_that_is_never_made_is_not_sent() -> None:
    with black_hole() as port:
        async with no_leaks(), opened(f"http://127.0.0.1:{port}", connect=0.1) as transport:
            with pytest.raises(ConnectionFailed, match=r"no connection within 0\.1 s"):
                await transport.send(post())


@pytest.mark.asyncio
async def test_a_connect_timeout_beyond_the_request_timeout_is_still_told_as_not_sent() -> None:
    with black_hole() as port:
        async with no_leaks(), opened(f"http://127.0.0.1:{port}", connect=30, request=0.1) as transport:
            with pytest.raises(ConnectionFailed):
                await transport.send(post())


@pytest.mark.asyncio
async def test_a_pool_that_has_no_connection_free_is_not_sent() -> None:
    async with RudeServer(Silence()) as server, no_leaks(), opened(server.url, pool=1, connect=0.1) as transport:
        first = asyncio.create_task(transport.send(post(path="/first")))
        await until(lambda: server.requests)
        with pytest.raises(ConnectionFailed):
            await transport.send(post(path="/second"))
        first.cancel()
        await asyncio.wait([first])
    assert [seen.path for seen in server.requests] == ["/first"]


BAD_CERTIFICATES = {
    "untrusted": lambda: server_context(authority=trustme.CA()),
    "wrong host": lambda: server_context("elsewhere.example"),
    "expired": lambda: server_context(expired=True),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", list(BAD_CERTIFICATES))
async def test_a_bad_certificate_is_not_sent_and_fatal(kind: str) -> None:
    async with RudeServer(OK, tls=BAD_CERTIFICATES[kind]()) as server, no_leaks():
        connector = aiohttp.TCPConnector(ssl=client_context())
        async with aiohttp.ClientSession(connector=connector) as http, opened(server.url, http=http) as transport:
            with pytest.raises(ConnectionFailed, match="certificate") as caught:
                await transport.send(post())
        await until(lambda: not server.open_connections)
    assert caught.value.fatal
    assert server.received == 0


@pytest.mark.asyncio
async def test_our_own_connections_trust_no_made_up_authority() -> None:
    async with RudeServer(OK, tls=server_context()) as server, no_leaks(), opened(server.url) as transport:
        with pytest.raises(ConnectionFailed) as caught:
            await transport.send(get())
    assert caught.value.fatal
    assert server.received == 0


@pytest.mark.asyncio
async def test_a_good_certificate_passes() -> None:
    async with RudeServer(OK, tls=server_context()) as server, no_leaks():
        connector = aiohttp.TCPConnector(ssl=client_context())
        async with aiohttp.ClientSession(connector=connector) as http, opened(server.url, http=http) as transport:
            assert (await transport.send(get())).status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("act", [Close(on_accept=True), Reset(on_accept=True)], ids=["closed", "reset"])
async def test_a_handshake_cut_off_is_not_sent_and_may_be_tried_again(act: Close | Reset) -> None:
    async with RudeServer(act) as server, no_leaks(), opened(server.url.replace("http:", "https:")) as transport:
        with pytest.raises(ConnectionFailed) as caught:
            await transport.send(post())
    assert not caught.value.fatal
    assert server.connections == 1


@pytest.mark.asyncio
async def test_a_silent_handshake_is_not_sent() -> None:
    silent = Silence(on_accept=True)
    async with (
        RudeServer(silent) as server,
        no_leaks(),
        opened(server.url.replace("http:", "https:"), connect=0.1) as transport,
    ):
        with pytest.raises(ConnectionFailed, match=r"no connection within 0\.1 s"):
            await transport.send(post())


# --- perhaps applied --------------------------------------------------------------------------------------

LOST = {
    "reset after accept": (Reset(on_accept=True), 0),
    "closed after accept": (Close(on_accept=True), 0),
    "reset after reading": (Reset(), 1),
    "closed after reading": (Close(), 1),
    "silence": (Silence(), 1),
    "silence after accept": (Silence(on_accept=True), 0),
    "body cut": (Cut(OK, len(OK.data) - 1), 1),
    "body reset": (Cut(OK, len(OK.data) - 1, reset=True), 1),
    "head dripping": (Drip(OK, every=0.03), 1),
    "body dripping": (Drip(OK, every=0.03, after=len(OK.data) - 30), 1),
    "too long a content length": (raw_answer(b"{}", length=3), 1),
    "bad content length": (raw_answer(b"{}", headers={"Content-Length": "two"}, length=-1), 1),
    "two content lengths": (raw_answer(b"{}", headers={"Content-Length": "2", "content-length": "1"}), 1),
    "bad chunk size": (raw_answer(b"zz\r\n{}\r\n0\r\n\r\n", headers={"Transfer-Encoding": "chunked"}), 1),
    "bad chunk end": (raw_answer(b"2\r\n{}XX0\r\n\r\n", headers={"Transfer-Encoding": "chunked"}), 1),
    "no last chunk": (raw_answer(b"2\r\n{}\r\n", headers={"Transfer-Encoding": "chunked"}, then="close"), 1),
    "bad gzip": (raw_answer(b"not gzip at all", headers={"Content-Encoding": "gzip"}), 1),
    "garbage status line": (Bytes(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n\r\n", then="close"), 1),
    "no status": (Bytes(b"HTTP/1.1 OK\r\n\r\n", then="close"), 1),
    "TLS alert": (Bytes(b"\x15\x03\x01\x00\x02\x02\x46", then="close"), 1),
    "long header": (raw_answer(b"{}", headers={"X-Long": "x" * 20_000}), 1),
    "endless headers": (Endless(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"), 1),
    "one endless header": (Endless(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 4096), 1),
    "endless continue": (Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), 1),
    "endless body": (Endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), 1),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("request_", [get(), post()], ids=["get", "post"])
@pytest.mark.parametrize("fault", list(LOST))
async def test_a_lost_answer_is_told_as_lost_and_nothing_is_sent_twice(fault: str, request_: Request) -> None:
    act, arrived = LOST[fault]
    async with RudeServer(act) as server, no_leaks():
        async with opened(server.url, request=0.3) as transport:
            with pytest.raises(ResponseLost) as caught:
                await transport.send(request_)
        await until(lambda: not server.open_connections)
    assert caught.value.about == request_.about
    assert len(server.requests) == arrived
    assert server.connections == 1
    assert str(caught.value).isprintable()


@pytest.mark.asyncio
async def test_a_lost_body_is_told_with_what_was_read_of_its_head() -> None:
    slow = Drip(OK, every=0.05, after=len(OK.data) - 12)
    async with RudeServer(slow) as server, opened(server.url, request=0.15) as transport:
        with pytest.raises(ResponseLost, match=r"no whole answer within 0\.15 s") as caught:
            await transport.send(post())
    assert caught.value.request_id == "r-1"
    assert caught.value.evidence is not None
    assert caught.value.evidence.startswith('{"success": true')


@pytest.mark.asyncio
async def test_what_is_not_http_is_no_answer_with_status_400() -> None:
    async with RudeServer(Bytes(b"garbage\r\n\r\n", then="close")) as server, opened(server.url) as transport:
        with pytest.raises(ResponseLost, match="not HTTP") as caught:
            await transport.send(post())
    assert (caught.value.evidence, caught.value.request_id) == (None, None)


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_request_cut_on_its_way_is_lost(how: str) -> None:
    body = b"x" * 200_000
    async with RudeServer(OK) as server, FaultProxy(server.port) as proxy, no_leaks():
        proxy.cut_up = 1000
        proxy.reset = how == "reset"
        async with opened(proxy.url) as transport:
            with pytest.raises(ResponseLost):
                await transport.send(post(body))
    assert server.requests == []
    assert proxy.up == 1000


# --- connections kept alive -------------------------------------------------------------------------------


@pytest.mark.reuse
@pytest.mark.asyncio
@pytest.mark.parametrize("end", [Close(), Reset()], ids=["closed", "reset"])
@pytest.mark.parametrize("request_", [get(), post()], ids=["get", "post"])
@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
async def test_a_stale_connection_costs_one_request_and_no_silent_second(
    request_: Request, end: Close | Reset, *, borrowed: bool
) -> None:
    async with (
        RudeServer(OK, end, OK) as server,
        aiohttp.ClientSession() as http,
        opened(server.url, http=http if borrowed else None) as transport,
    ):
        await transport.send(request_)
        with pytest.raises(ResponseLost):
            await transport.send(request_)
        assert (await transport.send(request_)).status == 200
    # As many requests on the wire as sends: aiohttp's own second try of a GET would make it four.
    assert len(server.requests) == 3
    assert [seen.connection for seen in server.requests] == [1, 1, 2]


@pytest.mark.asyncio
async def test_a_connection_closed_before_its_next_use_is_replaced() -> None:
    async with RudeServer(raw_answer(b"{}", then="close")) as server, opened(server.url) as transport:
        for _ in range(3):
            assert (await transport.send(post())).status == 200
            await until(lambda: not usable_connections(transport))
    assert server.connections == len(server.requests) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
async def test_an_answer_that_nobody_asked_for_is_never_taken_for_the_next_one(*, borrowed: bool) -> None:
    unasked = json_answer({"asset_id": "pa_of_another"})
    async with (
        RudeServer(OK) as server,
        aiohttp.ClientSession() as http,
        opened(server.url, http=http if borrowed else None) as transport,
    ):
        if borrowed and not transport._internals.hook:
            pytest.skip(
                "aiohttp documents no way to close a borrowed session's idle connections: the server is asked to"
            )
        await transport.send(post())
        for writer in server._writers:
            writer.write(unasked.data)
        await until(lambda: not usable_connections(transport))
        assert b"pa_1" in (await transport.send(post())).body
    assert [seen.connection for seen in server.requests] == [1, 2]


@pytest.mark.asyncio
async def test_two_answers_in_one_piece_count_as_one() -> None:
    twice = Bytes(OK.data + json_answer({"asset_id": "pa_of_another"}).data)
    async with RudeServer(twice) as server, opened(server.url) as transport:
        for _ in range(3):
            assert b"pa_1" in (await transport.send(post())).body
    assert server.connections == 3


@pytest.mark.reuse
@pytest.mark.asyncio
async def test_who_speaks_unasked_on_every_connection_is_given_up_and_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with RudeServer(OK) as server, no_leaks(), opened(server.url) as transport:
        monkeypatch.setattr(ResponseHandler, "should_close", property(lambda _: True))
        with pytest.raises(ConnectionFailed, match="sent data before the request") as caught:
            await transport.send(post())
        assert not caught.value.fatal
        await until(lambda: server.connections == 10)
    assert server.requests == []


# --- redirects and proxies --------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("request_", [get(), post()], ids=["get", "post"])
async def test_a_redirect_is_an_answer_and_nobody_else_hears_of_it(status: int, request_: Request) -> None:
    async with (
        RudeServer(OK) as other,
        RudeServer(redirect(other.url + "/stolen?x=1", status)) as server,
        opened(server.url) as transport,
    ):
        answer = await transport.send(request_)
    assert answer.status == status
    assert answer.location is not None
    assert other.connections == 0
    assert len(server.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("obeyed", [False, True])
async def test_proxy_variables_are_obeyed_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, obeyed: bool
) -> None:
    async with RudeServer(OK) as proxy, RudeServer(OK) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        # A name, because addresses of loopback are often left out of proxying by the system itself.
        async with opened(f"http://127.0.0.1:{server.port}", trust_env=obeyed) as transport:
            await transport.send(post())
    assert len(proxy.requests) == (1 if obeyed else 0)
    assert len(server.requests) == (0 if obeyed else 1)


@pytest.mark.asyncio
async def test_a_proxy_that_refuses_the_way_means_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with RudeServer(json_answer({}, 407)) as proxy, RudeServer(OK) as server:
        https = server.url.replace("http:", "https:")
        for where, words in ((proxy.port, "the proxy refused"), (unused_port(), "Connect call failed")):
            monkeypatch.setenv("https_proxy", f"http://me:CANARY@127.0.0.1:{where}")
            async with opened(https, trust_env=True) as transport:
                with pytest.raises(ConnectionFailed, match=words) as caught:
                    await transport.send(post())
            assert not caught.value.fatal
            assert "CANARY" not in str(caught.value)
    assert [seen.method for seen in proxy.requests] == ["CONNECT"]
    assert "sk-canary" not in str(proxy.requests)
    assert server.connections == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
@pytest.mark.parametrize("act", [Close(), Reset(), Bytes(b"what?\r\n\r\n")], ids=["close", "reset", "garbage"])
async def test_a_proxy_that_breaks_off_means_not_sent(
    act: Act, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, borrowed: bool
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with RudeServer(act) as proxy, no_leaks(), aiohttp.ClientSession(proxy=proxy.url) as http:
        monkeypatch.setenv("https_proxy", proxy.url)
        async with opened(
            "https://somewhere.invalid", trust_env=not borrowed, http=http if borrowed else None
        ) as transport:
            with pytest.raises(ConnectionFailed) as caught:
                await transport.send(post())
        assert not caught.value.fatal
    assert [seen.method for seen in proxy.requests] == ["CONNECT"]


# --- what leaves ------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_request_says_what_it_must_and_no_more() -> None:
    async with RudeServer(OK) as server, opened(server.url + "/prefix") as transport:
        await transport.send(post(b'{"a": 1}', path="/v1/things"))
        await transport.send(get("/v1/things/pa_%2F"))
    sent, asked = server.requests
    assert sent.method == "POST"
    assert sent.path == "/prefix/v1/things"
    assert sent.body == b'{"a": 1}'
    assert sent.headers["authorization"] == "Bearer sk-canary-7f3a9c2e51"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["accept-encoding"] == "identity"
    assert asked.path == "/prefix/v1/things/pa_%2F"
    always = {"host", "authorization", "accept", "accept-encoding", "user-agent"}
    assert set(asked.headers) == always | (set() if transport._internals.hook else {"connection"})


@pytest.mark.reuse
@pytest.mark.asyncio
async def test_as_many_as_the_pool_holds_are_on_the_wire_at_once() -> None:
    hold = asyncio.Event()
    async with RudeServer(Late(OK, hold)) as server, no_leaks(), opened(server.url, pool=4) as transport:
        tasks = [asyncio.create_task(transport.send(post())) for _ in range(40)]
        await until(lambda: len(server.requests) == 4)
        hold.set()
        answers = await asyncio.gather(*tasks)
    assert {answer.status for answer in answers} == {200}
    assert len(server.applied) == 40
    assert server.connections == 4
