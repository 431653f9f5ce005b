"""When the service says no: finding what it said, in all the shapes it uses, and which error that is.

The shapes (an envelope, an ``error`` object or text, a ``code`` beside a ``message``, a ``detail``, an empty
body, an HTML page) come with any status, and the useful words may lie a few levels down, in objects or in
JSON inside a string: gateways wrap what gateways behind them said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import responses
from typing import Any, Final, TypeAlias

import attrs

from seedance_avatar.errors import (
    ApiError,
    AuthError,
    AvatarError,
    ContentRefused,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
)
from seedance_avatar.models import AssetSource
from seedance_avatar.text import redact_url, safe_redacted

from .response import Response, parse_json

__all__ = ["About", "ErrorFacts", "find_error", "find_reason", "is_id", "read_object"]

About: TypeAlias = AssetSource | str | None
"""What a call was about: its label is made only when a message needs it."""

_DEEPEST: Final = 8
_SHOWN: Final = 4096  # characters of an answer that are looked at for words to show
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_REQUEST_ID = re.compile(r"\s*\(request id: ([\w.:-]{1,128})\)")
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_SAYS_NOTHING: Final = frozenset({"", "ok", "success", "succeeded", "null", "none"})
_WORDS: Final = ("reason", "fail_reason", "message", "msg", "error", "detail", "errors", "data")

_NO_MONEY: Final = frozenset(
    {"insufficient_quota", "insufficient_user_quota", "quota_not_enough", "pre_consume_token_quota_failed"}
)
_MONEY: Final = ("quota", "balance", "billing", "payment", "overdue")
_NO_KEY: Final = frozenset({"authentication_error", "invalid_api_key", "access_denied", "permission_denied"})
_TOO_FAST: Final = frozenset({"rate_limit_exceeded", "rate_limit_unavailable", "rate_limit_error"})
_UNKNOWN: Final = frozenset(
    f"{what}_{how}" for what in ("task", "asset", "group") for how in ("not_found", "not_exist")
)
_CONTENT: Final = ("content_policy", "privacyinformation", "sensitivecontent")
_REAL_PERSON: Final = "may contain real person"


@attrs.frozen
class ErrorFacts:
    """What an answer says went wrong.

    :ivar codes: its codes as text, the innermost first, since that is where it happened.
    :ivar message: its innermost words as they came, or empty.
    """

    codes: tuple[str, ...] = ()
    message: str = ""


def is_id(value: object) -> bool:
    """Return whether ``value`` can be used as an id: a string of ordinary id characters, safe in a path."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def find_reason(obj: Mapping[str, Any]) -> str | None:
    """Return why something failed, safe to show, from wherever ``obj`` says it, or None."""
    complaint = find_error_facts(obj)
    code = next(iter(complaint.codes), "")
    words = complaint.message or code
    return _shown(words if code in words else f"{words} ({code})") or None


def find_error(obj: object) -> ErrorFacts | None:
    """Return what ``obj`` complains of, or None when it does not say that anything is wrong.

    A ``success`` that is true is believed; else a false one, an ``error``, a ``detail`` or a code that is none
    of success says that something is.
    """
    if not isinstance(obj, Mapping):
        return None
    success = obj.get("success")
    if success is True:
        return None
    denied = success is False or (isinstance(success, str) and success.lower() == "false")
    if denied or any(obj.get(key) for key in ("error", "detail", "errors")) or _is_bad(obj.get("code")):
        return find_error_facts(obj)
    return None


def _is_bad(code: object) -> bool:
    if isinstance(code, str):
        return code.lower() not in _SAYS_NOTHING and code not in {"0", "200"}
    return isinstance(code, int) and not isinstance(code, bool) and code not in {0, 200}


def find_error_facts(value: object) -> ErrorFacts:
    """Collect the codes and the innermost words of ``value``."""
    codes: list[str] = []
    message = _walk(value, codes, _DEEPEST)
    return ErrorFacts(tuple(reversed(codes)), message)


def _walk(value: object, codes: list[str], depth: int) -> str:
    """Return the innermost words of ``value``; add its codes to ``codes``, the outermost first."""
    if isinstance(value, str):
        inner = _json_in(value) if depth else None
        words = "" if inner is None else _walk(inner, codes, depth - 1)
        return words or ("" if value.strip().lower() in _SAYS_NOTHING else value.strip())
    if not depth:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_walk(item, codes, depth - 1) for item in value[:3])))
    if not isinstance(value, Mapping):
        return ""
    facts = {key.lower(): fact for key, fact in value.items()}
    codes.extend(str(facts[name]) for name in ("type", "code") if _is_bad(facts.get(name)))
    places = [facts[name] for name in _WORDS if name in facts]
    # An object says more than the text beside it.
    places.sort(key=lambda it: not isinstance(it, Mapping))
    return next(filter(None, (_walk(place, codes, depth - 1) for place in places)), "")


def _json_in(text: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Return the object or array that is written in ``text``, perhaps after words about it, or None."""
    text = text.strip()
    opening, closing = ("[", "]") if text.startswith("[") else ("{", "}")
    start, end = text.find(opening), text.rfind(closing)
    try:
        return parse_json(text[start : end + 1]) if 0 <= start < end else None
    except ValueError:
        return None


def _shown(words: str, limit: int = 300) -> str:
    return safe_redacted(words[:_SHOWN], limit)


def _page(body: bytes) -> str:
    """Return what a body that is no JSON says: a page's title, or the start of its text."""
    text = body[:_SHOWN].decode("utf-8", "replace").removeprefix("\ufeff").strip()
    if text.startswith("<"):
        import html  # noqa: PLC0415 - its table of names is large, and few services answer in HTML

        title = _TITLE.search(text)
        text = html.unescape(title[1] if title and title[1].strip() else _TAG.sub(" ", text))
    return _shown(text, 200)


def _label(about: About) -> str | None:
    return about.label if isinstance(about, AssetSource) else about


def _kind(status: int, codes: tuple[str, ...], message: str) -> type[ApiError]:  # noqa: PLR0911 - the contract's table, row by row
    """Return which error this is. What a code says plainly counts more than the status it came with."""
    known = {code.lower() for code in codes}
    if known & _NO_MONEY:
        return QuotaExhausted
    if status in {401, 402, 403}:
        return QuotaExhausted if status == HTTPStatus.PAYMENT_REQUIRED or _speaks_of(_MONEY, known) else AuthError
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited
    if status == HTTPStatus.UNPROCESSABLE_ENTITY or _speaks_of(_CONTENT, known) or _REAL_PERSON in message.lower():
        return ContentRefused
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        # Only this code of this status says that nothing was done; after any other 5xx something may have been.
        down = status == HTTPStatus.SERVICE_UNAVAILABLE and "rate_limit_unavailable" in known
        return RateLimited if down else ServerError
    if known & _TOO_FAST:
        return RateLimited
    if known & _NO_KEY:
        return AuthError
    return NotFound if status == HTTPStatus.NOT_FOUND or known & _UNKNOWN else InvalidRequest


def _speaks_of(words: tuple[str, ...], codes: set[str]) -> bool:
    return any(word in code for code in codes for word in words)


def _refusal(answer: Response, complaint: ErrorFacts, about: About) -> ApiError:
    """Return the error that ``answer`` is, with the facts of its head and of ``complaint``."""
    status = answer.status
    if status < HTTPStatus.BAD_REQUEST:
        # Some gateways answer 200 to everything and put the status into the code.
        status = next((int(code) for code in complaint.codes if re.fullmatch("[45][0-9][0-9]", code)), 400)
    kind = _kind(status, complaint.codes, complaint.message)
    named = _REQUEST_ID.search(complaint.message)
    return kind(
        _shown(_REQUEST_ID.sub("", complaint.message))
        or _page(answer.body)
        or responses.get(answer.status, "no reason given"),
        status=answer.status,
        code=_shown(next(iter(complaint.codes), ""), 80),
        request_id=answer.request_id or (named[1] if named else None),
        retryable=issubclass(kind, RateLimited | ServerError),
        retry_after=answer.hints.retry_after,
        about=_label(about),
    )


def _protocol_error(answer: Response, what: str, about: About) -> ProtocolError:
    shown = _page(answer.body)
    message = f"HTTP {answer.status}, but {what}" + (f": {shown}" if shown else "")
    return ProtocolError(message, about=_label(about), status=answer.status, body=shown)


def _not_done(answer: Response, about: About) -> AvatarError:
    """Return the error that an answer outside of 2xx is."""
    if answer.status < HTTPStatus.BAD_REQUEST:
        target = "nowhere" if answer.location is None else redact_url(answer.location)
        return _protocol_error(answer, f"it redirects to {target}, and redirects are not followed", about)
    try:
        complaint = find_error_facts(parse_json(answer.body))
    except ValueError:
        complaint = ErrorFacts(message=_page(answer.body))
    return _refusal(answer, complaint, about)


def read_object(
    answer: Response, *, key: str, about: About = None, usable: Callable[[object], bool] = is_id
) -> dict[str, Any]:
    """Return the object in ``answer`` that has a usable ``key``: the answer itself, or what its ``data`` wraps.

    An answer of 2xx with a usable id is an accepted one, whatever else it says, ``success: false`` included:
    an id that is dropped here is lost for good, while one that means nothing says so when it is asked for.

    :raises ApiError: the service said no: by its status, or in an answer of 2xx without such an object.
    :raises ProtocolError: a redirect, or an answer of 2xx that neither has such an object nor says no.
    """
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - as they are called
        raise _not_done(answer, about)
    try:
        value = parse_json(answer.body)
    except ValueError:
        raise _protocol_error(
            answer, "the answer is not JSON" if answer.body.strip() else "the answer is empty", about
        ) from None
    level = value
    for _ in range(_DEEPEST):
        if not isinstance(level, dict):
            break
        if usable(level.get(key)):
            return level
        level = level.get("data")
    complaint = find_error(value)
    if complaint is not None:
        raise _refusal(answer, complaint, about)
    raise _protocol_error(answer, f"the answer has no usable {key}", about)
