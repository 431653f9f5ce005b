"""What the journal keeps, as values: states and the moves between them, entries, records, changes.

Pure: no file, no clock. What a row may hold is decided here too, so that no query string of a signed URL
and no unprintable text ever gets as far as the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs

from seedance_avatar import errors
from seedance_avatar.errors import ApiError, AvatarError, JournalError, ProtocolError, SubmissionInDoubt
from seedance_avatar.models import ASSET_TYPES
from seedance_avatar.text import redact_url, safe_redacted, safe_text, url_path

State: TypeAlias = Literal["planned", "sending", "accepted", "active", "failed", "refused", "in_doubt"]
"""How far an item has come; the file holds its index in :data:`STATES`."""

Kind: TypeAlias = Literal["image", "video", "audio", "generation", "group"]
"""What was submitted: an asset by its type, a video generation, or a group."""

STATES: Final[tuple[State, ...]] = get_args(State)
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
FINGERPRINT: Final = 16  # bytes

_FROM: Final[Mapping[State, tuple[State, ...]]] = {
    "planned": ("planned", "sending", "refused", "in_doubt"),  # turns back what is sending, leaves the rest
    "sending": ("planned", "refused"),  # of what was refused nothing exists
    "accepted": ("sending", "in_doubt", "accepted"),
    "active": ("accepted", "active"),
    "failed": ("accepted", "failed"),
    "refused": ("planned", "sending", "refused"),
    "in_doubt": ("sending", "in_doubt"),
}


def _mask(*states: State) -> int:
    return sum(1 << STATES.index(state) for state in states)


ALLOWED: Final[Mapping[State, int]] = {state: _mask(*before) for state, before in _FROM.items()}
"""For each state, the states that it may follow, as bits in the order of :data:`STATES`."""

RESEND: Final = ALLOWED["sending"] | _mask("in_doubt")
"""What ``sending`` may follow when the caller takes the risk of a duplicate."""

_FACTS: Final[tuple[tuple[type[AvatarError], tuple[str, ...]], ...]] = (
    (ApiError, ("status", "code", "request_id", "retryable")),
    (SubmissionInDoubt, ("evidence", "request_id")),
    (ProtocolError, ("status", "body")),
)
"""The facts beside its message that an error of each family is made from."""

_REVIVABLE: Final = frozenset(errors.__all__) - {"AssetFailed", "GenerationFailed", "IngestError"}


def error_line(error: AvatarError | str) -> str:
    """Return ``error`` as the line of JSON that a row keeps of it: its type, its message and its facts."""
    if isinstance(error, str):
        return json.dumps({"message": safe_redacted(error, 600)})
    kept: dict[str, Any] = {"type": type(error).__name__, "message": safe_redacted(error.message, 600)}
    for family, names in _FACTS:
        if isinstance(error, family):
            for name in names:
                value = getattr(error, name)
                kept[name] = safe_redacted(value, 600) if isinstance(value, str) else value
    return json.dumps(kept)


def sixteen(name: bytes) -> bytes:
    """Return ``name`` if it can be a fingerprint: a batch goes to the file as one string of them."""
    if len(name) != FINGERPRINT:
        message = f"a fingerprint has {FINGERPRINT} bytes, not {len(name)}: use Journal.fingerprint()"
        raise JournalError(message)
    return name


def printable(value: str, what: str) -> str:
    """Return ``value`` if it is the printable text that the service's ids are."""
    if not value.isprintable():
        message = f"the {what} {safe_text(value, 80)} is not printable text and cannot be recorded"
        raise JournalError(message)
    return value


@attrs.frozen(kw_only=True)
class Entry:
    """An item about to be journaled. Build it by :meth:`Hasher.entry`, which keeps secrets out of it.

    :ivar fingerprint: 16 bytes that identify it.
    :ivar kind: what will be submitted.
    :ivar shown: what may be shown of its URL (of a group: its name; of a generation: its prompt).
    :ivar group_id: the group it will belong to, or None.
    :ivar key: the caller's own name for it, made safe to show, or None.
    :ivar business_id: the ``client_business_id`` that a generation will carry, or None.
    :ivar url_hash: the :meth:`Hasher.url` of an asset's URL, or None.
    :ivar former: the fingerprint under which version 1 of the file had it, where that was made of other facts.
    """

    fingerprint: bytes
    kind: Kind
    shown: str
    group_id: str | None = None
    key: str | None = None
    business_id: str | None = None
    url_hash: int | None = None
    former: bytes | None = None


@attrs.frozen
class Hasher:
    """Makes the hashes by which a journal knows items, URLs and API keys.

    They are keyed with the journal's own ``secret``: equal URLs in two journals have nothing in common, and no list of
    guesses made beforehand fits.
    """

    secret: bytes
    _keyed: hashlib.blake2b = attrs.field(init=False)

    @_keyed.default
    def _(self) -> hashlib.blake2b:
        return hashlib.blake2b(digest_size=FINGERPRINT, key=self.secret)

    def _digest(self, *parts: str) -> bytes:
        keyed = self._keyed.copy()
        # A length before each part: ("a", "bc") and ("ab", "c") are two items.
        keyed.update("".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass"))
        return keyed.digest()

    def fingerprint(self, *, kind: Kind, group_id: str | None = None, url: str = "", key: str | None = None) -> bytes:
        """Return the 16 bytes that identify an item: by group and ``key`` where it has one, else group, kind and URL.

        Assets of every type share the keys of their group; generations and groups have their own.
        """
        space = kind if kind in {"generation", "group"} else "asset"
        if key is None:
            return self._digest(space, kind, group_id or "", url)
        name = self._digest(space, key)
        return self.key_in_group(name, group_id) if space == "asset" else name

    def key_in_group(self, name: bytes, group_id: str | None) -> bytes:
        """Return the fingerprint of the asset whose key has the hash ``name``: its fingerprint in version 1."""
        return self._digest("asset in group", group_id or "", name.hex())

    def account(self, key: str) -> bytes:
        """Return the 16 bytes by which an API key is recognised."""
        return self._digest("account", key)

    def url(self, url: str) -> int:
        """Return 64 bits that tell ``url`` from others by all but its query, which may be a renewed signature."""
        return int.from_bytes(self._digest("url", url_path(url))[:8], "big", signed=True)

    def entry(  # noqa: PLR0913 - what identifies it and what may be shown of it, all by keyword
        self,
        *,
        kind: Kind,
        group_id: str | None = None,
        url: str = "",
        key: str | None = None,
        shown: str | None = None,
        business_id: str | None = None,
    ) -> Entry:
        """Return the entry of an item, with no secret in it.

        :param shown: what names it in reports, in place of what may be shown of ``url``.
        :param business_id: the ``client_business_id`` that a generation will carry if it is new.
        """
        return Entry(
            fingerprint=self.fingerprint(kind=kind, group_id=group_id, url=url, key=key),
            kind=kind,
            shown=redact_url(url) if shown is None else safe_redacted(shown, 160),
            group_id=None if group_id is None else printable(group_id, "group id"),
            key=None if key is None else safe_redacted(key, 160),  # a URL used as a key has a query in it
            business_id=None if business_id is None else printable(business_id, "client_business_id"),
            url_hash=self.url(url) if kind in ASSET_TYPES else None,
        )


@attrs.frozen(kw_only=True)
class Record:
    """What the journal knows of one item.

    :ivar row: its number in the journal, in the order of first being seen; 0 where it is in none.
    :ivar state: how far it has come.
    :ivar attempts: how often it was sent.
    :ivar remote_id: the service's id of it (asset, task or group), or None before it was accepted.
    :ivar business_id: the ``client_business_id`` it was first journaled with, or None.
    :ivar planned_at: seconds since the epoch by the wall clock, as are ``sent_at``, ``accepted_at``,
        ``ended_at`` (active, failed or refused) and ``doubted_at``, each None where it has not happened.
    :ivar doubted_at: when it was last in doubt; it stays after a resend, whose result may be a duplicate.
    :ivar facts: type, message and facts of the error it came to, or None.
    :ivar url_hash: tells its URL without the query from others; None where version 1 of the file journaled it.
    :ivar run: the run that changed it last; None where version 1 of the file journaled it.
    """

    row: int
    kind: Kind
    state: State
    shown: str
    group_id: str | None = None
    key: str | None = None
    attempts: int = 0
    remote_id: str | None = None
    business_id: str | None = None
    planned_at: float | None = None
    sent_at: float | None = None
    accepted_at: float | None = None
    ended_at: float | None = None
    doubted_at: float | None = None
    facts: Mapping[str, Any] | None = None
    url_hash: int | None = None
    run: int | None = None

    @property
    def label(self) -> str:
        """What names it in messages: its key where it has one, and its URL without secrets."""
        return self.shown if self.key is None else f"{self.key} ({self.shown})"

    @property
    def target_id(self) -> str:
        """What it was submitted under: the ``client_business_id`` of a generation, the group's id of an asset."""
        return self.business_id or self.group_id or ""

    @property
    def reason(self) -> str | None:
        """Why it failed, was refused or is in doubt, in one safe line, or None."""
        return None if self.facts is None else str(self.facts.get("message", ""))

    @property
    def may_be_duplicate(self) -> bool:
        """True when it was sent again after an attempt of which nobody knows what came."""
        return self.doubted_at is not None and self.attempts > 1

    def is_of(self, entry: Entry) -> bool:
        """Return whether it is of the source of ``entry``, which has its fingerprint: by type and URL up to the query.

        Version 1 of the file kept no hash of the URL, but what may be shown of it.
        """
        if entry.url_hash is None:
            return True
        if self.url_hash is None:
            return (self.kind, url_path(self.shown)) == (entry.kind, url_path(entry.shown))
        return (self.kind, self.url_hash) == (entry.kind, entry.url_hash)

    def error(self) -> AvatarError:
        """Return the error it came to, of its own type where that can be made from what was kept."""
        facts = {"message": "the journal holds no reason", **(self.facts or {})}
        name, message = facts.pop("type", ""), facts.pop("message")
        cls: type[AvatarError] = getattr(errors, name) if name in _REVIVABLE else AvatarError
        known = next((names for family, names in _FACTS if issubclass(cls, family)), ())
        return cls(message, about=self.label, **{name: facts[name] for name in known if name in facts})


@attrs.define(kw_only=True)  # one for each write, and a frozen one takes twice as long to make
class Change:
    """One move of one item, on its way to the file.

    :ivar state: the state to move to.
    :ivar allowed: the states it may come from, as in :data:`ALLOWED`.
    :ivar at: milliseconds since the epoch.
    :ivar run: the run that makes it.
    :ivar error: an :func:`error_line`, or None.
    """

    fingerprint: bytes
    state: State
    allowed: int
    at: int
    run: int
    remote_id: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.state} {self.remote_id or self.fingerprint.hex()}"


def turned_back(intent: Change) -> Change:
    """Return the change that undoes ``intent``, if it was written: nothing of it was sent."""
    return attrs.evolve(intent, state="planned", allowed=ALLOWED["planned"])


@attrs.frozen(kw_only=True)
class Run:
    """One time the journal was written: seconds since the epoch; ``ended_at`` None when it was killed."""

    started_at: float
    ended_at: float | None


@attrs.frozen(kw_only=True)
class Origin:
    """What a journal knows of where it comes from, asked for one service and account.

    :ivar known: True when it was used with both before.
    :ivar base_urls: the services that it was used with.
    :ivar asset_id: an asset that it holds, the newest that is active, else the newest accepted; None without any.
    :ivar empty: True when nothing in it exists, or may exist, at a service.
    """

    known: bool
    base_urls: tuple[str, ...]
    asset_id: str | None
    empty: bool


@attrs.frozen(kw_only=True)
class Sample:
    """One point of a time series that a run noted, for its report: ``at`` in seconds since the epoch."""

    at: float
    name: str
    value: float


@attrs.frozen(kw_only=True)
class Summary:
    """A journal in figures.

    :ivar counts: for each kind, how many are in each state; what there is none of is absent.
    :ivar doubted: how many were ever in doubt.
    :ivar runs: the times it was written, oldest first.
    """

    counts: Mapping[Kind, Mapping[State, int]]
    doubted: int
    runs: tuple[Run, ...]

    def count(self, *states: State, kinds: tuple[Kind, ...] = ("image", "video", "audio")) -> int:
        """Return how many items of these kinds (default: assets) are in these states (default: in any)."""
        return sum(self.counts.get(kind, {}).get(state, 0) for kind in kinds for state in states or STATES)


def misuse(change: Change, state: int | None) -> JournalError:
    """Return the error for a change of what is in ``state``, or of what was never claimed (None)."""
    if state is None:
        return JournalError(f"{change} was never claimed in this journal; nothing was recorded")
    return JournalError(
        f"what is {STATES[state]} in the journal cannot become {change.state}"
        + (" by itself: it may exist at the service" if STATES[state] == "in_doubt" else "; nothing was recorded")
    )
