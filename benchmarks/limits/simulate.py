"""One lane of a client in front of a simulated gateway: a discrete-event run, in simulated seconds."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from bisect import bisect_left
from collections.abc import Iterator

import attrs

from seedance_avatar.limits.pacer import Pacer
from seedance_avatar.wire.response import RateHints

from .gateways import Gateway

__all__ = ["Net", "Run", "simulate"]


@attrs.frozen(kw_only=True)
class Net:
    """The way to the gateway and back, and the machine that the client runs on.

    :ivar latency: seconds for the round trip, and ``jitter``, the share of it that varies.
    :ivar timer: a sleeping event loop wakes up to so many seconds late, each time anew.
    :ivar stall: now and then, about every two seconds, the whole client stands still for up to so many seconds: it
        neither sends nor reads.
    """

    latency: float = 0.05
    jitter: float = 0.2
    timer: float = 0.001
    stall: float = 0.0

    def stalls(self, length: float, rng: random.Random) -> Iterator[tuple[float, float]]:
        """Return from when to when the client stands still, in order."""
        at = 0.0
        while self.stall and at < length:
            at += rng.expovariate(0.5)
            until = at + rng.uniform(0.0, self.stall)
            yield at, until
            at = until


@attrs.define(eq=False)
class Run:
    """What happened: when requests left, when they were let through, when they were refused."""

    length: float
    gateway: Gateway
    sent: list[float] = attrs.field(factory=list)
    passed: list[float] = attrs.field(factory=list)
    refused: list[float] = attrs.field(factory=list)

    def held(self, start: float, end: float | None = None) -> float:
        """Return the share of what was permitted from ``start`` on that was let through."""
        end = self.length if end is None else end
        count = bisect_left(self.passed, end) - bisect_left(self.passed, start)
        return count / self.gateway.permitted(start, end)

    @property
    def refusals(self) -> float:
        """The share of all requests that were refused."""
        return len(self.refused) / max(1, len(self.sent))

    def recovery(self, since: float, share: float = 0.95) -> float:
        """Return how many seconds after ``since`` the rate was back, and stayed so for 2 s or 20 requests."""
        rate = self.gateway.permitted(since, since + 1.0)
        span = max(2.0, 20.0 / rate)
        for tenth in range(600):
            at = since + tenth / 10
            count = bisect_left(self.passed, at + span) - bisect_left(self.passed, at)
            if count >= share * rate * span - 1.0:
                return at - since
        return 60.0

    def crowd(self, since: float, span: float = 0.1, until: float = 15.0) -> int:
        """Return how many requests left at most in any ``span`` seconds of the time after ``since``."""
        times = self.sent[bisect_left(self.sent, since) : bisect_left(self.sent, since + until)]
        return max((bisect_left(times, at + span) - index for index, at in enumerate(times)), default=0)


def simulate(  # noqa: C901, PLR0913 - one loop over the events of a run, which has this many sides
    pacer: Pacer,
    gateway: Gateway,
    *,
    length: float,
    net: Net,
    rng: random.Random,
    announce: str = "",
    at_once: int = 64,
    wanted: float = math.inf,
) -> Run:
    """Run ``length`` simulated seconds with work always waiting (or ``wanted`` requests a second of it).

    :param announce: which hints answers carry: any of ``"limits"`` and ``"retry"`` in one string.
    :param at_once: requests on the wire at one time.
    """
    run = Run(length, gateway)
    order = itertools.count()
    events: list[tuple[float, int, str, float, bool, RateHints | None]] = []
    on_wire = 0
    origin = 1e5
    timer = -1  # the one that is armed: an earlier one that fires means nothing
    stalls = net.stalls(length, rng)
    still_from, still_until = next(stalls, (math.inf, math.inf))

    def leg() -> float:
        return net.latency / 2 * (1.0 - net.jitter / 2 + net.jitter * rng.random())

    def push(at: float, kind: str, left: float, refused: bool = False, hints: RateHints | None = None) -> int:  # noqa: FBT001, FBT002 - an event's fields
        number = next(order)
        heapq.heappush(events, (at, number, kind, left, refused, hints))
        return number

    timer = push(0.0, "timer", 0.0)
    while events:
        now, number, kind, left, refused, hints = heapq.heappop(events)
        if now > length:
            break
        if kind == "arrive":
            passed, told = _decide(gateway, now, announce)
            (run.passed if passed else run.refused).append(now)
            push(now + leg(), "answer", left, not passed, told)
            continue
        if kind == "timer" and number != timer:
            continue
        while now >= still_until:
            still_from, still_until = next(stalls, (math.inf, math.inf))
        if now >= still_from:
            again = push(still_until, kind, left, refused, hints)
            timer = again if kind == "timer" else timer
            continue
        if kind == "answer":
            on_wire -= 1
            pacer.on_answer(origin + now, left_at=origin + left, throttled=refused, hints=hints)
        while on_wire < at_once:
            at = max(pacer.next_at(origin + now), origin + len(run.sent) / wanted)
            if at > origin + now:
                timer = push(at - origin + net.timer * rng.random(), "timer", 0.0)
                break
            pacer.take(origin + now)
            on_wire += 1
            run.sent.append(now)
            push(now + leg(), "arrive", now)
    return run


def _decide(gateway: Gateway, now: float, announce: str) -> tuple[bool, RateHints | None]:
    """Return whether the request that arrives now is let through, and what its answer announces."""
    passed = gateway.admit(now)
    if not announce:
        return passed, None
    told = gateway.hints(now)
    if "limits" not in announce:
        told = RateHints(retry_after=told.retry_after)
    if passed or "retry" not in announce:
        told = attrs.evolve(told, retry_after=None)
    return passed, told
