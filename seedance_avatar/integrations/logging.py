"""An observer that logs events with the standard ``logging``, with their facts in ``extra`` fields.

.. code-block:: python

    session = AvatarSession(observer=LoggingObserver())

Messages are short and hold no secrets. The fields, for logs in JSON, are ``avatar_event`` (the event's name) and one
``avatar_<fact>`` for each fact that is a string, number or boolean.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import attrs

from seedance_avatar.events import (
    Accepted,
    Event,
    IngestEnded,
    IngestStarted,
    LimitChanged,
    Outage,
    RequestFinished,
    RetryPlanned,
    Settled,
)
from seedance_avatar.outcomes import Active, Failed

__all__ = ["LoggingObserver"]

_PLAIN: Final = (str, int, float, bool, type(None))


@attrs.frozen
class LoggingObserver:
    """Logs every event to ``logger``: normal progress at DEBUG, the rest at INFO or WARNING.

    :ivar logger: by default the logger ``seedance_avatar.events``.
    """

    logger: logging.Logger = attrs.field(factory=lambda: logging.getLogger("seedance_avatar.events"))

    def __call__(self, event: Event, /) -> None:
        """Log ``event``."""
        level, message, arguments = _message(event)
        if self.logger.isEnabledFor(level):
            self.logger.log(level, message, *arguments, extra=_fields(event))


def _message(event: Event) -> tuple[int, str, tuple[Any, ...]]:  # noqa: C901, PLR0911 - one line for each event
    match event:
        case RequestFinished():
            result = event.error or event.status
            return logging.DEBUG, "%s %s %.3f s: %s", (event.method, event.path, event.elapsed, result)
        case RetryPlanned():
            return logging.INFO, "retry in %.2f s after attempt %d: %s", (event.delay, event.attempt, event.error)
        case LimitChanged():
            rate = "unlimited" if event.rate is None else f"{event.rate:.3g} a second"
            return logging.INFO, "limit of the %s lane: %s (%s)", (event.lane, rate, event.why)
        case Outage(down=True):
            words = "an outage began, nothing more is sent until the service answers: %s"
            return logging.WARNING, words, (event.error,)
        case Outage():
            return logging.WARNING, "the service answers again", ()
        case IngestStarted():
            return logging.INFO, "run %d of %s began", (event.ingest, event.kind)
        case Accepted():
            item = event.asset
            return logging.DEBUG, "accepted: %s", (getattr(item, "asset_id", None) or item.task_id,)
        case Settled(outcome=Active(source=source)):
            return logging.DEBUG, "active: %s", (_label(source),)
        case Settled(outcome=Failed(error=error)):
            return logging.WARNING, "failed: %s", (error,)
        case Settled(outcome=outcome):
            return logging.WARNING, "%s: %s", (type(outcome).__name__, outcome.error)
        case IngestEnded():
            return logging.INFO, "run %d ended: %r", (event.ingest, event.report)
    return logging.DEBUG, "%r", (event,)


def _label(source: Any) -> str:  # noqa: ANN401 - an AssetSource, a GenerationRequest, or anything that a user passed in its place
    return getattr(source, "label", None) or f"<{type(source).__name__}>"


def _fields(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {"avatar_event": type(event).__name__}
    for attribute in attrs.fields(type(event)):
        value = getattr(event, attribute.name)
        if isinstance(value, _PLAIN):
            fields[f"avatar_{attribute.name}"] = value
    error = getattr(event, "error", None)
    if error is not None:
        fields["avatar_error"] = str(error)
    if isinstance(event, Settled):
        fields["avatar_outcome"] = type(event.outcome).__name__
        fields["avatar_about"] = _label(event.outcome.source)
    elif isinstance(event, Accepted):
        fields["avatar_about"] = _label(event.source)
        fields["avatar_asset_id"] = getattr(event.asset, "asset_id", None) or event.asset.task_id
    return fields
