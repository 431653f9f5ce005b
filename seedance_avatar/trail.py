"""What one cycle of requests tells of a bucket: when they left that were let through, from one refusal to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["Trail", "first"]

POINTS: Final = 64
FINENESS: Final = 1.01


@attrs.define(eq=False)
class Trail:
    """When the requests of one cycle left that were let through, thinned out to at most 64 points.

    :ivar end: when the refused request left that ended the cycle.
    :ivar total: how many were let through until then.
    """

    end: float = 0.0
    total: int = 0
    _times: list[float] = attrs.field(factory=list)
    _before: list[int] = attrs.field(factory=list)
    _stride: int = 1

    def add(self, left_at: float) -> None:
        """Note one that was let through."""
        if self.total % self._stride == 0:
            self._times.append(left_at)
            self._before.append(self.total)
            if len(self._times) == POINTS:
                del self._times[1::2], self._before[1::2]
                self._stride *= 2
        self.total += 1

    def depth(self, rate: float) -> float:
        """Return how many left at the end beyond ``rate``: were that the limit, so deep the bucket was, at least."""
        return max(
            (self.total - count - rate * (self.end - at) for at, count in zip(self._times, self._before, strict=True)),
            default=0.0,
        )


def first(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """Return the first rate from ``low`` on, in steps of 1 % up to ``high``, for which ``holds`` is true."""
    rate = max(low, 1e-3 * high)
    while rate < high and not holds(rate):
        rate *= FINENESS
    return min(rate, high)
