"""Which of aiohttp's errors mean *not sent*, and a middleware that keeps it from sending a request twice.

Each rule was measured with aiohttp 3.14.5 and has a test on a real socket, which fails if a later version
behaves differently.
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
    """A connection broke in use. aiohttp does not retry after an error of this type."""


class NotConnectedError(aiohttp.ClientConnectionError):
    """Nothing was sent, because no connection could be made, for whatever reason."""


class DirtyConnectionError(NotConnectedError):
    """Nothing was sent, because the connection has unread input; aiohttp has closed it."""


MAX_BODY: Final = 1 << 20
"""Bytes of a response that are read at most: a real one has some hundreds, a decompression bomb a gigabyte."""

NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
    NotConnectedError,
)
"""Errors that are raised before the first byte of a request is sent: all come from making the connection."""

FATAL: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch, aiohttp.InvalidURL)
"""Those of them that a retry cannot help."""

_WORDS: Final = (
    (aiohttp.ServerFingerprintMismatch, "the TLS certificate is not the one that was pinned"),
    (aiohttp.ClientHttpProxyError, "the proxy refused"),
    (aiohttp.InvalidURL, "the base URL cannot be used"),
    (DirtyConnectionError, "the server sent data before the request"),
    (aiohttp.ServerDisconnectedError, "the connection was closed before an answer came"),
    (aiohttp.ClientPayloadError, "the answer broke off"),
    (aiohttp.ClientResponseError, "what came back is not HTTP"),
    (HttpProcessingError, "what came back is not HTTP"),
)
"""Our messages where aiohttp's own quote headers, URLs or what the server sent."""

_FINAL: Final = 200
"""The lowest status of a final response. Below it there is 101, which was not requested, and what is no status; aiohttp
skips the other interim responses itself."""


async def once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send ``request`` once, and only on a connection with no unread input.

    aiohttp retries a GET by itself when a connection breaks, outside of every limit. It decides that by the type of the
    error and has no switch for it (aiohttp issue 10790), so those types are replaced here. It also reuses an idle
    connection on which the server has sent something (some send a 408 before they close it), and reads that as the
    response to the next request: a wrong id for an asset.

    The cookies of a borrowed session are not sent.
    """
    request.headers.pop(hdrs.COOKIE, None)
    send, left = request.send, False

    def leave(conn: Connection) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        nonlocal left
        if conn.protocol is None or conn.protocol.should_close:
            raise DirtyConnectionError
        left = True
        return send(conn)

    request.send = leave  # type: ignore[method-assign]  # a borrowed session may use a request class of its own, so the instance is patched
    try:
        return await handler(request)
    except NOT_SENT:
        raise
    except Exception as error:
        if not left:
            # A proxy that hung up, or a pool that was closed meanwhile.
            lost: Exception = NotConnectedError(words_for(error))
        elif isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
            lost = ConnectionBrokenError(words_for(error))
        else:
            raise
    finally:
        del request.send
    raise lost


async def read_body(status: int, content: aiohttp.StreamReader, read: bytearray) -> bytes:
    """Return the whole body, decompressed.

    :raises Exception: it did not arrive whole, or is over :data:`MAX_BODY`; ``read`` then holds the part that did.
    """
    if status < _FINAL:
        message = "the service switched to another protocol"
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
    """Return a message for ``error`` without headers, URLs, or anything that the server sent."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientConnectorError):
        return f"the connection broke: {error.strerror if error.errno else 'closed while sending'}"
    if isinstance(error, ConnectionBrokenError | NotConnectedError):
        return str(error)
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    return f"{type(cause).__name__}: {cause}"
