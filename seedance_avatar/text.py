"""Makes text from outside safe to show: escapes it, redacts secrets, and wraps keys in :class:`Secret`.

Everything that a server, a manifest or a user's URL brought in passes :func:`safe_text` before it reaches a
terminal, a log line, an error or a report: a terminal executes escape sequences, standard logging keeps raw
newlines, and bidirectional controls make text read as what it is not. Errors and the journal also pass it through
:func:`redact`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from typing import AnyStr, Final, Generic, NoReturn

__all__ = ["KeyProvider", "Secret", "redact", "redact_url", "safe_redacted", "safe_text", "url_path"]


def redact_url(url: object) -> str:
    """Return what may be shown of ``url``: no query, no fragment, no user or password; one safe line.

    It takes anything, since it stands in reprs, and never raises: what is not a text shows its type.
    """
    if not isinstance(url, str):
        return f"<{type(url).__name__}>"
    head, question_mark, _ = url.partition("?")
    head, fragment, _ = head.partition("#")
    if head[:5].lower() == "data:":
        return safe_text(head.partition(",")[0] + ",…", 160)
    scheme, colon, rest = head.partition("://")
    if colon:
        authority, slash, path = rest.partition("/")
        head = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    elif "@" in head:
        # Not a URL as it stands, but perhaps one that lost a slash: what comes before the @ may be a password.
        head = f"…@{head.rpartition('@')[2]}"
    return safe_text(head + ("?…" if question_mark else "#…" if fragment else ""), 160)


_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def url_path(url: str) -> str:
    """Return ``url`` up to its query, with scheme and host in lower case and no default port.

    Two URLs for which it is equal name one thing: the query may be a signature that was renewed. It holds no secret
    but a user and password, which no source may have.
    """
    head = url.partition("#")[0].partition("?")[0]
    scheme, colon, rest = head.partition("://")
    if not colon:
        return head
    authority, _, path = rest.partition("/")
    scheme = scheme.lower()
    return f"{scheme}://{authority.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ''))}/{path}"


KeyProvider = Callable[[], str | Awaitable[str]]
"""A user's callable that returns the API key: sync or async, asked whenever a key is needed."""


def safe_text(value: object, limit: int = 200) -> str:
    r"""Return ``value`` as one line of printable text, at most ``limit`` characters long.

    Runs of white space (line ends included) become one space. What is not printable, bidirectional
    controls included, becomes its Python escape (``\x1b``, ``\u202e``); printable text of any script
    stays as it is. What was cut is marked by a closing ``…``. It never raises: a value
    that cannot say what it is shows its type.
    """
    try:
        # A subclass of str may lie about its parts; a plain copy of it cannot.
        text = str.__str__(value if isinstance(value, str) else str(value))
    except Exception:  # noqa: BLE001 - a __str__ from outside may raise anything, and an integer too long to print does
        text = f"<{type(value).__name__}>"
    # A service may answer with a megabyte: only as much of it is looked at as can be shown.
    text = " ".join(text[: 8 * limit].split()) + ("…" if len(text) > 8 * limit else "")
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


# A server may quote a URL as it got it, percent-encoded (once or more), or with its slashes escaped for JSON or HTML.
# No alternative looks twice at what it has looked at, so the time is linear in the text.
_SLASH = r"(?: \\{0,4} / | % (?:25){0,3} 2F | \\{1,4} u002F | &\#x2F; | &\#47; )"
_QUERY_MARK = r"(?: [?\#] | % (?:25){0,3} (?: 3F | 23 ) | \\{1,4} u00 (?: 3F | 23 ) | &\#x3F; | &\#63; )"
_SECRETS = re.compile(
    rf"""
    (?P<slashes> (?: : | % (?:25){0, 3} 3A )? {_SLASH} {{2}} )
    (?P<path> (?: (?! {_QUERY_MARK} ) [^\s"'<>] )* )
    (?P<query> \?… (?= [)\]"',;:.]{{0,4}} (?: \s | $ ) ) | {_QUERY_MARK} \S* )?  # the first: redacted before
    | [?\#] (?P<bare_query> [^\s=?\#]* = \S* )
    | (?<! [^\s"'<>(,=] ) (?P<user> [^\s"'<>(,=:@/]+ : [^\s"'<>(,=:@/]+ @ )
    | (?P<name> (?: \b sig | signature | token | secret | password | credential | api[_-]?key ) (?: = | %3D ) )
      [^\s&"'<>]+
    | (?P<key> \b sk- ) [\w-]+
    | (?P<bearer> \b Bearer (?: %20 | [\s:=+"'] )+ ) \S+
    """,
    re.IGNORECASE | re.VERBOSE,
)
_AUTHORITY = re.compile(rf"(?: (?! {_SLASH} ) . )*", re.IGNORECASE | re.VERBOSE | re.DOTALL)
_AT = re.compile(r"@ | % (?:25){0,3} 40", re.IGNORECASE | re.VERBOSE)


def _without_secret(found: re.Match[str]) -> str:
    if found["slashes"] is not None:
        authority = _AUTHORITY.match(found["path"])
        end = 0 if authority is None else authority.end()
        name, colon, port = _AT.split(found["path"][:end])[-1].partition(":")
        # No port, so the beginning of a password: the text was cut before its @.
        cut = colon and name[:1] != "[" and not re.fullmatch(r"\d*\W*", port)
        host = f"{name}{colon}{'…' if cut else port}"
        return f"{found['slashes']}{host}{found['path'][end:]}{'?…' if found['query'] else ''}"
    if found["bare_query"] is not None:
        return "?…"
    return "…@" if found["user"] is not None else f"{found['name'] or found['key'] or found['bearer']}…"


def redact(text: str) -> str:
    """Return ``text`` without what could sign or authorise a request: the one redactor of the package.

    Of every URL in it the query, the fragment, the user and the password go (up to the next white space: a query may
    hold anything else), however the URL is escaped; so do API keys, bearer tokens, and values named as secrets
    (``signature=``, ``token=`` and the like).
    """
    return _SECRETS.sub(_without_secret, text)


def safe_redacted(value: object, limit: int = 200) -> str:
    """Return ``value`` as :func:`safe_text` does, and as :func:`redact` leaves it: for all that is shown or kept."""
    # Cut first, since a service may answer with a megabyte; what is cut off is not shown either.
    return safe_text(redact(safe_text(value, 8 * limit)), limit)


class Secret(Generic[AnyStr]):
    """Wraps a secret text, or secret bytes; only :meth:`reveal` returns them.

    Every field that holds a key or a password is of this type, since tools that show attrs fields ignore
    ``repr=False``. Its ``repr`` and ``str`` are fixed, it cannot be pickled (a key does not travel to another machine
    by accident), and it compares in constant time.
    """

    __slots__ = ("_value",)

    def __init__(self, value: AnyStr) -> None:
        self._value: AnyStr = value

    def reveal(self) -> AnyStr:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented  # no secret equals a plain string
        return hmac.compare_digest(_as_bytes(self._value), _as_bytes(other._value))

    def __hash__(self) -> int:
        return hash((Secret, _as_bytes(self._value)))

    def __reduce__(self) -> NoReturn:
        message = "a Secret cannot be pickled: pass the key to the other process yourself"
        raise TypeError(message)


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
