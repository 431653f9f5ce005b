"""Recognises a video by its first bytes, and tells by its boxes whether a file is whole.

An MP4 or QuickTime file is a row of boxes, each with its size and its type before its content (ISO/IEC 14496-12, 4.2).
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["PAGES", "Boxes", "flaw_of", "is_movie"]

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
_BINARY: Final = ("video/", "application/octet", "binary/", "application/mp4", "application/force-download")
_SMALL: Final = 8
_LARGE: Final = 16
_LARGE_SIZE: Final = b"\0\0\0\1"
"""The size that says: the true size follows the type, in 8 bytes."""


def is_movie(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` (12 bytes or more) is an MP4 or QuickTime video."""
    return head[4:8] in _BOXES and not (head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS)


def flaw_of(head: bytes, media_type: str, coding: str) -> str | None:  # noqa: PLR0911 - one return for each kind of file
    """Return why a file that begins with ``head`` is no video, as a part of a sentence, or None.

    Labels decide only where the bytes do not: object stores give MP4 files any type and any content coding.

    :param media_type: the ``Content-Type``.
    :param coding: the ``Content-Encoding``.
    """
    if is_movie(head) and len(head) >= _ENOUGH:
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if (page := _PAGES_BY_FIRST.get(text[:1])) is not None:
        return page
    if len(head) < _ENOUGH:
        return f"{len(head)} bytes"
    if head.startswith(_PICTURES) or head[4:8] == b"ftyp":
        return "a picture"
    label = media_type.partition(";")[0].strip().lower()
    codings = [one.strip().lower() for one in coding.split(",")]
    if not _NOT_CODED.issuperset(codings):
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
            if len(self._head) == self._header():
                self._enter()

    def _header(self) -> int:
        return _LARGE if self._head[:4] == _LARGE_SIZE else _SMALL

    def _enter(self) -> None:
        header = self._header()
        size = int.from_bytes(self._head[8:] if header == _LARGE else self._head[:4], "big")
        self._kinds.add(bytes(self._head[4:8]))
        # A box of size 0 goes on to the end of the file; one that is smaller than its header tells nothing.
        self._endless = size < header
        self._rest = max(0, size - header)
        self._head.clear()

    @property
    def whole(self) -> bool:
        """Whether the file may end here: after a box, with its index and its frames before that."""
        return self._endless or (not self._rest and not self._head and {b"moov", b"mdat"} <= self._kinds)
