"""Is this call truly from the service, and what does it tell: webhooks of finished videos.

The signature is HMAC-SHA256, in hex, over ``id + "." + timestamp + "." + body`` with the body as it arrived:
hand over the raw bytes, never JSON that was parsed and written again. The service delivers at least once, so
keep the ids that were handled and skip what comes again; answer soon, and do the work (a download takes long)
elsewhere. An aiohttp service::

    import asyncio, os, time
    from aiohttp import web
    from seedance_avatar import VideoTask, WebhookRefused, verify_webhook

    SECRETS = os.environ["TOAPIS_WEBHOOK_SECRETS"].split(",")
    handled: set[str] = set()  # for more than one process: a table with a unique column
    finished: asyncio.Queue[VideoTask] = asyncio.Queue()

    async def hook(request: web.Request) -> web.Response:
        try:
            event = verify_webhook(request.headers, await request.read(), SECRETS, now=time.time())
        except WebhookRefused:
            return web.Response(status=400)
        if event.event_id not in handled:
            handled.add(event.event_id)
            finished.put_nowait(event.task)
        return web.Response(status=204)

    app = web.Application(client_max_size=1 << 20)
    app.router.add_post("/toapis", hook)

And an ASGI service, here with Starlette::

    import asyncio, os, time
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from seedance_avatar import VideoTask, WebhookRefused, verify_webhook

    SECRETS = os.environ["TOAPIS_WEBHOOK_SECRETS"].split(",")
    handled: set[str] = set()  # for more than one process: a table with a unique column
    finished: asyncio.Queue[VideoTask] = asyncio.Queue()

    async def hook(request: Request) -> Response:
        try:
            event = verify_webhook(request.headers, await request.body(), SECRETS, now=time.time())
        except WebhookRefused:
            return Response(status_code=400)
        if event.event_id not in handled:
            handled.add(event.event_id)
            finished.put_nowait(event.task)
        return Response(status_code=204)

    app = Starlette(routes=[Route("/toapis", hook, methods=["POST"])])
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
_MOST_SIGNATURES: Final = 32


@attrs.frozen(kw_only=True)
class WebhookEvent:
    """A webhook that is truly from the service.

    :ivar event_id: the id of the event; the same id again is the same event again.
    :ivar event_type: what happened, in the service's words, or None.
    :ivar sent_at: seconds since the epoch, when the service signed this delivery.
    :ivar task: the video task, as polling tells of it.
    :ivar raw: the body it was read from.
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
    """Return what a webhook tells, if the service has signed it with one of ``secrets``.

    :param headers: of the request, in any case; any mapping that has ``items()``.
    :param body: of the request, byte for byte as it arrived.
    :param secrets: the signing secret; several while one is being replaced by another.
    :param now: seconds since the epoch, ``time.time()``.
    :param tolerance: seconds by which the signature's time may differ from ``now``, either way.
    :raises WebhookRefused: a header is missing, the signature is of none of the secrets, or it is too old.
    :raises ProtocolError: it is truly from the service, but tells of no task.
    :raises InvalidInput: there is no secret to check with.
    """
    keys = _keys(secrets)
    event_id, timestamp, signatures = (_header(headers, name) for name in (_ID, _TIMESTAMP, _SIGNATURE))
    signed = b".".join((_bytes(event_id), _bytes(timestamp), body))
    given = [it.removeprefix("v1=") for it in map(str.strip, signatures.split(",")) if it.startswith("v1=")]
    genuine = False
    # All are compared, whichever fits: the time taken tells nothing of the secrets.
    for key in keys:
        expected = hmac.new(key, signed, hashlib.sha256).hexdigest().encode()
        for signature in given[:_MOST_SIGNATURES]:
            genuine |= hmac.compare_digest(_bytes(signature.lower()), expected)
    if not genuine:
        message = "its signature is of none of the secrets: check the secret, and that the body is passed as it arrived"
        raise WebhookRefused(message)
    sent_at = float(timestamp) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", timestamp) else math.inf
    if not abs(now - sent_at) <= tolerance:
        message = (
            f"it was signed at {safe_text(timestamp, 40)}, more than {tolerance:g} seconds from now: "
            "it is a replay, or a clock is wrong"
        )
        raise WebhookRefused(message, about=event_id)
    return _read(event_id, sent_at, body)


def _keys(secrets: str | Iterable[str]) -> list[bytes]:
    given = [secrets] if isinstance(secrets, str) else list(secrets)
    if not given or not all(given):
        # An empty secret would make a signature that anybody can make.
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
    # What a server could not decode is not what the service signed; it only must not break the check.
    return header.encode("utf-8", "backslashreplace")


def _read(event_id: str, sent_at: float, body: bytes) -> WebhookEvent:
    try:
        told = parse_json(body)
    except ValueError:
        told = None
    data = told.get("data") if isinstance(told, dict) else None
    if (
        not isinstance(told, dict)
        or not isinstance(data, dict)
        or not (is_id(data.get("task_id")) or is_id(data.get("id")))
    ):
        message = "the webhook is genuine, but tells of no task"
        raise ProtocolError(message, about=event_id, body=body[:1000].decode("utf-8", "replace"))
    kind = told.get("type")
    return WebhookEvent(
        event_id=event_id,
        event_type=kind if isinstance(kind, str) else None,
        sent_at=sent_at,
        task=read_task(data, around=told),
        raw=told,
    )
