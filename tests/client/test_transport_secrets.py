"""The key leaves in one header of one request, and nowhere else."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from collections.abc import Callable

import aiohttp
import pytest
from rig.proxy import black_hole, unused_port
from rig.rude import (
    Act,
    Bytes,
    Close,
    Cut,
    Drip,
    Late,
    Reset,
    RudeServer,
    Seen,
    Silence,
    json_answer,
    raw_answer,
    until,
)
from rig.tls import server_context
from rig.trips import KEY, get, opened, post, trip

from seedance_avatar.client.transport import ResponseLost, Transport
from seedance_avatar.errors import AvatarError, ConnectionFailed
from seedance_avatar.text import Secret

pytestmark = pytest.mark.usefixtures("every_way")

OK = json_answer({"asset_id": "pa_1"})
BODY = b'{"source_url": "https://cdn.example/a.jpg?X-Amz-Signature=CANARYSIGNATURE"}'
SECRETS = (KEY.encode(), b"CANARYSIGNATURE", b"canary-7f3a")


def everything_of(error: BaseException) -> bytes:
    """Return all that any tool could show of an error, the locals of its frames included."""
    seen: list[bytes] = []
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop()
        if one is None:
            continue
        lines = traceback.TracebackException(type(one), one, one.__traceback__, capture_locals=True).format()
        seen += ["".join(lines).encode(), repr(one).encode(), str(one).encode(), repr(vars(one)).encode()]
        # Some tools follow the context even where it is suppressed.
        queue += [one.__context__, one.__cause__]
    if isinstance(error, AvatarError):
        seen.append(pickle.dumps(error))
    return b"\n".join(seen)


def assert_no_secret(error: BaseException) -> None:
    shown = everything_of(error)
    assert not [secret for secret in SECRETS if secret in shown]


FAULTS = {
    "closed": Close(),
    "reset": Reset(),
    "silence": Silence(),
    "cut": Cut(OK, 30),
    "body cut": Cut(OK, len(OK.data) - 1),
    "body reset": Cut(OK, len(OK.data) - 1, reset=True),
    "drip": Drip(OK, every=0.05, after=len(OK.data) - 8),
    "garbage": Bytes(b"garbage\r\n\r\n", then="close"),
    "long header": raw_answer(b"{}", headers={"X-Long": "x" * 20_000}),
    "huge": raw_answer(b"x" * (2 << 20)),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", list(FAULTS))
async def test_no_lost_answer_shows_the_key(fault: str) -> None:
    async with RudeServer(FAULTS[fault]) as server, opened(server.url, request=0.15) as transport:
        with pytest.raises(ResponseLost) as caught:
            await transport.send(post(BODY))
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert_no_secret(caught.value)


@pytest.mark.asyncio
async def test_no_failure_to_connect_shows_the_key() -> None:
    errors: list[ConnectionFailed] = []
    async with RudeServer(OK, tls=server_context()) as server:
        with black_hole() as port:
            for url in (f"http://127.0.0.1:{unused_port()}", f"http://127.0.0.1:{port}", server.url):
                async with opened(url, connect=0.1) as transport:
                    with pytest.raises(ConnectionFailed) as caught:
                        await transport.send(post(BODY))
                    errors.append(caught.value)
    for error in errors:
        assert_no_secret(error)


@pytest.mark.asyncio
async def test_no_cancellation_shows_the_key() -> None:
    async def send(transport: Transport) -> None:
        await transport.send(post(BODY))

    async with RudeServer(Silence()) as server, opened(server.url) as transport:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.1):
                await send(transport)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert_no_secret(caught.value)


def echo_in_body(status: int) -> Callable[[Seen], Bytes]:
    return lambda seen: json_answer({"message": f"bad token {seen.headers['authorization']}"}, status)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [200, 401])
async def test_a_service_that_repeats_the_key_gives_it_to_nobody(status: int) -> None:
    async with RudeServer(echo_in_body(status)) as server, opened(server.url) as transport:
        answer = await transport.send(post(BODY))
    assert KEY.encode() not in answer.body
    assert b"bad token Bearer ***" in answer.body


@pytest.mark.asyncio
async def test_evidence_of_a_lost_answer_holds_neither_key_nor_signature() -> None:
    def echo_and_drip(seen: Seen) -> Drip:
        answer = raw_answer(f"{seen.headers['authorization']} {seen.body.decode()}".encode(), length=5000)
        return Drip(answer, every=0.2, after=len(answer.data))

    async with RudeServer(echo_and_drip) as server, opened(server.url, request=0.15) as transport:
        with pytest.raises(ResponseLost) as caught:
            await transport.send(post(BODY))
    assert_no_secret(caught.value)


@pytest.mark.asyncio
async def test_a_transport_shows_no_key() -> None:
    async with RudeServer(OK) as server, opened(server.url) as transport:
        await transport.send(get())
        assert "canary" not in repr(transport)
    assert "canary" not in repr(Transport("https://x.example", Secret(KEY)))


# --- keys that change -------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_key_provider_is_asked_before_every_request() -> None:
    keys = iter(["sk-canary-first", "sk-canary-second", "sk-canary-second", "sk-canary-third"])
    async with RudeServer(OK) as server, opened(server.url, key=lambda: next(keys)) as transport:
        for _ in range(2):
            await trip(transport, get())
        for _ in range(2):
            await trip(transport, post())
    sent = [seen.headers["authorization"].removeprefix("Bearer sk-canary-") for seen in server.requests]
    assert sent == ["first", "second", "second", "third"]


@pytest.mark.asyncio
async def test_each_request_goes_with_its_own_key_however_long_it_waits() -> None:
    keys = iter("abcd")
    go = asyncio.Event()
    async with (
        RudeServer(Late(OK, go), OK) as server,
        opened(server.url, key=lambda: f"sk-canary-{next(keys)}", pool=1) as transport,
    ):
        tasks = [asyncio.create_task(trip(transport, get())) for _ in range(4)]
        await until(lambda: server.requests)
        go.set()
        await asyncio.gather(*tasks)
    sent = [seen.headers["authorization"].removeprefix("Bearer sk-canary-") for seen in server.requests]
    assert sent == list("abcd")


@pytest.mark.asyncio
async def test_a_key_that_was_changed_meanwhile_is_hidden_all_the_same() -> None:
    keys = iter(["canary-one", "canary-two"])
    go = asyncio.Event()

    def echo(seen: Seen) -> Act:
        return Late(raw_answer(seen.headers["authorization"].encode(), 401), go)

    async with RudeServer(echo) as server, opened(server.url, key=lambda: next(keys)) as transport:
        tasks = [asyncio.create_task(trip(transport, get())) for _ in range(2)]
        await until(lambda: len(server.requests) == 2)
        go.set()
        answers = await asyncio.gather(*tasks)
    assert [answer.body for answer in answers] == [b"Bearer ***"] * 2


@pytest.mark.asyncio
async def test_a_key_provider_may_be_async() -> None:
    async def provider() -> str:
        await asyncio.sleep(0)
        return KEY

    async with RudeServer(OK) as server, opened(server.url, key=provider) as transport:
        await trip(transport, get())
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["", "two words", "line\r\nX-Injected: yes", "schlüssel", None, 7])
async def test_an_unusable_key_is_not_sent(key: str) -> None:
    async with RudeServer(OK) as server, opened(server.url, key=lambda: key) as transport:
        with pytest.raises(ConnectionFailed, match="key provider") as caught:
            await trip(transport, post())
    assert server.connections == 0
    assert "Injected" not in str(caught.value)


@pytest.mark.asyncio
async def test_a_key_provider_that_fails_means_nothing_was_sent() -> None:
    def provider() -> str:
        message = "vault https://vault.example/v1?token=CANARYSIGNATURE is sealed"
        raise OSError(message)

    async with RudeServer(OK) as server, opened(server.url, key=provider) as transport:
        with pytest.raises(ConnectionFailed, match="the key provider failed: OSError: vault") as caught:
            await trip(transport, post())
    assert server.connections == 0
    assert not caught.value.fatal
    assert "CANARY" not in str(caught.value)


@pytest.mark.asyncio
async def test_a_key_provider_that_hangs_is_given_up() -> None:
    async def provider() -> str:
        await asyncio.Event().wait()
        return KEY

    async with RudeServer(OK) as server, opened(server.url, key=provider, request=0.1) as transport:
        with pytest.raises(ConnectionFailed, match="key provider"):
            await trip(transport, post())
    assert server.connections == 0


@pytest.mark.asyncio
async def test_a_key_provider_that_waits_for_something_cancelled_cancels_nobody() -> None:
    async def provider() -> str:
        shared: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        shared.cancel()
        return await shared

    async with RudeServer(OK) as server, opened(server.url, key=provider) as transport:
        with pytest.raises(ConnectionFailed, match="the key provider failed: CancelledError"):
            await trip(transport, post())
    assert server.connections == 0


# --- a borrowed session -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_borrowed_session_adds_no_key_and_no_cookie_of_its_own() -> None:
    async with RudeServer(raw_answer(b"{}", headers={"Set-Cookie": "id=2"})) as server:
        jar = aiohttp.CookieJar(unsafe=True)
        jar.update_cookies({"id": "1"})
        headers = {"Authorization": "Bearer of-the-user", "X-Theirs": "kept", "Accept-Encoding": "gzip"}
        http = aiohttp.ClientSession(cookie_jar=jar, headers=headers)
        async with http, opened(server.url, http=http) as transport:
            for _ in range(2):
                await transport.send(post())
    for seen in server.requests:
        assert seen.headers["authorization"] == f"Bearer {KEY}"
        assert seen.headers["accept-encoding"] == "identity"
        assert seen.headers["x-theirs"] == "kept"
        assert "cookie" not in seen.headers
