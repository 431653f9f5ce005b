"""The format of the answers: the variants in the service's documentation and in recorded answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

from .ids import IdStyle

ReasonField: TypeAlias = Literal["reason", "message", "fail_reason", "error", "error_object", "detail", "none", "mixed"]
_OLDER = {"queued": "submitted", "in_progress": "processing", "completed": "succeeded", "failed": "failure"}
_ENGINE = {"queued": "SUBMITTED", "in_progress": "IN_PROGRESS", "completed": "SUCCESS", "failed": "FAILURE"}
_MIXED = ("reason", "message", "fail_reason", "error", "error_object", "detail")


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
