"""Decides whether an upload succeeds, and how long its processing takes."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Mapping
from typing import Final, Literal, Self, TypeAlias

import attrs

ProcessingTime: TypeAlias = float | Callable[[random.Random], float]
"""Seconds until an asset is active: a number, or a function of a random generator."""

REASONS: Final = (
    "image width is less than 300 px",
    "no subject was found in the material",
    "the material could not be downloaded",
    "more than one subject was found in the material",
)

TYPICAL: Final[Mapping[str, ProcessingTime]] = {
    # As clients measured: about 13 s for an image, 18 to 27 s for a video of 8 s.
    "image": lambda rng: 13.0 * math.exp(rng.gauss(0.0, 0.12)),
    "video": lambda rng: rng.uniform(18.0, 27.0),
    "audio": lambda rng: 10.0 * math.exp(rng.gauss(0.0, 0.15)),
    "generation": lambda rng: rng.uniform(60.0, 300.0),
}


@attrs.frozen
class Fate:
    """How one upload ends; create it with one of the four class methods.

    :ivar status: ``active``, ``failed``, or ``refused`` (the POST itself is refused).
    :ivar reason: why, for ``failed`` and ``refused``; None is a failure without a reason.
    :ivar after: seconds from acceptance to the end, before ``time_scale``; None is random, infinity is never.
    :ivar http_status: the HTTP status of a refusal.
    :ivar code: the error code of a refusal.
    """

    status: Literal["active", "failed", "refused"] = "active"
    reason: str | None = None
    after: float | None = None
    http_status: int = 422
    code: str = "content_policy_violation"

    @classmethod
    def active(cls, *, after: float | None = None) -> Self:
        """Return: becomes active after ``after`` seconds."""
        return cls("active", None, after)

    @classmethod
    def failed(cls, reason: str | None = None, *, after: float | None = None) -> Self:
        """Return: is accepted, then fails with ``reason``."""
        return cls("failed", reason, after)

    @classmethod
    def stuck(cls) -> Self:
        """Return: is accepted and never finishes."""
        return cls("active", None, math.inf)

    @classmethod
    def refused(cls, reason: str, *, http_status: int = 422, code: str = "content_policy_violation") -> Self:
        """Return: the POST is refused and creates nothing."""
        return cls("refused", reason, None, http_status, code)


_ACTIVE: Final = Fate()


@attrs.define(eq=False, kw_only=True)
class Fates:
    """Decides the fate of every source. It depends on seed and source only, not on the order of arrival."""

    seed: int
    time_scale: float
    fail_rate: float
    immediate: float
    processing: Mapping[str, ProcessingTime]
    decide: Callable[[str, str], Fate | None] | None
    rules: dict[str, Fate] = attrs.field(init=False, factory=dict)  # by source URL; they go before what decide() says
    _rng: random.Random = attrs.field(init=False, factory=random.Random)

    def of(self, source_url: str, asset_type: str) -> tuple[Fate, float]:
        """Return the fate of ``source_url`` and the seconds it takes, ``time_scale`` included."""
        rng = self._rng
        rng.seed(zlib.crc32(source_url.encode("utf-8", "surrogatepass"), self.seed & 0xFFFFFFFF))
        fate = self.rules.get(source_url)
        if fate is None and self.decide is not None:
            fate = self.decide(source_url, asset_type)
        chance = rng.random()
        if fate is None:
            fate = Fate("failed", rng.choice(REASONS)) if chance < self.fail_rate else _ACTIVE
        if fate.after is not None:
            return fate, fate.after * self.time_scale
        if fate.status == "failed":
            return fate, rng.uniform(1.0, 4.0) * self.time_scale
        if self.immediate and rng.random() < self.immediate:
            return fate, 0.0
        return fate, self._drawn(asset_type) * self.time_scale

    def generation_takes(self, fate: Fate, number: int) -> float:
        """Return the seconds that generation ``number`` takes, ``time_scale`` included."""
        self._rng.seed(self.seed * 1_000_003 + number)
        return (self._drawn("generation") if fate.after is None else fate.after) * self.time_scale

    def _drawn(self, kind: str) -> float:
        time = self.processing[kind]
        return time(self._rng) if callable(time) else time
