"""Which of aiohttp's errors mean *not sent*, their words, and how a body is read.

Each rule was measured with aiohttp 3.14.5 and has a test on a real socket, which fails if a later version
behaves differently.
"""

from __future__ import annotations

from typing import Final

import aiohttp
import aiohttp.http

__all__ = [
    "FATAL",
    "HTTP_ERROR",
    "MAX_BODY",
    "NOT_SENT",
    "ConnectionBrokenError",
    "DirtyConnectionError",
    "InternalsChangedError",
    "NotConnectedError",
    "read_body",
    "words_for",
]


class ConnectionBrokenError(aiohttp.ClientConnectionError):
    """A connection broke in use. aiohttp does not retry after an error of this type."""


class NotConnectedError(aiohttp.ClientConnectionError):
    """Nothing was sent, because no connection could be made, for whatever reason."""


class DirtyConnectionError(NotConnectedError):
    """Nothing was sent, because the connection has unread input; aiohttp has closed it."""


class InternalsChangedError(NotConnectedError):
    """Nothing was sent, because an undocumented part of aiohttp has changed; it is not used again."""


HTTP_ERROR: Final[type[Exception]] = getattr(aiohttp.http, "HttpProcessingError", ConnectionBrokenError)
"""What aiohttp's parser raises; its name is not documented."""

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
    (HTTP_ERROR, "what came back is not HTTP"),
)
"""Our messages where aiohttp's own quote headers, URLs or what the server sent."""

_FINAL: Final = 200
"""The lowest status of a final response. Below it there is 101, which was not requested, and what is no status; aiohttp
skips the other interim responses itself."""


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
