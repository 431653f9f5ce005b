"""While nothing can be reached: one probe at a time, and everybody else waits for what it finds."""

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
    """Whether the service can be reached, shared by all that are patient (ingests and waits).

    Single calls do not ask: they have their few attempts and end. Sixty-four submitters and all polls
    trying a dead network each on their own would be a storm on its return; so one of them tries, with
    backoff, and tells the others.

    :ivar since: when it went down, by the loop's clock, or None while it is up. A time in which nobody tried (a
        machine that slept, a session that had nothing to do) does not count: then it went down when somebody did again.
    :ivar error: what the last try met with.
    :ivar given_up: True when even a try that left ``retry.patience`` seconds after that reached nothing.
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
        """Return at once while the service is up; else wait until it is, or until it is our turn to try.

        :returns: True when the caller goes out as the probe. It then calls :meth:`failed` or :meth:`reached`,
            or :meth:`release_probe` when it did not go after all.
        :raises ConnectionFailed: nothing was reached for ``retry.patience`` seconds, a probe of this very wait
            included. To the probe itself :attr:`given_up` says so: it has an error of its own to raise.
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
        """Note that a try reached nothing; return True when this began an outage.

        :param left_at: when it left.
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
            # By when it left: what a stall kept on the wire for an hour was not tried for an hour.
            self.given_up = self.since is not None and left_at - self.since >= self.retry.patience
            self.release_probe()
        return began

    def record_success(self) -> bool:
        """Note that the service answered, whatever it said; return True when this ended an outage."""
        if self.since is None:
            return False
        self.since = self.error = None
        self.given_up = False
        self._failures = 0
        self.release_probe()
        return True

    def release_probe(self) -> None:
        """Let another be the probe, and tell all who wait to look again."""
        self._probing = False
        for turn in self._news:
            if not turn.done():
                turn.set_result(None)
