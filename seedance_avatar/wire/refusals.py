"""Maps error responses to exceptions: finds code and message in every shape the service uses, and picks the type.

The shapes (an envelope, an ``error`` object or text, a ``code`` beside a ``message``, a ``detail``, an empty
body, an HTML page) come with any status. The useful message may be nested a few levels deep, in objects or in
JSON inside a string, because gateways wrap the errors of the gateways behind them.
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

# The subject of a call, for messages; a source's label is built only when a message needs it.
About: TypeAlias = AssetSource | str | None

_DEEPEST: Final = 8
_SHOWN: Final = 4096  # characters of a response that are searched for a message
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_REQUEST_ID = re.compile(r"\s*\(request id: ([\w.:-]{1,128})\)")
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_SAYS_NOTHING: Final = frozenset({"", "ok", "success", "succeeded", "null", "none"})
_MESSAGE_KEYS: Final = ("reason", "fail_reason", "message", "msg", "error", "detail", "errors", "data")

_WELL: Final = ("success", "ok", 0, 200, "0", "200")  # the codes of an envelope that reports success
_NO_MONEY: Final = frozenset(
    {"insufficient_quota", "insufficient_user_quota", "quota_not_enough", "pre_consume_token_quota_failed"}
)
_MONEY: Final = ("quota", "balance", "billing", "payment", "overdue")
_NO_KEY: Final = frozenset(
    {"authentication_error", "invalid_api_key", "access_denied", "accessdenied", "permission_denied"}
    | {f"account_{how}" for how in ("disabled", "suspended", "deactivated", "banned", "not_active")}
)
_NO_PRODUCT: Final = ("subscriptionrequired", "subscription_required", "notsubscribed", "product_not_")
_TOO_FAST: Final = frozenset({"rate_limit_exceeded", "rate_limit_unavailable", "rate_limit_error"})
_UNKNOWN: Final = frozenset(
    f"{what}_{how}" for what in ("task", "asset", "group") for how in ("not_found", "not_exist")
)
_CONTENT: Final = ("content_policy", "privacyinformation", "sensitivecontent")
_REAL_PERSON: Final = "may contain real person"
_NO_MODEL: Final = re.compile(r"model_?not_?(?:found|exists?|supported|available|allowed|open)|unsupported_?model")
_INVALID: Final = re.compile(
    r"(?:invalid|missing|unsupported)_?(?:parameters?|params?|arguments?|input|request|request_?body|value|field|format"
    r"|(?:source_?|image_?|video_?|audio_?)?url|image|video|audio|file|media|prompt)(?:\..*)?|validation_?error"
)
_URL: Final = re.compile(r"\w+://\S+")

# Words that are about the account whatever the request was, for refusals without a code that says so. They are whole
# phrases, since a message may quote a URL or a prompt in which single words of theirs occur.
_WORDS_OF_MONEY: Final = re.compile(
    r"\b(?:insufficient|not enough|exhausted) (?:\w+ ){0,2}(?:balance|quota|credits?|funds)\b"
    r"|\b(?:balance|quota|credits?) (?:is |are |has been )?(?:insufficient|not enough|exhausted|used up)\b"
    r"|(?:余额|额度)不足"
)
_WORDS_OF_KEY: Final = re.compile(
    r"\b(?:invalid|incorrect|expired|disabled|revoked) api[ _-]?key\b"
    r"|\bapi[ _-]?key (?:\w+ )?(?:is |has |been ){0,2}(?:invalid|incorrect|expired|disabled|revoked)\b"
    r"|\baccount (?:is |has been )(?:disabled|suspended|deactivated|banned|frozen)\b"
)

_ASK_FOR_PRODUCT: Final = (
    "activate or subscribe to the product that it names in the account's console, then run the same again"
)
_ASK_FOR_MODEL: Final = (
    "nothing was done: choose a model that the key may use, or have this one enabled for it, then submit it again"
)


@attrs.frozen
class ErrorFacts:
    """The error codes and the message of a response."""

    codes: tuple[str, ...] = ()  # the innermost first, since that is where the error happened
    message: str = ""  # the innermost, unredacted


def is_id(value: object) -> bool:
    """Return whether ``value`` can be used as an id: a string of ordinary id characters, safe in a path."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def find_reason(obj: Mapping[str, Any]) -> str | None:
    """Return why something failed, safe to show, from wherever ``obj`` has it, or None.

    The message of an envelope that reports success ("query ok") speaks of the request, and is no reason.
    """
    if obj.get("success") is True or (obj.get("code") in _WELL and "data" in obj):
        obj = {key: value for key, value in obj.items() if key not in {"message", "msg"}}
    facts = find_error_facts(obj)
    code = next(iter(facts.codes), "")
    words = facts.message or code
    return _shown(words if code in words else f"{words} ({code})") or None


def find_error(obj: object) -> ErrorFacts | None:
    """Return the error that ``obj`` reports, or None when it reports none.

    ``success: true`` is believed. Otherwise ``success: false``, an ``error``, a ``detail`` or a code other than a code
    of success reports an error.
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
    """Collect the codes and the innermost message of ``value``."""
    codes: list[str] = []
    message = _walk(value, codes, _DEEPEST)
    return ErrorFacts(tuple(reversed(codes)), message)


def _walk(value: object, codes: list[str], depth: int) -> str:
    """Return the innermost message of ``value``; append its codes to ``codes``, the outermost first."""
    if isinstance(value, str):
        inner = _json_in(value) if depth else None
        message = "" if inner is None else _walk(inner, codes, depth - 1)
        return message or ("" if value.strip().lower() in _SAYS_NOTHING else value.strip())
    if not depth:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_walk(item, codes, depth - 1) for item in value[:3])))
    if not isinstance(value, Mapping):
        return ""
    facts = {key.lower(): fact for key, fact in value.items()}
    codes.extend(str(facts[name]) for name in ("type", "code") if _is_bad(facts.get(name)))
    candidates = [facts[name] for name in _MESSAGE_KEYS if name in facts]
    # An object has more detail than the text beside it.
    candidates.sort(key=lambda it: not isinstance(it, Mapping))
    return next(filter(None, (_walk(candidate, codes, depth - 1) for candidate in candidates)), "")


def _json_in(text: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Return the object or array in ``text``, perhaps after other text, or None."""
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
    """Return a readable excerpt of a body that is not JSON: a page's title, or the start of its text."""
    text = body[:_SHOWN].decode("utf-8", "replace").removeprefix("\ufeff").strip()
    if text.startswith("<"):
        import html  # noqa: PLC0415 - its table of names is large, and few responses are HTML

        title = _TITLE.search(text)
        text = html.unescape(title[1] if title and title[1].strip() else _TAG.sub(" ", text))
    return _shown(text, 200)


def _is_page(response: Response) -> bool:
    """Return whether a body that is not JSON is a page of HTML (or XML), whatever its label says."""
    return "html" in response.content_type.lower() or response.body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def _label(about: About) -> str | None:
    return about.label if isinstance(about, AssetSource) else about


def _kind(status: int, codes: tuple[str, ...], message: str) -> tuple[type[ApiError], str | None]:  # noqa: C901, PLR0911, PLR0912 - one return for each row of the documented table
    """Return the error type, and what to do next where the type alone does not say it.

    The type says what the answer is about. :class:`AuthError` and :class:`QuotaExhausted` are about the account: each
    submission would meet the same. :class:`RateLimited` is about the rate, and nothing was done. :class:`ServerError`
    (and :class:`ProtocolError`, see :func:`_error_of`) says nothing about any of them: what came of the request is
    unclear. All others are about the one request. A code that is unambiguous counts more than the status.
    """
    known = {code.lower() for code in codes}
    words = _URL.sub(" ", message.lower())
    if known & _NO_MONEY:
        return QuotaExhausted, None
    if _any_in(_NO_PRODUCT, known):
        return AuthError, _ASK_FOR_PRODUCT
    if _any_in(_CONTENT, known) or _REAL_PERSON in words:
        return ContentRefused, None
    if status == HTTPStatus.PAYMENT_REQUIRED or (status in {401, 403} and _any_in(_MONEY, known)):
        return QuotaExhausted, None
    if status == HTTPStatus.UNAUTHORIZED or known & _NO_KEY:
        return AuthError, None
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited, None
    if any(map(_NO_MODEL.search, known)):
        return InvalidRequest, _ASK_FOR_MODEL
    if any(map(_INVALID.fullmatch, known)):
        return InvalidRequest, None
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        # Only this code with this status means that nothing was done; after any other 5xx something may have been.
        down = status == HTTPStatus.SERVICE_UNAVAILABLE and "rate_limit_unavailable" in known
        return (RateLimited if down else ServerError), None
    if known & _TOO_FAST:
        return RateLimited, None
    if status == HTTPStatus.NOT_FOUND or known & _UNKNOWN:
        return NotFound, None
    if _WORDS_OF_MONEY.search(words):
        return QuotaExhausted, None
    if _WORDS_OF_KEY.search(words):
        return AuthError, None
    if status in {HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS}:
        return ContentRefused, None
    # The gateway refuses a key that may not use the model of the request by a 403 without a code.
    return InvalidRequest, _ASK_FOR_MODEL if status == HTTPStatus.FORBIDDEN else None


def _any_in(words: tuple[str, ...], codes: set[str]) -> bool:
    return any(word in code for code in codes for word in words)


def _refusal(response: Response, facts: ErrorFacts, about: About) -> ApiError:
    """Return the error for ``response``, from its headers and ``facts``."""
    status = response.status
    if status < HTTPStatus.BAD_REQUEST:
        # Some gateways send 200 for everything and put the status into the code.
        status = next((int(code) for code in facts.codes if re.fullmatch("[45][0-9][0-9]", code)), 400)
    kind, hint = _kind(status, facts.codes, facts.message)
    named = _REQUEST_ID.search(facts.message)
    return kind(
        _shown(_REQUEST_ID.sub("", facts.message))
        or _page(response.body)
        or responses.get(response.status, "no reason given"),
        status=response.status,
        code=_shown(next(iter(facts.codes), ""), 80),
        request_id=response.request_id or (named[1] if named else None),
        retryable=issubclass(kind, RateLimited | ServerError),
        retry_after=response.hints.retry_after,
        about=_label(about),
        hint=hint,
    )


def _protocol_error(response: Response, what: str, about: About) -> ProtocolError:
    shown = _page(response.body)
    message = f"HTTP {response.status}, but {what}" + (f": {shown}" if shown else "")
    return ProtocolError(message, about=_label(about), status=response.status, body=shown)


def _error_of(response: Response, about: About) -> AvatarError:
    """Return the error for a response outside of 2xx; a page says nothing about the key, the request or the account."""
    if response.status < HTTPStatus.BAD_REQUEST:
        target = "nowhere" if response.location is None else redact_url(response.location)
        return _protocol_error(response, f"it redirects to {target}, and redirects are not followed", about)
    try:
        facts = find_error_facts(response.parsed)
    except ValueError:
        # A firewall or proxy in front wrote it. That a request is too large is all that one can know by itself.
        knows = response.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if _is_page(response) and response.status < HTTPStatus.INTERNAL_SERVER_ERROR and not knows:
            return _protocol_error(response, "it is a page where JSON is due, so not of the service", about)
        facts = ErrorFacts(message=_page(response.body))
    return _refusal(response, facts, about)


def read_object(
    response: Response, *keys: str, about: About = None, usable: Callable[[object], bool] = is_id
) -> dict[str, Any]:
    """Return the object in ``response`` that has a usable value for a key: the body itself, or what its ``data`` wraps.

    A 2xx response with a usable id means *accepted*, whatever else it says, ``success: false`` included: an id that is
    dropped here is lost for good, while one that turns out to be wrong is reported when its status is asked for.

    :param keys: the first that any object has counts: an object with a ``task_id`` is preferred to one with an ``id``.
    :raises ApiError: the service refused: by its status, or in a 2xx response without such an object.
    :raises ProtocolError: a redirect, or a 2xx response that has neither such an object nor an error.
    """
    if not 200 <= response.status < 300:  # noqa: PLR2004 - the range of success in RFC 9110
        raise _error_of(response, about)
    try:
        value = response.parsed
    except ValueError:
        what = "the answer is not JSON" if response.body.strip() else "the answer is empty"
        raise _protocol_error(response, what, about) from None
    levels: list[dict[str, Any]] = []
    level = value
    while isinstance(level, dict) and len(levels) < _DEEPEST:
        levels.append(level)
        level = level.get("data")
    for key in keys:
        for level in levels:
            if usable(level.get(key)):
                return level
    facts = find_error(value)
    if facts is not None:
        raise _refusal(response, facts, about)
    raise _protocol_error(response, f"the answer has no usable {' or '.join(keys)}", about)
