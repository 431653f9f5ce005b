"""Answers that come: whole ones are read whole, parts are never taken for whole, and none grows without bound."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest
from rig.leaks import no_leaks
from rig.proxy import FaultProxy
from rig.rude import Act, Bytes, Cut, Drip, Endless, RudeServer, Seen, gzip_bomb, json_answer, raw_answer, until
from rig.trips import get, opened, post

from seedance_avatar.client.internals import MAX_BODY
from seedance_avatar.client.transport import ResponseLost
from seedance_avatar.wire.response import Response

pytestmark = pytest.mark.usefixtures("every_way")

SMALL = raw_answer(b'{"asset_id":"pa_1"}', headers={"Content-Type": "a/b"})
CHUNKED = raw_answer(b'5\r\n{"a":\r\n3\r\n"b"\r\n1\r\n}\r\n0\r\n\r\n', headers={"Transfer-Encoding": "chunked"})
REFUSED = json_answer({"message": "slow down"}, 429, {"Retry-After": "7"})


async def answer_to_post(act: Act, request: float = 5.0) -> Response:
    async with RudeServer(act) as server, opened(server.url, request=request) as transport:
        return await transport.send(post())


@pytest.mark.asyncio
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("answer", [SMALL, CHUNKED], ids=["length", "chunked"])
async def test_an_answer_cut_at_any_byte_is_lost(answer: Bytes, *, reset: bool) -> None:
    size = len(answer.data)

    def cut_where_the_path_says(seen: Seen) -> Act:
        return Cut(answer, int(seen.path.rpartition("/")[2]), reset=reset)

    async with RudeServer(cut_where_the_path_says) as server, no_leaks(), opened(server.url) as transport:
        for at in range(size):
            with pytest.raises(ResponseLost):
                await transport.send(post(path=f"/v1/{at}"))
        assert (await transport.send(post(path=f"/v1/{size}"))).status == 200
        # Each cut was met by one request, and none was repeated in silence.
        assert len(server.requests) == size + 1


@pytest.mark.asyncio
async def test_an_answer_cut_by_what_lies_between_is_lost() -> None:
    async with (
        RudeServer(SMALL) as server,
        FaultProxy(server.port) as proxy,
        no_leaks(),
        opened(proxy.url) as transport,
    ):
        for at in (1, 20, len(SMALL.data) - 1):
            proxy.cut_down = at
            with pytest.raises(ResponseLost):
                await transport.send(post())
        proxy.cut_down = None
        assert (await transport.send(post())).body == b'{"asset_id":"pa_1"}'


@pytest.mark.asyncio
async def test_a_refusal_is_known_by_its_head_however_its_body_ends() -> None:
    head = REFUSED.data.index(b"\r\n\r\n") + 4
    for act in (Cut(REFUSED, head), Cut(REFUSED, head + 3), Cut(REFUSED, head, reset=True)):
        answer = await answer_to_post(act)
        assert answer.status == 429
        assert answer.hints.retry_after == 7


@pytest.mark.asyncio
async def test_a_refusal_that_drips_is_returned_when_the_time_is_over() -> None:
    head = REFUSED.data.index(b"\r\n\r\n") + 4
    answer = await answer_to_post(Drip(REFUSED, every=0.04, after=head), request=0.15)
    assert answer.status == 429
    assert not answer.body.endswith(b"}")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("act", "status", "body"),
    [
        pytest.param(raw_answer(b""), 200, b"", id="empty"),
        pytest.param(raw_answer(b"{}", length=-1, then="close"), 200, b"{}", id="until closed"),
        pytest.param(raw_answer(b"{}", headers={"Connection": "close"}, then="close"), 200, b"{}", id="close"),
        pytest.param(Bytes(b"HTTP/1.0 200 OK\r\n\r\n{}", then="close"), 200, b"{}", id="http 1.0"),
        pytest.param(Bytes(b"HTTP/1.1 204 No Content\r\n\r\n"), 204, b"", id="no content"),
        pytest.param(Bytes(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + SMALL.data), 200, b'{"asset_id":"pa_1"}', id="1xx"),
        pytest.param(CHUNKED, 200, b'{"a":"b"}', id="chunked"),
        pytest.param(raw_answer(gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}), 200, b"{}", id="gzip"),
        pytest.param(
            raw_answer(zlib.compress(b"{}"), headers={"Content-Encoding": "deflate"}), 200, b"{}", id="deflate"
        ),
        pytest.param(raw_answer(b"<html>Bad gateway", 502), 502, b"<html>Bad gateway", id="html"),
        pytest.param(
            raw_answer(b"\xff\xfe", headers={"Content-Type": "x; charset=wrong"}), 200, b"\xff\xfe", id="bytes"
        ),
        pytest.param(Bytes(b"HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\n{}"), 299, b"{}", id="no reason"),
        pytest.param(Drip(SMALL, every=0, size=1), 200, b'{"asset_id":"pa_1"}', id="byte by byte"),
        pytest.param(raw_answer(b"x" * MAX_BODY), 200, b"x" * MAX_BODY, id="the longest"),
    ],
)
async def test_a_whole_answer_is_read_whole(act: Act, status: int, body: bytes) -> None:
    async with no_leaks():
        answer = await answer_to_post(act)
    assert (answer.status, answer.body) == (status, body)


@pytest.mark.asyncio
async def test_a_switch_of_protocols_leaves_no_connection_open() -> None:
    upgrade = Bytes(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    async with RudeServer(upgrade) as server, no_leaks(), opened(server.url, request=0.3) as transport:
        with pytest.raises(ResponseLost):
            await transport.send(post())
        await until(lambda: not server.open_connections)


@pytest.mark.asyncio
async def test_the_facts_of_the_head_come_along() -> None:
    head = {
        "X-Oneapi-Request-Id": "2026-abc",
        "Retry-After": "3",
        "Content-Type": "application/json; charset=utf-8",
    }
    answer = await answer_to_post(json_answer({"a": 1}, 503, head))
    assert json.loads(answer.body) == {"a": 1}
    assert (answer.status, answer.request_id, answer.hints.retry_after) == (503, "2026-abc", 3)
    assert answer.content_type == "application/json; charset=utf-8"


HUGE = {
    "bomb": gzip_bomb(),
    "endless": Endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
    "endless chunks": Endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"
    ),
    "a gigabyte": Endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", b"x" * 65536),
    "one byte more": raw_answer(b"x" * (MAX_BODY + 1)),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", list(HUGE))
async def test_an_answer_that_never_ends_is_lost_before_it_costs_memory(kind: str) -> None:
    async with RudeServer(HUGE[kind]) as server, no_leaks():
        async with opened(server.url) as transport:
            tracemalloc.start()
            try:
                with pytest.raises(ResponseLost, match="longer than 1048576 bytes") as caught:
                    await transport.send(get())
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        await until(lambda: not server.open_connections)
    assert peak < 20 << 20
    assert caught.value.evidence is not None


@pytest.mark.asyncio
async def test_a_refusal_that_never_ends_is_a_refusal_all_the_same() -> None:
    endless = Endless(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\n\r\n", b"x" * 65536)
    answer = await answer_to_post(endless)
    assert (answer.status, answer.hints.retry_after) == (429, 2)
    assert len(answer.body) == MAX_BODY
