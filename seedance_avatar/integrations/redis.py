"""Rate limits that many processes share, kept in Redis (extra ``[redis]``; Redis 5 or later).

.. code-block:: python

    limits = RedisLimits("redis://limits.internal:6379/0", limits=Limits.vip())
    async with AvatarSession(limits=limits) as session:
        ...

Every request first reserves a slot: one script, in one round trip, takes the next free slot of the account's lane and
returns the seconds until then. The script is GCRA (ITU-T I.371) on Redis's own clock, so the clocks of the processes do
not matter. All processes together get at most ``burst + rate * t`` slots in any time ``t``; a process that is late uses
at most four slots late in each lane. A ``Retry-After`` that the service sends to one process stops all of them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Literal, TypeAlias

import attrs
from redis.asyncio import Redis
from redis.asyncio.retry import Retry as RedisRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError

from seedance_avatar.errors import ConnectionFailed, InvalidInput
from seedance_avatar.limits.pacer import QUERIES, SUBMITS, Pacer
from seedance_avatar.options import Limits, check_positive, given
from seedance_avatar.text import Secret, safe_redacted, safe_text

__all__ = ["RedisLimits"]

_log = logging.getLogger("seedance_avatar")

_Lane: TypeAlias = Literal["submit", "query"]

_RECONNECT_AFTER: Final = 1.0
"""Seconds between attempts to reach Redis, while a process goes on alone."""

# A hash for each lane: when the next request is due if all are evenly spaced, and when that was written, both in
# microseconds on Redis's clock. If that clock was set back, only the difference between the two is used.
_SCRIPT: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local gap, burst, brake = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = redis.call('HMGET', KEYS[1], 'due', 'at')
local due, at = tonumber(kept[1]) or 0, tonumber(kept[2]) or now
if now < at then due = due - (at - now) end
local ahead, wait = (burst - 1) * gap, 0
if brake > 0 then
    due = math.max(due, now + brake + ahead)
else
    wait = math.max(0, due - ahead - now)
    due = math.max(due, now) + gap
end
redis.call('HSET', KEYS[1], 'due', string.format('%.2f', due), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((due - now) / 1000) + 60000)
return math.ceil(wait)
"""


def _given(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - an attrs validator
    del instance
    if value is None:
        return
    if not isinstance(value, Limits):
        message = f"RedisLimits.{attribute.name} must be Limits, not {type(value).__name__}"
        raise InvalidInput(message)
    if value.submits_per_second is None or value.queries_per_second is None:
        message = (
            f"RedisLimits.{attribute.name} needs submits_per_second and queries_per_second: shared limits are not "
            "found by themselves; the documented ones are Limits.default(), .vip() and .svip()"
        )
        raise InvalidInput(message)


def _connect(url: Secret[str], timeout: float) -> tuple[Any, str] | InvalidInput:
    """Return a client that connects on first use, and the name of its host; or why the URL cannot be used.

    That error is returned, not raised: the frames of redis-py hold the password, and a traceback would show them.
    """
    try:
        client: Any = Redis.from_url(
            url.reveal(),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=RedisRetry(NoBackoff(), 0),  # a repeated script would reserve twice
        )
        # Only a connection reads the options of the query; making one sends nothing.
        at = client.connection_pool.make_connection()
    except Exception as error:  # noqa: BLE001 - redis-py raises whatever its parts do: ValueError, TypeError, its own
        reason = safe_redacted(error, 120)
        return InvalidInput(
            f"the URL of RedisLimits cannot be used ({reason}): write it like redis://:PASSWORD@host:6379/0, "
            "rediss://… for TLS or unix:///path"
        )
    return client, safe_text(at.path if hasattr(at, "path") else f"{at.host}:{at.port}")


@attrs.frozen(kw_only=True, init=False)
class RedisLimits:
    """Limits for all processes of an account together; pass it as ``AvatarSession(limits=...)`` in each of them.

    It is immutable and holds no connection: one object can serve any number of sessions, and be made before a fork.

    :ivar url: the URL of Redis: ``redis://``, ``rediss://`` or ``unix://``. It is kept as a secret and never shown;
        messages name the host.
    :ivar limits: the limits of all processes together (default: the documented limits of an ordinary account).
        ``max_submitting`` and ``max_polling`` are for each process.
    :ivar account: your own name for the account, never its key; processes with the same name share the limits.
    :ivar when_away: what to do while Redis cannot be reached. ``"wait"`` (the default): nothing is sent; after
        ``Retry.patience`` seconds calls end with :class:`~seedance_avatar.ConnectionFailed`, and the sources that an
        ingest has not sent are ``Unsent``. ``"alone"``: each process goes on with the limits in ``alone``, and tries
        every second to reach Redis.
    :ivar alone: the limits of one process that goes on alone, such as the shared limits divided by the processes.
    :ivar timeout: seconds after which Redis counts as unreachable (default 1).
    :raises InvalidInput: an option or the URL cannot be used.
    """

    url: Secret[str]
    limits: Limits = attrs.field(validator=_given)
    account: str
    when_away: Literal["wait", "alone"]
    alone: Limits | None = attrs.field(validator=_given)
    timeout: float

    def __init__(  # noqa: PLR0913 - the fields, all but the URL by keyword
        self,
        url: str,
        *,
        limits: Limits | None = None,
        account: str = "default",
        when_away: Literal["wait", "alone"] = "wait",
        alone: Limits | None = None,
        timeout: float = 1.0,
    ) -> None:
        # Written out, since the one that attrs writes would hold the URL in its frame, and tracebacks show locals.
        secret = Secret(url if isinstance(url, str) else "")  # type: ignore[redundant-expr]  # not every caller has a type checker
        del url
        self.__attrs_init__(
            url=secret,
            limits=Limits.default() if limits is None else limits,
            account=account,
            when_away=when_away,
            alone=alone,
            timeout=timeout,
        )

    def __attrs_post_init__(self) -> None:
        given("RedisLimits.account", self.account or None, str)
        check_positive("RedisLimits.timeout", self.timeout)
        if self.when_away not in {"wait", "alone"}:
            message = f"RedisLimits.when_away must be 'wait' or 'alone', not {self.when_away!r}"
            raise InvalidInput(message)
        if (self.when_away == "alone") != (self.alone is not None):
            message = "RedisLimits takes alone=Limits(...) together with when_away='alone', never one without the other"
            raise InvalidInput(message)
        if isinstance(flaw := _connect(self.url, self.timeout), InvalidInput):
            raise flaw

    @property
    def max_submitting(self) -> int:
        """POSTs that one process has in flight at one time."""
        return self.limits.max_submitting

    @property
    def max_polling(self) -> int:
        """Status requests that one process has in flight at one time."""
        return self.limits.max_polling

    async def open(self) -> _Line:
        """Return a connection to Redis, bound to the running loop; it connects on first use."""
        connected = _connect(self.url, self.timeout)
        if isinstance(connected, InvalidInput):
            raise connected
        client, where = connected
        pacers: dict[_Lane, Pacer] | None = None
        if (alone := self.alone) is not None:
            pacers = {
                "submit": Pacer.build(rate=alone.submits_per_second, burst=alone.submit_burst, start=SUBMITS),
                "query": Pacer.build(rate=alone.queries_per_second, burst=alone.query_burst, start=QUERIES),
            }
        return _Line(self.limits, self.account, client, client.register_script(_SCRIPT), where, pacers)


@attrs.define(eq=False)
class _Line:
    """One session's connection to the limits in Redis; implements :class:`seedance_avatar.options.Permits`."""

    _limits: Limits
    _account: str
    _client: Any
    _script: Any
    _where: str
    _alone: dict[_Lane, Pacer] | None
    _away_until: float | None = None
    _braking: set[asyncio.Task[None]] = attrs.field(factory=set)

    async def reserve(self, lane: _Lane) -> float:
        """Reserve the next free slot and return the seconds until then; cancelled, a slot may stay unused."""
        now = asyncio.get_running_loop().time()
        if self._alone is not None and self._away_until is not None and now < self._away_until:
            return self._by_itself(self._alone[lane], now)
        try:
            microseconds: int = await self._ask(lane, 0.0)
        except Exception as error:  # noqa: BLE001 - what answers there may be no Redis, and the client raises whatever
            # The frames below hold the password, and tracebacks may be shown with locals.
            failed = self._failed(error.with_traceback(None))
            if self._alone is None or failed.fatal:
                raise failed from None
            if self._away_until is None:
                _log.warning("%s; this process goes on alone until it is back", failed.message)
            self._away_until = now + _RECONNECT_AFTER
            return self._by_itself(self._alone[lane], now)
        if self._away_until is not None:
            self._away_until = None
            _log.warning("the shared limits in Redis at %s are back", self._where)
        return microseconds / 1e6

    async def _ask(self, lane: _Lane, brake: float) -> Any:  # noqa: ANN401 - redis-py does not type what a script returns
        shared = self._limits
        rate = shared.submits_per_second if lane == "submit" else shared.queries_per_second
        burst = shared.submit_burst if lane == "submit" else shared.query_burst
        assert rate is not None  # noqa: S101 - the validator of RedisLimits demands one
        # The account in braces is a hash tag: a Redis cluster keeps both lanes on one node.
        key = f"seedance-avatar:{{{self._account}}}:{lane}"
        return await self._script(keys=[key], args=[1e6 / rate, burst or 1, brake * 1e6])

    def _failed(self, error: Exception) -> ConnectionFailed:
        reason = safe_redacted(str(error) or type(error).__name__, 120)
        message = f"the shared limits in Redis at {self._where} cannot be read ({reason}): nothing was sent"
        # Newer releases of redis-py wrap errors of the connection.
        refused = any(isinstance(it, AuthenticationError | NoPermissionError) for it in (error, error.__cause__))
        return ConnectionFailed(message, fatal=refused)

    @staticmethod
    def _by_itself(pacer: Pacer, now: float) -> float:
        at = pacer.next_at(now)
        pacer.take(at)
        return at - now

    def brake(self, lane: _Lane, seconds: float) -> None:
        """Stop ``lane`` for all processes for ``seconds``; returns at once."""
        if self._alone is not None:
            self._alone[lane].brake(asyncio.get_running_loop().time(), seconds)
        task = asyncio.get_running_loop().create_task(self._publish(lane, seconds), name="seedance-avatar: brake")
        self._braking.add(task)
        task.add_done_callback(self._braking.discard)

    async def _publish(self, lane: _Lane, seconds: float) -> None:
        try:
            await self._ask(lane, seconds)
        except Exception as error:  # noqa: BLE001 - a brake that is not published must not end a request
            _log.info("a Retry-After could not be shared with the other processes: %s", self._failed(error).message)

    async def aclose(self) -> None:
        """Wait until brakes are published, and disconnect."""
        if self._braking:
            await asyncio.wait(self._braking)
        await self._client.aclose()
