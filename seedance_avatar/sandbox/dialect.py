"""The format of ids and answers: the variants in the service's documentation and in recorded answers."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs

IdStyle: TypeAlias = Literal["ulid", "dated"]
ReasonField: TypeAlias = Literal["reason", "message", "fail_reason", "error", "error_object", "detail", "none", "mixed"]
_OLDER = {"queued": "submitted", "in_progress": "processing", "completed": "succeeded", "failed": "failure"}
_ENGINE = {"queued": "SUBMITTED", "in_progress": "IN_PROGRESS", "completed": "SUCCESS", "failed": "FAILURE"}
_MIXED = ("reason", "message", "fail_reason", "error", "error_object", "detail")

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [a + b for a in _CROCKFORD for b in _CROCKFORD]
_PAIR_VALUES: Final = {pair: value for value, pair in enumerate(_PAIRS)}
_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_FACTOR: Final = 0x9E3779B1  # odd and no multiple of 3: it has an inverse in both spaces
_SHIFT: Final = 0x5BD1E995


class Ids:
    """Makes the ids of one kind: ``pa_<ULID>``, or the older ``asset-<time>-<rand>``.

    A table of a million ids would take more memory than all other facts about the assets. So an id contains its number,
    scrambled by a multiplication that has an inverse; the caller then confirms the rest of the id.
    """

    __slots__ = ("_dated", "_inverse", "_salt", "_short", "_space", "_style")

    def __init__(self, style: IdStyle, *, short: str, dated: str, seed: int) -> None:
        self._style = style
        self._short = short
        self._dated = dated
        self._space = 1 << 40 if style == "ulid" else 36**6
        self._inverse = pow(_FACTOR, -1, self._space)
        # Two sandboxes with different seeds, or two kinds of one sandbox, make different ids.
        choose = random.Random(f"{seed}/{short}").choice
        self._salt = "".join(choose(_CROCKFORD) for _ in range(8))

    def mint(self, number: int, wall: float) -> str:
        """Return the id of item ``number``, created at ``wall`` seconds since the epoch."""
        mixed = (number * _FACTOR + _SHIFT) % self._space
        pairs = _PAIRS
        if self._style == "ulid":
            ms = int(wall * 1000)
            return (
                f"{self._short}_{pairs[ms >> 40 & 1023]}{pairs[ms >> 30 & 1023]}{pairs[ms >> 20 & 1023]}"
                f"{pairs[ms >> 10 & 1023]}{pairs[ms & 1023]}{self._salt}{pairs[mixed >> 30]}"
                f"{pairs[mixed >> 20 & 1023]}{pairs[mixed >> 10 & 1023]}{pairs[mixed & 1023]}"
            )
        digits = ""
        for _ in range(6):
            mixed, digit = divmod(mixed, 36)
            digits = _BASE36[digit] + digits
        return f"{self._dated}-{time.strftime('%Y%m%d%H%M%S', time.gmtime(wall))}-{digits}"

    def number_of(self, text: str) -> int | None:
        """Return the number encoded in ``text``, or None; the caller confirms it with :meth:`mint`."""
        try:
            if self._style == "dated":
                mixed = int(text[-6:], 36)
            else:
                mixed = 0
                for at in range(len(text) - 8, len(text), 2):
                    mixed = mixed << 10 | _PAIR_VALUES[text[at : at + 2]]
        except (KeyError, ValueError):
            return None
        return (mixed - _SHIFT) * self._inverse % self._space


@attrs.frozen(kw_only=True)
class Vintage:
    """A variant of the answer format. The defaults are the documented one.

    :ivar envelope: wrap answers of the private-avatar endpoints in ``{"success", "message", "data"}``.
    :ivar casing: ``lower`` writes ``active``, ``title`` ``Active``, ``upper`` ``ACTIVE``.
    :ivar ids: ``ulid`` makes ``pa_<ULID>``, ``dated`` the older ``asset-<time>-<rand>``.
    :ivar between: the statuses that an asset has one after the other until it is finished.
    :ivar reason: the field of a failed asset's reason; ``mixed`` uses all in turn, ``none`` gives no reason.
    :ivar extra: add undocumented fields.
    :ivar bare: answer with the id and the status only.
    :ivar lag: seconds after acceptance for which an asset is answered with 404 (replication).
    :ivar tasks: the format of a generation: ``documented`` or ``older`` (``submitted``, ``processing``, ``succeeded``,
        ``failure``, ``"10%"``, ``fail_reason``, and 400 ``task_not_exist``), or ``engine`` (``SUCCESS`` or ``FAILURE``
        in an envelope of its own, with the URL of the video in ``fail_reason``).
    :ivar id_only: call the ids of assets and groups only ``id``.
    :ivar money: the HTTP status for a balance that is too low: 402 as documented, or 403 as the New API gateway has it.
    """

    envelope: bool = True
    casing: Literal["lower", "title", "upper"] = "lower"
    ids: IdStyle = "ulid"
    between: tuple[str, ...] = ("processing",)
    reason: ReasonField = "reason"
    extra: bool = False
    bare: bool = False
    lag: float = 0.0
    tasks: Literal["documented", "older", "engine"] = "documented"
    id_only: bool = False
    money: Literal[402, 403] = 402

    def status(self, word: str) -> str:
        """Return the status ``word`` in this variant's casing."""
        return word if self.casing == "lower" else word.title() if self.casing == "title" else word.upper()

    def task_status(self, word: str) -> str:
        """Return the status ``word`` of a generation in this variant."""
        if self.tasks == "engine":
            return _ENGINE[word]
        return self.status(word if self.tasks == "documented" else _OLDER[word])

    def put_reason(self, data: dict[str, Any], reason: str, number: int) -> None:
        """Add the failure reason of asset ``number`` to its answer."""
        field = _MIXED[number % len(_MIXED)] if self.reason == "mixed" else self.reason
        if field == "error_object":
            data["error"] = {"code": "asset_processing_failed", "message": reason}
        elif field != "none":
            data[field] = reason

    def dress(self, data: Mapping[str, Any], own: str) -> Mapping[str, Any]:
        """Return the whole answer with ``data``, whose id is in the field ``own``."""
        if self.id_only:
            data = {**{name: value for name, value in data.items() if name != own}, "id": data[own]}
        if self.extra:
            data = {**data, "provider": "volcengine", "x_trace": {"hops": [1, 2], "cached": None}, "版本": "2"}
        # The envelope's message speaks of the request, also beside an asset that failed.
        message = "query ok" if self.extra else ""
        return {"success": True, "message": message, "data": data} if self.envelope else data

    def dress_task(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the whole answer with the task in ``data``."""
        if self.tasks != "engine":
            return data
        told = {name: value for name, value in data.items() if name not in {"id", "object", "result", "error"}}
        url = data["result"]["data"][0]["url"] if "result" in data else data.get("fail_reason", "")
        return {"code": "success", "message": "", "data": {**told, "task_id": data["id"], "fail_reason": url}}
