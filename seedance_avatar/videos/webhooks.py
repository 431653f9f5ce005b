"""Verifies the service's webhooks and reads the video task that each reports.

The signature is HMAC-SHA256, in hex, over ``id + "." + timestamp + "." + body``, with the body as it arrived: pass the
raw bytes, never JSON that was parsed and written again. The service delivers each event at least once, so keep the
ids of the events that were handled and skip repeats; answer soon, and do the work (a download takes long) elsewhere.
An address receives the events of every task of its key, images too, and ``endpoint.test``: see ``WebhookEvent.kind``.
Two services that do so are ``tests/recipes/webhook_aiohttp.py`` and ``tests/recipes/webhook_starlette.py``.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs

from seedance_avatar.errors import InvalidInput, ProtocolError, WebhookRefused
from seedance_avatar.models import VideoTask
from seedance_avatar.text import Secret, safe_text
from seedance_avatar.wire.refusals import is_id
from seedance_avatar.wire.response import parse_json

from .messages import read_task

__all__ = ["WebhookEvent", "verify_webhook"]

_ID: Final = "x-toapis-webhook-id"
_TIMESTAMP: Final = "x-toapis-webhook-timestamp"
_SIGNATURE: Final = "x-toapis-webhook-signature"
_MAX_SIGNATURES: Final = 32
_TEST: Final = "endpoint.test"

Headers: TypeAlias = Mapping[Any, Any] | Iterable[tuple[Any, Any]]
"""The headers as a framework has them: a mapping, or pairs; names and values as text or bytes, values also in lists."""


@attrs.frozen(kw_only=True)
class WebhookEvent:
    """A webhook whose signature was verified.

    :ivar event_id: the id of the event; a repeated id is a repeated delivery of the same event.
    :ivar event_type: the service's name of the event, such as ``generation.completed``, or None.
    :ivar kind: ``"completed"`` or ``"failed"``: a video task ended so. ``"test"``: the service tries the address.
        ``"other"``: anything else, such as the end of an image task.
    :ivar sent_at: when the service signed this delivery, seconds since the epoch.
    :ivar task: the video task, in the same form as polling returns it; None where the event is about no video.
    :ivar raw: the body as parsed JSON.
    """

    event_id: str
    event_type: str | None
    kind: Literal["completed", "failed", "test", "other"]
    sent_at: float
    task: VideoTask | None
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)


def verify_webhook(
    headers: Headers,
    body: bytes | bytearray | memoryview | str,
    secrets: str | bytes | Iterable[str | bytes],
    *,
    now: float,
    tolerance: float = 300.0,
) -> WebhookEvent:
    """Return the event of a webhook, if its signature was made with one of ``secrets``.

    :param headers: the request's headers, names in any case: a mapping or pairs, of texts or bytes; a value may be a
        list of one.
    :param body: the request's body, byte for byte as it arrived; a text is taken as UTF-8.
    :param secrets: the signing secret; several while one is being replaced by another.
    :param now: seconds since the epoch, as ``time.time()`` returns them.
    :param tolerance: seconds by which the signature's time may differ from ``now``, either way (default 300).
    :raises WebhookRefused: a header is missing, no secret made the signature, or the signature is too old.
    :raises ProtocolError: the signature is valid, but the body is no event, or names no task where it must.
    :raises InvalidInput: an argument is of a type that cannot be read, or there is no secret to check with.
    """
    keys = _keys(secrets)
    del secrets  # tracebacks may be shown with locals
    if isinstance(keys, InvalidInput):
        raise keys
    for name, value, lowest in (("now", now, -math.inf), ("tolerance", tolerance, 0.0)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value < math.inf:  # type: ignore[redundant-expr]  # not every caller has a type checker
            message = f"{name} must be a number of seconds, not {safe_text(repr(value), 40)}"
            raise InvalidInput(message)
    content = _content(body)
    found = _headers(headers)
    event_id, timestamp, signatures = (_only(found, name) for name in (_ID, _TIMESTAMP, _SIGNATURE))
    if not _genuine(keys, b".".join((_bytes(event_id), _bytes(timestamp), content)), signatures):
        message = "no secret made its signature: check the secrets, and pass the body byte for byte as it arrived"
        raise WebhookRefused(message)
    sent_at = float(timestamp) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", timestamp) else math.inf
    if not abs(now - sent_at) <= tolerance:
        message = (
            f"it was signed at {safe_text(timestamp, 40)}, more than {tolerance:g} seconds from now: "
            "it is a replay, or a clock is wrong; check this machine's clock"
        )
        raise WebhookRefused(message, about=event_id)
    return _read(event_id, sent_at, content)


def _keys(secrets: object) -> tuple[Secret[bytes], ...] | InvalidInput:
    """Return the secrets. An error is returned, not raised: this frame holds them, and a traceback would show it."""
    given: Any = secrets if isinstance(secrets, Iterable) and not isinstance(secrets, str | bytes) else (secrets,)
    keys = tuple(
        Secret(one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one)
        if isinstance(one, str | bytes)
        else None
        for one in given
    )
    good = tuple(key for key in keys if key is not None and key.reveal())
    if not good or len(good) < len(keys):
        # Anybody can make the signature of an empty secret.
        return InvalidInput(
            "secrets must hold at least one signing secret, each a text or bytes, and none that is empty (is an "
            "environment variable not set?)"
        )
    return good


def _genuine(keys: Iterable[Secret[bytes]], signed: bytes, signatures: str) -> bool:
    """Return whether one of ``signatures`` was made with one of ``keys``."""
    given = [it.removeprefix("v1=") for it in map(str.strip, signatures.split(",")) if it.startswith("v1=")]
    genuine = False
    # Every pair is compared even after a match, so that the time taken says nothing about the secrets.
    for key in keys:
        expected = hmac.new(key.reveal(), signed, hashlib.sha256).hexdigest().encode()
        for signature in given[:_MAX_SIGNATURES]:
            genuine |= hmac.compare_digest(_bytes(signature.lower()), expected)
    return genuine


def _content(body: object) -> bytes:
    if isinstance(body, str):
        return _bytes(body)
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    message = f"body must be the request's bytes as they arrived, not {type(body).__name__}: parsed JSON will not do"
    raise InvalidInput(message)


def _headers(headers: Any) -> dict[str, set[str]]:  # noqa: ANN401 - whatever a framework hands over
    """Return the values of our headers by their names in lower case."""
    found: dict[str, set[str]] = {}
    try:
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            key = _text(name).lower()
            if key in {_ID, _TIMESTAMP, _SIGNATURE}:
                found.setdefault(key, set()).update(map(_text, value if isinstance(value, list | tuple) else (value,)))
    except (TypeError, ValueError):
        message = (
            "headers must be a mapping or pairs, with names and values as text or bytes, "
            f"not {safe_text(type(headers).__name__, 40)} of something else"
        )
        raise InvalidInput(message) from None
    return found


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise TypeError


def _only(headers: Mapping[str, set[str]], name: str) -> str:
    values = headers.get(name, set())
    if len(values) != 1:
        message = f"the header {name} is {'missing' if not values else 'given twice'}"
        raise WebhookRefused(message)
    return next(iter(values)).strip()


def _bytes(text: str) -> bytes:
    # What cannot be encoded was not signed by the service; it must be refused, not raise.
    return text.encode("utf-8", "backslashreplace")


def _read(event_id: str, sent_at: float, body: bytes) -> WebhookEvent:
    try:
        event = parse_json(body)
    except ValueError:
        event = None
    fields = event if isinstance(event, dict) else {}
    said = fields.get("type")
    event_type = said if isinstance(said, str) else None
    data = fields.get("data")
    task: VideoTask | None = None
    kind: Literal["completed", "failed", "test", "other"] = "test" if event_type == _TEST else "other"
    if kind == "other" and isinstance(data, dict) and (is_id(data.get("task_id")) or is_id(data.get("id"))):
        if _is_video(data):
            task = read_task(data, around=event)
            kind = "completed" if task.is_completed else "failed" if task.is_failed else "other"
    elif kind == "other" and (event_type is None or event_type.startswith("generation.")):
        message = "the webhook's signature is valid, but its body names no task: answer it with 204 and ignore it"
        raise ProtocolError(message, about=event_id, body=body[:1000].decode("utf-8", "replace"))
    return WebhookEvent(event_id=event_id, event_type=event_type, kind=kind, sent_at=sent_at, task=task, raw=fields)


def _is_video(data: Mapping[str, Any]) -> bool:
    """Return whether the task is a video: also one of which it is not told, as polling would read it."""
    task_type, model = data.get("task_type"), data.get("model")
    if not isinstance(task_type, str) or not task_type:
        return True
    return "video" in task_type.lower() or (isinstance(model, str) and "seedance" in model.lower())
