"""What stands between a client and the service, simulated: each kind decides about one request at a moment."""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from typing import Protocol

import attrs

from seedance_avatar.wire.response import RateHints

__all__ = ["Both", "Bucket", "FixedWindow", "Gateway", "Shared", "SlidingWindow", "Staged"]


class Gateway(Protocol):
    """Decides about one request; ``admit`` is called in order of time."""

    def admit(self, now: float) -> bool:
        """Return whether the request that arrives now is let through."""

    def hints(self, now: float) -> RateHints:
        """Return what the headers of an answer given now would announce."""

    def permitted(self, start: float, end: float) -> float:
        """Return how many requests are permitted from ``start`` to ``end``, bursts aside."""


@attrs.define(eq=False)
class Bucket:
    """A token bucket (the same thing as GCRA): ``burst`` deep, filled at ``rate``; a refusal costs nothing."""

    rate: float
    burst: float
    level: float = attrs.field(default=attrs.Factory(lambda self: self.burst, takes_self=True))
    seen: float = 0.0

    def _fill(self, now: float) -> None:
        self.level = min(self.burst, self.level + (now - self.seen) * self.rate)
        self.seen = now

    def admit(self, now: float) -> bool:
        """Decide about one request."""
        self._fill(now)
        if self.level < 1.0 - 1e-9:
            return False
        self.level -= 1.0
        return True

    def hints(self, now: float) -> RateHints:
        """Return what would be announced."""
        self._fill(now)
        full = math.ceil((self.burst - self.level) / self.rate)
        wait = None if self.level >= 1.0 else float(math.ceil((1.0 - self.level) / self.rate))
        return RateHints(limit=int(self.burst), remaining=int(self.level), reset=float(full), retry_after=wait)

    def permitted(self, start: float, end: float) -> float:
        """Return how many are permitted, bursts aside."""
        return (end - start) * self.rate


@attrs.define(eq=False)
class FixedWindow:
    """``count`` requests in each window of ``span`` seconds, the windows one after the other from ``origin``."""

    count: int
    span: float
    origin: float = 0.0
    window: int = -1
    used: int = 0

    def _turn(self, now: float) -> None:
        window = math.floor((now - self.origin) / self.span)
        if window != self.window:
            self.window, self.used = window, 0

    def admit(self, now: float) -> bool:
        """Decide about one request."""
        self._turn(now)
        if self.used >= self.count:
            return False
        self.used += 1
        return True

    def hints(self, now: float) -> RateHints:
        """Return what would be announced."""
        self._turn(now)
        left = float(math.ceil(self.origin + (self.window + 1) * self.span - now))
        remaining = self.count - self.used
        return RateHints(limit=self.count, remaining=remaining, reset=left, retry_after=None if remaining else left)

    def permitted(self, start: float, end: float) -> float:
        """Return how many are permitted, bursts aside."""
        return (end - start) * self.count / self.span


@attrs.define(eq=False)
class SlidingWindow:
    """``count`` requests in any ``span`` seconds, by a log of those let through."""

    count: int
    span: float
    log: deque[float] = attrs.field(factory=deque)

    def admit(self, now: float) -> bool:
        """Decide about one request."""
        while self.log and self.log[0] <= now - self.span:
            self.log.popleft()
        if len(self.log) >= self.count:
            return False
        self.log.append(now)
        return True

    def hints(self, now: float) -> RateHints:
        """Return what would be announced."""
        oldest = self.log[0] if self.log else now
        left = float(math.ceil(oldest + self.span - now))
        remaining = max(0, self.count - len(self.log))
        return RateHints(limit=self.count, remaining=remaining, reset=left, retry_after=None if remaining else left)

    def permitted(self, start: float, end: float) -> float:
        """Return how many are permitted, bursts aside."""
        return (end - start) * self.count / self.span


@attrs.define(eq=False)
class Both:
    """Two limits at once, such as 50 in 10 s and 300 a minute: the tighter one refuses, and neither is charged then."""

    first: SlidingWindow
    second: SlidingWindow

    def admit(self, now: float) -> bool:
        """Decide about one request."""
        if not self.first.admit(now):
            return False
        if self.second.admit(now):
            return True
        self.first.log.pop()
        return False

    def hints(self, now: float) -> RateHints:
        """Return what would be announced."""
        return min(self.first.hints(now), self.second.hints(now), key=lambda hints: hints.remaining or 0)

    def permitted(self, start: float, end: float) -> float:
        """Return how many are permitted, bursts aside."""
        return min(self.first.permitted(start, end), self.second.permitted(start, end))


@attrs.define(eq=False)
class Staged:
    """A bucket whose rate changes: ``stages`` are ``(from, rate)``; a rate of 0 lets nothing through (a brake)."""

    stages: list[tuple[float, float]]
    bucket: Bucket
    next_stage: int = 0
    braked_until: float = 0.0

    def _stage(self, now: float) -> None:
        while self.next_stage < len(self.stages) and self.stages[self.next_stage][0] <= now:
            at, rate = self.stages[self.next_stage]
            self.bucket.hints(at)  # filled at the old rate until now
            self.next_stage += 1
            if rate > 0:
                scale = rate / self.bucket.rate
                self.bucket.burst = max(1.0, self.bucket.burst * scale)
                self.bucket.rate = rate
                self.braked_until = 0.0
            else:
                self.braked_until = self.stages[self.next_stage][0] if self.next_stage < len(self.stages) else math.inf

    def admit(self, now: float) -> bool:
        """Decide about one request."""
        self._stage(now)
        return now >= self.braked_until and self.bucket.admit(now)

    def hints(self, now: float) -> RateHints:
        """Return what would be announced."""
        self._stage(now)
        if now < self.braked_until:
            return RateHints(remaining=0, retry_after=float(math.ceil(self.braked_until - now)))
        return self.bucket.hints(now)

    def permitted(self, start: float, end: float) -> float:
        """Return how many are permitted, bursts aside."""
        total = 0.0
        edges = [*self.stages, (math.inf, 0.0)]
        for (at, rate), (until, _) in itertools.pairwise(edges):
            total += rate * max(0.0, min(end, until) - max(start, at))
        return total


@attrs.define(eq=False)
class Shared:
    """A gateway that others use too: ``others`` are ``(from, to, rate, evenly)``, drawn ahead and let in first."""

    gateway: Gateway
    others: list[tuple[float, float, float, bool]]
    rng: random.Random
    until: float
    arrivals: list[float] = attrs.field(init=False)
    served: list[float] = attrs.field(factory=list)
    index: int = 0

    def __attrs_post_init__(self) -> None:
        drawn: list[float] = []
        for start, end, rate, evenly in self.others:
            at = start
            while at < min(end, self.until):
                at += 1 / rate if evenly else self.rng.expovariate(rate)
                drawn.append(at)
        self.arrivals = sorted(drawn)

    def admit(self, now: float) -> bool:
        """Decide about one request."""
        while self.index < len(self.arrivals) and self.arrivals[self.index] <= now:
            at = self.arrivals[self.index]
            self.index += 1
            if self.gateway.admit(at):
                self.served.append(at)
        return self.gateway.admit(now)

    def hints(self, now: float) -> RateHints:
        """Return what would be announced."""
        return self.gateway.hints(now)

    def permitted(self, start: float, end: float) -> float:
        """Return how many are permitted, bursts aside."""
        taken = sum(1 for at in self.served if start <= at < end)
        return self.gateway.permitted(start, end) - taken
