"""The knobs: frozen, validated when they are built, times in seconds."""

from __future__ import annotations

import math
from types import UnionType
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import attrs

from .errors import InvalidInput

__all__ = [
    "Doubt",
    "Limits",
    "Permits",
    "Polling",
    "Retry",
    "SharedLimits",
    "Timeouts",
    "check_count",
    "check_positive",
    "check_seconds",
    "given",
]

K = TypeVar("K")

Doubt: TypeAlias = Literal["hold", "resend"]
"""What to do with what an earlier run left in doubt."""


def given(name: str, value: K, kind: type[Any] | UnionType) -> K:
    """Return the option ``value`` (None: not given), so that a mistake is told where it is made, not when it is used.

    :raises InvalidInput: it is not of ``kind``.
    """
    if value is not None and not isinstance(value, kind):
        message = f"{name} must be {getattr(kind, '__name__', kind)}, not {type(value).__name__}"
        raise InvalidInput(message)
    return value


def check_count(name: str, value: object) -> None:
    """Refuse an argument that is not a whole number of at least 1.

    :raises InvalidInput: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"{name} must be a whole number, not {value!r}"
        raise InvalidInput(message)
    _number(value, name, 1, above=False)


def check_positive(name: str, value: object) -> None:
    """Refuse an argument that is not a number of more than 0 (infinity is one: no bound).

    :raises InvalidInput: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        message = f"{name} must be more than 0, not {value!r}"
        raise InvalidInput(message)


def check_seconds(name: str, value: object) -> None:
    """Refuse an argument that is not a finite number of at least 0.

    :raises InvalidInput: it is not.
    """
    _number(value, name, 0.0, above=False)


def _number(value: Any, name: str, low: float, *, above: bool) -> None:  # noqa: ANN401 - anything can be passed in
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        message = f"{name} must be a finite number, not {value!r}"
        raise InvalidInput(message)
    if value < low or (above and value == low):
        message = f"{name} must be {'more than' if above else 'at least'} {low:g}, not {value!r}"
        raise InvalidInput(message)


def _seconds(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - an attrs validator
    _number(value, f"{type(instance).__name__}.{attribute.name}", 0.0, above=False)


def _more_than_zero(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - an attrs validator
    _number(value, f"{type(instance).__name__}.{attribute.name}", 0.0, above=True)


def _count(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - an attrs validator
    check_count(f"{type(instance).__name__}.{attribute.name}", value)


_rate = attrs.validators.optional(_more_than_zero)
_burst = attrs.validators.optional(_count)


@attrs.frozen(kw_only=True)
class Limits:
    """How fast a session may go. ``None`` means *found by itself*, from the service's answers.

    :ivar submits_per_second: POSTs that leave in a second, over all tasks of the session.
    :ivar submit_burst: POSTs that may leave at once after a quiet time.
    :ivar queries_per_second: status requests that leave in a second.
    :ivar query_burst: status requests that may leave at once after a quiet time.
    :ivar max_submitting: POSTs on the wire at one time (default 64).
    :ivar max_polling: status requests on the wire at one time (default 128: an asset is asked about more than once, and
        what is submitted faster than it is asked about piles up).
    """

    submits_per_second: float | None = attrs.field(default=None, validator=_rate)
    submit_burst: int | None = attrs.field(default=None, validator=_burst)
    queries_per_second: float | None = attrs.field(default=None, validator=_rate)
    query_burst: int | None = attrs.field(default=None, validator=_burst)
    max_submitting: int = attrs.field(default=64, validator=_count)
    max_polling: int = attrs.field(default=128, validator=_count)

    @classmethod
    def default(cls) -> Self:
        """Return what keeps to the documented limits of an ordinary account, with none announced and none found.

        They are 300 submits a minute and 50 in 10 s; 3,000 queries a minute and 500 in 10 s. Rate and burst are
        such that ``burst + rate * t`` is within both at once, in any 10 s and any minute: the same 50 cannot
        leave at once and be followed by 5 a second.
        """
        return cls(submits_per_second=4.8, submit_burst=2, queries_per_second=48, query_burst=20)

    @classmethod
    def vip(cls) -> Self:
        """Return what keeps to the documented limits of the first higher tier: 1,000 and 10,000 a minute.

        No shorter window is documented for it; in any minute ``burst + 60 * rate`` is what is permitted.
        """
        return cls(submits_per_second=16, submit_burst=40, queries_per_second=160, query_burst=400)

    @classmethod
    def svip(cls) -> Self:
        """Return what keeps to the documented limits of the highest tier: 2,000 and 30,000 a minute.

        No shorter window is documented for it; in any minute ``burst + 60 * rate`` is what is permitted.
        """
        return cls(submits_per_second=32, submit_burst=80, queries_per_second=480, query_burst=1200)

    @classmethod
    def unlimited(cls) -> Self:
        """Return no rate limit at all (for a local gateway); a ``Retry-After`` is honoured all the same."""
        return cls(
            submits_per_second=1e9,
            submit_burst=1_000_000_000,
            queries_per_second=1e9,
            query_burst=1_000_000_000,
        )


class Permits(Protocol):
    """One session's line to the limits that it shares with others."""

    async def reserve(self, lane: Literal["submit", "query"]) -> float:
        """Reserve the next free moment of ``lane`` and return the seconds until then.

        :raises ConnectionFailed: whoever keeps the limits cannot be reached; nothing is reserved.
        """

    def brake(self, lane: Literal["submit", "query"], seconds: float) -> None:
        """Let none of those who share ``lane`` reserve a moment before so many seconds have passed. Returns at once."""

    async def aclose(self) -> None:
        """End the line."""


@runtime_checkable
class SharedLimits(Protocol):
    """Limits that several processes hold as one: what a session takes in place of :class:`Limits`.

    ``seedance_avatar.integrations.redis.RedisLimits`` is one; anything of this shape is.
    """

    @property
    def max_submitting(self) -> int:
        """POSTs that one process has on the wire at one time."""

    @property
    def max_polling(self) -> int:
        """Status requests that one process has on the wire at one time."""

    async def open(self) -> Permits:
        """Return a line to them, bound to the running loop. Nothing need be reachable yet."""


@attrs.frozen(kw_only=True)
class Retry:
    """How often, and how long apart, what is safe to repeat is repeated.

    The waits are drawn evenly from 0 to ``min(cap, base * 2 ** n)`` (full jitter).

    :ivar attempts: how often one call is sent at most, the first time included (default 4; 1 repeats nothing).
    :ivar base: seconds, the first wait after a network error or a 5xx (default 0.1).
    :ivar throttle_base: seconds, the first wait after a 429 that names no time (default 1).
    :ivar cap: seconds, the longest wait of our own (default 20).
    :ivar max_retry_after: seconds, the longest ``Retry-After`` that a single call waits for (default 120).
    :ivar patience: seconds that an ingest or a wait goes on while nothing can be reached at all, or while the
        service lets nothing through (default 300).
    """

    attempts: int = attrs.field(default=4, validator=_count)
    base: float = attrs.field(default=0.1, validator=_seconds)
    throttle_base: float = attrs.field(default=1.0, validator=_seconds)
    cap: float = attrs.field(default=20.0, validator=_seconds)
    max_retry_after: float = attrs.field(default=120.0, validator=_seconds)
    patience: float = attrs.field(default=300.0, validator=_seconds)


@attrs.frozen(kw_only=True)
class Polling:
    """When to look whether something is finished. Build it by :meth:`learned` or :meth:`fixed`.

    :ivar first: seconds from acceptance to the first look, or None for *learned*.
    :ivar every: seconds between looks after that, or None for *learned*.
    :ivar price: seconds of expected delay that one status request is worth (*learned* only).
    """

    first: float | None = attrs.field(default=None, validator=attrs.validators.optional(_seconds))
    every: float | None = attrs.field(default=None, validator=attrs.validators.optional(_seconds))
    price: float = attrs.field(default=0.2, validator=_more_than_zero)

    def __attrs_post_init__(self) -> None:
        if (self.first is None) != (self.every is None):
            message = "Polling needs both first and every, or neither: use Polling.fixed() or Polling.learned()"
            raise InvalidInput(message)

    @classmethod
    def learned(cls, *, price: float = 0.2) -> Self:
        """Return the schedule that learns how long each type takes; a smaller ``price`` looks more often."""
        return cls(price=price)

    @classmethod
    def fixed(cls, first: float, every: float) -> Self:
        """Return a fixed schedule: the first look ``first`` seconds after acceptance, then every ``every``.

        Zero is allowed: the next look leaves as soon as the last one is answered and the limits permit.
        """
        return cls(first=first, every=every)


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long single things may take.

    :ivar connect: seconds to resolve, connect and shake hands (default 10).
    :ivar request: seconds for one whole HTTP round trip, connecting included (default 60).
    :ivar drain: seconds that what is on the wire gets to come home when a session, an ingest or a submission is
        cancelled or closed (default 10).
    """

    connect: float = attrs.field(default=10.0, validator=_more_than_zero)
    request: float = attrs.field(default=60.0, validator=_more_than_zero)
    drain: float = attrs.field(default=10.0, validator=_seconds)
