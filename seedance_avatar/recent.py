"""When the last uploads and generations of single calls were accepted, for who waits for them next."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import attrs

__all__ = ["Recent"]

_KEPT: Final = 1_000


@attrs.define(eq=False, repr=False)
class Recent:
    """The times of acceptance by id, each until it is asked for; the oldest are forgotten first."""

    # An OrderedDict: a plain one would search for its first through all that went.
    _times: OrderedDict[str, float] = attrs.field(factory=OrderedDict)

    def note(self, item_id: str, now: float) -> None:
        """Note that ``item_id`` was accepted ``now``."""
        self._times[item_id] = now
        if len(self._times) > _KEPT:
            self._times.popitem(last=False)

    def take(self, item_id: str) -> float | None:
        """Return when ``item_id`` was accepted, once, or None."""
        return self._times.pop(item_id, None)
