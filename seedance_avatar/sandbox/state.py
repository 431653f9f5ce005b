"""What the endpoints share: the state of a sandbox, and how they read a request."""

from __future__ import annotations

import functools
import ipaddress
import json
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from .accounts import Account
from .clock import Clock
from .dialect import Vintage
from .fates import Fate, Fates
from .ledger import Ledger
from .replies import Refused, no_money, refusal, refuse_in_envelope

_PRIVATE: Final = frozenset({"localhost", "local", "internal", "lan", "home", "corp"})


@attrs.define(eq=False)
class State:
    """The state of a sandbox."""

    clock: Clock
    vintage: Vintage
    ledger: Ledger
    fates: Fates
    allow_private: bool
    files_url: str | None = None  # of the files host, once it listens

    def may_fetch(self, url: str) -> bool:
        """Return whether the service could fetch ``url``."""
        return self.allow_private or is_public(url) or url.startswith(f"{self.files_url}/")

    def accept(self, account: Account, fate: Fate, price: float) -> None:
        """Charge ``account`` for what has this ``fate``; Refused when that is its fate, or the balance is too low."""
        if fate.status == "refused":
            raise Refused(refusal(fate.http_status, fate.reason or "refused", code=fate.code))
        if account.credits is not None:
            if account.credits < price:
                raise Refused(no_money(self.vintage.money))
            account.credits -= price

    def find_asset(self, account: Account, asset_id: str) -> int | None:
        """Return the number of this asset of ``account``, or None."""
        number = self.ledger.table.find(asset_id)
        return None if number is None or self.ledger.table.account[number] != account.number else number


def json_object(body: bytes) -> dict[str, Any]:
    """Return ``body`` read as a JSON object; Refused when it is none."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        refuse_in_envelope()
    return value


def is_public(url: str) -> bool:
    """Return whether ``url`` is public ``http`` or ``https``, as the service demands; no name is resolved."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it raises for an invalid port
        return parts.scheme in {"http", "https"} and _is_public_host(parts.hostname or "")
    except ValueError:
        return False


@functools.lru_cache(1024)
def _is_public_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        labels = host.rstrip(".").split(".")
    # Without a dot or with a number at its end it is an address in another notation: 2130706433, 0x7f.1.
    return len(labels) > 1 and not labels[-1][:1].isdigit() and labels[-1] not in _PRIVATE
