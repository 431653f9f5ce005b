"""What aiohttp does when a round trip breaks: which of its errors mean *not sent*, and what it must not do.

Each rule was measured with aiohttp 3.14.5 and is held by a test on a real socket; where a later version
behaves otherwise, the test says so.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError

__all__ = [
    "FATAL",
    "MAX_BODY",
    "NOT_SENT",
    "ConnectionBrokenError",
    "DirtyConnectionError",
    "NotConnectedError",
    "once",
    "read_body",
    "words_for",
]


class ConnectionBrokenError(aiohttp.ClientConnectionError):
    """A connection that broke in use, by a type that aiohttp does not take for a reason to repeat."""


class NotConnectedError(aiohttp.ClientConnectionError):
    """Nothing was sent, because no connection could be had, whatever kept it away."""


class DirtyConnectionError(NotConnectedError):
    """Nothing was sent, because this connection cannot be trusted; aiohttp has closed it."""


MAX_BODY: Final = 1 << 20
"""Bytes of an answer that are read at most: a real one has a few hundred, a bomb has a gigabyte."""

NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
    NotConnectedError,
)
"""What is raised before the first byte of a request leaves: all come from making the connection."""

FATAL: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch, aiohttp.InvalidURL)
"""Those of them that another try will meet again."""

_WORDS: Final = (
    (aiohttp.ServerFingerprintMismatch, "the TLS certificate is not the one that was pinned"),
    (aiohttp.ClientHttpProxyError, "the proxy refused"),
    (aiohttp.InvalidURL, "the base URL cannot be used"),
    (DirtyConnectionError, "the other side speaks before it is asked"),
    (aiohttp.ServerDisconnectedError, "the connection was closed before an answer came"),
    (aiohttp.ClientPayloadError, "the answer broke off"),
    (aiohttp.ClientResponseError, "what came back is not HTTP"),
    (HttpProcessingError, "what came back is not HTTP"),
)
"""Our words where aiohttp's own quote headers, URLs or what the other side wrote."""

_FINAL: Final = 200
"""Below this there is 101, which nobody asked for, and what is no status: aiohttp passes over the others."""


async def once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send ``request`` once, and only on a connection that holds nothing of the past.

    aiohttp repeats a GET by itself when a connection breaks, uncounted by any limit. It knows by their types what
    it may repeat and has no switch for it (aiohttp issue 10790), so those types leave here as another. It also
    reuses an idle connection on which the server has said something unasked (some say 408 there before they close
    it), and reads that as the answer to the next request: a wrong id for an asset.

    A borrowed session's cookies are none of the service's business.
    """
    request.headers.pop(hdrs.COOKIE, None)
    send, left = request.send, False

    def leave(conn: Connection) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        nonlocal left
        if conn.protocol is None or conn.protocol.should_close:
            raise DirtyConnectionError
        left = True
        return send(conn)

    request.send = leave  # type: ignore[method-assign]  # whoever lends a session has chosen its request's class
    try:
        return await handler(request)
    except NOT_SENT:
        raise
    except Exception as error:
        if not left:
            lost: Exception = NotConnectedError(
                words_for(error)
            )  # a proxy that hung up, a pool that was closed meanwhile
        elif isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
            lost = ConnectionBrokenError(words_for(error))
        else:
            raise
    finally:
        del request.send
    raise lost


async def read_body(status: int, content: aiohttp.StreamReader, read: bytearray) -> bytes:
    """Return the whole body, decompressed.

    :raises Exception: it cannot be had, or is over :data:`MAX_BODY`; ``read`` then holds what there was of it.
    """
    if status < _FINAL:
        message = "the service left HTTP"
        raise ConnectionBrokenError(message)
    body = await content.readany()
    if content.at_eof() and len(body) <= MAX_BODY:
        return body
    read += body
    while len(read) <= MAX_BODY and not content.at_eof():
        read += await content.readany()
    if len(read) > MAX_BODY:
        message = f"the answer is longer than {MAX_BODY} bytes"
        raise ConnectionBrokenError(message)
    return bytes(read)


def words_for(error: Exception) -> str:
    """Return what happened, in words that hold no header, no URL and nothing that the other side wrote."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientConnectorError):
        return f"the connection broke: {error.strerror if error.errno else 'closed while sending'}"
    if isinstance(error, ConnectionBrokenError | NotConnectedError):
        return str(error)
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    return f"{type(cause).__name__}: {cause}"
