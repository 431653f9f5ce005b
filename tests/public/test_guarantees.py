"""What the README promises under each fault, seen from where a user stands: the outcomes of an ingest."""

from __future__ import annotations

import ast
import asyncio
import os
import socket
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import attrs
import pytest
from proof.guarantees import GUARANTEES, PAGE, README, page, written
from rig.clock import LoopClock, loop_clock
from rig.leaks import no_leaks
from rig.proxy import black_hole
from rig.rude import (
    Act,
    Bytes,
    Close,
    Cut,
    Drip,
    Endless,
    Reset,
    RudeServer,
    Seen,
    Silence,
    gzip_bomb,
    json_answer,
    raw_answer,
    redirect,
    until,
)
from rig.service import Service, accepted
from rig.tls import server_context
from rig.world import quick, sources, world

from seedance_avatar import (
    Active,
    AssetFailed,
    AuthError,
    AvatarSession,
    ConnectionFailed,
    Failed,
    InDoubt,
    InvalidRequest,
    Limits,
    NotFound,
    Outcome,
    Pending,
    Polling,
    QuotaExhausted,
    RateLimited,
    Retry,
    SessionStateError,
    SubmissionInDoubt,
    Timeouts,
    Unsent,
    WaitTimeout,
)
from seedance_avatar.sandbox import Sandbox
from seedance_avatar.sandbox.fates import Fate

ONE_AT_A_TIME = Limits(submits_per_second=1e9, queries_per_second=1e9, max_submitting=1, max_polling=1)


async def ingested(session: AvatarSession, count: int = 3, **options: Any) -> list[Outcome]:
    """Return the outcomes of ``count`` sources, one for each, each error a printable line."""
    async with session.ingest(sources(count), group="pg_1", **options) as stream:
        outcomes = [outcome async for outcome in stream.outcomes()]
    assert Counter(outcome.source for outcome in outcomes) == Counter(sources(count))
    for outcome in outcomes:
        if not isinstance(outcome, Active):
            told = str(outcome.error)
            assert told.isprintable()
            assert "canary" not in told
    return outcomes


@asynccontextmanager
async def served(service: Callable[[Seen], Act], **knobs: Any) -> AsyncIterator[tuple[AvatarSession, RudeServer]]:
    """Yield a session with a service that misbehaves; nothing may be left of the two."""
    async with (
        no_leaks(),
        RudeServer(service) as server,
        quick(server.url, **{"limits": ONE_AT_A_TIME, **knobs}) as session,
    ):
        yield session, server


def of_type(outcomes: list[Outcome], kind: type[Any]) -> list[Any]:
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]


async def spoiled_upload_is_in_doubt(act: Act, **knobs: Any) -> Any:
    """The second of three uploads meets ``act``: it alone is in doubt, and nothing is sent twice."""
    answers = [accepted("pa_1"), act]
    service = Service(post=answers)
    async with served(service, **knobs) as (session, _):
        outcomes = await ingested(session)
    (doubtful,) = of_type(outcomes, InDoubt)
    assert doubtful.source == sources(3)[1]
    assert isinstance(doubtful.error, SubmissionInDoubt)
    assert len(of_type(outcomes, Active)) == 2
    assert service.most_posts() == 1
    return doubtful.error


async def spoiled_look_is_repeated(act: Act, **knobs: Any) -> None:
    """Two looks meet ``act``: nobody notices."""
    service = Service(get=[act, act])
    async with served(service, **knobs) as (session, _):
        outcomes = await ingested(session)
    assert len(of_type(outcomes, Active)) == 3
    assert service.most_posts() == 1
    assert len(service.looks) >= 5


async def refused_upload_is_repeated(act: Act, times: int = 2, **knobs: Any) -> list[float]:
    """The first upload is clearly refused ``times`` times and goes through then; return when requests came."""
    service = Service(post=[act] * times)
    moments: list[float] = []
    loop = asyncio.get_running_loop()

    def timed(seen: Seen) -> Act:
        moments.append(loop.time())
        return service(seen)

    async with served(timed, **knobs) as (session, _):
        outcomes = await ingested(session)
    assert len(of_type(outcomes, Active)) == 3
    assert len(service.posts) == 3 + times
    assert len(set(service.made.values())) == 3
    return moments


# --- the table and the README -------------------------------------------------------------------------------


def test_every_guarantee_names_a_test_that_exists() -> None:
    tests = Path(__file__).parents[1]
    names: dict[str, set[str]] = {}
    for guarantee in GUARANTEES:
        file, name = guarantee.where
        if file not in names:
            tree = ast.parse((tests / file).read_text(encoding="utf-8"))
            names[file] = {it.name for it in tree.body if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in names[file], f"{guarantee.fault}: there is no {file}::{name}"
    assert len({guarantee.fault for guarantee in GUARANTEES}) == len(GUARANTEES)


def test_both_pages_hold_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert written(text) == text, "run: python -m tests.proof guarantees"
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.proof guarantees"
    assert sum(it.first for it in GUARANTEES) == 10


# --- nothing was sent ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_connection_refused() -> None:
    async with Sandbox(time_scale=0.002) as sandbox:
        await sandbox.aclose()
        async with (
            quick(sandbox.url, retry=Retry(base=0.001, cap=0.02, patience=30)) as session,
            session.ingest(sources(30), group="pg_1") as stream,
        ):
            await until(lambda: session.stats().down_for)
            await sandbox.start()
            outcomes = [outcome async for outcome in stream.outcomes()]
        # The sandbox knows no such group: the answer came, so the wait was for the network and nothing else.
        assert {type(outcome) for outcome in outcomes} == {Failed}
        assert sandbox.ledger.count(kind="assets") == 30


@pytest.mark.asyncio
async def test_connection_refused_beyond_the_patience() -> None:
    async with Sandbox() as sandbox:
        url = sandbox.url
    async with no_leaks(), quick(url, retry=Retry(base=0.001, cap=0.01, patience=0.1)) as session:
        outcomes = await ingested(session, 30)
    assert len(of_type(outcomes, Unsent)) == 30
    assert all(isinstance(outcome.error, ConnectionFailed) for outcome in of_type(outcomes, Unsent))


@pytest.mark.asyncio
async def test_dns_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    known = loop.getaddrinfo
    asked = 0

    async def unknown_at_first(_: object, *rest: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await known("127.0.0.1", *rest, **more)

    service = Service()
    async with RudeServer(service) as server:
        monkeypatch.setattr(loop, "getaddrinfo", unknown_at_first)
        url = f"http://service.localhost:{server.port}"
        async with no_leaks(), quick(url, limits=ONE_AT_A_TIME, retry=Retry(base=0.001, cap=0.01)) as session:
            outcomes = await ingested(session)
    assert len(of_type(outcomes, Active)) == 3
    assert service.most_posts() == 1
    assert asked >= 4


@pytest.mark.asyncio
async def test_tls_failure() -> None:
    async with (
        RudeServer(Service(), tls=server_context()) as server,
        no_leaks(),
        quick(server.url, limits=ONE_AT_A_TIME, retry=Retry(base=0.001, patience=60)) as session,
    ):
        outcomes = await ingested(session)
        assert session.stats().retries == 0
    assert len(of_type(outcomes, Unsent)) == 3
    assert all(isinstance(outcome.error, ConnectionFailed) and outcome.error.fatal for outcome in outcomes)  # type: ignore[union-attr]  # all are Unsent
    assert server.received == 0


@pytest.mark.asyncio
async def test_connect_black_hole() -> None:
    knobs: dict[str, Any] = {
        "timeouts": Timeouts(connect=0.05, request=5),
        "retry": Retry(base=0.001, cap=0.01, patience=0.15),
    }
    with black_hole() as port:
        async with no_leaks(), quick(f"http://127.0.0.1:{port}", **knobs) as session:
            outcomes = await ingested(session)
    assert len(of_type(outcomes, Unsent)) == 3
    assert all("within 0.05 s" in str(outcome.error) for outcome in of_type(outcomes, Unsent))


# --- sent, and no answer ------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_reset_after_accept() -> None:
    service = Service()
    resets = iter([True, False, True, False])

    class Rude(RudeServer):
        def _next(self, seen: Seen | None) -> Act | None:
            # Every other connection is reset before a byte of it is read.
            return (Reset() if next(resets, False) else None) if seen is None else super()._next(seen)

    async with no_leaks(), Rude(service) as server, quick(server.url, limits=ONE_AT_A_TIME) as session:
        outcomes = await ingested(session)
    # The bytes may have left before the reset came in: that is a doubt, and no second upload.
    assert {type(outcome) for outcome in outcomes} <= {Active, InDoubt}
    assert service.most_posts() <= 1
    assert len(of_type(outcomes, Active)) >= 1


@pytest.mark.asyncio
@pytest.mark.parametrize("act", [Close(), Reset()], ids=["closed", "reset"])
async def test_answer_lost_after_applying(act: Act) -> None:
    await spoiled_upload_is_in_doubt(act)
    await spoiled_look_is_repeated(act)


@pytest.mark.asyncio
async def test_silence() -> None:
    timeouts = Timeouts(connect=5, request=0.15, drain=1)
    error = await spoiled_upload_is_in_doubt(Silence(), timeouts=timeouts)
    assert "0.15 s" in str(error)
    await spoiled_look_is_repeated(Silence(), timeouts=timeouts)


@pytest.mark.asyncio
async def test_reset_at_every_byte_of_an_upload_s_answer() -> None:
    answer = accepted("pa_1")
    # Two whole answers after each, in order: a service that only cuts is ill, and is not sent as much.
    cuts = [Cut(answer, at, reset=True) for at in range(len(answer.data))]
    service = Service(post=[each for cut in cuts for each in (cut, answer, answer)])
    count = 3 * len(cuts) + 1
    async with served(service, limits=attrs.evolve(Limits.unlimited(), max_submitting=1)) as (session, _):
        outcomes = await ingested(session, count)
    assert len(of_type(outcomes, InDoubt)) == len(cuts)
    assert len(of_type(outcomes, Active)) == count - len(cuts)
    assert service.most_posts() == 1


@pytest.mark.asyncio
async def test_reset_at_every_byte_of_a_look_s_answer() -> None:
    answer = accepted("pa_1", "active")
    service = Service(get=[Cut(answer, at, reset=True) for at in range(len(answer.data))])
    async with served(service, retry=Retry(base=0, cap=0, patience=30)) as (session, _):
        outcomes = await ingested(session)
    assert len(of_type(outcomes, Active)) == 3
    assert len(service.looks) >= len(answer.data) + 3


@pytest.mark.asyncio
async def test_slow_drip() -> None:
    answer = accepted("pa_1")
    drip = Drip(answer, every=0.03, after=len(answer.data) - 20)
    timeouts = Timeouts(connect=5, request=0.15, drain=1)
    await spoiled_upload_is_in_doubt(drip, timeouts=timeouts)
    await spoiled_look_is_repeated(drip, timeouts=timeouts)


@pytest.mark.asyncio
async def test_stale_keep_alive() -> None:
    """Each connection ends after one answer, which says nothing of it."""
    service = Service()

    def once(seen: Seen) -> Act:
        act = service(seen)
        assert isinstance(act, Bytes)
        return Bytes(act.data, then="close")

    async with served(once) as (session, server):
        outcomes = await ingested(session, 20)
        assert server.connections >= 20
    assert service.most_posts() == 1
    assert {type(outcome) for outcome in outcomes} <= {Active, InDoubt}


# --- too fast -----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("wait", ["seconds", "date"])
async def test_429_with_a_wait(wait: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves before the time is over; a date is read against the answer's own, not against our clock."""
    now = time.time()
    headers = {"Date": formatdate(now, usegmt=True)}
    headers["Retry-After"] = "30" if wait == "seconds" else formatdate(now + 30, usegmt=True)
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    with loop_clock(100) as clock:
        began = clock.now()
        knobs = {"timeouts": Timeouts(connect=3000, request=3000, drain=300), "retry": Retry(patience=3000)}
        moments = await refused_upload_is_repeated(raw_answer(b"", 429, headers), 1, **knobs)
    assert moments[1] - moments[0] >= 29.5
    assert moments[0] - began < 29.5


@pytest.mark.asyncio
@pytest.mark.parametrize("wait", [None, "-1", "NaN", "1e999", "soon", "9" * 400])
async def test_429_without_a_usable_wait(wait: str | None) -> None:
    headers = {} if wait is None else {"Retry-After": wait}
    await refused_upload_is_repeated(raw_answer(b"", 429, headers))


@pytest.mark.asyncio
async def test_429_that_asks_for_a_day() -> None:
    refusal = raw_answer(b"", 429, {"Retry-After": "86400"})
    service = Service(post=[refusal] * 9)
    async with served(service) as (session, _):
        with pytest.raises(RateLimited) as caught:
            await session.upload(sources(1)[0], group="pg_1")
    assert caught.value.retry_after == 86_400
    assert len(service.posts) == 1
    service = Service(post=[refusal] * 9)
    async with served(service) as (session, _):
        outcomes = await ingested(session)
    assert all(isinstance(outcome.error, RateLimited) for outcome in of_type(outcomes, Unsent))
    assert len(of_type(outcomes, Unsent)) == 3


# --- answers of a service that is not well ------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [500, 502, 504, 524])
async def test_5xx_with_a_page_of_html(status: int) -> None:
    page = raw_answer(b"<html><title>Bad \x1b[31mday</title></html>", status, {"Content-Type": "text/html"})
    error = await spoiled_upload_is_in_doubt(page)
    assert "Bad" in error.evidence
    await spoiled_look_is_repeated(page)


@pytest.mark.asyncio
@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}], ids=["bare", "with a wait"])
async def test_503(headers: dict[str, str]) -> None:
    await spoiled_upload_is_in_doubt(raw_answer(b"", 503, headers))


@pytest.mark.asyncio
async def test_503_of_the_limiter() -> None:
    body = {"error": {"message": "limiter down", "code": "rate_limit_unavailable"}}
    await refused_upload_is_repeated(json_answer(body, 503))


@pytest.mark.asyncio
async def test_200_with_success_false() -> None:
    refusal = json_answer({"success": False, "message": "invalid \x1b[2Jrequest body", "data": None})
    service = Service(post=[refusal])
    async with served(service) as (session, _):
        outcomes = await ingested(session)
    (failed,) = of_type(outcomes, Failed)
    assert failed.asset is None
    assert isinstance(failed.error, InvalidRequest)
    assert "request body" in str(failed.error)
    assert len(service.posts) == 3
    await spoiled_look_is_repeated(refusal)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "act",
    [
        raw_answer(b'{"success": true, "data": {"asset_id": "pa_9", "sta'),
        raw_answer(b""),
        raw_answer(b"<html>ok</html>"),
        raw_answer(b"null"),
        raw_answer(b"[" * 100_000),
        raw_answer(b"\xff\xfe\x00"),
    ],
    ids=["truncated", "empty", "html", "null", "deep", "bytes"],
)
async def test_200_that_cannot_be_read(act: Act) -> None:
    await spoiled_upload_is_in_doubt(act)
    await spoiled_look_is_repeated(act)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "asset_id", [None, 7, "", [], {}, "../../admin", "a\r\nb", "\x1b[2J", "x" * 4000, "\uff21\uff22", ...]
)
async def test_an_id_that_cannot_be_used(asset_id: Any) -> None:
    data = {"status": "active"} if asset_id is ... else {"status": "active", "asset_id": asset_id}
    await spoiled_upload_is_in_doubt(json_answer({"success": True, "data": data}))


@pytest.mark.asyncio
async def test_wrong_types_beside_a_good_id() -> None:
    odd = {"asset_id": "pa_77", "status": 7, "group_id": [], "name": {"a": 1}, "asset_type": None, "new": "key"}
    service = Service(post=[json_answer({"success": True, "data": odd})], get=[json_answer({"data": odd})])
    async with served(service) as (session, _):
        outcomes = await ingested(session, 1)
    assert len(of_type(outcomes, Active)) == 1
    assert service.looks.count("pa_77") == 2


@pytest.mark.asyncio
async def test_an_unknown_status() -> None:
    service = Service(post=[accepted("pa_1", "quantum")], get=[accepted("pa_1", "\x1b[31mverifying")] * 3)
    async with served(service) as (session, _):
        outcomes = await ingested(session, 1)
    assert len(of_type(outcomes, Active)) == 1
    assert len(service.looks) == 4


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "act",
    [
        gzip_bomb(),
        Endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        Endless(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 1000 + b"\r\n"),
    ],
    ids=["bomb", "body", "headers"],
)
async def test_an_answer_without_end(act: Act) -> None:
    tracemalloc.start()
    try:
        await spoiled_upload_is_in_doubt(act)
        await spoiled_look_is_repeated(act)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.asyncio
async def test_a_redirect() -> None:
    async with RudeServer(Service()) as other:
        for target in ("/v1/elsewhere", f"{other.url}/v1/assets?token=canary"):
            await spoiled_upload_is_in_doubt(redirect(target))
            await spoiled_look_is_repeated(redirect(target))
        assert other.connections == 0


# --- the account --------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[Act, type[Exception]]] = {
    "key": (json_answer({"error": {"message": "bad key", "code": "authentication_error"}}, 401), AuthError),
    "money": (json_answer({"error": {"message": "poor", "code": "insufficient_quota"}}, 402), QuotaExhausted),
    "money as 403": (json_answer({"error": {"message": "x", "code": "insufficient_user_quota"}}, 403), QuotaExhausted),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("which", list(REFUSALS))
@pytest.mark.parametrize("after", [0, 5])
async def test_the_account_is_refused(which: str, after: int) -> None:
    """At the start and in the middle: nothing new is sent or read, what was accepted is followed to its end."""
    act, kind = REFUSALS[which]
    service = Service(post=[*(accepted(f"pa_a{n}") for n in range(after)), *[act] * 99])
    taken = 0

    async def endless() -> AsyncIterator[Any]:  # noqa: ASYNC900 - a source as a user writes one
        nonlocal taken
        while True:
            yield sources(1, taken)[0]
            taken += 1

    async with served(service) as (session, _), session.ingest(endless(), group="pg_1") as stream:
        outcomes = [outcome async for outcome in stream.outcomes()]
    assert len(of_type(outcomes, Active)) == after
    assert len(of_type(outcomes, Unsent)) == len(outcomes) - after > 0
    assert all(isinstance(outcome.error, kind) for outcome in of_type(outcomes, Unsent))
    assert len(service.posts) == after + 1
    assert len(outcomes) == stream.report.taken <= after + 10
    assert not stream.report.exhausted


@pytest.mark.asyncio
async def test_the_key_is_refused_while_polling() -> None:
    service = Service(get=[REFUSALS["key"][0]] * 99)
    async with served(service) as (session, _):
        outcomes = await ingested(session)
    pending = of_type(outcomes, Pending)
    assert {outcome.asset.asset_id for outcome in pending} == set(service.made.values())
    assert pending
    assert all(isinstance(outcome.error, AuthError) for outcome in pending)
    assert {type(outcome) for outcome in outcomes} <= {Pending, Unsent}


# --- assets -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_asset_that_never_finishes() -> None:
    service = Service(ends_as="processing")
    async with served(service) as (session, _):
        outcomes = await ingested(session, asset_timeout=0.1)
    pending = of_type(outcomes, Pending)
    assert len(pending) == 3
    assert all(isinstance(outcome.error, WaitTimeout) for outcome in pending)
    assert {outcome.asset.asset_id for outcome in pending} == set(service.made.values())


@pytest.mark.asyncio
async def test_an_asset_that_fails() -> None:
    failed = json_answer({"data": {"asset_id": "pa_1", "status": "Failed", "fail_reason": "two \x1b[31mfaces"}})
    service = Service(get=[failed])
    async with served(service) as (session, _):
        outcomes = await ingested(session, 1)
    (outcome,) = of_type(outcomes, Failed)
    assert isinstance(outcome.error, AssetFailed)
    assert outcome.asset.asset_id == "pa_1"
    assert "faces" in str(outcome.error)
    assert service.most_posts() == 1


MISSING = json_answer({"error": {"message": "asset not found", "code": "asset_not_found"}}, 404)


@pytest.mark.asyncio
async def test_404_right_after_acceptance() -> None:
    service = Service(get=[MISSING] * 5)
    async with served(service) as (session, _):
        assert len(of_type(await ingested(session), Active)) == 3


@pytest.mark.asyncio
async def test_404_for_longer_than_a_minute() -> None:
    service = Service(get=[MISSING] * 10_000)
    with loop_clock(200) as clock:
        knobs = {"timeouts": Timeouts(connect=6000, request=6000, drain=600), "polling": Polling.fixed(5, 5)}
        async with served(service, **knobs) as (session, _):
            began = clock.now()
            outcomes = await ingested(session, 2)
            assert clock.now() - began >= 60
    failed = of_type(outcomes, Failed)
    assert len(failed) == 2
    assert all(isinstance(outcome.error, NotFound) for outcome in failed)
    assert service.most_posts() == 1


# --- clocks -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_wall_clock_jumps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Back a year and on two years between any two questions: no deadline hangs on it, a journal's neither."""
    truly, calls = time.time, 0

    def jumping() -> float:
        nonlocal calls
        calls += 1
        return truly() + (-31e6 if calls % 2 else 62e6)

    async with no_leaks(), world() as w:
        monkeypatch.setattr(time, "time", jumping)
        for _ in range(2):
            async with w.session.ingest(
                sources(20), group=w.group, asset_timeout=20, journal=tmp_path / "run.db"
            ) as stream:
                outcomes = [outcome async for outcome in stream.outcomes()]
            assert [type(outcome) for outcome in outcomes] == [Active] * 20
        assert w.sandbox.ledger.duplicates() == {}
        monkeypatch.undo()


def _stalled_looks(clock: LoopClock, at: int, seconds: float) -> tuple[Service, Callable[[Seen], Act]]:
    service = Service()

    def script(seen: Seen) -> Act:
        act = service(seen)
        if len(service.looks) == at and seen.method == "GET":
            clock.stall(seconds)
        # Nothing is finished at the stall; all of it is, when it is looked at again.
        return act if len(service.looks) > at else act if seen.method == "POST" else accepted(service.looks[-1])

    return service, script


@pytest.mark.asyncio
async def test_the_loop_stalls_for_ten_minutes() -> None:
    """All deadlines are over at once; each asset is looked at once more, and all of them are active."""
    with loop_clock() as clock:
        service, script = _stalled_looks(clock, at=40, seconds=600)
        knobs = {"timeouts": Timeouts(connect=3000, request=3000), "limits": Limits.unlimited()}
        async with served(script, **knobs) as (session, _):
            outcomes = await ingested(session, 60, asset_timeout=300)
    assert len(of_type(outcomes, Active)) == 60
    assert service.most_posts() == 1


@attrs.frozen
class SendThenStall(Act):
    """Answer once ``event`` is set, and let ten minutes pass before the client can look at it."""

    answer: Bytes
    event: asyncio.Event
    clock: LoopClock

    async def play(self, peer: Any) -> bool:
        await self.event.wait()
        await peer.send(self.answer.data)
        self.clock.stall(600)
        return True


@pytest.mark.asyncio
async def test_the_loop_stalls_while_uploads_are_on_the_wire() -> None:
    """The answers have come in the meantime: they are read before anything is given up."""
    release = asyncio.Event()
    with loop_clock() as clock:
        service = Service(post=[SendThenStall(accepted(f"pa_{n}"), release, clock) for n in range(8)])
        async with served(service, limits=Limits.unlimited()) as (session, _):
            run = asyncio.create_task(ingested(session, 8))
            await until(lambda: len(service.posts) == 8)
            release.set()
            outcomes = await run
    assert [type(outcome) for outcome in outcomes] == [Active] * 8
    assert service.most_posts() == 1


# --- where it runs ------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("obeyed", [False, True])
async def test_proxies_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, obeyed: bool) -> None:
    service, behind = Service(), Service()
    async with RudeServer(service) as server, RudeServer(behind) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        async with quick(server.url, trust_env=obeyed) as session:
            assert len(of_type(await ingested(session), Active)) == 3
    assert (len(service.posts), len(behind.posts)) == ((0, 3) if obeyed else (3, 0))


@pytest.mark.asyncio
async def test_a_fork() -> None:
    """A child that uses its parent's session is told so and sends nothing; the parent's ingest goes on."""
    service = Service()
    async with served(service) as (session, _), session.ingest(sources(3), group="pg_1") as stream:
        outcomes = [await anext(stream.outcomes())]
        child = os.fork()
        if not child:
            code = 1
            try:
                _ = session.engine
            except SessionStateError as error:
                code = 0 if "fork" in str(error) else 2
            os._exit(code)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once
        outcomes += [outcome async for outcome in stream.outcomes()]
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(of_type(outcomes, Active)) == 3
    assert service.most_posts() == 1


def test_another_loop() -> None:
    service = Service()

    async def elsewhere(session: AvatarSession) -> None:
        with pytest.raises(SessionStateError, match="another event loop"):
            async with session.ingest(sources(3), group="pg_1"):
                pass

    with asyncio.Runner() as first, asyncio.Runner() as second:
        session = first.run(quick("http://127.0.0.1:9").open())
        second.run(elsewhere(session))
        first.run(session.aclose())
    assert service.posts == []


@pytest.mark.asyncio
async def test_the_stuck_and_the_failed_among_many() -> None:
    async with no_leaks(), world() as w:
        stuck, failed = sources(40)[3], sources(40)[17]
        w.sandbox.decide(stuck.source_url, Fate.stuck())
        w.sandbox.fail(failed.source_url, reason="no subject")
        async with w.session.ingest(sources(40), group=w.group, asset_timeout=0.6) as stream:
            outcomes = [outcome async for outcome in stream.outcomes()]
        assert [outcome.source for outcome in of_type(outcomes, Pending)] == [stuck]
        assert [outcome.source for outcome in of_type(outcomes, Failed)] == [failed]
        assert w.sandbox.ledger.check(outcomes) == []
