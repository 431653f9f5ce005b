"""Events of a session, and the protocol of an observer, which receives them.

Without an observer no event is made. No event holds a key, or the query of a URL except inside an ``AssetSource``,
whose ``repr`` hides it. ``at`` is always the time on the event loop's clock, in seconds, and ``about`` the label of
the source, or the id, that a call was about.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from .errors import AvatarError, InvalidInput

__all__ = [
    "Accepted",
    "CallAbandoned",
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
    """One HTTP round trip ended, with or without an answer.

    :ivar lane: the limit that it counted against.
    :ivar method: ``GET`` or ``POST``.
    :ivar path: the path, without query.
    :ivar attempt: 1 for the first attempt of a call, 2 for the first repeat, and so on.
    :ivar elapsed: seconds from sending to the end.
    :ivar status: the HTTP status, or None when there was no answer.
    :ivar error: what went wrong, or None.
    :ivar request_id: the service's id of this request, or None.
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
    """The rate that a session keeps to has changed: ``rate`` requests a second (None: unlimited), and why."""

    at: float
    lane: Lane
    rate: float | None
    why: str


@attrs.frozen(kw_only=True)
class Outage:
    """The service cannot be reached or is ill (``down`` is True), or answers again (False).

    :ivar error: why, or None when it answers again.
    :ivar ill: True when it is reached, but its answers are lost, cannot be read, are pages of HTML or 5xx.
    """

    at: float
    down: bool
    error: AvatarError | None
    ill: bool = False


@attrs.frozen(kw_only=True)
class IngestStarted:
    """An ingest (``kind`` is "assets") or a batch of generations ("videos") began; ``ingest`` is its number."""

    at: float
    ingest: int
    kind: str


@attrs.frozen(kw_only=True)
class Accepted:
    """The service accepted a submission, so that its id is known.

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
    """An image for which a generation was refused became an asset; the generation is now submitted with the asset.

    :ivar request: the :class:`~seedance_avatar.GenerationRequest` that was refused.
    :ivar asset: the asset made of the image; its ``source`` names the image.
    :ivar error: the refusal.
    """

    at: float
    request: Any
    asset: Any
    error: AvatarError


@attrs.frozen(kw_only=True)
class Settled:
    """A source of an ingest has its outcome.

    :ivar outcome: ``Active``, ``Failed``, ``Pending``, ``InDoubt`` or ``Unsent``.
    :ivar accepted_after: seconds from reading the source to its acceptance, or None.
    :ivar active_after: seconds from acceptance to the answer with the final status, or None.
    """

    at: float
    ingest: int
    outcome: Any
    accepted_after: float | None
    active_after: float | None


@attrs.frozen(kw_only=True)
class CallAbandoned:
    """What became of a single call that submits and whose caller was cancelled, or whose timeout passed.

    :ivar about: the label of what was submitted.
    :ivar item_id: the service's id of it (of a file: its URL) where it was accepted, else None.
    :ivar error: :class:`~seedance_avatar.SubmissionInDoubt` where it may exist, another error where nothing of it
        does, None where it was accepted.
    """

    at: float
    about: str
    item_id: str | None
    error: AvatarError | None


@attrs.frozen(kw_only=True)
class IngestEnded:
    """An ingest ended; ``report`` is its :class:`~seedance_avatar.IngestReport`."""

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
    | CallAbandoned
    | IngestEnded
)


Progress: TypeAlias = Callable[[int, int | None], object]
"""Called in the event loop with the bytes received so far and the size, or None where the host does not say.

What it raises ends the download, and leaves it: as itself, or, where Python would take it for another thing
(``CancelledError``, ``GeneratorExit``, ``StopIteration``, ``StopAsyncIteration``), as a :class:`RuntimeError`."""


class Observer(Protocol):
    """A callable that takes an event; a plain function will do.

    It is called in the event loop and must not block. What it raises, a ``CancelledError`` too, is logged once and
    otherwise ignored; but the first ``KeyboardInterrupt`` or ``SystemExit`` leaves the loop, as Ctrl-C does, once the
    step that is under way has come to its end.
    """

    def __call__(self, event: Event, /) -> None:
        """Handle ``event``."""


def callable_observer(observer: Any) -> Observer:  # noqa: ANN401 - its type is what is checked
    """Return ``observer`` if it can be used as one.

    :raises InvalidInput: it is not callable, or is a coroutine function, which would never be awaited.
    """
    if not callable(observer) or any(map(inspect.iscoroutinefunction, (observer, type(observer).__call__))):
        message = "observer must be a plain function, not a coroutine function: it is called with each event"
        raise InvalidInput(message)
    checked: Observer = observer
    return checked
