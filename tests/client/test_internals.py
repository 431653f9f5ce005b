"""What becomes of requests when aiohttp's undocumented parts change, before a session opens and under an open one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from rig.rude import Act, Close, RudeServer, Seen, json_answer
from rig.trips import get, opened, post

from seedance_avatar.client.transport import ResponseLost, Transport
from seedance_avatar.errors import AvatarError, ConnectionFailed

WAYS = ["fast path", "ClientSession.request", "borrowed"]
OK = json_answer({})
ChangeOf = Callable[[Any, str], Any]


class Changed:
    """A class attribute that is another one for the package and the same for aiohttp itself."""

    def __init__(self, real: Any, name: str, change: ChangeOf) -> None:
        self.real, self.name, self.change = real, name, change

    def __get__(self, instance: Any, owner: type) -> Any:
        real = self.real.__get__(instance, owner)
        ours = sys._getframe(1).f_globals["__name__"].startswith("seedance_avatar.")
        return self.change(real, self.name) if ours else real


def removed(real: Any, name: str) -> Any:
    del real
    raise AttributeError(name)


def other_keywords(real: Any, name: str) -> Any:
    del real, name

    def function(*, new: object) -> None:
        del new

    return function


def other_keywords_async(real: Any, name: str) -> Any:
    del real, name

    async def function(*, new: object) -> None:
        del new

    return function


def raising(real: Any, name: str) -> Any:
    del real
    raise RuntimeError(name)


def other_kind(real: Any, name: str) -> Any:
    """Another object: for a function one that is none, for a property one without its attributes."""
    del real, name
    return object()


def other_result(real: Any, name: str) -> Any:
    del real, name

    def function(*_: object, **__: object) -> object:
        return object()

    return function


def other_result_async(real: Any, name: str) -> Any:
    """What is awaited returns something else. The real thing is done all the same, as a new aiohttp would do it."""
    del name

    async def function(*args: object, **more: object) -> object:
        result = await real(*args, **more)
        if isinstance(result, Connection):
            result.close()
        return object()

    return function


def raising_async(real: Any, name: str) -> Any:
    del real

    async def function(*_: object, **__: object) -> object:
        raise RuntimeError(name)

    return function


REMOVED: list[ChangeOf] = [removed, other_kind]
SYNC: list[ChangeOf] = [removed, raising, other_kind, other_keywords]
ASYNC: list[ChangeOf] = [removed, raising, other_kind, other_keywords_async, other_result_async, raising_async]
NAMES: list[tuple[type, str, list[ChangeOf]]] = [
    (aiohttp.ClientRequest, "__init__", [removed, other_keywords]),
    (aiohttp.ClientRequest, "send", [removed, raising, other_kind, other_keywords_async, other_result]),
    (aiohttp.BaseConnector, "connect", ASYNC),
    (Connection, "protocol", REMOVED),
    (Connection, "transport", REMOVED),
    (Connection, "release", SYNC),
    (Connection, "close", SYNC),
    (ResponseHandler, "set_response_params", SYNC),
    (ResponseHandler, "should_close", [*REMOVED, other_result]),
    (ResponseHandler, "read", ASYNC),
    (aiohttp.StreamReader, "on_eof", SYNC),
]
CHANGES = [
    pytest.param((owner, name), change, id=f"{owner.__name__}.{name}-{change.__name__}")
    for owner, name, changes in NAMES
    for change in changes
]
AFTER_THE_FIRST_BYTE = {
    ("read", other_keywords_async),
    ("read", other_result_async),
    ("read", raising_async),
    ("read", other_kind),
}


@asynccontextmanager
async def transport_by(way: str, url: str) -> AsyncIterator[Transport]:
    if way != "borrowed":
        async with opened(url, fast_path=way == "fast path") as transport:
            yield transport
        return
    async with aiohttp.ClientSession() as http, opened(url, http=http) as transport:
        yield transport


def answer(seen: Seen) -> Any:
    return json_answer({"body": seen.body.decode()})


async def send_all(transport: Transport) -> Counter[str]:
    """Send eleven requests, all with a body of their own, of which ten at once; return what came of them."""
    outcomes: Counter[str] = Counter()

    async def one(number: int) -> None:
        body = b"%d" % number
        try:
            assert body in (await transport.send(post(body))).body
            outcomes["applied"] += 1
        except AvatarError as error:
            outcomes[type(error).__name__] += 1

    await one(0)
    await asyncio.gather(*(one(number) for number in range(1, 11)))
    assert (await transport.send(get())).status == 200
    return outcomes


def seen_by(way: str, when: str, name: str) -> bool:
    """Return whether the change of ``name`` is met at all; ``close`` is used only for what went wrong before."""
    if way != "fast path":
        return name in {"send", "protocol", "should_close"}
    return name != "close" and (when == "before" or name not in {"__init__", "send"})


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "seedance_avatar"]


@pytest.mark.asyncio
async def test_the_installed_aiohttp_works_as_expected(caplog: pytest.LogCaptureFixture) -> None:
    async with RudeServer(answer) as server, opened(server.url) as transport:
        assert await send_all(transport) == {"applied": 11}
        internals = transport._internals
        assert (internals.fast, internals.hook, internals.hook_proved) == (True, True, True)
    assert lines(caplog) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", ["before", "under an open session"])
@pytest.mark.parametrize(("change_of", "change"), CHANGES)
async def test_a_change_costs_no_request_and_one_log_line(
    change_of: tuple[type, str],
    change: ChangeOf,
    *,
    when: str,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    owner, name = change_of
    holder = next(base for base in owner.__mro__ if name in vars(base))
    hidden = Changed(vars(holder)[name], name, change)
    async with RudeServer(answer) as server:
        if when == "before":
            monkeypatch.setattr(holder, name, hidden)
        async with transport_by(way, server.url) as transport:
            if when != "before":
                await transport.send(get())
                monkeypatch.setattr(holder, name, hidden)
            outcomes = await send_all(transport)
    late = way == "fast path" and when != "before" and (name, change) in AFTER_THE_FIRST_BYTE
    assert outcomes == ({"applied": 10, "ResponseLost": 1} if late else {"applied": 11})
    assert set(Counter(seen.body for seen in server.requests if seen.method == "POST").values()) == {1}
    assert len(lines(caplog)) == seen_by(way, when, name)
    assert all(aiohttp.__version__ in line for line in lines(caplog))


@pytest.mark.asyncio
@pytest.mark.parametrize("when", ["before", "under an open session"])
async def test_without_the_function_that_mocks_replace_the_fast_path_is_not_used(
    when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def rename() -> None:
        real = aiohttp.ClientSession._request
        monkeypatch.setattr(aiohttp.ClientSession, "_do_request", real, raising=False)
        monkeypatch.delattr(aiohttp.ClientSession, "_request")
        monkeypatch.setattr(aiohttp.ClientSession, "request", lambda self, *a, **k: self._do_request(*a, **k))

    async with RudeServer(answer) as server:
        if when == "before":
            rename()
        async with opened(server.url) as transport:
            if when != "before":
                rename()
            assert await send_all(transport) == {"applied": 11}
    assert len(lines(caplog)) == (when == "before")


@pytest.mark.asyncio
async def test_a_host_that_is_missing_in_the_headers_is_found_at_opening(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = aiohttp.ClientRequest.__init__

    def without_host(self: aiohttp.ClientRequest, *args: Any, **more: Any) -> None:
        real(self, *args, **more)
        if sys._getframe(1).f_globals["__name__"].startswith("seedance_avatar."):
            del self.headers["Host"]

    monkeypatch.setattr(aiohttp.ClientRequest, "__init__", without_host)
    async with RudeServer(answer) as server, opened(server.url) as transport:
        assert await send_all(transport) == {"applied": 11}
    assert ["KeyError('Host')" in line for line in lines(caplog)] == [True]


@pytest.mark.asyncio
@pytest.mark.parametrize("way", WAYS)
async def test_without_a_class_for_requests_the_fast_path_is_not_used(
    way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(aiohttp, "ClientRequest")
    async with RudeServer(answer) as server, transport_by(way, server.url) as transport:
        assert await send_all(transport) == {"applied": 11}
    assert len(lines(caplog)) == (way == "fast path")


class Deaf(aiohttp.ClientRequest):
    """A request of an aiohttp that sends by another method than ``send``."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "send":
            super().__setattr__(name, value)


@pytest.mark.asyncio
@pytest.mark.parametrize("first", [OK, Close()], ids=["answered", "lost"])
async def test_a_hook_that_is_not_called_never_makes_a_lost_answer_look_unsent(
    first: Act, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        RudeServer(first, OK) as server,
        aiohttp.ClientSession(request_class=Deaf) as http,
        opened(server.url, http=http) as transport,
    ):
        if first is not OK:
            with pytest.raises(ResponseLost):
                await transport.send(post())
        for _ in range(2):
            await transport.send(post())
    assert ["send is not called" in line for line in lines(caplog)] == [True]


@pytest.mark.asyncio
async def test_what_raises_before_the_request_is_begun_means_not_sent() -> None:
    async def broken(*_: object) -> None:
        message = "a trace of the user's"
        raise RuntimeError(message)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(broken)
    async with (
        RudeServer(OK) as server,
        aiohttp.ClientSession(trace_configs=[trace]) as http,
        opened(server.url, http=http) as transport,
    ):
        with pytest.raises(ConnectionFailed, match="a trace of the user's"):
            await transport.send(post())
    assert server.requests == []


@pytest.mark.asyncio
async def test_opening_calls_no_mock_and_no_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    real = aiohttp.ClientSession._request

    async def traced(*args: Any, **more: Any) -> aiohttp.ClientResponse:
        called.append(args)
        return await real(*args, **more)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", traced)
    async with RudeServer(OK) as server, opened(server.url) as transport:
        before = transport._internals.hook_proved, len(called)
        await transport.send(post())
        assert (before, transport._internals.hook_proved) == ((False, 0), True)
    assert len(called) == 1


@pytest.mark.asyncio
async def test_a_trial_that_hangs_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("seedance_avatar.client.fast_path._SECONDS", 0.05)
    real = aiohttp.BaseConnector.connect

    async def connect(self: aiohttp.BaseConnector, *args: Any, **more: Any) -> Any:
        if not isinstance(self, aiohttp.TCPConnector):
            await asyncio.Event().wait()
        return await real(self, *args, **more)

    monkeypatch.setattr(aiohttp.BaseConnector, "connect", connect)
    async with RudeServer(answer) as server, opened(server.url) as transport:
        assert await send_all(transport) == {"applied": 11}
    assert len(lines(caplog)) == 1


def test_the_package_is_imported_without_any_undocumented_name() -> None:
    code = """if True:
        import aiohttp, aiohttp.http, aiohttp.connector, aiohttp.client_proto
        del aiohttp.http.HttpProcessingError, aiohttp.connector.Connection, aiohttp.client_proto.ResponseHandler
        vars(aiohttp).pop("ClientRequest"), vars(aiohttp).pop("ClientHandlerType", None)
        import asyncio, seedance_avatar
        from seedance_avatar.client.internals import Internals
        from seedance_avatar.client.fast_path import probe
        internals = Internals()
        asyncio.run(probe(internals, fast_path=True))
        print(internals.fast, internals.hook)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - this interpreter, and code that stands above
    assert ran.stdout.split() == ["False", "False"]
