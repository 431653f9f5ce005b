"""Circuit breaker: while nothing can be reached, one probe at a time is sent, and all other callers wait for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import attrs

from seedance_avatar.errors import ConnectionFailed
from seedance_avatar.options import Retry

from .gate import Flow
from .retry import backoff

__all__ = ["CircuitBreaker"]


@attrs.define(eq=False, repr=False)
class CircuitBreaker:
    """Whether the service can be reached, shared by all patient callers (ingests and waits).

    Single calls do not wait here: they fail after their few attempts. If all submitters and polls retried a dead
    network on their own, they would flood the service on its return; so one of them tries, with backoff.

    :ivar since: when the outage began, by the loop's clock, or None while the service is up. Time in which nothing was
        tried (a suspended machine, an idle session) does not count: the outage then begins with the next try.
    :ivar error: the error of the last try.
    :ivar given_up: True when even a try that was sent ``retry.patience`` seconds after the beginning failed.
    """

    retry: Retry
    clock: Callable[[], float]
    rng: random.Random
    since: float | None = None
    error: ConnectionFailed | None = None
    given_up: bool = False
    _failed_at: float = 0.0
    _failures: int = 0
    _probing: bool = False
    _news: set[asyncio.Future[None]] = attrs.field(factory=set)

    async def wait_until_up(self, flow: Flow) -> bool:
        """Return at once while the service is up; else wait until it is, or until the caller is to be the probe.

        :returns: True when the caller is the probe. It then calls :meth:`record_failure` or :meth:`record_success`,
            or :meth:`release_probe` when it sends nothing after all.
        :raises ConnectionFailed: nothing was reached for ``retry.patience`` seconds, by a probe during this wait
            too. The probe itself looks at :attr:`given_up` instead: it raises its own error.

        Cancelled, another caller becomes the probe.
        """
        failures = self._failures
        while self.since is not None:
            if self.given_up and self._failures > failures and self.error is not None:
                raise self.error.with_traceback(None)
            if not self._probing:
                self._probing = True
                pause = backoff(self._failures + 1, base=self.retry.base, cap=self.retry.cap, rng=self.rng)
                try:
                    await flow.sleep(pause)
                except BaseException:
                    self.release_probe()
                    raise
                return True
            turn = asyncio.get_running_loop().create_future()
            self._news.add(turn)
            try:
                await flow.wait(turn)
            finally:
                self._news.discard(turn)
        return False

    def record_failure(self, error: ConnectionFailed, *, probe: bool, left_at: float) -> bool:
        """Record that a try reached nothing; return True when this begins an outage.

        :param left_at: when it was sent.
        """
        now = self.clock()
        began = self.since is None
        if began:
            self.since = now
        elif probe and left_at - self._failed_at > self.retry.patience + self.retry.cap:
            self.since = left_at
        self.error = error
        if began or probe:
            self._failures += 1
            self._failed_at = now
        if probe:
            # Counted from when it was sent: a stalled loop may notice the failure an hour later.
            self.given_up = self.since is not None and left_at - self.since >= self.retry.patience
            self.release_probe()
        return began

    def record_success(self) -> bool:
        """Record that the service responded, with whatever status; return True when this ends an outage."""
        if self.since is None:
            return False
        self.since = self.error = None
        self.given_up = False
        self._failures = 0
        self.release_probe()
        return True

    def release_probe(self) -> None:
        """Let another caller be the probe: wake all who wait, to look at the state again."""
        self._probing = False
        for turn in self._news:
            if not turn.done():
                turn.set_result(None)
