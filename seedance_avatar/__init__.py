"""From a list of public URLs to active assets to finished videos: an asyncio SDK for ToAPIs Seedance 2."""

from __future__ import annotations

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
from .ingest import Ingest
from .journal_reader import JournalReader
from .models import Asset, AssetGroup, AssetSource, VideoTask
from .options import Limits, Polling, Retry, Timeouts
from .outcomes import (
    Active,
    Failed,
    InDoubt,
    IngestReport,
    IngestStats,
    Outcome,
    Pending,
    SessionStats,
    Unsent,
)
from .pool import AccountPool
from .session import AvatarSession
from .video_models import VIDEO_MODELS, VideoModel
from .video_request import GenerationRequest, Reference
from .webhooks import WebhookEvent, verify_webhook
from .wire import check_source

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
