"""The three private-avatar endpoints: create a group, upload an asset, query its status."""

from __future__ import annotations

import functools
import ipaddress
import json
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from seedance_avatar.models import ASSET_TYPES

from .accounts import Account
from .asset_table import AssetTable
from .clock import Clock
from .dialect import Vintage
from .fates import Fates
from .files import Files
from .ids import Ids
from .ledger import Ledger
from .records import Group
from .replies import Refused, Reply, as_json, refusal, refusal_in_envelope

__all__ = ["Assets", "is_public", "json_object"]

NAME_LIMIT: Final = 64
DESCRIPTION_LIMIT: Final = 300
PRICE: Final = 1.0


def json_object(body: bytes) -> dict[str, Any]:
    """Return ``body`` read as a JSON object.

    :raises Refused: it is not a JSON object.
    """
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _invalid_body()
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
    if len(labels) < 2 or labels[-1][:1].isdigit():  # noqa: PLR2004 - a host has a name and a domain
        return False
    return labels[-1] not in {"localhost", "local", "internal", "lan", "home", "corp"}


def _invalid_body() -> Refused:
    return Refused(refusal_in_envelope(400, "invalid request body"))


def _check_words(wanted: dict[str, Any]) -> None:
    for field, limit in (("name", NAME_LIMIT), ("description", DESCRIPTION_LIMIT)):
        word = wanted.get(field)
        if word is None:
            continue
        if not isinstance(word, str):
            raise _invalid_body()
        if len(word) > limit:
            raise Refused(refusal_in_envelope(400, f"{field} must be at most {limit} characters"))


@attrs.define(eq=False, kw_only=True)
class Assets:
    """Handles the requests about groups and assets."""

    clock: Clock
    table: AssetTable
    ledger: Ledger
    fates: Fates
    vintage: Vintage
    group_ids: Ids
    files: Files
    allow_private: bool

    def create_group(self, account: Account, body: bytes) -> Reply:
        """Answer ``POST …/groups``."""
        wanted = json_object(body)
        if not isinstance(wanted.get("name"), str) or not wanted["name"].strip():
            raise _invalid_body()
        _check_words(wanted)
        number, now = len(self.ledger.groups), self.clock.now()
        group = Group(
            group_id=self.group_ids.mint(number, self.clock.wall_at(now)),
            number=number,
            name=wanted["name"],
            description=wanted.get("description"),
            account=account.name,
            at=now,
        )
        self.ledger.add_group(group)
        data = {"group_id": group.group_id}
        if not self.vintage.bare:
            data |= {"name": group.name, "description": group.description or ""}
        return as_json(self.vintage.dress(data, "group_id"))

    def create(self, account: Account, body: bytes) -> Reply:
        """Answer ``POST …/assets``."""
        wanted = json_object(body)
        url, asset_type, group_id = wanted.get("source_url"), wanted.get("asset_type"), wanted.get("group_id")
        if not isinstance(url, str) or not isinstance(group_id, str) or not self._may_fetch(url):
            raise _invalid_body()
        if asset_type not in ASSET_TYPES:
            raise Refused(refusal_in_envelope(400, "asset_type must be one of image, video, audio"))
        _check_words(wanted)
        group = self.ledger.groups.get(group_id)
        if group is None or group.account != account.name:
            raise Refused(refusal_in_envelope(404, "asset group not found (request id: {id})"))
        fate, takes = self.fates.of(url, asset_type)
        if fate.status == "refused":
            raise Refused(refusal(fate.http_status, fate.reason or "refused", code=fate.code))
        account.charge(PRICE, self.vintage.money)

        now = self.clock.now()
        number = self.table.add(
            source_url=url,
            asset_type=asset_type,
            group=group.number,
            account=account.number,
            now=now,
            fate=fate,
            ready=now + takes,
        )
        name, description = wanted.get("name"), wanted.get("description")
        if (name or description) and self.table.urls is not None:
            self.table.words[number] = (name, description)
        reply = self._answer(number, now, url, group_id, name)
        reply.sent = lambda: self._was_answered(number)
        return reply

    def look(self, account: Account, asset_id: str) -> Reply:
        """Answer ``GET …/assets/{asset_id}``."""
        table, now = self.table, self.clock.now()
        number = table.find(asset_id)
        if number is None or table.account[number] != account.number or now < table.accepted[number] + self.vintage.lag:
            raise Refused(refusal_in_envelope(404, "asset not found (request id: {id})"))
        table.looks[number] += 1
        upload_url = None if table.urls is None else table.urls[number]
        name = table.words.get(number, (None,))[0]
        return self._answer(number, now, upload_url, self.ledger.group_id(table.group[number]), name)

    def _was_answered(self, number: int) -> None:
        self.table.answered[number] = 1

    def _may_fetch(self, url: str) -> bool:
        return self.allow_private or self.files.has(url) or is_public(url)

    def _answer(self, number: int, now: float, url: str | None, group_id: str, name: str | None) -> Reply:
        table, vintage = self.table, self.vintage
        asset_id, status = table.id_of(number), table.status(number, now)
        shown = vintage.status(status) if status != "processing" else self._between(number, now)
        data: dict[str, Any] = {"asset_id": asset_id, "status": shown}
        if not vintage.bare:
            data["asset_url"] = f"asset://{asset_id}"
            data["group_id"] = group_id
            data["asset_type"] = ASSET_TYPES[table.type[number]]
            if url is not None:
                data["source_url"] = url
            data["name"] = name or ""
        if status == "failed" and (reason := table.fates[table.fate[number]].reason) is not None:
            vintage.put_reason(data, reason, number)
        return as_json(vintage.dress(data, "asset_id"))

    def _between(self, number: int, now: float) -> str:
        words = self.vintage.between
        if len(words) > 1:
            begun, ready = self.table.accepted[number], self.table.ready[number]
            step = int(len(words) * (now - begun) / (ready - begun))
            return self.vintage.status(words[min(step, len(words) - 1)])
        return self.vintage.status(words[0])
