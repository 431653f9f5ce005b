"""Writes events as JSON Lines, for another program to read during the run."""

from __future__ import annotations

import json
from typing import Any, TextIO

import attrs

from seedance_avatar import Asset, AssetSource, AvatarError, Event, VideoTask
from seedance_avatar.cli.manifest.manifest import ManifestSource
from seedance_avatar.text import redact_url

__all__ = ["EventLog", "plain"]


class EventLog:
    """An observer that writes each event as one JSON object; ``event`` names its kind.

    What it writes holds no query string and no raw answer.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Write ``event``, its name in lower case with underscores."""
        kind = "".join(f"_{char.lower()}" if char.isupper() else char for char in type(event).__name__).strip("_")
        self.write(kind, **{field.name: getattr(event, field.name) for field in attrs.fields(type(event))})

    def write(self, event: str, /, **facts: Any) -> None:  # noqa: ANN401 - facts are of every type
        """Write one object of the kind ``event`` with ``facts``."""
        self._stream.write(json.dumps({"event": event} | {name: plain(fact) for name, fact in facts.items()}) + "\n")
        self._stream.flush()


def plain(value: Any) -> Any:  # noqa: ANN401, PLR0911 - takes any fact, and has a return for each type
    """Return ``value`` as plain JSON values without secrets: no query of a URL, no raw answer."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return round(value, 6)
        case AvatarError():
            return {"type": type(value).__name__, "text": str(value)}
        case AssetSource():
            line = value.line if isinstance(value, ManifestSource) else None
            return {"line": line, "key": value.key, "source": redact_url(value.source_url)}
        case Asset():
            return {"asset_id": value.asset_id, "status": value.status, "reason": value.reason}
        case VideoTask():
            return {"task_id": value.task_id, "status": value.status, "reason": value.reason}
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {str(name): plain(item) for name, item in value.items()}
        case _ if attrs.has(type(value)):
            facts = {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
            facts.pop("unfinished", None)  # each of a report's outcomes was an event already
            return facts if "outcome" in facts else {"type": type(value).__name__} | facts
        case _:
            return str(type(value).__name__)
