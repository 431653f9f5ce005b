"""Secrets that sing: keys and signed queries planted all over the suite, and what listens for them.

``tests/conftest.py`` asks after every test whether one was heard: in a log record of any level, in its traceback
with the locals of the library's own frames, in what was printed, or in a SQLite file that the test left.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

from rich.traceback import Traceback

__all__ = ["CANARY", "SECRET_TEXTS", "Listener", "everything_of", "heard_in_files", "sings"]

CANARY = re.compile(r"sk-canary|[?&](?:sig|token|X-Amz-Signature)=canary|canarysignature", re.IGNORECASE)
"""What the keys and queries of the suite look like, wherever they come up."""

SECRET_TEXTS = {
    "a query": "GET https://c.example/a.jpg?sig=CANARYSIGNATURE&x=1 failed",
    "a query without a name": "https://c.example/a.jpg?CANARYSIGNATURE",
    "a query with spaces encoded": "https://c.example/a.jpg?a=%20CANARYSIGNATURE",
    "a fragment": "https://c.example/a.jpg#CANARYSIGNATURE",
    "a user": "https://CANARYSIGNATURE@c.example/a.jpg",
    "a password": "https://me:CANARYSIGNATURE@c.example/a.jpg",
    "a password that was cut": "https://me:CANARYSIGNATURE…",
    "a password of Redis": "redis://:CANARYSIGNATURE@cache.example:6379/0",
    "a password without a scheme": "me:CANARYSIGNATURE@c.example/a.jpg",
    "a key": "Incorrect API key provided: sk-CANARYSIGNATURE.",
    "a key in capitals": "SK-CANARYSIGNATURE",
    "a bearer token": "Authorization: Bearer CANARYSIGNATURE",
    "a bearer token with a colon": "bearer: CANARYSIGNATURE",
    "a bearer token, encoded": "Bearer%20CANARYSIGNATURE",
    "a bearer token in JSON": '{"authorization":"Bearer CANARYSIGNATURE"}',
    "JSON": '{"url":"https://c.example/a.jpg?sig=CANARYSIGNATURE"}',
    "JSON with escaped slashes": '{"url":"https:\\/\\/c.example\\/a.jpg?sig=CANARYSIGNATURE"}',
    "JSON in JSON": '{"detail":"{\\"url\\":\\"https:\\\\/\\\\/c.example\\\\/a.jpg?sig=CANARYSIGNATURE\\"}"}',
    "JSON with escaped letters": '{"url":"https:\\u002f\\u002fc.example\\u002fa.jpg\\u003fCANARYSIGNATURE"}',
    "a password in JSON": '{"url":"https:\\/\\/me:CANARYSIGNATURE@c.example\\/a.jpg"}',
    "percent-encoded": "https%3A%2F%2Fc.example%2Fa.jpg%3FCANARYSIGNATURE",
    "percent-encoded in small letters": "https%3a%2f%2fc.example%2fa.jpg%3fsig%3dCANARYSIGNATURE",
    "percent-encoded twice": "https%253A%252F%252Fc.example%252Fa.jpg%253FCANARYSIGNATURE",
    "a percent-encoded password": "https%3A%2F%2Fme%3ACANARYSIGNATURE%40c.example%2Fa.jpg",
    "a percent-encoded fragment": "https%3A%2F%2Fc.example%2Fa.jpg%23CANARYSIGNATURE",
    "HTML": "<a href='https:&#x2F;&#x2F;c.example&#x2F;a.jpg&#x3F;CANARYSIGNATURE'>",
    "no scheme": "c.example/a.jpg?sig=CANARYSIGNATURE",
    "a scheme left out": "//c.example/a.jpg?CANARYSIGNATURE",
    "a path alone": "GET /a.jpg?sig=CANARYSIGNATURE HTTP/1.1",
    "a slash lost": "https:/c.example/a.jpg?sig=CANARYSIGNATURE",
    "a value alone": "the parameter X-Amz-Signature=CANARYSIGNATURE has expired",
}
"""What a service, a proxy or a user's own callable may say, each with a secret in it that nothing may show."""

PACKAGE = "/seedance_avatar/"
_MOST = 64 << 20


def sings(text: str) -> str | None:
    """Return where a canary stands in ``text``, or None."""
    found = CANARY.search(text)
    return None if found is None else text[max(0, found.start() - 80) : found.end() + 40]


def everything_of(error: BaseException) -> str:
    """Return all that a tool could show of an error: itself, its facts, and the locals of the library's frames.

    rich shows a local that is an attrs object by its fields, and their fields, whatever its ``repr`` says.
    """
    shown: list[str] = []
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop()
        if one is None:
            continue
        shown += [str(one), repr(one), repr(vars(one))]
        told = traceback.TracebackException(type(one), one, one.__traceback__, capture_locals=True)
        for frame in told.stack:
            if PACKAGE in frame.filename and "/sandbox/" not in frame.filename:
                shown.append(repr(frame.locals))
        # One exception at a time, since rich follows only one of cause and context.
        own = Traceback.extract(type(one), one, one.__traceback__, show_locals=True, locals_max_string=1000).stacks[0]
        for shown_frame in own.frames:
            if PACKAGE in shown_frame.filename and "/sandbox/" not in shown_frame.filename:
                shown += map(str, (shown_frame.locals or {}).values())
        queue += [one.__context__, one.__cause__]
        if isinstance(one, BaseExceptionGroup):
            queue += one.exceptions
    return "\n".join(shown)


class Listener(logging.Handler):
    """Hears every log record of every level.

    :ivar heard: what was sung since the last :meth:`forget`.
    """

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        parts = [record.getMessage(), repr(record.args)]
        if record.exc_info and record.exc_info[1] is not None:
            parts.append(everything_of(record.exc_info[1]))
        self.heard += [f"log {record.name}: …{found}…" for part in parts if (found := sings(part)) is not None]

    def forget(self) -> list[str]:
        """Return what was heard, and begin anew."""
        heard, self.heard = self.heard, []
        return heard


def heard_in_files(files: Iterable[Path]) -> list[str]:
    """Return the SQLite files (and their logs) among ``files`` in which a canary sings."""
    heard = []
    for file in files:
        if not file.is_file() or file.is_symlink() or file.stat().st_size > _MOST:
            continue
        content = file.read_bytes()
        ours = content.startswith(b"SQLite format 3") or file.name.endswith("-wal")
        if ours and (found := sings(content.decode("latin-1"))) is not None:
            heard.append(f"{file.name}: …{found!r}…")
    return heard
