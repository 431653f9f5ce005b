"""One caller waiting for one asset or task, served by the session's polling hub."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import attrs

from seedance_avatar.client.poller import Poller
from seedance_avatar.errors import AvatarError, WaitTimeout
from seedance_avatar.polling.schedule import PendingItem
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

__all__ = [
    "Recent",
    "wait_for",
]

_KEPT: Final = 1_000


@attrs.define(eq=False, repr=False)
class Recent:
    """The times of acceptance by id, each until it is asked for; the oldest are forgotten first."""

    # An OrderedDict: a plain one would search for its first through all that went.
    _times: OrderedDict[str, float] = attrs.field(factory=OrderedDict)

    def note(self, item_id: str, now: float) -> None:
        """Note that ``item_id`` was accepted ``now``."""
        self._times[item_id] = now
        if len(self._times) > _KEPT:
            self._times.popitem(last=False)

    def take(self, item_id: str) -> float | None:
        """Return when ``item_id`` was accepted, once, or None."""
        return self._times.pop(item_id, None)


A = TypeVar("A")


@attrs.define(eq=False, repr=False)
class _Waiter(Generic[A]):
    ask: Request
    reader: Callable[[Response], A]
    result: asyncio.Future[A]
    last: A | None
    teaches: bool
    misses: int = 0

    def question(self) -> Request:
        return self.ask

    def read(self, answer: Response) -> A:
        return self.reader(answer)

    def saw(self, item: A) -> None:
        self.last = item

    def ended(self, item: A, error: AvatarError | None) -> None:
        if self.result.done():
            return
        if error is None:
            self.result.set_result(item)
            return
        # Its own copy: the hub ends many waits with one error, and each is raised in a task of its own.
        own = error.concerning(self.ask.about)
        if isinstance(own, WaitTimeout):
            own.last = self.last  # type: ignore[assignment]  # an Asset or a VideoTask, whichever is waited for
        self.result.set_exception(own)


async def wait_for(  # noqa: PLR0913 - facts of one wait, all by keyword
    poller: Poller,
    *,
    kind: str,
    question: Request,
    read: Callable[[Response], A],
    accepted_at: float,
    deadline: float,
    last: A | None,
    teaches: bool,
) -> A:
    """Poll until the answer to ``question`` is terminal, and return it, success or failure.

    :param kind: whose law of time it follows.
    :param accepted_at: when it was accepted, by the loop's clock.
    :param deadline: when to give up, after at least one look past it.
    :param last: what was last seen of it, for a :class:`WaitTimeout`.
    :param teaches: False when ``accepted_at`` is a guess, from which nothing must be learned.
    :raises WaitTimeout: the deadline passed.
    :raises AvatarError: polling was refused, or nothing was reached for as long as patience allows.

    Cancelled, the polling of it stops.
    """
    result: asyncio.Future[A] = asyncio.get_running_loop().create_future()
    waiter: _Waiter[A] = _Waiter(question, read, result, last, teaches)
    pending = PendingItem(kind=kind, accepted_at=accepted_at, deadline=deadline, payload=waiter, teaches=teaches)
    poller.add(pending)
    try:
        return await result
    finally:
        poller.discard(pending)
