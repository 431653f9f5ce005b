"""Decides which outcome an error, a journal's record or another source's outcome means, and how it is recorded."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

import attrs

from seedance_avatar.errors import (
    ApiError,
    AssetFailed,
    AuthError,
    AvatarError,
    ConnectionFailed,
    GenerationFailed,
    InvalidInput,
    InvalidSource,
    JournalError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    SubmissionInDoubt,
    WaitTimeout,
)
from seedance_avatar.models import AssetSource
from seedance_avatar.outcomes import Active, AnyOutcome, Failed, InDoubt, Pending, Unsent
from seedance_avatar.text import redact_url

from .adapter import Adapter

if TYPE_CHECKING:
    from seedance_avatar.journal.journal import Journal
    from seedance_avatar.journal.records import Record

__all__ = [
    "UNRECORDED",
    "NotAccepted",
    "key_conflict",
    "outcome_for",
    "outcome_if_same",
    "outcome_of_error",
    "outcome_of_record",
    "record_end",
    "record_not_accepted",
    "shown_of",
]

NotAccepted = type[Failed[Any, Any]] | type[InDoubt[Any, Any]] | type[Unsent[Any, Any]]

UNRECORDED: Final = "it was sent a moment ago by this process, and what came of that is not in the journal"


def outcome_of_error(error: AvatarError) -> tuple[NotAccepted, bool]:
    """Return the outcome of a submission that met ``error``, and whether the next would meet the same.

    A refusal of the source is a failure, by the service or here before sending; a refusal of the account, a network
    that cannot be reached and a journal that cannot be written are not the source's fault: nothing of it exists, and
    nothing more is sent.
    """
    match error:
        case SubmissionInDoubt():
            return InDoubt, False
        case ConnectionFailed(answer_lost=True):
            return Unsent, False
        case AuthError() | QuotaExhausted() | ConnectionFailed() | RateLimited() | JournalError():
            return Unsent, True
        case ServerError():
            return Unsent, False
        case ApiError() | InvalidInput():
            return Failed, False
        case _:
            return Unsent, False


def key_conflict(source: AssetSource, other: str, *, earlier: bool = False) -> InvalidSource:
    """Return the refusal of ``source``, whose key stands for another source of its group.

    :param other: the type of that one, and what may be shown of its URL.
    :param earlier: it is known from an earlier run.
    """
    advice = "give each source a key of its own"
    if earlier:
        advice += ", or replace what the key stood for in an earlier run (on_changed='replace')"
    message = f"this {source.asset_type} has the key of another source of its group, {other}: {advice}"
    return InvalidSource(message, about=source.label)


def shown_of(source: AssetSource) -> str:
    """Return the type of ``source`` and what may be shown of its URL."""
    return f"{source.asset_type} {redact_url(source.source_url)}"


def outcome_of_record(
    record: Record,
    source: Any,  # noqa: ANN401 - whatever the adapter deals in
    adapter: Adapter[Any, Any],
    *,
    unfinished: AvatarError | None = None,
    earlier: bool = False,
) -> AnyOutcome:
    """Return what a journal's ``record`` of ``source`` means as an outcome, with nothing more sent or asked.

    :param unfinished: why it is not looked at again, where it was accepted and is not finished.
    :param earlier: whether an earlier run came to it.
    """
    label = adapter.label(source)
    item_id = record.remote_id
    if item_id is None:
        error = SubmissionInDoubt(UNRECORDED) if record.state in {"planned", "sending"} else record.error()
        if record.state == "refused":
            return Failed(source=source, error=error.concerning(label), earlier=earlier)
        return InDoubt(source=source, error=error.concerning(label))
    status = record.state if record.state in {"active", "failed"} else "processing"
    item = adapter.from_record(source, record.target_id, item_id, status)
    match record.state:
        case "active":
            return Active(source=source, asset=item)
        case "failed":
            item = attrs.evolve(item, reason=record.reason)
            error = adapter.failure(item) or record.error()
            return Failed(source=source, asset=item, error=error.concerning(label), earlier=earlier)
        case _:
            error = unfinished or AvatarError("the ingest ended before it was looked at again")
            return Pending(source=source, asset=item, error=concerning_pending(error, label, item_id))


def concerning_pending(error: AvatarError, label: str, item_id: str) -> AvatarError:
    """Return a copy of ``error`` that names a source and the id that it was accepted as."""
    return error.concerning(f"{label}, accepted as {item_id}")


def outcome_for(source: Any, outcome: AnyOutcome, adapter: Adapter[Any, Any]) -> AnyOutcome:  # noqa: ANN401 - whatever the adapter deals in
    """Return ``outcome`` as it is for ``source``, another source of the same submission."""
    label = adapter.label(source)
    facts: dict[str, Any] = {"source": source}
    item = None if isinstance(outcome, InDoubt | Unsent) else outcome.asset
    if item is not None:
        facts["asset"] = item = adapter.for_source(item, source)
    if isinstance(outcome, Pending):
        facts["error"] = concerning_pending(outcome.error, label, adapter.item_id(item))
    elif not isinstance(outcome, Active):
        facts["error"] = outcome.error.concerning(label)
    if isinstance(error := facts.get("error"), WaitTimeout):
        error.last = item
    return attrs.evolve(outcome, **facts)


def outcome_if_same(
    source: Any,  # noqa: ANN401 - whatever the adapter deals in
    first: Any,  # noqa: ANN401 - whatever the adapter deals in
    outcome: AnyOutcome,
    adapter: Adapter[Any, Any],
) -> AnyOutcome:
    """Return the ``outcome`` of ``first`` for ``source``, which has its key, or the refusal of another source."""
    if adapter.content(source) == adapter.content(first):
        return outcome_for(source, outcome, adapter)
    return Failed(source=source, error=key_conflict(source, shown_of(first)))


def record_not_accepted(journal: Journal, fingerprint: bytes, end: NotAccepted, error: AvatarError) -> Awaitable[None]:
    """Write down how a submission ended that has no id; it is on disk once what this returns was awaited."""
    if end is InDoubt:
        return journal.in_doubt(fingerprint, error)
    return journal.refused(fingerprint, error) if end is Failed else journal.unsent(fingerprint)


def record_end(journal: Journal, fingerprint: bytes, failure: AvatarError | None) -> None:
    """Note how what was accepted ended: active, or with ``failure``, of which the service's own reason is kept."""
    match failure:
        case None:
            journal.ended(fingerprint, "active")
        case AssetFailed(asset=item) | GenerationFailed(task=item):
            # Whoever reads it back puts our words around the reason again.
            journal.ended(fingerprint, "failed", item.reason)
        case _:
            journal.ended(fingerprint, "failed", str(failure))
