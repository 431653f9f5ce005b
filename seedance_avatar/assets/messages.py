"""The service's contract as bytes: building requests, and reading answers into models. No I/O.

Whatever comes in, a reader returns a model or raises an :class:`~seedance_avatar.AvatarError`; whatever goes
out was judged first. The service's documentation and what other people's clients recorded differ in places:
the readers take both.
"""

from __future__ import annotations

import math
from typing import Final

from seedance_avatar.errors import InvalidInput, InvalidSource, ProtocolError
from seedance_avatar.models import ASSET_TYPES, Asset, AssetGroup, AssetSource
from seedance_avatar.text import safe_text
from seedance_avatar.wire.convert import _converter, structure
from seedance_avatar.wire.public_urls import judge_url
from seedance_avatar.wire.refusals import About, find_reason, is_id, read_object
from seedance_avatar.wire.request import Request, json_bytes
from seedance_avatar.wire.response import Response

__all__ = [
    "PREFIX",
    "asset_query",
    "asset_request",
    "check_source",
    "group_request",
    "read_asset",
    "read_group",
]

PREFIX: Final = "/v1/videos/doubao-seedance-2-0/private-avatar"
"""Where the private-avatar calls live, whatever model the assets are later used with."""

MAX_NAME: Final = 64
MAX_DESCRIPTION: Final = 300

_GROUPS: Final = f"{PREFIX}/groups"
_ASSETS: Final = f"{PREFIX}/assets"


def _flaw(name: str, text: object, most: float = math.inf) -> str | None:
    """Return what is wrong with an optional text of the user's, or None."""
    if text is None:
        return None
    if not isinstance(text, str):
        return f"its {name} is of type {type(text).__name__}, not a text"
    if len(text) > most:
        return f"its {name} has {len(text)} characters, more than {most}"
    if not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text):
        return f"its {name} holds broken characters (lone surrogates)"
    return None


def check_source(source: AssetSource, *, allow_private: bool = False) -> None:
    """Refuse a source that the service would refuse, with the reason that the service does not give.

    ``allow_private`` accepts URLs of hosts that are not public, for a gateway that stands beside them. A local
    file has a URL of its own only once it was uploaded, so it is not judged by one.

    :raises InvalidSource: the URL is not public or not a URL, the type is none, a text is too long.
    """
    given: object = source  # not every caller has a type checker
    if not isinstance(given, AssetSource):
        message = (
            f"a source is of type {type(given).__name__}: make it one with AssetSource.image(url), .video or .audio"
        )
        raise InvalidSource(message)
    flaw = None if source.path is not None else judge_url(source.source_url, allow_private=allow_private)
    if flaw is not None:
        flaw = f"the service cannot fetch this URL: {flaw}"
    elif source.asset_type not in ASSET_TYPES:
        flaw = f"its asset_type is {safe_text(source.asset_type, 40)}, not one of {', '.join(ASSET_TYPES)}"
    else:
        flaw = (
            _flaw("name", source.name, MAX_NAME)
            or _flaw("description", source.description, MAX_DESCRIPTION)
            or _flaw("key", source.key)
        )
    if flaw is not None:
        raise InvalidSource(flaw, about=source.label)


def _checked(some_id: object, what: str) -> str:
    """Return an id of the caller's that goes into a path or a body."""
    if not is_id(some_id):
        message = f"{safe_text(some_id, 80)} is not {what} id"
        raise InvalidInput(message)
    return str(some_id)


def group_request(name: str, description: str | None = None) -> Request:
    """Return the request that creates a group.

    :raises InvalidInput: ``name`` is empty or over 64 characters, or ``description`` over 300.
    """
    flaw = "a group needs a name" if not name else _flaw("name", name, MAX_NAME)
    flaw = flaw or _flaw("description", description, MAX_DESCRIPTION)
    if flaw is not None:
        raise InvalidInput(flaw, about="group")
    fields = {"name": name}
    if description is not None:
        fields["description"] = description
    body = json_bytes(fields)
    return Request(lane="submit", method="POST", path=_GROUPS, body=body, subject=f"group {safe_text(name, 80)}")


def asset_request(source: AssetSource, group_id: str) -> Request:
    """Return the request that submits ``source`` to a group; its URL is in the body byte for byte.

    :param source: one that passed :func:`check_source`, with the URL that the service shall fetch.
    :raises InvalidSource: it is a local file that was not uploaded.
    :raises InvalidInput: ``group_id`` is not an id.
    """
    if source.path is not None:
        message = "it is a local file, which the service cannot fetch: upload it first"
        raise InvalidSource(message, about=source.label)
    fields = {
        "group_id": _checked(group_id, "a group"),
        "asset_type": source.asset_type,
        "source_url": source.source_url,
    }
    if source.name is not None:
        fields["name"] = source.name
    if source.description is not None:
        fields["description"] = source.description
    return Request(lane="submit", method="POST", path=_ASSETS, body=json_bytes(fields), subject=source)


def asset_query(asset_id: str) -> Request:
    """Return the request that asks how an asset is.

    :raises InvalidInput: ``asset_id`` is no id: it would name another path.
    """
    path = f"{_ASSETS}/{_checked(asset_id, 'an asset')}"
    return Request(lane="query", method="GET", path=path, subject=asset_id, repeatable=True)


def read_group(answer: Response, *, about: About = None) -> AssetGroup:
    """Return the group that ``answer`` tells of; it raises as :func:`read_object` does."""
    found = read_object(answer, "group_id", about=about)
    return structure(AssetGroup, {**found, "raw": found})


def read_asset(
    answer: Response, *, source: AssetSource | None = None, about: About = None, asked: str | None = None
) -> Asset:
    """Return the asset that ``answer`` tells of, made from ``source``; it raises as :func:`read_object` does.

    Where it was ``asked`` for by its id, an answer about another one (from a cache, or out of step on a kept
    connection) is a :class:`ProtocolError`: its status would be believed of the wrong face.

    A status that is missing or no text is ``processing``: the asset was accepted, so it is looked at again.
    """
    found = read_object(answer, "asset_id", about=about or source)
    if asked is not None and found["asset_id"] != asked:
        message = f"asked about {asked}, the answer is about {found['asset_id']}"
        raise ProtocolError(message, about=asked, status=answer.status)
    status = found.get("status")
    status = status.strip().lower() if isinstance(status, str) else ""
    reason = None
    if status == "failed":
        # The reason may stand outside of the object that failed, in the envelope.
        reason = find_reason(found) or find_reason(answer.parsed)
    fields = {**found, "status": status or "processing", "reason": reason, "source": source, "raw": found}
    asset: Asset = _structure_asset(fields, Asset)
    return asset


_structure_asset: Final = _converter.get_structure_hook(Asset)  # found once: a million answers are read
