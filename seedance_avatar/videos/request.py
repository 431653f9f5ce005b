"""Requests for videos and the models that make them, as immutable values. Requests are checked when submitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeAlias

import attrs

from seedance_avatar.models import Asset, AssetType
from seedance_avatar.text import redact_url, safe_redacted, safe_text

__all__ = ["VIDEO_MODELS", "GenerationRequest", "Reference", "VideoModel"]

Role: TypeAlias = Literal["first_frame", "last_frame", "reference_image", "reference_video", "reference_audio"]

ROLE_TYPES: Final[Mapping[Role, AssetType]] = {
    "first_frame": "image",
    "last_frame": "image",
    "reference_image": "image",
    "reference_video": "video",
    "reference_audio": "audio",
}


def _shown(medium: object) -> str:
    if medium is None:
        return "None"
    return f"<asset {safe_text(medium.asset_id, 80)}>" if isinstance(medium, Asset) else redact_url(medium)


def _shown_prompt(prompt: object) -> str:
    # Prompts may contain signed URLs too.
    return safe_redacted(prompt, 48)


@attrs.frozen
class Reference:
    """An image, video or audio that a video is made from, in a given role.

    An :class:`~seedance_avatar.Asset` may be passed as a reference by itself: its type decides the role. A URL has no
    type, so pass it as ``Reference.image(url)``, ``.video(url)`` or ``.audio(url)``.

    :ivar medium: an active asset, or a URL: public, or ``asset://<asset_id>``, whose asset is not looked up.
    :ivar role: ``first_frame``, ``last_frame``, ``reference_image``, ``reference_video`` or ``reference_audio``.
    """

    medium: Asset | str = attrs.field(repr=_shown)
    role: Role

    @classmethod
    def image(cls, medium: Asset | str) -> Self:
        """Return ``medium``, an asset or a URL, as a reference image."""
        return cls(medium, "reference_image")

    @classmethod
    def video(cls, medium: Asset | str) -> Self:
        """Return ``medium``, an asset or a URL, as a reference video."""
        return cls(medium, "reference_video")

    @classmethod
    def audio(cls, medium: Asset | str) -> Self:
        """Return ``medium``, an asset or a URL, as a reference audio."""
        return cls(medium, "reference_audio")

    @classmethod
    def first_frame(cls, medium: Asset | str) -> Self:
        """Return ``medium``, an asset or a URL, as the image that the video begins with."""
        return cls(medium, "first_frame")

    @classmethod
    def last_frame(cls, medium: Asset | str) -> Self:
        """Return ``medium`` as the image that the video ends with; it needs a first frame beside it."""
        return cls(medium, "last_frame")


def _listed(references: Iterable[Asset | Reference] | Asset | Reference) -> tuple[Asset | Reference, ...]:
    # A single reference, and anything that is not a list of references (a URL is iterable too), is checked later.
    alone = isinstance(references, Asset | Reference | str) or not isinstance(references, Iterable)
    return (references,) if alone else tuple(references)  # type: ignore[return-value, arg-type]  # values of a wrong type are kept for that check


def _several(tools: Iterable[Mapping[str, Any]] | None) -> tuple[Mapping[str, Any], ...] | None:
    return None if tools is None else tuple(tools)


@attrs.frozen
class GenerationRequest:
    """One video to be generated. An option that is None is not sent, so that the service's default applies.

    It is checked when it is submitted, not when it is created: one bad request among many is one ``Failed`` outcome.

    :ivar prompt: what the video shows. Media are named by type and number (``image 1``), never by a URL or an id.
    :ivar references: active assets, :class:`Reference` values, or both; a single one needs no list.
    :ivar first_frame: the image that the video begins with, an asset or a URL. Frames and references cannot be mixed.
    :ivar last_frame: the image that the video ends with, an asset or a URL; it needs a first frame.
    :ivar model: the model's name.
    :ivar duration: whole seconds; 0 or -1 lets the model choose, where it can.
    :ivar aspect_ratio: ``"16:9"`` and the like, or ``"adaptive"``.
    :ivar resolution: ``"480p"``, ``"720p"``, ``"1080p"`` or ``"4k"``, where the model offers it.
    :ivar generate_audio: whether the video has sound (the service's default: yes).
    :ivar seed: a whole number; the same seed makes similar videos.
    :ivar return_last_frame: whether the result includes the last frame as an image.
    :ivar callback_url: a public ``https`` URL that the service calls when the video is finished.
    :ivar tools: the service's tools to use, as it documents them; only without media.
    :ivar client_business_id: the caller's own id of this generation, which makes it safe to repeat; where it is None,
        one is made.
    :ivar key: the caller's own name for this request, or None. It is never sent; it comes back in the outcome, and two
        requests with one key are one video.
    """

    prompt: str = attrs.field(repr=_shown_prompt)
    references: tuple[Asset | Reference, ...] = attrs.field(default=(), converter=_listed, kw_only=True)
    first_frame: Asset | str | None = attrs.field(default=None, repr=_shown, kw_only=True)
    last_frame: Asset | str | None = attrs.field(default=None, repr=_shown, kw_only=True)
    model: str = attrs.field(default="seedance-2", kw_only=True)
    duration: int | None = attrs.field(default=None, kw_only=True)
    aspect_ratio: str | None = attrs.field(default=None, kw_only=True)
    resolution: str | None = attrs.field(default=None, kw_only=True)
    generate_audio: bool | None = attrs.field(default=None, kw_only=True)
    seed: int | None = attrs.field(default=None, kw_only=True)
    return_last_frame: bool | None = attrs.field(default=None, kw_only=True)
    callback_url: str | None = attrs.field(default=None, repr=_shown, kw_only=True)
    tools: tuple[Mapping[str, Any], ...] | None = attrs.field(
        default=None, converter=_several, hash=False, kw_only=True
    )
    client_business_id: str | None = attrs.field(default=None, kw_only=True)
    key: str | None = attrs.field(default=None, kw_only=True)

    @property
    def label(self) -> str:
        """The name of this request in messages: its key or ``client_business_id``, if it has one, and its prompt."""
        name = self.key or self.client_business_id
        prompt = f'"{_shown_prompt(self.prompt)}"'
        return prompt if name is None else f"{safe_redacted(name, 80)} ({prompt})"


ASPECT_RATIOS: Final = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16", "adaptive")
_ALL_RESOLUTIONS: Final = ("480p", "720p", "1080p", "4k")


@attrs.frozen(kw_only=True)
class VideoModel:
    """The limits of one model. A request for a model that is not in the table of a session is allowed, and not checked.

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
