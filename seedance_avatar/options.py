"""Options of a session. They are immutable and checked when created. All times are in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from types import UnionType
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import attrs

from .errors import InvalidInput

__all__ = [
    "Changed",
    "Doubt",
    "Limits",
    "Permits",
    "Polling",
    "Rerun",
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
"""What to do with submissions that an earlier run left in doubt: leave them so, or send them again."""

Changed: TypeAlias = Literal["refuse", "replace"]
"""What to do with a source whose key an earlier run used for another one: refuse it, or send it in its place."""


@attrs.frozen(kw_only=True)
class Rerun:
    """What a run sends although its journal knows it from an earlier run.

    :ivar resend: what is in doubt.
    :ivar retry_refused: what was refused.
    :ivar retry_failed: what failed after acceptance: all of it, or what one of these texts in lower case names.
    :ivar replace: another source under a key whose source exists, or may exist.
    """

    resend: bool = False
    retry_refused: bool = False
    retry_failed: bool | tuple[str, ...] = False
    replace: bool = False

    @classmethod
    def of(
        cls,
        *,
        on_in_doubt: Doubt = "hold",
        retry_refused: bool = False,
        retry_failed: bool | str | Iterable[str] = False,
        on_changed: Changed = "refuse",
    ) -> Self:
        """Return what the options of an ingest ask for, or raise :class:`InvalidInput`."""
        for name, value, words in (
            ("on_in_doubt", on_in_doubt, ("hold", "resend")),
            ("on_changed", on_changed, ("refuse", "replace")),
        ):
            if value not in words:
                message = f"{name} must be '{words[0]}' or '{words[1]}', not {value!r}"
                raise InvalidInput(message)
        if not isinstance(retry_failed, bool):
            given: Any = retry_failed
            texts = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
            if not all(isinstance(text, str) and text.strip() for text in texts):
                message = f"retry_failed must be True, False or texts of reasons, not {retry_failed!r}"
                raise InvalidInput(message)
            retry_failed = tuple(text.strip().lower() for text in texts)
        return cls(
            resend=on_in_doubt == "resend",
            retry_refused=retry_refused,
            retry_failed=retry_failed,
            replace=on_changed == "replace",
        )


def given(name: str, value: K, kind: type[Any] | UnionType) -> K:
    """Return the option ``value`` if it is None or of type ``kind``; a wrong type is reported where it is passed."""
    if value is not None and not isinstance(value, kind):
        message = f"{name} must be {getattr(kind, '__name__', kind)}, not {type(value).__name__}"
        raise InvalidInput(message)
    return value


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"{name} must be a whole number, not {value!r}"
        raise InvalidInput(message)
    _check_number(name, value, 1)


def check_positive(name: str, value: object) -> None:
    """Refuse what is no number of more than 0; infinity is one, and means no bound."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        message = f"{name} must be more than 0, not {value!r}"
        raise InvalidInput(message)


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no finite number of at least 0."""
    _check_number(name, value, 0.0)


def _check_number(name: str, value: object, low: float, *, above: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        message = f"{name} must be a finite number, not {value!r}"
        raise InvalidInput(message)
    if value < low or (above and value == low):
        message = f"{name} must be {'more than' if above else 'at least'} {low:g}, not {value!r}"
        raise InvalidInput(message)


def _field(check: Callable[[str, Any], None]) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return ``check`` as a validator of attrs, which names class and field."""
    return lambda instance, attribute, value: check(f"{type(instance).__name__}.{attribute.name}", value)


_seconds = _field(check_seconds)
_more_than_zero = _field(partial(_check_number, low=0.0, above=True))
_count = _field(check_count)
_rate = attrs.validators.optional(_more_than_zero)
_burst = attrs.validators.optional(_count)


@attrs.frozen(kw_only=True)
class Limits:
    """How fast a session may send. A rate of ``None`` means that the session finds it from the service's answers.

    :ivar submits_per_second: POSTs a second, over all tasks of the session (default None).
    :ivar submit_burst: POSTs that may leave at once after a quiet time (default None).
    :ivar queries_per_second: status requests a second (default None).
    :ivar query_burst: status requests that may leave at once after a quiet time (default None).
    :ivar max_submitting: POSTs in flight at one time (default 64).
    :ivar max_polling: status requests in flight at one time (default 128: each asset is polled more than once).
    """

    submits_per_second: float | None = attrs.field(default=None, validator=_rate)
    submit_burst: int | None = attrs.field(default=None, validator=_burst)
    queries_per_second: float | None = attrs.field(default=None, validator=_rate)
    query_burst: int | None = attrs.field(default=None, validator=_burst)
    max_submitting: int = attrs.field(default=64, validator=_count)
    max_polling: int = attrs.field(default=128, validator=_count)

    @classmethod
    def default(cls) -> Self:
        """Return the documented limits of an ordinary account.

        The service documents 300 submits a minute and 50 in 10 s; 3,000 queries a minute and 500 in 10 s. Rate and
        burst keep ``burst + rate * t`` within both, in any 10 s and in any minute.
        """
        return cls(submits_per_second=4.8, submit_burst=2, queries_per_second=48, query_burst=20)

    @classmethod
    def vip(cls) -> Self:
        """Return the documented limits of the first higher tier: 1,000 submits and 10,000 queries a minute.

        ``burst + 60 * rate`` is what a minute permits.
        """
        return cls(submits_per_second=16, submit_burst=40, queries_per_second=160, query_burst=400)

    @classmethod
    def svip(cls) -> Self:
        """Return the documented limits of the highest tier: 2,000 submits and 30,000 queries a minute.

        ``burst + 60 * rate`` is what a minute permits.
        """
        return cls(submits_per_second=32, submit_burst=80, queries_per_second=480, query_burst=1200)

    @classmethod
    def unlimited(cls) -> Self:
        """Return limits without any rate, for a local gateway; a ``Retry-After`` is still honoured."""
        return cls(
            submits_per_second=1e9, submit_burst=1_000_000_000, queries_per_second=1e9, query_burst=1_000_000_000
        )


class Permits(Protocol):
    """One session's connection to limits that it shares with others."""

    async def reserve(self, lane: Literal["submit", "query"]) -> float:
        """Reserve the next free slot of ``lane`` and return the seconds until then.

        :raises ConnectionFailed: the store of the limits cannot be reached; nothing is reserved.
        """

    def brake(self, lane: Literal["submit", "query"], seconds: float) -> None:
        """Stop ``lane`` for all who share it, for ``seconds``. Returns at once."""

    async def aclose(self) -> None:
        """Close the connection."""


@runtime_checkable
class SharedLimits(Protocol):
    """Limits that several processes share; a session takes them in place of :class:`Limits`.

    ``seedance_avatar.integrations.redis.RedisLimits`` implements this protocol.
    """

    @property
    def max_submitting(self) -> int:
        """POSTs that one process has in flight at one time."""

    @property
    def max_polling(self) -> int:
        """Status requests that one process has in flight at one time."""

    async def open(self) -> Permits:
        """Return a connection, bound to the running loop; the store need not be reachable yet."""


@attrs.frozen(kw_only=True)
class Retry:
    """How requests that are safe to repeat are repeated.

    Delays are exponential with full jitter: uniform from 0 to ``min(cap, base * 2 ** n)`` (Brooker, *Exponential
    backoff and jitter*, 2015).

    :ivar attempts: attempts of one call, the first included (default 4; 1 repeats nothing).
    :ivar base: upper bound of the first delay after a network error or a 5xx, seconds (default 0.1).
    :ivar throttle_base: the same after a 429 without a ``Retry-After``, seconds (default 1).
    :ivar cap: upper bound of every delay, seconds (default 20); a ``Retry-After`` can be longer.
    :ivar max_retry_after: the longest ``Retry-After`` that a single call waits for, seconds (default 120).
    :ivar patience: how long an ingest or a wait goes on while the service cannot be reached or refuses every
        request for going too fast, seconds (default 300).
    """

    attempts: int = attrs.field(default=4, validator=_count)
    base: float = attrs.field(default=0.1, validator=_seconds)
    throttle_base: float = attrs.field(default=1.0, validator=_seconds)
    cap: float = attrs.field(default=20.0, validator=_seconds)
    max_retry_after: float = attrs.field(default=120.0, validator=_seconds)
    patience: float = attrs.field(default=300.0, validator=_seconds)


@attrs.frozen(kw_only=True)
class Polling:
    """When to poll pending assets and videos. Build it by :meth:`learned` or :meth:`fixed`.

    :ivar first: seconds from acceptance to the first poll, or None: learned.
    :ivar every: seconds between polls after that, or None: learned.
    :ivar price: seconds of expected delay that one status request is worth (default 0.2; learned schedule only).
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
        """Return the schedule that learns how long each type takes; a smaller ``price`` polls more often."""
        return cls(price=price)

    @classmethod
    def fixed(cls, first: float, every: float) -> Self:
        """Return a fixed schedule: the first poll ``first`` seconds after acceptance, then one every ``every`` seconds.

        Zero is allowed: the next poll leaves as soon as the last one is answered and the limits permit.
        """
        return cls(first=first, every=every)


@attrs.frozen(kw_only=True)
class Timeouts:
    """Timeouts of single steps.

    :ivar connect: seconds for DNS, TCP and TLS together (default 10).
    :ivar request: seconds for one HTTP round trip, connecting included (default 60).
    :ivar drain: seconds to wait for requests that were already sent when a session, an ingest or a submission is
        cancelled or closed (default 10).
    """

    connect: float = attrs.field(default=10.0, validator=_more_than_zero)
    request: float = attrs.field(default=60.0, validator=_more_than_zero)
    drain: float = attrs.field(default=10.0, validator=_seconds)
