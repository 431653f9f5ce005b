"""A single call that waits for one asset or video, through the poller of the session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic

import attrs

from seedance_avatar.client.tasks import ENDS_THE_PROGRAM
from seedance_avatar.errors import AvatarError, WaitTimeout
from seedance_avatar.options import check_positive
from seedance_avatar.polling.expiry import GRACE, STALLED
from seedance_avatar.polling.schedule import PendingItem
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .engine import A, Engine


@attrs.define(eq=False, repr=False)
class _Waiter(Generic[A]):
    question: Callable[[], Request]
    read: Callable[[Response], A]
    result: asyncio.Future[A]
    last: A | None
    teaches: bool
    misses: int = 0

    def saw(self, item: A) -> None:
        self.last = item

    def ended(self, item: A, error: AvatarError | None) -> None:
        if self.result.done():
            return
        if error is None:
            self.result.set_result(item)
            return
        if isinstance(error.__cause__, ENDS_THE_PROGRAM):
            self.result.set_exception(error.__cause__)
            return
        # A copy: the poller may end many waits with one error, which is raised in a task for each.
        own = error.concerning(self.question().about)
        if isinstance(own, WaitTimeout):
            own.last = self.last
        self.result.set_exception(own)


async def _first_look(
    engine: Engine, question: Request, read: Callable[[Response], A], deadline: float, seen: A | None
) -> A:
    """Return the item as it is now; the deadline of the wait bounds this too.

    Where the loop stalled over the deadline, what arrived meanwhile was not read: so there is one look more.
    """
    clock = engine.client.clock
    until = deadline
    while True:
        scope = asyncio.timeout_at(until)
        try:
            async with scope:
                return await engine.client.call(question, read, flow=engine.asking)
        except TimeoutError:
            if not scope.expired():
                raise
            if until > deadline or clock() - deadline < STALLED:
                message = "no answer came before the timeout"
                raise WaitTimeout(message, last=seen, about=question.about) from None
            until = clock() + GRACE


async def wait_until_finished(  # noqa: PLR0913 - facts of one wait, all by keyword
    engine: Engine,
    seen: A | None,
    *,
    timeout: float,  # noqa: ASYNC109 - its error carries the item as last seen
    question: Request,
    read: Callable[[Response], A],
    kind: Callable[[A | None], str | None],
    failure: Callable[[A], AvatarError | None],
) -> A:
    """Poll until the item that ``question`` asks about is finished, and return it; cancelled, it is polled no more.

    :param seen: what the caller last saw of it, or None.
    :param timeout: seconds from now after which to give up, within two seconds, whatever becomes of the looks.
    :param kind: given what was last seen, the kind of item whose completion times apply, or None.
    :param failure: the error to raise for an item that is finished, or None when it succeeded.
    """
    check_positive("timeout", timeout)
    now, accepted_at = engine.client.clock(), engine.take_accepted_at(question.about)
    if accepted_at is None and (seen is None or not seen.is_terminal):
        # It may have been finished for days, so look before the schedule does, which would take it for new.
        seen = await _first_look(engine, question, read, now + timeout, seen)
    if seen is None or not seen.is_terminal:
        known = kind(seen)
        teaches = accepted_at is not None and known is not None
        result: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        pending = PendingItem(
            kind=known or "image",
            accepted_at=now if accepted_at is None else accepted_at,
            deadline=now + timeout,
            payload=_Waiter(lambda: question, read, result, seen, teaches),
            teaches=teaches,
        )
        engine.poller.add(pending)
        try:
            seen = await result
        finally:
            engine.poller.discard(pending)
    if (error := failure(seen)) is not None:
        raise error
    return seen
