"""Reads the facts of a local media file, and checks them against the service's limits.

Format and size are read here. Width and height need ``imagesize``, the duration ``tinytag``: both come with the extra
``[media]``. A fact that cannot be read is None and is not checked.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Final

import attrs

from seedance_avatar.errors import InvalidInput
from seedance_avatar.models import AssetType
from seedance_avatar.text import safe_text

__all__ = ["ASSET_LIMITS", "UPLOAD_LIMITS", "MediaFacts", "MediaLimits", "probe"]

_MB: Final = 1 << 20  # the larger of the two meanings of MB: what is refused here, the service refuses too
_HEAD: Final = 64


@attrs.frozen(kw_only=True)
class MediaFacts:
    """The facts of a local media file.

    :ivar path: the file.
    :ivar size: bytes.
    :ivar media_type: ``image``, ``video`` or ``audio``, or None when the format is unknown.
    :ivar media_format: ``jpeg``, ``png``, ``mp4`` and the like, by its first bytes, not by its name; or None.
    :ivar mime_type: the MIME type of that format, or None.
    :ivar width: pixels, for images, or None when it cannot be read.
    :ivar height: pixels, for images, or None when it cannot be read.
    :ivar duration: seconds, for video and audio, or None when it cannot be read.
    :ivar digest: names its content, where that was read.
    """

    path: Path
    size: int
    media_type: AssetType | None = None
    media_format: str | None = None
    mime_type: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    digest: str = ""

    @property
    def ratio(self) -> float | None:
        """Width divided by height, or None."""
        return self.width / self.height if self.width and self.height else None


@attrs.frozen(kw_only=True)
class MediaLimits:
    """The limits for one media type; a limit of None is not checked.

    :ivar formats: names as in :attr:`MediaFacts.media_format`.
    :ivar size: bytes at most.
    :ivar side: pixels, the least and the most for width and height.
    :ivar ratio: the least and the most for width divided by height.
    :ivar duration: seconds, the least and the most.
    """

    formats: tuple[str, ...]
    size: int
    side: tuple[int, int] | None = None
    ratio: tuple[float, float] | None = None
    duration: tuple[float, float] | None = None

    def problems(self, facts: MediaFacts) -> Iterator[str]:
        """Yield every limit that ``facts`` break, each as a short sentence."""
        if facts.media_format not in self.formats:
            yield f"its format is {facts.media_format or 'not known'}, not one of {', '.join(self.formats)}"
        if facts.size == 0:
            yield "it is empty"
        if facts.size > self.size:
            yield f"it has {facts.size:,} bytes, more than {self.size:,}"
        for name, value in (("width", facts.width), ("height", facts.height)):
            if self.side and value is not None and not self.side[0] <= value <= self.side[1]:
                yield f"its {name} is {value} pixels, not {self.side[0]} to {self.side[1]}"
        if self.ratio and facts.ratio is not None and not self.ratio[0] <= facts.ratio <= self.ratio[1]:
            yield f"its width/height is {facts.ratio:.4g}, not {self.ratio[0]:g} to {self.ratio[1]:g}"
        duration = facts.duration
        if self.duration and duration is not None and not self.duration[0] <= duration <= self.duration[1]:
            yield f"it lasts {duration:.4g} seconds, not {self.duration[0]:g} to {self.duration[1]:g}"


ASSET_LIMITS: Final[Mapping[AssetType, MediaLimits]] = MappingProxyType(
    {
        "image": MediaLimits(
            formats=("jpeg", "png", "webp", "bmp", "tiff", "gif", "heic"),
            size=30 * _MB - 1,
            side=(300, 6000),
            ratio=(0.4, 2.5),
        ),
        "video": MediaLimits(formats=("mp4", "mov"), size=50 * _MB, duration=(2, 15)),
        "audio": MediaLimits(formats=("mp3", "wav"), size=15 * _MB, duration=(2, 15)),
    }
)
"""Limits of assets. The service publishes none; these are documented by Volcengine Ark, which processes the assets."""

UPLOAD_LIMITS: Final[Mapping[AssetType, MediaLimits]] = MappingProxyType(
    {
        "image": MediaLimits(formats=("jpeg", "png", "webp", "gif"), size=10 * _MB),
        "video": MediaLimits(formats=("mp4", "webm", "mov"), size=50 * _MB),
        "audio": MediaLimits(formats=("mp3", "wav", "m4a"), size=50 * _MB),
    }
)
"""Limits of the service's upload endpoints, as documented."""

_MIME: Final[Mapping[str, tuple[AssetType, str]]] = {
    "jpeg": ("image", "image/jpeg"),
    "png": ("image", "image/png"),
    "webp": ("image", "image/webp"),
    "gif": ("image", "image/gif"),
    "bmp": ("image", "image/bmp"),
    "tiff": ("image", "image/tiff"),
    "heic": ("image", "image/heic"),
    "mp4": ("video", "video/mp4"),
    "mov": ("video", "video/quicktime"),
    "webm": ("video", "video/webm"),
    "mp3": ("audio", "audio/mpeg"),
    "wav": ("audio", "audio/wav"),
    "m4a": ("audio", "audio/mp4"),
}
_BEGINNINGS: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"ID3", "mp3"),
)
_RIFF: Final = {b"WEBP": "webp", b"WAVE": "wav"}
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})


def _format(head: bytes) -> str | None:  # noqa: PLR0911 - one return for each family of formats
    for beginning, name in _BEGINNINGS:
        if head.startswith(beginning):
            return name
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _HEIC_BRANDS:
            return "heic"
        return {b"qt  ": "mov", b"M4A ": "m4a", b"M4B ": "m4a"}.get(brand, "mp4")
    if head[4:8] in {b"moov", b"mdat", b"wide", b"free"}:
        return "mov"  # QuickTime files of before 2001 have no ftyp
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm" if b"webm" in head else None  # else Matroska, which the service does not accept
    # An MPEG audio frame without a tag before it: eleven set bits, then layer III.
    return "mp3" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 else None  # noqa: PLR2004 - bit masks of the frame header


def _optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _dimensions(path: Path) -> tuple[int | None, int | None]:
    library = _optional("imagesize")
    if library is None:
        return None, None
    try:
        width, height = library.get(path)
    except Exception:  # noqa: BLE001 - a damaged file may raise anything in the library: its size stays unknown
        return None, None
    return (int(width), int(height)) if width > 0 and height > 0 else (None, None)


def _duration(path: Path) -> float | None:
    library = _optional("tinytag")
    if library is None:
        return None
    try:
        duration = library.TinyTag.get(path, tags=False).duration
    except Exception:  # noqa: BLE001 - a damaged file may raise anything in the library: its duration stays unknown
        return None
    return float(duration) if duration else None


def probe(path: str | os.PathLike[str]) -> MediaFacts:
    """Return the facts of the local file at ``path``. It reads the disk: call it in a thread from a coroutine.

    :raises InvalidInput: there is no such file, it cannot be read, or it is no ordinary file.
    """
    file = Path(path)
    try:
        if not file.is_file():
            message = f"{safe_text(file)} is no file: check the path"
            raise InvalidInput(message)
        size = file.stat().st_size
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError as error:
        message = f"{safe_text(file)} cannot be read: {error.strerror or type(error).__name__}"
        raise InvalidInput(message) from error
    media_format = _format(head)
    if media_format is None:
        return MediaFacts(path=file, size=size)
    media_type, mime_type = _MIME[media_format]
    facts = MediaFacts(path=file, size=size, media_type=media_type, media_format=media_format, mime_type=mime_type)
    if media_type == "image":
        width, height = _dimensions(file)
        return attrs.evolve(facts, width=width, height=height)
    return attrs.evolve(facts, duration=_duration(file))
