"""Checks the body of a generation against the rules of the service's documentation, field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import NoneType
from typing import Any, Final

import attrs

from .replies import refuse

MEDIA: Final = ("image", "video", "audio")
_FRAMES: Final = ("first_frame", "last_frame")
_RATIOS: Final = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16", "adaptive")
_SHORTEST: Final = 4
_TYPES: Final = {
    "generate_audio": (bool, "a boolean"),
    "return_last_frame": (bool, "a boolean"),
    "seed": (int, "an integer"),
    "callback_url": (str, "a string"),
    "client_business_id": (str, "a string"),
}


@attrs.frozen
class _Model:
    longest: int = 15
    auto: tuple[int, ...] = (0, -1)
    most: Mapping[str, int] = {"image": 9, "video": 3, "audio": 3}
    audio_alone: bool = False
    resolutions: tuple[str, ...] = ("480p", "720p", "1080p", "4k")
    frames_adaptive: bool = False


_MODELS: Final = {
    "seedance-2": _Model(),
    "seedance-2-fast": _Model(resolutions=("480p", "720p")),
    "seedance-2-mini": _Model(auto=(), resolutions=("480p", "720p", "1080p")),
    "seedance-2-5": _Model(
        longest=30,
        auto=(-1,),
        most={"image": 30, "video": 10, "audio": 10},  # which are the documented 50 in all
        audio_alone=True,
        resolutions=("480p", "720p", "1080p"),
        frames_adaptive=True,
    ),
    "doubao-seedance-2-0": _Model(),
    "doubao-seedance-2-0-fast": _Model(resolutions=("480p", "720p")),
}


@attrs.frozen
class Medium:
    """One image, video or audio that a generation refers to."""

    kind: str
    url: str
    role: str


def media_of(wanted: Mapping[str, Any], *, may_fetch: Callable[[str], bool]) -> list[Medium]:
    """Return the media that the body of a generation refers to: images, videos, audio; Refused when it breaks a rule.

    A field called ``ratio`` is ignored, as the service ignores it.
    """
    model = _MODELS.get(wanted["model"]) if isinstance(wanted.get("model"), str) else None
    if model is None:
        # The engine says so while it chooses a channel: nothing was done.
        refuse("no channel is available for this model", code="model_not_found", status=503)
    if not isinstance(wanted.get("prompt", ""), str):
        refuse("prompt must be a string")
    _check_scalars(wanted, model)
    media = [medium for kind in MEDIA for medium in _read(wanted, kind)]
    for medium in media:
        if not medium.url.startswith("asset://") and not may_fetch(medium.url):
            refuse(f"{medium.kind} url must be a public https URL or asset://<asset_id>")
    if not media and not wanted.get("prompt", "").strip():
        refuse("prompt is required")
    _check_roles(media, model)
    if media and wanted.get("tools"):
        refuse("tools cannot be used with media")
    return media


def fails_later(wanted: Mapping[str, Any], media: Iterable[Medium]) -> str | None:
    """Return the code with which a request that was accepted fails all the same, or None."""
    frames = any(medium.role in _FRAMES for medium in media)
    wrong = _MODELS[wanted["model"]].frames_adaptive and wanted.get("aspect_ratio") != "adaptive"
    return "InvalidParameter.TaskTypeConstraint" if frames and wrong else None


def _check_scalars(wanted: Mapping[str, Any], model: _Model) -> None:
    duration = wanted.get("duration")
    if duration is not None:
        whole = isinstance(duration, int) and not isinstance(duration, bool)
        if not whole or not (_SHORTEST <= duration <= model.longest or duration in model.auto):
            auto = f", or {' or '.join(map(str, model.auto))} for auto" if model.auto else ""
            refuse(f"duration must be {_SHORTEST} to {model.longest} seconds{auto}")
    for field, allowed in (("aspect_ratio", _RATIOS), ("resolution", model.resolutions)):
        if wanted.get(field) is not None and wanted[field] not in allowed:
            refuse(f"{field} must be one of {', '.join(allowed)}")
    for field, (kind, shown) in _TYPES.items():
        if type(wanted.get(field)) not in {kind, NoneType} or wanted.get(field) == "":
            refuse(f"{field} must be {shown}")


def _read(wanted: Mapping[str, Any], kind: str) -> Iterator[Medium]:
    field = f"{kind}_with_roles"
    entries = wanted.get(field) or []
    plain = (wanted.get("image_urls") or []) if kind == "image" else []
    if entries and plain:
        refuse("image_urls and image_with_roles must not be given together")
    if not isinstance(entries, list) or not isinstance(plain, list):
        refuse(f"{field} must be an array")
    roles = (*_FRAMES, "reference_image") if kind == "image" else (f"reference_{kind}",)
    for entry in [*entries, *({"url": url, "role": "reference_image"} for url in plain)]:
        if not isinstance(entry, dict) or not isinstance(entry.get("url"), str) or entry.get("role") not in roles:
            refuse(f"each of {field} needs a url and a role of {', '.join(roles)}")
        yield Medium(kind, entry["url"], entry["role"])


def _check_roles(media: list[Medium], model: _Model) -> None:
    frames = [medium.role for medium in media if medium.role in _FRAMES]
    references = [medium.kind for medium in media if medium.role not in _FRAMES]
    for role in _FRAMES:
        if frames.count(role) > 1:
            refuse(f"at most one {role}")
    if "last_frame" in frames and "first_frame" not in frames:
        refuse("last_frame needs a first_frame")
    if frames and references:
        refuse("first_frame and last_frame cannot be mixed with references")
    for kind, most in model.most.items():
        if references.count(kind) > most:
            refuse(f"at most {most} reference_{kind}")
    if references and set(references) == {"audio"} and not model.audio_alone:
        refuse("reference_audio needs an image or a video")
