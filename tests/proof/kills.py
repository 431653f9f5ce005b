"""``kill -9`` at a random moment of an ingest, then the same ingest to its end; again and again."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path

import attrs

from seedance_avatar.sandbox import Faults, Sandbox

from .ground import Forge, accounts_agree, forge, group_in, kill, records_of, told, under_way
from .worker import Task

__all__ = ["Kills", "prove_kills"]


@attrs.define
class Kills:
    """What was found.

    :ivar kills: how many ingests were killed in the middle; ``late`` how many had ended before the kill came.
    :ivar sources: sources of all of them; ``accepted`` ids that were on disk at a kill, all recovered.
    :ivar in_doubt: what was in doubt after a kill; ``under_way`` what was being sent at it.
    :ivar existing: how many of those in doubt the service has.
    :ivar wrong: every disagreement, in words.
    """

    kills: int = 0
    late: int = 0
    sources: int = 0
    accepted: int = 0
    under_way: int = 0
    in_doubt: int = 0
    existing: int = 0
    most_in_doubt: int = 0
    seconds: float = 0.0
    wrong: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        head = (
            f"{self.kills} kills (and {self.late} after the end) of ingests of {self.sources} sources in all, "
            f"{self.seconds:.0f} s: {self.accepted} accepted ids on disk at the kills, all recovered; "
            f"{self.in_doubt} in doubt (at most {self.most_in_doubt} at one kill) of {self.under_way} under way, "
            f"{self.existing} of them exist; {len(self.wrong)} disagreements"
        )
        return "\n".join([head, *self.wrong[:20]])


async def prove_kills(count: int, *, sources: int = 300, seed: int = 1) -> Kills:
    """Kill ``count`` ingests of ``sources`` sources each, resume each to its end, compare all accounts."""
    found = Kills()
    draw = random.Random(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        async with forge() as workers:
            number = 0
            while found.kills < count:
                number += 1
                home = Path(directory, str(number))
                home.mkdir()
                await _one(workers, home, sources, draw, found)
    found.seconds = time.monotonic() - began
    return found


def _spoil(faults: Faults) -> None:
    """Add what passes by itself, so that at the end only kills have left something in doubt."""
    faults.add("rate_limited", probability=0.02, retry_after="none")
    faults.add("limiter_down", probability=0.01)
    faults.add("server_error", probability=0.02, method="GET")
    faults.add("lost_answer", probability=0.02, method="GET")


async def _one(workers: Forge, home: Path, sources: int, draw: random.Random, found: Kills) -> None:
    latency = draw.choice((0.0, 0.002, 0.02))
    async with Sandbox(time_scale=0.01, latency=latency, fail_rate=0.03, seed=draw.randrange(99)) as sandbox:
        group_id = await group_in(sandbox)
        _spoil(sandbox.faults)
        task = Task(
            url=sandbox.url,
            group=group_id,
            journal=str(home / "run.db"),
            trace=str(home / "trace"),
            outcomes=str(home / "first"),
            count=sources,
            submitting=draw.choice((4, 16, 64)),
        )
        pid = await workers.start(task)
        # Some sources need more looks than others; a little more than all requests makes some kills come too late.
        moment = draw.randrange(1, round(sources * 3.5))
        ending = asyncio.create_task(workers.ended())
        while not ending.done() and sandbox.ledger.counts.total() < moment:  # noqa: ASYNC110 - it is another process that is watched
            await asyncio.sleep(0.001)
        await asyncio.sleep(draw.random() * 0.005)
        if ending.done():
            found.late += 1
        else:
            kill(pid)
            found.kills += 1
        code = await ending
        killed = code < 0
        if not killed and code:
            found.wrong.append(f"the ingest ended with {code}")
        open_marks = under_way(home / "trace") if (home / "trace").exists() else set()
        before = await records_of(home / "run.db") if (home / "run.db").exists() else {}
        doubted = sum(record.state == "sending" for record in before.values())
        ids = {record.remote_id for record in before.values()} - {None}
        await workers.run(attrs.evolve(task, outcomes=str(home / "second"), trace=str(home / "trace2")))
        outcomes = told(home / "second")
        unique = {outcome.source.source_url.partition("?")[0]: outcome for outcome in outcomes}
        in_doubt = [place for place, outcome in unique.items() if type(outcome).__name__ == "InDoubt"]
        existing = {upload.source_url.partition("?")[0] for upload in sandbox.ledger.uploads}
        found.sources += sources
        found.accepted += len(ids)
        found.under_way += len(open_marks)
        found.in_doubt += len(in_doubt)
        found.most_in_doubt = max(found.most_in_doubt, len(in_doubt))
        found.existing += len(existing.intersection(in_doubt))
        if not len(in_doubt) == doubted <= len(open_marks) <= task.submitting:
            found.wrong.append(
                f"in doubt {len(in_doubt)}, sending in the journal {doubted}, under way {len(open_marks)}, "
                f"at most {task.submitting} at a time"
            )
        known = {outcome.asset.asset_id for outcome in outcomes if getattr(outcome, "asset", None) is not None}
        found.wrong += [f"{lost} was on disk at the kill and is lost" for lost in ids - known]
        found.wrong += await accounts_agree(sandbox, outcomes, home / "run.db", sources)
