"""Uploads of local files: each is checked once, then streamed to the service's upload endpoint for its type."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Self

import attrs
from anyio import to_thread

from seedance_avatar.client.client import Client, Passage
from seedance_avatar.client.gate import Flow
from seedance_avatar.errors import InvalidInput, InvalidSource
from seedance_avatar.models import AssetSource
from seedance_avatar.text import safe_text
from seedance_avatar.wire.refusals import read_object
from seedance_avatar.wire.request import Request, Streamed
from seedance_avatar.wire.response import Response

from .media import ASSET_LIMITS, UPLOAD_LIMITS, MediaFacts, probe

__all__ = ["check_file", "judge", "published", "upload_file"]


_CHUNK: Final = 1 << 18  # bytes read and sent at a time


def check_file(source: AssetSource) -> MediaFacts:
    """Return the facts of the local file that ``source`` was made of, once it is known to fit. It reads the disk.

    :raises InvalidSource: there is no such file, or it breaks limits of the service: each is named.
    """
    assert source.path is not None  # noqa: S101 - a source of a URL has no file to check
    try:
        facts = probe(source.path)
    except InvalidInput as error:
        raise InvalidSource(error.message, about=source.label) from error
    # The same limit may be broken in both tables; once is enough.
    problems = dict.fromkeys([*ASSET_LIMITS[source.asset_type].problems(facts), *_upload_problems(facts)])
    if problems:
        message = f"this file cannot become an asset of type {source.asset_type}: {'; '.join(problems)}"
        raise InvalidSource(message, about=source.label)
    return facts


async def judge(source: AssetSource) -> MediaFacts | None:
    """Check the local file of ``source`` in a thread and return its facts, or None for the source of a URL.

    They hold a digest of the whole content: a file that was renamed or moved is the same source.

    :raises InvalidSource: see :func:`check_file`.
    """
    return None if source.path is None else await to_thread.run_sync(_examine, source)


def _examine(source: AssetSource) -> MediaFacts:
    facts = check_file(source)
    try:
        with facts.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        message = f"it cannot be read: {error.strerror or type(error).__name__}"
        raise InvalidSource(message, about=source.label) from error
    return attrs.evolve(facts, digest=digest)


async def published(
    source: AssetSource, facts: MediaFacts | None, *, client: Client, flow: Flow, patient: bool = False
) -> AssetSource:
    """Return ``source`` with a URL that the service can fetch: a local file is uploaded first.

    :param facts: what :func:`judge` returned for this source.
    :raises InvalidInput: the file can no longer be read, or changed after it was checked.
    :raises ConnectionFailed: no answer came in all attempts.
    :raises ApiError: the service refused.
    """
    if facts is None:
        return source
    url = await _send(facts, client=client, flow=flow, patient=patient)
    return attrs.evolve(source, source_url=url, path=None)


async def upload_file(path: str | os.PathLike[str], *, client: Client, flow: Flow, passage: Passage) -> str:
    """Upload the file at ``path`` to the service and return its URL there, which is public.

    Its first bytes decide which of the service's endpoints it goes to. Uploading a file twice does no harm, so every
    failure is retried.

    :raises InvalidInput: there is no such file, or the service would not take it: each reason is named.
    :raises ConnectionFailed: no answer came in all attempts.
    :raises ApiError: the service refused.

    Cancelled, it stops sending; a file that the service has received stays there.
    """
    named: object = path  # not every caller has a type checker
    if not isinstance(named, str | os.PathLike):
        message = f"a file is named by its path, not by {type(path).__name__}"
        raise InvalidInput(message)
    facts = await to_thread.run_sync(probe, path)
    problems = list(_upload_problems(facts))
    if problems:
        message = f"the service takes no such upload: {'; '.join(problems)}"
        raise InvalidInput(message, about=safe_text(facts.path.name, 80))
    return await _send(facts, client=client, flow=flow, patient=False, passage=passage)


async def _send(facts: MediaFacts, *, client: Client, flow: Flow, patient: bool, passage: Passage | None = None) -> str:
    file = _Reader(facts.path, facts.size)
    try:
        await to_thread.run_sync(file.open)
        request = _request(file, facts, safe_text(facts.path.name, 80))
        return await client.call(request, _read_url, flow=flow, patient=patient, passage=passage)
    finally:
        file.close()


def _upload_problems(facts: MediaFacts) -> Iterator[str]:
    if facts.media_type is None:
        yield "its format is not known"
    else:
        yield from UPLOAD_LIMITS[facts.media_type].problems(facts)


@attrs.define(eq=False, repr=False)
class _Reader:
    """A file of ``size`` bytes that is read in threads.

    A cancelled caller does not wait for its thread, so the lock makes closing wait for a read that is under way.
    """

    path: Path
    size: int
    _file: IO[bytes] | None = None
    _over: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def open(self) -> None:
        with self._lock:
            if self._over:
                return
            try:
                self._file = self.path.open("rb")
                size = os.fstat(self._file.fileno()).st_size
            except OSError as error:
                message = f"{safe_text(self.path)} cannot be read: {error.strerror or type(error).__name__}"
                raise InvalidInput(message) from error
            if size != self.size:
                message = (
                    f"{safe_text(self.path)} changed after it was checked ({self.size:,} bytes then, {size:,} now): "
                    "nothing of it was sent; upload it again when it is complete"
                )
                raise InvalidInput(message)

    def read(self, start: int, length: int) -> bytes:
        with self._lock:
            if self._file is None:
                return b""
            self._file.seek(start)
            return self._file.read(length)

    def close(self) -> None:
        with self._lock:
            self._over = True
            if self._file is not None:
                self._file.close()
                self._file = None


@attrs.define(eq=False, repr=False)
class _Pieces:
    """The body of one attempt: the multipart head, the file in chunks, the multipart tail."""

    file: _Reader
    head: bytes
    size: int
    tail: bytes
    _sent: int = -1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        at, self._sent = self._sent, max(self._sent, 0)
        if at < 0:
            return self.head
        if at < self.size:
            # No more than Content-Length announced, even if the file is growing.
            piece = await to_thread.run_sync(self.file.read, at, min(self.size - at, _CHUNK))
            if not piece:
                message = "the file became shorter while it was sent"
                raise OSError(message)
            self._sent += len(piece)
            return piece
        if at == self.size:
            self._sent += 1
            return self.tail
        raise StopAsyncIteration


def _request(file: _Reader, facts: MediaFacts, about: str) -> Request:
    boundary = secrets.token_hex(16)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file.{facts.media_format}"\r\n'
        f"Content-Type: {facts.mime_type}\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    return Request(
        lane="submit",
        method="POST",
        path=f"/v1/uploads/{facts.media_type}s",
        upload=Streamed(
            pieces=lambda: _Pieces(file, head, facts.size, tail),
            length=len(head) + facts.size + len(tail),
            content_type=f"multipart/form-data; boundary={boundary}",
        ),
        subject=about,
        repeatable=True,
    )


def _is_url(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("https://", "http://"))


def _read_url(answer: Response) -> str:
    return str(read_object(answer, "url", usable=_is_url)["url"])
