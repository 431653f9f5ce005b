"""The accepted API keys, and the account of each."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from seedance_avatar.text import Secret

from .limits import RateLimits
from .replies import Refused, Reply, refusal

__all__ = ["Account", "Accounts", "no_money", "unauthorized"]


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


def _header(key: str) -> Secret[str]:
    return Secret(f"Bearer {key}")


class Accounts:
    """The accounts, by API key."""

    def __init__(
        self, keys: Sequence[str] | Mapping[str, str], *, limits: RateLimits | None, quota: float | None
    ) -> None:
        names = dict(keys) if isinstance(keys, Mapping) else {key: f"account-{n}" for n, key in enumerate(keys, 1)}
        if not names:
            message = "keys must name at least one accepted key"
            raise ValueError(message)
        self.all: list[Account] = []
        for number, name in enumerate(dict.fromkeys(names.values())):
            # The first account keeps the caller's own object, so that a later change to it takes effect.
            own = limits if number == 0 else copy.deepcopy(limits)
            self.all.append(Account(name=name, number=number, limits=own, credits=quota))
        by_name = {account.name: account for account in self.all}
        self._by_header = {_header(key): by_name[name] for key, name in names.items()}

    def of_key(self, key: str) -> Account:
        """Return the account behind ``key``; KeyError when it is not accepted."""
        return self._by_header[_header(key)]

    def of_header(self, authorization: str | None) -> Account | None:
        """Return the account that an ``Authorization`` header names, or None."""
        return self._by_header.get(Secret(authorization)) if authorization else None

    def admit(self, key: str, account: str | None = None) -> None:
        """Accept ``key`` from now on, for the account named ``account``, by default the first."""
        self._by_header[_header(key)] = next(a for a in self.all if account in {None, a.name})

    def revoke(self, key: str) -> None:
        """Refuse ``key`` from now on."""
        self._by_header.pop(_header(key), None)


def unauthorized(authorization: str | None) -> Reply:
    """Return the 401 for a missing key, or for one that is not accepted."""
    if not authorization:
        return refusal(401, "no API key was provided (request id: {id})", kind="new_api_error")
    return refusal(
        401, "the API key is not valid (request id: {id})", code="authentication_error", kind="authentication_error"
    )


def no_money(status: Literal[402, 403]) -> Reply:
    """Return the refusal for a balance that is too low: 402 as documented, 403 as the New API gateway answers."""
    code = "insufficient_quota" if status == 402 else "insufficient_user_quota"  # noqa: PLR2004 - an HTTP status
    return refusal(status, "the balance is too low (request id: {id})", code=code, kind="new_api_error")
