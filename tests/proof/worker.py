"""Ingests that can be killed: a process that forks one for each line that it is told, and reaps it.

``python -m proof.worker`` reads a task as one line of JSON, forks, writes the child's process id, waits for the
child, and writes what ``waitpid`` said. Forked, an ingest starts in milliseconds; it dies of a SIGKILL like any other.

The child writes two files, each line by one ``write`` of the kernel, so that a kill leaves whole lines or a cut last
one. The *trace* tells what it is about to do: ``> mark`` before an upload's intent is written, ``< mark`` after how it
ended is on disk. What has a ``>`` and no ``<`` at the kill was under way. The *outcomes* are what it was handed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import attrs

from seedance_avatar import AssetSource, AvatarSession, Limits, Polling, Retry, Timeouts
from seedance_avatar.ingest.job import Job
from seedance_avatar.ingest.recorder import JournalRecorder

__all__ = ["Task", "sources"]


@attrs.frozen(kw_only=True)
class Task:
    """One ingest: ``count`` sources into ``group`` at ``url`` with ``journal``."""

    url: str
    group: str
    journal: str
    trace: str
    outcomes: str
    count: int
    submitting: int = 16
    polling: int = 64
    first_look: float = 0.05
    on_in_doubt: str = "hold"

    def line(self) -> bytes:
        """Return the task as :func:`main` reads it."""
        return json.dumps(attrs.asdict(self)).encode() + b"\n"


def sources(count: int) -> Iterator[AssetSource]:
    """Yield ``count`` signed sources: some with a key and signed anew in every process, some of them twice."""
    make = (AssetSource.image, AssetSource.video, AssetSource.audio)
    for number in range(count):
        if number % 50 == 49:
            number -= 20  # noqa: PLW2901 - the same once more
        url = f"https://cdn.example.com/{number}?X-Amz-Signature=CANARYSIGNATURE"
        if number % 2:
            yield make[number % 3](f"{url}-{os.getpid()}", key=f"key-{number}")
        else:
            yield make[number % 3](url)


def _session(task: Task) -> AvatarSession:
    return AvatarSession(
        "sk-sandbox",
        base_url=task.url,
        limits=Limits(
            submits_per_second=1e9,
            submit_burst=1_000_000_000,
            queries_per_second=1e9,
            query_burst=1_000_000_000,
            max_submitting=task.submitting,
            max_polling=task.polling,
        ),
        retry=Retry(base=0.01, throttle_base=0.02, cap=0.2, patience=180.0),
        polling=Polling.fixed(task.first_look, task.first_look),
        timeouts=Timeouts(connect=5.0, request=10.0, drain=5.0),
    )


def _traced(say: Callable[[str], object]) -> None:
    """Let every recorder tell before it writes an intent and after it has written an end."""
    leaving = JournalRecorder.before_send

    async def told(self: JournalRecorder, job: Job) -> None:
        say(f"> {job.fingerprint.hex()}")
        await leaving(self, job)

    def ending(name: str) -> None:
        write: Callable[..., Awaitable[None]] = getattr(JournalRecorder, name)

        async def wrapped(self: JournalRecorder, job: Job, *rest: Any, **named: Any) -> None:
            await write(self, job, *rest, **named)
            say(f"< {job.fingerprint.hex()} {job.item_id or '-'}")

        setattr(JournalRecorder, name, wrapped)

    JournalRecorder.before_send = told  # type: ignore[method-assign]  # in a process that does nothing else
    for name in ("not_applied", "accepted", "not_accepted"):
        ending(name)


async def _ingest(task: Task) -> None:
    trace, told = (os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for name in (task.trace, task.outcomes))
    _traced(lambda line: os.write(trace, f"{line}\n".encode()))
    async with _session(task) as session:
        stream = session.ingest(
            sources(task.count),
            group=task.group,
            journal=task.journal,
            on_in_doubt=task.on_in_doubt,  # type: ignore[arg-type]  # it came as JSON
        )
        async with stream:
            async for outcome in stream.outcomes():
                asset = getattr(outcome, "asset", None)
                error = getattr(outcome, "error", None)
                row = (
                    type(outcome).__name__,
                    outcome.source.source_url,
                    outcome.source.asset_type,
                    outcome.source.key,
                    None if asset is None else asset.asset_id,
                    None if error is None else type(error).__name__,
                )
                os.write(told, json.dumps(row).encode() + b"\n")


def _child(line: str) -> int:
    try:
        asyncio.run(_ingest(Task(**json.loads(line))))
    except BaseException:  # noqa: BLE001 - whatever it is, the process that asked must see it
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Serve tasks until standard input ends."""
    gc.freeze()
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            os._exit(_child(line))
        os.write(1, f"{pid}\n".encode())
        os.write(1, f"{os.waitpid(pid, 0)[1]}\n".encode())


if __name__ == "__main__":
    main()
