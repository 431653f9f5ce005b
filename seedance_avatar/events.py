"""Typed events, for whoever wants to watch, and the protocol of the watcher.

Nothing here costs anything while nobody listens: the emitting side tests one attribute. No event holds
a key or the query string of a URL except inside an ``AssetSource``, whose ``repr`` hides it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from .errors import AvatarError, InvalidInput

__all__ = [
    "Accepted",
    "Event",
    "IngestEnded",
    "IngestStarted",
    "LimitChanged",
    "Observer",
    "Outage",
    "Progress",
    "ReferenceRegistered",
    "RequestFinished",
    "RetryPlanned",
    "Settled",
    "callable_observer",
]

Lane: TypeAlias = Literal["submit", "query"]


@attrs.frozen(kw_only=True)
class RequestFinished:
    """One HTTP round trip is over, well or badly.

    :ivar at: the loop's clock when it ended, seconds; so everywhere below.
    :ivar lane: which limit it counted against.
    :ivar method: ``GET`` or ``POST``.
    :ivar path: the path, without query.
    :ivar attempt: 1 for the first time of this call, 2 for the first repeat, and so on.
    :ivar elapsed: seconds on the wire.
    :ivar status: the HTTP status, or None when there was no answer.
    :ivar error: what went wrong, or None.
    :ivar request_id: the service's id of this request, or None.
    :ivar about: the label of the source or the id that the call was about.
    """

    at: float
    lane: Lane
    method: str
    path: str
    attempt: int
    elapsed: float
    status: int | None
    error: AvatarError | None
    request_id: str | None
    about: str | None


@attrs.frozen(kw_only=True)
class RetryPlanned:
    """A call will be repeated ``delay`` seconds from now because of ``error``."""

    at: float
    lane: Lane
    attempt: int
    delay: float
    error: AvatarError
    about: str | None


@attrs.frozen(kw_only=True)
class LimitChanged:
    """The rate a session holds itself to changed: ``rate`` requests a second (None: unlimited), and why."""

    at: float
    lane: Lane
    rate: float | None
    why: str


@attrs.frozen(kw_only=True)
class Outage:
    """The service cannot be reached (``down`` True), or can be again (False)."""

    at: float
    down: bool
    error: AvatarError | None


@attrs.frozen(kw_only=True)
class IngestStarted:
    """An ingest (``kind`` "assets") or a batch of generations (``kind`` "videos") began; ``ingest`` numbers it."""

    at: float
    ingest: int
    kind: str


@attrs.frozen(kw_only=True)
class Accepted:
    """The service accepted a submission: from here on the id is known.

    :ivar ingest: the number of the ingest, or None for a single call.
    :ivar source: what was submitted.
    :ivar asset: the :class:`~seedance_avatar.Asset` or :class:`~seedance_avatar.VideoTask` it became.
    """

    at: float
    ingest: int | None
    source: Any
    asset: Any


@attrs.frozen(kw_only=True)
class ReferenceRegistered:
    """An image that a generation was refused for became an asset, and the generation is submitted once more.

    :ivar request: the :class:`~seedance_avatar.GenerationRequest` as it was refused.
    :ivar asset: what the image became; its ``source`` names the image.
    :ivar error: the refusal.
    """

    at: float
    request: Any
    asset: Any
    error: AvatarError


@attrs.frozen(kw_only=True)
class Settled:
    """A source of an ingest has its outcome.

    :ivar outcome: one of the five.
    :ivar accepted_after: seconds from taking the source to its acceptance, or None.
    :ivar active_after: seconds from acceptance to the answer that told the end, or None.
    """

    at: float
    ingest: int
    outcome: Any
    accepted_after: float | None
    active_after: float | None


@attrs.frozen(kw_only=True)
class IngestEnded:
    """An ingest is over; ``report`` is its :class:`~seedance_avatar.IngestReport`."""

    at: float
    ingest: int
    report: Any


Event: TypeAlias = (
    RequestFinished
    | RetryPlanned
    | LimitChanged
    | Outage
    | IngestStarted
    | Accepted
    | ReferenceRegistered
    | Settled
    | IngestEnded
)


Progress: TypeAlias = Callable[[int, int | None], object]
"""Called on the loop with the bytes received so far and in all, or None where the host does not say."""


class Observer(Protocol):
    """Anything that can be called with an event; a plain function will do.

    It is called on the loop, between two steps of the work: it must not block. What it raises is logged
    once and goes no further.
    """

    def __call__(self, event: Event, /) -> None:
        """Take note of ``event``."""


def callable_observer(observer: Any) -> Observer:  # noqa: ANN401 - what it is, is the question
    """Return ``observer``; one that nobody would call, or await, is told where it is given.

    :raises InvalidInput: it cannot be called, or is a coroutine function.
    """
    if not callable(observer) or any(map(inspect.iscoroutinefunction, (observer, type(observer).__call__))):
        message = "observer must be a plain function: it is called with each event, and not awaited"
        raise InvalidInput(message)
    checked: Observer = observer
    return checked
