"""Checks of the base URL and the API key."""

from __future__ import annotations

import re

from seedance_avatar.errors import InvalidInput
from seedance_avatar.text import redact_url
from seedance_avatar.wire.public_urls import judge_host, judge_url

__all__ = [
    "check_key",
    "normalize_base",
]
_BASE = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?P<port>:[0-9]{1,5})?(?P<path>(?:/[a-z0-9._~-]*)*)",
    re.ASCII | re.IGNORECASE,
)
_KEY = re.compile(r"[!-~]+")


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
    """Refuse an API key that cannot stand in a header. No message shows any of it.

    :raises InvalidInput: it is empty, or holds anything but visible ASCII characters.
    """
    if not isinstance(key, str) or not key:  # type: ignore[redundant-expr]  # not every caller has a type checker
        message = "the API key is missing: pass api_key or set TOAPIS_API_KEY"
        raise InvalidInput(message)
    if _KEY.fullmatch(key) is None:
        message = "the API key holds white space or characters that no key has: copy it again, without the word Bearer"
        raise InvalidInput(message)
