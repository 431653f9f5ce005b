"""Which requests are retried, and after how long: pure decisions, which the client carries out.

The service has no idempotency key, so a submission is retried only when it is certain that it was not applied:
it was never sent, or it was clearly refused (429, 503 ``rate_limit_unavailable``). A status request (``GET``) may be
retried after any error that another try can change. The waits have full jitter (uniform from zero to an
exponential bound), which spreads many clients best.
"""

from __future__ import annotations

import math
import random
from typing import Final, Literal, TypeAlias

import attrs

from seedance_avatar.errors import (
    AuthError,
    AvatarError,
    ConnectionFailed,
    NotFound,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    SubmissionInDoubt,
)
from seedance_avatar.options import Retry

NOT_FOUND_GRACE: Final = 60.0  # seconds after acceptance in which a 404 means that not every replica has the id yet

FailedPoll: TypeAlias = Literal["again", "late", "end", "end all"]


def after_failed_poll(  # noqa: PLR0911, PLR0913 - a table of cases, each with its result
    error: AvatarError, *, age: float, late: bool, misses: int, attempts: int, out_of_patience: bool
) -> FailedPoll:
    """Return what a status request that failed with ``error`` means for its item.

    :param age: seconds since it was accepted.
    :param misses: how many status requests for it failed in a row before this one.
    :param attempts: after how many failures in a row a refusal is believed.
    :param out_of_patience: whether nothing was let through, reached or answered well for as long as patience allows.
    :returns: ask ``again`` after a pause; it is too ``late``; ``end`` it with the error; ``end all`` that is pending.
    """
    match error:
        case AuthError(status=401):
            return "end all"
        case NotFound() if age < NOT_FOUND_GRACE:
            return "late" if late else "again"
        case RateLimited():
            return "end" if out_of_patience else "again"
        case ConnectionFailed():
            # Past its deadline too: a network that is down for a moment must not expire everything.
            return "end all" if out_of_patience else "end" if error.fatal else "again"
        case ProtocolError() | ServerError() if out_of_patience:
            return "end all"
        case ProtocolError() | ServerError():
            return "late" if late and misses + 1 >= attempts else "again"
        case NotFound() | AuthError() | QuotaExhausted():
            return "end"
        case _:
            # A refusal to tell the status of an item that exists: more likely a fault of a gateway than of ours.
            return "again" if misses + 1 < attempts else "end"


def backoff(attempt: int, *, base: float, cap: float, rng: random.Random) -> float:
    """Return seconds to wait after the ``attempt``-th try (from 1) failed: full jitter under ``cap``."""
    # The exponent is bounded because 2.0 ** 1024 overflows, and a long outage counts that far.
    return rng.random() * min(cap, base * 2.0 ** min(attempt - 1, 60))


def pause_before_poll(error: AvatarError, *, misses: int, retry: Retry, rng: random.Random) -> float:
    """Return the seconds after which an item is polled again, whose last ``misses`` polls and then this one failed.

    Where the service asks to wait with every poll of one item, it is polled ever more seldom, up to eight times what
    was asked: the lane rests for what was asked after each of them, and the other items have their turns in between.
    """
    asked = (error.retry_after or 0.0) if isinstance(error, RateLimited) else 0.0
    pause = backoff(misses + 1, base=max(retry.base, 0.01), cap=retry.cap, rng=rng)
    return asked * 2.0 ** min(misses, 3) + pause


def as_in_doubt(error: AvatarError, *, repeatable: bool) -> AvatarError:
    """Return ``error``, made a :class:`SubmissionInDoubt` where a submission may have been applied.

    An unreadable response, a redirect, a 408 and a 5xx do not say whether it was; refusals and *not sent* do.
    """
    if repeatable or not isinstance(error, ProtocolError | ServerError):
        return error
    evidence = error.body if isinstance(error, ProtocolError) else error.describe()
    request_id = error.request_id if isinstance(error, ServerError) else None
    return SubmissionInDoubt(error.describe(), about=error.about, evidence=evidence, request_id=request_id)


def retry_delay(  # noqa: PLR0913 - the facts of one failure, all by keyword
    error: AvatarError, *, attempt: int, retry: Retry, patient: bool, blocked_for: float, rng: random.Random
) -> float | None:
    """Return the seconds after which a call that was sent ``attempt`` times may be sent again; None: it must not be.

    :param patient: True for an ingest: it goes on beyond ``retry.attempts`` while nothing is reached or let through,
        for ``retry.patience`` seconds, and waits out a long ``Retry-After``.
    :param blocked_for: seconds for which the service has refused every request of the lane as too many.
    """
    if isinstance(error, RateLimited):
        asked = error.retry_after or 0.0
        over = attempt >= retry.attempts or asked > retry.max_retry_after
        if blocked_for + asked > retry.patience if patient else over:
            return None
        # The pacer holds every task for as long as the service asked; this only spreads them after that.
        base = retry.throttle_base if error.retry_after is None else retry.base
        return backoff(attempt, base=base, cap=retry.cap, rng=rng)
    if isinstance(error, ConnectionFailed):
        # The service is up when only responses are lost: that may never end, so it is not waited out.
        if error.fatal or ((not patient or error.answer_lost) and attempt >= retry.attempts):
            return None
        return backoff(attempt, base=retry.base, cap=retry.cap, rng=rng)
    # A submission never gets here with these: as_in_doubt() has made them SubmissionInDoubt.
    if isinstance(error, ProtocolError | ServerError) and attempt < retry.attempts:
        return backoff(attempt, base=retry.base, cap=retry.cap, rng=rng)
    return None


_WINDOW: Final = 10.0  # seconds over which requests and retries are counted
_FLOOR: Final = 10.0 * _WINDOW
_SHARE: Final = 0.2


@attrs.define(eq=False, repr=False)
class RetryBudget:
    """How many retries a session may send: a fifth of its requests of the last ten seconds, at least ten a second.

    While a service is half down, retries multiply the load on it; with a budget an outage costs a fifth more, not
    four times as much (the rule of Finagle's retry budgets). Both counts decay exponentially.
    """

    _requests: float = 0.0
    _retries: float = 0.0
    _at: float = 0.0

    def _decay(self, now: float) -> None:
        if now > self._at:
            factor = math.exp((self._at - now) / _WINDOW)
            self._requests *= factor
            self._retries *= factor
            self._at = now

    def sent(self, now: float) -> None:
        """Note that a request was sent."""
        self._decay(now)
        self._requests += 1.0

    def allows(self, now: float) -> bool:
        """Take one retry from the budget, or return False when it is used up."""
        self._decay(now)
        if self._retries >= max(_FLOOR, _SHARE * self._requests):
            return False
        self._retries += 1.0
        return True
