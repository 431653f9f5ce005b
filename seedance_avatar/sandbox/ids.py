"""Ids in the service's format that encode the number of their item.

A table of a million ids would take more memory than all other facts about the assets. So an id contains its number,
scrambled by a multiplication that has an inverse; the caller then confirms the rest of the id.
"""

from __future__ import annotations

import random
import time
from typing import Final, Literal

IdStyle = Literal["ulid", "dated"]

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [a + b for a in _CROCKFORD for b in _CROCKFORD]
_PAIR_VALUES: Final = {pair: value for value, pair in enumerate(_PAIRS)}
_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"

_ULID_SPACE: Final = 1 << 40
_DATED_SPACE: Final = 36**6
_FACTOR: Final = 0x9E3779B1  # odd and no multiple of 3: it has an inverse in both spaces
_SHIFT: Final = 0x5BD1E995


class Ids:
    """Makes the ids of one kind: ``pa_<ULID>``, or the older ``asset-<time>-<rand>``."""

    __slots__ = ("_dated", "_inverse", "_salt", "_short", "_space", "_style")

    def __init__(self, style: IdStyle, *, short: str, dated: str, seed: int) -> None:
        self._style = style
        self._short = short
        self._dated = dated
        self._space = _ULID_SPACE if style == "ulid" else _DATED_SPACE
        self._inverse = pow(_FACTOR, -1, self._space)
        # Two sandboxes with different seeds, or two kinds of one sandbox, make different ids.
        rng = random.Random(f"{seed}/{short}")
        self._salt = "".join(rng.choice(_CROCKFORD) for _ in range(8))

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
