"""The five ends a source can have, and the accounts that count them. Frozen facts.

Every source that an ingest takes ends as exactly one of these. They are generic in what was submitted
and what became of it, since assets and videos go through the same pipeline: for assets ``source`` is an
:class:`~seedance_avatar.AssetSource` and ``asset`` an :class:`~seedance_avatar.Asset`; for videos they are a
:class:`~seedance_avatar.GenerationRequest` and a :class:`~seedance_avatar.VideoTask`. ``account`` is the name of the
account that it came from where several share the work (``AccountPool``), else None.
"""

from __future__ import annotations

from typing import Generic, TypeAlias, TypeVar

import attrs

from .errors import AvatarError
from .models import Asset, AssetSource

__all__ = [
    "Active",
    "Failed",
    "InDoubt",
    "IngestReport",
    "IngestStats",
    "Outcome",
    "Pending",
    "SessionStats",
    "Unsent",
]

S = TypeVar("S")
A = TypeVar("A")


@attrs.frozen(kw_only=True)
class Active(Generic[S, A]):
    """It is done: the asset is active and can be used (the video is finished and can be downloaded).

    :ivar source: what was submitted.
    :ivar asset: what became of it.
    :ivar account: the name of the account that it came to this end in, where a pool has several; else None.
    """

    source: S
    asset: A
    account: str | None = None


@attrs.frozen(kw_only=True)
class Failed(Generic[S, A]):
    """It will never be: refused here before sending, refused by the service, or failed while processing.

    :ivar source: what was submitted.
    :ivar error: why.
    :ivar asset: the asset as last seen, or None when none was ever accepted.
    :ivar account: the name of the account that it came to this end in, where a pool has several; else None.
    """

    source: S
    error: AvatarError
    asset: A | None = None
    account: str | None = None


@attrs.frozen(kw_only=True)
class Pending(Generic[S, A]):
    """Accepted, its id known, not finished when the ingest stopped looking; it may still finish.

    :ivar source: what was submitted.
    :ivar asset: the asset as last seen.
    :ivar error: why the looking stopped (a :class:`~seedance_avatar.WaitTimeout`, a refused key, a drain).
    :ivar account: the name of the account that it came to this end in, where a pool has several; else None.
    """

    source: S
    asset: A
    error: AvatarError
    account: str | None = None


@attrs.frozen(kw_only=True)
class InDoubt(Generic[S, A]):
    """Sent, and the answer was lost: it may exist at the service. It is never sent again by itself.

    :ivar source: what was submitted.
    :ivar error: how the answer was lost.
    :ivar account: the name of the account that it came to this end in, where a pool has several; else None.
    """

    source: S
    error: AvatarError
    account: str | None = None


@attrs.frozen(kw_only=True)
class Unsent(Generic[S, A]):
    """Nothing of it exists, and the cause is not the source: no money, no key, no network, stopped.

    :ivar source: what was submitted.
    :ivar error: that cause.
    :ivar account: the name of the account that it came to this end in, where a pool has several; else None.
    """

    source: S
    error: AvatarError
    account: str | None = None


Outcome: TypeAlias = (
    Active[AssetSource, Asset]
    | Failed[AssetSource, Asset]
    | Pending[AssetSource, Asset]
    | InDoubt[AssetSource, Asset]
    | Unsent[AssetSource, Asset]
)
"""What one asset source came to."""


@attrs.frozen(kw_only=True)
class IngestStats:
    """A running ingest at one moment. ``taken`` is always the sum of all that follow it.

    :ivar elapsed: seconds since the ingest began.
    :ivar exhausted: True once the source was read to its end.
    :ivar taken: sources taken so far.
    :ivar queued: taken, not yet on the wire (duplicates of one that is under way included).
    :ivar submitting: being sent, or waiting for their turn to be.
    :ivar polling: accepted, waiting to become active.
    :ivar active: ended so; as are ``failed``, ``pending``, ``in_doubt`` and ``unsent``.
    """

    elapsed: float = 0.0
    exhausted: bool = False
    taken: int = 0
    queued: int = 0
    submitting: int = 0
    polling: int = 0
    active: int = 0
    failed: int = 0
    pending: int = 0
    in_doubt: int = 0
    unsent: int = 0


@attrs.frozen(kw_only=True)
class IngestReport:
    """The accounts of an ingest: ``taken`` is the sum of the five ends once it is over.

    :ivar taken: sources taken.
    :ivar active: ended so; as are ``failed``, ``pending``, ``in_doubt`` and ``unsent``.
    :ivar exhausted: True when the source was read to its end (False: stopped before).
    :ivar unfinished: the outcomes that are not active, in the order they were known. Those that a consumer of
        ``outcomes()`` was handed are kept up to the first 1,000; all others are kept whole.
    :ivar omitted: how many were handed over and are not in ``unfinished``.
    :ivar elapsed: seconds from the beginning to the end (or to now, while it runs).
    """

    taken: int = 0
    active: int = 0
    failed: int = 0
    pending: int = 0
    in_doubt: int = 0
    unsent: int = 0
    exhausted: bool = False
    unfinished: tuple[Outcome, ...] = attrs.field(default=(), repr=lambda it: f"<{len(it)} outcomes>")
    omitted: int = 0
    elapsed: float = 0.0


@attrs.frozen(kw_only=True)
class SessionStats:
    """A session at one moment.

    :ivar requests: round trips made since it was opened.
    :ivar retries: how many of them repeated an earlier one.
    :ivar throttled: how many were answered with 429 (or 503 ``rate_limit_unavailable``).
    :ivar submitting: submissions on the wire now.
    :ivar querying: status requests on the wire now.
    :ivar waiting: callers waiting for their turn to send.
    :ivar pending: assets and videos that are being polled.
    :ivar submit_limit: submissions a second that the session holds itself to, None when unlimited.
    :ivar submit_why: why it is that, in a few words; so ``query_why`` for ``query_limit``.
    :ivar down_for: seconds for which nothing could be reached, None while the service answers.
    :ivar ingests: ingests under way.
    """

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    submitting: int = 0
    querying: int = 0
    waiting: int = 0
    pending: int = 0
    submit_limit: float | None = None
    submit_why: str = ""
    query_limit: float | None = None
    query_why: str = ""
    down_for: float | None = None
    ingests: int = 0
