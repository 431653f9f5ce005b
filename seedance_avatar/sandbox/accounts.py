"""The accounts behind the accepted API keys, and the refusals for a wrong key and a low balance."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from .limits import RateLimits
from .replies import Refused, Reply, refusal


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

    def charge(self, price: float, status: Literal[402, 403]) -> None:
        """Subtract ``price`` from the credits.

        :raises Refused: there are not enough; the answer has this ``status``.
        """
        if self.credits is None:
            return
        if self.credits < price:
            raise Refused(no_money(status))
        self.credits -= price


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


def unauthorized(authorization: str | None) -> Reply:
    """Return the 401 for a missing key, or for one that is not accepted."""
    if not authorization:
        return refusal(401, "no API key was provided (request id: {id})", kind="new_api_error")
    code = "authentication_error"
    return refusal(401, "the API key is not valid (request id: {id})", code=code, kind=code)


def no_money(status: Literal[402, 403]) -> Reply:
    """Return the refusal for a balance that is too low: 402 as documented, 403 as the New API gateway answers."""
    code = "insufficient_quota" if status == 402 else "insufficient_user_quota"  # noqa: PLR2004 - an HTTP status
    return refusal(status, "the balance is too low (request id: {id})", code=code, kind="new_api_error")
