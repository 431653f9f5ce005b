"""The short way over a connection of aiohttp's: its pool, its TLS and its parser, without the objects in between.

``ClientSession.request`` is made for every request there can be. Ours are of two shapes, with the same headers
each time and a body of some hundred bytes, and what it does for the others (cookies, redirects, middlewares, a
writer task for each body, a request and a response object for each round trip) costs more CPU than all that this
library adds. So a session of our own takes its connections from the same pool and writes the request itself; the
answer is read by the same parser into the same stream.

Where anything is in the way that has a right to be there, the long way is taken: a borrowed session, proxies from
the environment, a streamed body, traces, or somebody who has put a double or a probe in the place of aiohttp's
``ClientSession._request`` (tests do, and tracers).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from types import FunctionType
from typing import Final, Self

import aiohttp
import attrs
from aiohttp import hdrs
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

from .aiohttp_errors import NOT_SENT, ConnectionBrokenError, DirtyConnectionError, NotConnectedError, words_for

__all__ = ["FastPath", "FastResponse"]

_BUFFER: Final = 1 << 16
"""Bytes of an answer after which its connection is read no further until somebody takes them."""

_INTERIM: Final = 100
_SWITCHED: Final = 101
_FINAL: Final = 200
_TARGET: Final = re.compile(r"/[!-~]*")
_VALUE: Final = re.compile(r"[ -~]*")


def _hang_up(connection: Connection) -> None:
    """Close at once: what has not left yet would keep the socket until the other side takes it."""
    if connection.transport is not None:
        connection.transport.abort()
    connection.close()


@attrs.define(eq=False, repr=False)
class FastResponse:
    """The head of an answer, and its body as it comes in.

    :ivar status: the HTTP status.
    :ivar headers: all of them.
    :ivar content: the body. Read to its end, it gives the connection back by itself.
    """

    status: int
    headers: CIMultiDictProxy[str]
    content: aiohttp.StreamReader
    _connection: Connection | None

    @property
    def closed(self) -> bool:
        """Whether the connection is given back, or closed."""
        return self._connection is None

    def close(self) -> None:
        """Close the connection: what is still to come of the body is lost."""
        connection, self._connection = self._connection, None
        if connection is not None:
            _hang_up(connection)

    def release(self) -> None:
        """Give the connection back, for the next request."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.transport is not None and connection.transport.get_write_buffer_size():
            _hang_up(connection)  # answered before it was read: the next request would stand behind the rest of it
        else:
            connection.release()


@attrs.define(eq=False, repr=False)
class FastPath:
    """Round trips to one origin over the pool of one session. Make it by :meth:`to`."""

    _connector: aiohttp.BaseConnector
    _timeout: aiohttp.ClientTimeout
    _to: aiohttp.ClientRequest
    _usual: object
    _head: bytes = b""

    @classmethod
    def to(cls, origin: URL, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout) -> Self | None:
        """Return the short way to ``origin``, or None where something is in the way.

        :param session: whose pool is used; nothing else of it is, so there must be nothing else in it.
        :param timeout: of it only what is about connections counts here.
        """
        usual = aiohttp.ClientSession._request  # noqa: SLF001 - looked at, to see whether it is still aiohttp's
        untouched = isinstance(usual, FunctionType) and usual.__globals__ is vars(aiohttp.client)
        if not untouched or session.connector is None or session.trust_env or session.trace_configs:
            return None
        # It is never sent: the pool reads from it where to, and whether by TLS.
        to = aiohttp.ClientRequest("GET", origin, loop=asyncio.get_running_loop(), session=session)
        return cls(session.connector, timeout, to, usual)

    @property
    def free(self) -> bool:
        """Whether nobody has stepped in the way since."""
        return aiohttp.ClientSession._request is self._usual  # noqa: SLF001 - as above

    def use(self, headers: Mapping[str, str]) -> None:
        """Send these headers from now on, with what the body needs."""
        lines = {hdrs.HOST: self._to.headers[hdrs.HOST], **headers}
        for name, value in lines.items():
            if _VALUE.fullmatch(value) is None:
                message = f"the header {name} holds what cannot stand in one"
                raise ValueError(message)
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("ascii")

    async def request(self, method: str, target: str, body: bytes | None) -> FastResponse:
        """Send one request and return its answer as soon as its head is here.

        :param target: path and query, percent-encoded.
        :param body: JSON, or None.
        :raises aiohttp.InvalidURL: nothing was sent, because ``target`` cannot stand in a request.
        :raises UncleanError: nothing was sent, because this connection could not be trusted.
        :raises NotConnectedError: nothing was sent, because no connection could be had.
        :raises aiohttp.ClientError: as ``ClientSession.request`` does, but for what no HTTP is: :class:`BrokenError`.

        Cancelled, it closes its connection.
        """
        if _TARGET.fullmatch(target) is None:
            raise aiohttp.InvalidURL(target, "a path that is not percent-encoded")  # which is known for *not sent*
        head = b"%b %b HTTP/1.1\r\n%b" % (method.encode("ascii"), target.encode("ascii"), self._head)
        try:
            connection = await self._connector.connect(self._to, traces=[], timeout=self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error
        except NOT_SENT:
            raise
        except Exception as error:
            raise NotConnectedError(words_for(error)) from error
        try:
            return await self._on(connection, head, body)
        except HttpProcessingError as error:
            broken = ConnectionBrokenError(words_for(error))
        except BaseException:
            _hang_up(connection)
            raise
        connection.close()
        raise broken

    async def _on(self, connection: Connection, head: bytes, body: bytes | None) -> FastResponse:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing() or protocol.should_close:
            raise DirtyConnectionError
        protocol.set_response_params(read_until_eof=True, read_bufsize=_BUFFER)
        if body is None:
            transport.write(head + b"\r\n")
        else:
            about = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            transport.write(b"".join((head, about, body)))
        while True:
            answer, content = await protocol.read()
            if not _INTERIM <= answer.code < _FINAL or answer.code == _SWITCHED:
                break
        reply = FastResponse(answer.code, answer.headers, content, connection)
        content.on_eof(reply.release)
        return reply
