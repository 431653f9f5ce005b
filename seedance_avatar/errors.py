"""The exceptions of this library, all subclasses of :class:`AvatarError`.

An error carries facts (a status, a code, an id), never a live response, a header or a key. Its text is one printable
line without secrets that says what happened, to which source, asset or task, and what to do next.
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
    """Base class of every error that this library raises.

    :ivar message: what happened, in one printable line.
    :ivar about: the source, asset or task it happened to, as a short label without secrets, or None.
    :ivar hint: what to do next, or empty.
    """

    hint: str = ""

    def __init__(self, message: str, *, about: str | None = None, hint: str | None = None) -> None:
        if hint is not None:
            self.hint = hint
        self.message: str = safe_redacted(message, 600)
        self.about: str | None = None if about is None else safe_redacted(about)
        super().__init__(self.message)

    def describe(self) -> str:
        """Return the facts of this error, without ``about`` and ``hint``."""
        return self.message

    def concerning(self, about: str) -> Self:
        """Return a copy of this error with another ``about``; it has no traceback, so it keeps no frames alive."""
        copy = _revive(type(self), self.args, self.__dict__)
        copy.about = safe_redacted(about)
        return copy

    def __str__(self) -> str:
        text = self.describe() if self.about is None else f"{self.about}: {self.describe()}"
        return f"{text}; {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.args, self.__dict__.copy())


class InvalidInput(AvatarError, ValueError):
    """An argument is not valid; nothing was sent."""


class InvalidSource(InvalidInput):
    """A source is not valid, and was not sent: its URL is not public, a name is too long, its type is unknown."""


class SessionStateError(AvatarError, RuntimeError):
    """The session or stream is not open, is closed or draining, or belongs to another event loop or process."""


class JournalError(AvatarError):
    """The journal cannot be used: not a journal, another version, held by another process, or not writable.

    :ivar unwritten: changes that happened and could not be recorded, oldest first; each names its id.
    """

    def __init__(self, message: str, *, about: str | None = None, unwritten: Sequence[Any] = ()) -> None:
        super().__init__(message, about=about)
        self.unwritten: tuple[Any, ...] = tuple(unwritten)


class ConnectionFailed(AvatarError):
    """The service was not reached: nothing was sent, or a request that is safe to repeat got no answer in all attempts.

    :ivar fatal: True when another attempt cannot help (the service's certificate is not trusted).
    :ivar answer_lost: True when a request that is safe to repeat was sent, and no whole answer came.
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
        super().__init__(message, about=about, hint=hint)
        self.fatal = fatal
        self.answer_lost = answer_lost


class SubmissionInDoubt(AvatarError):
    """A submission was sent and its answer was lost: it may exist, and sending it again may make a duplicate.

    :ivar evidence: the part of the answer that was read, cut and printable, or None.
    :ivar request_id: the service's id of the request, where the answer's headers were read, or None.
    """

    hint = (
        "it may exist at the service, so it is not sent again by itself: find out, then resolve it in the journal or "
        "send it again (on_in_doubt='resend')"
    )

    def __init__(
        self,
        message: str,
        *,
        about: str | None = None,
        evidence: str | None = None,
        request_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, about=about, hint=hint)
        self.evidence: str | None = None if evidence is None else safe_redacted(evidence)
        self.request_id: str | None = None if request_id is None else safe_redacted(request_id, 128)


class SubmissionTimeout(SubmissionInDoubt, TimeoutError):
    """The timeout of a call passed while its submission was on the wire; the answer is still waited for.

    Not in ``__all__``: catch :class:`SubmissionInDoubt`, or :class:`TimeoutError` for every timeout.
    """

    hint = "it may exist at the service: if an answer comes yet, the observer, the log and the journal get the id"


class ProtocolError(AvatarError):
    """The answer cannot be read, or is a page of HTML: it says nothing about the key, the request or the account.

    :ivar status: its HTTP status, or None.
    :ivar body: the start of its body, cut and printable.
    :ivar task: the finished task whose answer holds no URL of its video, or None; ``task.raw`` is the whole answer.
    """

    hint = "check the base URL, and what stands between (a proxy, a firewall), then try again"

    def __init__(  # noqa: PLR0913 - one argument for each fact, all but the first by keyword
        self,
        message: str,
        *,
        about: str | None = None,
        status: int | None = None,
        body: str = "",
        task: VideoTask | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, about=about, hint=hint)
        self.status = status
        self.task = task
        self.body: str = safe_redacted(body)


class ApiError(AvatarError):
    """The service refused a request.

    :ivar status: the HTTP status (it can be 200: the service also refuses with ``success: false``).
    :ivar code: the service's error code as text, empty when it gave none.
    :ivar message: the service's own words, made safe to show.
    :ivar request_id: the id to quote to the service's support, or None.
    :ivar retryable: True when the same call may succeed later without any change.
    :ivar retry_after: seconds that the service asked to wait, or None.
    """

    def __init__(  # noqa: PLR0913 - one argument for each fact, all but the first by keyword
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        request_id: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        about: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, about=about, hint=hint)
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
    """The key was refused (401), or a code or a clear word says that the key or the account may not do this."""

    hint = "check the API key (TOAPIS_API_KEY) and what it may do"


class QuotaExhausted(ApiError):
    """The account has no balance or quota left."""

    hint = "top up the account, then run the same again"


class RateLimited(ApiError):
    """Too many requests (429), or the service's limiter is down (503 ``rate_limit_unavailable``); nothing was done."""

    hint = "wait, or lower the limits"


class NotFound(ApiError):
    """The service does not know this id, or no longer has the file."""

    hint = "check the id, and that the key is of the account that has it; what is gone has to be submitted again"


class InvalidRequest(ApiError):
    """The service refused the request for what is in it, at whatever status; the same will be refused again."""

    hint = "correct what it names, then submit it again"


class ContentRefused(ApiError):
    """The service's content policy refused the media or the prompt."""

    hint = "use another picture, video, sound or prompt"


class ServerError(ApiError):
    """The service failed (5xx, 408)."""

    hint = "try again later"


class AssetFailed(AvatarError):
    """The service accepted the asset and failed to make it active; that is final.

    :ivar asset: the asset as last seen, its ``reason`` included.
    """

    hint = "change the material according to the reason, then submit it as another source"

    def __init__(self, asset: Asset, *, about: str | None = None) -> None:
        reason = asset.reason or "the service gave no reason"
        super().__init__(f"asset {asset.asset_id} failed: {reason}", about=about)
        self.asset = asset


class GenerationFailed(AvatarError):
    """The service accepted the generation and failed to make the video; that is final.

    :ivar task: the task as last seen, its ``reason`` included.
    """

    hint = "change the request according to the reason, then submit it again"

    def __init__(self, task: VideoTask, *, about: str | None = None) -> None:
        reason = task.reason or "the service gave no reason"
        super().__init__(f"video task {task.task_id} {task.status}: {reason}", about=about)
        self.task = task


class WaitTimeout(AvatarError, TimeoutError):
    """The timeout passed before the asset or task was finished; it may still finish, and can be waited for again.

    From a call that submits, the message says that nothing was sent, or the id of what was accepted.

    :ivar last: the asset or task as last seen, or None when it was never seen.
    """

    hint: str = "it may still finish: wait for it again by its id"

    def __init__(
        self, message: str, *, last: Asset | VideoTask | None = None, about: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, about=about, hint=hint)
        self.last = last


class AvatarWarning(UserWarning):
    """A request that is sent although it may be a mistake: an unknown model, assets of two accounts."""


class WebhookRefused(AvatarError):
    """A request is not a webhook that the service signed: answer it with 400 and do nothing else."""


class IngestError(AvatarError, ExceptionGroup[AvatarError]):
    """Not every source became active: a group of one exception for each that did not.

    :ivar exceptions: the errors, each naming its source; use ``except*`` to handle them by type.
    :ivar outcomes: the outcomes that are not ``Active``, in the order in which they became known.
    """

    def __new__(cls, message: str, exceptions: Sequence[AvatarError], *, outcomes: Sequence[Any] = ()) -> Self:
        """Build the group; ``outcomes`` is used by ``__init__``."""
        del outcomes
        return super().__new__(cls, message, exceptions)

    def __init__(self, message: str, exceptions: Sequence[AvatarError], *, outcomes: Sequence[Any] = ()) -> None:
        # An exception group's ``message`` cannot be assigned, so AvatarError.__init__ is not called.
        ExceptionGroup.__init__(self, message, exceptions)
        self.about: str | None = None
        self.outcomes: tuple[Any, ...] = tuple(outcomes)

    def derive(self, excs: Sequence[AvatarError], /) -> IngestError:  # type: ignore[override]  # narrower on purpose: a part of this group is an IngestError
        """Return the part of this group with ``excs``; ``except*`` and ``split`` call it."""
        kept = set(map(id, excs))
        return IngestError(
            self.message, excs, outcomes=[o for o in self.outcomes if id(getattr(o, "error", None)) in kept]
        )
