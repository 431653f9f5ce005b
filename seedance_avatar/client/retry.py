"""What may be repeated, and when. Pure decisions; the client does what they say.

The service has no idempotency key, so a submission is repeated only when it is certain that nothing
came of it: it was never sent, or it was clearly refused (429, 503 ``rate_limit_unavailable``). A question
(``GET``) may be repeated after anything that another try can change. The waits are full jitter
(evenly from zero to an exponential bound), the rule that spreads a crowd of clients best.
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

__all__ = [
    "NOT_FOUND_GRACE",
    "Missed",
    "RetryBudget",
    "after_failed_poll",
    "as_in_doubt",
    "backoff",
    "retry_delay",
]

NOT_FOUND_GRACE: Final = 60.0
"""Seconds after acceptance during which a 404 only means that not every replica knows the id yet."""


Missed: TypeAlias = Literal["again", "late", "end", "end all"]


def after_failed_poll(  # noqa: PLR0911, PLR0913 - a table of cases, each with its answer
    error: AvatarError, *, age: float, late: bool, misses: int, attempts: int, out_of_patience: bool
) -> Missed:
    """Return what a look that met ``error`` means for the item that was looked at.

    :param age: seconds since it was accepted.
    :param late: whether its deadline has passed.
    :param misses: looks before this one that went wrong, in a row.
    :param attempts: after how many misses in a row a refusal is believed.
    :param out_of_patience: whether nothing has been let through, or reached, for as long as patience allows.
    :returns: look ``again`` after a pause; it is too ``late``; ``end`` it with the error; ``end all`` that is pending.
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
        case ProtocolError() | ServerError():
            return "late" if late and misses + 1 >= attempts else "again"
        case NotFound() | AuthError() | QuotaExhausted():
            return "end"
        case _:
            # A refusal of a question about something that exists: more likely a gateway's mood than an answer.
            return "again" if misses + 1 < attempts else "end"


def backoff(attempt: int, *, base: float, cap: float, rng: random.Random) -> float:
    """Return seconds to wait after the ``attempt``-th try (from 1) failed: full jitter under ``cap``."""
    # The exponent is bounded because 2.0 ** 1024 overflows, and a long outage counts that far.
    return rng.random() * min(cap, base * 2.0 ** min(attempt - 1, 60))


def as_in_doubt(error: AvatarError, *, repeatable: bool) -> AvatarError:
    """Return ``error`` as the caller shall see it: for a submission, what is not a clear answer is a doubt.

    A lost answer, an unreadable one, a redirect, a 408 and a 5xx do not say whether the submission was
    applied (the contract, *What is safe to repeat*). Refusals and *not sent* stay what they are.
    """
    if repeatable or not isinstance(error, ProtocolError | ServerError):
        return error
    evidence = error.body if isinstance(error, ProtocolError) else error.describe()
    request_id = error.request_id if isinstance(error, ServerError) else None
    return SubmissionInDoubt(error.describe(), about=error.about, evidence=evidence, request_id=request_id)


def retry_delay(error: AvatarError, *, attempt: int, retry: Retry, patient: bool, rng: random.Random) -> float | None:
    """Return the seconds after which the same call may be sent again, or None when it must not be.

    :param error: what :func:`doubt` made of the failure.
    :param attempt: how many times the call was sent so far.
    :param patient: True for an ingest or a wait: it goes on beyond ``retry.attempts`` where nothing was reached
        or let through (how long is the patience's business), and waits out a long ``Retry-After``.
    """
    if isinstance(error, RateLimited):
        asked = error.retry_after
        if not patient and (attempt >= retry.attempts or (asked or 0.0) > retry.max_retry_after):
            return None
        # What the service asked for is kept by the pacer for every task; the rest only spreads them.
        base = retry.throttle_base if asked is None else retry.base
        return backoff(attempt, base=base, cap=retry.cap, rng=rng)
    if isinstance(error, ConnectionFailed):
        # The service is there when only answers are lost: that may never end, so patience is not for it.
        if error.fatal or ((not patient or error.answer_lost) and attempt >= retry.attempts):
            return None
        return backoff(attempt, base=retry.base, cap=retry.cap, rng=rng)
    # A submission never gets here with these: doubt() has made them SubmissionInDoubt.
    if isinstance(error, ProtocolError | ServerError) and attempt < retry.attempts:
        return backoff(attempt, base=retry.base, cap=retry.cap, rng=rng)
    return None


_WINDOW: Final = 10.0
_FLOOR: Final = 10.0 * _WINDOW
_SHARE: Final = 0.2


@attrs.define(eq=False, repr=False)
class RetryBudget:
    """A session's allowance of repeats: a fifth of its requests of the last ten seconds, at least ten a second.

    While a service is half down, repeats multiply the load on it; with an allowance an outage costs a fifth
    more, not four times as much (the rule of Finagle's retry budgets). Both counts decay exponentially.
    """

    _requests: float = 0.0
    _repeats: float = 0.0
    _at: float = 0.0

    def _decay(self, now: float) -> None:
        if now > self._at:
            factor = math.exp((self._at - now) / _WINDOW)
            self._requests *= factor
            self._repeats *= factor
            self._at = now

    def sent(self, now: float) -> None:
        """Note that a request left."""
        self._decay(now)
        self._requests += 1.0

    def allows(self, now: float) -> bool:
        """Take one repeat from the allowance, or return False when it is used up."""
        self._decay(now)
        if self._repeats >= max(_FLOOR, _SHARE * self._requests):
            return False
        self._repeats += 1.0
        return True
