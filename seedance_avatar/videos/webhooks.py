"""Verifies the service's webhooks and reads the video task that each reports.

The signature is HMAC-SHA256, in hex, over ``id + "." + timestamp + "." + body``, with the body as it arrived: pass the
raw bytes, never JSON that was parsed and written again. The service delivers each event at least once, so keep the
ids of the events that were handled and skip repeats; answer soon, and do the work (a download takes long) elsewhere.
Two services that do so are ``tests/recipes/webhook_aiohttp.py`` and ``tests/recipes/webhook_starlette.py``.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from seedance_avatar.errors import InvalidInput, ProtocolError, WebhookRefused
from seedance_avatar.models import VideoTask
from seedance_avatar.text import safe_text
from seedance_avatar.wire.refusals import is_id
from seedance_avatar.wire.response import parse_json

from .messages import read_task

__all__ = ["WebhookEvent", "verify_webhook"]

_ID: Final = "x-toapis-webhook-id"
_TIMESTAMP: Final = "x-toapis-webhook-timestamp"
_SIGNATURE: Final = "x-toapis-webhook-signature"
_MAX_SIGNATURES: Final = 32


@attrs.frozen(kw_only=True)
class WebhookEvent:
    """A webhook whose signature was verified.

    :ivar event_id: the id of the event; a repeated id is a repeated delivery of the same event.
    :ivar event_type: the service's name of the event, such as ``generation.completed``, or None.
    :ivar sent_at: when the service signed this delivery, seconds since the epoch.
    :ivar task: the video task, in the same form as polling returns it.
    :ivar raw: the body as parsed JSON.
    """

    event_id: str
    event_type: str | None
    sent_at: float
    task: VideoTask
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes,
    secrets: str | Iterable[str],
    *,
    now: float,
    tolerance: float = 300.0,
) -> WebhookEvent:
    """Return the event of a webhook, if its signature was made with one of ``secrets``.

    :param headers: the request's headers, names in any case; any mapping that has ``items()``.
    :param body: the request's body, byte for byte as it arrived.
    :param secrets: the signing secret; several while one is being replaced by another.
    :param now: seconds since the epoch, as ``time.time()`` returns them.
    :param tolerance: seconds by which the signature's time may differ from ``now``, either way (default 300).
    :raises WebhookRefused: a header is missing, no secret made the signature, or the signature is too old.
    :raises ProtocolError: the signature is valid, but the body names no task.
    :raises InvalidInput: there is no secret to check with.
    """
    keys = _keys(secrets)
    event_id, timestamp, signatures = (_header(headers, name) for name in (_ID, _TIMESTAMP, _SIGNATURE))
    signed = b".".join((_bytes(event_id), _bytes(timestamp), body))
    given = [it.removeprefix("v1=") for it in map(str.strip, signatures.split(",")) if it.startswith("v1=")]
    genuine = False
    # Every pair is compared even after a match, so that the time taken says nothing about the secrets.
    for key in keys:
        expected = hmac.new(key, signed, hashlib.sha256).hexdigest().encode()
        for signature in given[:_MAX_SIGNATURES]:
            genuine |= hmac.compare_digest(_bytes(signature.lower()), expected)
    if not genuine:
        message = "no secret made its signature: check the secrets, and pass the body byte for byte as it arrived"
        raise WebhookRefused(message)
    sent_at = float(timestamp) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", timestamp) else math.inf
    if not abs(now - sent_at) <= tolerance:
        message = (
            f"it was signed at {safe_text(timestamp, 40)}, more than {tolerance:g} seconds from now: "
            "it is a replay, or a clock is wrong; check this machine's clock"
        )
        raise WebhookRefused(message, about=event_id)
    return _read(event_id, sent_at, body)


def _keys(secrets: str | Iterable[str]) -> list[bytes]:
    given = [secrets] if isinstance(secrets, str) else list(secrets)
    if not given or not all(given):
        # Anybody can make the signature of an empty secret.
        message = "secrets must hold at least one signing secret, and none that is empty"
        raise InvalidInput(message)
    return [secret.encode() for secret in given]


def _header(headers: Mapping[str, str], name: str) -> str:
    found = {value for key, value in headers.items() if key.lower() == name}
    if len(found) != 1:
        message = f"the header {name} is {'missing' if not found else 'given twice'}"
        raise WebhookRefused(message)
    return found.pop()


def _bytes(header: str) -> bytes:
    # A header that cannot be encoded was not signed by the service; it must be refused, not raise.
    return header.encode("utf-8", "backslashreplace")


def _read(event_id: str, sent_at: float, body: bytes) -> WebhookEvent:
    try:
        event = parse_json(body)
    except ValueError:
        event = None
    data = event.get("data") if isinstance(event, dict) else None
    if (
        not isinstance(event, dict)
        or not isinstance(data, dict)
        or not (is_id(data.get("task_id")) or is_id(data.get("id")))
    ):
        message = "the webhook's signature is valid, but its body names no task: answer it with 204 and ignore it"
        raise ProtocolError(message, about=event_id, body=body[:1000].decode("utf-8", "replace"))
    kind = event.get("type")
    return WebhookEvent(
        event_id=event_id,
        event_type=kind if isinstance(kind, str) else None,
        sent_at=sent_at,
        task=read_task(data, around=event),
        raw=event,
    )
