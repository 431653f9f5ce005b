"""The files host: serves finished videos and uploaded files, without an API key."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

import attrs

from .clock import Clock
from .replies import Reply

__all__ = ["Files"]

_RANGE: Final = re.compile(r"bytes=([0-9]*)-([0-9]*)$")


@attrs.frozen
class _File:
    read: Callable[[], bytes]
    mime_type: str
    gone_at: float
    signed: bool


@attrs.define(eq=False)
class Files:
    """The files by their path; the bytes are read when somebody fetches them.

    :ivar base: the URL of this host, once it listens.
    :ivar url_lives: seconds for which the signed URL of a video is valid; a query of its task returns a new one.
    """

    clock: Clock
    url_lives: float
    seed: int
    base: str = ""
    _files: dict[str, _File] = attrs.field(init=False, factory=dict)

    def put(self, path: str, read: Callable[[], bytes], mime_type: str, *, gone_at: float | None = None) -> None:
        """Serve what ``read()`` returns at ``path``: without end, or by signed URLs until ``gone_at``."""
        self._files[path] = _File(read, mime_type, math.inf if gone_at is None else gone_at, gone_at is not None)

    def has(self, url: str) -> bool:
        """Return whether ``url`` belongs to this host."""
        return bool(self.base) and url.startswith(f"{self.base}/")

    def url(self, path: str) -> str:
        """Return a URL that is valid now for ``path``."""
        file = self._files[path]
        if not file.signed:
            return self.base + path
        expires = f"{min(file.gone_at, self.clock.now() + self.url_lives):.6f}"
        return f"{self.base}{path}?Expires={expires}&Signature={self._sign(path, expires)}"

    def _sign(self, path: str, expires: str) -> str:
        return hmac.new(f"files/{self.seed}".encode(), f"{path}?{expires}".encode(), hashlib.sha256).hexdigest()[:40]

    def fetch(self, raw_path: str, ranged: str | None, if_range: str | None) -> Reply:
        """Answer a GET or HEAD."""
        path, _, query = raw_path.partition("?")
        file, now = self._files.get(path), self.clock.now()
        if file is None or now >= file.gone_at:
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        if file.signed and (refused := self._judge(path, query, now)) is not None:
            return refused
        data = file.read()
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        headers = f"Accept-Ranges: bytes\r\nETag: {etag}\r\n"
        reply = Reply(200, data, content_type=file.mime_type)
        if ranged is not None and if_range in {None, etag} and (wanted := _RANGE.match(ranged)) is not None:
            start, end = _span(wanted[1], wanted[2], len(data))
            if start >= len(data) or start > end:
                reply = _xml(416, "InvalidRange", "The requested range is not satisfiable.")
                headers += f"Content-Range: bytes */{len(data)}\r\n"
            else:
                reply = Reply(206, data[start : end + 1], content_type=file.mime_type)
                headers += f"Content-Range: bytes {start}-{end}/{len(data)}\r\n"
        reply.headers = headers
        return reply

    def _judge(self, path: str, query: str, now: float) -> Reply | None:
        asked = parse_qs(query)
        expires, signature = asked.get("Expires", [""])[0], asked.get("Signature", [""])[0]
        if not hmac.compare_digest(signature.encode(), self._sign(path, expires).encode()):
            return _xml(403, "SignatureDoesNotMatch", "The request signature does not match.")
        if now >= float(expires):
            return _xml(403, "AccessDenied", "Request has expired.")
        return None


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    if first:
        return int(first), min(int(last), size - 1) if last else size - 1
    return max(0, size - int(last or 0)), size - 1


def _xml(status: int, code: str, message: str) -> Reply:
    page = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>\n'
    return Reply(status, page.encode(), content_type="application/xml")
