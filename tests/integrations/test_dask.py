"""An ingest on a cluster of real worker processes, with the sandbox counting; one of them is killed on the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import dask.config
import pytest
from distributed import Client, LocalCluster, Queue
from rich.pretty import pretty_repr
from rig.rude import until
from rig.world import FAST, KEY, quick, sources

from seedance_avatar import (
    Active,
    AssetSource,
    Failed,
    InDoubt,
    InvalidInput,
    JournalError,
    Limits,
    Outcome,
    Pending,
    SessionStateError,
    Timeouts,
    Unsent,
)
from seedance_avatar.assets.adapter import AssetAdapter
from seedance_avatar.integrations.dask.coordinator import ClusterRun
from seedance_avatar.integrations.dask.ingest import ingest_on_cluster
from seedance_avatar.integrations.dask.worker import Key, Order, close_sessions, work
from seedance_avatar.journal.journal import Journal
from seedance_avatar.options import Rerun
from seedance_avatar.sandbox import Sandbox
from seedance_avatar.sandbox.server import in_thread


@asynccontextmanager
async def cluster(*, workers: int = 2, allowed_failures: int = 0) -> AsyncIterator[Client]:
    told = {
        "distributed.scheduler.allowed-failures": allowed_failures,
        "distributed.admin.system-monitor.gil.enabled": False,
    }
    with dask.config.set(told):
        async with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                asynchronous=True,
                dashboard_address=":0",
                silence_logs=50,
            ) as local,
            Client(local, asynchronous=True) as client,
        ):
            yield client


@asynccontextmanager
async def processes(file: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Client]]:
    """Yield a scheduler, a process of its own as its one worker is, and a client."""
    told = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    started = []
    for words in (
        ["scheduler", "--port", "0", "--no-dashboard", "--scheduler-file"],
        ["worker", "--nthreads", "2", "--no-nanny", "--no-dashboard", "--death-timeout", "5", "--scheduler-file"],
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dask", *words, str(file), env={**os.environ, **told}, stderr=subprocess.DEVNULL
        )
        started.append(process)
        await until(file.exists, 30.0)
    try:
        async with Client(scheduler_file=str(file), asynchronous=True, timeout=2) as client:
            await client.wait_for_workers(1)
            yield started[0], client
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with in_thread(time_scale=0.01, latency=0.01) as sandbox:
        yield sandbox


async def group_in(sandbox: Sandbox) -> str:
    async with quick(sandbox.url) as session:
        return (await session.create_group("brand")).group_id


def options(sandbox: Sandbox, **knobs: Any) -> dict[str, Any]:
    limits = attrs.evolve(Limits.unlimited(), max_polling=1)
    told = {**FAST, "limits": limits, "base_url": sandbox.url, "api_key": KEY}
    return {**told, "shard": 20, "max_submitting_total": 8, **knobs}


async def agree(sandbox: Sandbox, outcomes: list[Outcome], journal: Path, group: str) -> None:
    """The outcomes, the ledger and the journal tell the same, and the cluster kept its limit."""
    judged = [outcome for outcome in outcomes if hasattr(outcome.source, "source_url")]
    assert sandbox.ledger.check(judged, group_id=group) == []
    assert sandbox.ledger.duplicates() == {}
    assert sandbox.ledger.peak <= 8 + 2  # eight uploads, and a look of each worker
    uploads = {upload.asset_id for upload in sandbox.ledger.uploads if upload.group_id == group}
    async with await Journal.open(journal, readonly=True) as opened:
        records = [record async for record in opened.records()]
    named = {record.remote_id for record in records if record.remote_id is not None}
    assert named <= uploads
    doubtful = sum(record.state == "in_doubt" for record in records)
    assert len(uploads - named) <= doubtful
    assert doubtful == sum(isinstance(outcome, InDoubt) for outcome in outcomes)
    assert not any(record.state == "sending" for record in records)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_worker_killed_on_the_way_and_the_rest_of_what_a_cluster_owes(sandbox: Sandbox, tmp_path: Path) -> None:
    async with cluster() as client:
        # One after the other on one cluster: starting it is what takes the time.
        await _all_goes_well(client, sandbox, await group_in(sandbox), tmp_path / "well.db")
        await _left_early(client, sandbox, await group_in(sandbox), tmp_path / "left.db")
        await _key_refused(client, sandbox, await group_in(sandbox))
        await _run_again(client, sandbox, await group_in(sandbox))
        await _worker_killed(client, sandbox, await group_in(sandbox), tmp_path / "killed.db")


async def _all_goes_well(client: Client, sandbox: Sandbox, group: str, journal: Path) -> None:
    given = sources(120)
    sandbox.fail(given[5].source_url, reason="blurred")
    bad: list[Any] = [AssetSource.image("http://localhost/x"), "no source", given[0]]
    outcomes = []
    async with ingest_on_cluster(
        client, iter([*given, *bad]), group=group, journal=journal, **options(sandbox)
    ) as stream:
        async for outcome in stream.outcomes():
            outcomes.append(outcome)
            assert stream.stats().taken >= len(outcomes)
    assert Counter(type(outcome) for outcome in outcomes) == {Active: 120, Failed: 3}
    assert stream.report.exhausted
    assert len(sandbox.ledger) == 120
    await agree(sandbox, outcomes, journal, group)
    # Everything is known: the same again sends nothing.
    async with ingest_on_cluster(client, given, group=group, journal=journal, **options(sandbox)) as stream:
        again = [outcome async for outcome in stream.outcomes()]
    assert Counter(type(outcome) for outcome in again) == {Active: 119, Failed: 1}
    assert [outcome.earlier for outcome in again if isinstance(outcome, Failed)] == [True]
    assert len(sandbox.ledger) == 120
    async with Sandbox() as other:
        with pytest.raises(JournalError, match="Nothing was sent"):
            async with ingest_on_cluster(
                client, given, group=group, journal=journal, **options(sandbox, base_url=other.url)
            ):
                pass
        assert other.ledger.count(method="POST") == 0


async def _left_early(client: Client, sandbox: Sandbox, group: str, journal: Path) -> None:
    before, outcomes = len(sandbox.ledger), 0
    async with ingest_on_cluster(
        client, iter(sources(300, 1000)), group=group, journal=journal, **options(sandbox)
    ) as stream:
        async for _ in stream.outcomes():
            outcomes += 1
            if outcomes == 10:
                break
    report = stream.report
    assert report.taken == report.active + report.failed + report.pending + report.in_doubt + report.unsent
    assert report.taken < 300
    assert report.in_doubt == 0
    assert len(sandbox.ledger) - before == report.active + report.pending


async def _key_refused(client: Client, sandbox: Sandbox, group: str) -> None:
    refused = options(sandbox, api_key="sk-canary")
    async with ingest_on_cluster(client, iter(sources(300, 2000)), group=group, **refused) as stream:
        outcomes = [outcome async for outcome in stream.outcomes()]
    assert outcomes
    assert all(isinstance(outcome, Unsent) for outcome in outcomes)
    assert len(outcomes) < 300


async def _run_again(client: Client, sandbox: Sandbox, group: str) -> None:
    """A cluster that runs a shard a second time (it does when a worker is retired) uploads nothing a second time."""
    told = {name: value for name, value in options(sandbox).items() if name not in {"api_key", "shard"}}
    leases = told.pop("max_submitting_total")
    items: list[tuple[AssetSource, str | None]] = [(source, None) for source in sources(5, 2500)]
    facts: dict[str, Any] = {"key": Key(KEY), "group_id": group, "items": items, "options": told, "leases": leases}
    order = Order(run="twice", number=1, asset_timeout=60.0, **facts)
    before, home = len(sandbox.ledger), Queue("twice-home", client=client)
    for _ in range(2):
        await client.submit(work, order, pure=False)
    assert len(sandbox.ledger) - before == 5
    heard = [fact for _ in range(await home.qsize()) for fact in (await home.get())[1]]
    assert [fact[0] for fact in heard].count("outcome") == 5
    assert heard[-1][0] == "lost"
    await client.run(close_sessions, "twice")


async def _worker_killed(client: Client, sandbox: Sandbox, group: str, journal: Path) -> None:
    pids = await client.run(os.getpid)
    outcomes: list[Outcome] = []
    async with ingest_on_cluster(
        client, iter(sources(400, 3000)), group=group, journal=journal, **options(sandbox)
    ) as stream:
        async for outcome in stream.outcomes():
            outcomes.append(outcome)
            if len(outcomes) == 60:
                os.kill(next(iter(pids.values())), signal.SIGKILL)
    assert stream.report.taken == len(outcomes) == 400
    ends = Counter(type(outcome) for outcome in outcomes)
    assert ends[Active] + ends[InDoubt] == 400
    assert ends[InDoubt] <= 2 * 20  # the shard that was under way on it, and one that waited there
    await agree(sandbox, outcomes, journal, group)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_scheduler_that_dies_ends_the_stream_with_an_outcome_for_each(sandbox: Sandbox, tmp_path: Path) -> None:
    async with processes(tmp_path / "scheduler.json") as (scheduler, client):
        outcomes: list[Outcome] = []
        group, journal = await group_in(sandbox), tmp_path / "run.db"
        told = options(sandbox, timeouts=Timeouts(connect=2.0, request=2.0, drain=1.0))
        stream = ingest_on_cluster(client, iter(sources(2_000)), group=group, journal=journal, **told)
        with pytest.raises(SessionStateError, match=r"scheduler is gone.*run the same again"):
            async with stream:
                async for outcome in stream.outcomes():
                    outcomes.append(outcome)
                    if len(outcomes) == 30:
                        scheduler.kill()
        assert stream.report.taken == len(outcomes) < 2_000
        assert all(isinstance(outcome, Active | Pending | InDoubt | Unsent) for outcome in outcomes)
        with pytest.raises(SessionStateError, match="scheduler is gone"):
            async with ingest_on_cluster(client, sources(3), group=group, journal=journal, **told):
                pass


@pytest.mark.asyncio
async def test_a_cluster_that_would_repeat_what_is_lost_is_refused(sandbox: Sandbox) -> None:
    async with cluster(workers=0, allowed_failures=3) as client:
        with pytest.raises(InvalidInput, match="allowed-failures"):
            async with ingest_on_cluster(client, [], group="pg_1", **options(sandbox)):
                pass
        wrong: list[dict[str, Any]] = [{"shard": 0}, {"max_submitting_total": 0}, {"on_in_doubt": "x"}]
        for knob in wrong:
            with pytest.raises(InvalidInput):
                ingest_on_cluster(client, [], group="pg_1", **knob)


@pytest.mark.asyncio
async def test_what_is_stopped_while_its_intents_are_committed_is_in_no_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await Journal.open(tmp_path / "run.db")
    given = sources(3)
    sending, committed = Journal.sending, asyncio.Event()

    async def last_one_late(self: Journal, fingerprint: bytes, *, resend: bool = False) -> None:
        if fingerprint == run.adapter.entry(journal, given[2], "pg_1").fingerprint:
            await committed.wait()
        await sending(self, fingerprint, resend=resend)

    monkeypatch.setattr(Journal, "sending", last_one_late)
    unused: Any = None
    run = ClusterRun(
        client=unused,
        reader=unused,
        adapter=AssetAdapter("pg_1"),
        order=unused,
        name="",
        shard=3,
        clock=asyncio.get_running_loop().time,
        worker_drain=1.0,
        leases=1,
        journal=journal,
        rerun=Rerun(),
        release=journal.aclose,
    )
    admitting = asyncio.create_task(run._admit(given))
    while (await journal.summary()).count("sending") < 2:
        pass
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    assert run.accounts.settled == 3
    await run._close_journal()
    async with await Journal.open(tmp_path / "run.db") as journal:
        summary = await journal.summary()
    assert summary.count("planned") == summary.count() == 3


def test_a_key_on_its_way_shows_nothing() -> None:
    key = Key("sk-canary")
    assert "canary" not in repr(key) + pretty_repr({"key": key})
    assert pickle.loads(pickle.dumps(key)).reveal() == "sk-canary"  # noqa: S301 - it was written a moment ago
