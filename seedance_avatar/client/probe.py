"""A trial of aiohttp's undocumented parts when a session opens: whole round trips on a connection in memory."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
from yarl import URL

from .aiohttp_errors import read_body
from .fast_path import FastPath, FastResponse
from .internals import Internals, Once, unpatched_request

__all__ = ["probe"]

_ORIGIN: Final = URL("http://127.0.0.1")
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_SECONDS: Final = 5.0
"""After which a round trip has failed: nothing in it waits for anything."""


class _Transport(asyncio.Transport):
    """A connection to nobody, on which each request is answered at once."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol: asyncio.Protocol | None = protocol

    def write(self, data: object) -> None:
        del data
        if self._protocol is not None:
            self._protocol.data_received(_ANSWER)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._protocol is None

    def close(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(None)

    abort = close


class _Connector(aiohttp.BaseConnector):
    """aiohttp's pool, of connections to nobody."""

    async def _create_connection(self, *_: object) -> Any:  # noqa: ANN401 - its class is not documented
        from aiohttp.client_proto import ResponseHandler  # noqa: PLC0415 - where it is missing, that is found here

        protocol = ResponseHandler(asyncio.get_running_loop())
        protocol.connection_made(_Transport(protocol))
        return protocol


async def _read(response: aiohttp.ClientResponse | FastResponse) -> None:
    try:
        body = await read_body(response.status, response.content, bytearray())
        if (response.status, body, response.closed) != (200, b"{}", True):
            message = "a response is read otherwise than expected"
            raise TypeError(message)
    finally:
        response.close()


async def _probe_fast_path(session: aiohttp.ClientSession, internals: Internals) -> None:
    fast = FastPath.to(_ORIGIN, session, aiohttp.ClientTimeout(), internals)
    if fast is not None:
        fast.use({})
        await _read(await fast.request("GET", "/", None))
        await _read(await fast.request("POST", "/", b"{}"))
        (await fast.request("GET", "/", None)).close()


async def _probe_hook(session: aiohttp.ClientSession, internals: Internals) -> None:
    await _read(await session.request("GET", _ORIGIN, middlewares=(Once(internals),)))


async def probe(internals: Internals, *, fast_path: bool) -> None:
    """Try what ``internals`` says is used, and correct it.

    Nothing is tried while a mock or a tracer stands in ``ClientSession._request``: it would notice. The fast path is
    not used then, and the hook counts as proved once a request of the session went through it.

    :param fast_path: whether the fast path may be used at all.
    """
    internals.fast = fast_path
    if unpatched_request() is None:
        if fast_path and not hasattr(aiohttp.ClientSession, "_request"):
            internals.give_up(AttributeError("ClientSession._request"), fast=True)
        return
    for trial in (_probe_fast_path, _probe_hook) if fast_path else (_probe_hook,):
        try:
            async with asyncio.timeout(_SECONDS), aiohttp.ClientSession(connector=_Connector()) as session:
                await trial(session, internals)
        except Exception as error:  # noqa: BLE001 - aiohttp can change in any way
            internals.give_up(error, fast=trial is _probe_fast_path)
