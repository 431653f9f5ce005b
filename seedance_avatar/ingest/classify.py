"""How items end that do not end well: a submission that was not accepted, a look that went wrong. Pure."""

from __future__ import annotations

from typing import Any

from seedance_avatar.errors import (
    ApiError,
    AuthError,
    AvatarError,
    ConnectionFailed,
    InvalidInput,
    JournalError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    SubmissionInDoubt,
)
from seedance_avatar.outcomes import Failed, InDoubt, Unsent

__all__ = [
    "NotAccepted",
    "outcome_of_error",
]

NotAccepted = type[Failed[Any, Any]] | type[InDoubt[Any, Any]] | type[Unsent[Any, Any]]


def outcome_of_error(error: AvatarError) -> tuple[NotAccepted, bool]:
    """Return the outcome of a submission that met ``error``, and whether the next would meet the same.

    A refusal of the source is a failure; a refusal of the account, a network that cannot be reached and a
    journal that cannot be written are not the source's fault: nothing of it exists, and nothing more is sent.
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
