"""What a video is asked for with: a prompt, references and wishes. Frozen values, judged when their turn comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, Self, TypeAlias

import attrs

from seedance_avatar.models import Asset, AssetType
from seedance_avatar.text import redact_url, safe_redacted, safe_text

__all__ = ["ROLE_TYPES", "GenerationRequest", "Reference", "Role"]

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
    # People paste signed URLs into prompts, too.
    return safe_redacted(prompt, 48)


@attrs.frozen
class Reference:
    """Something that a video is made from, in a given role.

    An :class:`~seedance_avatar.Asset` may be passed as a reference by itself: its type decides the role. A
    URL tells no type, so it comes as ``Reference.image(url)``, ``.video(url)`` or ``.audio(url)``.

    :ivar medium: an asset, which must be active, or a URL: public, or ``asset://<asset_id>``, which is taken at its
        word.
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
    # What stands alone is kept whole, and so is what is none (a URL, an iterable of its letters): it is judged later.
    alone = isinstance(references, Asset | Reference | str) or not isinstance(references, Iterable)
    return (references,) if alone else tuple(references)  # type: ignore[return-value, arg-type]  # as said


def _several(tools: Iterable[Mapping[str, Any]] | None) -> tuple[Mapping[str, Any], ...] | None:
    return None if tools is None else tuple(tools)


@attrs.frozen
class GenerationRequest:
    """One video to be generated. What is None is not sent, and the service's own default holds.

    It is judged when its turn comes, not here: one bad request among many is one failed outcome.

    :ivar prompt: what shall be seen and heard. Media are named by type and number (``image 1``), never by a
        URL or an id.
    :ivar references: active assets, :class:`Reference` values, or both; a single one may stand alone.
    :ivar first_frame: the image that the video begins with: an asset or a URL; ``last_frame`` likewise.
        Frames and references exclude each other.
    :ivar model: the model's name.
    :ivar duration: whole seconds; 0 or -1 lets the model choose, where it can.
    :ivar aspect_ratio: ``"16:9"`` and the like, or ``"adaptive"``.
    :ivar resolution: ``"480p"``, ``"720p"``, ``"1080p"`` or ``"4k"``, as the model has them.
    :ivar generate_audio: whether the video has sound (the service's default: yes).
    :ivar seed: the same seed makes similar videos.
    :ivar return_last_frame: whether the last frame is wanted as an image too.
    :ivar callback_url: a public URL that the service calls when the video is finished.
    :ivar tools: the service's tools to use, as it documents them.
    :ivar client_business_id: the caller's own id of this generation, which makes it safe to repeat; one is
        made where it is None.
    :ivar key: the caller's own name for this request. It is never sent; it comes back in the outcome, and two
        requests of one key are one video.
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
        """What names this request in messages: its key or business id, where it has one, and its prompt."""
        name = self.key or self.client_business_id
        prompt = f'"{_shown_prompt(self.prompt)}"'
        return prompt if name is None else f"{safe_redacted(name, 80)} ({prompt})"
