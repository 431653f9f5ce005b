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
from typing import TYPE_CHECKING, Final, Self

import aiohttp
import attrs
from aiohttp import hdrs
from multidict import CIMultiDictProxy
from yarl import URL

from seedance_avatar.text import Secret

from .aiohttp_errors import (
    HTTP_ERROR,
    NOT_SENT,
    ConnectionBrokenError,
    DirtyConnectionError,
    InternalsChangedError,
    NotConnectedError,
    words_for,
)
from .internals import Internals, has_unread_input, unpatched_request

if TYPE_CHECKING:
    from aiohttp.connector import Connection

__all__ = ["FastPath", "FastResponse"]

_BUFFER: Final = 1 << 16
"""Bytes of a response that are buffered; the connection is read no further until some are consumed."""

_INTERIM: Final = 100
_SWITCHED: Final = 101
_FINAL: Final = 200
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
    """The status and headers of a response, and its body as a stream.

    :ivar status: the HTTP status.
    :ivar headers: all of them.
    :ivar content: the body. Once it is read to its end, the connection is back in the pool.
    """

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

        :param session: only its pool is used, so nothing else may be configured in it.
        :param timeout: only its limits for making a connection are used.
        :raises Exception: aiohttp has changed.
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
        """Send these headers with every request from now on, beside those of its body.

        :raises ValueError: a header has characters that HTTP does not permit.
        """
        lines = {hdrs.HOST: self._host, **headers}
        for name, value in lines.items():
            if _VALUE.fullmatch(value) is None:
                message = f"the header {name} has characters that HTTP does not permit"
                raise ValueError(message)
        self._head = Secret("".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("ascii"))

    async def request(self, method: str, target: str, body: bytes | None) -> FastResponse:
        """Send one request and return its response as soon as the headers have arrived.

        :param target: path and query, percent-encoded.
        :param body: JSON, or None.
        :raises aiohttp.InvalidURL: nothing was sent, because ``target`` is not percent-encoded.
        :raises DirtyConnectionError: nothing was sent, because the connection has unread input.
        :raises InternalsChangedError: nothing was sent, because aiohttp has changed.
        :raises NotConnectedError: nothing was sent, because no connection could be made.
        :raises aiohttp.ClientError: as ``ClientSession.request`` does; :class:`ConnectionBrokenError` for bad HTTP.

        Cancelled, it closes its connection.
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
            self._internals.give_up(error, fast=True)
            raise InternalsChangedError from error
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
            self._internals.give_up(error, fast=True)
            raise InternalsChangedError from error
        try:
            if body is None:
                write(head + b"\r\n")
            else:
                headers = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                write(b"".join((head, headers, body)))
            while True:
                message, content = await read()
                if not _INTERIM <= message.code < _FINAL or message.code == _SWITCHED:
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
