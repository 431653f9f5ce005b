"""The table of video models and their limits.

A caller may pass its own table, for a model that is newer than this library or a limit that has changed. A model that
is not in the table is allowed, and is not checked.
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
    """The limits of one model.

    :ivar name: its name in a request.
    :ivar shortest: the shortest video, seconds.
    :ivar longest: the longest video, seconds.
    :ivar auto_duration: whether it chooses the duration when asked for -1.
    :ivar zero_is_auto: whether it also takes 0 for that; where not, -1 is sent in its place.
    :ivar resolutions: the resolutions that it offers.
    :ivar aspect_ratios: the aspect ratios that it offers.
    :ivar frames_adaptive: whether it takes first and last frames only with the aspect ratio ``adaptive``.
    :ivar images: the maximum number of reference images; so are ``videos`` and ``audios``.
    :ivar references: the maximum number of all references together, or None for no such limit.
    :ivar audio_alone: whether a reference audio needs no image or video beside it.
    """

    name: str
    shortest: int = 4
    longest: int = 15
    auto_duration: bool = True
    zero_is_auto: bool = True
    resolutions: tuple[str, ...] = _ALL_RESOLUTIONS
    aspect_ratios: tuple[str, ...] = ASPECT_RATIOS
    frames_adaptive: bool = False
    images: int = 9
    videos: int = 3
    audios: int = 3
    references: int | None = None
    audio_alone: bool = False


# Source: the service's page for each model. Where its pages and the upstream's disagree (the resolutions of -mini),
# the wider limit is used, so that nothing is refused here that the service would accept.
VIDEO_MODELS: Final[Mapping[str, VideoModel]] = MappingProxyType(
    {
        model.name: model
        for model in (
            VideoModel(name="seedance-2"),
            VideoModel(name="seedance-2-fast", resolutions=("480p", "720p")),
            VideoModel(name="seedance-2-mini", auto_duration=False, resolutions=("480p", "720p", "1080p")),
            VideoModel(
                name="seedance-2-5",
                longest=30,
                zero_is_auto=False,
                resolutions=("480p", "720p", "1080p"),
                frames_adaptive=True,
                images=30,
                videos=10,
                audios=10,
                references=50,
                audio_alone=True,
            ),
            VideoModel(name="doubao-seedance-2-0"),
            VideoModel(name="doubao-seedance-2-0-fast", resolutions=("480p", "720p")),
        )
    }
)
"""The known models by name, read-only; ``{**VIDEO_MODELS, "new": VideoModel(name="new")}`` is a table with one more."""
