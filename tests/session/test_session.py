"""A session: opened and closed from anywhere, single calls, waits, and the ends of each."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest
import pytest_asyncio
from rig.leaks import no_leaks
from rig.rude import Late, RudeServer, Silence, json_answer, raw_answer, until
from rig.world import FAST, KEY, quick, sources, world

from seedance_avatar import (
    Asset,
    AssetFailed,
    AssetSource,
    AuthError,
    AvatarError,
    AvatarSession,
    ConnectionFailed,
    InvalidInput,
    InvalidSource,
    Limits,
    NotFound,
    RateLimited,
    Retry,
    SessionStateError,
    SubmissionInDoubt,
    Timeouts,
    WaitTimeout,
)
from seedance_avatar.client.transport import Transport
from seedance_avatar.events import Accepted, Event, LimitChanged, Outage, RequestFinished, RetryPlanned
from seedance_avatar.sandbox import Sandbox
from seedance_avatar.sandbox.fates import Fate

ASSET = {"success": True, "data": {"asset_id": "pa_1", "status": "processing"}}


# Building, opening, closing


def test_it_is_built_without_a_loop_and_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-canary-of-the-environment")
    monkeypatch.setenv("TOAPIS_BASE_URL", "https://toapis.cn/v1/")
    session = AvatarSession()
    assert repr(session) == "<AvatarSession https://toapis.cn not open>"
    assert session.stats().requests == 0


@pytest.mark.parametrize("key", ["", "  ", "sk-canary\r\nX-Evil: 1", "Bearer sk-canary", "sk-canaryé"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        AvatarSession(key)
    assert "canary" not in str(caught.value)


def test_no_key_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOAPIS_API_KEY", raising=False)
    with pytest.raises(InvalidInput, match="TOAPIS_API_KEY"):
        AvatarSession()


@pytest.mark.parametrize("base", ["toapis.com", "ftp://toapis.com", "http://toapis.com", "https://a b.com", "https://"])
def test_a_base_that_is_none_is_refused(base: str) -> None:
    with pytest.raises(InvalidInput):
        AvatarSession(KEY, base_url=base)


def test_plain_with_is_told_what_was_meant() -> None:
    with pytest.raises(SessionStateError, match="async with"), AvatarSession(KEY):
        pass


@pytest.mark.asyncio
async def test_it_is_not_usable_before_and_after() -> None:
    async with Sandbox() as sandbox:
        session = quick(sandbox.url)
        with pytest.raises(SessionStateError, match="not open"):
            await session.get_asset("pa_1")
        await session.aclose()
        async with session:
            await session.open()
            await session.create_group("x")
        await session.aclose()
        for call in (session.get_asset("pa_1"), session.open(), session.drain(), session.create_group("x")):
            with pytest.raises(SessionStateError, match="closed"):
                await call


@pytest.mark.asyncio
async def test_opened_in_one_task_and_closed_in_another() -> None:
    async with no_leaks(), Sandbox() as sandbox:
        session = quick(sandbox.url)
        await asyncio.create_task(session.open())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.create_group, "x")
        await asyncio.gather(session.aclose(), asyncio.create_task(session.aclose()))


@pytest_asyncio.fixture
async def yielded() -> AsyncIterator[AvatarSession]:
    async with Sandbox() as sandbox, quick(sandbox.url) as session:
        yield session


@pytest.mark.asyncio
async def test_a_yield_fixture_may_hold_it(yielded: AvatarSession) -> None:
    with anyio.move_on_after(5):
        assert (await yielded.create_group("x")).group_id


@pytest.mark.asyncio
@pytest.mark.parametrize("cancellations", [1, 2, 3])
async def test_a_cancelled_close_closes_all_the_same(cancellations: int) -> None:
    async with no_leaks(), Sandbox() as sandbox:
        sandbox.faults.add("slow", method="POST", delay=0.15)
        session = await quick(sandbox.url).open()
        group = asyncio.create_task(session.create_group("x"))
        await until(lambda: session.stats().submitting)
        closing = asyncio.create_task(session.aclose())
        for _ in range(cancellations):
            await asyncio.sleep(0.01)
            closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert (await group).group_id
        with pytest.raises(SessionStateError):
            await session.create_group("y")


class Store:
    """Shared limits whose connection takes some turns of the loop; counts those that are open."""

    max_submitting = max_polling = 4

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0
        self.go = asyncio.Event()

    async def open(self) -> Store:
        self.opened += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.closed += 1
            raise
        return self

    async def reserve(self, lane: str) -> float:
        del lane
        return 0.0

    def brake(self, lane: str, seconds: float) -> None: ...

    async def aclose(self) -> None:
        self.closed += 1


@pytest.mark.asyncio
async def test_opened_by_several_tasks_at_once_it_is_opened_once() -> None:
    store = Store()
    async with no_leaks(), Sandbox() as sandbox:
        session = quick(sandbox.url, limits=store)
        opening = [asyncio.create_task(session.open()) for _ in range(3)]
        await asyncio.sleep(0)
        opening[1].cancel()
        store.go.set()
        assert await opening[0] is await opening[2] is session
        assert (await session.create_group("x")).group_id
        await session.aclose()
        assert (store.opened, store.closed) == (1, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("fails", [False, True])
async def test_closed_while_it_is_being_opened_it_is_closed_once_it_is_open(*, fails: bool) -> None:
    store = Store()
    async with no_leaks(), Sandbox() as sandbox:
        session = quick(sandbox.url, limits=store)
        opening = asyncio.create_task(session.open())
        await asyncio.sleep(0)
        closing = asyncio.create_task(session.aclose())
        await asyncio.sleep(0)
        assert not closing.done()
        if fails:
            opening.cancel()
        store.go.set()
        await closing
        await asyncio.wait({opening})
        assert (opening.cancelled(), store.opened, store.closed) == (fails, 1, 1)
        if not fails:
            with pytest.raises(SessionStateError, match="closed"):
                await session.create_group("x")


@pytest.mark.asyncio
async def test_an_opening_that_is_cancelled_or_fails_leaves_nothing_open_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(_: Transport) -> None:
        raise SessionStateError("broken")  # noqa: EM101 - a test's error

    store = Store()
    async with no_leaks(), Sandbox() as sandbox:
        session = quick(sandbox.url, limits=store)
        opening = asyncio.create_task(session.open())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        store.go.set()
        async with session:
            pass
        monkeypatch.setattr(Transport, "open", broken)
        with pytest.raises(SessionStateError, match="broken"):
            await quick(sandbox.url, limits=store).open()
        assert store.opened == store.closed == 3


def test_another_loop_is_told() -> None:
    session = AvatarSession(KEY, base_url="http://127.0.0.1:9")

    async def opened() -> None:
        await session.open()

    async def used() -> None:
        with pytest.raises(SessionStateError, match="another event loop"):
            await session.get_asset("pa_1")
        with pytest.raises(SessionStateError, match="another event loop"):
            await session.aclose()

    with asyncio.Runner() as first:
        first.run(opened())
        with asyncio.Runner() as second:
            second.run(used())
        first.run(session.aclose())


@pytest.mark.asyncio
async def test_a_forked_child_is_told() -> None:
    async with quick("http://127.0.0.1:9") as session:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                _ = session.engine
            except SessionStateError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.close(writer)
        told = os.read(reader, 1000)
        os.waitpid(child, 0)  # noqa: ASYNC222 - it has told, and ends at once
        os.close(reader)
    assert b"fork" in told


@pytest.mark.asyncio
async def test_a_borrowed_aiohttp_session_is_used_and_not_closed() -> None:
    async with Sandbox() as sandbox, aiohttp.ClientSession(headers={"Authorization": "Bearer wrong"}) as http:
        async with quick(sandbox.url, http=http) as session:
            await session.create_group("x")
        assert not http.closed


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.asyncio
async def test_a_key_provider_is_asked_for_every_request(awaits: bool) -> None:  # noqa: FBT001 - a parameter
    keys = iter(["sk-first", "sk-second", "sk-third"])

    def sync() -> str:
        return next(keys)

    async def asynchronous() -> str:
        await asyncio.sleep(0)
        return next(keys)

    async with RudeServer(json_answer({"data": {"group_id": "pg_1"}})) as server:
        async with quick(server.url, asynchronous if awaits else sync) as session:
            await session.create_group("x")
            await session.create_group("y")
        assert [seen.headers["authorization"] for seen in server.requests] == ["Bearer sk-first", "Bearer sk-second"]


# Single calls


@pytest.mark.asyncio
async def test_group_upload_look_wait() -> None:
    async with no_leaks(), world() as w:
        asset = await w.session.upload(sources(1)[0], group=w.group)
        assert asset.status == "processing"
        with pytest.raises(InvalidInput, match="not active"):
            _ = asset.uri
        active = await w.session.wait_until_active(asset, timeout=5)
        assert active.uri == f"asset://{asset.asset_id}"
        assert await w.session.get_asset(asset.asset_id) == await w.session.wait_until_active(asset.asset_id)
        assert await w.session.wait_until_active(active) is active


@pytest.mark.asyncio
async def test_hundreds_wait_at_once_on_one_schedule() -> None:
    async with world() as w:
        uploaded = await asyncio.gather(*(w.session.upload(source, group=w.group) for source in sources(200)))
        active = await asyncio.gather(*(w.session.wait_until_active(asset) for asset in uploaded))
        assert all(asset.is_active for asset in active)
        assert w.session.stats().pending == 0


@pytest.mark.asyncio
async def test_waits_end_by_failure_deadline_not_found_and_cancellation() -> None:
    async with no_leaks(), world() as w:
        first, second, third = sources(3)
        w.sandbox.fail(first.source_url, reason="blurred", after=0.01)
        w.sandbox.decide(second.source_url, Fate.stuck())
        w.sandbox.decide(third.source_url, Fate.stuck())
        failed, stuck, other = [await w.session.upload(s, group=w.group) for s in (first, second, third)]
        with pytest.raises(AssetFailed, match="blurred") as gone:
            await w.session.wait_until_active(failed)
        assert gone.value.asset.is_failed
        with pytest.raises(WaitTimeout, match=stuck.asset_id) as late:
            await w.session.wait_until_active(stuck, timeout=0.1)
        assert isinstance(late.value.last, Asset)
        assert late.value.last.asset_id == stuck.asset_id
        with pytest.raises(NotFound):
            await w.session.wait_until_active("pa_01M821MM28Y8BRFXH3Q72D9181")
        waiting = asyncio.create_task(w.session.wait_until_active(other))
        await until(lambda: w.session.stats().pending == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert w.session.stats().pending == 0


@pytest.mark.asyncio
async def test_a_404_right_after_acceptance_is_waited_out() -> None:
    missing = json_answer({"error": {"message": "asset not found", "code": "asset_not_found"}}, 404)
    active = json_answer({"data": {"asset_id": "pa_1", "status": "Active"}})
    async with RudeServer(json_answer(ASSET), missing, missing, active) as server, quick(server.url) as session:
        asset = await session.upload(sources(1)[0], group="pg_1")
        assert (await session.wait_until_active(asset.asset_id)).is_active
        assert len(server.requests) == 4


@pytest.mark.asyncio
async def test_who_waits_when_the_session_closes_gets_a_session_error() -> None:
    async with no_leaks(), world() as w:
        source = sources(1)[0]
        w.sandbox.decide(source.source_url, Fate.stuck())
        asset = await w.session.upload(source, group=w.group)
        waits = [asyncio.create_task(w.session.wait_until_active(asset)) for _ in range(3)]
        await until(lambda: w.session.stats().pending == 3)
        await w.session.aclose()
        for wait in waits:
            with pytest.raises(SessionStateError, match="closed"):
                await wait


@pytest.mark.asyncio
async def test_who_waits_for_a_turn_when_the_session_closes_gets_a_session_error() -> None:
    async with no_leaks(), Sandbox() as sandbox:
        session = await quick(sandbox.url, limits=Limits(submits_per_second=0.01, submit_burst=1)).open()
        await session.create_group("x")
        waiting = asyncio.create_task(session.create_group("y"))
        await until(lambda: session.stats().waiting == 1)
        await session.aclose()
        with pytest.raises(SessionStateError, match="closed"):
            await waiting


@pytest.mark.asyncio
async def test_bad_input_is_refused_before_anything_is_sent() -> None:
    async with RudeServer(json_answer(ASSET)) as server, quick(server.url) as session:
        with pytest.raises(InvalidSource, match=r"127\.0\.0\.1"):
            await session.upload(AssetSource.image("http://127.0.0.1/x?sig=canary"), group="pg_1")
        with pytest.raises(InvalidInput):
            await session.upload(sources(1)[0], group="a/../b")
        with pytest.raises(InvalidInput, match="64"):
            await session.create_group("x" * 65)
        with pytest.raises(InvalidInput):
            await session.get_asset("../../admin")
        with pytest.raises(InvalidInput):
            await session.wait_until_active("pa_1", timeout=0)
        assert server.requests == []


@pytest.mark.asyncio
async def test_private_sources_are_sent_when_they_are_allowed() -> None:
    async with (
        Sandbox(allow_private=True) as sandbox,
        quick(sandbox.url, allow_private_sources=True) as session,
    ):
        group = await session.create_group("x")
        assert (await session.upload(AssetSource.image("http://10.0.0.1/x.png"), group=group)).asset_id


# What is repeated


@pytest.mark.asyncio
async def test_a_question_is_repeated_a_submission_is_in_doubt() -> None:
    broken = raw_answer(b"<html><title>Bad gateway</title></html>", 502)
    async with RudeServer(broken, broken, json_answer(ASSET)) as server, quick(server.url) as session:
        assert (await session.get_asset("pa_1")).asset_id == "pa_1"
        assert len(server.requests) == 3
    async with RudeServer(broken, json_answer(ASSET)) as server, quick(server.url) as session:
        with pytest.raises(SubmissionInDoubt, match="Bad gateway"):
            await session.upload(sources(1)[0], group="pg_1")
        assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_a_clear_refusal_is_repeated_and_its_wait_is_kept() -> None:
    slow_down = raw_answer(b"", 429, {"Retry-After": "1"})
    limiter = json_answer({"error": {"message": "x", "code": "rate_limit_unavailable"}}, 503)
    async with RudeServer(slow_down, limiter, json_answer(ASSET)) as server, quick(server.url) as session:
        began = asyncio.get_running_loop().time()
        await session.upload(sources(1)[0], group="pg_1")
        assert asyncio.get_running_loop().time() - began > 0.9
        assert len(server.requests) == 3
        assert session.stats().retries == 2
        assert session.stats().throttled == 2


@pytest.mark.asyncio
async def test_a_retry_after_beyond_the_patience_of_a_single_call_ends_it() -> None:
    async with RudeServer(raw_answer(b"", 429, {"Retry-After": "3600"})) as server, quick(server.url) as session:
        with pytest.raises(RateLimited) as caught:
            await session.upload(sources(1)[0], group="pg_1")
        assert caught.value.retry_after == 3600
        assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_attempts_bound_the_repeats() -> None:
    async with RudeServer(raw_answer(b"", 500)) as server:
        async with quick(server.url, retry=Retry(attempts=3, base=0, cap=0)) as session:
            with pytest.raises(AvatarError):
                await session.get_asset("pa_1")
        assert len(server.requests) == 3


@pytest.mark.asyncio
async def test_nothing_listens() -> None:
    async with Sandbox() as sandbox:
        url = sandbox.url
    async with quick(url) as session:
        with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1"):
            await session.create_group("x")
        assert session.stats().requests == 4
        assert session.stats().down_for is not None


# Cancellation


@pytest.mark.asyncio
async def test_a_cancelled_upload_comes_home_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()
    events: list[Event] = []
    async with (
        no_leaks(),
        RudeServer(Late(json_answer(ASSET), release)) as server,
        quick(server.url, observer=events.append) as session,
    ):
        upload = asyncio.create_task(session.upload(sources(1)[0], group="pg_1"))
        await until(lambda: server.requests)
        upload.cancel()
        await asyncio.sleep(0.02)
        assert not upload.done()
        release.set()
        with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError):
            await upload
        assert "pa_1" in caplog.text
        assert "canary" not in caplog.text
        assert [event.asset.asset_id for event in events if isinstance(event, Accepted)] == ["pa_1"]


@pytest.mark.asyncio
async def test_an_upload_cancelled_by_an_anyio_scope_comes_home_too() -> None:
    release = asyncio.Event()
    async with no_leaks(), RudeServer(Late(json_answer(ASSET), release)) as server, quick(server.url) as session:
        asyncio.get_running_loop().call_later(0.1, release.set)
        with anyio.move_on_after(0.03) as scope:
            await session.upload(sources(1)[0], group="pg_1")
        assert scope.cancelled_caught
        assert release.is_set()


@pytest.mark.asyncio
async def test_an_upload_cancelled_before_its_turn_is_not_sent() -> None:
    limits = Limits(submits_per_second=0.01, submit_burst=1)
    async with no_leaks(), RudeServer(json_answer(ASSET)) as server, quick(server.url, limits=limits) as session:
        await session.upload(sources(1)[0], group="pg_1")
        upload = asyncio.create_task(session.upload(sources(1)[0], group="pg_1"))
        await until(lambda: session.stats().waiting == 1)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_the_way_home_has_a_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        no_leaks(),
        RudeServer(Silence()) as server,
        quick(server.url, timeouts=Timeouts(drain=0.05, request=30)) as session,
    ):
        upload = asyncio.create_task(session.upload(sources(1)[0], group="pg_1"))
        await until(lambda: server.requests)
        upload.cancel()
        with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError):
            await upload
        assert "may exist" in caplog.text


# Observation


@pytest.mark.asyncio
async def test_events_tell_of_every_request_and_an_observer_that_raises_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[Event] = []

    def observe(event: Event) -> None:
        events.append(event)
        raise ZeroDivisionError

    async with world({"observer": observe}) as w:
        w.sandbox.faults.add("rate_limited", method="POST", path="assets", times=1, retry_after="none")
        async with w.session.ingest(sources(5), group=w.group) as stream:
            assert len([asset async for asset in stream]) == 5
        finished = [event for event in events if isinstance(event, RequestFinished)]
        assert len(finished) == w.session.stats().requests
        assert sum(isinstance(event, RetryPlanned) for event in events) == 1
        assert sum(isinstance(event, Accepted) for event in events) == 5
        assert all(not isinstance(event, Outage | LimitChanged) or event.at for event in events)
    assert caplog.text.count("observer raised") == 1
    assert "canary" not in repr(events)


def test_errors_travel_between_processes() -> None:
    error = AuthError("bad key", status=401, code="authentication_error", request_id="r1")
    again: Any = pickle.loads(pickle.dumps(error.concerning("front")))  # noqa: S301 - our own
    assert str(again) == str(error.concerning("front"))
    assert again.status == 401
    assert FAST


@pytest.mark.asyncio
@pytest.mark.parametrize("value", [None, 7, [], {}, b"x", True, object()])
async def test_what_is_no_id_and_no_path_is_refused_in_our_words(value: Any) -> None:
    async with quick("http://127.0.0.1:9") as session:
        for call in (session.wait_until_active, session.wait_for_video, session.upload_file):
            with pytest.raises(InvalidInput):
                await call(value)


def test_without_asyncio_it_says_that_it_is_for_asyncio() -> None:
    session = AvatarSession(KEY)
    for call in (session.open(), session.__aenter__()):
        with pytest.raises(SessionStateError, match="for asyncio only"):
            call.send(None)
