"""The class ``Sandbox``, a server that answers as the service does, and two ways to run one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from email.utils import formatdate
from typing import Any, Final, Literal, Self

from aiohttp import web
from anyio.from_thread import start_blocking_portal

from seedance_avatar.text import Secret

from .accounts import Account, RateLimits, accounts_of
from .assets import Assets
from .clock import Clock
from .dialect import Ids, IdStyle, Vintage
from .fates import TYPICAL, Fate, Fates, ProcessingTime
from .faults import Fault, Faults
from .files import Files
from .ledger import AssetTable, Lane, Ledger
from .records import Download
from .replies import Refused, Reply, as_json, refusal, unauthorized
from .state import State
from .videos import Videos

_AVATARS: Final = "/v1/videos/doubao-seedance-2-0/private-avatar"
_TASKS: Final = "/v1/videos/generations"
_UPLOADS: Final = "/v1/uploads/"
_PATHS: Final = {
    ("POST", f"{_AVATARS}/groups"): "groups",
    ("POST", f"{_AVATARS}/assets"): "assets",
    ("POST", _TASKS): "generations",
}
"""The kind of a request with this method and path, as the ledger counts it."""
_PREFIXES: Final = {"GET": {f"{_AVATARS}/assets/": "asset", f"{_TASKS}/": "generation"}, "POST": {_UPLOADS: "uploads"}}
"""By method, the kind of a request whose path begins so; an id or the kind of an upload follows."""
_HELLO: Final = f"""A local ToAPIs for the Seedance 2 private-avatar API. Nothing here leaves this machine.

POST {_AVATARS}/groups
     {{"name": "my-avatar"}}
POST {_AVATARS}/assets
     {{"group_id": "pg_…", "asset_type": "image", "source_url": "https://…"}}
GET  {_AVATARS}/assets/<asset_id>
POST {_TASKS}
     {{"model": "seedance-2", "prompt": "…", "image_with_roles": [{{"url": "asset://…", "role": "reference_image"}}]}}
GET  {_TASKS}/<task id or client_business_id>
POST {_UPLOADS}images (or videos, audios)
     multipart/form-data with the field: file

Every call needs the header  Authorization: Bearer <key>
GET  /sandbox/ledger needs none; it answers with counts of what arrived.
"""


class Sandbox:
    """A local server that answers as ToAPIs does, on a loopback port and free of charge.

    .. code-block:: python

        async with Sandbox(time_scale=0.02) as sandbox:
            async with AvatarSession("sk-sandbox", base_url=sandbox.url) as session:
                ...
        assert sandbox.ledger.check(outcomes) == []

    It runs in the event loop that started it; clients may run in any loop or process. After :meth:`aclose` it can be
    started again on the same port with all its data, which simulates an outage.

    :param keys: the accepted API keys. In a sequence each key has an account of its own; a mapping gives the name of
        each key's account, so that several keys can share one.
    :param host: the address to listen on.
    :param port: the port; 0 takes a free one.
    :param seed: seed of the random processing times, failures and faults.
    :param time_scale: factor on all processing times: 0.02 makes 13 seconds of an image 0.26 seconds.
    :param processing: seconds until an asset is active by asset type, and ``generation`` for a video, each a number
        or a function of a ``random.Random``; by default about 13 s for an image, 18 to 27 s for a
        video, about 10 s for audio, and 1 to 5 minutes for a generation.
    :param fail_rate: the share of sources that fail while processing, within 1 to 4 s. The same sources in every run.
    :param immediate: the share of sources that are active at once.
    :param fates: called with source URL and asset type, returns a :class:`Fate`, or None for a random one.
    :param limits: the rate limits of each account, or None for none; see :class:`RateLimits`.
    :param quota: the balance of each account, or None for an unlimited one: an upload costs 1, a video 10.
    :param latency: seconds that every answer takes. The attribute ``latency`` can be changed at any time.
    :param videos: called with the body of a generation, returns its :class:`Fate`, or None for *completed*. A
        generation is refused with an image whose URL contains ``real-person``, as one that shows a real person.
    :param url_lives: seconds, before ``time_scale``, for which the URL of a video is valid; a query of its task returns
        a new one, until the video is deleted 24 hours after it was finished.
    :param webhook_secrets: secrets that webhooks are signed with, all of them.
    :param faults: the faults at the start; see :class:`Faults`. The attribute ``faults`` can be changed at any time.
    :param vintage: the format of the answers; see :class:`Vintage`.
    :param allow_private: accept source URLs that are not public, which the service refuses.
    :param ledger: ``all`` keeps every URL, ``counters`` only numbers, some 40 bytes an asset, for very large runs.
    :param clock: a function that returns seconds, instead of the machine's monotonic clock.
    :param stepped: stop the clock; only :meth:`advance` moves it.
    """

    def __init__(  # noqa: PLR0913 - every option has a default and is given by name
        self,
        *,
        keys: Sequence[str] | Mapping[str, str] = ("sk-sandbox",),
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        time_scale: float = 1.0,
        processing: Mapping[str, ProcessingTime] | None = None,
        fail_rate: float = 0.0,
        immediate: float = 0.0,
        fates: Callable[[str, str], Fate | None] | None = None,
        limits: RateLimits | None = None,
        quota: float | None = None,
        latency: float = 0.0,
        videos: Callable[[Mapping[str, Any]], Fate | None] | None = None,
        url_lives: float = 86_400.0,
        webhook_secrets: Sequence[str] = ("whsec-sandbox",),
        faults: Faults | Iterable[Fault] = (),
        vintage: Vintage | None = None,
        allow_private: bool = False,
        ledger: Literal["all", "counters"] = "all",
        clock: Callable[[], float] | None = None,
        stepped: bool = False,
    ) -> None:
        self._host, self._port, self._files_port = host, port, 0
        self.latency: float = latency
        self.faults: Faults = faults if isinstance(faults, Faults) else Faults(faults, seed=seed)
        vintage = vintage or Vintage()
        self._clock = Clock(clock, stepped=stepped)
        accounts = accounts_of(keys, limits=limits, quota=quota)
        self._accounts = list(dict.fromkeys(accounts.values()))
        self._by_header = {_header(key): account for key, account in accounts.items()}

        def ids(short: str, dated: str, style: IdStyle = vintage.ids) -> Ids:
            return Ids(style, short=short, dated=dated, seed=seed)

        table = AssetTable(ids("pa", "asset"), self._clock, [] if ledger == "all" else None)
        self.ledger: Ledger = Ledger(table, [account.name for account in self._accounts])
        drawn = Fates(
            seed=seed,
            time_scale=time_scale,
            fail_rate=fail_rate,
            immediate=immediate,
            processing={**TYPICAL, **(processing or {})},
            decide=fates,
        )
        self._state = State(self._clock, vintage, self.ledger, drawn, allow_private)
        self._files = Files(self._state, ids("file", "file", "ulid"), url_lives * time_scale, seed)
        secrets = [Secret(secret) for secret in webhook_secrets]
        assets = Assets(self._state, ids("pg", "group"))
        generations = Videos(self._state, ids("task", "cgt"), self._files, secrets, videos)
        self._webhooks = generations.webhooks
        self._handlers: dict[str, Callable[[Account, Any], Reply]] = {
            "groups": assets.create_group,
            "assets": assets.create,
            "asset": assets.look,
            "generations": generations.create,
            "generation": generations.look,
        }
        self._requests = 0
        self._date = (-1, "")
        self._listeners: list[tuple[asyncio.Server, web.ServerRunner]] = []

    # Starting and stopping

    @property
    def url(self) -> str:
        """The base URL, for ``AvatarSession(base_url=…)``; known once it was started."""
        return f"http://{self._host}:{self._port}"

    @property
    def files_url(self) -> str:
        """The base URL of the host where videos and uploaded files are fetched; known once it was started."""
        return f"http://{self._host}:{self._files_port}"

    async def start(self) -> Self:
        """Start listening; return the sandbox.

        :raises OSError: the port is taken.
        :raises RuntimeError: it is running already.
        """
        if self._listeners:
            message = "this sandbox is running already"
            raise RuntimeError(message)
        try:
            self._port = await self._listen(self._answer, self._port)
            self._files_port = await self._listen(self._answer_file, self._files_port)
        except BaseException:
            await self.aclose()
            raise
        self._state.files_url = self.files_url
        self._webhooks.open()
        return self

    async def _listen(self, handler: Any, port: int) -> int:  # noqa: ANN401 - aiohttp's type is StreamResponse, whose part in use Reply implements
        server = web.Server(handler, access_log=None, tcp_keepalive=False)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(server, self._host, port, reuse_address=True, backlog=1024)
        self._listeners.append((listener, runner))
        listening_on: int = listener.sockets[0].getsockname()[1]
        return listening_on

    async def aclose(self) -> None:
        """Stop listening and close all connections; the data is kept. May be called twice."""
        await self._webhooks.aclose()
        listeners, self._listeners = self._listeners, []
        loop = asyncio.get_running_loop()
        for listener, runner in listeners:
            # A connection that asyncio's server accepts in the iteration in which it is closed would stay open.
            # So it stops accepting first, and an accepted connection gets the two iterations that it takes to set up.
            for listening in listener.sockets:
                with contextlib.suppress(NotImplementedError):  # on Windows
                    loop.remove_reader(listening)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            listener.close()
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # What can be changed while it runs

    def fail(self, source_url: str, *, reason: str | None = None, after: float | None = None) -> None:
        """Make ``source_url`` fail with ``reason``, ``after`` seconds (times ``time_scale``) from its acceptance."""
        self._state.fates.rules[source_url] = Fate.failed(reason, after=after)

    def decide(self, source_url: str, fate: Fate | None) -> None:
        """Set the fate of ``source_url``; None makes it random again. Assets that exist keep theirs."""
        if fate is None:
            self._state.fates.rules.pop(source_url, None)
        else:
            self._state.fates.rules[source_url] = fate

    def advance(self, seconds: float) -> None:
        """Move the clock of a stepped sandbox ``seconds`` forward.

        :raises RuntimeError: the sandbox is not stepped.
        """
        self._clock.advance(seconds)

    @property
    def now(self) -> float:
        """Seconds on the sandbox's clock, as in the ledger."""
        return self._clock.now()

    def account(self, key: str = "sk-sandbox") -> Account:
        """Return the account behind ``key``, whose limits and credits can be changed; KeyError for an unknown key."""
        return self._by_header[_header(key)]

    @property
    def limits(self) -> RateLimits | None:
        """The rate limits of the first account."""
        return self._accounts[0].limits

    @limits.setter
    def limits(self, limits: RateLimits | None) -> None:
        self._accounts[0].limits = limits

    def admit(self, key: str, *, account: str | None = None) -> None:
        """Accept ``key`` from now on, for the account of that name (the first by default)."""
        self._by_header[_header(key)] = next(a for a in self._accounts if account in {None, a.name})

    def revoke(self, key: str) -> None:
        """Refuse ``key`` from now on."""
        self._by_header.pop(_header(key), None)

    # How a request is answered

    async def _answer(self, request: web.BaseRequest) -> Reply:
        path = request.raw_path.partition("?")[0]
        kind, name = _route(request.method, path)
        answering = self._api(request, kind, name) if kind != "other" else self._elsewhere(request.method, path)
        return await self._counted(request.method, kind, answering)

    async def _answer_file(self, request: web.BaseRequest) -> Reply:
        return await self._counted(request.method, "files", self._file(request))

    async def _counted(self, method: str, kind: str, answering: Coroutine[None, None, Reply]) -> Reply:
        ledger = self.ledger
        self._requests += 1
        number = self._requests
        ledger.in_flight += 1
        ledger.peak = max(ledger.peak, ledger.in_flight)
        try:
            reply = await answering
        except ConnectionError:
            # The client closed the connection during its request: nothing was done, and there is nobody to answer.
            reply = Reply(end="close")
        finally:
            ledger.in_flight -= 1
        ledger.counts[method, kind, reply.status] += 1
        second = int(self._clock.wall_at(self._clock.now()))
        if second != self._date[0]:
            self._date = second, f"Date: {formatdate(second, usegmt=True)}\r\n"
        reply.headers += self._date[1]
        reply.request_id = f"{second}{number:012d}"
        if b"{id}" in reply.body and reply.content_type.startswith("application/json"):
            reply.body = reply.body.replace(b"{id}", reply.request_id.encode())
        return reply

    async def _api(self, request: web.BaseRequest, kind: str, name: str) -> Reply:
        # An uploaded file is read in chunks, up to its own limit; all other bodies are small.
        body = await request.read() if kind != "uploads" and request.body_exists else b""
        if self.latency:
            await self._clock.sleep(self.latency)
        authorization = request.headers.get("Authorization")
        account = self._by_header.get(Secret(authorization)) if authorization else None
        if account is None:
            return unauthorized(authorization)

        async def do() -> Reply:
            try:
                if kind == "uploads":
                    return await self._files.receive(name, account, request)
                return self._handlers[kind](account, body if request.method == "POST" else name)
            except Refused as refused:
                return refused.reply

        headers, reply = ("", None) if kind == "uploads" else self._limited(account, request.method)
        if reply is None:
            reply = await (self.faults.answer(request.method, kind, do, self._state) if self.faults else do())
        reply.headers += headers
        return reply

    def _limited(self, account: Account, method: str) -> tuple[str, Reply | None]:
        """Return the rate-limit headers, and the refusal if a limit is reached."""
        lane: Lane = "submit" if method == "POST" else "query"
        now, limits = self._clock.now(), account.limits
        gates = () if limits is None else limits.submits if lane == "submit" else limits.queries
        headers, refused = "", None
        if limits is not None and gates:
            headers, refused = limits.pass_or_refuse(gates, now, self._clock.wall_at(now))
        self.ledger.note(account.name, lane, now, refused=refused is not None)
        return headers, refused

    async def _file(self, request: web.BaseRequest) -> Reply:
        asked = request.headers

        async def fetch() -> Reply:
            return self._files.fetch(request.raw_path, asked.get("Range"), asked.get("If-Range"))

        reply = await self.faults.answer(request.method, "files", fetch, self._state)
        entry = Download(
            path=request.raw_path.partition("?")[0],
            status=reply.status,
            authorized="Authorization" in asked,
            ranged=asked.get("Range"),
            at=self._clock.now(),
        )
        self.ledger.downloads.append(entry)
        return reply

    async def _elsewhere(self, method: str, path: str) -> Reply:
        if path == "/":
            return Reply(200, _HELLO.encode(), "text/plain; charset=utf-8")
        if path == "/sandbox/ledger":
            return as_json(self.ledger.summary())
        return refusal(404, f"Invalid URL ({method} {path})")


async def serve(sandbox: Sandbox, *, announce: Callable[[str], None] = print) -> int:
    """Start ``sandbox``, call ``announce`` with its URL, and serve until SIGINT or SIGTERM comes.

    In another thread than the main one no signal arrives, and it serves until it is cancelled.

    :return: the number of the signal that ended it.
    :raises OSError: the port is taken.
    """
    loop, signals = asyncio.get_running_loop(), asyncio.Queue[int]()
    handled: list[int] = []
    with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):  # another thread, or Windows
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, signals.put_nowait, number)
            handled.append(number)
    try:
        async with sandbox:
            announce(sandbox.url)
            return await signals.get()
    finally:
        for each in handled:
            loop.remove_signal_handler(each)


@contextlib.contextmanager
def in_thread(**options: Any) -> Iterator[Sandbox]:  # noqa: ANN401 - each option of Sandbox has its own type
    """Run a :class:`Sandbox` with these ``options`` in a thread, during the ``with`` block.

    Its methods that are not coroutines, and its ledger, may be used from the calling thread.

    :raises OSError: its port is taken.
    """
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Sandbox(**options)) as sandbox:
        yield sandbox


def _header(key: str) -> Secret[str]:
    return Secret(f"Bearer {key}")


def _route(method: str, path: str) -> tuple[str, str]:
    """Return the kind of a request, and the id or the kind of upload at the end of its path."""
    if (kind := _PATHS.get((method, path))) is not None:
        return kind, ""
    for prefix, kind in _PREFIXES.get(method, {}).items():
        if path.startswith(prefix):
            return kind, path[len(prefix) :]
    return "other", ""
