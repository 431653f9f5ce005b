"""One HTTP request over aiohttp, with errors that say whether it was *not sent* or is *in doubt*.

Nothing here decides whether to retry. One call of :meth:`Transport.send` sends at most one request, and when no whole
response came, the type of the error says whether the service can have seen the request.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import Any, Final

import aiohttp
import attrs
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from seedance_avatar.errors import AvatarError, ConnectionFailed, InvalidInput, SessionStateError
from seedance_avatar.options import Timeouts
from seedance_avatar.text import KeyProvider, Secret, redact, safe_redacted
from seedance_avatar.wire.request import Request, check_key
from seedance_avatar.wire.response import Response, read_head

from .deadline import Deadlines
from .fast_path import FastPath, FastResponse, probe
from .internals import (
    FATAL,
    MAX_BODY,
    NOT_SENT,
    DirtyConnectionError,
    Internals,
    InternalsChangedError,
    NotConnectedError,
    Once,
    read_body,
    unpatched_request,
    words_for,
)
from .tasks import ENDS_THE_PROGRAM, being_cancelled

# Seconds for which an idle connection is kept: below every server's own limit, since a submission on a connection that
# the server is closing is in doubt.
_KEEP_ALIVE: Final = 4.0
_DNS_CACHE: Final = 10  # seconds for which a resolved address is kept: a failover is followed within them
_MIN_UPLOAD_RATE: Final = 1 << 16  # bytes a second that an upload must reach; it gets the time for that in addition
_NOT_DONE: Final = 300  # from this status on, the status decides, and the body only adds a message
_DIRTY_CONNECTIONS: Final = 10  # with unread input in a row, after which no other is tried: few idle ones are so many
_SHORTEST_KEY: Final = 8  # no issued key is shorter; a test's key ``k`` would be found in every response

_CLOSED: Final = "closed while waiting for a connection: nothing was sent"
_NO_KEY: Final = "nothing was sent: check the callable that was passed as api_key"


class ResponseLost(AvatarError):  # noqa: N818 - named like the public errors that it becomes
    """The request was sent, at least in part, and no whole response came: it may have been applied."""

    evidence: str | None = None  # what was read of a response, cut and printable,
    request_id: str | None = None  # and the service's id of the request, from its headers


def _without_key(body: bytes, key: Secret[bytes] | None) -> bytes:
    return body if key is None else body.replace(key.reveal(), b"***")


@attrs.define(eq=False, repr=False)
class Transport:
    """A pool of connections to one service, and the headers of every request.

    Built anywhere; bound to the running loop and this process by :meth:`open`.

    :ivar base_url: as :func:`~seedance_avatar.wire.request.normalize_base` returns it.
    :ivar key: the key, or a callable (sync or async) that is asked for it before every request.
    :ivar http: a borrowed session, never closed here. Its connector, proxy, TLS and traces are used; its
        timeouts, cookies, middlewares and ``raise_for_status`` are not.
    :ivar pool: connections at most. It must not be less than the requests sent at a time, because waiting for a
        connection counts as connecting.
    :ivar trust_env: True to obey proxy variables and ``.netrc`` (it costs more CPU than the whole request).
    """

    base_url: str
    key: Secret[str] | KeyProvider
    timeouts: Timeouts = attrs.field(kw_only=True, factory=Timeouts)
    http: aiohttp.ClientSession | None = attrs.field(kw_only=True, default=None)
    pool: int = attrs.field(kw_only=True, default=128)
    trust_env: bool = attrs.field(kw_only=True, default=False)
    fast_path: bool = attrs.field(kw_only=True, default=True)
    _session: aiohttp.ClientSession | None = attrs.field(init=False, default=None)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(init=False, default=None)
    _pid: int = attrs.field(init=False, default=0)
    _closed: bool = attrs.field(init=False, default=False)
    _origin: URL = attrs.field(init=False)
    _prefix: str = attrs.field(init=False)
    _timeout: aiohttp.ClientTimeout = attrs.field(init=False)
    _deadlines: Deadlines = attrs.field(init=False)
    _secret: Secret[str] = attrs.field(init=False, factory=lambda: Secret(""))
    _echo: Secret[bytes] | None = attrs.field(init=False, default=None)
    _fast: FastPath | None = attrs.field(init=False, default=None)
    _internals: Internals = attrs.field(init=False, factory=Internals)
    _headers: CIMultiDict[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._headers = CIMultiDict(
            {
                hdrs.ACCEPT: "application/json",
                hdrs.ACCEPT_ENCODING: "identity",
                hdrs.USER_AGENT: f"seedance-avatar {aiohttp.http.SERVER_SOFTWARE}",
            }
        )
        base = URL(self.base_url, encoded=True)
        self._origin, self._prefix = base.origin(), base.raw_path.rstrip("/")
        # If the request timed out before the connection did, a request that was not sent would count as lost.
        connect = min(self.timeouts.connect, 0.9 * self.timeouts.request)
        self._timeout = aiohttp.ClientTimeout(
            total=None,  # replaced by Deadlines, which let a stalled loop read what has arrived
            connect=connect,  # includes resolving the address, which sock_connect does not
            sock_connect=connect,
            ceil_threshold=float("inf"),  # no rounding up to whole seconds
        )

    async def open(self) -> None:
        """Bind to the running loop and this process. Opening twice is harmless; no connection is made yet."""
        if self._session is not None or self._closed:
            self._bound()
            return
        await probe(self._internals, fast_path=self.fast_path and self.http is None)
        loop = asyncio.get_running_loop()
        if self.http is not None:
            if getattr(self.http, "_request_class", None) is not getattr(aiohttp, "ClientRequest", None):
                self._internals.hook_proved = False  # until a request of theirs has shown it
            if getattr(self.http, "_loop", loop) is not loop:
                message = "the borrowed session belongs to another event loop: make it in the one that uses it"
                raise SessionStateError(message)
            if getattr(self.http, "auth", None) is not None:
                message = "the borrowed session has its own auth=, with which aiohttp accepts no other key"
                raise InvalidInput(message)
            self._session = self.http
        else:
            # Where unread input cannot be seen, no connection is used twice. (Of a borrowed session, the header
            # Connection: close asks the server for that.)
            single = not (self._internals.fast or self._internals.hook)
            reuse: dict[str, Any] = {"force_close": True} if single else {"keepalive_timeout": _KEEP_ALIVE}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self.pool,
                    ttl_dns_cache=_DNS_CACHE,
                    resolver=aiohttp.ThreadedResolver(),  # the system's own: aiodns, where installed, caches failures
                    **reuse,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self.trust_env,
            )
            if self._internals.fast:
                self._fast = FastPath.to(self._origin, self._session, self._timeout, self._internals)
        if isinstance(self.key, Secret):
            self._use(self.key)
        self._deadlines = Deadlines(self.timeouts.request)
        self._loop, self._pid = loop, os.getpid()

    async def current_key(self) -> Secret[str]:
        """Return the key that a request would carry now."""
        self._bound()
        if (failure := await self.authorize()) is not None:
            raise failure
        return self._secret

    async def aclose(self) -> None:
        """Close all connections and wait until they are closed; a borrowed session stays open. Safe to repeat.

        A request that was sent ends as :class:`ResponseLost`, one that waits for a connection as SessionStateError.
        """
        session = self._session
        if session is None or self._closed or self.http is not None:
            self._closed = True
            return
        self._bound()
        self._closed = True
        self._deadlines.stop()
        await session.close()

    def check_here(self) -> None:
        """Refuse another process or loop than those in which it was opened, with SessionStateError."""
        if os.getpid() != self._pid:
            message = "opened in another process: open one after the fork"
        elif asyncio.get_running_loop() is not self._loop:
            message = "opened in another event loop: a session belongs to the loop that it was opened in"
        else:
            return
        raise SessionStateError(message)

    def _bound(self) -> aiohttp.ClientSession:
        """Return the session, if it is open and belongs to this loop and process."""
        session = self._session
        if self._closed:
            message = "closed: nothing more can be sent"
        elif session is None:
            message = "not open: use it in `async with`, or await open() first"
        elif self.http is not None and session.closed:
            message = "the borrowed aiohttp session is closed"
        else:
            self.check_here()
            return session
        raise SessionStateError(message)

    async def send(self, request: Request) -> Response:
        """Send ``request`` once and return the whole response, whatever its status; redirects are never followed.

        A response of status 300 and above is returned even when only a part of its body could be read. Cancelled, it
        closes its connection; whether the service has seen the request is then unknown.

        :raises ConnectionFailed: nothing was sent; ``fatal`` when a retry cannot help.
        :raises ResponseLost: it may have been applied, and no whole response came.
        :raises SessionStateError: not open, closed, or another loop or process.
        """
        session = self._bound()
        try:
            outcome = await self._exchange(session, request)
        except asyncio.CancelledError as error:
            # The frames below hold the headers, and tracebacks may be shown with locals.
            error.__traceback__ = None
            if being_cancelled(error):
                raise
            # A closed connector cancels whatever waits for a connection; the caller itself was not cancelled.
            outcome = SessionStateError(_CLOSED, about=request.about)
        if isinstance(outcome, AvatarError):
            raise outcome
        return outcome

    async def _exchange(self, session: aiohttp.ClientSession, request: Request) -> Response | AvatarError:
        """Send and receive. Errors are returned, not raised: no frame from here on may appear in a traceback."""
        echo = self._echo  # a rotated key may have replaced it before the response
        response: aiohttp.ClientResponse | FastResponse | None = None
        read = bytearray()
        deadlines = self._deadlines
        if request.upload is not None:
            deadlines = Deadlines(self.timeouts.request + request.upload.length / _MIN_UPLOAD_RATE)
        try:
            with deadlines.one():
                response = await self._head(session, request)
                body = await read_body(response.status, response.content, read)
        except NOT_SENT as error:
            return self._not_sent(error, request)
        except Exception as error:  # noqa: BLE001 - whatever fails after sending, the request may have been applied
            if response is None or response.status < _NOT_DONE:
                return self._lost(error, request, response, _without_key(bytes(read[:1000]), echo))
            body = bytes(read[:MAX_BODY])
        finally:
            # A whole response has returned its connection to the pool by now; any other connection cannot be reused.
            if response is not None and not response.closed:
                response.close()
        return read_head(response.status, response.headers, _without_key(body, echo))

    async def _head(self, session: aiohttp.ClientSession, request: Request) -> aiohttp.ClientResponse | FastResponse:
        """Send on the first connection without unread input, and return the response once its headers are here."""
        fast = self._fast
        for _ in range(_DIRTY_CONNECTIONS):
            try:
                if fast is not None and fast.free and request.upload is None:
                    return await fast.request(request.method, self._prefix + request.path, request.body)
                return await self._by_session(session, request)
            except (DirtyConnectionError, InternalsChangedError):
                continue
        raise DirtyConnectionError

    async def _by_session(self, session: aiohttp.ClientSession, request: Request) -> aiohttp.ClientResponse:
        """Send by ``ClientSession.request``."""
        upload, once = request.upload, Once(self._internals)
        headers = self._headers.copy()
        headers[hdrs.AUTHORIZATION] = f"Bearer {self._secret.reveal()}"
        if upload is not None:
            headers.update(upload.headers)
        elif request.body is not None:
            headers[hdrs.CONTENT_TYPE] = "application/json"
        data: Any = request.body if upload is None else upload.pieces()
        if not self._internals.hook:
            data = once.without_hook(headers, data)
        try:
            return await session.request(
                request.method,
                self._origin.with_path(self._prefix + request.path, encoded=True),
                data=data,
                headers=headers,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=True,  # none is requested, but some servers compress all the same
                timeout=self._timeout,
                middlewares=(once,),
            )
        except Exception as error:
            if once.reached or isinstance(error, NOT_SENT) or unpatched_request() is None:
                raise  # the middleware has decided what it means, or a mock does
            raise NotConnectedError(words_for(error)) from error

    async def authorize(self) -> AvatarError | None:
        """Ask the callable that was passed as the key, if one was, for the key of the next request.

        Do it before a request counts as sent: it can take up to ``timeouts.request``, and nothing has left by then.

        :returns: the error with which the request is not sent, or None. It is not raised: no frame that holds a key
            may appear in a traceback.
        """
        if isinstance(self.key, Secret):
            return None
        try:
            key: Any = self.key()
            if inspect.isawaitable(key):
                async with asyncio.timeout(self.timeouts.request):
                    key = await key
            if not isinstance(key, str):
                return ConnectionFailed(
                    f"the key provider gave {type(key).__name__}, not a text", fatal=True, hint=_NO_KEY
                )
            check_key(key)
        except ENDS_THE_PROGRAM:
            raise
        except InvalidInput as error:
            return ConnectionFailed(f"the key provider gave no usable key: {error}", fatal=True, hint=_NO_KEY)
        except BaseException as error:
            if being_cancelled(error):
                raise
            return ConnectionFailed(redact(f"the key provider failed: {type(error).__name__}: {error}"), hint=_NO_KEY)
        if self._closed or (self._session is not None and self._session.closed):
            return SessionStateError("closed while the key was asked for: nothing was sent")
        if key != self._secret.reveal():
            self._use(Secret(key))
        return None

    def _use(self, secret: Secret[str]) -> None:
        """Send this key from now on."""
        self._secret = secret
        # A service that echoes the key in its response must not bring it into our errors.
        long_enough = len(secret.reveal()) >= _SHORTEST_KEY
        self._echo = Secret(secret.reveal().encode()) if long_enough else None
        if self._fast is not None:
            self._fast.use({**self._headers, hdrs.AUTHORIZATION: f"Bearer {secret.reveal()}"})

    def _not_sent(self, error: Exception, request: Request) -> AvatarError:
        """Return the error for a request that was not sent."""
        if self._closed:
            return SessionStateError(_CLOSED, about=request.about)
        timed_out = isinstance(error, aiohttp.ConnectionTimeoutError)
        words = f"no connection within {self._timeout.connect:g} s" if timed_out else words_for(error)
        message = f"cannot connect to {self._origin.raw_host}: {words}"
        return ConnectionFailed(message, about=request.about, fatal=isinstance(error, FATAL))

    def _lost(
        self, error: Exception, request: Request, response: aiohttp.ClientResponse | FastResponse | None, read: bytes
    ) -> ResponseLost:
        timed_out = isinstance(error, TimeoutError)
        words = f"no whole answer within {self.timeouts.request:g} s" if timed_out else words_for(error)
        lost = ResponseLost(words, about=request.about)
        if response is not None:
            lost.evidence = safe_redacted(read.decode("utf-8", "replace")) or None
            lost.request_id = read_head(response.status, response.headers).request_id
        return lost
