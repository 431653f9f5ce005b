"""Remembers in a few bytes what each source of a run came to, so that a repeated one is not uploaded again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from seedance_avatar.errors import AssetFailed
from seedance_avatar.models import ASSET_TYPES
from seedance_avatar.options import Rerun
from seedance_avatar.outcomes import Active, AnyOutcome, InDoubt, Pending, Unsent

from .job import Job
from .recorder import Plan, Recorder, plan_for

if TYPE_CHECKING:
    from seedance_avatar.journal.records import Entry, Record, State

__all__ = ["Memory", "MemoryRecorder"]

_STATES: Final[tuple[State, ...]] = ("active", "accepted", "failed", "refused", "in_doubt")
_BUCKETS: Final = 1 << 14
_MOST: Final = 2_048
"""Bytes in a bucket: 32 MiB in all of them."""
_NAME, _HEAD = 10, 17
"""Bytes of a name in its bucket, and of all that stands before what is remembered: name, content, kind, length."""


@attrs.define(eq=False, repr=False)
class Memory:
    """A table of byte strings by name, at most 32 MiB of them; then those that came first are forgotten.

    For a source that became active it takes some 50 bytes, of which its asset's id is 29: about 600,000 sources fit.
    A dictionary of Python would take five times as much.
    """

    _buckets: list[bytearray | None] = attrs.field(factory=lambda: [None] * _BUCKETS)

    def find(self, name: bytes) -> tuple[bytes, int, bytes] | None:
        """Return content, kind and value of ``name`` (12 bytes), or None."""
        bucket = self._buckets[self._number(name)]
        # A name is as random as a hash: nothing else in the bucket reads like it.
        at = -1 if bucket is None else bucket.find(name[2:])
        if bucket is None or at < 0:
            return None
        return (
            bytes(bucket[at + _NAME : at + _NAME + 4]),
            bucket[at + _NAME + 4],
            bytes(bucket[at + _HEAD : self._end(bucket, at)]),
        )

    def put(self, name: bytes, content: bytes, kind: int, value: bytes) -> None:
        """Keep ``content`` (4 bytes), ``kind`` (below 256) and ``value`` for ``name``, in place of what it had."""
        number, value = self._number(name), value[: _MOST // 4]
        bucket = self._buckets[number]
        if bucket is None:
            bucket = self._buckets[number] = bytearray()
        elif (at := bucket.find(name[2:])) >= 0:
            del bucket[at : self._end(bucket, at)]
        bucket += name[2:] + content + bytes([kind]) + len(value).to_bytes(2, "big") + value
        while len(bucket) > _MOST:
            del bucket[: self._end(bucket, 0)]

    @staticmethod
    def _number(name: bytes) -> int:
        return int.from_bytes(name[:2], "big") % _BUCKETS

    @staticmethod
    def _end(bucket: bytearray, at: int) -> int:
        return at + _HEAD + int.from_bytes(bucket[at + _HEAD - 2 : at + _HEAD], "big")


@attrs.define(eq=False, repr=False)
class MemoryRecorder(Recorder):
    """Stands in for a journal within one run of assets: the same source again is one upload, however much later."""

    _memory: Memory = attrs.field(factory=Memory)

    async def recognise(self, claimed: Sequence[tuple[Job, Entry | None]]) -> list[tuple[Job, Plan, Record | None]]:
        """Return for each job what is to be done with it."""
        return [self._planned(job) for job, _ in claimed]

    def _planned(self, job: Job) -> tuple[Job, Plan, Record | None]:
        found = self._memory.find(_name(job))
        if found is None:
            return job, "send", None
        content, kind, value = found
        item_id, _, error = value.decode("utf-8", "replace").partition("\n")
        from seedance_avatar.journal.records import Record  # noqa: PLC0415 - a run that repeats nothing does without

        record = Record(
            row=0,
            kind=ASSET_TYPES[kind // len(_STATES)],
            state=_STATES[kind % len(_STATES)],
            shown=item_id or "that came earlier in this run",
            group_id=job.target_id,
            remote_id=item_id or None,
            facts=_facts(error),
        )
        plan = plan_for(record, same=content == _content(job), earlier=False, rerun=Rerun())
        if plan == "follow":
            job.item_id = item_id
        return job, plan, record

    def done(self, job: Job, outcome: AnyOutcome) -> None:
        """Remember what the source of ``job`` came to, unless nothing of it was sent."""
        if job.identity is None or (remembered := _remembered(outcome)) is None:
            return
        name, content = _name(job), _content(job)
        found = self._memory.find(name)
        if found is None or found[0] == content:  # else its key stands for another source, and that stays so
            state, item_id, error = remembered
            kind = ASSET_TYPES.index(job.source.asset_type) * len(_STATES) + _STATES.index(state)
            self._memory.put(name, content, kind, f"{item_id}\n{error}".rstrip("\n").encode("utf-8", "replace"))


def _name(job: Job) -> bytes:
    return hashlib.blake2b(repr(job.identity).encode("utf-8", "backslashreplace"), digest_size=12).digest()


def _content(job: Job) -> bytes:
    return (job.content & 0xFFFFFFFF).to_bytes(4, "big")


def _remembered(outcome: AnyOutcome) -> tuple[State, str, str] | None:
    """Return state, id and line of the error to remember of ``outcome``, or None where nothing was sent."""
    if isinstance(outcome, Active):
        return "active", outcome.asset.asset_id, ""
    if isinstance(outcome, Pending):
        return "accepted", outcome.asset.asset_id, ""
    if isinstance(outcome, Unsent):
        return None
    from seedance_avatar.journal.records import error_line  # noqa: PLC0415 - a run in which all goes well does without

    error = outcome.error
    if isinstance(outcome, InDoubt):
        return "in_doubt", "", error_line(error)
    if outcome.asset is None:
        return "refused", "", error_line(error)
    reason = (outcome.asset.reason or "") if isinstance(error, AssetFailed) else str(error)
    return "failed", outcome.asset.asset_id, error_line(reason)


def _facts(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line) if line else None
    except ValueError:  # a long one that was cut
        return None
