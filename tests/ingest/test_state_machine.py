"""One session under any row of calls, faults and ends: the accounts add up, and nothing that arrived is unknown."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from rig.leaks import open_sockets
from rig.world import FAST, quick

from seedance_avatar import (
    Asset,
    AssetFailed,
    AssetSource,
    AvatarError,
    AvatarSession,
    Ingest,
    Limits,
    Outcome,
    SessionStateError,
    SubmissionInDoubt,
    Timeouts,
    WaitTimeout,
)
from seedance_avatar.events import Accepted, Event, Settled
from seedance_avatar.sandbox import Sandbox

KINDS = ["rate_limited", "server_error", "lost_answer", "dropped", "reset", "truncated", "empty", "refused", "slow"]
KNOBS: dict[str, Any] = {
    **FAST,
    "limits": Limits(submits_per_second=1e9, queries_per_second=1e9, max_submitting=3, max_polling=3),
    "timeouts": Timeouts(connect=5, request=5, drain=5),
}


class Told(logging.Handler):
    """What the library logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage()


class SessionMachine(RuleBasedStateMachine):
    """The model: what was handed in, what came back by return, outcome, event or log; the sandbox is the truth."""

    streams = Bundle("streams")
    assets = Bundle("assets")

    def __init__(self) -> None:
        super().__init__()
        self.sockets = open_sockets()
        self.home = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.told = Told()
        logging.getLogger("seedance_avatar").addHandler(self.told)
        self.made = 0
        self.events: list[Event] = []
        self.known: set[str] = set()
        self.doubted: set[str] = set()
        self.twice: set[str] = set()
        self.outcomes: dict[int, list[Outcome]] = {}
        self.handed_in: dict[int, list[AssetSource]] = {}
        self.open_streams: list[Ingest[AssetSource, Asset]] = []
        self.all_streams: list[Ingest[AssetSource, Asset]] = []
        self.tasks: list[tuple[asyncio.Task[Asset], AssetSource]] = []

    # What the rules stand on

    def run(self, work: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):  # whatever it is, it ends
                return await work

        return self.runner.run(bounded())

    def fresh(self, count: int) -> list[AssetSource]:
        made = range(self.made, self.made + count)
        self.made += count
        return [AssetSource.image(f"https://cdn.example.com/{n}?sig=canary") for n in made]

    async def open_session(self) -> None:
        self.session: AvatarSession = await quick(self.sandbox.url, **KNOBS, observer=self.events.append).open()
        self.draining = False

    @initialize(seed=st.integers(0, 9))
    def open(self, seed: int) -> None:
        async def begin() -> None:
            self.sandbox = await Sandbox(time_scale=0.0005, fail_rate=0.05, seed=seed).start()
            await self.open_session()
            self.group = (await self.session.create_group("brand")).group_id

        self.run(begin())

    # Single calls

    @rule(target=assets)
    def upload(self) -> Asset | None:
        (source,) = self.fresh(1)
        try:
            asset: Asset = self.run(self.session.upload(source, group=self.group))
        except SubmissionInDoubt:
            self.doubted.add(source.source_url)
        except AvatarError as error:
            assert isinstance(error, SessionStateError) == self.draining  # noqa: PT017 - by the model, not by the call
        else:
            self.known.add(asset.asset_id)
            return asset
        return None

    @rule(turns=st.integers(0, 12))
    def begin_upload_and_cancel(self, turns: int) -> None:
        (source,) = self.fresh(1)

        async def cancelled() -> None:
            task = asyncio.ensure_future(self.session.upload(source, group=self.group))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, AvatarError)
                if isinstance(error, SubmissionInDoubt):
                    self.doubted.add(source.source_url)

        self.run(cancelled())

    @rule(asset=assets)
    def wait(self, asset: Asset | None) -> None:
        if asset is None:
            return
        try:
            seen = self.run(self.session.wait_until_active(asset, timeout=0.5))
        except (AssetFailed, WaitTimeout, AvatarError):
            return
        assert seen.is_active
        assert seen.asset_id == asset.asset_id

    # Ingests

    def _begun(self, stream: Ingest[AssetSource, Asset], sources: list[AssetSource]) -> bool:
        try:
            self.run(stream.__aenter__())
        except SessionStateError:
            assert self.draining
            return False
        self.handed_in[id(stream)] = sources
        self.outcomes[id(stream)] = []
        self.open_streams.append(stream)
        self.all_streams.append(stream)
        return True

    @rule(target=streams, count=st.integers(0, 12), pending=st.integers(1, 8), twice=st.booleans())
    def ingest(self, count: int, pending: int, twice: bool) -> Any:  # noqa: FBT001 - drawn
        sources = self.fresh(count)
        if twice:  # one upload while the first is pending, and without a journal another one later
            self.twice |= {source.source_url for source in sources}
            sources *= 2
        stream = self.session.ingest(iter(sources), group=self.group, max_pending=pending, asset_timeout=5)
        return stream if self._begun(stream, sources) else None

    @rule(target=streams, first=st.integers(0, 8), count=st.integers(1, 8))
    def ingest_with_the_journal(self, first: int, count: int) -> Any:
        """Many of these name the same sources, one after the other or at the same time."""
        sources = [AssetSource.image(f"https://cdn.example.com/j{n}?sig=canary") for n in range(first, first + count)]
        journal = Path(self.home.name, "run.db")
        stream = self.session.ingest(sources, group=self.group, journal=journal, asset_timeout=5)
        return stream if self._begun(stream, sources) else None

    async def _take(self, stream: Ingest[AssetSource, Asset], most: int) -> None:
        taken = self.outcomes[id(stream)]
        outcomes = stream.outcomes()
        for _ in range(most):
            try:
                taken.append(await asyncio.wait_for(anext(outcomes), 0.03))
            except (TimeoutError, StopAsyncIteration):
                return

    @rule(stream=streams, most=st.integers(1, 20))
    def consume(self, stream: Any, most: int) -> None:
        if stream is not None:
            self.run(self._take(stream, most))

    @rule(stream=streams)
    def stop(self, stream: Any) -> None:
        async def stopped() -> None:
            stream.stop()

        if stream is not None:
            self.run(stopped())

    @rule(stream=consumes(streams))
    def leave(self, stream: Any) -> None:
        if stream in self.open_streams:
            self.run(self._left(stream))

    @rule(stream=consumes(streams), turns=st.integers(0, 9))
    def leave_and_cancel(self, stream: Any, turns: int) -> None:
        async def cancelled() -> None:
            task = asyncio.ensure_future(self._left(stream))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})

        if stream in self.open_streams:
            self.run(cancelled())

    async def _left(self, stream: Ingest[AssetSource, Asset]) -> None:
        self.open_streams.remove(stream)
        await stream.aclose()

    # Ends and beginnings

    @rule()
    def drain(self) -> None:
        self.draining = True
        self.run(self.session.drain(2.0))

    @rule(closes_first=st.booleans())
    def close_and_open(self, closes_first: bool) -> None:  # noqa: FBT001 - drawn
        async def anew() -> None:
            streams = list(self.open_streams)
            if closes_first:
                await self.session.aclose()
            for stream in streams:
                await self._left(stream)
            await self.session.aclose()
            await self.open_session()

        self.run(anew())

    @rule(kind=st.sampled_from(KINDS), probability=st.sampled_from([0.1, 0.5, 1.0]), times=st.integers(1, 3))
    def fault_on(self, kind: Any, probability: float, times: int) -> None:
        self.sandbox.faults.add(kind, probability=probability, times=times, retry_after="none", delay=0.02)

    @rule()
    def faults_off(self) -> None:
        self.sandbox.faults.clear()

    # What always holds

    @invariant()
    def accounts_add_up(self) -> None:
        for stream in self.all_streams:
            stats, report = stream.stats(), stream.report
            ended = stats.active + stats.failed + stats.pending + stats.in_doubt + stats.unsent
            assert stats.taken == stats.queued + stats.submitting + stats.polling + ended
            assert min(stats.queued, stats.submitting, stats.polling) >= 0
            assert report.taken == stats.taken
            assert ended >= len(self.outcomes[id(stream)])

    def teardown(self) -> None:
        try:
            if hasattr(self, "sandbox"):
                self.run(self._end())
                self._compare()
        finally:
            logging.getLogger("seedance_avatar").removeHandler(self.told)
            self.runner.close()
            self.home.cleanup()
        assert open_sockets() <= self.sockets

    async def _end(self) -> None:
        for stream in list(self.open_streams):
            await self._left(stream)
        for stream in self.all_streams:
            await self._take(stream, 1000)
        await self.session.aclose()
        await self.sandbox.aclose()
        for _ in range(200):
            if len(asyncio.all_tasks()) == 1:
                break
            await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()

    def _compare(self) -> None:
        settled = [event.outcome for event in self.events if isinstance(event, Settled)]
        self.known |= {event.asset.asset_id for event in self.events if isinstance(event, Accepted)}
        self.known |= {outcome.asset.asset_id for outcome in settled if getattr(outcome, "asset", None) is not None}
        self.doubted |= {o.source.source_url for o in settled if type(o).__name__ == "InDoubt"}
        for stream in self.all_streams:
            report, seen = stream.report, self.outcomes[id(stream)]
            assert report.taken == len(seen)
            counted = Counter(type(outcome).__name__ for outcome in seen)
            told = (report.active, report.failed, report.pending, report.in_doubt, report.unsent)
            assert told == tuple(counted[kind] for kind in ("Active", "Failed", "Pending", "InDoubt", "Unsent"))
            handed_in = Counter(self.handed_in[id(stream)])
            taken = Counter(outcome.source for outcome in seen)
            assert taken <= handed_in
            assert not report.exhausted or taken == handed_in
        ledger = self.sandbox.ledger
        assert set(ledger.duplicates()) <= self.twice
        accepted = Counter(event.asset.asset_id for event in self.events if isinstance(event, Accepted))
        assert all(count == 1 for count in accepted.values())
        for upload in ledger.uploads:
            spoken_of = upload.asset_id in self.known or upload.asset_id in self.told.text
            assert spoken_of or upload.source_url in self.doubted or "may exist" in self.told.text, upload


def test_a_session_under_any_row_of_calls() -> None:
    run_state_machine_as_test(
        SessionMachine,
        settings=settings(
            max_examples=30,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
