"""From a list of public URLs to active assets to finished videos: an asyncio SDK for ToAPIs Seedance 2."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .assets.messages import check_source as check_source
    from .errors import *  # noqa: F403 - each of its names is public
    from .events import Event as Event
    from .events import Observer as Observer
    from .ingest.stream import Ingest as Ingest
    from .journal.journal import JournalReader as JournalReader
    from .models import Asset as Asset
    from .models import AssetGroup as AssetGroup
    from .models import AssetSource as AssetSource
    from .models import VideoTask as VideoTask
    from .options import Limits as Limits
    from .options import Polling as Polling
    from .options import Retry as Retry
    from .options import Timeouts as Timeouts
    from .outcomes import *  # noqa: F403 - as above
    from .pool.pool import AccountPool as AccountPool
    from .session.session import AvatarSession as AvatarSession
    from .videos.request import VIDEO_MODELS as VIDEO_MODELS
    from .videos.request import GenerationRequest as GenerationRequest
    from .videos.request import Reference as Reference
    from .videos.request import VideoModel as VideoModel
    from .videos.webhooks import WebhookEvent as WebhookEvent
    from .videos.webhooks import verify_webhook as verify_webhook

__version__ = "0.1.0"

_ROOMS: Final = {
    "assets.messages": "check_source",
    "errors": (
        "ApiError AssetFailed AuthError AvatarError AvatarWarning ConnectionFailed ContentRefused "
        "GenerationFailed IngestError InvalidInput InvalidRequest InvalidSource JournalError NotFound "
        "ProtocolError QuotaExhausted RateLimited ServerError SessionStateError SubmissionInDoubt WaitTimeout "
        "WebhookRefused"
    ),
    "events": "Event Observer",
    "ingest.stream": "Ingest",
    "journal.journal": "JournalReader",
    "models": "Asset AssetGroup AssetSource VideoTask",
    "options": "Limits Polling Retry Timeouts",
    "outcomes": "Active Failed InDoubt IngestReport IngestStats Outcome Pending SessionStats Unsent",
    "pool.pool": "AccountPool",
    "session.session": "AvatarSession",
    "videos.request": "VIDEO_MODELS GenerationRequest Reference VideoModel",
    "videos.webhooks": "WebhookEvent verify_webhook",
}
"""The module of each public name. The names are imported at first use, so that a program which only ingests does not
wait for videos, journals and pools to be imported. Type checkers read the imports above instead."""

_HOMES: Final = {name: room for room, names in _ROOMS.items() for name in names.split()}


def _load(name: str) -> Any:  # noqa: ANN401 - any of the public names
    """Import the public name or module ``name``, and keep it as a global, so that this runs once for each name."""
    if name in _HOMES:
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found
    if name in _ROOMS:  # a module such as ``seedance_avatar.events``
        return import_module(f"{__name__}.{name}")
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message, name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return sorted({*_HOMES, *_ROOMS, *(name for name in globals() if name.startswith("__"))})


if not TYPE_CHECKING:  # type checkers take every name from the imports above, and report any other
    __all__ = sorted(_HOMES)  # noqa: PLE0605 - a list, but not a literal one: the table has every name already
    __getattr__ = _load
