"""An HTTP request as a value, and checks of what each one carries: the base URL and the API key."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any, Final, Literal

import attrs

from seedance_avatar.errors import InvalidInput
from seedance_avatar.models import AssetSource
from seedance_avatar.text import redact_url

from .public_urls import judge_host, judge_url
from .refusals import About

_BASE = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?P<port>:[0-9]{1,5})?(?P<path>(?:/[a-z0-9._~-]*)*)",
    re.ASCII | re.IGNORECASE,
)
_KEY = re.compile(r"[!-~]+")
_to_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_bytes(fields: Mapping[str, Any]) -> bytes:
    """Return ``fields`` as JSON: compact, and text as it is, so that a URL reaches the wire byte for byte."""
    return _to_json(fields).encode()


@attrs.frozen(kw_only=True)
class Streamed:
    """A body that is too large to hold in memory, sent piece by piece."""

    pieces: Callable[[], AsyncIterable[bytes]]  # called for every try; returns all bytes from the first one on
    length: int
    content_type: str

    @property
    def headers(self) -> dict[str, str]:
        """Its headers. With a length, aiohttp sends no chunked encoding, which some gateways refuse."""
        return {"Content-Type": self.content_type, "Content-Length": str(self.length)}


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request as the transport needs it."""

    lane: Literal["submit", "query"]  # which of the service's limits it counts against
    method: str
    path: str  # begins with /v1/; appended to the base URL unchanged
    body: bytes | None = attrs.field(default=None, repr=False)  # JSON,
    upload: Streamed | None = attrs.field(default=None, repr=False)  # or what is streamed instead
    subject: About = None
    repeatable: bool = False  # it may be sent twice

    @property
    def about(self) -> str:
        """The label for messages, without secrets; built on demand, since most requests need none."""
        return self.subject.label if isinstance(self.subject, AssetSource) else self.subject or self.path


def normalize_base(base_url: str) -> str:
    """Return ``base_url`` without ``/v1`` and closing slashes, ready for a request's path behind it.

    :raises InvalidInput: it is no base URL, or plain ``http`` to a public host, which would show the key to
        everyone who can see the traffic (a gateway on this machine or in a private network may use it).
    """
    parts = _BASE.fullmatch(base_url.strip()) if isinstance(base_url, str) else None  # type: ignore[redundant-expr]  # not every caller has a type checker
    if parts is None:
        message = f"base_url {redact_url(base_url)} is not a base URL: write it like https://toapis.com"
        raise InvalidInput(message)
    scheme, host, port = parts["scheme"].lower(), parts["host"].lower(), parts["port"] or ""
    reason = judge_url(f"{scheme}://{host}{port}/", allow_private=True)
    if reason is None and scheme == "http" and judge_host(host) is None:
        reason = "it would send the key in the clear: begin it with https://"
    segments = [segment for segment in parts["path"].split("/") if segment]
    while segments and segments[-1] == "v1":
        segments.pop()
    if reason is None and not {".", "..", "v1"}.isdisjoint(segments):
        reason = "its path has a part /v1, /. or /.. in it: end it before /v1"
    if reason is not None:
        message = f"base_url {redact_url(base_url)} cannot be used: {reason}"
        raise InvalidInput(message)
    return "/".join((f"{scheme}://{host}{port}", *segments))


def check_key(key: str) -> None:
    """Refuse an API key that is empty or cannot stand in a header. No message shows any of it."""
    if not isinstance(key, str) or not key:  # type: ignore[redundant-expr]  # not every caller has a type checker
        message = "the API key is missing: pass api_key or set TOAPIS_API_KEY"
        raise InvalidInput(message)
    if _KEY.fullmatch(key) is None:
        message = "the API key holds white space or characters that no key has: copy it again, without the word Bearer"
        raise InvalidInput(message)
