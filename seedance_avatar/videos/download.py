"""Downloads a finished video to a file, completely or not at all.

The bytes go to a temporary file beside the target, which is renamed to the target once it is complete and synced to
disk. A broken transfer is resumed with a range request if the host's ETag or date says that the file is the same, and
restarted otherwise. However else the download ends, cancelled included, the temporary file is removed.

What an answer and its bytes mean is decided in :mod:`.transfer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import random
import secrets
import stat
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Final

import aiohttp
import anyio
import attrs
from anyio import to_thread
from yarl import URL

from seedance_avatar.client.retry import backoff
from seedance_avatar.client.tasks import raisable
from seedance_avatar.errors import (
    ApiError,
    AvatarError,
    ConnectionFailed,
    InvalidInput,
    NotFound,
    ProtocolError,
    RateLimited,
)
from seedance_avatar.events import Progress
from seedance_avatar.models import VideoTask
from seedance_avatar.options import Retry, Timeouts
from seedance_avatar.text import redact_url, safe_text
from seedance_avatar.wire.public_urls import judge_host, judge_url

from .transfer import FETCH_AGAIN, PAGES, Answer, Boxes, Decision, Version, flaw_of, is_movie, judge, pause_until_there

_CHUNK: Final = 1 << 20
_RENEWALS: Final = 2
_REDIRECTS: Final = 5
_LONGEST_NAME: Final = 200
"""Bytes of the target's name that the temporary file's name keeps: 255 are allowed for all of it."""


def _target_of(path: str | os.PathLike[str]) -> tuple[Path, int | None]:
    """Return the file that ``path`` names, links followed, and the mode of the one that is there. It blocks.

    :raises InvalidInput: no file can be there, or what is there is no regular file.
    """
    found = None
    try:
        target = Path(os.path.realpath(Path(path)))
        folder = target.parent.is_dir()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.lstat(target)
    except (OSError, ValueError, TypeError) as error:
        message = f"{safe_text(path)} cannot name a file ({safe_text(error, 80)})"
        raise InvalidInput(message) from None
    if not folder or target.is_dir():
        message = f"{safe_text(path)} is not a place for a file: its folder must exist, and it must not be one"
        raise InvalidInput(message)
    if found is not None and not stat.S_ISREG(found.st_mode):
        message = f"{safe_text(path)} is a device, a pipe or a link to one: only a regular file is replaced"
        raise InvalidInput(message)
    return target, None if found is None else stat.S_IMODE(found.st_mode)


@attrs.define(eq=False, repr=False)
class _Part:
    """The temporary file beside the target. Its methods block, and run in threads.

    A cancelled caller does not wait for its thread, so the lock makes the clean-up wait for a write that is under way.
    """

    path: Path
    mode: int | None = None
    size: int = 0
    boxes: Boxes | None = None
    """None for a file that is taken though it is no MP4 and no QuickTime file."""
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
            if not self.size:
                self.boxes = Boxes() if is_movie(data) else None
            if self.boxes is not None:
                self.boxes.feed(data)
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

    def judged(self, total: int | None, *, about: str, status: int) -> Decision:
        """Return whether the file is whole, once an answer came to its end; ``total`` is its length, where known."""
        if self.size and (self.size == total or (total is None and (self.boxes is None or self.boxes.whole))):
            return Decision(what="take")
        message = f"the file is not whole: {self.size} bytes came of {'some' if total is None else total}"
        error = ProtocolError(message, about=about, status=status, hint=FETCH_AGAIN)
        if not self.size:
            return Decision(what="absent", error=error)
        return Decision(what="again" if total is None or self.size < total else "anew", error=error)

    def become(self, target: Path) -> None:
        with self._lock:
            if self._file is None:
                return
            os.fsync(self._file.fileno())
            self._file.close()
            if self.mode is not None:
                self.path.chmod(self.mode)
            self.path.replace(target)
            # The new name is durable only when the directory is synced too; not every system opens directories.
            with contextlib.suppress(OSError):
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
    :ivar progress: see :data:`~seedance_avatar.events.Progress`.
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
    _version: Version | None = attrs.field(default=None, init=False)

    async def run(self, video: VideoTask | str, path: str | os.PathLike[str]) -> Path:
        """Download the file of ``video``, a completed task or its id, to ``path``, and return the path.

        An existing file is replaced once the new one is complete; it keeps its mode, and a link to it stays a link.
        What is no regular file (a device, a pipe) is refused, never replaced. Failed attempts are repeated as ``retry``
        says, and counted from zero whenever a transfer came further than before; a file that is not there yet, just
        after its task finished, is asked for again for a minute. ``timeouts.request`` is how long the host may be
        silent; the whole download has no deadline of its own.

        :raises InvalidInput: the task is not completed, or ``path`` cannot be a file.
        :raises NotFound: the host does not have the file: not yet, or no longer.
        :raises ConnectionFailed: the host could not be reached, or the transfer kept failing.
        :raises ApiError: the host refused.
        :raises ProtocolError: what the host sends is not a video, or the task's URL is none.
        :raises OSError: the disk refused (full, read-only).

        Cancelled, it leaves the target as it was, and no other file.
        """
        target, mode = await to_thread.run_sync(_target_of, path)
        task = await self.ask(video) if isinstance(video, str) else video
        if not task.is_completed:
            status = safe_text(task.status, 40)
            message = f"it is {status}, not completed: wait for it with session.wait_for_video() first"
            raise InvalidInput(message, about=task.task_id)
        if task.url is None:
            task = await self.ask(task.task_id)
        name = os.fsencode(target.name)[:_LONGEST_NAME].decode(errors="ignore")
        part = _Part(target.with_name(f".{name}.{secrets.token_hex(4)}.part"), mode)
        try:
            await to_thread.run_sync(part.open)
            async with self._http() as http:
                await self._fetch(http, task, part)
            await to_thread.run_sync(part.become, target)
        except _CallbackError as stopped:
            raise stopped.args[0]  # noqa: B904 - its cause is set, where it is another error
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(part.clear)
        return Path(path)

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
        furthest = failures = renewals = absent = 0
        while True:
            if task.url is None:
                message = "it is completed, but its answer holds no URL of the video"
                raise ProtocolError(message, about=task.task_id, task=task, hint="look at error.task.raw")
            decision = await self._attempt(http, task.url, task.task_id, part)
            error = decision.error
            if error is None:
                return
            if decision.what == "refused":
                raise error
            if decision.what == "absent":
                # A signed URL may expire before the file does, so a new one is asked for, twice at most.
                fresh = await self._renewed(task, error) if renewals < _RENEWALS else task
                if fresh.url not in {None, task.url}:
                    task, renewals = fresh, renewals + 1
                else:
                    absent += 1
                    await self._wait_until_there(fresh, error, absent)
                continue
            if decision.what == "anew":
                self._version = None
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if failures >= self.retry.attempts:
                raise error
            base = self.retry.throttle_base if isinstance(error, RateLimited) else self.retry.base
            asked = (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0
            await self.sleep(asked + backoff(failures, base=base, cap=self.retry.cap, rng=self.rng))

    async def _attempt(self, http: aiohttp.ClientSession, url: str, about: str, part: _Part) -> Decision:
        """Ask for the file, or the rest of it; return a decision without an error once it is whole."""
        headers = {"Accept-Encoding": "identity"}
        if part.size and self._version is not None and (validator := self._version.validator) is not None:
            headers |= {"Range": f"bytes={part.size}-", "If-Range": validator}
        held = part.size if "Range" in headers else 0
        try:
            async with await self._answered(http, url, headers, about) as response:
                host = safe_text(response.url.host, 80)
                answer = Answer(response.status, host, response.headers, response.content_length)
                longest = self.retry.max_retry_after
                decision = judge(answer, held=held, first=self._version, about=about, longest_wait=longest)
                if decision.what != "take":
                    return decision
                if decision.start != part.size:
                    await to_thread.run_sync(part.rewind)
                self._version = decision.version
                return await self._pour(response, answer, part, about)
        except (ProtocolError, ConnectionFailed) as error:
            return Decision(what="refused", error=error.with_traceback(None))
        except (aiohttp.ClientError, TimeoutError, UnicodeError) as error:
            # Only its type: the text of aiohttp's errors may contain the query of a signed URL.
            message = f"the transfer of {redact_url(url)} broke after {part.size} bytes ({type(error).__name__})"
            return Decision(what="again", error=ConnectionFailed(message, about=about))

    async def _answered(
        self, http: aiohttp.ClientSession, url: str, headers: dict[str, str], about: str
    ) -> aiohttp.ClientResponse:
        """Return the response to a request for ``url``, after redirects: none from a public host to a private one.

        :raises ProtocolError: the URL, or the one of a redirect, cannot be asked.
        """
        if (why := judge_url(url, allow_private=True)) is not None:
            message = f"the task's URL {redact_url(url)} cannot be fetched: {why}"
            raise ProtocolError(message, about=about, hint=FETCH_AGAIN)
        # Unchanged: encoding a signed URL again would invalidate its signature.
        at = URL(url, encoded=url.isascii())
        anywhere = judge_host(at.host_subcomponent or "") is not None
        for _ in range(_REDIRECTS + 1):
            response = await http.get(at, headers=headers, allow_redirects=False)
            target = response.headers.get("Location") if response.status in _REDIRECTED else None
            if target is None:
                return response
            response.release()
            try:
                there = URL(target, encoded=target.isascii())
                to = at.join(there) if there.host or not there.scheme else URL()
            except ValueError:
                to = URL()
            why = judge_url(str(to), allow_private=anywhere)
            if why is None and not anywhere and to.host != at.host:
                why = await _private_address(to)
            if why is not None:
                message = f"{safe_text(at.host, 80)} redirects to {redact_url(target)}, which is not followed: {why}"
                raise ProtocolError(message, about=about, status=response.status, hint=FETCH_AGAIN)
            at = to
        message = f"{safe_text(at.host, 80)} redirects more than {_REDIRECTS} times"
        raise ProtocolError(message, about=about, hint=FETCH_AGAIN)

    async def _pour(self, response: aiohttp.ClientResponse, answer: Answer, part: _Part, about: str) -> Decision:
        version = self._version
        total = None if version is None else version.total
        held = bytearray()

        async def flush() -> None:
            if not part.size and (flaw := flaw_of(answer, held)) is not None:
                raise _NoVideoError(flaw)
            await to_thread.run_sync(part.write, bytes(held))
            held.clear()
            self._tell(part.size, total)

        try:
            async for piece in response.content.iter_any():
                held += piece
                if len(held) >= _CHUNK:
                    await flush()
            if held:
                await flush()
        except (aiohttp.ClientError, TimeoutError):
            # What arrived before the failure is kept, if it can be judged: the next attempt resumes after it.
            if part.size or flaw_of(answer, held) is None:
                await flush()
            raise
        except _NoVideoError as flaw:
            message = f"{answer.host} sends {safe_text(flaw, 80)}, not a video"
            error = ProtocolError(message, about=about, status=answer.status, hint=FETCH_AGAIN)
            return Decision(what="absent" if str(flaw) in PAGES else "refused", error=error)
        return part.judged(total, about=about, status=answer.status)

    def _tell(self, size: int, total: int | None) -> None:
        try:
            if self.progress is not None:
                self.progress(size, total)
        except BaseException as error:  # noqa: BLE001 - the caller's own, which may look like one of the host's
            raise _CallbackError(raisable(error, "the progress callback")) from None

    async def _wait_until_there(self, task: VideoTask, error: AvatarError, absent: int) -> None:
        """Sleep before the file is asked for again; raise where it cannot be expected any more."""
        if (pause := pause_until_there(task, absent, self.wall_clock())) is None:
            raise self._gone(task, error) if isinstance(error, NotFound) else error
        await self.sleep(pause)

    async def _renewed(self, task: VideoTask, gone: AvatarError) -> VideoTask:
        """Return the task as the service has it now, with a new URL perhaps; only a file that is gone needs one."""
        if not isinstance(gone, NotFound):
            return task
        try:
            return await self.ask(task.task_id)
        except NotFound:
            raise self._gone(task, gone) from None

    def _gone(self, task: VideoTask, gone: NotFound) -> NotFound:
        if task.expires_at is None:
            message = f"{gone.message}, and the service names no other URL: the 24 hours that it keeps one may be over"
        else:
            moment = f"{dt.datetime.fromtimestamp(task.expires_at, dt.UTC):%Y-%m-%d %H:%M} UTC"
            if self.wall_clock() >= task.expires_at:
                message = f"the service kept the video for 24 hours, until {moment}: generate it again"
            else:
                message = f"{gone.message}, though the service keeps the video until {moment}: download it again later"
        return NotFound(message, status=gone.status, about=task.task_id)


_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})


class _CallbackError(Exception):
    """Carries what the caller's own callback raised past all that handles errors of the host."""


class _NoVideoError(Exception):
    """The first bytes of a file are those of something else, which the text names."""


async def _private_address(url: URL) -> str | None:
    """Return why the addresses of the host of ``url`` are not public, or None, also where the name is not known."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port)
    except (OSError, UnicodeError):
        return None
    if all(ipaddress.ip_address(entry[4][0]).is_global for entry in found):
        return None
    return "its name stands for a private address"
