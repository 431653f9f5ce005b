"""Sources of every kind, and every way in which the reading of them can end."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import pytest
from rig.leaks import no_leaks
from rig.world import sources, world

from seedance_avatar import AssetSource, AvatarSession, InvalidInput, Limits, SessionStateError
from seedance_avatar.ingest.sources import _ThreadedReader
from seedance_avatar.sandbox.fates import Fate

pytestmark = pytest.mark.asyncio


class Breaks:
    """An iterator of three sources that then raises ``error``, read in a thread."""

    def __init__(self, error: BaseException) -> None:
        self._items = iter(sources(3))
        self._error = error

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AssetSource:
        for item in self._items:
            return item
        raise self._error


class BreaksAwaited(Breaks):
    """The same, awaited."""

    __iter__ = None  # type: ignore[assignment]  # it shall be no plain iterable

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AssetSource:
        return self.__next__()


class BreaksAtHand(list[AssetSource]):
    """The same, as a collection that needs no thread."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(sources(3))
        self._error = error

    def __iter__(self) -> Iterator[AssetSource]:
        yield from list.__iter__(self)
        raise self._error


@pytest.mark.parametrize("kind", [Breaks, BreaksAwaited, BreaksAtHand])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("boom"), ValueError),
        (asyncio.CancelledError(), RuntimeError),
        (StopAsyncIteration(), RuntimeError),
        (GeneratorExit(), RuntimeError),
    ],
)
async def test_whatever_a_source_raises_what_was_taken_comes_first_and_then_it_is_told(
    kind: type[Breaks], error: BaseException, told: type[Exception]
) -> None:
    if kind is BreaksAwaited and isinstance(error, StopAsyncIteration):
        return  # that is how an async iterator ends
    outcomes = []
    async with no_leaks(), world() as it:
        with pytest.raises(told) as caught:
            async with asyncio.timeout(5), it.session.ingest(kind(error), group=it.group) as stream:
                async for outcome in stream.outcomes():
                    outcomes.append(outcome)  # noqa: PERF401 - it raises in the middle
        assert caught.value is error or caught.value.__cause__ is error
        assert stream.report.taken == stream.report.active == len(outcomes) == 3
        assert not stream.report.exhausted


@pytest.mark.parametrize("kind", [Breaks, BreaksAwaited])
async def test_an_exit_in_a_source_reaches_the_consumer_as_an_exit(kind: type[Breaks]) -> None:
    class Exit(BaseException):
        """What SystemExit is to a program, without ending the loop of this test."""

    async with no_leaks(), world() as it:
        with pytest.raises(Exit):
            async with asyncio.timeout(5), it.session.ingest(kind(Exit()), group=it.group) as stream:
                async for _ in stream:
                    pass
        assert stream.report.active == 3


async def ends_within_a_second(
    items: Iterator[AssetSource], expected: type[BaseException], match: str | None = None
) -> int:
    """Ingest ``items``, whose reading dies: the error leaves in time, and all that was taken has its outcome."""
    async with no_leaks(), world() as it:
        began = asyncio.get_running_loop().time()
        with pytest.raises(expected, match=match):
            async with asyncio.timeout(5), it.session.ingest(items, group=it.group) as stream:
                async for _ in stream:
                    pass
        assert asyncio.get_running_loop().time() - began < 1
        assert stream.report.taken == stream.report.active
        assert not stream.report.exhausted
        return stream.report.taken


async def test_a_reading_thread_that_is_killed_while_it_blocks_ends_the_run() -> None:
    class Killed(BaseException):
        """What ends a thread from outside: a debugger, a watchdog, a program that ends its threads."""

    def endless() -> Iterator[AssetSource]:
        yield from sources(3)
        timer = threading.Timer(0.1, ctypes.pythonapi.PyThreadState_SetAsyncExc, killed)
        killed[0] = ctypes.c_ulong(threading.get_ident())
        timer.start()
        while True:
            time.sleep(0.01)

    killed: list[Any] = [None, ctypes.py_object(Killed)]
    assert await ends_within_a_second(endless(), Killed) == 3


async def test_a_reading_thread_that_dies_at_its_birth_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ThreadedReader, "_read", lambda _: None)
    assert await ends_within_a_second(iter(sources(3)), RuntimeError, "the thread that reads the sources died") == 0


async def test_a_reading_thread_that_dies_before_it_could_tell_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    notified = 0
    notify = _ThreadedReader._notify

    def dying(self: _ThreadedReader) -> None:
        nonlocal notified
        notified += 1
        if notified == 2:
            raise SystemExit
        notify(self)

    def slowly() -> Iterator[AssetSource]:
        for source in sources(5):
            time.sleep(0.02)
            yield source

    monkeypatch.setattr(_ThreadedReader, "_notify", dying)
    assert await ends_within_a_second(slowly(), SystemExit) == 2


async def test_a_thread_that_cannot_be_started_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    async with world() as it:
        monkeypatch.setattr(threading.Thread, "start", no_more)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            async with asyncio.timeout(1), it.session.ingest(iter(sources(3)), group=it.group) as stream:
                async for _ in stream:
                    pass
        assert stream.report.taken == 0


async def test_a_set_that_changes_while_it_is_read_loses_nothing_that_was_taken() -> None:
    changing = set(sources(400))
    async with world() as it:
        with pytest.raises(RuntimeError, match="changed size"):
            # So few at a time that it cannot be read to its end before the first is active and changes it.
            async with it.session.ingest(changing, group=it.group, max_pending=8) as stream:
                async for _ in stream:
                    changing.add(AssetSource.image("https://cdn.example.com/late.jpg"))
        report = stream.report
        assert 0 < report.taken == report.active < 400


async def test_what_can_only_be_indexed_is_read_as_iter_reads_it() -> None:
    class Rows:
        def __getitem__(self, at: int) -> AssetSource:
            return sources(3)[at]

    rows: Any = Rows()
    async with world() as it, it.session.ingest(rows, group=it.group) as stream:
        assert len([asset async for asset in stream]) == 3


async def test_a_source_may_use_the_session_that_it_feeds() -> None:
    async with world() as it:

        async def chained() -> AsyncIterator[AssetSource]:  # noqa: ASYNC900 - the ingest closes it
            first = await it.session.upload(sources(1)[0], group=it.group)
            await it.session.wait_until_active(first, timeout=5)
            for source in sources(3, start=1):
                await it.session.get_asset(first.asset_id)
                yield source

        async with asyncio.timeout(5), it.session.ingest(chained(), group=it.group, max_pending=1) as stream:
            assert len([asset async for asset in stream]) == 3


@pytest.mark.parametrize("max_pending", [0, -1, 2.5, "5", True])
async def test_a_bound_that_is_no_whole_number_is_refused_at_once(max_pending: Any) -> None:
    async with world() as it:
        with pytest.raises(InvalidInput, match="max_pending must be"):
            it.session.ingest([], group=it.group, max_pending=max_pending)


@pytest.mark.parametrize("name", ["limits", "retry", "polling", "video_polling", "timeouts"])
async def test_an_option_of_another_kind_is_told_where_it_is_given(name: str) -> None:
    options: dict[str, Any] = {name: 30}
    with pytest.raises(InvalidInput, match=f"{name} must be .*, not int"):
        AvatarSession("sk-x", **options)


@pytest.mark.parametrize("end", ["aclose", "drain"])
async def test_a_source_that_would_end_its_own_session_is_told(end: str) -> None:
    async with world() as it, asyncio.timeout(5):

        async def ending() -> AsyncIterator[AssetSource]:  # noqa: ASYNC900 - the ingest closes it
            yield sources(1)[0]
            await getattr(it.session, end)()

        with pytest.raises(SessionStateError, match="cannot end the session that reads it"):
            async with it.session.ingest(ending(), group=it.group) as stream:
                async for _ in stream:
                    pass
        assert stream.report.active == 1


class Counted:
    """Sources of a generator, and how many of them were pulled."""

    def __init__(self, blocks_at: int = -1) -> None:
        self.pulled = 0
        self.blocks_at = blocks_at
        self.go = threading.Event()

    def __iter__(self) -> Iterator[AssetSource]:
        for source in sources(400):
            if self.pulled == self.blocks_at:
                self.go.wait(20)
            self.pulled += 1
            yield source


@pytest.mark.parametrize("how", ["unauthorized", "no_money", "on_failure", "stop()", "drain"])
async def test_what_was_pulled_has_its_outcome_when_a_run_halts(how: Any) -> None:
    async with no_leaks(), world({"limits": Limits(submits_per_second=1e9, max_submitting=16)}) as it:
        counted = Counted()
        draining = None
        if how == "on_failure":
            it.sandbox.decide(sources(400)[20].source_url, Fate.refused("no"))
        options: dict[str, Any] = {"max_pending": 60}  # so that a fast machine has not read all of it by then
        if how == "on_failure":
            options["on_failure"] = "stop"
        outcomes = []
        async with it.session.ingest(counted, group=it.group, **options) as stream:
            async for outcome in stream.outcomes():
                outcomes.append(outcome)
                match how if len(outcomes) == 20 else None:
                    case "unauthorized" | "no_money":
                        it.sandbox.faults.add(how, method="POST", path="assets")
                    case "stop()":
                        stream.stop()
                    case "drain":
                        draining = asyncio.get_running_loop().create_task(it.session.drain())
        if draining is not None:
            await draining
        assert len(outcomes) == counted.pulled == stream.report.taken < 400
        assert stream.report.dropped == 0


async def test_who_leaves_early_is_told_how_many_were_read_ahead() -> None:
    async with no_leaks(), world({"limits": Limits(submits_per_second=1e9, max_submitting=16)}) as it:
        counted = Counted()
        async with it.session.ingest(counted, group=it.group, max_pending=30) as stream:
            async for _ in stream.outcomes():
                break
        assert stream.report.taken + stream.report.dropped == counted.pulled < 400


async def test_a_source_that_blocks_does_not_keep_a_halted_run_from_ending() -> None:
    async with world() as it:
        counted = Counted(blocks_at=3)
        try:
            async with asyncio.timeout(5), it.session.ingest(counted, group=it.group) as stream:
                seen = [await anext(stream) for _ in range(3)]
                stream.stop()
                seen += [asset async for asset in stream]
            assert len(seen) == stream.report.taken == counted.pulled == 3
        finally:
            counted.go.set()


async def test_a_wait_for_the_reading_thread_can_be_cancelled() -> None:
    async with world() as it:
        counted = Counted(blocks_at=3)
        try:
            async with asyncio.timeout(5), it.session.ingest(counted, group=it.group) as stream:
                [await anext(stream) for _ in range(3)]
                stream.stop()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await anext(stream)
                await it.session.aclose()
            assert stream.report.taken == 3
        finally:
            counted.go.set()
