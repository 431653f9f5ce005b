"""How the answers are dressed: the service's pages, and its clients' records, know several fashions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

from .ids import IdStyle

__all__ = ["Vintage"]

ReasonField: TypeAlias = Literal["reason", "message", "fail_reason", "error", "error_object", "detail", "none", "mixed"]
_OLDER = {"queued": "submitted", "in_progress": "processing", "completed": "succeeded", "failed": "failure"}
_MIXED = ("reason", "message", "fail_reason", "error", "error_object", "detail")


@attrs.frozen(kw_only=True)
class Vintage:
    """A fashion of answers. The defaults are today's documented one.

    :ivar envelope: wrap answers of the private-avatar endpoints in ``{"success", "message", "data"}``.
    :ivar casing: ``lower`` writes ``active``, ``title`` ``Active``, ``upper`` ``ACTIVE``.
    :ivar ids: ``ulid`` makes ``pa_<ULID>``, ``dated`` the older ``asset-<time>-<rand>``.
    :ivar between: the statuses an asset shows one after the other until it is finished.
    :ivar reason: the field a failed asset's reason sits in; ``mixed`` takes them in turn, ``none`` gives none.
    :ivar extra: add keys that no page speaks of.
    :ivar bare: give nothing but the id and the status.
    :ivar lag: seconds after acceptance for which an asset is answered with 404 (replication).
    :ivar tasks: the words of a generation: ``documented`` or ``older`` (``submitted``, ``processing``, ``succeeded``,
        ``failure``, ``"10%"``, ``fail_reason``, and 400 ``task_not_exist``).
    :ivar money: the status of an answer that speaks of money, 402 as documented or 403 as the engine does.
    """

    envelope: bool = True
    casing: Literal["lower", "title", "upper"] = "lower"
    ids: IdStyle = "ulid"
    between: tuple[str, ...] = ("processing",)
    reason: ReasonField = "reason"
    extra: bool = False
    bare: bool = False
    lag: float = 0.0
    tasks: Literal["documented", "older"] = "documented"
    money: Literal[402, 403] = 402

    def status(self, word: str) -> str:
        """Return ``word`` in this fashion's casing."""
        return word if self.casing == "lower" else word.title() if self.casing == "title" else word.upper()

    def task_status(self, word: str) -> str:
        """Return the status ``word`` of a generation in this fashion."""
        return self.status(word if self.tasks == "documented" else _OLDER[word])

    def put_reason(self, data: dict[str, Any], reason: str, number: int) -> None:
        """Add why asset ``number`` failed to its answer."""
        field = _MIXED[number % len(_MIXED)] if self.reason == "mixed" else self.reason
        if field == "error_object":
            data["error"] = {"code": "asset_processing_failed", "message": reason}
        elif field != "none":
            data[field] = reason

    def dress(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the whole answer for ``data``."""
        if self.extra:
            data = {**data, "provider": "volcengine", "x_trace": {"hops": [1, 2], "cached": None}, "版本": "2"}
        return {"success": True, "message": "", "data": data} if self.envelope else data
