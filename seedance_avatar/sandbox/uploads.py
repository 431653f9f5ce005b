"""The upload endpoints for local files: one multipart field, kept in memory and served by the files host."""

from __future__ import annotations

import hashlib
from typing import Final, NoReturn

import attrs
from aiohttp import BodyPartReader, hdrs, web

from .accounts import Account
from .clock import Clock
from .files import Files
from .ids import Ids
from .ledger import Ledger
from .records import FileUpload
from .replies import Refused, Reply, as_json, refusal_in_envelope

__all__ = ["PREFIX", "Uploads"]

PREFIX: Final = "/v1/uploads/"
_MB: Final = 1_000_000

# For each kind, the largest size in bytes, and the media type of each file extension.
_KINDS: Final[dict[str, tuple[int, dict[str, str]]]] = {
    "images": (
        10 * _MB,
        {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"},
    ),
    "videos": (50 * _MB, {"mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime"}),
    "audios": (50 * _MB, {"mp3": "audio/mpeg", "wav": "audio/wav", "m4a": "audio/mp4"}),
}


def _refuse(message: str) -> NoReturn:
    raise Refused(refusal_in_envelope(400, message))


@attrs.define(eq=False, kw_only=True)
class Uploads:
    """Handles uploads of images, videos and audio files."""

    clock: Clock
    ledger: Ledger
    files: Files
    ids: Ids

    async def receive(self, kind: str, account: Account, request: web.BaseRequest) -> Reply:
        """Answer ``POST /v1/uploads/{kind}``.

        :raises Refused: it has no field ``file`` in a format of this kind, or it is too large.
        :raises ConnectionError: the client closed the connection during the upload.
        """
        if kind not in _KINDS:
            raise Refused(refusal_in_envelope(404, "no such kind of upload"))
        most, formats = _KINDS[kind]
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        name, data = await _read_file(request, most)
        extension = name.rpartition(".")[2].lower()
        if extension not in formats:
            _refuse(f"{kind} may be {', '.join(sorted(formats))}, not {extension or 'nameless'}")
        now = self.clock.now()
        file_id = self.ids.mint(len(self.ledger.files), self.clock.wall_at(now))
        path = f"/uploads/{file_id}.{extension}"
        self.files.put(path, lambda: data, formats[extension])
        entry = FileUpload(
            file_id=file_id,
            url=self.files.url(path),
            mime_type=formats[extension],
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            account=account.name,
            at=now,
        )
        self.ledger.files.append(entry)
        data_of_file = {"id": entry.file_id, "url": entry.url, "mime_type": entry.mime_type, "size": entry.size}
        return as_json({"success": True, "message": "", "data": data_of_file})


async def _read_file(request: web.BaseRequest, most: int) -> tuple[str, bytes]:
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name != "file":
                continue
            data = bytearray()
            while chunk := await part.read_chunk(1 << 16):
                data += chunk
                if len(data) > most:
                    _refuse(f"the file is larger than {most // _MB} MB")
            if not data:
                _refuse("the file is empty")
            return part.filename or "", bytes(data)
    except (ValueError, AssertionError):
        _refuse("the body is not multipart/form-data")
    _refuse("the field file is missing")
