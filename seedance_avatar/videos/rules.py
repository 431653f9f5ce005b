"""Checks a generation request against every rule that is known before money is spent.

The service gives no clear error for most of these rules, and silently ignores some fields, so each broken rule is
refused here with a message of its own. What only the service knows, that an image may show a real person, is read from
its refusal, and the image replaced by an asset.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias, get_args

import attrs

from seedance_avatar.errors import AssetFailed, ContentRefused, InvalidInput, InvalidSource
from seedance_avatar.models import Asset, AssetType
from seedance_avatar.text import redact_url, safe_text
from seedance_avatar.wire.public_urls import judge_url
from seedance_avatar.wire.refusals import is_id

from .request import ASPECT_RATIOS, ROLE_TYPES, VIDEO_MODELS, GenerationRequest, Reference, Role, VideoModel

# Addresses of media: URLs, current ids (pa_<ULID>) and those of older pages (asset-<time>-<rand>). The end of an id is
# matched too, so that ordinary words that begin like one are allowed.
_ADDRESS: Final = re.compile(
    r"\b(?:(?:https?|asset)://\S+|p[ag]_[0-9A-HJKMNP-TV-Z]{20,}|(?:asset|group)-\d{6,}-\w+)", re.IGNORECASE
)
_ASSET: Final = "asset://"
_ID_STYLE: Final = re.compile(r"asset://(pa_|asset-)?")
_REAL_PERSON: Final = re.compile(r"real person|PrivacyInformation", re.IGNORECASE)
_CONTENT: Final = re.compile(r"content\[([0-9]{1,4})\]")
"""An index into what the service passes upstream: 0 is the text, and the references follow in the order as sent."""
_ORDER: Final[tuple[Role, ...]] = get_args(Role)

Counts: TypeAlias = Mapping[str, int]


@attrs.frozen
class Part:
    """One reference as it is sent: its role and its URL, public or ``asset://<asset_id>``."""

    role: Role
    url: str = attrs.field(repr=redact_url)

    @property
    def medium_type(self) -> AssetType:
        """``image``, ``video`` or ``audio``."""
        return ROLE_TYPES[self.role]


def parts_of(request: GenerationRequest) -> tuple[Part, ...]:
    """Return the references of ``request`` in the order in which they are sent: frames, images, videos, audios.

    Whether the service can fetch their URLs is judged by :func:`check_request`, once for each request.

    :raises InvalidInput: a reference is neither an asset nor a :class:`Reference`, its role or type is not
        known, or its asset is not active.
    """
    given: list[Reference] = []
    if request.first_frame is not None:
        given.append(Reference.first_frame(request.first_frame))
    if request.last_frame is not None:
        given.append(Reference.last_frame(request.last_frame))
    given += [_as_reference(item, at, request.label) for at, item in enumerate(request.references, 1)]
    # Sorting is stable: the order within a role is kept, so "image 2" in the prompt is the second image.
    given.sort(key=lambda reference: _ORDER.index(reference.role))
    return tuple(Part(it.role, _url_of(it, request.label)) for it in given)


def check_request(
    request: GenerationRequest, models: Mapping[str, VideoModel] = VIDEO_MODELS, *, allow_private: bool = False
) -> tuple[str, ...]:
    """Check ``request`` against every rule that is known for its model, and return warnings about likely mistakes.

    The warnings are sentences: the model is not in ``models``, or the ids of the assets are of two styles and so,
    perhaps, of two accounts.

    :param allow_private: accept URLs of hosts that are not public, for a gateway that stands beside them.
    :raises InvalidInput: the request breaks a rule; the message says which, and what to do. It is an
        :class:`InvalidSource` where the service cannot fetch a URL.
    """
    _refuse(_wrong_types(request), request.label)
    if request.callback_url is not None and (why := _callback_flaw(request.callback_url, allow_private=allow_private)):
        message = f"the service cannot call callback_url {redact_url(request.callback_url)}: {why}"
        raise InvalidInput(message, about=request.label)
    parts = parts_of(request)
    for part in parts:
        if not str(part.url).startswith(_ASSET) and (why := judge_url(part.url, allow_private=allow_private)):
            message = f"the service cannot fetch the {part.role} {redact_url(part.url)}: {why}"
            raise InvalidSource(message, about=request.label)
    counts = Counter[str](part.role for part in parts)
    _refuse(_broken_anywhere(request, counts), request.label)
    if model := models.get(request.model):
        _refuse(_broken_wishes(request, model, counts), request.label)
        _refuse(_broken_counts(counts, model), request.label)
    return tuple(_remarks(request, parts, models))


def as_sent(request: GenerationRequest, models: Mapping[str, VideoModel] = VIDEO_MODELS) -> GenerationRequest:
    """Return ``request`` with a duration of 0 written as -1 for a model that does not know 0."""
    model = models.get(request.model)
    zero = model is not None and not model.zero_is_auto and request.duration == 0
    return attrs.evolve(request, duration=-1) if zero else request


def _callback_flaw(url: str, *, allow_private: bool) -> str | None:
    flaw = judge_url(url, allow_private=allow_private)
    if flaw is None and url[:5].lower() == "http:" and judge_url(url) is None:
        return "it must begin with https://"
    return flaw


def _refuse(problems: Iterator[str], about: str) -> None:
    for problem in problems:
        raise InvalidInput(problem, about=about)


def _as_reference(item: object, at: int, about: str) -> Reference:
    if isinstance(item, Reference):
        if item.role in ROLE_TYPES:
            return item
        message = f"reference {at} has the role {safe_text(item.role, 40)!r}: it must be one of {', '.join(ROLE_TYPES)}"
        raise InvalidInput(message, about=about)
    if not isinstance(item, Asset):
        message = (
            f"reference {at} is of type {type(item).__name__}: pass an active Asset, or say what a URL is by "
            "Reference.image(url), Reference.video(url) or Reference.audio(url)"
        )
        raise InvalidInput(message, about=about)
    # The service may leave the type out of an answer; then the type that was sent is used.
    asset_type = item.asset_type or (None if item.source is None else item.source.asset_type)
    roles: tuple[Role, ...] = ("reference_image", "reference_video", "reference_audio")
    for role in roles:
        if ROLE_TYPES[role] == asset_type:
            return Reference(item, role)
    message = (
        f"reference {at}, asset {item.asset_id}, does not tell whether it is an image, a video or an audio: say it by "
        "Reference.image(asset), Reference.video(asset) or Reference.audio(asset)"
    )
    raise InvalidInput(message, about=about)


def _url_of(reference: Reference, about: str) -> str:
    medium, wanted = reference.medium, ROLE_TYPES[reference.role]
    if isinstance(medium, Asset):
        if medium.asset_type in ROLE_TYPES.values() and medium.asset_type != wanted:
            message = f"asset {medium.asset_id} is of type {medium.asset_type}: a {reference.role} takes type {wanted}"
            raise InvalidInput(message, about=about)
        try:
            return medium.uri
        except AssetFailed as failed:
            message = f"{failed.message}: it can never be used"
            raise InvalidInput(message, about=about) from None
    if str(medium).startswith(_ASSET):
        if is_id(medium.removeprefix(_ASSET)):
            return medium
        message = f"{redact_url(medium)} is not an asset URI: it must be asset://<asset_id>"
        raise InvalidInput(message, about=about)
    return medium


def _wrong_types(request: GenerationRequest) -> Iterator[str]:
    business_id = request.client_business_id
    for name, wanted, right in (
        ("prompt", "text", isinstance(request.prompt, str)),
        ("model", "the name of a model", request.model != "" and isinstance(request.model, str)),
        ("duration", "a whole number of seconds", _is_whole(request.duration)),
        ("seed", "a whole number", _is_whole(request.seed)),
        ("aspect_ratio", "text", isinstance(request.aspect_ratio, str | None)),
        ("resolution", "text", isinstance(request.resolution, str | None)),
        ("generate_audio", "True or False", isinstance(request.generate_audio, bool | None)),
        ("return_last_frame", "True or False", isinstance(request.return_last_frame, bool | None)),
        (
            # It is part of the path when the task is looked up by it.
            "client_business_id",
            "1 to 128 letters, digits and . _ : - (a letter or digit first)",
            business_id is None or is_id(business_id),
        ),
    ):
        if not right:
            yield f"{name} must be {wanted}, not {safe_text(repr(getattr(request, name)), 40)}"


def _is_whole(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _broken_anywhere(request: GenerationRequest, counts: Counts) -> Iterator[str]:
    """Yield what breaks a rule of every model."""
    if found := _ADDRESS.search(request.prompt):
        yield (
            f"the prompt holds {redact_url(found.group())}: pass media as references, and name them in the prompt by "
            'type and number ("image 1", "audio 2")'
        )
    total = sum(counts.values())
    if not total and not request.prompt.strip():
        yield "there is neither a prompt nor a reference: pass at least one"
    first, last = counts.get("first_frame", 0), counts.get("last_frame", 0)
    if 0 < first + last < total:
        yield "frames and references are mixed: pass first_frame and last_frame, or references, not both"
    for role, count in (("first_frame", first), ("last_frame", last)):
        if count > 1:
            yield f"{count} images have the role {role}: there can be only one"
    if last and not first:
        yield "there is a last frame without a first: pass first_frame too"
    if total and request.tools:
        yield "there are tools and media: the service takes tools only with a prompt alone"


def _broken_wishes(request: GenerationRequest, model: VideoModel, counts: Counts) -> Iterator[str]:
    seconds = f"{model.shortest} to {model.longest} seconds"
    if request.duration in {0, -1}:
        if not model.auto_duration:
            yield f"{model.name} does not choose the duration by itself: ask for {seconds}"
    elif request.duration is not None and not model.shortest <= request.duration <= model.longest:
        auto = f", or {0 if model.zero_is_auto else -1} to let it choose" if model.auto_duration else ""
        yield f"{model.name} makes no video of {request.duration} seconds: ask for {seconds}{auto}"
    if request.resolution is not None and request.resolution not in model.resolutions:
        offered = ", ".join(model.resolutions)
        yield f"{model.name} has no resolution {safe_text(request.resolution, 20)!r}: ask for one of {offered}"
    if counts["first_frame"] and model.frames_adaptive and request.aspect_ratio != "adaptive":
        yield f"{model.name} takes frames only with aspect_ratio='adaptive': with another the task would fail later"
    elif request.aspect_ratio is not None and request.aspect_ratio not in model.aspect_ratios:
        offered = ", ".join(model.aspect_ratios)
        yield f"{model.name} has no aspect ratio {safe_text(request.aspect_ratio, 20)!r}: ask for one of {offered}"


def _broken_counts(counts: Counts, model: VideoModel) -> Iterator[str]:
    for role, most in (
        ("reference_image", model.images),
        ("reference_video", model.videos),
        ("reference_audio", model.audios),
    ):
        if counts[role] > most:
            yield f"{counts[role]} references have the role {role}: {model.name} takes {most} at most"
    total = sum(counts.values())
    if model.references is not None and total > model.references:
        yield f"there are {total} references: {model.name} takes {model.references} in all"
    if counts["reference_audio"] == total > 0 and not model.audio_alone:
        yield f"{model.name} takes audio only beside an image or a video: add one, or use seedance-2-5"


def _remarks(request: GenerationRequest, parts: Sequence[Part], models: Mapping[str, VideoModel]) -> Iterator[str]:
    if request.model not in models:
        yield (
            f"the model {safe_text(request.model, 60)!r} is not known here and its limits go unchecked "
            f"(known: {', '.join(models)})"
        )
        if request.aspect_ratio is not None and request.aspect_ratio not in ASPECT_RATIOS:
            yield f"the aspect ratio {safe_text(request.aspect_ratio, 20)!r} is not known here"
    model = models.get(request.model)
    if model is not None and request.duration == 0 and not model.zero_is_auto:
        yield f"{model.name} does not document a duration of 0: -1 is sent, with which it chooses the duration"
    styles = {found.group(1) or "another" for part in parts if (found := _ID_STYLE.match(part.url))}
    if len(styles) > 1:
        yield (
            f"the references have asset ids of different styles ({', '.join(sorted(styles))}): the service refuses "
            "assets of another account"
        )


def refused_image(error: ContentRefused, request: GenerationRequest) -> str | None:
    """Return the URL of the image that ``error`` refuses for showing a real person, or None.

    It is None when the refusal has another reason, is about something other than a plain image URL, or names no image
    while the request has several.
    """
    if not _REAL_PERSON.search(f"{error.code} {error.message}"):
        return None
    parts = parts_of(request)
    named = _CONTENT.search(error.message)
    if named is None:
        candidates = [part.url for part in parts if _is_plain_image(part)]
        return candidates[0] if len(candidates) == 1 else None
    at = int(named[1]) - 1
    return parts[at].url if 0 <= at < len(parts) and _is_plain_image(parts[at]) else None


def _is_plain_image(part: Part) -> bool:
    return part.medium_type == "image" and not part.url.startswith("asset://")


def with_asset(request: GenerationRequest, url: str, asset: Asset) -> GenerationRequest:
    """Return ``request`` with the active ``asset`` in place of the image ``url``."""

    def put(medium: Asset | str | None) -> Asset | str | None:
        return asset.uri if medium == url else medium

    references = tuple(
        Reference(asset.uri, it.role) if isinstance(it, Reference) and it.medium == url else it
        for it in request.references
    )
    return attrs.evolve(
        request, references=references, first_frame=put(request.first_frame), last_frame=put(request.last_frame)
    )
