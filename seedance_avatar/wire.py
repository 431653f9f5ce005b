"""The service's contract as bytes: building requests, and reading answers into models. No I/O.

Whatever comes in, a reader returns a model or raises an :class:`~seedance_avatar.AvatarError`; whatever goes
out was judged first. The service's documentation and what other people's clients recorded differ in places:
the readers take both.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any, Final, Literal, TypeVar

import attrs
import cattrs

from .answers import Answer, parse_json, read_head
from .errors import InvalidInput, InvalidSource, ProtocolError
from .models import ASSET_TYPES, Asset, AssetGroup, AssetSource
from .refusals import About, find_error, find_reason, is_id, read_object
from .text import safe_text
from .urls import judge_host, judge_url, shown_url

__all__ = [
    "PREFIX",
    "About",
    "Answer",
    "Request",
    "Streamed",
    "asset_query",
    "asset_request",
    "check_key",
    "check_source",
    "find_error",
    "find_reason",
    "group_request",
    "is_id",
    "json_bytes",
    "normalize_base",
    "read_asset",
    "read_group",
    "read_head",
    "read_object",
    "structure",
]

T = TypeVar("T")

PREFIX: Final = "/v1/videos/doubao-seedance-2-0/private-avatar"
"""Where the private-avatar calls live, whatever model the assets are later used with."""

MAX_NAME: Final = 64
MAX_DESCRIPTION: Final = 300

_GROUPS: Final = f"{PREFIX}/groups"
_ASSETS: Final = f"{PREFIX}/assets"
_BASE = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?P<port>:[0-9]{1,5})?(?P<path>(?:/[a-z0-9._~-]*)*)",
    re.ASCII | re.IGNORECASE,
)
_KEY = re.compile(r"[!-~]+")

_to_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_bytes(fields: Mapping[str, Any]) -> bytes:
    """Return ``fields`` as JSON: compact, and text as it is, so that a URL reaches the wire byte for byte."""
    return _to_json(fields).encode()


@attrs.frozen(kw_only=True)
class Streamed:
    """A body that is too large to hold: sent piece by piece, as many bytes as it says.

    :ivar pieces: called anew for every try; returns the bytes from the first one on.
    :ivar length: bytes in all.
    :ivar content_type: what they are.
    """

    pieces: Callable[[], AsyncIterable[bytes]]
    length: int
    content_type: str

    @property
    def headers(self) -> dict[str, str]:
        """What goes with it. A length told beforehand spares it the chunks that not every gateway takes."""
        return {"Content-Type": self.content_type, "Content-Length": str(self.length)}


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request as the transport needs it.

    :ivar lane: which of the service's limits it counts against: ``submit`` or ``query``.
    :ivar path: begins with ``/v1/``; to be put behind :func:`normalize_base`'s result as it is.
    :ivar body: JSON, or None.
    :ivar upload: a body to be streamed in its place, or None.
    :ivar subject: what it is about, for :attr:`about`.
    :ivar repeatable: True when sending it twice does no harm.
    """

    lane: Literal["submit", "query"]
    method: str
    path: str
    body: bytes | None = attrs.field(default=None, repr=False)
    upload: Streamed | None = attrs.field(default=None, repr=False)
    subject: About = None
    repeatable: bool = False

    @property
    def about(self) -> str:
        """The label for messages, without secrets. It is made when asked for: most requests need none."""
        return self.subject.label if isinstance(self.subject, AssetSource) else self.subject or self.path


def normalize_base(base_url: str) -> str:
    """Return ``base_url`` without ``/v1`` and closing slashes, ready for a request's path behind it.

    :raises InvalidInput: it is no base URL, or plain ``http`` to a public host, which would show the key to
        everyone on the way (a gateway on this machine or in a private network may use it).
    """
    parts = _BASE.fullmatch(base_url.strip()) if isinstance(base_url, str) else None  # type: ignore[redundant-expr]  # not every caller has a type checker
    if parts is None:
        message = f"base_url {shown_url(base_url)} is not a base URL: write it like https://toapis.com"
        raise InvalidInput(message)
    scheme, host, port = parts["scheme"].lower(), parts["host"].lower(), parts["port"] or ""
    reason = judge_url(f"{scheme}://{host}{port}/", allow_private=True)
    if reason is None and scheme == "http" and judge_host(host) is None:
        reason = "it would send the key in the clear: begin it with https://"
    segments = [segment for segment in parts["path"].split("/") if segment]
    while segments and segments[-1] == "v1":
        segments.pop()
    if reason is None and not {".", "..", "v1"}.isdisjoint(segments):
        reason = "its path is not the beginning of all paths: end it before /v1"
    if reason is not None:
        message = f"base_url {shown_url(base_url)} cannot be used: {reason}"
        raise InvalidInput(message)
    return "/".join((f"{scheme}://{host}{port}", *segments))


def check_key(key: str) -> None:
    """Refuse an API key that cannot stand in a header. No message shows any of it.

    :raises InvalidInput: it is empty, or holds anything but visible ASCII characters.
    """
    if not isinstance(key, str) or not key:  # type: ignore[redundant-expr]  # not every caller has a type checker
        message = "the API key is missing: pass api_key or set TOAPIS_API_KEY"
        raise InvalidInput(message)
    if _KEY.fullmatch(key) is None:
        message = "the API key holds white space or characters that no key has: copy it again, without the word Bearer"
        raise InvalidInput(message)


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


def asset_request(source: AssetSource, group_id: str, *, allow_private: bool = False) -> Request:
    """Return the request that submits ``source`` to a group; the URL stands in its body byte for byte.

    :raises InvalidSource: see :func:`check_source`.
    :raises InvalidInput: ``group_id`` is no id.
    """
    check_source(source, allow_private=allow_private)
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


def read_group(answer: Answer, *, about: About = None) -> AssetGroup:
    """Return the group that ``answer`` tells of; it raises as :func:`read_object` does."""
    found = read_object(answer, key="group_id", about=about)
    return structure(AssetGroup, {**found, "raw": found})


def read_asset(
    answer: Answer, *, source: AssetSource | None = None, about: About = None, asked: str | None = None
) -> Asset:
    """Return the asset that ``answer`` tells of, made from ``source``; it raises as :func:`read_object` does.

    Where it was ``asked`` for by its id, an answer about another one (from a cache, or out of step on a kept
    connection) is a :class:`ProtocolError`: its status would be believed of the wrong face.

    A status that is missing or no text is ``processing``: the asset was accepted, so it is looked at again.
    """
    found = read_object(answer, key="asset_id", about=about or source)
    if asked is not None and found["asset_id"] != asked:
        message = f"asked about {asked}, the answer is about {found['asset_id']}"
        raise ProtocolError(message, about=asked, status=answer.status)
    status = found.get("status")
    status = status.strip().lower() if isinstance(status, str) else ""
    reason = None
    if status == "failed":
        # The reason may stand outside of the object that failed, in the envelope.
        reason = find_reason(found) or find_reason(parse_json(answer.body))
    fields = {**found, "status": status or "processing", "reason": reason, "source": source, "raw": found}
    asset: Asset = _structure_asset(fields, Asset)
    return asset


def structure(model: type[T], fields: Mapping[str, Any]) -> T:
    """Return the ``model`` that ``fields`` make; unknown ones are left out.

    An optional field of another type is None. One that is not optional must be right already: readers settle
    ids and statuses first.

    :raises TypeError: a field that is not optional is missing or of another type.
    """
    return _converter.structure(fields, model)


def _strict(kind: type[Any]) -> Callable[[object, object], Any]:
    def take(value: object, _: object) -> object:
        if type(value) is kind:
            return value
        message = f"{type(value).__name__} is not {kind.__name__}"
        raise TypeError(message)

    return take


def _lenient(kind: type[Any]) -> Callable[[object, object], Any]:
    return lambda value, _: value if type(value) is kind else None


def _as_it_is(value: object, _: object) -> object:
    return value


def _number(value: object, _: object) -> float | None:
    try:
        return float(value) if type(value) in {int, float} else None  # type: ignore[arg-type]  # narrowed on this line
    except OverflowError:
        return None


def _make_converter() -> cattrs.Converter:
    """Return a converter that takes types as they are: left alone, cattrs makes "None" of None and True of "false"."""
    converter = cattrs.Converter(detailed_validation=False)
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _strict(kind))
        converter.register_structure_hook(kind | None, _lenient(kind))
    converter.register_structure_hook(float | None, _number)
    converter.register_structure_hook(AssetSource | None, _as_it_is)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, Any], _as_it_is)
    return converter


_converter: Final = _make_converter()
_structure_asset: Final = _converter.get_structure_hook(Asset)  # found once: a million answers are read
