"""From a list of public URLs to active assets to finished videos: an asyncio SDK for ToAPIs Seedance 2."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .assets.messages import check_source
    from .errors import (
        ApiError,
        AssetFailed,
        AuthError,
        AvatarError,
        AvatarWarning,
        ConnectionFailed,
        ContentRefused,
        GenerationFailed,
        IngestError,
        InvalidInput,
        InvalidRequest,
        InvalidSource,
        JournalError,
        NotFound,
        ProtocolError,
        QuotaExhausted,
        RateLimited,
        ServerError,
        SessionStateError,
        SubmissionInDoubt,
        WaitTimeout,
        WebhookRefused,
    )
    from .events import Event, Observer
    from .ingest.stream import Ingest
    from .journal.reader import JournalReader
    from .models import Asset, AssetGroup, AssetSource, VideoTask
    from .options import Limits, Polling, Retry, Timeouts
    from .outcomes import Active, Failed, InDoubt, IngestReport, IngestStats, Outcome, Pending, SessionStats, Unsent
    from .pool.pool import AccountPool
    from .session.session import AvatarSession
    from .videos.model_table import VIDEO_MODELS, VideoModel
    from .videos.request import GenerationRequest, Reference
    from .videos.webhooks import WebhookEvent, verify_webhook

__version__ = "0.1.0"

__all__ = [
    "VIDEO_MODELS",
    "AccountPool",
    "Active",
    "ApiError",
    "Asset",
    "AssetFailed",
    "AssetGroup",
    "AssetSource",
    "AuthError",
    "AvatarError",
    "AvatarSession",
    "AvatarWarning",
    "ConnectionFailed",
    "ContentRefused",
    "Event",
    "Failed",
    "GenerationFailed",
    "GenerationRequest",
    "InDoubt",
    "Ingest",
    "IngestError",
    "IngestReport",
    "IngestStats",
    "InvalidInput",
    "InvalidRequest",
    "InvalidSource",
    "JournalError",
    "JournalReader",
    "Limits",
    "NotFound",
    "Observer",
    "Outcome",
    "Pending",
    "Polling",
    "ProtocolError",
    "QuotaExhausted",
    "RateLimited",
    "Reference",
    "Retry",
    "ServerError",
    "SessionStateError",
    "SessionStats",
    "SubmissionInDoubt",
    "Timeouts",
    "Unsent",
    "VideoModel",
    "VideoTask",
    "WaitTimeout",
    "WebhookEvent",
    "WebhookRefused",
    "check_source",
    "verify_webhook",
]

# Each name is loaded when it is first asked for: who only ingests does not wait for what makes videos, keeps
# journals or pools accounts.
_HOMES: Final = {
    "VIDEO_MODELS": "videos.model_table",
    "AccountPool": "pool.pool",
    "Active": "outcomes",
    "ApiError": "errors",
    "Asset": "models",
    "AssetFailed": "errors",
    "AssetGroup": "models",
    "AssetSource": "models",
    "AuthError": "errors",
    "AvatarError": "errors",
    "AvatarSession": "session.session",
    "AvatarWarning": "errors",
    "ConnectionFailed": "errors",
    "ContentRefused": "errors",
    "Event": "events",
    "Failed": "outcomes",
    "GenerationFailed": "errors",
    "GenerationRequest": "videos.request",
    "InDoubt": "outcomes",
    "Ingest": "ingest.stream",
    "IngestError": "errors",
    "IngestReport": "outcomes",
    "IngestStats": "outcomes",
    "InvalidInput": "errors",
    "InvalidRequest": "errors",
    "InvalidSource": "errors",
    "JournalError": "errors",
    "JournalReader": "journal.reader",
    "Limits": "options",
    "NotFound": "errors",
    "Observer": "events",
    "Outcome": "outcomes",
    "Pending": "outcomes",
    "Polling": "options",
    "ProtocolError": "errors",
    "QuotaExhausted": "errors",
    "RateLimited": "errors",
    "Reference": "videos.request",
    "Retry": "options",
    "ServerError": "errors",
    "SessionStateError": "errors",
    "SessionStats": "outcomes",
    "SubmissionInDoubt": "errors",
    "Timeouts": "options",
    "Unsent": "outcomes",
    "VideoModel": "videos.model_table",
    "VideoTask": "models",
    "WaitTimeout": "errors",
    "WebhookEvent": "videos.webhooks",
    "WebhookRefused": "errors",
    "check_source": "assets.messages",
    "verify_webhook": "videos.webhooks",
}
"""Where each name lives."""


def _load(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Return what ``name`` stands for, and keep it, so that this is asked once for each name."""
    if name in _HOMES:
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found
    if name in _HOMES.values():  # ``seedance_avatar.events`` needs no import of its own
        return import_module(f"{__name__}.{name}")
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message, name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return sorted({*__all__, *_HOMES.values(), *(name for name in globals() if name.startswith("__"))})


if not TYPE_CHECKING:  # where types are checked, the imports above tell which names there are
    __getattr__ = _load
