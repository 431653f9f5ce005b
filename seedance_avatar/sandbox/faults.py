"""Fault injection: each way in which the service, or the network in between, is known to fail."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, Literal, Self, TypeAlias, get_args

import attrs

from .replies import Reply, no_money, refusal, refusal_in_envelope, unauthorized
from .state import State

FaultKind: TypeAlias = Literal[
    "rate_limited",
    "server_error",
    "unavailable",
    "limiter_down",
    "dropped",
    "lost_answer",
    "reset",
    "truncated",
    "empty",
    "not_json",
    "refused",
    "slow",
    "unauthorized",
    "no_money",
]
"""The kinds of faults.

``rate_limited`` 429 · ``server_error`` 500, 502 or 504 with an HTML page · ``unavailable`` 503 · ``limiter_down``
503 ``rate_limit_unavailable`` · ``dropped`` the connection closes, nothing was done · ``lost_answer`` it was done,
the connection closes · ``reset`` the connection is reset · ``truncated`` half the body · ``empty`` and ``not_json``
a 200 with such a body · ``refused`` 200 with ``success: false`` · ``slow`` a right answer, but late · ``unauthorized``
401 · ``no_money`` 402 or 403.
"""

RetryAfter: TypeAlias = float | Literal["date", "none", "absurd", "any"]

# Whether the request is applied although its answer is wrong or missing: always, or at random.
_APPLIED: Final = frozenset({"lost_answer", "truncated", "empty", "not_json", "slow"})
_EITHER: Final = frozenset({"server_error", "reset"})

_ABSURD: Final = ("86400", "-1", "NaN", "1e999", "soon", "9" * 400)
_PAGE: Final = "<html><head><title>{0} {1}</title></head><body><center><h1>{0} {1}</h1></center><hr></body></html>"


@attrs.define(eq=False, kw_only=True)
class Fault:
    """One rule: which requests get a fault, how often, and which.

    :ivar kind: one of :data:`FaultKind`.
    :ivar probability: probability for each matching request.
    :ivar times: number of faults after which the rule ends; None for no end.
    :ivar after: number of matching requests that are answered normally first.
    :ivar method: ``GET`` or ``POST`` only.
    :ivar path: one kind of path only: ``groups``, ``assets`` (the POST), ``asset`` (the GET), ``generations`` (the
        POST), ``generation`` (the GET), ``uploads``, ``files``.
    :ivar status: of ``server_error``: 500, 502 or 504; None is random.
    :ivar applied: of ``server_error`` and ``reset``: whether the request is applied first; None is random.
    :ivar retry_after: of ``rate_limited`` and ``unavailable``: whole seconds, a ``date`` a second from now, ``none``,
        something ``absurd``, or ``any`` of the first three.
    :ivar delay: of ``slow``: seconds.
    :ivar hits: number of faults so far.
    """

    kind: FaultKind = attrs.field(kw_only=False, validator=attrs.validators.in_(get_args(FaultKind)))
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    method: Literal["GET", "POST"] | None = None
    path: str | None = None
    status: int | None = None
    applied: bool | None = None
    retry_after: RetryAfter = "any"
    delay: float = 0.2
    hits: int = attrs.field(init=False, default=0)
    _seen: int = attrs.field(init=False, default=0)

    def matches(self, method: str, path: str, rng: random.Random) -> bool:
        """Return whether this request gets the fault, and count it."""
        if (self.method is not None and method != self.method) or (self.path is not None and path != self.path):
            return False
        self._seen += 1
        if self._seen <= self.after or (self.times is not None and self.hits >= self.times):
            return False
        if self.probability < 1.0 and rng.random() >= self.probability:
            return False
        self.hits += 1
        return True


class Faults(list[Fault]):
    """The fault rules of a sandbox, a list of them, tried in order; a request gets one fault at most.

    .. code-block:: python

        rule = sandbox.faults.add("lost_answer", method="POST", times=1)  # the next POST is applied, its answer is lost
        sandbox.faults.add("rate_limited", probability=0.1, retry_after=2)
        sandbox.faults.add("unauthorized", after=100)               # from the 101st request on
        sandbox.faults.remove(rule)
        sandbox.faults.clear()
    """

    def __init__(self, rules: Iterable[Fault] = (), *, seed: int = 0) -> None:
        super().__init__(rules)
        self.rng: random.Random = random.Random(seed)

    @classmethod
    def everything(
        cls, probability: float, *, retry_after: RetryAfter = "any", delay: float = 0.2, seed: int = 0
    ) -> Self:
        """Return a rule for every kind of temporary fault, each with ``probability`` for every request.

        A refused key and a low balance are not among them, because they end a run.
        """
        kinds = (kind for kind in get_args(FaultKind) if kind not in {"unauthorized", "no_money"})
        rules = (Fault(kind, probability=probability, retry_after=retry_after, delay=delay) for kind in kinds)
        return cls(rules, seed=seed)

    def add(self, kind: FaultKind, **fields: Any) -> Fault:  # noqa: ANN401 - each field has its own type
        """Add a rule and return it; ``fields`` are the fields of :class:`Fault`."""
        rule = Fault(kind, **fields)
        self.append(rule)
        return rule

    def match(self, method: str, path: str) -> Fault | None:
        """Return the rule that applies to this request, or None."""
        return next((rule for rule in self if rule.matches(method, path, self.rng)), None)

    async def answer(self, method: str, path: str, do: Callable[[], Awaitable[Reply]], state: State) -> Reply:
        """Return the answer to a request, a right or a wrong one; ``do`` applies it and returns the right one."""
        rule = self.match(method, path)
        if rule is None:
            return await do()
        if rule.kind == "slow":
            await state.clock.sleep(rule.delay)
        applied = rule.kind in _APPLIED
        if rule.kind in _EITHER:
            applied = self.rng.random() < 0.5 if rule.applied is None else rule.applied  # noqa: PLR2004 - an even chance
        right = await do() if applied else None
        if right is not None and rule.kind in {"slow", "truncated"}:
            right.end = "answer" if rule.kind == "slow" else "cut"
            return right
        reply = _WRONG[rule.kind](rule, self.rng, state)
        if rule.kind in {"rate_limited", "unavailable"}:
            reply.headers = self._hint(rule, state)
        return reply

    def _hint(self, rule: Fault, state: State) -> str:
        hint: float | str = rule.retry_after
        if hint == "any":
            hint = self.rng.choice((1.0, "date", "none"))
        if hint == "absurd":
            hint = self.rng.choice(_ABSURD)
        elif hint == "date":
            # A date has whole seconds: it is rounded up, or it would often be in the past when it is read.
            hint = formatdate(int(state.clock.wall_at(state.clock.now())) + 2, usegmt=True)
        return "" if hint == "none" else f"Retry-After: {hint if isinstance(hint, str) else format(hint, 'g')}\r\n"


def _page(rule: Fault, rng: random.Random, _: State) -> Reply:
    status = 503 if rule.kind == "unavailable" else rule.status or rng.choice((500, 502, 504))
    return Reply(status, _PAGE.format(status, HTTPStatus(status).phrase).encode(), "text/html")


def _rate_limited(_rule: Fault, rng: random.Random, _: State) -> Reply:
    # The service also sends a 429 without a body.
    full = rng.random() >= 0.5  # noqa: PLR2004 - an even chance
    return refusal(429, "too many requests (request id: {id})", code="rate_limit_exceeded") if full else Reply(429)


_WRONG: Final[dict[FaultKind, Callable[[Fault, random.Random, State], Reply]]] = {
    "rate_limited": _rate_limited,
    "server_error": _page,
    "unavailable": _page,
    "limiter_down": lambda *_: refusal(503, "the rate limiter cannot be reached", code="rate_limit_unavailable"),
    "dropped": lambda *_: Reply(end="close"),
    "lost_answer": lambda *_: Reply(end="close"),
    "reset": lambda *_: Reply(end="reset"),
    "empty": lambda *_: Reply(200),
    "not_json": lambda *_: Reply(200, b"upstream says hello\n", "text/plain"),
    "refused": lambda *_: refusal_in_envelope(200, "the system is busy (request id: {id})"),
    "unauthorized": lambda *_: unauthorized("a key"),
    "no_money": lambda _rule, _rng, state: no_money(state.vintage.money),
}
