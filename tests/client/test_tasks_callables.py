"""Exceptions that Python takes for something else, from every callable of the caller: none is silent, none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig.leaks import no_leaks
from rig.world import quick, sources

from seedance_avatar import Active, AssetSource, AvatarError, AvatarSession, JournalReader, Unsent
from seedance_avatar.client.tasks import raisable
from seedance_avatar.events import Accepted, RequestFinished
from seedance_avatar.sandbox import Sandbox

EXCEPTIONS = [asyncio.CancelledError, StopAsyncIteration, StopIteration, GeneratorExit, ZeroDivisionError]
COUNT = 6


def raiser(kind: type[BaseException], after: int, value: Any) -> Callable[..., Any]:
    """Return a function that returns ``value``, and from its call number ``after`` on raises ``kind``."""
    calls = 0

    def call(*_: object) -> Any:
        nonlocal calls
        calls += 1
        if calls >= after:
            raise kind
        return value

    return call


def awaitable(call: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def asynchronous(*args: object) -> Any:
        await asyncio.sleep(0)
        return call(*args)

    return asynchronous


async def outcomes(stream: Any) -> tuple[list[Any], BaseException | None]:
    found: list[Any] = []
    try:
        async with stream:
            async for outcome in stream.outcomes():  # noqa: ASYNC119 - a stream is a class, not a generator
                found.append(outcome)  # noqa: PERF401 - what came before an exception counts
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - what is tested
        assert stream.report.taken == len(found)
        return found, error
    assert stream.report.taken == len(found)
    return found, None


@pytest.mark.parametrize("kind", [*EXCEPTIONS, KeyboardInterrupt, SystemExit])
def test_an_exception_is_itself_or_named(kind: type[BaseException]) -> None:
    error = kind()
    raised = raisable(error, "the callable")
    if kind in {ZeroDivisionError, KeyboardInterrupt, SystemExit}:
        assert raised is error
    else:
        assert isinstance(raised, RuntimeError)
        assert str(raised) == f"the callable raised {kind.__name__}"
        assert raised.__cause__ is error


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", EXCEPTIONS)
async def test_what_an_observer_raises_is_logged_once(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        no_leaks(),
        Sandbox(time_scale=0.002) as sandbox,
        quick(sandbox.url, observer=raiser(kind, 1, None)) as session,
    ):
        group = await session.create_group("g")
        found, error = await outcomes(session.ingest(sources(COUNT), group=group))
    assert error is None
    assert [type(outcome) for outcome in found] == [Active] * COUNT
    assert len([r for r in caplog.records if "the observer raised" in r.message]) == 1


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("told", [RequestFinished, Accepted])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_observer_may_end_the_program_and_what_was_accepted_keeps_its_id(
    kind: type[BaseException], told: type, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, many: bool
) -> None:
    journal = tmp_path / "run.db"
    seen: list[Any] = []
    known: list[str] = []

    def observe(event: Any) -> None:
        seen.append(event)
        if isinstance(event, told) and getattr(event, "path", "/assets").endswith("/assets"):
            raise kind

    async def main() -> None:
        async with (
            Sandbox(time_scale=0.002) as sandbox,
            AvatarSession("sk-sandbox", base_url=sandbox.url, observer=observe) as session,
        ):
            group = await session.create_group("g")
            if many:
                async with session.ingest(sources(COUNT), group=group, journal=journal) as stream:
                    assert not [asset async for asset in stream]
            else:
                try:
                    known.append((await session.upload(sources(1)[0], group=group)).asset_id)
                except asyncio.CancelledError as error:
                    known.extend(error.__notes__)
                    raise

    async def read(path: Path) -> Any:
        async with JournalReader(path) as reader:
            return await reader.summary()

    with pytest.raises(kind):
        asyncio.run(main())
    accepted = [event for event in seen if isinstance(event, Accepted)]
    assert accepted
    if many:
        summary = asyncio.run(read(journal))
        # The sandbox ends with the program, so others may be on the wire without an answer.
        assert summary.count("accepted", "active") == len(accepted)
    else:
        assert accepted[0].asset.asset_id in known[0]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_observer_that_ends_the_program_at_every_event_lets_it_clean_up(kind: type[BaseException]) -> None:
    ending, closed = False, False

    def observe(event: Any) -> None:
        nonlocal ending
        ending = ending or (isinstance(event, RequestFinished) and event.path.endswith("/assets"))
        if ending:
            raise kind

    async def main() -> None:
        nonlocal closed
        async with (
            Sandbox(time_scale=0.002) as sandbox,
            AvatarSession("sk-sandbox", base_url=sandbox.url, observer=observe) as session,
        ):
            group = await session.create_group("g")
            try:
                async with session.ingest(sources(COUNT), group=group) as stream:
                    assert not [asset async for asset in stream]
            finally:
                await session.aclose()
                closed = True

    with pytest.raises(kind):
        asyncio.run(main())
    assert closed


@pytest.mark.asyncio
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", [*EXCEPTIONS, KeyboardInterrupt, SystemExit])
async def test_what_a_group_callable_raises_leaves_after_the_outcomes(
    kind: type[BaseException], *, asynchronous: bool
) -> None:
    async with no_leaks(), Sandbox(time_scale=0.002) as sandbox, quick(sandbox.url) as session:
        group = raiser(kind, 3, await session.create_group("g"))
        stream = session.ingest(sources(COUNT), group=awaitable(group) if asynchronous else group)
        found, error = await asyncio.wait_for(outcomes(stream), 10)
    assert len(found) >= 3
    assert error is not None
    assert kind.__name__ in f"{type(error).__name__}: {error}"
    assert not isinstance(error, asyncio.CancelledError)


@pytest.mark.asyncio
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", EXCEPTIONS)
async def test_where_a_key_provider_raises_nothing_is_sent(kind: type[BaseException], *, asynchronous: bool) -> None:
    async with Sandbox(time_scale=0.002) as sandbox:
        provider = raiser(kind, 1, "sk-sandbox")
        key = awaitable(provider) if asynchronous else provider
        async with no_leaks(), AvatarSession(key, base_url=sandbox.url) as session:
            with pytest.raises(
                AvatarError, match="StopIteration" if kind is StopIteration and not asynchronous else "nothing was sent"
            ) as caught:
                await session.create_group("g")
            assert "nothing was sent" in str(caught.value)
        assert not sandbox.ledger.counts


@pytest.mark.asyncio
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "kind", [asyncio.CancelledError, GeneratorExit, StopAsyncIteration, KeyboardInterrupt, SystemExit]
)
async def test_what_a_source_raises_leaves_after_the_outcomes(kind: type[BaseException], *, asynchronous: bool) -> None:
    def items() -> Iterator[AssetSource]:
        yield from sources(COUNT)
        raise kind

    async def later() -> AsyncIterator[AssetSource]:  # noqa: ASYNC900 - a user's own source
        for source in sources(COUNT):
            yield source
        raise kind

    async with no_leaks(), Sandbox(time_scale=0.002) as sandbox, quick(sandbox.url) as session:
        group = await session.create_group("g")
        stream = session.ingest(later() if asynchronous else items(), group=group)
        found, error = await asyncio.wait_for(outcomes(stream), 10)
    assert len(found) == COUNT
    assert not [outcome for outcome in found if isinstance(outcome, Unsent)] or kind in {KeyboardInterrupt, SystemExit}
    assert kind.__name__ in f"{type(error).__name__}: {error}"
