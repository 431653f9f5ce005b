"""Fast path: writes HTTP/1.1 requests directly to connections of aiohttp's pool.

``ClientSession.request`` serves every kind of request. Ours have two shapes, the same headers each time and a body of
some hundred bytes, and what aiohttp does for other kinds (cookies, redirects, middlewares, a writer task for each body,
a request and a response object for each round trip) costs more CPU than all of this library. So a session of our own
takes connections from aiohttp's pool, with its TLS, and writes the request itself; aiohttp's parser reads the response.

``ClientSession.request`` is used wherever something depends on it: for a borrowed session, proxies from the
environment, a streamed body, traces, or a patched ``ClientSession._request`` (by tests and tracers); and when aiohttp
has changed in what is used here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import attrs
from aiohttp import hdrs
from multidict import CIMultiDictProxy
from yarl import URL

from seedance_avatar.text import Secret

from .internals import (
    HTTP_ERROR,
    NOT_SENT,
    ConnectionBrokenError,
    DirtyConnectionError,
    Internals,
    NotConnectedError,
    Once,
    has_unread_input,
    read_body,
    unpatched_request,
    words_for,
)

if TYPE_CHECKING:
    from aiohttp.connector import Connection

_BUFFER: Final = 1 << 16  # bytes of a response that are buffered, until some are consumed
_TARGET: Final = re.compile(r"/[!-~]*")
_VALUE: Final = re.compile(r"[ -~]*")


def _abort(connection: Connection) -> None:
    """Close at once: an orderly close would keep the socket until the server has read what is still unsent."""
    with suppress(Exception):  # whichever of the two still works; without the second, the garbage collector does it
        if connection.transport is not None:
            connection.transport.abort()
    with suppress(Exception):
        connection.close()


@attrs.define(eq=False, repr=False)
class FastResponse:
    """A response whose body is still a stream; once that is read to its end, the connection is back in the pool."""

    status: int
    headers: CIMultiDictProxy[str]
    content: aiohttp.StreamReader
    _connection: Connection | None
    _internals: Internals

    @property
    def closed(self) -> bool:
        """Whether the connection was returned to the pool, or closed."""
        return self._connection is None

    def close(self) -> None:
        """Close the connection; the unread rest of the body is lost."""
        connection, self._connection = self._connection, None
        if connection is not None:
            _abort(connection)

    def release(self) -> None:
        """Return the connection to the pool."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if connection.transport is None or not connection.transport.get_write_buffer_size():
                connection.release()
                return
            # A response before the whole request was sent: the next would follow its rest.
        except Exception as error:  # noqa: BLE001 - whatever aiohttp changed, the response is here
            self._internals.give_up(error, fast=True)
        _abort(connection)


@attrs.define(eq=False, repr=False)
class FastPath:
    """Requests to one origin over the pool of one session. Make it by :meth:`to`."""

    _connector: aiohttp.BaseConnector
    _timeout: aiohttp.ClientTimeout
    _to: aiohttp.ClientRequest
    _host: str
    _unpatched: object
    _internals: Internals
    _head: Secret[bytes] = attrs.field(factory=lambda: Secret(b""))

    @classmethod
    def to(
        cls, origin: URL, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout, internals: Internals
    ) -> Self | None:
        """Return a fast path to ``origin``, or None where ``ClientSession.request`` must be used.

        Of ``session`` only the pool is used, so nothing else may be configured in it, and of ``timeout`` only its
        limits for making a connection. Where aiohttp has changed it raises whatever comes of that.
        """
        unpatched = unpatched_request()
        if unpatched is None or session.connector is None or session.trust_env or session.trace_configs:
            return None
        # It is never sent: the pool takes the address from it, and whether to use TLS.
        to = aiohttp.ClientRequest("GET", origin, loop=asyncio.get_running_loop(), session=session)
        return cls(session.connector, timeout, to, to.headers[hdrs.HOST], unpatched, internals)

    @property
    def free(self) -> bool:
        """Whether it may be used: it has not broken, and ``ClientSession._request`` is still unpatched."""
        return self._internals.fast and getattr(aiohttp.ClientSession, "_request", None) is self._unpatched

    def use(self, headers: Mapping[str, str]) -> None:
        """Send these headers with every request from now on, beside those of its body."""
        lines = {hdrs.HOST: self._host, **headers}
        for name, value in lines.items():
            if _VALUE.fullmatch(value) is None:
                message = f"the header {name} has characters that HTTP does not permit"
                raise ValueError(message)
        self._head = Secret("".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("ascii"))

    async def request(self, method: str, target: str, body: bytes | None) -> FastResponse:
        """Send one request and return its response as soon as the headers have arrived.

        A member of :data:`NOT_SENT` says that nothing was sent (for an ``InvalidURL``, because ``target`` is not
        percent-encoded); otherwise it raises as ``ClientSession.request`` does, :class:`ConnectionBrokenError` for bad
        HTTP. Cancelled, it closes its connection.
        """
        if _TARGET.fullmatch(target) is None:
            raise aiohttp.InvalidURL(target, "a path that is not percent-encoded")  # a member of NOT_SENT
        head = b"%b %b HTTP/1.1\r\n%b" % (method.encode("ascii"), target.encode("ascii"), self._head.reveal())
        try:
            connection = await self._connector.connect(self._to, traces=[], timeout=self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error
        except NOT_SENT:
            raise
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise NotConnectedError(words_for(error)) from error
        except Exception as error:
            raise self._internals.give_up(error, fast=True) from error
        try:
            return await self._exchange(connection, head, body)
        except BaseException as error:
            _abort(connection)
            if isinstance(error, HTTP_ERROR):
                raise ConnectionBrokenError(words_for(error)) from error
            raise

    async def _exchange(self, connection: Connection, head: bytes, body: bytes | None) -> FastResponse:
        try:
            protocol, transport = connection.protocol, connection.transport
            if (
                protocol is None
                or transport is None
                or transport.is_closing()
                or (protocol.should_close is not False and has_unread_input(protocol))
            ):
                raise DirtyConnectionError  # noqa: TRY301 - within the clauses that catch what aiohttp raises here
            protocol.set_response_params(read_until_eof=True, read_bufsize=_BUFFER)
            write, read = transport.write, protocol.read
        except DirtyConnectionError:
            raise
        except Exception as error:
            raise self._internals.give_up(error, fast=True) from error
        try:
            if body is None:
                write(head + b"\r\n")
            else:
                headers = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                write(b"".join((head, headers, body)))
            while True:
                message, content = await read()
                if message.code == 101 or not 100 <= message.code < 200:  # noqa: PLR2004 - interim responses in RFC 9110
                    break
            response = FastResponse(message.code, message.headers, content, connection, self._internals)
        except (aiohttp.ClientError, HTTP_ERROR, OSError):
            raise
        except Exception as error:
            self._internals.give_up(error, fast=True)
            raise
        try:
            content.on_eof(response.release)
        except Exception as error:  # noqa: BLE001 - whatever aiohttp changed, the response is here
            self._internals.give_up(error, fast=True)
        return response


# The trial when a session opens: whole round trips on a connection in memory.

_ORIGIN: Final = URL("http://127.0.0.1")
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_SECONDS: Final = 5.0  # after which a round trip has failed: nothing in it waits for anything


class _Transport(asyncio.Transport):
    """A connection to nobody, on which each request is answered at once."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol: asyncio.Protocol | None = protocol

    def write(self, _: object) -> None:
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
    """Try what ``internals`` says is used (the fast path only where it may be), and correct it.

    Nothing is tried while a mock or a tracer stands in ``ClientSession._request``: it would notice. The fast path is
    not used then, and the hook counts as proved once a request of the session went through it.
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
