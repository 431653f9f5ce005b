"""aiohttp as it is: which of its errors mean *not sent*, and which undocumented parts a session uses.

Each rule was measured with aiohttp 3.14.5 and has a test on a real socket, which fails if a later version behaves
differently. aiohttp may rename or change in any release what is used here beyond its documentation:

* for the fast path ``ClientSession._request`` (only compared), ``ClientRequest(...)``, ``BaseConnector.connect``,
  ``Connection``, ``ResponseHandler`` and ``StreamReader.on_eof``;
* for ``ClientSession.request`` the method ``ClientRequest.send``, and ``should_close`` of the connection given to it.

So they are tried when a session opens, on a connection in memory (see :func:`.fast_path.probe`), and what breaks before
the first byte of a request is no reason not to send that request: it goes on by what aiohttp documents.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import aiohttp.http
import attrs
from aiohttp import hdrs

from seedance_avatar.text import redact, safe_text

if TYPE_CHECKING:
    from multidict import CIMultiDict

_log = logging.getLogger("seedance_avatar")


class ConnectionBrokenError(aiohttp.ClientConnectionError):
    """A connection broke in use. aiohttp does not retry after an error of this type."""


class NotConnectedError(aiohttp.ClientConnectionError):
    """Nothing was sent, because no connection could be made, for whatever reason."""


class DirtyConnectionError(NotConnectedError):
    """Nothing was sent, because the connection has unread input; aiohttp has closed it."""


class InternalsChangedError(NotConnectedError):
    """Nothing was sent, because an undocumented part of aiohttp has changed; it is not used again."""


# What aiohttp's parser raises; its name is not documented.
HTTP_ERROR: Final[type[Exception]] = getattr(aiohttp.http, "HttpProcessingError", ConnectionBrokenError)
MAX_BODY: Final = 1 << 20  # bytes that are read at most: a real body has some hundreds, a decompression bomb a gigabyte
# Errors that are raised before the first byte of a request is sent: all come from making the connection,
NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
    NotConnectedError,
)
# and those of them that a retry cannot help.
FATAL: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch, aiohttp.InvalidURL)
# Our messages where aiohttp's own quote headers, URLs or what the server sent.
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


async def read_body(status: int, content: aiohttp.StreamReader, read: bytearray) -> bytes:
    """Return the whole body, decompressed; where it raises, ``read`` holds the part that did arrive."""
    if status < 200:  # noqa: PLR2004 - 101, or what is no status; aiohttp skips the other interim responses itself
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


def unpatched_request() -> FunctionType | None:
    """Return ``ClientSession._request`` unless somebody else's function is in its place (a mock, a tracer)."""
    session = aiohttp.ClientSession
    request = getattr(session, "_request", None)
    own = isinstance(request, FunctionType) and request.__globals__ is vars(sys.modules[session.__module__])
    return request if own else None


def has_unread_input(protocol: Any) -> bool:  # noqa: ANN401 - its class is not documented
    """Return whether a connection cannot be used: it is closed, or has input that no request asked for."""
    if protocol is None:
        return True
    if not isinstance(protocol.should_close, bool):
        message = "ResponseHandler.should_close is no bool"
        raise TypeError(message)
    return protocol.should_close


@attrs.define(eq=False)
class Internals:
    """Which undocumented parts of aiohttp one session uses."""

    fast: bool = True  # the fast path
    hook: bool = True  # replacing ClientRequest.send
    hook_proved: bool = False  # the hook was seen to be called for a request, so one without that call was not sent
    _logged: bool = False

    def give_up(self, error: Exception, *, fast: bool = False) -> InternalsChangedError:
        """Use the fast path (or else the hook) no more, and log once that ``error`` shows that aiohttp has changed."""
        if fast:
            self.fast = False
        else:
            self.hook = False
        if not self._logged:
            self._logged = True
            _log.warning(
                "aiohttp %s does not work as expected (%s): from now on this session does without what has changed,"
                " which takes more CPU; requests that were not sent go on that way",
                aiohttp.__version__,
                safe_text(redact(repr(error))),
            )
        return InternalsChangedError()


@attrs.define(eq=False)
class Once:
    """A middleware that sends one request once, and only on a connection with no unread input.

    aiohttp retries a GET by itself when a connection breaks, outside of every limit. It decides that by the type of the
    error and has no switch for it (aiohttp issue 10790), so those types are replaced here. It also reuses an idle
    connection on which the server has sent something (some send a 408 before they close it), and reads that as the
    response to the next request: a wrong id for an asset.

    The cookies of a borrowed session are not sent.
    """

    internals: Internals
    reached: bool = False  # it was called, so ClientSession._request was not mocked
    left: bool = False  # the request may have been sent

    def without_hook(self, headers: CIMultiDict[str], data: bytes | AsyncIterable[bytes] | None) -> object:
        """Return the body so that :attr:`left` is known by its being read, and let no connection be used twice.

        A service cannot act on a request whose body did not even begin. What has no body can be repeated.
        """
        headers[hdrs.CONNECTION] = "close"
        if isinstance(data, bytes):
            headers[hdrs.CONTENT_LENGTH] = str(len(data))
        self.left = data is None
        return None if data is None else self._read(data)

    async def _read(self, data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:  # noqa: ASYNC900 - aiohttp closes it
        self.left = True
        if isinstance(data, bytes):
            yield data
        else:
            async for piece in data:
                yield piece

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send ``request``, or raise a member of :data:`NOT_SENT` when it was not sent."""
        self.reached = True
        request.headers.pop(hdrs.COOKIE, None)
        hooked = self.internals.hook
        if hooked:
            self._hook(request)
        try:
            response = await handler(request)
        except NOT_SENT:
            raise
        except Exception as error:
            if not self.left and (self.internals.hook_proved or not hooked):
                # A proxy that hung up, or a pool that was closed meanwhile.
                lost: Exception = NotConnectedError(words_for(error))
            elif isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
                lost = ConnectionBrokenError(words_for(error))
            else:
                raise
        else:
            if hooked:
                self._prove()
            return response
        finally:
            if hooked:
                with suppress(AttributeError):
                    del request.send
        raise lost

    def _hook(self, request: aiohttp.ClientRequest) -> None:
        try:
            send = request.send
            if not inspect.iscoroutinefunction(send):
                message = "ClientRequest.send is no coroutine function"
                raise TypeError(message)  # noqa: TRY301 - it ends like every other change
            request.send = self._replaced(send)  # type: ignore[method-assign]  # a borrowed session may use a request class of its own, so the instance is patched
        except Exception as error:
            raise self.internals.give_up(error) from error

    def _replaced(self, send: Callable[..., Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401 - undocumented
        def leave(*args: Any, **more: Any) -> Coroutine[Any, Any, Any]:  # noqa: ANN401 - undocumented
            try:
                dirty = has_unread_input(args[0].protocol)
                sending = None if dirty else send(*args, **more)
            except Exception as error:
                raise self.internals.give_up(error) from error
            if sending is None:
                raise DirtyConnectionError
            self.left = True
            return sending

        return leave

    def _prove(self) -> None:
        self.internals.hook_proved = self.left
        if not self.left:
            message = "ClientRequest.send is not called"
            self.internals.give_up(AttributeError(message))
