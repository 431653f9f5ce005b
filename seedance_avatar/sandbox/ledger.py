"""Everything that reached the sandbox, to compare with what a client reports."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias

import attrs

from seedance_avatar.errors import AssetFailed
from seedance_avatar.models import ASSET_TYPES
from seedance_avatar.text import redact_url, safe_text

from .clock import Clock
from .dialect import Ids
from .fates import Fate
from .records import Delivery, Download, FileUpload, Generation, Group, Upload

Lane: TypeAlias = Literal["submit", "query"]


@attrs.define(eq=False)
class AssetTable:
    """All assets, stored by column, some 40 bytes for each beside its URL; a row's number is the asset's.

    A million assets as objects would take half a gigabyte. No task runs for an asset either: its status is computed
    from the time at which it is queried.
    """

    ids: Ids
    clock: Clock
    urls: list[str] | None  # None when they are not kept
    accepted: array[float] = attrs.field(init=False, factory=lambda: array("d"))
    ready: array[float] = attrs.field(init=False, factory=lambda: array("d"))
    fate: array[int] = attrs.field(init=False, factory=lambda: array("H"))  # an index into fates
    type: bytearray = attrs.field(init=False, factory=bytearray)  # an index into ASSET_TYPES
    group: array[int] = attrs.field(init=False, factory=lambda: array("L"))
    account: bytearray = attrs.field(init=False, factory=bytearray)
    answered: bytearray = attrs.field(init=False, factory=bytearray)  # 1 once the whole answer to its POST was written
    looks: array[int] = attrs.field(init=False, factory=lambda: array("L"))
    words: dict[int, tuple[str | None, str | None]] = attrs.field(init=False, factory=dict)
    fates: list[Fate] = attrs.field(init=False, factory=list)
    _fate_numbers: dict[Fate, int] = attrs.field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self.accepted)

    def add(  # noqa: PLR0913 - one argument for each column
        self, *, source_url: str, asset_type: str, group: int, account: int, now: float, fate: Fate, ready: float
    ) -> int:
        """Add an asset and return its number."""
        number = len(self.accepted)
        fate_number = self._fate_numbers.setdefault(fate, len(self.fates))
        if fate_number == len(self.fates):
            self.fates.append(fate)
        self.accepted.append(now)
        self.ready.append(ready)
        self.fate.append(fate_number)
        self.type.append(ASSET_TYPES.index(asset_type))
        self.group.append(group)
        self.account.append(account)
        self.answered.append(0)
        self.looks.append(0)
        if self.urls is not None:
            self.urls.append(source_url)
        return number

    def id_of(self, number: int) -> str:
        """Return the id of asset ``number``."""
        return self.ids.mint(number, self.clock.wall_at(self.accepted[number]))

    def find(self, asset_id: str) -> int | None:
        """Return the number of the asset with this id, or None."""
        number = self.ids.number_of(asset_id)
        if number is None or number >= len(self.accepted) or self.id_of(number) != asset_id:
            return None
        return number

    def status(self, number: int, now: float) -> str:
        """Return the status of asset ``number`` at ``now``: ``processing``, ``active`` or ``failed``."""
        return self.fates[self.fate[number]].status if now >= self.ready[number] else "processing"


@attrs.define(eq=False)
class Ledger:
    """Everything that reached the sandbox. Its entries are built when they are read.

    :ivar counts: how often each (method, kind of path, status) was answered; the status is 0 where the
        connection ended without an answer. Kinds: ``groups``, ``assets``, ``asset``, ``generations``,
        ``generation``, ``uploads``, ``files``, ``other``.
    :ivar groups: the groups by their ids.
    :ivar files: the local files that were uploaded.
    :ivar downloads: the requests to the files host.
    :ivar deliveries: the attempts to deliver webhooks.
    :ivar tasks: for each generation a function that returns its entry.
    :ivar in_flight: requests being answered now; ``peak`` is the highest number so far.
    """

    table: AssetTable
    _accounts: list[str]
    counts: Counter[tuple[str, str, int]] = attrs.field(init=False, factory=Counter)
    groups: dict[str, Group] = attrs.field(init=False, factory=dict)
    files: list[FileUpload] = attrs.field(init=False, factory=list)
    downloads: list[Download] = attrs.field(init=False, factory=list)
    deliveries: list[Delivery] = attrs.field(init=False, factory=list)
    tasks: list[Callable[[], Generation]] = attrs.field(init=False, factory=list)
    in_flight: int = attrs.field(init=False, default=0)
    peak: int = attrs.field(init=False, default=0)
    _group_ids: list[str] = attrs.field(init=False, factory=list)
    _times: dict[tuple[str, Lane, bool], array[float]] = attrs.field(
        init=False, factory=lambda: defaultdict(lambda: array("d"))
    )
    _by_url: dict[str, list[int]] = attrs.field(init=False, factory=dict)
    _indexed: int = attrs.field(init=False, default=0)

    def add_group(self, group: Group) -> None:
        """Add a group that was created."""
        self.groups[group.group_id] = group
        self._group_ids.append(group.group_id)

    def group_id(self, number: int) -> str:
        """Return the id of group ``number``, from 0."""
        return self._group_ids[number]

    def note(self, account: str, lane: Lane, now: float, *, refused: bool) -> None:
        """Record a request of a lane, and whether its rate limit refused it."""
        if self.table.urls is not None:
            self._times[account, lane, refused].append(now)

    def __len__(self) -> int:
        """Return the number of assets that were created."""
        return len(self.table)

    @property
    def uploads(self) -> Iterator[Upload]:
        """The assets that were created, in order."""
        return map(self.upload, range(len(self.table)))

    def upload(self, number: int) -> Upload:
        """Return the asset ``number``, from 0."""
        table = self.table
        fate = table.fates[table.fate[number]]
        name, description = table.words.get(number, (None, None))
        return Upload(
            asset_id=table.id_of(number),
            source_url="" if table.urls is None else table.urls[number],
            group_id=self._group_ids[table.group[number]],
            asset_type=ASSET_TYPES[table.type[number]],
            name=name,
            description=description,
            account=self._accounts[table.account[number]],
            at=table.accepted[number],
            ready_at=table.ready[number],
            fate=fate.status,
            reason=fate.reason,
            status=table.status(number, table.clock.now()),
            answered=bool(table.answered[number]),
            looks=table.looks[number],
        )

    def asset(self, asset_id: str) -> Upload | None:
        """Return the upload that created ``asset_id``, or None."""
        number = self.table.find(asset_id)
        return None if number is None else self.upload(number)

    @property
    def generations(self) -> list[Generation]:
        """The generations that were created, in order."""
        return [entry() for entry in self.tasks]

    @property
    def leaks(self) -> list[Download]:
        """The downloads with an ``Authorization`` header, which no download may have."""
        return [download for download in self.downloads if download.authorized]

    def _index(self) -> dict[str, list[int]]:
        urls = self.table.urls
        if urls is None:
            message = 'this ledger keeps counters only: build the sandbox with ledger="all"'
            raise LookupError(message)
        for number in range(self._indexed, len(urls)):
            self._by_url.setdefault(urls[number], []).append(number)
        self._indexed = len(urls)
        return self._by_url

    def uploads_of(self, source_url: str) -> list[Upload]:
        """Return the uploads of ``source_url``, compared byte for byte.

        :raises LookupError: the sandbox keeps counters only.
        """
        return [self.upload(number) for number in self._index().get(source_url, ())]

    def duplicates(self) -> dict[str, list[Upload]]:
        """Return the source URLs that were uploaded more than once into one group as one type, with their uploads.

        :raises LookupError: the sandbox keeps counters only.
        """
        table, twice = self.table, {}
        for url, numbers in self._index().items():
            if len(numbers) > 1 and len({(table.group[n], table.type[n]) for n in numbers}) < len(numbers):
                twice[url] = [self.upload(number) for number in numbers]
        return twice

    def check(self, outcomes: Iterable[Any], *, group_id: str | None = None) -> list[str]:
        """Compare the outcomes of an ingest, source by source, with what arrived.

        :param outcomes: ``Active``, ``Failed``, ``Pending``, ``InDoubt`` and ``Unsent``, as the ingest gave them.
        :param group_id: compare this group's uploads only; needed when sources went into several groups.
        :return: the differences, one line each; an empty list when there are none.
        :raises LookupError: the sandbox keeps counters only.
        """
        self._index()
        kept = (upload for upload in self.uploads if group_id in {None, upload.group_id})
        return _disagreements(kept, outcomes)

    def count(self, *, method: str | None = None, kind: str | None = None, status: int | None = None) -> int:
        """Return the number of answered requests with this method, kind of path and status; None matches all."""
        return sum(
            n
            for (m, k, s), n in self.counts.items()
            if (method is None or m == method) and (kind is None or k == kind) and (status is None or s == status)
        )

    @property
    def throttled(self) -> int:
        """The number of requests that were answered with 429."""
        return self.count(status=429)

    def times(self, lane: Lane = "submit", *, account: str | None = None, refused: bool = False) -> list[float]:
        """Return when the requests of a lane arrived, seconds on the sandbox's clock, in order.

        :param account: name of an account, or None for all.
        :param refused: requests that a rate limit refused, instead of those that passed.
        """
        found: list[float] = []
        for (name, of_lane, was_refused), times in self._times.items():
            if of_lane == lane and was_refused == refused and account in {None, name}:
                found.extend(times)
        found.sort()
        return found

    def most_in(self, seconds: float, lane: Lane = "submit", *, account: str | None = None) -> int:
        """Return the most requests of a lane that passed in any ``seconds`` seconds."""
        times = self.times(lane, account=account)
        return max((index + 1 - bisect_right(times, moment - seconds) for index, moment in enumerate(times)), default=0)

    def summary(self) -> dict[str, Any]:
        """Return the totals as plain values for JSON."""
        table, now = self.table, self.table.clock.now()
        states = Counter(table.status(number, now) for number in range(len(table)))
        return {
            "groups": len(self.groups),
            "uploads": len(table),
            **{status: states[status] for status in ("processing", "active", "failed")},
            "unanswered": len(table) - sum(table.answered),
            "duplicates": None if table.urls is None else len(self.duplicates()),
            "looks": sum(table.looks),
            "files": len(self.files),
            "generations": len(self.generations),
            "downloads": len(self.downloads),
            "leaks": len(self.leaks),
            "throttled": self.throttled,
            "peak": self.peak,
            "requests": {
                f"{method} {kind} {status or 'no answer'}": n
                for (method, kind, status), n in sorted(self.counts.items())
            },
        }


def _disagreements(uploads: Iterable[Upload], outcomes: Iterable[Any]) -> list[str]:
    """Return the differences between ``outcomes`` and ``uploads``, one line each.

    An outcome with an asset accounts for exactly one upload, with that id and that URL; several outcomes of one asset
    are the same source given several times. An outcome in doubt accounts for one upload or none, any other for none.
    An upload without an outcome is a difference too. URLs are compared byte for byte.
    """
    by_id = {upload.asset_id: upload for upload in uploads}
    unclaimed: defaultdict[str, set[str]] = defaultdict(set)
    for upload in by_id.values():
        unclaimed[upload.source_url].add(upload.asset_id)
    found: list[str] = []
    reported: defaultdict[str, set[str]] = defaultdict(set)
    doubtful: defaultdict[str, set[str]] = defaultdict(set)
    for outcome in outcomes:
        source, kind, asset = outcome.source, type(outcome).__name__, getattr(outcome, "asset", None)
        reported[source.source_url].add(kind)
        if kind == "InDoubt":
            # The same source given twice is one upload, and in doubt once.
            doubtful[source.source_url].add(source.asset_type if source.key is None else source.key)
        elif asset is not None:
            found += _about_asset(outcome, kind, by_id.get(asset.asset_id))
            unclaimed[source.source_url].discard(asset.asset_id)
        elif kind in {"Active", "Pending"}:
            found.append(f"{redact_url(source.source_url)}: {kind} without an asset")
        elif kind not in {"Failed", "Unsent"}:
            found.append(f"{redact_url(source.source_url)}: {safe_text(kind, 40)} is no outcome")

    for url, left in unclaimed.items():
        if len(left) > len(doubtful.get(url, ())):
            ids, kinds = ", ".join(sorted(left)), " and ".join(sorted(reported[url])) or "no outcome at all"
            lost = f"{len(left)} applied that no outcome has the id of ({ids})"
            found.append(f"{redact_url(url)}: {lost}, reported as {kinds}")
    return found


def _about_asset(outcome: Any, kind: str, upload: Upload | None) -> list[str]:  # noqa: ANN401 - any class of outcome
    label = f"{redact_url(outcome.source.source_url)}: {kind} {safe_text(outcome.asset.asset_id, 64)}"
    if upload is None:
        return [f"{label}, which was never made"]
    if upload.source_url != outcome.source.source_url:
        return [f"{label}, which was made from {redact_url(upload.source_url)}"]
    failed = isinstance(getattr(outcome, "error", None), AssetFailed)
    if (kind == "Active" and upload.status != "active") or (failed and upload.status != "failed"):
        return [f"{label}, which is {upload.status}"]
    return []
