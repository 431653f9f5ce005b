"""One logical call: wait for a turn, send, read, decide whether to repeat, report to the observer."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, TypeVar, cast

import attrs

from seedance_avatar.errors import AvatarError, ConnectionFailed, RateLimited, SubmissionInDoubt
from seedance_avatar.events import LimitChanged, Observer, RequestFinished, RetryPlanned
from seedance_avatar.events import Outage as OutageEvent
from seedance_avatar.options import Retry
from seedance_avatar.outcomes import SessionStats
from seedance_avatar.text import Secret
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .circuit_breaker import CircuitBreaker, is_ill
from .gate import Flow, Gate
from .retry import FailedPoll, RetryBudget, after_failed_poll, as_in_doubt, pause_before_poll, retry_delay
from .transport import ResponseLost, Transport

T = TypeVar("T")


class Passage(Protocol):
    """Callbacks for a submission that is recorded: before it is sent, and when it certainly was not applied."""

    resend: bool
    """True when an earlier run sent it, and whether that was applied is in doubt."""

    async def before_send(self) -> None:
        """Prepare to send: the first byte is sent after this returns, and not at all if it raises."""

    async def not_applied(self) -> None:
        """Prepare for a retry: the last try was never sent, or clearly refused."""


class Turn(NamedTuple):
    """Permission to send one request: it is spent by :meth:`Client.send`, or given back."""

    gate: Gate
    probe: bool  # for the one request that finds out whether an outage is over


def _as_raised(error: AvatarError, request: Request) -> AvatarError:
    """Return ``error`` as the caller gets it: about ``request``, and in doubt where it may have been applied."""
    if isinstance(error, ResponseLost):
        if request.repeatable:
            return ConnectionFailed(error.message, about=request.about, answer_lost=True)
        return SubmissionInDoubt(
            error.message, about=request.about, evidence=error.evidence, request_id=error.request_id
        )
    if error.about is None:
        error.about = request.about
    return as_in_doubt(error, repeatable=request.repeatable)


@attrs.define(eq=False, repr=False, kw_only=True)
class Client:
    """Calls of one account, all under the same limits."""

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

    def figures(self) -> SessionStats:
        """Return the figures of all calls; what is pending and the ingests are not known here."""
        down = self.breaker.since
        submit, query = self.submit, self.query
        return SessionStats(
            requests=self.requests,
            retries=self.retries,
            throttled=self.throttled,
            submitting=submit.inside,
            querying=query.inside,
            waiting=submit.waiting + query.waiting,
            submit_limit=submit.pacer.rate,
            submit_why=submit.pacer.why,
            query_limit=query.pacer.rate,
            query_why=query.pacer.why,
            down_for=None if down is None else self.clock() - down,
            outages=self.breaker.outages,
        )

    async def take_turn(self, flow: Flow, *, lane: Literal["submit", "query"] = "query", patient: bool = True) -> Turn:
        """Wait until a request of ``lane`` may be sent; cancelled, no turn is taken and none is lost.

        :param patient: wait for the end of an outage as well, and for ``retry.patience`` seconds at most. Without it a
            submission waits, while the service is ill, for the next probe only, or is that probe.
        :raises ConnectionFailed: nothing was reached, or answered well, for as long as that.
        :raises AvatarError: what the flow was halted with.
        """
        gate = self.submit if lane == "submit" else self.query
        breaker = self.breaker

        def held_up() -> bool:
            # To look, or to try a connection, risks nothing: a single call does so whatever the others have met.
            return not breaker.closed(lane) and (patient or (lane == "submit" and breaker.ill))

        while True:
            probe = held_up() and await breaker.wait_until_up(flow, lane, patient=patient)
            try:
                await gate.acquire(flow)
            except BaseException:
                if probe:
                    breaker.release_probe()
                raise
            if probe or not held_up():
                return Turn(gate, probe)
            gate.cancel()  # an outage began meanwhile

    def try_turn(self, flow: Flow) -> Turn | None:
        """Return a turn for a status request if one may be sent at this moment, and None during an outage."""
        if self.breaker.since is not None or not self.query.try_acquire(flow):
            return None
        return Turn(self.query, probe=False)

    def give_back(self, turn: Turn) -> None:
        """Return a turn with which nothing was sent."""
        turn.gate.cancel()
        if turn.probe:
            self.breaker.release_probe()

    async def call(
        self,
        request: Request,
        read: Callable[[Response], T],
        *,
        flow: Flow,
        patient: bool = False,
        passage: Passage | None = None,
    ) -> T:
        """Send ``request`` until its response is clear, as often as is safe, and return what ``read`` makes of it.

        Cancelled after it was sent, a submission is in doubt: callers shield it (the session and the pipeline do).
        Cancelled at any other time, nothing was sent.

        :param flow: whose turn it takes; halting the flow ends every wait in here, but no request that was sent.
        :param patient: go on beyond ``retry.attempts`` while nothing is reached or let through, for
            ``retry.patience`` seconds.
        :raises ConnectionFailed: nothing was sent (for a status request: no response came).
        :raises SubmissionInDoubt: it was sent and may have been applied.
        :raises ApiError: the service refused.
        """
        attempt, submitted = 0, self.breaker.submitted
        while True:
            try:
                turn = await self.take_turn(flow, lane=request.lane, patient=patient)
            except ConnectionFailed as error:
                raise error.concerning(request.about) from None
            attempt += 1
            try:
                return await self.send(turn, request, read, attempt=attempt, passage=passage)
            except AvatarError as error:
                if turn.probe and self.breaker.given_up:
                    raise
                pause: float | None = 0.0
                # In an outage the breaker says when: those who wait for it have their turn as the probe first.
                if not (patient and self._in_outage(error, request, submitted)):
                    pause = self._pause(error, request, turn, attempt=attempt, patient=patient)
                if pause is None:
                    raise
            if passage is not None:
                await passage.not_applied()
            await flow.sleep(pause)

    async def send(
        self,
        turn: Turn,
        request: Request,
        read: Callable[[Response], T],
        *,
        attempt: int = 1,
        passage: Passage | None = None,
    ) -> T:
        """Send ``request`` once, and end ``turn``. It raises as :meth:`call` does."""
        try:
            refusal = None if isinstance(self.transport.key, Secret) else await self.transport.authorize()
            if passage is not None and refusal is None:
                await passage.before_send()
        except BaseException:
            self.give_back(turn)
            raise
        left_at = self.clock()
        self.requests += 1
        self.retries += attempt > 1
        self.budget.sent(left_at)
        response: Response | None = None
        error: AvatarError | None = None
        value: T | None = None
        try:
            try:
                if refusal is not None:
                    raise refusal
                response = await self.transport.send(request)
                value = read(response)
            except AvatarError as caught:
                # The frames below hold what the service sent, signed URLs included, and tracebacks show locals.
                error = _as_raised(caught.with_traceback(None), request)
            self._learn(turn, request, response, error, left_at=left_at)
        except BaseException:
            if turn.probe:
                self.breaker.release_probe()
            raise
        finally:
            if isinstance(error, ConnectionFailed) and not error.answer_lost:
                turn.gate.cancel()
            else:
                turn.gate.release()
        self._report(request, response, error, left_at=left_at, attempt=attempt)
        if error is not None:
            raise error
        return cast("T", value)

    @property
    def probing(self) -> bool:
        """Whether an ill service is being probed, by a status request of anything pending for one."""
        return self.breaker.since is not None and self.breaker.ill

    @property
    def gave_up(self) -> ConnectionFailed | None:
        """Why nothing more is to be sent: an outage longer than ``retry.patience``; None while there is none."""
        return self.breaker.error if self.breaker.given_up else None

    def after_failed_poll(
        self, turn: Turn, error: AvatarError, *, age: float, late: bool, misses: int
    ) -> tuple[FailedPoll, float]:
        """Return what a status request that failed means for its item, and the pause before the next."""
        retry = self.retry
        if isinstance(error, ConnectionFailed) or is_ill(error):
            out_of_patience = turn.probe and self.breaker.given_up
        else:
            out_of_patience = self._blocked_for(turn.gate) > retry.patience
        meaning = after_failed_poll(
            error, age=age, late=late, misses=misses, attempts=retry.attempts, out_of_patience=out_of_patience
        )
        return meaning, pause_before_poll(error, misses=misses, retry=retry, rng=self.rng)

    def _learn(
        self, turn: Turn, request: Request, response: Response | None, error: AvatarError | None, *, left_at: float
    ) -> None:
        """Tell pacer, breaker and observer what became of ``request``."""
        now, lane, pacer, breaker = self.clock(), request.lane, turn.gate.pacer, self.breaker
        ill, throttled, changed = error is not None and is_ill(error), isinstance(error, RateLimited), False
        if response is not None:
            wait = response.hints.retry_after
            if wait is not None and (throttled or ill):
                # For all tasks of the lane; no longer than a single call would wait, then one of them asks again.
                turn.gate.brake(min(wait, self.retry.max_retry_after))
            changed = pacer.on_answer(now, left_at=left_at, throttled=throttled, hints=response.hints)
            self.throttled += throttled
        turned = down = False
        if error is not None and ill:
            turned = down = breaker.record_ill(error, lane, probe=turn.probe, left_at=left_at)
        elif isinstance(error, ConnectionFailed):
            turned = down = breaker.record_failure(error, probe=turn.probe, left_at=left_at)
        elif response is not None:
            turned = breaker.record_success(lane, left_at=left_at, probe=turn.probe)
        elif turn.probe:
            breaker.release_probe()
        if turned and self.observer is not None:
            self.observer(OutageEvent(at=now, down=down, error=breaker.error if down else None, ill=breaker.ill))
        if changed and self.observer is not None:
            self.observer(LimitChanged(at=now, lane=lane, rate=pacer.rate, why=pacer.why))

    def _report(
        self, request: Request, response: Response | None, error: AvatarError | None, *, left_at: float, attempt: int
    ) -> None:
        if self.observer is not None:
            now = self.clock()
            self.observer(
                RequestFinished(
                    at=now,
                    lane=request.lane,
                    method=request.method,
                    path=request.path,
                    attempt=attempt,
                    elapsed=now - left_at,
                    status=None if response is None else response.status,
                    error=error,
                    request_id=None if response is None else response.request_id,
                    about=request.about,
                )
            )

    def _blocked_for(self, gate: Gate) -> float:
        """Return for how many seconds the service has let nothing through ``gate``; 0 while it does."""
        since = gate.pacer.blocked_since
        return 0.0 if since is None else self.clock() - since

    def _in_outage(self, error: AvatarError, request: Request, submitted: int) -> bool:
        """Return whether ``request`` met an outage: no submission was answered well beyond the ``submitted`` before."""
        ill = request.repeatable and is_ill(error) and not self.breaker.closed(request.lane)
        return ill and self.breaker.submitted == submitted

    def _pause(self, error: AvatarError, request: Request, turn: Turn, *, attempt: int, patient: bool) -> float | None:
        blocked_for = self._blocked_for(turn.gate) if patient else 0.0
        pause = retry_delay(
            error, attempt=attempt, retry=self.retry, patient=patient, blocked_for=blocked_for, rng=self.rng
        )
        now = self.clock()
        # A patient call has its own bound; the budget is there to stop many single calls at once.
        if pause is None or (not patient and not self.budget.allows(now)):
            return None
        if self.observer is not None:
            self.observer(
                RetryPlanned(at=now, lane=request.lane, attempt=attempt, delay=pause, error=error, about=request.about)
            )
        return pause
