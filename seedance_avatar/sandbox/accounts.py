"""The accounts behind the accepted API keys, and their rate limits: token buckets and sliding windows."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Literal, Self, TypeAlias

import attrs

from .replies import Reply, refusal


@attrs.define(eq=False)
class Bucket:
    """A token bucket: ``rate`` requests a second, and up to ``burst`` at once after a pause."""

    rate: float = attrs.field(validator=attrs.validators.gt(0))
    burst: float = attrs.field(default=1, validator=attrs.validators.ge(1))
    _level: float = attrs.field(init=False, default=0.0)
    _at: float = attrs.field(init=False, default=-math.inf)  # so that it is full at the first look

    def _fill(self, now: float) -> float:
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
            self._at = now
        return self._level

    def wait(self, now: float) -> float:
        """Return the seconds until there is a token."""
        # Less than 1.0, so that a client that returns after exactly this time is not refused by a rounding error.
        return max(0.0, (1.0 - 1e-9 - self._fill(now)) / self.rate)

    def take(self, now: float) -> None:
        """Take a token."""
        self._level = self._fill(now) - 1.0

    def state(self, now: float) -> tuple[int, int, float]:
        """Return burst, tokens and the seconds until the bucket is full."""
        level = self._fill(now)
        return int(self.burst), max(0, int(level)), (self.burst - level) / self.rate


@attrs.define(eq=False)
class Window:
    """At most ``limit`` requests in any ``seconds`` seconds."""

    limit: int = attrs.field(validator=attrs.validators.ge(1))
    seconds: float = attrs.field(validator=attrs.validators.gt(0))
    _passed: deque[float] = attrs.field(init=False, factory=deque)

    def _forget(self, now: float) -> None:
        while self._passed and self._passed[0] <= now - self.seconds:
            self._passed.popleft()

    def wait(self, now: float) -> float:
        """Return the seconds until enough requests have left the window."""
        self._forget(now)
        in_the_way = len(self._passed) - self.limit
        return 0.0 if in_the_way < 0 else self._passed[in_the_way] + self.seconds - now

    def take(self, now: float) -> None:
        """Count a request."""
        self._passed.append(now)

    def state(self, now: float) -> tuple[int, int, float]:
        """Return the limit, what is left of it, and the seconds until the window is empty."""
        self._forget(now)
        reset = self._passed[-1] + self.seconds - now if self._passed else 0.0
        return self.limit, max(0, self.limit - len(self._passed)), reset


Gate: TypeAlias = Bucket | Window
"""One limit: ``wait`` asks when a request may pass, ``take`` counts it, ``state`` gives the announced values."""


@attrs.define(eq=False, kw_only=True)
class RateLimits:
    """The limits of one account, for its submissions (POST) and its queries (GET). All can be changed at any time.

    :ivar submits: the limits of submissions; empty for none.
    :ivar queries: the limits of queries; empty for none.
    :ivar announce: send ``X-RateLimit-*`` headers.
    :ivar retry_after: form of ``Retry-After`` in a 429: whole ``seconds``, a ``date``, or ``none``.
    :ivar reset: whether ``X-RateLimit-Reset`` counts ``seconds`` from now or names the ``epoch`` second.
    """

    submits: Sequence[Gate] = ()
    queries: Sequence[Gate] = ()
    announce: bool = True
    retry_after: Literal["seconds", "date", "none"] = "seconds"
    reset: Literal["seconds", "epoch"] = "seconds"

    @classmethod
    def tier(cls, name: Literal["default", "vip", "svip"] = "default") -> Self:
        """Return the documented limits of a tier: so many a minute, and at most 50 and 500 in ten seconds."""
        submits, queries = {"default": (300, 3_000), "vip": (1_000, 10_000), "svip": (2_000, 30_000)}[name]
        return cls(
            submits=(Window(submits, 60), Window(max(50, submits // 6), 10)),
            queries=(Window(queries, 60), Window(max(500, queries // 6), 10)),
        )

    @classmethod
    def per_second(
        cls,
        *,
        submits: float | None = None,
        submit_burst: float = 1,
        queries: float | None = None,
        query_burst: float = 1,
        announce: bool = True,
    ) -> Self:
        """Return token buckets with these rates a second; None is no limit for that lane."""
        return cls(
            submits=() if submits is None else (Bucket(submits, submit_burst),),
            queries=() if queries is None else (Bucket(queries, query_burst),),
            announce=announce,
        )

    def pass_or_refuse(self, gates: Sequence[Gate], now: float, wall: float) -> tuple[str, Reply | None]:
        """Let one request through ``gates`` or not; return the headers of its answer, and the 429 or None."""
        wait = max(gate.wait(now) for gate in gates)
        if not wait:
            for gate in gates:
                gate.take(now)
        headers = ""
        if self.announce:
            limit, left, reset = min((gate.state(now) for gate in gates), key=lambda state: state[1])
            reset = math.ceil(reset + wall if self.reset == "epoch" else reset)
            headers = f"X-RateLimit-Limit: {limit}\r\nX-RateLimit-Remaining: {left}\r\nX-RateLimit-Reset: {reset}\r\n"
        if not wait:
            return headers, None
        if self.retry_after == "seconds":
            headers += f"Retry-After: {math.ceil(wait)}\r\n"
        elif self.retry_after == "date":
            headers += f"Retry-After: {formatdate(math.ceil(wall + wait), usegmt=True)}\r\n"
        message = "too many requests, slow down (request id: {id})"
        return headers, refusal(429, message, code="rate_limit_exceeded", kind="rate_limit_error")


@attrs.define(eq=False, kw_only=True)
class Account:
    """An account: it has its own limits, credits and groups. Its attributes can be changed at any time.

    :ivar name: its name in the ledger.
    :ivar number: its number, from 0.
    :ivar limits: its rate limits, or None for none.
    :ivar credits: its balance, or None for an unlimited one; an upload costs 1, a video 10.
    """

    name: str
    number: int
    limits: RateLimits | None
    credits: float | None


def accounts_of(
    keys: Sequence[str] | Mapping[str, str], *, limits: RateLimits | None, quota: float | None
) -> dict[str, Account]:
    """Return the account of each key; ValueError when there is no key."""
    names = dict(keys) if isinstance(keys, Mapping) else {key: f"account-{n}" for n, key in enumerate(keys, 1)}
    if not names:
        message = "keys must name at least one accepted key"
        raise ValueError(message)
    by_name: dict[str, Account] = {}
    for number, name in enumerate(dict.fromkeys(names.values())):
        # The first account keeps the caller's own object, so that a later change to it takes effect.
        own = limits if number == 0 else copy.deepcopy(limits)
        by_name[name] = Account(name=name, number=number, limits=own, credits=quota)
    return {key: by_name[name] for key, name in names.items()}
