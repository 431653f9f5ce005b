"""Judges what a files host sends for a video, by its headers, its first bytes and its boxes. No I/O.

A file that arrives in several parts is one file only if every part is of the same version: same ETag, date and length
(RFC 9110, 13.1.5 and 14). Just after its task finished, a file may not be there yet. An MP4 or QuickTime file is a row
of boxes, each with its size and its type before its content (ISO/IEC 14496-12, 4.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from seedance_avatar.errors import ApiError, AvatarError, NotFound, ProtocolError, RateLimited, ServerError
from seedance_avatar.models import VideoTask

FETCH_AGAIN: Final = "the video is finished and kept for 24 hours: download it again, or fetch its URL by other means"
"""What to do about a finished video that did not arrive."""
_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_DAY: Final = 86_400.0
_YOUNG: Final = 600.0
"""Seconds after its end for which a task's file may still come; more than a minute, since clocks differ."""
_WAITS: Final = (1.0, 2.0, 4.0, *[8.0] * 7)
"""Seconds before each further request for a file that is not there yet: a minute in all."""

_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
"""Types of the box that a video begins with; QuickTime files need no ``ftyp``."""
_PAGES_BY_FIRST: Final = {b"<": "a page of text", b"{": "JSON", b"[": "JSON"}
PAGES: Final = frozenset(_PAGES_BY_FIRST.values())
"""What a host may send in place of a file that it does not have yet."""
_PICTURES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")
_PICTURE_BRANDS: Final = frozenset({b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"})
_NOT_CODED: Final = frozenset(
    {"", "identity", "none", "null", "aws-chunked", "binary", "utf-8", "utf8", "7bit", "8bit"}
)
_ENOUGH: Final = 12
_HEAD: Final = 512
"""Bytes at the beginning of a file by which it is judged."""
_BINARY: Final = ("video/", "application/octet", "binary/", "application/mp4", "application/force-download")


@attrs.frozen
class Version:
    """What tells one state of a file from another: its ETag, its date, and its length in bytes."""

    etag: str | None
    date: str | None
    total: int | None

    @property
    def validator(self) -> str | None:
        """The text for ``If-Range``: a strong ETag, else the date; a weak ETag does not promise the same bytes."""
        return self.date if self.etag is None or self.etag.startswith("W/") else self.etag

    def continues(self, first: Version) -> bool:
        """Return whether a part of this version goes on with a file that began as ``first``."""
        same = [
            mine == theirs
            for mine, theirs in ((self.etag, first.etag), (self.date, first.date), (self.total, first.total))
            if mine is not None and theirs is not None
        ]
        return bool(same) and all(same)


@attrs.frozen
class Answer:
    """The facts of a response: its status, the host's name as it may be shown, and its headers."""

    status: int
    host: str
    headers: Mapping[str, str]
    length: int | None


@attrs.frozen(kw_only=True)
class Decision:
    """What to do: ``take`` the body from byte ``start`` on, ask ``again``, begin ``anew``, or raise ``error``.

    ``absent`` is a file that the host does not have: perhaps not yet, perhaps no longer.
    """

    what: Literal["take", "again", "anew", "absent", "refused"]
    error: AvatarError | None = None
    start: int = 0
    version: Version | None = None


def judge(answer: Answer, *, held: int, first: Version | None, about: str, longest_wait: float) -> Decision:
    """Return what ``answer`` means for a download that has ``held`` bytes of the version ``first``.

    :param about: the task's id, for errors.
    :param longest_wait: the longest ``Retry-After`` to obey, seconds.
    """
    status, headers = answer.status, answer.headers
    version = Version(headers.get("ETag"), headers.get("Last-Modified"), answer.length)
    match status:
        case 200:
            return Decision(what="take", version=version)
        case 206:
            return _part(answer, version, held=held, first=first, about=about)
        case 412 | 416 if held:
            error: AvatarError = ServerError(f"{answer.host} did not continue the file", status=status, about=about)
            return Decision(what="anew", error=error)
        case 202 | 204 | 400 | 403 | 404 | 409 | 410 | 425:
            missing = NotFound if status in {403, 404, 410} else ApiError
            error = missing(f"{answer.host} does not have the file", status=status, about=about, retryable=True)
            return Decision(what="absent", error=error)
    said = headers.get("Retry-After", "")
    wait = float(said) if re.fullmatch("[0-9]{1,6}", said) else None
    passing = status in {408, 429, *range(500, 1000)}
    kind = {429: RateLimited}.get(status, ServerError if passing else ApiError)
    error = kind(f"{answer.host} refused the download", status=status, about=about, retryable=passing, retry_after=wait)
    # A longer Retry-After is left to the caller.
    return Decision(what="again" if passing and (wait or 0.0) <= longest_wait else "refused", error=error)


def _part(answer: Answer, version: Version, *, held: int, first: Version | None, about: str) -> Decision:
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is not None:
        total = None if found[3] == "*" else int(found[3])
        version = attrs.evolve(version, total=total)
        start, stop = int(found[1]), int(found[2]) + 1
        goal = total if total is not None or first is None else first.total
        # A part that announces less than the rest is as odd as one from elsewhere.
        right = start == held and goal in {None, stop} and answer.length in {None, stop - start}
        if right and (first is None if not held else first is not None and version.continues(first)):
            known = version if first is None else first
            return Decision(what="take", start=held, version=attrs.evolve(known, total=known.total or total))
    message = f"{answer.host} sends another part of the file, or of another file, than the one asked for"
    return Decision(what="anew", error=ProtocolError(message, about=about, status=answer.status, hint=FETCH_AGAIN))


def pause_until_there(task: VideoTask, asked: int, now: float) -> float | None:
    """Return the seconds to wait after the file of ``task`` was absent ``asked`` times in a row, or None: wait no more.

    It may still come where its task finished lately, or nobody knows when, and is waited for a minute.

    :param now: seconds since the epoch.
    """
    finished = task.completed_at
    if finished is None and task.expires_at is not None:
        finished = task.expires_at - _DAY
    young = finished is None or now < finished + _YOUNG
    return _WAITS[asked - 1] if young and asked <= len(_WAITS) else None


def is_movie(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` (12 bytes or more) is an MP4 or QuickTime video."""
    return head[4:8] in _BOXES and not (head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS)


def flaw_of(answer: Answer, content: bytearray) -> str | None:  # noqa: PLR0911 - one return for each kind of file
    """Return why the file of ``answer`` that begins with ``content`` is no video, as a part of a sentence, or None.

    Labels decide only where the bytes do not: object stores give MP4 files any type and any content coding.
    """
    head = bytes(content[:_HEAD])
    if is_movie(head) and len(head) >= _ENOUGH:
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if (page := _PAGES_BY_FIRST.get(text[:1])) is not None:
        return page
    if len(head) < _ENOUGH:
        return f"{len(head)} bytes"
    if head.startswith(_PICTURES) or head[4:8] == b"ftyp":
        return "a picture"
    label = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    coding = answer.headers.get("Content-Encoding", "")
    if not _NOT_CODED.issuperset(one.strip().lower() for one in coding.split(",")):
        return f"a file with the coding {coding}"
    if label and not label.startswith(_BINARY):
        return label
    return "text" if head.isascii() and b"\0" not in head else None


@attrs.define
class Boxes:
    """The boxes of a file that arrives piece by piece."""

    _head: bytearray = attrs.field(factory=bytearray)
    _rest: int = 0
    _endless: bool = False
    _kinds: set[bytes] = attrs.field(factory=set)

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the file."""
        at = 0
        while at < len(data) and not self._endless:
            if self._rest:
                step = min(self._rest, len(data) - at)
                self._rest -= step
                at += step
                continue
            piece = data[at : at + self._header() - len(self._head)]
            self._head += piece
            at += len(piece)
            if len(self._head) < (header := self._header()):
                continue
            size = int.from_bytes(self._head[8:] or self._head[:4], "big")
            self._kinds.add(bytes(self._head[4:8]))
            # A box of size 0 goes on to the end of the file; one that is smaller than its header tells nothing.
            self._endless = size < header
            self._rest = max(0, size - header)
            self._head.clear()

    def _header(self) -> int:
        # The size 1 says: the true size follows the type, in 8 bytes.
        return 16 if self._head[:4] == b"\0\0\0\1" else 8

    @property
    def whole(self) -> bool:
        """Whether the file may end here: after a box, with its index and its frames before that."""
        return self._endless or (not self._rest and not self._head and {b"moov", b"mdat"} <= self._kinds)
