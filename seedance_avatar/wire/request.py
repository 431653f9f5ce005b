"""An HTTP request as a value."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any, Final, Literal

import attrs

from seedance_avatar.models import AssetSource

from .refusals import About

__all__ = [
    "Request",
    "Streamed",
    "json_bytes",
]

_to_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_bytes(fields: Mapping[str, Any]) -> bytes:
    """Return ``fields`` as JSON: compact, and text as it is, so that a URL reaches the wire byte for byte."""
    return _to_json(fields).encode()


@attrs.frozen(kw_only=True)
class Streamed:
    """A body that is too large to hold in memory, sent piece by piece.

    :ivar pieces: called for every try; returns all bytes from the first one on.
    :ivar length: bytes in all.
    :ivar content_type: its media type.
    """

    pieces: Callable[[], AsyncIterable[bytes]]
    length: int
    content_type: str

    @property
    def headers(self) -> dict[str, str]:
        """Its headers. With a length, aiohttp sends no chunked encoding, which some gateways refuse."""
        return {"Content-Type": self.content_type, "Content-Length": str(self.length)}


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request as the transport needs it.

    :ivar lane: which of the service's limits it counts against: ``submit`` or ``query``.
    :ivar path: begins with ``/v1/``; appended to the base URL unchanged.
    :ivar body: JSON, or None.
    :ivar upload: a body to be streamed instead, or None.
    :ivar subject: what it is about, for :attr:`about`.
    :ivar repeatable: True when it may be sent twice.
    """

    lane: Literal["submit", "query"]
    method: str
    path: str
    body: bytes | None = attrs.field(default=None, repr=False)
    upload: Streamed | None = attrs.field(default=None, repr=False)
    subject: About = None
    repeatable: bool = False

    @property
    def about(self) -> str:
        """The label for messages, without secrets; built on demand, since most requests need none."""
        return self.subject.label if isinstance(self.subject, AssetSource) else self.subject or self.path
