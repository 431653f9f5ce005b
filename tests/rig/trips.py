"""Round trips in one line: a transport with short time-outs, and requests to send with it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from seedance_avatar.client.transport import Transport
from seedance_avatar.options import Timeouts
from seedance_avatar.text import KeyProvider, Secret
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

__all__ = ["KEY", "get", "opened", "post", "trip"]

KEY = "sk-canary-7f3a9c2e51"


@contextlib.asynccontextmanager
async def opened(
    url: str, *, key: str | KeyProvider = KEY, connect: float = 5.0, request: float = 5.0, **knobs: Any
) -> AsyncIterator[Transport]:
    """Yield an open transport to ``url``, closed at the end."""
    transport = Transport(
        url,
        Secret(key) if isinstance(key, str) else key,
        timeouts=Timeouts(connect=connect, request=request),
        **knobs,
    )
    await transport.open()
    try:
        yield transport
    finally:
        await transport.aclose()


def get(path: str = "/v1/thing") -> Request:
    return Request(lane="query", method="GET", path=path, body=None, subject="a look", repeatable=True)


def post(body: bytes = b'{"name": "x"}', path: str = "/v1/things") -> Request:
    return Request(lane="submit", method="POST", path=path, body=body, subject="a thing", repeatable=False)


async def trip(transport: Transport, request: Request) -> Response:
    """Send ``request`` as the client does: with the key that the provider gives for it, or not at all."""
    if (error := await transport.authorize()) is not None:
        raise error
    return await transport.send(request)
