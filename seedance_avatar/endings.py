"""How things end that do not end well: a submission that was not accepted, a look that went wrong. Pure."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from .errors import (
    ApiError,
    AuthError,
    AvatarError,
    ConnectionFailed,
    InvalidInput,
    JournalError,
    NotFound,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    SubmissionInDoubt,
)
from .outcomes import Failed, InDoubt, Unsent

__all__ = ["NOT_FOUND_GRACE", "Missed", "NotAccepted", "ending", "missed"]

NOT_FOUND_GRACE: Final = 60.0
"""Seconds after acceptance during which a 404 only means that not every replica knows the id yet."""

NotAccepted = type[Failed[Any, Any]] | type[InDoubt[Any, Any]] | type[Unsent[Any, Any]]


def ending(error: AvatarError) -> tuple[NotAccepted, bool]:
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


Missed: TypeAlias = Literal["again", "late", "end", "end all"]


def missed(  # noqa: PLR0911, PLR0913 - a table of cases, each with its answer
    error: AvatarError, *, age: float, late: bool, misses: int, attempts: int, out_of_patience: bool
) -> Missed:
    """Return what a look that met ``error`` means for the thing that was looked at.

    :param age: seconds since it was accepted.
    :param late: whether its deadline has passed.
    :param misses: looks before this one that went wrong, in a row.
    :param attempts: after how many misses in a row a refusal is believed.
    :param out_of_patience: whether nothing has been let through, or reached, for as long as patience allows.
    :returns: look ``again`` after a pause; it is too ``late``; ``end`` it with the error; ``end all`` that is watched.
    """
    match error:
        case AuthError(status=401):
            return "end all"
        case NotFound() if age < NOT_FOUND_GRACE:
            return "late" if late else "again"
        case RateLimited():
            return "end" if out_of_patience else "again"
        case ConnectionFailed():
            # Past its deadline too: a network that is down for a moment must not expire everything.
            return "end all" if out_of_patience else "end" if error.fatal else "again"
        case ProtocolError() | ServerError():
            return "late" if late and misses + 1 >= attempts else "again"
        case NotFound() | AuthError() | QuotaExhausted():
            return "end"
        case _:
            # A refusal of a question about something that exists: more likely a gateway's mood than an answer.
            return "again" if misses + 1 < attempts else "end"
