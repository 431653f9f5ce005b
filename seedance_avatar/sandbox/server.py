"""The sandbox itself: one aiohttp server that answers as the service does, and what a user turns to change it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import formatdate
from typing import Any, Final, Literal, Self, cast

from aiohttp import web

from .accounts import Account, Accounts, unauthorized
from .assets import Assets
from .clock import Clock
from .fates import TYPICAL, Fate, Fates, ProcessingTime
from .faults import Fault, Faults
from .ids import Ids
from .ledger import Lane, Ledger
from .limits import RateLimits
from .replies import Refused, Reply, as_json, hung_up, refusal
from .spoil import spoil
from .table import AssetTable
from .vintage import Vintage

__all__ = ["Sandbox"]

PREFIX: Final = "/v1/videos/doubao-seedance-2-0/private-avatar"
_ASSET: Final = f"{PREFIX}/assets/"
_POSTS: Final = {f"{PREFIX}/groups": "groups", f"{PREFIX}/assets": "assets"}
_HELLO: Final = """A local ToAPIs for the Seedance 2 private-avatar API. Nothing here leaves this machine.
  POST {prefix}/groups          {{"name": "my-avatar"}}
  POST {prefix}/assets          {{"group_id": "…", "asset_type": "image", "source_url": "https://…"}}
  GET  {prefix}/assets/<id>
  GET  /sandbox/ledger                                                   what truly arrived
Every call under /v1 needs the header  Authorization: Bearer <key>
"""


class Sandbox:
    """A real local ToAPIs on a loopback port: what the service does, without its bill.

    .. code-block:: python

        async with Sandbox(time_scale=0.02) as sandbox:
            async with AvatarSession("sk-sandbox", base_url=sandbox.url) as session:
                ...
        assert sandbox.ledger.check(outcomes) == []

    It belongs to the loop that started it; clients may live in any loop or process. After :meth:`aclose` it can be
    started again, on the same port and with everything it knew: that is how an outage is played.

    :param keys: the accepted API keys. In a sequence each key is an account of its own; a mapping names the account
        of each key, so that several keys can be one account.
    :param host: the address to listen on.
    :param port: the port; 0 takes a free one.
    :param seed: what the processing times, the failures and the faults are drawn from.
    :param time_scale: factor on all processing times: 0.02 makes 13 seconds of an image 0.26 seconds.
    :param processing: seconds until an asset is active by asset type, as a number or a function that draws it from a
        ``random.Random``; by default about 13 s for an image, 18 to 27 s for a video, about 10 s for audio.
    :param fail_rate: the share of sources that fail while processing, within 1 to 4 s. The same sources in every run.
    :param immediate: the share of sources that are active at once.
    :param fates: called with source URL and asset type, returns the :class:`Fate` or None for chance.
    :param limits: the rate limits of each account, or None for none; see :class:`RateLimits`.
    :param quota: what each account may spend, or None for no end: an upload costs 1, a video 10.
    :param latency: seconds that every answer takes.
    :param faults: the faults to begin with; see :class:`Faults`.
    :param vintage: how the answers are dressed; see :class:`Vintage`.
    :param allow_private: accept source URLs that are not public, which the service refuses.
    :param ledger: ``all`` keeps every URL, ``counters`` only numbers (some 40 bytes an asset) for the largest runs.
    :param clock: a function that returns seconds, instead of the machine's monotonic clock.
    :param stepped: let time stand still except for :meth:`advance`.
    """

    def __init__(  # noqa: PLR0913 - every knob has its default and its name
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
        faults: Faults | Iterable[Fault] = (),
        vintage: Vintage | None = None,
        allow_private: bool = False,
        ledger: Literal["all", "counters"] = "all",
        clock: Callable[[], float] | None = None,
        stepped: bool = False,
    ) -> None:
        self.faults = faults if isinstance(faults, Faults) else Faults(faults, seed=seed)
        self.latency = latency
        self._host, self._port = host, port
        self._clock = Clock(clock, stepped)
        self._now = self._clock.now
        self._accounts = Accounts(keys, limits=limits, quota=quota)
        self._vintage = vintage or Vintage()
        self._fates = Fates(
            seed=seed,
            time_scale=time_scale,
            fail_rate=fail_rate,
            immediate=immediate,
            processing={**TYPICAL, **(processing or {})},
            decide=fates,
        )
        style, keep = self._vintage.ids, ledger == "all"
        table = AssetTable(Ids(style, short="pa", dated="asset", seed=seed), self._clock, [] if keep else None)
        self.ledger = Ledger(table, [account.name for account in self._accounts.all], keep)
        self._assets = Assets(
            clock=self._clock,
            table=table,
            ledger=self.ledger,
            fates=self._fates,
            vintage=self._vintage,
            group_ids=Ids(style, short="pg", dated="group", seed=seed),
            allow_private=allow_private,
        )
        self._runner: web.ServerRunner | None = None
        self._requests = 0
        self._date = (-1, "")

    # Its life

    @property
    def url(self) -> str:
        """The base URL, as ``AvatarSession(base_url=…)`` takes it; known once it was started."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> Self:
        """Listen; return the sandbox.

        :raises OSError: the port is taken.
        :raises RuntimeError: it is running already.
        """
        if self._runner is not None:
            message = "this sandbox is running already"
            raise RuntimeError(message)
        server = web.Server(cast("Any", self._handle), access_log=None, tcp_keepalive=False)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, reuse_address=True, backlog=1024).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner
        return self

    async def aclose(self) -> None:
        """Stop listening and end all connections; what it knows, it keeps. May be called twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # What can be changed while it runs

    def fail(self, source_url: str, *, reason: str | None = None, after: float | None = None) -> None:
        """Let ``source_url`` fail with ``reason``, ``after`` seconds (times ``time_scale``) from its acceptance."""
        self._fates.rules[source_url] = Fate.failed(reason, after=after)

    def decide(self, source_url: str, fate: Fate | None) -> None:
        """Give ``source_url`` a fate; None leaves it to chance again. Assets that exist keep theirs."""
        if fate is None:
            self._fates.rules.pop(source_url, None)
        else:
            self._fates.rules[source_url] = fate

    def advance(self, seconds: float) -> None:
        """Move the time of a stepped sandbox ``seconds`` on.

        :raises RuntimeError: the sandbox is not stepped.
        """
        self._clock.advance(seconds)

    @property
    def now(self) -> float:
        """Seconds on the sandbox's clock, as the ledger writes them."""
        return self._now()

    def account(self, key: str = "sk-sandbox") -> Account:
        """Return the account behind ``key``, whose limits and credits can be changed; KeyError for an unknown key."""
        return self._accounts.of_key(key)

    @property
    def limits(self) -> RateLimits | None:
        """The rate limits of the first account."""
        return self._accounts.all[0].limits

    @limits.setter
    def limits(self, limits: RateLimits | None) -> None:
        self._accounts.all[0].limits = limits

    def admit(self, key: str, *, account: str | None = None) -> None:
        """Accept ``key`` from now on, for the account of that name (the first by default)."""
        self._accounts.admit(key, account)

    def revoke(self, key: str) -> None:
        """Refuse ``key`` from now on."""
        self._accounts.revoke(key)

    # What happens to a request

    async def _handle(self, request: web.BaseRequest) -> Reply:
        ledger = self.ledger
        self._requests += 1
        number = self._requests
        ledger.in_flight += 1
        ledger.peak = max(ledger.peak, ledger.in_flight)
        method, path = request.method, request.raw_path.partition("?")[0]
        kind = _POSTS.get(path, "other") if method == "POST" else "asset" if path.startswith(_ASSET) else "other"
        try:
            body = await request.read() if request.body_exists else b""
            if self.latency:
                await self._clock.sleep(self.latency)
            account = self._accounts.of_header(request.headers.get("Authorization"))
            if account is None or kind == "other":
                reply = self._elsewhere(request, path) if kind == "other" else self._stranger(request)
            else:
                reply = await self._answer(account, method, kind, path, body)
        except ConnectionError:
            # The client hung up in the middle of its request: nothing was done, nobody is there to be told.
            reply = hung_up()
        finally:
            ledger.in_flight -= 1
        ledger.counts[method, kind, reply.status] += 1
        reply.request_id = f"{self._stamp()}{number:012d}"
        if reply.status != 200 and b"{id}" in reply.body:  # noqa: PLR2004 - an HTTP status
            reply.body = reply.body.replace(b"{id}", reply.request_id.encode())
        return reply

    async def _answer(self, account: Account, method: str, kind: str, path: str, body: bytes) -> Reply:
        headers = ""
        limits = account.limits
        lane: Lane = "submit" if method == "POST" else "query"
        if limits is None:
            self.ledger.note(account.name, lane, self._now(), refused=False)
        elif gates := limits.submits if lane == "submit" else limits.queries:
            now = self._now()
            headers, refused = limits.pass_or_refuse(gates, now, self._clock.wall_at(now))
            self.ledger.note(account.name, lane, now, refused=refused is not None)
            if refused is not None:
                refused.headers = headers + self._dated()
                return refused
        rule = self.faults.strike(method, kind) if self.faults else None
        if rule is not None:
            reply = await self._misbehave(rule, account, kind, path, body)
        else:
            reply = self._do(account, kind, path, body)
        reply.headers += headers + self._dated()
        return reply

    async def _misbehave(self, rule: Fault, account: Account, kind: str, path: str, body: bytes) -> Reply:
        if rule.kind == "slow":
            await self._clock.sleep(rule.delay)
        right = self._do(account, kind, path, body) if self.faults.applies(rule) else None
        return spoil(rule, right, self.faults.rng, self._clock, self._vintage)

    def _do(self, account: Account, kind: str, path: str, body: bytes) -> Reply:
        try:
            if kind == "asset":
                return self._assets.look(account, path[len(_ASSET) :])
            if kind == "assets":
                return self._assets.create(account, body)
            return self._assets.create_group(account, body)
        except Refused as refused:
            return refused.reply

    def _stranger(self, request: web.BaseRequest) -> Reply:
        return unauthorized(request.headers.get("Authorization"))

    def _elsewhere(self, request: web.BaseRequest, path: str) -> Reply:
        if path == "/":
            return Reply(200, _HELLO.format(prefix=PREFIX).encode(), content_type="text/plain; charset=utf-8")
        if path == "/sandbox/ledger":
            return as_json(self.ledger.summary())
        return refusal(404, f"Invalid URL ({request.method} {path})")

    def _dated(self) -> str:
        second = int(self._clock.wall())
        if second != self._date[0]:
            self._date = (second, f"Date: {formatdate(second, usegmt=True)}\r\n")
        return self._date[1]

    def _stamp(self) -> str:
        return f"{int(self._clock.wall()):d}"
