"""The three private-avatar endpoints: create a group, upload an asset, query its status."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import attrs

from seedance_avatar.models import ASSET_TYPES

from .accounts import Account
from .dialect import Ids
from .records import Group
from .replies import Reply, as_json, refuse_in_envelope
from .state import State, json_object

_LIMITS: Final = {"name": 64, "description": 300}
"""The most characters of a field."""
_PRICE: Final = 1.0


def _check_words(wanted: dict[str, Any]) -> None:
    for field, limit in _LIMITS.items():
        word = wanted.get(field)
        if not isinstance(word, str | None):
            refuse_in_envelope()
        if word is not None and len(word) > limit:
            refuse_in_envelope(f"{field} must be at most {limit} characters")


@attrs.frozen(eq=False)
class Assets:
    """Handles the requests about groups and assets."""

    state: State
    group_ids: Ids

    def create_group(self, account: Account, body: bytes) -> Reply:
        """Answer ``POST …/groups``."""
        wanted = json_object(body)
        if not isinstance(wanted.get("name"), str) or not wanted["name"].strip():
            refuse_in_envelope()
        _check_words(wanted)
        clock, ledger = self.state.clock, self.state.ledger
        number, now = len(ledger.groups), clock.now()
        group = Group(
            group_id=self.group_ids.mint(number, clock.wall_at(now)),
            number=number,
            name=wanted["name"],
            description=wanted.get("description"),
            account=account.name,
            at=now,
        )
        ledger.add_group(group)
        data = {"group_id": group.group_id}
        if not self.state.vintage.bare:
            data |= {"name": group.name, "description": group.description or ""}
        return as_json(self.state.vintage.dress(data, "group_id"))

    def create(self, account: Account, body: bytes) -> Reply:
        """Answer ``POST …/assets``."""
        state, table, wanted = self.state, self.state.ledger.table, json_object(body)
        url, asset_type, group_id = wanted.get("source_url"), wanted.get("asset_type"), wanted.get("group_id")
        if not isinstance(url, str) or not isinstance(group_id, str) or not state.may_fetch(url):
            refuse_in_envelope()
        if asset_type not in ASSET_TYPES:
            refuse_in_envelope("asset_type must be one of image, video, audio")
        _check_words(wanted)
        group = state.ledger.groups.get(group_id)
        if group is None or group.account != account.name:
            refuse_in_envelope("asset group not found (request id: {id})", status=404)
        fate, takes = state.fates.of(url, asset_type)
        state.accept(account, fate, _PRICE)

        now = state.clock.now()
        number = table.add(
            source_url=url,
            asset_type=asset_type,
            group=group.number,
            account=account.number,
            now=now,
            fate=fate,
            ready=now + takes,
        )
        name, description = wanted.get("name"), wanted.get("description")
        if (name or description) and table.urls is not None:
            table.words[number] = (name, description)
        reply = self._answer(number, now, url, group_id, name)
        reply.sent = partial(table.answered.__setitem__, number, 1)
        return reply

    def look(self, account: Account, asset_id: str) -> Reply:
        """Answer ``GET …/assets/{asset_id}``."""
        table, now = self.state.ledger.table, self.state.clock.now()
        number = self.state.find_asset(account, asset_id)
        if number is None or now < table.accepted[number] + self.state.vintage.lag:
            refuse_in_envelope("asset not found (request id: {id})", status=404)
        table.looks[number] += 1
        url = None if table.urls is None else table.urls[number]
        group_id = self.state.ledger.group_id(table.group[number])
        return self._answer(number, now, url, group_id, table.words.get(number, (None,))[0])

    def _answer(self, number: int, now: float, url: str | None, group_id: str, name: str | None) -> Reply:
        table, vintage = self.state.ledger.table, self.state.vintage
        asset_id, status = table.id_of(number), table.status(number, now)
        shown = status
        if status == "processing":
            words, step = vintage.between, 0
            if len(words) > 1:
                begun, ready = table.accepted[number], table.ready[number]
                step = min(int(len(words) * (now - begun) / (ready - begun)), len(words) - 1)
            shown = words[step]
        data: dict[str, Any] = {"asset_id": asset_id, "status": vintage.status(shown)}
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
