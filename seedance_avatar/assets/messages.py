"""Builds the requests for groups and assets, and reads their responses into models. No I/O.

A reader returns a model or raises an :class:`~seedance_avatar.AvatarError`, whatever it is given. Where the service's
documentation and what real clients recorded differ, the readers accept both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from seedance_avatar.errors import InvalidInput, InvalidSource, ProtocolError
from seedance_avatar.models import ASSET_TYPES, Asset, AssetGroup, AssetSource
from seedance_avatar.text import safe_text
from seedance_avatar.wire.public_urls import judge_url
from seedance_avatar.wire.refusals import About, find_reason, is_id, read_object
from seedance_avatar.wire.request import Request, json_bytes
from seedance_avatar.wire.response import Response, _converter, structure

__all__ = ["PREFIX", "asset_query", "asset_request", "check_source", "group_request", "read_asset", "read_group"]

PREFIX: Final = "/v1/videos/doubao-seedance-2-0/private-avatar"
"""The path of all private-avatar calls, whatever model the assets are used with later."""

MAX_NAME: Final = 64
MAX_DESCRIPTION: Final = 300

_GROUPS: Final = f"{PREFIX}/groups"
_ASSETS: Final = f"{PREFIX}/assets"


def _flaw(name: str, text: object, most: float = math.inf) -> str | None:
    """Return what is wrong with an optional text from the user, or None."""
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
    """Check a source against what the service would refuse without giving a reason. The file of a source is not read.

    :param allow_private: accept URLs of hosts that are not public, for a gateway in the same network.
    :raises InvalidSource: the URL is not public or not a URL, the type is unknown, or a text is too long.
    """
    given: object = source  # callers without a type checker pass anything
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
    """Return an id that goes into a path or a body, checked."""
    if not is_id(some_id):
        message = f"{safe_text(some_id, 80)} is not {what} id: pass the id that the service returned"
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
    """Return the status request of an asset.

    :raises InvalidInput: ``asset_id`` is not an id: in the path it would name something else.
    """
    path = f"{_ASSETS}/{_checked(asset_id, 'an asset')}"
    return Request(lane="query", method="GET", path=path, subject=asset_id, repeatable=True)


def _id_in(found: Mapping[str, Any], name: str) -> str:
    """Return the id of ``found``; some gateways call it only ``id``."""
    value: str = found[name] if is_id(found.get(name)) else found["id"]
    return value


def read_group(answer: Response, *, about: About = None) -> AssetGroup:
    """Return the group in ``answer``; it raises what :func:`read_object` raises."""
    found = read_object(answer, "group_id", "id", about=about)
    return structure(AssetGroup, {**found, "group_id": _id_in(found, "group_id"), "raw": found})


def read_asset(
    answer: Response, *, source: AssetSource | None = None, about: About = None, asked: str | None = None
) -> Asset:
    """Return the asset in ``answer``; it raises what :func:`read_object` raises.

    A status that is missing or not a string is read as ``processing``: the asset was accepted, so it is polled again.

    :param source: the source that the asset was made from, or None.
    :param asked: the id that was asked for, or None. An answer about another asset (from a cache, or out of step on a
        kept-alive connection) is a :class:`ProtocolError`, or one asset would get the status of another.
    """
    found = read_object(answer, "asset_id", "id", about=about or source)
    asset_id = _id_in(found, "asset_id")
    if asked is not None and asset_id != asked:
        message = f"asked about {asked}, the answer is about {asset_id}"
        raise ProtocolError(message, about=asked, status=answer.status)
    status = found.get("status")
    status = status.strip().lower() if isinstance(status, str) else ""
    reason = None
    if status == "failed":
        # The reason may be in the envelope, outside of the asset's object.
        reason = find_reason(found) or find_reason(answer.parsed)
    fields = {
        **found,
        "asset_id": asset_id,
        "status": status or "processing",
        "reason": reason,
        "source": source,
        "raw": found,
    }
    asset: Asset = _structure_asset(fields, Asset)
    return asset


_structure_asset: Final = _converter.get_structure_hook(Asset)  # looked up once, for speed
