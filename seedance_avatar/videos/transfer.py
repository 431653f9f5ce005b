"""Decides what an answer of a files host means for a download: facts in, a decision out. No I/O.

A file that arrives in several parts is one file only if every part is of the same version: same ETag, date and length
(RFC 9110, 13.1.5 and 14). Just after its task finished, a file may not be there yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from seedance_avatar.errors import ApiError, AvatarError, NotFound, ProtocolError, RateLimited, ServerError
from seedance_avatar.models import VideoTask

__all__ = ["FETCH_AGAIN", "GONE", "Answer", "Decision", "Version", "judge", "may_still_come", "pause_until_there"]

FETCH_AGAIN: Final = "the video is finished and kept for 24 hours: download it again, or fetch its URL by other means"
"""What to do about a finished video that did not arrive."""
GONE: Final = frozenset({403, 404, 410})
_NOT_YET: Final = frozenset({202, 204, 400, 409, 425}) | GONE
_PASSING: Final = frozenset({408, 429})  # and every 5xx
_OK: Final = 200
_PARTIAL: Final = 206
_BEGIN_ANEW: Final = frozenset({412, 416})
_TOO_MANY: Final = 429
_SERVER: Final = 500
_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_DAY: Final = 86_400.0
_YOUNG: Final = 600.0
"""Seconds after its end for which a task's file may still come; more than a minute, since clocks differ."""
_WAITS: Final = (1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0)
"""Seconds before each further request for a file that is not there yet: a minute in all."""


@attrs.frozen
class Version:
    """What tells one state of a file from another: its ETag, its date, and its length in bytes."""

    etag: str | None
    date: str | None
    total: int | None

    @property
    def validator(self) -> str | None:
        """The text for ``If-Range``: a strong ETag, else the date; a weak ETag does not promise the same bytes."""
        return self.date if self.etag is None or self.etag.startswith("W/") else self.etag

    def continues(self, first: Version) -> bool:
        """Return whether a part of this version goes on with a file that began as ``first``."""
        same = [
            mine == theirs
            for mine, theirs in ((self.etag, first.etag), (self.date, first.date), (self.total, first.total))
            if mine is not None and theirs is not None
        ]
        return bool(same) and all(same)


@attrs.frozen(kw_only=True)
class Answer:
    """The facts of a response: its status, the host's name as it may be shown, and its headers."""

    status: int
    host: str
    headers: Mapping[str, str]
    length: int | None


@attrs.frozen(kw_only=True)
class Decision:
    """What to do: ``take`` the body from byte ``start`` on, ask ``again``, begin ``anew``, or raise ``error``.

    ``absent`` is a file that the host does not have: perhaps not yet, perhaps no longer.
    """

    what: Literal["take", "again", "anew", "absent", "refused"]
    error: AvatarError | None = None
    start: int = 0
    version: Version | None = None


def judge(answer: Answer, *, held: int, first: Version | None, about: str, longest_wait: float) -> Decision:
    """Return what ``answer`` means for a download that has ``held`` bytes of the version ``first``.

    :param about: the task's id, for errors.
    :param longest_wait: the longest ``Retry-After`` to obey, seconds.
    """
    status, headers = answer.status, answer.headers
    version = Version(headers.get("ETag"), headers.get("Last-Modified"), answer.length)
    if status == _OK:
        return Decision(what="take", start=0, version=version)
    if status == _PARTIAL:
        return _part(answer, version, held=held, first=first, about=about)
    if status in _BEGIN_ANEW and held:
        error: AvatarError = ServerError(f"{answer.host} did not continue the file", status=status, about=about)
        return Decision(what="anew", error=error)
    if status in _NOT_YET:
        missing = NotFound if status in GONE else ApiError
        error = missing(f"{answer.host} does not have the file", status=status, about=about, retryable=True)
        return Decision(what="absent", error=error)
    said = headers.get("Retry-After", "")
    wait = float(said) if re.fullmatch("[0-9]{1,6}", said) else None
    passing = status in _PASSING or status >= _SERVER
    kind = RateLimited if status == _TOO_MANY else ServerError if passing else ApiError
    error = kind(f"{answer.host} refused the download", status=status, about=about, retryable=passing, retry_after=wait)
    # A longer Retry-After is left to the caller.
    return Decision(what="again" if passing and (wait or 0.0) <= longest_wait else "refused", error=error)


def _part(answer: Answer, version: Version, *, held: int, first: Version | None, about: str) -> Decision:
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is not None:
        total = None if found[3] == "*" else int(found[3])
        version = attrs.evolve(version, total=total)
        start, stop = int(found[1]), int(found[2]) + 1
        goal = total if total is not None or first is None else first.total
        # A part that announces less than the rest is as odd as one from elsewhere.
        right = start == held and goal in {None, stop} and answer.length in {None, stop - start}
        if right and (first is None if not held else first is not None and version.continues(first)):
            known = version if first is None else first
            return Decision(what="take", start=held, version=attrs.evolve(known, total=known.total or total))
    message = f"{answer.host} sends another part of the file, or of another file, than the one asked for"
    return Decision(what="anew", error=ProtocolError(message, about=about, status=answer.status, hint=FETCH_AGAIN))


def may_still_come(task: VideoTask, now: float) -> bool:
    """Return whether the file of ``task`` may not be there yet: it finished lately, or nobody knows when.

    :param now: seconds since the epoch.
    """
    finished = task.completed_at
    if finished is None and task.expires_at is not None:
        finished = task.expires_at - _DAY
    return finished is None or now < finished + _YOUNG


def pause_until_there(asked: int) -> float | None:
    """Return the seconds to wait after a file was absent ``asked`` times in a row, or None after a minute."""
    return _WAITS[asked - 1] if asked <= len(_WAITS) else None
