"""Text from outside, made safe to show, and secrets that never show themselves.

Everything that a server, a manifest or a user's URL brought in passes :func:`safe_text` before it
reaches a terminal, a log line, an error or a report: a terminal executes escape sequences, standard
logging keeps raw newlines, and bidirectional controls make text read as what it is not.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from typing import NoReturn

__all__ = [
    "KeyProvider",
    "Secret",
    "redact",
    "redact_url",
    "safe_text",
]


def redact_url(url: object) -> str:
    """Return what may be shown of ``url``: no query, no fragment, no user or password; one safe line.

    It takes anything, since it stands in reprs, and never raises: what is not a text shows its type.
    """
    if not isinstance(url, str):
        return f"<{type(url).__name__}>"
    head, mark, _ = url.partition("?")
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
    return safe_text(head + ("?…" if mark else "#…" if fragment else ""), 160)


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


# A URL may come back as it is, with its slashes escaped, or percent-encoded as a whole. Each alternative takes all
# that it has looked at, so the time is linear in the text.
_SECRETS = re.compile(
    r"""
    (?P<mark> (?: : | %3A ) (?: \\?/ | %2F ){2} )
    (?P<place> (?: (?! %3F | %23 ) [^\s?#"'<>] )* )
    (?P<query> (?: [?#] | %3F | %23 ) \S* )?
    | (?P<key> \bsk- ) [\w-]+
    | (?P<bearer> \bBearer\s+ ) \S+
    """,
    re.IGNORECASE | re.VERBOSE,
)


def _veil(found: re.Match[str]) -> str:
    if found["mark"] is None:
        return f"{found['key'] or found['bearer']}…"
    authority, slash, path = found["place"].partition("/")
    return f"{found['mark']}{authority.rpartition('@')[2]}{slash}{path}{'?…' if found['query'] else ''}"


def redact(text: str) -> str:
    """Return ``text`` without what could sign or authorise: for words that a service sends back to us.

    Of every URL in it the query, the fragment, the user and the password go (up to the next white space: a
    query may hold anything else), and so do API keys and bearer tokens.
    """
    return _SECRETS.sub(_veil, text)


class Secret:
    """A string that shows itself only to who asks for it by :meth:`reveal`.

    It has no useful ``repr`` or ``str``, cannot be pickled (a key does not travel to another machine by
    accident) and compares in constant time.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented  # Python's own word for "ask the other side": no secret equals a plain text
        mine, theirs = self._value, other._value
        return hmac.compare_digest(mine.encode("utf-8", "surrogatepass"), theirs.encode("utf-8", "surrogatepass"))

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        message = "a Secret cannot be pickled: pass the key to the other process yourself"
        raise TypeError(message)
