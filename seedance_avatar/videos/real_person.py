"""Finds the image for which a generation was refused because it may show a real person, and replaces it by an asset.

The service refuses a plain image URL when the image "may contain real person". The refusal names the image as
``content[n]``, an index into what the service passes upstream: 0 is the text, and the references follow in the order in
which they were sent.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from seedance_avatar.errors import ContentRefused
from seedance_avatar.models import Asset

from .request import GenerationRequest, Reference
from .rules import Part, parts_of

__all__ = ["refused_image", "with_asset"]

_REAL_PERSON: Final = re.compile(r"real person|PrivacyInformation", re.IGNORECASE)
_CONTENT: Final = re.compile(r"content\[([0-9]{1,4})\]")


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
