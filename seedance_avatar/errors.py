"""The error tree: every way in which a call can end badly, as a type with facts.

An error carries facts (a status, a code, an id), never a live response, a header or a key, and its
text is one printable line that says what happened, to what, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .text import safe_redacted

if TYPE_CHECKING:
    from .models import Asset, VideoTask

__all__ = [
    "ApiError",
    "AssetFailed",
    "AuthError",
    "AvatarError",
    "AvatarWarning",
    "ConnectionFailed",
    "ContentRefused",
    "GenerationFailed",
    "IngestError",
    "InvalidInput",
    "InvalidRequest",
    "InvalidSource",
    "JournalError",
    "NotFound",
    "ProtocolError",
    "QuotaExhausted",
    "RateLimited",
    "ServerError",
    "SessionStateError",
    "SubmissionInDoubt",
    "WaitTimeout",
    "WebhookRefused",
]


ErrorT = TypeVar("ErrorT", bound="AvatarError")


def _revive(cls: type[ErrorT], args: tuple[Any, ...], facts: dict[str, Any]) -> ErrorT:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class AvatarError(Exception):
    """The root of everything this library raises on its own account.

    :ivar message: what happened, in one printable line.
    :ivar about: the source, asset or task it happened to, as a short label without secrets, or None.
    """

    hint: str = ""

    def __init__(self, message: str, *, about: str | None = None) -> None:
        self.message: str = safe_redacted(message, 600)
        self.about: str | None = None if about is None else safe_redacted(about)
        super().__init__(self.message)

    def describe(self) -> str:
        """Return the facts of this error without what it is about and without the advice."""
        return self.message

    def concerning(self, about: str) -> Self:
        """Return a copy of this error that names ``about``; without traceback, so that it holds no frames."""
        copy = _revive(type(self), self.args, self.__dict__)
        copy.about = safe_redacted(about)
        return copy

    def __str__(self) -> str:
        text = self.describe() if self.about is None else f"{self.about}: {self.describe()}"
        return f"{text}; {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.args, self.__dict__.copy())


class InvalidInput(AvatarError, ValueError):
    """An argument was refused here; nothing was sent."""


class InvalidSource(InvalidInput):
    """A source was refused here, before sending: not a public URL, a name too long, an unknown type."""


class SessionStateError(AvatarError, RuntimeError):
    """The session or stream is not open, is closed or draining, or belongs to another loop or process."""


class JournalError(AvatarError):
    """The journal cannot be used: not a journal, another version, held by another process, or not writable.

    :ivar unwritten: what has happened and could not be recorded, oldest first; each names its id.
    """

    def __init__(self, message: str, *, about: str | None = None, unwritten: Sequence[Any] = ()) -> None:
        super().__init__(message, about=about)
        self.unwritten: tuple[Any, ...] = tuple(unwritten)


class ConnectionFailed(AvatarError):
    """The service was not reached: nothing was sent, or (for a question) no answer came in all attempts.

    :ivar fatal: True when another try cannot help (the service's certificate is not trusted).
    :ivar hint: what to do next.
    :ivar answer_lost: True when a question (or what does no harm twice) was sent, and no whole answer came.
    """

    hint: str = "check the network and the base URL, then try again"

    def __init__(
        self,
        message: str,
        *,
        about: str | None = None,
        fatal: bool = False,
        answer_lost: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, about=about)
        if hint is not None:
            self.hint = hint
        self.fatal = fatal
        self.answer_lost = answer_lost


class SubmissionInDoubt(AvatarError):
    """A submission was sent and its answer was lost: it may exist, and a repeat may make a duplicate.

    :ivar evidence: what was read of the answer, cut and printable, or None.
    :ivar request_id: the service's id of the request, where an answer's head was read, or None.
    """

    hint = "it may exist at the service: it is not sent again by itself"

    def __init__(
        self,
        message: str,
        *,
        about: str | None = None,
        evidence: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, about=about)
        self.evidence: str | None = None if evidence is None else safe_redacted(evidence)
        self.request_id: str | None = None if request_id is None else safe_redacted(request_id, 128)


class ProtocolError(AvatarError):
    """The service answered with something that cannot be read as an answer of its contract.

    :ivar status: the HTTP status it came with, or None.
    :ivar body: the start of what was read, cut and printable.
    """

    def __init__(self, message: str, *, about: str | None = None, status: int | None = None, body: str = "") -> None:
        super().__init__(message, about=about)
        self.status = status
        self.body: str = safe_redacted(body)


class ApiError(AvatarError):
    """The service answered, and said no.

    :ivar status: the HTTP status (200 too: the service refuses with ``success: false`` as well).
    :ivar code: the service's code as text, empty when it gave none.
    :ivar message: the service's own words, made safe to show.
    :ivar request_id: what to quote to the service's support, or None.
    :ivar retryable: True when the same call may succeed later without any change.
    :ivar retry_after: seconds that the service asked to wait, or None.
    """

    def __init__(  # noqa: PLR0913 - an error is its facts, all but the first by keyword
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        request_id: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        about: str | None = None,
    ) -> None:
        super().__init__(message, about=about)
        self.status = status
        self.code: str = safe_redacted(code, 80)
        self.request_id: str | None = None if request_id is None else safe_redacted(request_id, 128)
        self.retryable = retryable
        self.retry_after = retry_after

    def describe(self) -> str:
        """Return status, code, the service's words and the request id."""
        head = f"HTTP {self.status} {self.code}".rstrip()
        tail = f" (request id: {self.request_id})" if self.request_id else ""
        return f"{head}: {self.message}{tail}"


class AuthError(ApiError):
    """The key was refused (401), or may not do this (403 without a word of money)."""

    hint = "check the API key (TOAPIS_API_KEY) and what it may do"


class QuotaExhausted(ApiError):
    """The account has no money or quota left."""

    hint = "top up the account, then run the same again"


class RateLimited(ApiError):
    """Too fast (429), or the service's limiter is down (503 ``rate_limit_unavailable``): nothing was done."""

    hint = "wait, or lower the limits"


class NotFound(ApiError):
    """The service does not know this id."""


class InvalidRequest(ApiError):
    """The service refused the request as it stands; the same request will be refused again."""


class ContentRefused(ApiError):
    """The service's content policy refused the material or the prompt."""


class ServerError(ApiError):
    """The service failed (5xx, 408)."""

    hint = "try again later"


class AssetFailed(AvatarError):
    """The service accepted the asset and failed to make it active; that is final.

    :ivar asset: the asset as last seen, its ``reason`` included.
    """

    def __init__(self, asset: Asset, *, about: str | None = None) -> None:
        reason = asset.reason or "the service gave no reason"
        super().__init__(f"asset {asset.asset_id} failed: {reason}", about=about)
        self.asset = asset


class GenerationFailed(AvatarError):
    """The service accepted the generation and failed to make the video; that is final.

    :ivar task: the task as last seen, its ``reason`` included.
    """

    def __init__(self, task: VideoTask, *, about: str | None = None) -> None:
        reason = task.reason or "the service gave no reason"
        super().__init__(f"video task {task.task_id} {task.status}: {reason}", about=about)
        self.task = task


class WaitTimeout(AvatarError, TimeoutError):
    """The wait is over, the work is not: it may still finish, and can be waited for again.

    :ivar last: the asset or task as last seen, or None when it was never seen.
    """

    hint = "it may still finish: wait for it again by its id"

    def __init__(self, message: str, *, last: Asset | VideoTask | None = None, about: str | None = None) -> None:
        super().__init__(message, about=about)
        self.last = last


class AvatarWarning(UserWarning):
    """Something that is let through and may be a mistake: an unknown model, assets of two accounts."""


class WebhookRefused(AvatarError):
    """A call did not prove that it is a webhook of the service: answer it with 400 and do nothing else."""


class IngestError(AvatarError, ExceptionGroup[AvatarError]):
    """Not every source became active: one exception for each that did not.

    :ivar exceptions: the errors, each naming its source; use ``except*`` to sort them by type.
    :ivar outcomes: the outcomes that were not active, in the order in which they were known.
    """

    def __new__(cls, message: str, exceptions: Sequence[AvatarError], *, outcomes: Sequence[Any] = ()) -> Self:
        """Build the group; ``outcomes`` is for ``__init__``."""
        del outcomes
        return super().__new__(cls, message, exceptions)

    def __init__(self, message: str, exceptions: Sequence[AvatarError], *, outcomes: Sequence[Any] = ()) -> None:
        # The group's own ``message`` cannot be assigned, so AvatarError.__init__ has no place here.
        ExceptionGroup.__init__(self, message, exceptions)
        self.about: str | None = None
        self.outcomes: tuple[Any, ...] = tuple(outcomes)

    def derive(self, excs: Sequence[AvatarError], /) -> IngestError:  # type: ignore[override]  # narrower on purpose: a part of us is one of us
        """Return the part of this group that holds ``excs`` (``except*`` and ``split`` use it)."""
        kept = set(map(id, excs))
        return IngestError(
            self.message,
            excs,
            outcomes=[o for o in self.outcomes if id(getattr(o, "error", None)) in kept],
        )
