"""Whatever dies in the client while an ingest runs, the ingest ends and says why: nobody is left waiting."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rig.leaks import no_leaks
from rig.rude import until
from rig.world import quick, world

from seedance_avatar import AssetSource, AvatarError, ConnectionFailed, Limits, Pending, Polling, Retry, Unsent
from seedance_avatar.client.transport import ResponseLost, Transport
from seedance_avatar.sandbox import Sandbox

SLOW = Limits(submits_per_second=200.0, submit_burst=1, queries_per_second=200.0, query_burst=1)
"""Turns are waited for, so the gates have timers."""


def endless() -> Iterator[AssetSource]:
    """Yield sources without end: only a run that halts can finish."""
    for number in itertools.count():
        yield AssetSource.image(f"https://cdn.example.com/{number}")


async def ending(stream: Any) -> tuple[list[Any], BaseException | None]:
    """Return the outcomes and what was raised after them."""
    found: list[Any] = []
    raised: BaseException | None = None
    async with stream:
        try:
            async for outcome in stream.outcomes():  # noqa: ASYNC119 - a stream is a class, not a generator
                found.append(outcome)  # noqa: PERF401 - what came before an exception counts
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - what is tested
            raised = error
    assert stream.report.taken == len(found)
    return found, raised


@pytest.mark.asyncio
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("when", ["submitting", "polling"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_where_a_key_provider_ends_the_program_the_run_ends_with_it(
    kind: type[BaseException], when: str, *, asynchronous: bool
) -> None:
    def key() -> str:
        if ended or len(sandbox.ledger) >= (2 if when == "submitting" else 4):
            ended.append(True)
            raise kind
        return "sk-sandbox"

    async def later() -> str:
        await asyncio.sleep(0)
        return key()

    ended: list[bool] = []
    async with (
        no_leaks(),
        Sandbox(time_scale=1.0) as sandbox,
        quick(sandbox.url, later if asynchronous else key, polling=Polling.fixed(0.05, 0.02)) as session,
    ):
        group = await session.create_group("g")
        items = endless() if when == "submitting" else itertools.islice(endless(), 4)
        found, raised = await asyncio.wait_for(ending(session.ingest(items, group=group)), 10)
        assert type(raised) is kind
        assert {type(outcome) for outcome in found} <= {Pending, Unsent}
        assert sum(isinstance(outcome, Pending) for outcome in found) == len(sandbox.ledger)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_where_a_key_provider_ends_the_program_a_wait_for_one_asset_ends_with_it(
    kind: type[BaseException],
) -> None:
    def key() -> str:
        if accepted:
            raise kind
        return "sk-sandbox"

    accepted: list[bool] = []
    async with no_leaks(), Sandbox(time_scale=1.0) as sandbox, quick(sandbox.url, key) as session:
        group = await session.create_group("g")
        asset = await session.upload(next(endless()), group=group)
        accepted.append(True)
        with pytest.raises(kind):
            async with asyncio.timeout(10):
                await session.wait_until_active(asset, timeout=600.0)


def parts(session: Any) -> dict[str, Any]:
    """Return what of the client may die, by name."""
    engine = session._engine
    client = engine.client
    return {
        "schedule": engine.poller.schedule,
        "submits": client.submit.pacer,
        "queries": client.query.pacer,
        "breaker": client.breaker,
    }


def die(*_: object, **__: object) -> Any:
    """Die."""
    raise ZeroDivisionError


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("part", "name"),
    [
        *(("schedule", name) for name in ("add", "pop", "next_due", "still_pending")),
        *((lane, name) for lane in ("submits", "queries") for name in ("next_at", "take", "on_answer")),
        *(("breaker", name) for name in ("closed", "record_success")),
    ],
)
async def test_where_a_part_of_the_client_dies_a_run_ends(
    part: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with no_leaks(), world({"limits": SLOW, "polling": Polling.fixed(0.01, 0.02)}, time_scale=0.05) as it:
        stream = it.session.ingest(endless(), group=it.group)
        run = asyncio.ensure_future(ending(stream))
        await until(lambda: len(it.sandbox.ledger) >= 5)
        with monkeypatch.context() as patch:
            patch.setattr(type(parts(it.session)[part]), name, guard(parts(it.session)[part], name))
            found, raised = await asyncio.wait_for(run, 10)
        assert raised is not None or "ZeroDivisionError" in str([outcome.error for outcome in found])


def guard(part: Any, name: str) -> Callable[..., Any]:
    """Return a method that dies for ``part`` alone: both lanes have a pacer of one class."""
    original = getattr(type(part), name)

    def method(self: Any, *args: Any, **more: Any) -> Any:
        return die() if self is part else original(self, *args, **more)

    return method


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("record_failure", ConnectionFailed("no connection")),
        ("record_ill", ResponseLost("cut off")),
        ("record_success", None),
        ("wait_until_up", ConnectionFailed("no connection")),
    ],
)
async def test_where_the_probe_of_an_outage_dies_nobody_waits_for_it(
    name: str, answer: AvatarError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send(*_: object) -> None:
        assert answer is not None
        raise answer

    patient = Retry(base=0.001, throttle_base=0.002, cap=0.01, patience=600.0)
    async with no_leaks(), world({"retry": patient}, time_scale=1.0) as it:
        run = asyncio.ensure_future(ending(it.session.ingest(endless(), group=it.group)))
        await until(lambda: len(it.sandbox.ledger) >= 5)
        breaker = parts(it.session)["breaker"]
        with monkeypatch.context() as patch:
            down, ill = ConnectionFailed("down"), isinstance(answer, ResponseLost)
            breaker.record_failure(down, ill=ill, probe=False, left_at=breaker.clock())
            patch.setattr(type(breaker), name, die)
            if answer is not None:
                patch.setattr(Transport, "send", send)
            found, raised = await asyncio.wait_for(run, 10)
        assert raised is not None or "ZeroDivisionError" in str([outcome.error for outcome in found])
