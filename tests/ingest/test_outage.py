"""An ill service under runs and single calls: what leaves meanwhile, what is in doubt, and what each error advises."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any

import attrs
import pytest
from rig.rude import Act, Close, Cut, Reset, RudeServer, Seen, Silence, json_answer, raw_answer, redirect
from rig.service import Service, accepted
from rig.world import quick, sources

from seedance_avatar import (
    AccountPool,
    AssetSource,
    AvatarError,
    ConnectionFailed,
    GenerationRequest,
    Limits,
    Polling,
    Retry,
    SubmissionInDoubt,
    Timeouts,
)
from seedance_avatar.events import Event, Outage

WIDTH = 4
PAGE = b"<html><title>Bad Gateway</title></html>"
ILL: dict[str, Act] = {
    "502 page": raw_answer(PAGE, 502),
    "500 JSON": json_answer({"error": {"message": "oops", "code": "server_error"}}, 500),
    "504 empty": raw_answer(b"", 504),
    "408": json_answer({"error": "timed out"}, 408),
    "200 page": raw_answer(PAGE, 200),
    "403 page": raw_answer(PAGE, 403),
    "429 page": raw_answer(PAGE, 429),
    "empty 200": raw_answer(b"", 200),
    "redirect": redirect("https://login.example.com/", 302),
    "reset": Reset(),
    "closed": Close(),
    "cut": Cut(accepted("pa_1"), 60),
    "silence": Silence(),
}


@attrs.define
class Failing:
    """A service that turns ill after ``good`` uploads, until it has answered ``enough`` requests so."""

    ill: Act
    good: int
    enough: float = 24
    lanes: tuple[str, ...] = ("POST", "GET")
    service: Service = attrs.field(factory=Service)
    sent_ill: Counter[str] = attrs.field(factory=Counter)

    def __call__(self, seen: Seen) -> Act:
        if seen.path.endswith("/groups"):
            return self.service(seen)
        posts = len(self.service.posts) + (seen.method == "POST")
        if (posts > self.good or self.sent_ill) and self.sent_ill.total() < self.enough and seen.method in self.lanes:
            self.sent_ill[seen.method] += 1
            return self.ill
        if seen.method == "GET" and not self.sent_ill:
            return accepted(seen.path.rpartition("/")[2])  # pending until the outage
        return self.service(seen)


def options(**more: Any) -> dict[str, Any]:
    return {
        "limits": attrs.evolve(Limits.unlimited(), max_submitting=WIDTH),
        "polling": Polling.fixed(0.02, 0.02),
        "retry": Retry(base=0.002, cap=0.03, patience=30.0),
        "timeouts": Timeouts(connect=2.0, request=0.1, drain=1.0),
        **more,
    }


async def counted(session: Any, count: int = 60, **more: Any) -> tuple[Counter[str], list[Any], Any]:
    async with session.ingest(iter(sources(count)), group="pg_1", **more) as stream:
        outcomes = [outcome async for outcome in stream.outcomes()]
    return Counter(type(outcome).__name__ for outcome in outcomes), outcomes, stream.report


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ILL)
async def test_while_assets_are_pending_questions_probe_and_no_submission_leaves(name: str) -> None:
    service, events = Failing(ILL[name], good=10), list[Event]()
    async with RudeServer(service) as server, quick(server.url, **options(observer=events.append)) as session:
        counts, _, report = await counted(session)
    # On the wire when it began, two of a streak before that, and one that was let out alone after a healthy look.
    assert service.sent_ill["POST"] <= 2 + 2 * WIDTH
    assert service.sent_ill["GET"] >= 12
    assert counts == {"Active": 60 - counts["InDoubt"], "InDoubt": counts["InDoubt"]}
    assert counts["InDoubt"] <= service.sent_ill["POST"]
    edges = [event for event in events if isinstance(event, Outage)]
    assert (edges[0].down, edges[0].ill, edges[-1].down) == (True, True, False)
    assert report.outages >= 1


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["502 page", "closed", "200 page"])
async def test_with_nothing_to_ask_one_submission_at_a_time_probes(name: str) -> None:
    service = Failing(ILL[name], good=0, enough=14)
    async with RudeServer(service) as server, quick(server.url, **options()) as session:
        counts, _, _ = await counted(session)
    assert counts["InDoubt"] == service.sent_ill["POST"] == 14
    assert counts["Active"] == 46


@pytest.mark.asyncio
@pytest.mark.parametrize("good", [0, 10])
async def test_an_outage_beyond_the_patience_ends_the_run_unsent(good: int) -> None:
    service = Failing(ILL["502 page"], good=good, enough=float("inf"))
    knobs = options(retry=Retry(base=0.002, cap=0.05, patience=0.5))
    async with RudeServer(service) as server, quick(server.url, **knobs) as session:
        counts, outcomes, report = await counted(session, 5000)
    assert counts["Unsent"] > 0
    assert counts["Pending"] == good
    assert set(counts) <= {"Unsent", "Pending", "InDoubt"}
    assert counts["InDoubt"] == service.sent_ill["POST"]
    if good:
        assert service.sent_ill["POST"] <= 2 + WIDTH
    assert not report.exhausted
    unsent = next(outcome for outcome in outcomes if type(outcome).__name__ == "Unsent")
    assert isinstance(unsent.error, ConnectionFailed)
    assert "run the same again" in str(unsent.error)
    assert "API key" not in str(unsent.error)


@pytest.mark.asyncio
async def test_one_worker_ends_when_its_probe_was_in_doubt() -> None:
    """Nobody else waits who could be told that the patience is over."""
    service = Failing(ILL["closed"], good=0, enough=float("inf"))
    limits = attrs.evolve(Limits.unlimited(), max_submitting=1)
    knobs = options(limits=limits, retry=Retry(base=0.002, cap=0.05, patience=0.3))
    async with RudeServer(service) as server, quick(server.url, **knobs) as session:
        counts, _, _ = await asyncio.wait_for(counted(session, 3000), 20)
    assert counts["Unsent"] > 0


@pytest.mark.asyncio
async def test_ill_looks_never_hold_up_submissions() -> None:
    service = Failing(ILL["502 page"], good=5, enough=200, lanes=("GET",))
    events: list[Event] = []
    async with RudeServer(service) as server, quick(server.url, **options(observer=events.append)) as session:
        counts, _, report = await counted(session)
    assert counts == {"Active": 60}
    assert report.outages == 0
    assert not [event for event in events if isinstance(event, Outage)]


@pytest.mark.asyncio
async def test_ill_submissions_are_let_out_one_at_a_time_though_looks_are_well() -> None:
    service = Failing(ILL["502 page"], good=5, enough=12, lanes=("POST",))
    async with RudeServer(service) as server, quick(server.url, **options()) as session:
        counts, _, _ = await counted(session)
    assert counts == {"Active": 48, "InDoubt": 12}


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [b"", PAGE, b'{"error":"busy"}'])
async def test_the_retry_after_of_a_503_is_kept(body: bytes) -> None:
    loop, times = asyncio.get_running_loop(), list[float]()
    inner = Service(post=[raw_answer(body, 503, {"Retry-After": "1"})])

    def service(seen: Seen) -> Act:
        if seen.method == "POST":
            times.append(loop.time())
        return inner(seen)

    limits = attrs.evolve(Limits.unlimited(), max_submitting=1)
    async with RudeServer(service) as server, quick(server.url, **options(limits=limits)) as session:
        counts, _, _ = await counted(session, 5)
    assert counts == {"InDoubt": 1, "Active": 4}
    assert times[1] - times[0] >= 0.95


@pytest.mark.asyncio
async def test_single_uploads_are_told_that_nothing_was_sent() -> None:
    service = Failing(ILL["502 page"], good=0, enough=10)
    errors, said = Counter[type](), list[str]()
    async with RudeServer(service) as server, quick(server.url, **options()) as session:

        async def caller(number: int) -> None:
            for n in range(40):
                try:
                    await session.upload(AssetSource.image(f"https://cdn.example.com/{number}-{n}.jpg"), group="pg_1")
                except AvatarError as error:
                    errors[type(error)] += 1
                    said.append(str(error))

        await asyncio.gather(*map(caller, range(WIDTH)))
        assert session.stats().down_for is None
        assert session.stats().outages == 1
    assert set(errors) == {SubmissionInDoubt, ConnectionFailed}
    assert errors[SubmissionInDoubt] == 10
    assert all(words.startswith("https://cdn.example.com/") for words in said)


@pytest.mark.asyncio
async def test_single_uploads_that_wait_for_their_turn_are_not_sent_into_an_outage() -> None:
    service = Failing(ILL["502 page"], good=0, enough=math.inf)
    retry = Retry(base=0.05, cap=0.1, patience=1.0)
    async with RudeServer(service) as server, quick(server.url, **options(retry=retry)) as session:
        given = [AssetSource.image(f"https://cdn.example.com/{n}.jpg") for n in range(60)]
        uploads = [session.upload(source, group="pg_1") for source in given]
        errors = Counter(map(type, await asyncio.gather(*uploads, return_exceptions=True)))
    assert errors[SubmissionInDoubt] == service.sent_ill.total() <= 2 * WIDTH
    assert errors[ConnectionFailed] == 60 - errors[SubmissionInDoubt]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["502 page", "reset"])
async def test_generations_are_looked_up_and_sent_again_after_an_outage(name: str) -> None:
    tasks: dict[str, str] = {}
    ill: list[str] = []

    def service(seen: Seen) -> Act:
        began = bool(ill) or (seen.method == "POST" and len(tasks) >= 5)
        if began and len(ill) < 20:
            ill.append(seen.method)
            return ILL[name]
        if seen.method == "POST":
            business = seen.json()["client_business_id"]
            assert business not in tasks
            tasks[business] = f"task_{len(tasks)}"
            return json_answer({"id": tasks[business], "status": "queued"})
        asked = seen.path.rpartition("/")[2]
        if asked not in tasks and asked not in tasks.values():
            return json_answer({"error": {"code": "task_not_found", "message": "no"}}, 404)
        done = {
            "id": tasks.get(asked, asked),
            "status": "completed",
            "result": {"data": [{"url": "https://f.example/a"}]},
        }
        return json_answer(done if ill else done | {"status": "queued"})

    async with RudeServer(service) as server, quick(server.url, **options()) as session:
        session._videos.adapter.looks = (0.02, 0.05)
        requests = [GenerationRequest(f"She waves {n}.", key=f"k{n}") for n in range(12)]
        async with session.generate_many(requests) as stream:
            kinds = Counter([type(outcome).__name__ async for outcome in stream.outcomes()])
    assert kinds == {"Active": 12}
    assert ill.count("POST") <= 2 + WIDTH


@pytest.mark.asyncio
async def test_a_pool_moves_on_to_the_account_that_is_well() -> None:
    well = Service()

    def service(seen: Seen) -> Act:
        sick = seen.headers.get("authorization", "").endswith("sk-account-a")
        return ILL["closed"] if sick and not seen.path.endswith("/groups") else well(seen)

    knobs = options(retry=Retry(base=0.002, cap=0.05, patience=1.0))
    async with RudeServer(service) as server:
        pool = AccountPool({"a": "sk-account-a", "b": "sk-account-b"}, base_url=server.url, **knobs)
        async with pool, pool.ingest(iter(sources(80)), group_name="g") as stream:
            kinds = Counter([(o.account, type(o).__name__) async for o in stream.outcomes()])
    assert set(kinds) == {("a", "InDoubt"), ("b", "Active")}
    assert kinds["b", "Active"] > 80 - WIDTH - 25
