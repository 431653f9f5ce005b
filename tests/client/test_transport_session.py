"""Opening, closing, borrowing, cancelling: whatever ends, nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import socket
from typing import Any

import aiohttp
import pytest
from rig.leaks import no_leaks
from rig.proxy import FaultProxy, black_hole
from rig.rude import Drip, Late, RudeServer, Silence, json_answer, raw_answer, until
from rig.trips import KEY, get, opened, post, trip

from seedance_avatar.client.transport import ResponseLost, Transport
from seedance_avatar.errors import InvalidInput, SessionStateError
from seedance_avatar.options import Timeouts
from seedance_avatar.text import Secret

pytestmark = pytest.mark.usefixtures("every_way")

OK = json_answer({})


def closed_transport(url: str = "http://127.0.0.1:1") -> Transport:
    return Transport(url, Secret(KEY), timeouts=Timeouts(connect=1, request=1))


# --- states -----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_one_that_is_not_open_says_so() -> None:
    with pytest.raises(SessionStateError, match="not open"):
        await closed_transport().send(get())


@pytest.mark.asyncio
async def test_it_is_opened_twice_and_closed_twice_without_harm() -> None:
    async with RudeServer(OK) as server, no_leaks():
        transport = closed_transport(server.url)
        await transport.open()
        await transport.open()
        assert (await transport.send(get())).status == 200
        await transport.aclose()
        await transport.aclose()
        for use in (transport.send(get()), transport.open()):
            with pytest.raises(SessionStateError, match="closed"):
                await use


@pytest.mark.asyncio
async def test_one_never_opened_can_be_closed_and_stays_closed() -> None:
    transport = closed_transport()
    await transport.aclose()
    with pytest.raises(SessionStateError, match="closed"):
        await transport.open()


def test_it_is_built_without_a_loop() -> None:
    async def use() -> None:
        await transport.open()
        await transport.aclose()

    transport = closed_transport()
    asyncio.run(use())


def test_another_loop_is_refused() -> None:
    transport = closed_transport()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(transport.open())
        for use in (transport.send, lambda _: transport.open(), lambda _: transport.aclose()):
            with pytest.raises(SessionStateError, match="another event loop"):
                second.run(use(get()))
        first.run(transport.aclose())


@pytest.mark.reuse
@pytest.mark.asyncio
async def test_another_process_is_refused() -> None:
    async with RudeServer(OK) as server, opened(server.url) as transport:
        await transport.send(get())
        child = os.fork()
        if child == 0:
            # No loop runs on this side of the fork, so the coroutines are driven by hand.
            told = 0
            for use in (transport.send(get()), transport.aclose(), transport.open()):
                try:
                    use.send(None)
                except SessionStateError as error:
                    told += "another process" in str(error)
            os._exit(told)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 3
        # The child touched nothing of ours: the same connection serves on.
        assert (await transport.send(get())).status == 200
    assert server.connections == 1


@pytest.mark.reuse
@pytest.mark.asyncio
async def test_closing_waits_until_connections_are_closed() -> None:
    async with RudeServer(OK) as server:
        async with opened(server.url) as transport:
            await asyncio.gather(*(transport.send(get()) for _ in range(5)))
            assert transport._session is not None
            assert transport._session.connector is not None
            idle = [protocol for row in transport._session.connector._conns.values() for protocol, _ in row]
            sockets = [one.transport.get_extra_info("socket") for one in idle if one.transport is not None]
            assert sockets
            assert all(sock.fileno() >= 0 for sock in sockets)
        assert all(sock.fileno() < 0 for sock in sockets)
    gc.collect()  # whatever was left open would warn now, and a warning is an error here


@pytest.mark.asyncio
async def test_closing_from_another_task_is_allowed() -> None:
    async with RudeServer(OK) as server, no_leaks():
        transport = closed_transport(server.url)
        await asyncio.create_task(transport.open())
        await asyncio.create_task(transport.send(get()))
        await asyncio.create_task(transport.aclose())


@pytest.mark.asyncio
async def test_closing_tells_who_waits_and_who_is_on_the_wire() -> None:
    async with RudeServer(Silence()) as server, no_leaks():
        async with opened(server.url, pool=1) as transport:
            on_the_wire = asyncio.create_task(transport.send(post()))
            await until(lambda: server.requests)
            waiting = asyncio.create_task(transport.send(post()))
            await asyncio.sleep(0.02)
        with pytest.raises(ResponseLost):
            await on_the_wire
        with pytest.raises(SessionStateError, match="nothing was sent"):
            await waiting
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_closing_tells_who_waits_for_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def stall(*_: object, **__: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", stall)
    async with no_leaks():
        async with opened("http://slow.invalid") as transport:
            waiting = asyncio.create_task(transport.send(post()))
            await asked.wait()
        with pytest.raises(SessionStateError, match="nothing was sent"):
            await waiting


@pytest.mark.asyncio
async def test_closing_tells_who_has_a_connection_only_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    made, go = asyncio.Event(), asyncio.Event()
    make = aiohttp.TCPConnector._create_connection

    async def slowly(*args: Any) -> Any:
        made.set()
        await go.wait()
        return await make(*args)

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", slowly)
    async with RudeServer(OK) as server, no_leaks():
        async with opened(server.url) as transport:
            waiting = asyncio.create_task(transport.send(post()))
            await made.wait()
        go.set()
        with pytest.raises(SessionStateError, match="nothing was sent"):
            await waiting
    assert server.requests == []


@pytest.mark.asyncio
@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
async def test_closing_tells_who_waits_for_a_key(*, borrowed: bool) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def provider() -> str:
        asked.set()
        await go.wait()
        return KEY

    async with RudeServer(OK) as server, no_leaks(), aiohttp.ClientSession() as http:
        async with opened(server.url, key=provider, http=http if borrowed else None) as transport:
            waiting = asyncio.create_task(trip(transport, post()))
            await asked.wait()
            if borrowed:
                await http.close()
        go.set()
        with pytest.raises(SessionStateError, match="nothing was sent"):
            await waiting
    assert server.connections == 0


@pytest.mark.asyncio
async def test_closing_can_be_cancelled_and_has_closed_all_the_same() -> None:
    async with RudeServer(OK) as server, no_leaks():
        transport = closed_transport(server.url)
        await transport.open()
        await transport.send(get())
        closing = asyncio.create_task(transport.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await transport.aclose()
        await until(lambda: not server.open_connections)


# --- cancelled at every await -----------------------------------------------------------------------------


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.asyncio
async def test_cancelled_while_connecting() -> None:
    with black_hole() as port:
        async with opened(f"http://127.0.0.1:{port}") as transport, no_leaks():
            task = asyncio.create_task(transport.send(post()))
            await asyncio.sleep(0.05)
            await cancel(task)


@pytest.mark.asyncio
async def test_cancelled_in_the_handshake() -> None:
    silent = Silence(on_accept=True)
    async with (
        RudeServer(silent) as server,
        opened(server.url.replace("http:", "https:")) as transport,
        no_leaks(),
    ):
        task = asyncio.create_task(transport.send(post()))
        await until(lambda: server.open_connections)
        await cancel(task)
        await until(lambda: not server.open_connections)


@pytest.mark.asyncio
async def test_cancelled_while_sending() -> None:
    def tiny(info: aiohttp.AddrInfoType) -> socket.socket:
        sock = socket.socket(*info[:3])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return sock

    async with RudeServer(OK) as server, FaultProxy(server.port) as proxy:
        proxy.flowing.clear()
        http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=tiny))
        async with http, opened(proxy.url, http=http) as transport, no_leaks():
            task = asyncio.create_task(transport.send(post(bytes(1_000_000))))
            await until(lambda: proxy.connections)
            await asyncio.sleep(0.05)
            await cancel(task)
            # What asyncio had taken over is still delivered: a cancelled submission can be a whole one.
            proxy.flowing.set()
            await until(lambda: server.requests)


@pytest.mark.asyncio
async def test_cancelled_while_waiting_for_the_answer() -> None:
    async with RudeServer(Silence()) as server, opened(server.url) as transport, no_leaks():
        task = asyncio.create_task(transport.send(post()))
        await until(lambda: server.requests)
        await cancel(task)
        await until(lambda: not server.open_connections)


@pytest.mark.asyncio
async def test_cancelled_while_reading_the_answer() -> None:
    slow = Drip(OK, every=0.02, after=len(OK.data) - 2, size=1)
    async with RudeServer(slow) as server, opened(server.url) as transport, no_leaks():
        task = asyncio.create_task(transport.send(post()))
        await until(lambda: server.requests)
        await asyncio.sleep(0.01)
        await cancel(task)
        await until(lambda: not server.open_connections)


@pytest.mark.asyncio
async def test_cancelled_while_waiting_for_a_connection() -> None:
    hold = asyncio.Event()
    async with RudeServer(Late(OK, hold)) as server, opened(server.url, pool=1) as transport:
        first = asyncio.create_task(transport.send(post()))
        await until(lambda: server.requests)
        second = asyncio.create_task(transport.send(post()))
        await asyncio.sleep(0.02)
        await cancel(second)
        hold.set()
        assert (await first).status == 200
        assert (await transport.send(post())).status == 200
    assert len(server.requests) == 2


@pytest.mark.asyncio
async def test_cancelled_while_the_key_is_asked_for() -> None:
    async def provider() -> str:
        await asyncio.Event().wait()
        return KEY

    async with RudeServer(OK) as server, opened(server.url, key=provider) as transport, no_leaks():
        task = asyncio.create_task(trip(transport, post()))
        await asyncio.sleep(0.02)
        await cancel(task)
    assert server.connections == 0


@pytest.mark.asyncio
async def test_a_cancellation_during_closing_stays_a_cancellation() -> None:
    async with RudeServer(Silence()) as server, no_leaks():
        async with opened(server.url, pool=1) as transport:
            first = asyncio.create_task(transport.send(post()))
            await until(lambda: server.requests)
            second = asyncio.create_task(transport.send(post()))
            await asyncio.sleep(0.02)
            second.cancel()
        await asyncio.wait([first, second])
    assert second.cancelled()
    assert not first.cancelled()


@pytest.mark.asyncio
async def test_many_cancelled_at_any_moment_leave_the_pool_usable() -> None:
    async with RudeServer(OK) as server, opened(server.url, pool=4) as transport, no_leaks():
        for turns in range(40):
            tasks = [asyncio.create_task(transport.send(post())) for _ in range(4)]
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        answers = await asyncio.gather(*(transport.send(get()) for _ in range(8)))
        assert {answer.status for answer in answers} == {200}
        await transport.aclose()


# --- a borrowed session -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_borrowed_session_is_never_closed() -> None:
    async with RudeServer(OK) as server, aiohttp.ClientSession() as http:
        async with opened(server.url, http=http) as transport:
            await transport.send(get())
        assert not http.closed
        async with http.get(server.url) as response:
            assert response.status == 200
        with pytest.raises(SessionStateError, match="closed"):
            await transport.send(get())
    assert server.connections == 1


@pytest.mark.asyncio
async def test_a_borrowed_session_that_is_closed_says_so() -> None:
    async with aiohttp.ClientSession() as http, opened("http://127.0.0.1:1", http=http) as transport:
        await http.close()
        with pytest.raises(SessionStateError, match="borrowed aiohttp session is closed"):
            await transport.send(get())
        # Closing what cannot be used any more must not fail: it stands at the end of an `async with`.


@pytest.mark.asyncio
async def test_a_borrowed_session_that_closes_under_a_wait_cancels_nobody() -> None:
    async with RudeServer(Silence()) as server, no_leaks():
        http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        async with http, opened(server.url, http=http) as transport:
            on_the_wire = asyncio.create_task(transport.send(post()))
            await until(lambda: server.requests)
            waiting = asyncio.create_task(transport.send(post()))
            await asyncio.sleep(0.02)
            await http.close()
            with pytest.raises(SessionStateError, match="nothing was sent"):
                await waiting
            with pytest.raises(ResponseLost):
                await on_the_wire


@pytest.mark.asyncio
async def test_the_habits_of_a_borrowed_session_are_not_taken_over() -> None:
    tried: list[str] = []

    async def repeating(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        tried.append("middleware")
        await handler(request)
        return await handler(request)

    traces = aiohttp.TraceConfig()

    async def started(*_: object) -> None:
        tried.append("trace")

    traces.on_request_start.append(started)
    refusal = json_answer({"message": "no"}, 403)
    packed = raw_answer(gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})
    async with RudeServer(refusal, Drip(packed, every=0.02, size=20)) as server:
        http = aiohttp.ClientSession(
            raise_for_status=True,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=0.05),
            middlewares=(repeating,),
            trace_configs=[traces],
        )
        async with http, opened(server.url, http=http) as transport:
            assert (await transport.send(post())).status == 403
            assert (await transport.send(post())).body == b"{}"
    assert tried == ["trace", "trace"]
    assert len(server.requests) == 2


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:.*auth.*:DeprecationWarning")  # aiohttp says so itself since 3.14
async def test_a_borrowed_session_with_its_own_auth_is_refused_when_opening() -> None:
    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth("me", "word")) as http:
        transport = Transport("http://127.0.0.1:1", Secret(KEY), http=http)
        with pytest.raises(InvalidInput, match="auth="):
            await transport.open()
        await transport.aclose()


def test_a_borrowed_session_of_another_loop_is_refused_when_opening() -> None:
    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    with asyncio.Runner() as theirs, asyncio.Runner() as ours:
        http = theirs.run(make())
        with pytest.raises(SessionStateError, match="another event loop"):
            ours.run(Transport("http://127.0.0.1:1", Secret(KEY), http=http).open())
        theirs.run(http.close())
