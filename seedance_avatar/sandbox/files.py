"""The files host, which needs no API key: finished videos, and local files that were uploaded to be served by it."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

import attrs
from aiohttp import BodyPartReader, hdrs, web

from .accounts import Account
from .dialect import Ids
from .records import FileUpload
from .replies import Refused, Reply, as_json, refusal_in_envelope, refuse_in_envelope
from .state import State

_RANGE: Final = re.compile(r"bytes=([0-9]*)-([0-9]*)$")
_MB: Final = 1_000_000

# For each kind of upload, the largest size in bytes, and the media type of each file extension.
_KINDS: Final[dict[str, tuple[int, dict[str, str]]]] = {
    "images": (
        10 * _MB,
        {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"},
    ),
    "videos": (50 * _MB, {"mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime"}),
    "audios": (50 * _MB, {"mp3": "audio/mpeg", "wav": "audio/wav", "m4a": "audio/mp4"}),
}


@attrs.frozen
class _File:
    read: Callable[[], bytes]
    mime_type: str
    gone_at: float | None


@attrs.define(eq=False)
class Files:
    """The files by their path; the bytes are read when somebody fetches them."""

    state: State
    ids: Ids
    url_lives: float  # seconds for which the signed URL of a video is valid; a query of its task returns a new one
    seed: int
    _files: dict[str, _File] = attrs.field(init=False, factory=dict)

    def put(self, path: str, read: Callable[[], bytes], mime_type: str, gone_at: float | None = None) -> None:
        """Serve what ``read()`` returns at ``path``: without end, or by signed URLs until ``gone_at``."""
        self._files[path] = _File(read, mime_type, gone_at)

    def url(self, path: str) -> str:
        """Return a URL that is valid now for ``path``."""
        gone_at, url = self._files[path].gone_at, f"{self.state.files_url}{path}"
        if gone_at is None:
            return url
        expires = f"{min(gone_at, self.state.clock.now() + self.url_lives):.6f}"
        return f"{url}?Expires={expires}&Signature={self._sign(path, expires)}"

    def _sign(self, path: str, expires: str) -> str:
        return hmac.new(f"files/{self.seed}".encode(), f"{path}?{expires}".encode(), hashlib.sha256).hexdigest()[:40]

    def fetch(self, raw_path: str, ranged: str | None, if_range: str | None) -> Reply:
        """Answer a GET or HEAD."""
        path, _, query = raw_path.partition("?")
        file, now = self._files.get(path), self.state.clock.now()
        if file is None or (file.gone_at is not None and now >= file.gone_at):
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        if file.gone_at is not None:
            asked = parse_qs(query)
            expires, signature = asked.get("Expires", [""])[0], asked.get("Signature", [""])[0]
            if not hmac.compare_digest(signature.encode(), self._sign(path, expires).encode()):
                return _xml(403, "SignatureDoesNotMatch", "The request signature does not match.")
            if now >= float(expires):
                return _xml(403, "AccessDenied", "Request has expired.")
        data = file.read()
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        headers = f"Accept-Ranges: bytes\r\nETag: {etag}\r\n"
        reply = Reply(200, data, file.mime_type)
        if ranged is not None and if_range in {None, etag} and (wanted := _RANGE.match(ranged)) is not None:
            size, (first, last) = len(data), wanted.groups()
            start = int(first) if first else max(0, size - int(last or 0))
            end = min(int(last), size - 1) if first and last else size - 1
            if start >= size or start > end:
                reply = _xml(416, "InvalidRange", "The requested range is not satisfiable.")
                headers += f"Content-Range: bytes */{size}\r\n"
            else:
                reply = Reply(206, data[start : end + 1], file.mime_type)
                headers += f"Content-Range: bytes {start}-{end}/{size}\r\n"
        reply.headers = headers
        return reply

    async def receive(self, kind: str, account: Account, request: web.BaseRequest) -> Reply:
        """Answer ``POST /v1/uploads/{kind}``; ConnectionError when the client closed the connection meanwhile."""
        if kind not in _KINDS:
            refuse_in_envelope("no such kind of upload", status=404)
        most, formats = _KINDS[kind]
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        name, data = await _read_file(request, most)
        extension = name.rpartition(".")[2].lower()
        if extension not in formats:
            refuse_in_envelope(f"{kind} may be {', '.join(sorted(formats))}, not {extension or 'nameless'}")
        now = self.state.clock.now()
        file_id = self.ids.mint(len(self.state.ledger.files), self.state.clock.wall_at(now))
        path = f"/uploads/{file_id}.{extension}"
        self.put(path, lambda: data, formats[extension])
        entry = FileUpload(
            file_id=file_id,
            url=self.url(path),
            mime_type=formats[extension],
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            account=account.name,
            at=now,
        )
        self.state.ledger.files.append(entry)
        shown = {"id": entry.file_id, "url": entry.url, "mime_type": entry.mime_type, "size": entry.size}
        return as_json({"success": True, "message": "", "data": shown})


async def _read_file(request: web.BaseRequest, most: int) -> tuple[str, bytes]:
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name != "file":
                continue
            data = bytearray()
            while chunk := await part.read_chunk(1 << 16):
                data += chunk
                if len(data) > most:
                    refuse_in_envelope(f"the file is larger than {most // _MB} MB")
            if not data:
                refuse_in_envelope("the file is empty")
            return part.filename or "", bytes(data)
    except (ValueError, AssertionError):
        refuse_in_envelope("the body is not multipart/form-data")
    raise Refused(refusal_in_envelope(400, "the field file is missing"))


def _xml(status: int, code: str, message: str) -> Reply:
    page = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>\n'
    return Reply(status, page.encode(), "application/xml")
