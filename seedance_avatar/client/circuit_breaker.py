"""Circuit breaker: while the service is not reached or is ill, one probe at a time is sent, and all others wait for it.

*Ill* is a service whose answers are lost (closed, cut, timed out), cannot be read, are pages of HTML or 5xx. After such
an answer a submission is in doubt, so no other is risked until a probe shows that the service answers again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal

import attrs

from seedance_avatar.errors import AvatarError, ConnectionFailed, ProtocolError, ServerError, SubmissionInDoubt
from seedance_avatar.options import Retry

from .gate import Flow, wake
from .retry import backoff

Lane = Literal["submit", "query"]

_IN_A_ROW: Final = 3
_WINDOW: Final = 20  # submissions whose answers are looked back on; half of them ill is an outage too
_SECONDS: Final = 30.0  # answers older than this are not looked back on
_RECONSIDER: Final = 0.25  # seconds after which a submission looks again whether it has to be the probe


def is_ill(error: AvatarError) -> bool:
    """Return whether an answer that was read as ``error`` says that the service is ill, rather than what it refuses."""
    lost = isinstance(error, ConnectionFailed) and error.answer_lost
    return lost or isinstance(error, ProtocolError | ServerError | SubmissionInDoubt)


def opens(submissions: Sequence[tuple[float, bool]], latest: Sequence[tuple[Lane, bool]], now: float) -> bool:
    """Return whether the last answers, the oldest first and each with whether it was ill, mean an outage.

    They do when the last three submissions were answered ill, or the ``latest`` three answers of any kind with a
    submission among them, or at least half of the last twenty submissions; those of the last 30 s count. Ill answers
    to status requests alone mean none: they put nothing in doubt, and the service may well take submissions.
    """
    recent = [ill for at, ill in submissions if now - at <= _SECONDS][-_WINDOW:]
    last = latest[-_IN_A_ROW:]
    mixed = len(last) == _IN_A_ROW and all(ill for _, ill in last) and any(lane == "submit" for lane, _ in last)
    in_a_row = len(recent) >= _IN_A_ROW and all(recent[-_IN_A_ROW:])
    return in_a_row or mixed or sum(recent) * 2 >= _WINDOW


@attrs.define(eq=False, repr=False)
class CircuitBreaker:
    """Whether requests may leave, shared by all callers of a session.

    If all submitters and polls retried a dead network on their own, they would flood the service on its return; and
    each submission to an ill service is one more in doubt. So one request at a time probes, ever more slowly (backoff
    to ``retry.cap``): a status request wherever there is anything to ask, else one submission. After an outage that
    submissions have met, the first one to leave is alone too, since the status requests may be answered elsewhere.

    :ivar askable: returns whether anything is pending, whose status can be asked for as a probe.
    :ivar on_ill: called when an outage begins in which the service is ill, so that status requests begin to probe.
    :ivar since: when the outage began, by the loop's clock, or None while the service is up. Time in which nothing was
        tried (a suspended machine, an idle session) does not count: the outage then begins with the next try.
    :ivar error: why: the error of the last try, or that the service is ``ill``, though it is reached.
    :ivar given_up: True when even a try that was sent ``retry.patience`` seconds after the beginning failed.
    :ivar submitted: how many submissions were answered well.
    """

    retry: Retry
    clock: Callable[[], float]
    rng: random.Random
    askable: Callable[[], bool] = attrs.field(default=lambda: False)
    on_ill: Callable[[], None] = attrs.field(default=lambda: None)
    since: float | None = None
    error: ConnectionFailed | None = None
    given_up: bool = False
    ill: bool = False
    outages: int = 0
    submitted: int = 0
    _proving_since: float | None = None  # when the outage began that a status request has ended, and no submission yet
    _opened_at: float = 0.0
    _failed_at: float = 0.0
    _failures: int = 0
    _next_at: float = 0.0
    _probe: object | None = None
    _asking: int = 0
    _submissions: deque[tuple[float, bool]] = attrs.field(factory=lambda: deque(maxlen=_WINDOW))
    _latest: deque[tuple[Lane, bool]] = attrs.field(factory=lambda: deque(maxlen=_IN_A_ROW))
    _news: set[asyncio.Future[bool]] = attrs.field(factory=set)

    def closed(self, lane: Lane) -> bool:
        """Return whether a request of ``lane`` may leave at this moment without being a probe."""
        return self.since is None and (lane == "query" or self._proving_since is None)

    async def wait_until_up(self, flow: Flow, lane: Lane = "query", *, patient: bool = True) -> bool:
        """Return at once while requests may leave; else wait until they may, or until the caller is to be the probe.

        Without ``patient`` it waits for the next probe only. Cancelled, another caller becomes the probe.

        :returns: True when the caller is the probe. It then calls one of the ``record_`` methods, or
            :meth:`release_probe` when it sends nothing after all.
        :raises ConnectionFailed: nothing was reached, or answered well, for ``retry.patience`` seconds, by a probe
            during this wait too. The probe itself looks at :attr:`given_up` instead: it raises its own error.
        """
        failures, mine, waited = self._failures, object(), False
        self._asking += lane == "query"
        try:
            while not self.closed(lane):
                if (self.given_up or not patient) and self._failures > failures and self.error is not None:
                    raise self.error.with_traceback(None)  # noqa: TRY301 - a probe that gives up is released below
                # Nothing that is not sent is in doubt, so a connection may be tried by anybody.
                harmless = lane == "query" or self.since is None or not self.ill
                leads = harmless or not (self._asking or self.askable())
                if leads and self._probe is None:
                    self._probe = mine
                if self._probe is not mine:
                    # While nobody probes, something pending is about to be asked, unless it has ended.
                    await flow.sleep(_RECONSIDER if self._probe is None else None, self._news)
                elif not leads:
                    self.release_probe()
                elif not waited and (pause := self._next_at - self.clock()) > 0:
                    waited = await flow.sleep(pause, self._news)
                else:
                    return True
        except BaseException:
            if self._probe is mine:
                self.release_probe()
            raise
        finally:
            self._asking -= lane == "query"
        if self._probe is mine:
            self.release_probe()
        return False

    def record_ill(self, error: AvatarError, lane: Lane, *, probe: bool, left_at: float) -> bool:
        """Record that a request was answered ill (see :func:`is_ill`); return True when this begins an outage."""
        now = self.clock()
        if not probe or self.closed("submit"):
            if self.since is not None or left_at < self._opened_at:
                return False  # it was on the wire when the outage began
            if probe:
                self.release_probe()
            self._note(lane, ill=True)
            if self._proving_since is not None or not opens(self._submissions, tuple(self._latest), now):
                return False
        message = f"the service is ill: {error.describe()}"
        hint = "nothing was sent since: run the same again when the service is well"
        return self.record_failure(ConnectionFailed(message, hint=hint), ill=True, probe=probe, left_at=left_at)

    def _note(self, lane: Lane, *, ill: bool) -> None:
        self._latest.append((lane, ill))
        if lane == "submit":
            self._submissions.append((self.clock(), ill))

    def record_failure(self, error: ConnectionFailed, *, probe: bool, left_at: float, ill: bool = False) -> bool:
        """Record that a try that was sent at ``left_at`` reached nothing; return True when this begins an outage."""
        now = self.clock()
        began = self.since is None
        untried = left_at - self._failed_at > self.retry.patience + self.retry.cap
        if began:
            again = None if untried else self._proving_since
            self.since = now if again is None else again
            self.outages += again is None
            self._opened_at = now
        elif probe and untried:
            self.since = left_at
        self.error, self.ill = error, ill
        if began or probe:
            self._failures += 1
            self._failed_at = now
            # Half of the bound is kept whatever is drawn: a probe that is a submission may cost a doubt.
            base, cap = self.retry.base / 2, self.retry.cap / 2
            least = min(cap, base * 2.0 ** min(self._failures - 1, 60))
            self._next_at = now + least + backoff(self._failures, base=base, cap=cap, rng=self.rng)
        if probe:
            # Counted from when it was sent: a stalled loop may notice the failure an hour later.
            self.given_up = self.since is not None and left_at - self.since >= self.retry.patience
            self.release_probe()
        if began and ill:
            self.on_ill()
        return began

    def record_success(self, lane: Lane = "submit", *, left_at: float | None = None, probe: bool = False) -> bool:
        """Record a clear answer (of any status) to what was sent at ``left_at``; return whether an outage ends."""
        self.submitted += lane == "submit"
        if self.closed("submit"):
            self._note(lane, ill=False)
            if probe:
                self.release_probe()
            return False
        if self.ill and not probe and left_at is not None and left_at < self._opened_at:
            return False
        ended = self.since is not None
        if lane == "submit" or not self.ill:
            self._proving_since = None
            self._failures = 0
            self._submissions.clear()
            self._latest.clear()
        elif ended:
            # Submissions were answered ill: the next one leaves alone.
            self._proving_since = self.since
        self.since = self.error = None
        self.given_up = False
        if ended or probe or self._proving_since is None:
            self.release_probe()
        return ended

    def release_probe(self) -> None:
        """Let another caller be the probe: wake all who wait, to look at the state again."""
        self._probe = None
        for turn in self._news:
            wake(turn)
