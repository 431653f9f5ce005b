"""The five outcomes of a source, and the figures of an ingest and a session. All are immutable.

Every source that an ingest reads has exactly one outcome. Outcomes are generic, since assets and videos go through the
same pipeline: for assets ``source`` is an :class:`~seedance_avatar.AssetSource` and ``asset`` an
:class:`~seedance_avatar.Asset`; for videos they are a :class:`~seedance_avatar.GenerationRequest` and a
:class:`~seedance_avatar.VideoTask`. ``account`` is the name of the account in an ``AccountPool``, else None.
"""

from __future__ import annotations

from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from .errors import AvatarError
from .models import Asset, AssetSource

__all__ = ["Active", "Failed", "InDoubt", "IngestReport", "IngestStats", "Outcome", "Pending", "SessionStats", "Unsent"]

S = TypeVar("S")
A = TypeVar("A")


@attrs.frozen(kw_only=True)
class Active(Generic[S, A]):
    """The asset is active and can be used, or the video is finished and can be downloaded.

    :ivar source: what was submitted.
    :ivar asset: the asset or the video task.
    :ivar account: the account of the pool that it belongs to, or None.
    """

    source: S
    asset: A
    account: str | None = None


@attrs.frozen(kw_only=True)
class Failed(Generic[S, A]):
    """The source was refused before sending or by the service, or failed while processing; that is final.

    :ivar source: what was submitted.
    :ivar error: why.
    :ivar asset: the asset as last seen, or None when none was accepted.
    :ivar account: the account of the pool that it belongs to, or None.
    :ivar earlier: True when ``session.ingest`` found it in its journal: an earlier run came to it, and this one did
        not send the source again.
    """

    source: S
    error: AvatarError
    asset: A | None = None
    account: str | None = None
    earlier: bool = False


@attrs.frozen(kw_only=True)
class Pending(Generic[S, A]):
    """The service accepted it, and it was not finished when polling stopped; it may still finish.

    :ivar source: what was submitted.
    :ivar asset: the asset as last seen, with its id.
    :ivar error: why polling stopped (a :class:`~seedance_avatar.WaitTimeout`, a refused key, a drain).
    :ivar account: the account of the pool that it belongs to, or None.
    """

    source: S
    asset: A
    error: AvatarError
    account: str | None = None


@attrs.frozen(kw_only=True)
class _WithoutId(Generic[S, A]):
    """No id of it is known.

    :ivar source: what was submitted, or was to be.
    :ivar error: why.
    :ivar account: the account of the pool that it belongs to, or None.
    """

    source: S
    error: AvatarError
    account: str | None = None


class InDoubt(_WithoutId[S, A]):
    """It was sent and the answer was lost, as ``error`` says: it may exist at the service.

    It is not sent again unless asked for.
    """

    __slots__ = ()


class Unsent(_WithoutId[S, A]):
    """It was not sent, for a reason other than the source, the ``error``: no balance, key or network, or stopped."""

    __slots__ = ()


AnyOutcome: TypeAlias = Active[Any, Any] | Failed[Any, Any] | Pending[Any, Any] | InDoubt[Any, Any] | Unsent[Any, Any]
"""How any submission ended, of whatever kind."""

Outcome: TypeAlias = (
    Active[AssetSource, Asset]
    | Failed[AssetSource, Asset]
    | Pending[AssetSource, Asset]
    | InDoubt[AssetSource, Asset]
    | Unsent[AssetSource, Asset]
)
"""The outcome of one asset source."""


@attrs.frozen(kw_only=True)
class IngestStats:
    """The figures of a running ingest. ``taken`` is always the sum of all fields after it.

    :ivar elapsed: seconds since the ingest began.
    :ivar exhausted: True once the iterable of sources was read to its end.
    :ivar taken: sources read so far.
    :ivar queued: read, not yet being sent (duplicates of a source in work included).
    :ivar submitting: being sent, or waiting for the rate limit.
    :ivar polling: accepted, not yet finished.
    :ivar active: outcomes of this kind; so are ``failed``, ``pending``, ``in_doubt`` and ``unsent``.
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
    """The result of an ingest in figures; ``taken`` is the sum of the five kinds of outcomes once it has ended.

    :ivar taken: sources read.
    :ivar active: outcomes of this kind; so are ``failed``, ``pending``, ``in_doubt`` and ``unsent``.
    :ivar exhausted: True when the iterable of sources was read to its end, False when the ingest stopped before.
    :ivar unfinished: the outcomes that are not ``Active``, in the order in which they became known. Of those that
        ``outcomes()`` has returned the first 1,000 are kept, of the others all.
    :ivar dropped: sources that had been read ahead from the iterable when the caller left the stream early: they have
        no outcome, and are not among ``taken``.
    :ivar omitted: how many that ``outcomes()`` has returned are not in ``unfinished``.
    :ivar elapsed: seconds from the beginning to the end (or to now, while it runs).
    :ivar outages: how many times the service could not be reached, or became ill, meanwhile.
    """

    taken: int = 0
    active: int = 0
    failed: int = 0
    pending: int = 0
    in_doubt: int = 0
    unsent: int = 0
    exhausted: bool = False
    unfinished: tuple[Outcome, ...] = attrs.field(default=(), repr=lambda it: f"<{len(it)} outcomes>")
    dropped: int = 0
    omitted: int = 0
    elapsed: float = 0.0
    outages: int = 0


@attrs.frozen(kw_only=True)
class SessionStats:
    """The figures of a session at one moment.

    :ivar requests: HTTP round trips since it was opened.
    :ivar retries: how many of them repeated an earlier one.
    :ivar throttled: how many were answered with 429 (or 503 ``rate_limit_unavailable``).
    :ivar submitting: submissions in flight.
    :ivar querying: status requests in flight.
    :ivar waiting: callers waiting for the rate limit.
    :ivar pending: assets and videos that are being polled.
    :ivar submit_limit: submissions a second that the session keeps to, or None when unlimited.
    :ivar submit_why: why it is that rate, in a few words; so is ``query_why`` for ``query_limit``.
    :ivar down_for: seconds since the service cannot be reached or is ill, or None while it answers.
    :ivar outages: how many times that began.
    :ivar ingests: running ingests.
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
    outages: int = 0
    ingests: int = 0
