"""The class ``Sandbox``: a server that answers as the service does, and the options that change its behaviour."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from aiohttp import web

from seedance_avatar.text import Secret

from .accounts import Account, Accounts
from .asset_table import AssetTable
from .assets import Assets
from .clock import Clock
from .dialect import Vintage
from .fates import TYPICAL, Fate, Fates, ProcessingTime
from .faults import Fault, Faults
from .files import Files
from .ids import Ids, IdStyle
from .ledger import Ledger
from .limits import RateLimits
from .router import Router
from .uploads import Uploads
from .videos import Videos
from .webhooks import Webhooks

__all__ = ["Sandbox"]


def _says_real_person(url: str) -> bool:
    return "real-person" in url


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
    :param latency: seconds that every answer takes.
    :param videos: called with the body of a generation, returns its :class:`Fate`, or None for *completed*.
    :param real_person: returns whether the image at a URL shows a real person, for which a generation is refused;
        by default whether the URL contains ``real-person``.
    :param url_lives: seconds, before ``time_scale``, for which the URL of a video is valid; a query of its task returns
        a new one, until the video is deleted 24 hours after it was finished.
    :param webhook_secrets: secrets that webhooks are signed with, all of them.
    :param faults: the faults at the start; see :class:`Faults`.
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
        real_person: Callable[[str], bool] = _says_real_person,
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
        vintage = vintage or Vintage()
        self._clock = Clock(clock, stepped)
        self._accounts = Accounts(keys, limits=limits, quota=quota)
        self._fates = Fates(
            seed=seed,
            time_scale=time_scale,
            fail_rate=fail_rate,
            immediate=immediate,
            processing={**TYPICAL, **(processing or {})},
            decide=fates,
        )

        def ids(short: str, dated: str, style: IdStyle = vintage.ids) -> Ids:
            return Ids(style, short=short, dated=dated, seed=seed)

        table = AssetTable(ids("pa", "asset"), self._clock, [] if ledger == "all" else None)
        self.ledger: Ledger = Ledger(table, [account.name for account in self._accounts.all], ledger == "all")
        self._files = Files(self._clock, url_lives * time_scale, seed)
        self._assets = Assets(
            clock=self._clock,
            table=table,
            ledger=self.ledger,
            fates=self._fates,
            vintage=vintage,
            group_ids=ids("pg", "group"),
            files=self._files,
            allow_private=allow_private,
        )
        generations = Videos(
            clock=self._clock,
            table=table,
            fates=self._fates,
            files=self._files,
            ids=ids("task", "cgt"),
            vintage=vintage,
            allow_private=allow_private,
            decide=videos,
            shows_real_person=real_person,
            signs_webhooks=bool(webhook_secrets),
        )
        self.ledger.show_generations(generations.view)
        self._webhooks = Webhooks(
            clock=self._clock,
            ledger=self.ledger,
            videos=generations,
            secrets=tuple(Secret(secret) for secret in webhook_secrets),
            time_scale=time_scale,
        )
        generations.accepted = self._webhooks.schedule
        self._router = Router(
            clock=self._clock,
            accounts=self._accounts,
            ledger=self.ledger,
            faults=faults if isinstance(faults, Faults) else Faults(faults, seed=seed),
            vintage=vintage,
            assets=self._assets,
            videos=generations,
            uploads=Uploads(clock=self._clock, ledger=self.ledger, files=self._files, ids=ids("file", "file", "ulid")),
            files=self._files,
            latency=latency,
        )
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
            self._port = await self._listen(self._router.answer, self._port)
            self._files_port = await self._listen(self._router.answer_file, self._files_port)
        except BaseException:
            await self._stop_listening()
            raise
        self._files.base = self.files_url
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

    async def _stop_listening(self) -> None:
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

    async def aclose(self) -> None:
        """Stop listening and close all connections; the data is kept. May be called twice."""
        await self._webhooks.aclose()
        await self._stop_listening()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # What can be changed while it runs

    @property
    def faults(self) -> Faults:
        """The fault rules; add rules to it, or remove them."""
        return self._router.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._router.faults = faults

    @property
    def latency(self) -> float:
        """Seconds that every answer takes."""
        return self._router.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._router.latency = seconds

    def fail(self, source_url: str, *, reason: str | None = None, after: float | None = None) -> None:
        """Make ``source_url`` fail with ``reason``, ``after`` seconds (times ``time_scale``) from its acceptance."""
        self._fates.rules[source_url] = Fate.failed(reason, after=after)

    def decide(self, source_url: str, fate: Fate | None) -> None:
        """Set the fate of ``source_url``; None makes it random again. Assets that exist keep theirs."""
        if fate is None:
            self._fates.rules.pop(source_url, None)
        else:
            self._fates.rules[source_url] = fate

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
