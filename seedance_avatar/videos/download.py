"""Downloads a finished video to a file, completely or not at all.

The bytes go to a temporary file beside the target, which is renamed to the target once it is complete and synced to
disk. A broken transfer is resumed with a range request if the host's ETag or date says that the file is the same (RFC
9110, 13.1.5 and 14), and restarted otherwise. However else the download ends, cancelled included, the temporary file is
removed.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import re
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import IO, Final

import aiohttp
import anyio
import attrs
from anyio import to_thread
from yarl import URL

from seedance_avatar.errors import (
    ApiError,
    AvatarError,
    ConnectionFailed,
    InvalidInput,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
)
from seedance_avatar.events import Progress
from seedance_avatar.models import VideoTask
from seedance_avatar.options import Retry, Timeouts
from seedance_avatar.text import redact_url, safe_text

__all__ = ["Download"]

_CHUNK: Final = 1 << 20
_GONE: Final = frozenset({403, 404, 410})
_PASSING: Final = frozenset({408, 425, 429})  # and every 5xx
_TYPES: Final = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/mp4"})
_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_RENEWALS: Final = 2


class _Interrupted(Exception):  # noqa: N818 - it is never raised to the caller: it carries the error to the loop that retries
    """The transfer failed in a way that another attempt may not."""

    def __init__(self, cause: AvatarError) -> None:
        super().__init__(cause)
        self.cause = cause


@attrs.frozen(kw_only=True)
class _Body:
    """The part of the file that a response holds, by its headers."""

    start: int
    total: int | None
    validator: str | None


@attrs.define(eq=False, repr=False)
class _Part:
    """The temporary file beside the target. Its methods block, and run in threads.

    A cancelled caller does not wait for its thread, so the lock makes the clean-up wait for a write that is under way.
    """

    path: Path
    size: int = 0
    _file: IO[bytes] | None = None
    _over: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def open(self) -> None:
        with self._lock:
            if not self._over:
                # Unbuffered, since each write is large; "x" never follows a symbolic link.
                self._file = self.path.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        with self._lock:
            view = memoryview(data)
            while view and self._file is not None:
                written = self._file.write(view)
                self.size += written
                view = view[written:]

    def rewind(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.seek(0)
                self._file.truncate()
            self.size = 0

    def become(self, target: Path) -> None:
        with self._lock:
            if self._file is None:
                return
            os.fsync(self._file.fileno())
            self._file.close()
            self.path.replace(target)
            # The new name is durable only when the directory is synced too.
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def clear(self) -> None:
        with self._lock:
            self._over = True
            if self._file is not None:
                self._file.close()
                self._file = None
                self.path.unlink(missing_ok=True)


@attrs.define(eq=False, repr=False, kw_only=True)
class Download:
    """One download. Build it, then await :meth:`run` once.

    :ivar ask: gets a task by its id from the service, for a new URL when one has expired.
    :ivar connector: the connector to use, which stays open, or None for its own. No header, cookie or credential of a
        session is sent: the host of the file must never see the key.
    :ivar progress: see :data:`~seedance_avatar.events.Progress`; an exception from it ends the download.
    :ivar wall_clock: returns seconds since the epoch, to see whether the service still keeps the file.
    """

    ask: Callable[[str], Awaitable[VideoTask]]
    retry: Retry = attrs.field(factory=Retry)
    timeouts: Timeouts = attrs.field(factory=Timeouts)
    connector: aiohttp.BaseConnector | None = None
    progress: Progress | None = None
    rng: random.Random = attrs.field(factory=random.Random)
    sleep: Callable[[float], Awaitable[object]] = anyio.sleep
    wall_clock: Callable[[], float] = time.time
    _validator: str | None = attrs.field(default=None, init=False)

    async def run(self, video: VideoTask | str, path: str | os.PathLike[str]) -> Path:
        """Download the file of ``video``, a completed task or its id, to ``path``, and return the path.

        An existing file is replaced once the new one is complete. Failed attempts are repeated as ``retry`` says, and
        counted from zero whenever a transfer came further than before. ``timeouts.request`` is how long the host may
        be silent; the whole download has no deadline of its own.

        :raises InvalidInput: the task is not completed, or ``path`` cannot be a file.
        :raises NotFound: the service no longer keeps the file.
        :raises ConnectionFailed: the host could not be reached, or the transfer kept failing.
        :raises ApiError: the host refused.
        :raises ProtocolError: what the host sends is not a video.
        :raises OSError: the disk refused (full, read-only).

        Cancelled, it leaves the target as it was, and no other file.
        """
        target = Path(path)
        if not await to_thread.run_sync(lambda: target.parent.is_dir() and not target.is_dir()):
            message = f"{safe_text(target)} is not a place for a file: its folder must exist, and it must not be one"
            raise InvalidInput(message)
        task = await self.ask(video) if isinstance(video, str) else video
        if not task.is_completed:
            message = (
                f"it is {safe_text(task.status, 40)}, not completed: wait for it with session.wait_for_video() first"
            )
            raise InvalidInput(message, about=task.task_id)
        if task.url is None:
            task = await self.ask(task.task_id)
        part = _Part(target.with_name(f".{target.name}.{secrets.token_hex(4)}.part"))
        try:
            await to_thread.run_sync(part.open)
            async with self._http() as http:
                await self._fetch(http, task, part)
            await to_thread.run_sync(part.become, target)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(part.clear)
        return target

    def _http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self.connector,
            connector_owner=self.connector is None,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            requote_redirect_url=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                # It includes the wait for a connection of a shared pool, which may be busy with other downloads.
                connect=self.timeouts.connect if self.connector is None else None,
                sock_connect=self.timeouts.connect,
                sock_read=self.timeouts.request,
            ),
        )

    async def _fetch(self, http: aiohttp.ClientSession, task: VideoTask, part: _Part) -> None:
        furthest = failures = renewals = 0
        while True:
            if task.url is None:
                message = "it is completed, but its answer holds no URL of the video: look at the task's raw answer"
                raise ProtocolError(message, about=task.task_id)
            try:
                await self._attempt(http, task.url, task.task_id, part)
            except NotFound as gone:
                # A signed URL may expire before the file does, so a new one is asked for, twice at most.
                fresh = await self._renewed(task, gone) if renewals < _RENEWALS else task
                if fresh.url in {None, task.url}:
                    raise self._gone(fresh, gone) from None
                renewals += 1
                task = fresh
            except _Interrupted as broken:
                failures = 1 if part.size > furthest else failures + 1
                furthest = max(furthest, part.size)
                if failures >= self.retry.attempts:
                    raise broken.cause from None
                await self.sleep(self._pause(broken.cause, failures))
            else:
                return

    def _pause(self, cause: AvatarError, failures: int) -> float:
        throttled = isinstance(cause, RateLimited)
        base = self.retry.throttle_base if throttled else self.retry.base
        asked = cause.retry_after if isinstance(cause, ApiError) else None
        return (asked or 0.0) + self.rng.uniform(0, min(self.retry.cap, base * 2 ** (failures - 1)))

    async def _attempt(self, http: aiohttp.ClientSession, url: str, about: str, part: _Part) -> None:
        headers = {"Accept-Encoding": "identity"}
        if part.size and self._validator:
            headers |= {"Range": f"bytes={part.size}-", "If-Range": self._validator}
        try:
            # Unchanged: encoding a signed URL again would invalidate its signature.
            async with http.get(URL(url, encoded=url.isascii()), headers=headers, max_redirects=5) as response:
                body = self._judged(response, part.size, about)
                if body.start != part.size:
                    await to_thread.run_sync(part.rewind)
                self._validator = body.validator
                await self._pour(response, body, part, about)
        except (aiohttp.ClientError, TimeoutError) as error:
            # Only its type: the text of aiohttp's errors may contain the query of a signed URL.
            message = f"the transfer of {redact_url(url)} broke after {part.size} bytes ({type(error).__name__})"
            raise _Interrupted(ConnectionFailed(message, about=about)) from None

    def _judged(self, response: aiohttp.ClientResponse, held: int, about: str) -> _Body:
        """Return which part of the file ``response`` holds, with ``held`` bytes already there, or raise its refusal."""
        status, host = response.status, safe_text(response.url.host, 80)
        if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            raise self._refusal(response, held, about)
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if (not media_type.startswith("video/") and media_type not in _TYPES) or coding != "identity":
            message = f"{host} sends {safe_text(media_type, 60)} ({safe_text(coding, 20)}), not the video as it is"
            raise ProtocolError(message, about=about, status=status)
        # A weak ETag does not promise the same bytes (RFC 9110, 8.8.1).
        etag = response.headers.get("ETag")
        validator = response.headers.get("Last-Modified") if etag is None or etag.startswith("W/") else etag
        if status == HTTPStatus.OK:
            return _Body(start=0, total=response.content_length, validator=validator)
        part = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if part is None or not held or int(part[1]) != held:
            message = f"{host} sends another part of the file than the one asked for"
            raise ProtocolError(message, about=about, status=status)
        return _Body(start=held, total=None if part[2] == "*" else int(part[2]), validator=validator or self._validator)

    def _refusal(self, response: aiohttp.ClientResponse, held: int, about: str) -> Exception:
        status, host = response.status, safe_text(response.url.host, 80)
        if status in _GONE:
            return NotFound(f"{host} does not give the file", status=status, about=about)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and held:
            self._validator = None
            return _Interrupted(ServerError(f"{host} did not go on with the file", status=status, about=about))
        said = response.headers.get("Retry-After", "")
        wait = float(said) if re.fullmatch("[0-9]{1,6}", said) else None
        passing = status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        error = (RateLimited if status == HTTPStatus.TOO_MANY_REQUESTS else ServerError if passing else ApiError)(
            f"{host} refused the download", status=status, about=about, retryable=passing, retry_after=wait
        )
        # A longer Retry-After is left to the caller.
        return _Interrupted(error) if passing and (wait or 0.0) <= self.retry.max_retry_after else error

    async def _pour(self, response: aiohttp.ClientResponse, body: _Body, part: _Part, about: str) -> None:
        held = bytearray()

        async def flush() -> None:
            await to_thread.run_sync(part.write, bytes(held))
            held.clear()
            if self.progress is not None:
                self.progress(part.size, body.total)

        try:
            async for piece in response.content.iter_any():
                held += piece
                if len(held) >= _CHUNK:
                    await flush()
        except (aiohttp.ClientError, TimeoutError):
            # What arrived before the failure is kept: the next attempt resumes after it.
            if held:
                await flush()
            raise
        if held:
            await flush()
        if part.size == 0 or (body.total is not None and part.size != body.total):
            self._validator = None
            message = f"the file is not whole: {part.size} bytes came of {'some' if body.total is None else body.total}"
            raise _Interrupted(ProtocolError(message, about=about, status=response.status))

    async def _renewed(self, task: VideoTask, gone: NotFound) -> VideoTask:
        try:
            return await self.ask(task.task_id)
        except NotFound:
            raise self._gone(task, gone) from None

    def _gone(self, task: VideoTask, gone: NotFound) -> NotFound:
        if task.expires_at is not None and self.wall_clock() >= task.expires_at:
            moment = dt.datetime.fromtimestamp(task.expires_at, dt.UTC)
            message = f"the service kept the video for 24 hours, until {moment:%Y-%m-%d %H:%M} UTC: generate it again"
        else:
            message = f"{gone.message}, and the service names no other URL: the 24 hours that it keeps one may be over"
        return NotFound(message, status=gone.status, about=task.task_id)
