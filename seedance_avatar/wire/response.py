"""An HTTP response as a value: its status, its body, the few headers that matter, and the values that its JSON holds.

Most responses carry none of these headers, and an ingest reads a million of them, so the common case is kept cheap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Final, TypeVar

import attrs
import cattrs

from seedance_avatar.models import AssetSource
from seedance_avatar.text import redact, redact_url

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class RateHints:
    """What an answer's ``X-RateLimit-…`` and ``Retry-After`` say about the limits; each None when it does not say."""

    limit: int | None = None  # requests that a window permits
    remaining: int | None = None  # requests left in this window
    reset: float | None = None  # seconds from now until the window ends
    retry_after: float | None = None  # seconds to wait


_NO_HINTS: Final = RateHints()
_LONGEST_WAIT: Final = 30 * 86_400.0  # seconds; a longer one is garbage
_LONGEST_WINDOW: Final = 86_400.0  # seconds
_EPOCH: Final = 1e9  # a reset above this is a point in time (it was passed in 2001), not a wait


@attrs.frozen(kw_only=True)
class Response:
    """A whole HTTP response, its body decompressed; ``location`` is where a redirect points to."""

    status: int
    body: bytes = attrs.field(default=b"", repr=lambda body: f"<{len(body)} bytes>")  # it may repeat a signed URL
    request_id: str | None = None
    hints: RateHints = _NO_HINTS
    location: str | None = attrs.field(default=None, repr=lambda url: "None" if url is None else redact_url(url))
    content_type: str = ""

    @cached_property
    def parsed(self) -> Any:  # noqa: ANN401 - JSON can be anything
        """The JSON in the body as :func:`parse_json` returns it, parsed once and kept."""
        return parse_json(self.body)


def read_head(status: int, headers: Mapping[str, str], body: bytes = b"") -> Response:
    """Return the response that ``status``, ``headers`` (a mapping that ignores case) and ``body`` make.

    Nothing is raised, whatever a header holds: one that cannot be used counts as missing.
    """
    get = headers.get
    limit, remaining = get("X-RateLimit-Limit"), get("X-RateLimit-Remaining")
    reset, retry_after = get("X-RateLimit-Reset"), get("Retry-After")
    if limit is remaining is reset is retry_after is None:
        hints = _NO_HINTS
    else:
        date = get("Date")
        hints = RateHints(
            limit=_count(limit),
            remaining=_count(remaining),
            reset=_reset(reset, date),
            retry_after=_retry_after(retry_after, date),
        )
    return Response(
        status=status,
        body=body,
        request_id=_request_id(get("X-Oneapi-Request-Id") or get("X-Request-Id") or get("CF-Ray")),
        hints=hints,
        location=get("Location"),
        content_type=get("Content-Type", ""),
    )


def _request_id(text: str | None) -> str | None:
    """Return a request id that can be shown and stored, or None: a header may hold anything, our own key too."""
    if not text or not text.isascii() or not text.isprintable() or len(text) > 128:  # noqa: PLR2004 - as much as errors show
        return None
    return text if text.isalnum() else redact(text)


def _count(text: str | None) -> int | None:
    """Read a count; of the draft's ``60, 60;w=60`` the first number."""
    digits = (text or "").partition(",")[0].partition(";")[0].strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None  # noqa: PLR2004 - no count is longer


def _number(text: str | None) -> float | None:
    """Read a finite number of at least 0."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _date(text: str | None) -> float | None:
    """Read an HTTP date as seconds since the epoch."""
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
        # HTTP dates are GMT; one that names no zone would otherwise be taken for local time.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _until(moment: float | None, date: str | None) -> float | None:
    """Return the seconds from the response's own ``Date`` to ``moment``: our clock may be wrong by hours."""
    now = _date(date)
    return None if moment is None or now is None else moment - now


def _retry_after(text: str | None, date: str | None) -> float | None:
    """Read ``Retry-After``: seconds, or a point in time."""
    wait = _number(text)
    if wait is None:
        wait = _until(_date(text), date)
    return wait if wait is not None and 0 <= wait <= _LONGEST_WAIT else None


def _reset(text: str | None, date: str | None) -> float | None:
    """Read ``X-RateLimit-Reset``: seconds from now, or a point in time in seconds or milliseconds.

    Both are in use, and only their size tells them apart. A point in time that has passed is 0.
    """
    wait = _number(text)
    if wait is not None and wait > _EPOCH:
        wait = _until(wait / 1000 if wait > _EPOCH * 1000 else wait, date)
        wait = None if wait is None else max(0.0, wait)
    return wait if wait is not None and wait <= _LONGEST_WINDOW else None


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


# NaN, Infinity and numbers that are too large (1e999) become None: they must not cost the id beside them.
_decoder: Final = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)


def parse_json(body: bytes | str) -> Any:  # noqa: ANN401 - JSON is anything
    """Return the value that the JSON in ``body`` encodes, tolerating broken characters.

    Bytes that are not UTF-8 and lone surrogates become replacement characters, numbers that are not finite
    become None, a byte order mark is ignored.

    :raises ValueError: it is not JSON, or is nested too deeply.
    """
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    try:
        value = _decoder.decode(text.removeprefix("\ufeff"))
        if "\\ud" in text or "\\uD" in text:
            # A lone surrogate could be neither printed nor stored.
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None
    return value


def structure(model: type[T], fields: Mapping[str, Any]) -> T:
    """Return a ``model`` built from ``fields``; unknown fields are ignored.

    An optional field of a wrong type becomes None. One that is not optional must have its type already: readers fix
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


def _as_float(value: object, _: object) -> float | None:
    try:
        return float(value) if type(value) in {int, float} else None  # type: ignore[arg-type]  # narrowed on this line
    except OverflowError:
        return None


def _make_converter() -> cattrs.Converter:
    """Return a converter that never coerces: by default, cattrs turns None into "None" and "false" into True."""
    converter = cattrs.Converter(detailed_validation=False)
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _strict(kind))
        converter.register_structure_hook(kind | None, _lenient(kind))
    converter.register_structure_hook(float | None, _as_float)
    converter.register_structure_hook(AssetSource | None, lambda value, _: value)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, Any], lambda value, _: value)
    return converter


_converter: Final = _make_converter()
