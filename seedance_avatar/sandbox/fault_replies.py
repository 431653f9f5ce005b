"""The answers that faults give instead of the right one."""

from __future__ import annotations

import random
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, TypeAlias

from .accounts import no_money, unauthorized
from .clock import Clock
from .dialect import Vintage
from .faults import Fault, FaultKind
from .replies import Reply, no_answer, refusal, refusal_in_envelope

__all__ = ["faulty_reply"]

_ABSURD: Final = ("86400", "-1", "NaN", "1e999", "soon", "9" * 400)
_PAGE: Final = "<html><head><title>{0} {1}</title></head><body><center><h1>{0} {1}</h1></center><hr></body></html>"


def faulty_reply(rule: Fault, right: Reply | None, rng: random.Random, clock: Clock, vintage: Vintage) -> Reply:
    """Return the answer to a request that gets the fault ``rule``.

    :param right: the right answer, or None when the request was not applied.
    """
    if right is not None and rule.kind in {"slow", "truncated"}:
        right.end = "answer" if rule.kind == "slow" else "cut"
        return right
    return _SHAPES[rule.kind](rule, rng, clock, vintage)


def _page(rule: Fault, rng: random.Random, clock: Clock, _: Vintage) -> Reply:
    status = 503 if rule.kind == "unavailable" else rule.status or rng.choice((500, 502, 504))
    page = _PAGE.format(status, HTTPStatus(status).phrase)
    reply = Reply(status, page.encode(), content_type="text/html")
    if rule.kind == "unavailable":
        reply.headers = _hint(rule, rng, clock)
    return reply


def _rate_limited(rule: Fault, rng: random.Random, clock: Clock, _: Vintage) -> Reply:
    # The service also sends a 429 without a body.
    if rng.random() < 0.5:  # noqa: PLR2004 - an even chance
        reply = Reply(429, b"")
    else:
        reply = refusal(429, "too many requests (request id: {id})", code="rate_limit_exceeded")
    reply.headers = _hint(rule, rng, clock)
    return reply


def _hint(rule: Fault, rng: random.Random, clock: Clock) -> str:
    hint = rule.retry_after
    if hint == "any":
        hint = rng.choice((1.0, "date", "none"))
    if hint == "none":
        return ""
    if hint == "absurd":
        return f"Retry-After: {rng.choice(_ABSURD)}\r\n"
    if hint == "date":
        # A date has whole seconds: it is rounded up, or it would often be in the past when it is read.
        return f"Retry-After: {formatdate(int(clock.wall()) + 2, usegmt=True)}\r\n"
    return f"Retry-After: {hint:g}\r\n"


_Shape: TypeAlias = Callable[[Fault, random.Random, Clock, Vintage], Reply]

_SHAPES: Final[dict[FaultKind, _Shape]] = {
    "rate_limited": _rate_limited,
    "server_error": _page,
    "unavailable": _page,
    "limiter_down": lambda *_: refusal(503, "the rate limiter cannot be reached", code="rate_limit_unavailable"),
    "dropped": lambda *_: no_answer(),
    "lost_answer": lambda *_: no_answer(),
    "reset": lambda *_: no_answer("reset"),
    "empty": lambda *_: Reply(200, b""),
    "not_json": lambda *_: Reply(200, b"upstream says hello\n", content_type="text/plain"),
    "refused": lambda *_: refusal_in_envelope(200, "the system is busy (request id: {id})"),
    "unauthorized": lambda *_: unauthorized("a key"),
    "no_money": lambda _rule, _rng, _clock, vintage: no_money(vintage.money),
}
