"""The same job by everybody: submit an asset, ask once how it is. Each as somebody would write it who knows the tool.

A peer runs in a process of its own (``python -m benchmarks.peers NAME URL``), warm, and does a round for each line
that it is told, so that rounds of all peers can be interleaved and none pays for another's imports.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from .gateway import GROUP, PATH, url_of

__all__ = ["PEERS", "WIDTH"]

WIDTH: Final = 64
"""Assets under way at a time, for every peer."""

_KEY: Final = "sk-benchmark"

Round: TypeAlias = Callable[[int], Awaitable[None]]
"""Does the job for so many assets: two requests each."""


def _fields(number: int) -> dict[str, str]:
    return {"group_id": GROUP, "asset_type": "image", "source_url": url_of(number)}


def _by(one: Callable[[int], Awaitable[None]]) -> Round:
    """Return the round that does ``one`` for each asset, some at a time."""

    async def round_of(assets: int) -> None:
        numbers = iter(range(assets))

        async def work() -> None:
            for number in numbers:
                await one(number)

        await asyncio.gather(*(work() for _ in range(WIDTH)))

    return round_of


def _check(told: Any) -> str:  # noqa: ANN401 - JSON
    return str(told["data"]["asset_id"])


def _check_active(told: Any) -> None:  # noqa: ANN401 - JSON
    assert told["data"]["status"] == "active"


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Round]:
    """Do it by bare aiohttp: ``session.request`` and ``json.loads``."""
    import aiohttp  # noqa: PLC0415 - a peer pays for its own imports only

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {_KEY}"}) as session:

        async def one(number: int) -> None:
            async with session.request("POST", url + PATH, json=_fields(number)) as response:
                asset_id = _check(json.loads(await response.read()))
            async with session.request("GET", f"{url}{PATH}/{asset_id}") as response:
                _check_active(json.loads(await response.read()))

        yield _by(one)


@asynccontextmanager
async def by_hand(url: str) -> AsyncIterator[Round]:
    """Do it by a protocol client written for these two requests and nothing else."""
    host, _, port = url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    common = f"Host: {host}:{port}\r\nAuthorization: Bearer {_KEY}\r\nAccept: application/json\r\n"

    class Connection(asyncio.Protocol):
        transport: asyncio.Transport
        waiter: asyncio.Future[bytes]
        buffer = b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            head, mark, body = self.buffer.partition(b"\r\n\r\n")
            if mark and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
                self.buffer = b""
                self.waiter.set_result(body)

        async def ask(self, data: bytes) -> Any:  # noqa: ANN401 - JSON
            self.waiter = loop.create_future()
            self.transport.write(data)
            return json.loads(await self.waiter)

    free = [(await loop.create_connection(Connection, host, int(port)))[1] for _ in range(WIDTH)]

    async def one(number: int) -> None:
        connection = free.pop()
        body = json.dumps(_fields(number)).encode()
        head = f"POST {PATH} HTTP/1.1\r\n{common}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        asset_id = _check(await connection.ask(head.encode() + body))
        _check_active(await connection.ask(f"GET {PATH}/{asset_id} HTTP/1.1\r\n{common}\r\n".encode()))
        free.append(connection)

    yield _by(one)
    for connection in free:
        connection.transport.close()


def _httpx_one(client: Any) -> Callable[[int], Awaitable[None]]:  # noqa: ANN401 - an httpx.AsyncClient
    async def one(number: int) -> None:
        response = await client.post(PATH, json=_fields(number))
        response = await client.get(f"{PATH}/{_check(response.json())}")
        _check_active(response.json())

    return one


@asynccontextmanager
async def by_httpx(url: str) -> AsyncIterator[Round]:
    """Do it by httpx, one client for all."""
    import httpx  # noqa: PLC0415 - as above

    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {_KEY}"}) as client:
        yield _by(_httpx_one(client))


@asynccontextmanager
async def by_httpx_aiohttp(url: str) -> AsyncIterator[Round]:
    """Do it by httpx on aiohttp's transport."""
    import httpx  # noqa: PLC0415 - as above
    import httpx_aiohttp  # noqa: PLC0415 - as above

    transport = httpx_aiohttp.AiohttpTransport()
    headers = {"Authorization": f"Bearer {_KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, transport=transport) as client:
        yield _by(_httpx_one(client))


def _openai_one(client: Any) -> Callable[[int], Awaitable[None]]:  # noqa: ANN401 - an openai.AsyncOpenAI
    path = PATH.removeprefix("/v1")

    async def one(number: int) -> None:
        asset_id = _check(await client.post(path, cast_to=object, body=_fields(number)))
        _check_active(await client.get(f"{path}/{asset_id}", cast_to=object))

    return one


@asynccontextmanager
async def by_openai(url: str) -> AsyncIterator[Round]:
    """Do it by the generic calls of the openai SDK."""
    import openai  # noqa: PLC0415 - as above

    async with openai.AsyncOpenAI(api_key=_KEY, base_url=f"{url}/v1") as client:
        yield _by(_openai_one(client))


@asynccontextmanager
async def by_openai_aiohttp(url: str) -> AsyncIterator[Round]:
    """Do it by the openai SDK on aiohttp."""
    import openai  # noqa: PLC0415 - as above

    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(api_key=_KEY, base_url=f"{url}/v1", http_client=http) as client:
        yield _by(_openai_one(client))


@asynccontextmanager
async def by_threads(url: str) -> AsyncIterator[Round]:
    """Do it by requests, a session for each of some threads."""
    import threading  # noqa: PLC0415 - as above
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - as above

    import requests  # noqa: PLC0415 - as above

    mine = threading.local()

    def begin() -> None:
        mine.session = requests.Session()
        mine.session.headers["Authorization"] = f"Bearer {_KEY}"

    def one(number: int) -> None:
        response = mine.session.post(url + PATH, json=_fields(number), timeout=60)
        _check_active(mine.session.get(f"{url}{PATH}/{_check(response.json())}", timeout=60).json())

    with ThreadPoolExecutor(WIDTH, initializer=begin) as pool:

        async def round_of(assets: int) -> None:
            for _ in pool.map(one, range(assets)):
                pass

        yield round_of


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[Any]:
    import attrs  # noqa: PLC0415 - as above

    from seedance_avatar import AvatarSession, Limits, Polling  # noqa: PLC0415 - as above

    # As many on the wire as everybody else has, half of them submissions.
    limits = attrs.evolve(Limits.unlimited(), max_submitting=WIDTH // 2, max_polling=WIDTH // 2)
    async with AvatarSession(_KEY, base_url=url, limits=limits, polling=Polling.fixed(0, 0)) as session:
        yield session


@asynccontextmanager
async def ours_singly(url: str) -> AsyncIterator[Round]:
    """Do it by our single calls: ``upload`` and ``get_asset``."""
    from seedance_avatar import AssetSource  # noqa: PLC0415 - as above

    async with _session(url) as session:

        async def one(number: int) -> None:
            asset = await session.upload(AssetSource.image(url_of(number)), group=GROUP)
            assert (await session.get_asset(asset.asset_id)).is_active

        yield _by(one)


def _sources(first: int, assets: int) -> list[Any]:
    from seedance_avatar import AssetSource  # noqa: PLC0415 - as above

    return [AssetSource.image(url_of(number)) for number in range(first, first + assets)]


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Round]:
    """Do it by our ``ingest``."""
    async with _session(url) as session:

        async def round_of(assets: int) -> None:
            active = 0
            async with session.ingest(_sources(0, assets), group=GROUP) as stream:
                async for asset in stream:
                    active += asset.is_active
            assert active == assets

        yield round_of


@asynccontextmanager
async def ours_journaled(url: str) -> AsyncIterator[Round]:
    """Do it by our ``ingest`` with a journal."""
    done = 0
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        session = await stack.enter_async_context(_session(url))

        async def round_of(assets: int) -> None:
            nonlocal done
            sources = _sources(done, assets)
            done += assets
            active = 0
            async with session.ingest(sources, group=GROUP, journal=directory / "run.db") as stream:
                async for asset in stream:
                    active += asset.is_active
            assert active == assets

        yield round_of


PEERS: Final = {
    "bare aiohttp": bare,
    "protocol by hand": by_hand,
    "seedance-avatar, call by call": ours_singly,
    "seedance-avatar, ingest": ours,
    "seedance-avatar, ingest, journal": ours_journaled,
    "httpx-aiohttp": by_httpx_aiohttp,
    "openai on aiohttp": by_openai_aiohttp,
    "httpx": by_httpx,
    "openai": by_openai,
    "requests, threads": by_threads,
}
"""Everybody, the measure first."""


async def _serve(name: str, url: str, orders: Iterator[str]) -> None:
    async with PEERS[name](url) as round_of:
        for order in orders:
            assets = int(order)
            wall, cpu = time.perf_counter(), time.process_time()
            await round_of(assets)
            spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "requests": 2 * assets}
            print(json.dumps(spent), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], iter(sys.stdin.readline, "")))
