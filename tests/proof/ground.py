"""What a proof stands on: a sandbox here, ingests in processes of their own, and the comparison of all accounts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from seedance_avatar import (
    Active,
    Asset,
    AssetFailed,
    AssetSource,
    AvatarError,
    AvatarSession,
    Failed,
    InDoubt,
    Pending,
    Unsent,
)
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Record
from seedance_avatar.sandbox import Sandbox, Upload
from seedance_avatar.text import redact_url

from .worker import Task, sources

__all__ = ["Forge", "accounts_agree", "forge", "group_in", "kill", "records_of", "told", "under_way"]

TESTS = Path(__file__).resolve().parents[1]


@attrs.define(eq=False)
class Forge:
    """The process that forks ingests; see :mod:`proof.worker`. One ingest at a time."""

    process: asyncio.subprocess.Process

    async def start(self, task: Task) -> int:
        """Begin ``task``; return its process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(task.line())
        await self.process.stdin.drain()
        return int(await self._line())

    async def ended(self) -> int:
        """Wait for its end; return the exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(int(await self._line()))

    async def _line(self) -> bytes:
        assert self.process.stdout is not None
        return await self.process.stdout.readline()

    async def run(self, task: Task) -> None:
        """Run ``task`` to its end."""
        await self.start(task)
        code = await self.ended()
        assert code == 0, f"the ingest ended with {code}"


@asynccontextmanager
async def forge() -> AsyncIterator[Forge]:
    """Yield a :class:`Forge`, gone at the end."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proof.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        yield Forge(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def group_in(sandbox: Sandbox) -> str:
    """Make a group and return its id."""
    async with AvatarSession("sk-sandbox", base_url=sandbox.url) as session:
        return (await session.create_group("proof")).group_id


def kill(pid: int) -> None:
    """Send SIGKILL; a process that has just ended is none to kill."""
    os.kill(pid, signal.SIGKILL)


def under_way(trace: Path) -> set[str]:
    """Return the marks of what a process was sending when it died."""
    open_marks: set[str] = set()
    for line in trace.read_text(encoding="ascii").splitlines(keepends=True):
        word, _, rest = line.partition(" ")
        if not line.endswith("\n"):
            continue  # cut by the kill: a cut ">" had not begun to write, a cut "<" leaves its mark open
        mark = rest.split()[0]
        if word == ">":
            open_marks.add(mark)
        else:
            open_marks.discard(mark)
    return open_marks


def told(path: Path) -> list[Any]:
    """Return the outcomes that an ingest wrote down, as outcomes again."""
    found: list[Any] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, url, asset_type, key, asset_id, error_type = json.loads(line)
        source = AssetSource(url, asset_type, key=key)
        asset = None if asset_id is None else Asset(asset_id=asset_id, status="", source=source)
        error = AssetFailed(asset) if error_type == "AssetFailed" and asset else AvatarError(error_type or "")
        if kind == "Active":
            assert asset is not None
            found.append(Active(source=source, asset=asset))
        elif kind == "Pending":
            assert asset is not None
            found.append(Pending(source=source, asset=asset, error=error))
        elif kind == "Failed":
            found.append(Failed(source=source, asset=asset, error=error))
        elif kind == "InDoubt":
            found.append(InDoubt(source=source, error=error))
        else:
            found.append(Unsent(source=source, error=error))
    return found


def _place(url: str) -> str:
    """Return what of a URL stays the same when it is signed anew."""
    return url.partition("?")[0]


async def records_of(journal: Path) -> dict[bytes, Record]:
    """Return the journal's records of assets by what they were made from."""
    found: dict[bytes, Record] = {}
    async with await Journal.open(journal, readonly=True) as reader:
        async for record in reader.records(kinds=("image", "video", "audio")):
            found[_place(record.shown).encode()] = record
    return found


async def accounts_agree(sandbox: Sandbox, outcomes: list[Any], journal: Path, count: int) -> list[str]:
    """Compare what ``count`` sources came to, what the journal keeps and what truly arrived; return what is wrong.

    ``outcomes`` are those of the last run, which went to the end. URLs that are signed anew are compared without
    their query.
    """
    wrong: list[str] = []
    expected = [_place(source.source_url) for source in sources(count)]
    if sorted(expected) != sorted(_place(outcome.source.source_url) for outcome in outcomes):
        wrong.append(f"{count} sources, {len(outcomes)} outcomes, or not of the same")
    uploads: dict[str, list[Upload]] = {}
    for upload in sandbox.ledger.uploads:
        uploads.setdefault(_place(upload.source_url), []).append(upload)
    wrong += [f"{place}: uploaded {len(found)} times" for place, found in uploads.items() if len(found) > 1]
    records = await records_of(journal)
    if set(records) != {place.encode() for place in expected}:
        wrong.append(f"the journal knows {len(records)} of {len(set(expected))} sources")
    for outcome in outcomes:
        place = _place(outcome.source.source_url)
        record = records.get(place.encode())
        if record is not None:
            wrong += _about(redact_url(place), outcome, record, uploads.get(place, []))
    return wrong


_STATES = {
    "Active": {"active"},
    "Failed": {"failed", "refused"},
    "Pending": {"accepted"},
    "InDoubt": {"in_doubt"},
    "Unsent": {"planned"},
}


def _about(label: str, outcome: Any, record: Record, uploads: list[Upload]) -> list[str]:
    wrong: list[str] = []
    kind = type(outcome).__name__
    asset = getattr(outcome, "asset", None)
    asset_id = None if asset is None else asset.asset_id
    if record.state not in _STATES[kind]:
        wrong.append(f"{label}: told as {kind}, the journal says {record.state}")
    if record.remote_id != asset_id:
        wrong.append(f"{label}: told as {asset_id}, the journal says {record.remote_id}")
    if asset_id is not None:
        if [upload.asset_id for upload in uploads] != [asset_id]:
            wrong.append(f"{label}: told as {asset_id}, the ledger says {[upload.asset_id for upload in uploads]}")
        elif kind in {"Active", "Failed"} and uploads[0].fate != kind.lower():
            wrong.append(f"{label}: told as {kind}, the ledger says {uploads[0].fate}")
    elif uploads and kind != "InDoubt":
        wrong.append(f"{label}: told as {kind}, the ledger has {uploads[0].asset_id}")
    return wrong
