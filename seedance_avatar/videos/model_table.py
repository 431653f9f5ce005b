"""The video models and what each of them takes: one table of data.

A caller may pass a table of its own (a model that is newer than this library, a limit that has moved);
a model that no table knows is allowed, and goes unchecked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

__all__ = ["ASPECT_RATIOS", "VIDEO_MODELS", "VideoModel"]

ASPECT_RATIOS: Final = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16", "adaptive")
_ALL_RESOLUTIONS: Final = ("480p", "720p", "1080p", "4k")


@attrs.frozen(kw_only=True)
class VideoModel:
    """What one model takes.

    :ivar name: as it is sent.
    :ivar shortest: seconds, the shortest video it makes; ``longest`` likewise.
    :ivar auto_duration: True when it chooses a duration by itself, asked for as 0 or -1.
    :ivar resolutions: the resolutions it makes.
    :ivar aspect_ratios: the aspect ratios it makes.
    :ivar frames: True when it takes a first and a last frame.
    :ivar images: how many reference images it takes; ``videos`` and ``audios`` likewise.
    :ivar references: how many references of all types together, or None when only the types are counted.
    :ivar audio_alone: True when a reference audio needs no image or video beside it.
    """

    name: str
    shortest: int = 4
    longest: int = 15
    auto_duration: bool = True
    resolutions: tuple[str, ...] = _ALL_RESOLUTIONS
    aspect_ratios: tuple[str, ...] = ASPECT_RATIOS
    frames: bool = True
    images: int = 9
    videos: int = 3
    audios: int = 3
    references: int | None = None
    audio_alone: bool = False


# The service's pages for each model are the source. Where its pages or the upstream's disagree (which
# resolutions -mini and -5 make), the wider reading stands: a refusal here must be one that it would make too.
VIDEO_MODELS: Final[Mapping[str, VideoModel]] = MappingProxyType(
    {
        model.name: model
        for model in (
            VideoModel(name="seedance-2"),
            VideoModel(name="seedance-2-fast", resolutions=("480p", "720p")),
            VideoModel(
                name="seedance-2-mini", auto_duration=False, resolutions=("480p", "720p", "1080p"), frames=False
            ),
            VideoModel(
                name="seedance-2-5", longest=30, images=30, videos=10, audios=10, references=50, audio_alone=True
            ),
            VideoModel(name="doubao-seedance-2-0"),
            VideoModel(name="doubao-seedance-2-0-fast", resolutions=("480p", "720p")),
        )
    }
)
"""The models known here, by name; read-only. ``{**VIDEO_MODELS, "new": VideoModel(name="new")}`` makes another."""
