"""One logical call: wait for a turn, send, read, decide whether to repeat, tell the observer."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol, TypeVar

import attrs

from seedance_avatar.errors import AvatarError, ConnectionFailed, RateLimited, SubmissionInDoubt
from seedance_avatar.events import LimitChanged, Observer, RequestFinished, RetryPlanned
from seedance_avatar.events import Outage as OutageEvent
from seedance_avatar.options import Retry
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .circuit_breaker import CircuitBreaker
from .gate import Flow, Gate
from .retry import RetryBudget, as_in_doubt, retry_delay
from .transport import ResponseLost, Transport

__all__ = ["Client", "Passage"]

T = TypeVar("T")


class Passage(Protocol):
    """Who must know when a submission goes on the wire, and when it is certain that nothing came of it."""

    resend: bool
    """True when it was sent before, by an earlier run, and what came of that is in doubt."""

    async def before_send(self) -> None:
        """Its turn has come; the first byte leaves when this returns, and not at all when it raises."""

    async def not_applied(self) -> None:
        """Nothing came of it (never sent, or clearly refused), and it will be tried again."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Client:
    """Calls of one account, all under the same limits.

    :ivar clock: the loop's clock, seconds.
    :ivar observer: who is told of every request, or None.
    """

    transport: Transport
    submit: Gate
    query: Gate
    retry: Retry
    breaker: CircuitBreaker
    clock: Callable[[], float]
    rng: random.Random
    observer: Observer | None = None
    budget: RetryBudget = attrs.field(factory=RetryBudget)
    requests: int = 0
    retries: int = 0
    throttled: int = 0

    def gate_of(self, request: Request) -> Gate:
        """Return the gate that ``request`` has to pass."""
        return self.submit if request.lane == "submit" else self.query

    async def call(
        self,
        request: Request,
        read: Callable[[Response], T],
        *,
        flow: Flow,
        patient: bool = False,
        passage: Passage | None = None,
    ) -> T:
        """Send ``request`` until its answer is clear, as often as is safe, and return what ``read`` makes of it.

        :param read: turns an answer into a value, or raises :class:`ApiError` or :class:`ProtocolError`.
        :param flow: whose turn it takes; halting the flow ends every wait in here, never what is on the wire.
        :param patient: go on beyond ``retry.attempts`` while nothing is reached or let through, for
            ``retry.patience`` seconds.
        :param passage: told before the first byte leaves (a journal's commit), and when a try came to nothing.
        :raises ConnectionFailed: nothing was sent (for a question: no answer came).
        :raises SubmissionInDoubt: it was sent and may have been applied.
        :raises ApiError: the service refused.

        Cancelled on the wire, a submission is in doubt: who calls this for one shields it (the session and the
        pipeline do). Cancelled anywhere else, nothing was sent.
        """
        gate = self.gate_of(request)
        attempt = 0
        while True:
            probe = patient and self.breaker.since is not None and await self.breaker.wait_until_up(flow)
            try:
                await gate.acquire(flow)
                if passage is not None:
                    try:
                        await passage.before_send()
                    except BaseException:
                        gate.cancel()
                        raise
            except BaseException:
                if probe:
                    self.breaker.release_probe()
                raise
            attempt += 1
            try:
                return await self.trip(gate, request, read, attempt=attempt, probe=probe)
            except AvatarError as error:
                out_of_patience = probe and self.breaker.given_up
                pause = None if out_of_patience else self._pause(error, request, attempt=attempt, patient=patient)
                if pause is None:
                    raise
            if passage is not None:
                await passage.not_applied()
            if pause > 0:
                await flow.sleep(pause)

    async def trip(
        self,
        gate: Gate,
        request: Request,
        read: Callable[[Response], T],
        *,
        attempt: int = 1,
        probe: bool = False,
    ) -> T:
        """Make one round trip with a turn that the caller has taken at ``gate``, and give the turn up.

        Raises as :meth:`call` does, and repeats nothing.
        """
        left_at = self.clock()
        self.requests += 1
        if attempt > 1:
            self.retries += 1
        self.budget.sent(left_at)
        answer: Response | None = None
        try:
            answer = await self.transport.send(request)
            value = read(answer)
        except AvatarError as caught:
            # The frames below hold what the service said, signed URLs included, and tracebacks are shown with locals.
            error = self._verdict(caught.with_traceback(None), request)
            if answer is None:
                self._unanswered(gate, caught, probe=probe, left_at=left_at)
            else:
                if isinstance(error, RateLimited) and error.retry_after is not None:
                    # For all tasks of the lane; no longer than a single call would wait, then one of them asks again.
                    gate.brake(min(error.retry_after, self.retry.max_retry_after))
                self._answered(gate, request, answer, left_at=left_at, throttled=isinstance(error, RateLimited))
            if self.observer is not None:
                self._report(request, answer, error, left_at=left_at, attempt=attempt)
            raise error from None
        except BaseException:
            gate.release()
            if probe:
                self.breaker.release_probe()
            raise
        self._answered(gate, request, answer, left_at=left_at, throttled=False)
        if self.observer is not None:
            self._report(request, answer, None, left_at=left_at, attempt=attempt)
        return value

    def _verdict(self, error: AvatarError, request: Request) -> AvatarError:
        if isinstance(error, ResponseLost):
            if request.repeatable:
                return ConnectionFailed(error.message, about=request.about, answer_lost=True)
            return SubmissionInDoubt(
                error.message, about=request.about, evidence=error.evidence, request_id=error.request_id
            )
        if error.about is None:
            error.about = request.about
        return as_in_doubt(error, repeatable=request.repeatable)

    def _answered(self, gate: Gate, request: Request, answer: Response, *, left_at: float, throttled: bool) -> None:
        now = self.clock()
        changed = gate.pacer.on_answer(now, left_at=left_at, throttled=throttled, hints=answer.hints)
        if throttled:
            self.throttled += 1
        gate.release()
        self._reached(now)
        if changed and self.observer is not None:
            self.observer(LimitChanged(at=now, lane=request.lane, rate=gate.pacer.rate, why=gate.pacer.why))

    def _unanswered(self, gate: Gate, error: AvatarError, *, probe: bool, left_at: float) -> None:
        if not isinstance(error, ConnectionFailed):
            # The connection was made, so the network is up, whatever became of the answer.
            gate.release()
            self._reached(self.clock())
            return
        gate.cancel()
        if self.breaker.record_failure(error, probe=probe, left_at=left_at) and self.observer is not None:
            self.observer(OutageEvent(at=self.clock(), down=True, error=error))

    def _reached(self, now: float) -> None:
        if self.breaker.since is not None and self.breaker.record_success() and self.observer is not None:
            self.observer(OutageEvent(at=now, down=False, error=None))

    def _report(
        self, request: Request, answer: Response | None, error: AvatarError | None, *, left_at: float, attempt: int
    ) -> None:
        if self.observer is None:
            return
        now = self.clock()
        self.observer(
            RequestFinished(
                at=now,
                lane=request.lane,
                method=request.method,
                path=request.path,
                attempt=attempt,
                elapsed=now - left_at,
                status=None if answer is None else answer.status,
                error=error,
                request_id=None if answer is None else answer.request_id,
                about=request.about,
            )
        )

    def blocked_for(self, gate: Gate) -> float:
        """Return for how many seconds the service has let nothing through ``gate``; 0 while it does."""
        since = gate.pacer.blocked_since
        return 0.0 if since is None else self.clock() - since

    def _pause(self, error: AvatarError, request: Request, *, attempt: int, patient: bool) -> float | None:
        now = self.clock()
        if patient and isinstance(error, RateLimited):
            blocked = self.blocked_for(self.gate_of(request))
            if blocked + (error.retry_after or 0.0) > self.retry.patience:
                return None
        pause = retry_delay(error, attempt=attempt, retry=self.retry, patient=patient, rng=self.rng)
        # A patient call has its own bound; the allowance is there to stop many single calls at once.
        if pause is None or (not patient and not self.budget.allows(now)):
            return None
        if self.observer is not None:
            self.observer(
                RetryPlanned(at=now, lane=request.lane, attempt=attempt, delay=pause, error=error, about=request.about)
            )
        return pause
