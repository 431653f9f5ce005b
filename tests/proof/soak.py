"""Many sources under faults of all kinds: killed again and again, and once through without a kill."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import attrs

from seedance_avatar import AssetSource, AvatarSession, Limits, Polling, Retry
from seedance_avatar.sandbox import Faults, Sandbox
from seedance_avatar.sandbox.faults import Fault, FaultKind, RetryAfter

from .ground import accounts_agree, forge, group_in, kill, told
from .worker import Task

__all__ = ["Soak", "prove_faults", "prove_soak"]

SUBMITTING = 32
KINDS = [rule.kind for rule in Faults.everything(1.0)]


@attrs.define
class Soak:
    """What was found: the ``ends`` of all sources, how often each fault struck, every disagreement in words."""

    sources: int
    kills: int = 0
    requests: int = 0
    seconds: float = 0.0
    outages: list[str] = attrs.field(factory=list)
    ends: Counter[str] = attrs.field(factory=Counter)
    struck: dict[str, int] = attrs.field(factory=dict)
    wrong: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        ends = ", ".join(f"{number} {kind}" for kind, number in sorted(self.ends.items()))
        struck = ", ".join(f"{kind} {number}" for kind, number in self.struck.items())
        head = (
            f"{self.sources} sources, {self.kills} kills, {self.requests} requests, {self.seconds:.0f} s: {ends}; "
            f"faults: {struck}; {len(self.wrong)} disagreements"
        )
        return "\n".join([head, *self.outages, *self.wrong[:20]])


def _sum_up(found: Soak, sandbox: Sandbox, outcomes: list[Any], began: float) -> None:
    found.seconds = time.monotonic() - began
    found.requests = sandbox.ledger.counts.total()
    found.ends = Counter(type(outcome).__name__ for outcome in outcomes)
    struck: Counter[str] = Counter()
    for rule in sandbox.faults:
        struck[rule.kind] += rule.hits
    found.struck = dict(struck)


@attrs.define
class _Outage:
    """A time in which no request is answered well; ``posts`` counts the uploads that met it."""

    posts: Fault
    looks: Fault

    @classmethod
    def of(cls, sandbox: Sandbox, kind: FaultKind) -> _Outage:
        """Prepare one; it stands before all other faults, and does nothing yet."""
        post, get = (sandbox.faults.add(kind, probability=0.0, method=method) for method in ("POST", "GET"))
        return cls(post, get)

    async def last(self, sandbox: Sandbox, found: Soak, *, after: int, seconds: float) -> None:
        """Once ``after`` assets exist, fail every request for ``seconds``; note what was risked meanwhile."""
        while len(sandbox.ledger) < after:  # noqa: ASYNC110 - the ledger says nothing when it grows
            await asyncio.sleep(0.02)
        kills = found.kills
        self.posts.probability = self.looks.probability = 1.0
        await asyncio.sleep(seconds)
        self.posts.probability = self.looks.probability = 0.0
        kills = found.kills - kills
        found.outages.append(
            f"{seconds:.1f} s of {self.posts.kind}, {kills} kills in it: "
            f"{self.posts.hits} uploads and {self.looks.hits} looks met it"
        )
        # Three in a row, and what was on the wire; a process that begins in the outage finds out for itself.
        bound = (3 + SUBMITTING) * (1 + kills)
        if self.posts.hits > bound:
            found.wrong.append(f"{self.posts.hits} uploads left in an outage, at most {bound}")


async def prove_soak(
    sources: int,
    *,
    share: float = 0.05,
    every: float = 20.0,
    seed: int = 1,
    outage: tuple[float, float] = (5.0, 60.0),
) -> Soak:
    """Ingest ``sources`` while ``share`` of all requests go wrong, killed ``every`` so many seconds, to the end.

    :param outage: the least and most seconds of each of three outages, in which every request goes wrong.
    """
    found = Soak(sources)
    draw = random.Random(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        async with forge() as workers, Sandbox(time_scale=0.05, fail_rate=0.02, seed=seed) as sandbox:
            group_id = await group_in(sandbox)
            outages = [_Outage.of(sandbox, kind) for kind in ("server_error", "lost_answer", "not_json")]
            usual = [
                sandbox.faults.add(kind, probability=share / len(KINDS), retry_after="none", delay=0.3)
                for kind in KINDS
            ]
            lasting = [
                asyncio.create_task(
                    coming.last(sandbox, found, after=sources * (at + 1) // 5, seconds=draw.uniform(*outage))
                )
                for at, coming in enumerate(outages)
            ]
            while True:
                last = home / f"outcomes-{found.kills}"
                task = Task(
                    url=sandbox.url,
                    group=group_id,
                    journal=str(home / "run.db"),
                    trace=str(home / "trace"),
                    outcomes=str(last),
                    count=sources,
                    submitting=SUBMITTING,
                    first_look=0.7,
                )
                pid = await workers.start(task)
                ending = asyncio.create_task(workers.ended())
                # A little earlier or later each time, so that kills fall into all parts of a run.
                await asyncio.wait({ending}, timeout=every * draw.uniform(0.8, 1.2))
                if not ending.done():
                    kill(pid)
                    found.kills += 1
                if code := await ending:
                    last.unlink(missing_ok=True)
                    if code > 0:
                        found.wrong.append(f"an ingest ended with {code}")
                        break
                else:
                    break
            if not all(each.done() for each in lasting):
                found.wrong.append("the ingest ended before its outages did")
            for each in lasting:
                each.cancel()
            await asyncio.gather(*lasting, return_exceptions=True)
            outcomes = told(last)
            _sum_up(found, sandbox, outcomes, began)
            found.wrong += await accounts_agree(sandbox, outcomes, home / "run.db", sources)
            doubtful = {
                "lost_answer",
                "dropped",
                "reset",
                "truncated",
                "server_error",
                "unavailable",
                "empty",
                "not_json",
            }
            lost = sum(rule.hits for rule in usual if rule.kind in doubtful) + sum(over.posts.hits for over in outages)
            # Each doubt has its cause: a fault that struck, or a kill while it was under way.
            if found.ends["InDoubt"] > lost + SUBMITTING * found.kills + sources // 50:
                found.wrong.append(f"{found.ends['InDoubt']} in doubt of {lost} faults and {found.kills} kills")
    return found


async def prove_faults(
    sources: int, *, each: float = 0.02, retry_after: RetryAfter = "none", seed: int = 1, **knobs: Any
) -> Soak:
    """Ingest ``sources`` in one go while every kind of fault strikes with probability ``each``."""
    found = Soak(sources)
    began = time.monotonic()
    async with Sandbox(time_scale=0.01, fail_rate=0.02, seed=seed) as sandbox:
        group_id = await group_in(sandbox)
        for kind in KINDS:
            sandbox.faults.add(kind, probability=each, retry_after=retry_after, delay=0.1)
        session = AvatarSession(
            "sk-sandbox",
            base_url=sandbox.url,
            limits=Limits.unlimited(),
            polling=Polling.fixed(0.15, 0.1),
            retry=Retry(base=0.005, throttle_base=0.01, cap=0.1),
            **knobs,
        )
        async with session:
            items = [AssetSource.image(f"https://cdn.example.com/{n}?sig=CANARYSIGNATURE") for n in range(sources)]
            async with session.ingest(iter(items), group=group_id) as stream:
                outcomes = [outcome async for outcome in stream.outcomes()]
        _sum_up(found, sandbox, outcomes, began)
        if {outcome.source for outcome in outcomes} != set(items) or len(outcomes) != sources:
            found.wrong.append(f"{sources} sources, {len(outcomes)} outcomes")
        found.wrong += [f"{url}: uploaded {len(twice)} times" for url, twice in sandbox.ledger.duplicates().items()]
        found.wrong += sandbox.ledger.check(outcomes)
        report = stream.report
        if report.taken != sources or report.in_doubt != found.ends["InDoubt"] or report.active != found.ends["Active"]:
            found.wrong.append(f"the report says otherwise: {report}")
    return found
