"""The recipes, run as they stand: real servers, real clients, the sandbox behind them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from recipes import aiohttp_service, key_rotation, shared_budget, starlette_service
from rig.recipes import PAGE, RECIPES, ROOT, rendered

from seedance_avatar import AvatarSession, Limits, Polling
from seedance_avatar.sandbox import Fate, Sandbox
from seedance_avatar.sandbox.server import in_thread

QUICK = Polling.fixed(0.02, 0.02)


@contextmanager
def pointed_at(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Sandbox]:
    """Run a sandbox, and let a session find it by the environment and look at its pace."""
    defaults = {**(AvatarSession.__init__.__kwdefaults__ or {}), "polling": QUICK}
    monkeypatch.setattr(AvatarSession.__init__, "__kwdefaults__", defaults)
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-sandbox")
    with in_thread(**options) as sandbox:
        monkeypatch.setenv("TOAPIS_BASE_URL", sandbox.url)
        yield sandbox


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.chdir(tmp_path)
    with pointed_at(monkeypatch, time_scale=0.01) as sandbox:
        yield sandbox


async def new_group() -> str:
    async with AvatarSession() as session:
        return (await session.create_group("hero")).group_id


def urls(count: int, name: str = "face") -> list[str]:
    return [f"https://cdn.example.com/{name}-{number}.jpg" for number in range(count)]


def test_the_page_shows_every_recipe_as_it_is() -> None:
    assert PAGE.read_text(encoding="utf-8") == rendered(), "write it anew: python tests/rig/recipes.py"
    assert {path.name for path in RECIPES} == {path.name for path in RECIPES[0].parent.glob("*.py")}


@pytest.mark.asyncio
async def test_aiohttp(sandbox: Sandbox) -> None:
    group = await new_group()
    runner = web.AppRunner(aiohttp_service.make_app(), shutdown_timeout=0)
    await runner.setup()
    session = runner.app[aiohttp_service.SESSION]
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as http:

            async def add(url: str) -> tuple[int, dict[str, Any]]:
                async with http.post("/assets", json={"url": url, "group": group}) as answer:
                    return answer.status, await answer.json()

            told = await asyncio.gather(*map(add, urls(20)))
            assert {status for status, _ in told} == {201}
            assert {body["asset"] for _, body in told} == {f"asset://{it.asset_id}" for it in sandbox.ledger.uploads}
            status, body = await add("http://192.168.0.1/x.jpg")
            assert (status, len(sandbox.ledger)) == (422, 20)
            assert "is not a public address" in body["error"]
            sandbox.decide("https://cdn.example.com/bad.jpg", Fate.refused("may contain real person"))
            status, body = await add("https://cdn.example.com/bad.jpg")
            assert status == 502
            assert "may contain real person" in body["error"]
            async with http.get("/health") as answer:
                assert answer.status == 200
                assert (await answer.json())["requests"] >= 41
    finally:
        await runner.cleanup()
    assert "closed" in repr(session)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_level="critical", lifespan="on", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", server
        finally:
            server.should_exit = True
            await serving


async def told_of(answer: aiohttp.ClientResponse) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream that was read to its end."""
    text = (await answer.read()).decode()
    blocks = [block.split("\n") for block in text.split("\n\n") if block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


@pytest.mark.asyncio
async def test_starlette_tells_the_progress_of_an_ingest(sandbox: Sandbox) -> None:
    group = await new_group()
    sandbox.fail("https://cdn.example.com/face-3.jpg", reason="more than one subject")
    async with served(starlette_service.app) as (url, _), aiohttp.ClientSession(url) as http:
        async with http.post("/ingests", json={"urls": urls(60), "group": group}) as answer:
            assert answer.status == 202
            where = (await answer.json())["progress"]
        async with http.get(where) as answer:
            assert answer.content_type == "text/event-stream"
            events = await told_of(answer)
        assert events[0][0] == "progress"
        assert events[-1] == ("done", {"taken": 60, "active": 59, "failed": 1})
        async with http.get("/ingests/99") as answer:
            assert answer.status == 404
        async with http.get("/health") as answer:
            assert answer.status == 200
            assert (await answer.json())["ingests"] == 0
    assert sandbox.ledger.duplicates() == {}


@pytest.mark.asyncio
async def test_starlette_ends_in_order_while_an_ingest_runs(sandbox: Sandbox) -> None:
    group = await new_group()
    for url in urls(5):
        sandbox.decide(url, Fate.stuck())
    async with served(starlette_service.app) as (url, _), aiohttp.ClientSession(url) as http:
        async with http.post("/ingests", json={"urls": urls(5), "group": group}) as answer:
            assert answer.status == 202
        async with http.get("/ingests/1") as answer:
            async for line in answer.content:  # somebody listens to the end
                if line.startswith(b"data: ") and json.loads(line[6:])["polling"] == 5:
                    break
        job = starlette_service.app.state.jobs[1]
    report = job.task.result()
    assert (report.taken, report.pending) == (5, 5)


@contextmanager
def worker(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the worker as a process of its own, with looks at the sandbox's pace."""
    program = (
        "import runpy, sys; from seedance_avatar import AvatarSession, Polling\n"
        "AvatarSession.__init__.__kwdefaults__['polling'] = Polling.fixed(0.02, 0.02)\n"
        "sys.argv[0] = 'tests/recipes/worker.py'; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    with subprocess.Popen(  # noqa: S603 - our own interpreter and recipe
        [sys.executable, "-c", program, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.asyncio
async def test_a_worker_drains_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pointed_at(monkeypatch, stepped=True) as sandbox:
        group = await new_group()
        sources = urls(40)
        for url in sources[:10]:
            sandbox.decide(url, Fate.active(after=0))
        (tmp_path / "urls.txt").write_text("\n".join(sources) + "\n")
        arguments = [str(tmp_path / "urls.txt"), group, str(tmp_path / "run.db")]
        with worker(*arguments) as first:
            assert first.stdout is not None
            told = [await asyncio.to_thread(first.stdout.readline) for _ in range(10)]
            first.send_signal(signal.SIGTERM)
            rest, _ = await asyncio.to_thread(first.communicate)
        assert first.returncode == 3
        assert {line.split()[0] for line in told} == {"Active"}
        assert {line.split()[0] for line in rest.splitlines()} <= {"Pending", "Unsent"}
        sandbox.advance(3600)
        for url in sources:
            sandbox.decide(url, Fate.active(after=0))
        with worker(*arguments) as second:
            text, _ = await asyncio.to_thread(second.communicate)
        assert second.returncode == 0
        assert Counter(line.split()[0] for line in text.splitlines()) == {"Active": 40}
        assert len(sandbox.ledger) == 40
        assert sandbox.ledger.duplicates() == {}


@pytest.mark.asyncio
async def test_a_key_rotates_in_the_middle(
    sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = await new_group()
    key_file = tmp_path / "key"
    key_file.write_text("sk-sandbox\n")
    key = key_rotation.KeyFile(key_file)
    assert (key(), key()) == ("sk-sandbox", "sk-sandbox")

    def half_way() -> Iterator[str]:
        yield from urls(20)
        # As a secret manager does it: the new key works, the file is replaced, the old key works no more.
        sandbox.admit("sk-new")
        (tmp_path / "key.new").write_text("sk-new\n")
        (tmp_path / "key.new").replace(key_file)
        assert key() == "sk-new"
        yield from urls(20, "later")

    await key_rotation.main(str(key_file), group, half_way())  # type: ignore[arg-type]  # any iterable will do
    sandbox.revoke("sk-sandbox")
    await key_rotation.main(str(key_file), group, urls(5, "last"))
    assert len(capsys.readouterr().out.splitlines()) == 45
    assert len(sandbox.ledger) == 45


@pytest.mark.asyncio
async def test_ten_ingests_share_one_budget_fairly(sandbox: Sandbox) -> None:
    tenants = {f"tenant-{number}": urls(5 if number == 9 else 30, f"t{number}") for number in range(10)}
    active = await shared_budget.main(tenants, Limits(submits_per_second=400, submit_burst=1))
    assert active == {name: len(mine) for name, mine in tenants.items()}
    uploads = sorted(sandbox.ledger.uploads, key=lambda it: it.at)
    names = {group.group_id: group.name for group in sandbox.ledger.groups.values()}
    times: dict[str, list[float]] = {}
    for upload in uploads:
        times.setdefault(names[upload.group_id], []).append(upload.at)
    short = times.pop("tenant-9")
    assert short[-1] < min(mine[-1] for mine in times.values())
    # From when all nine had read their sources to when the first was done, none got more than another.
    begun, ended = max(mine[5] for mine in times.values()), min(mine[-1] for mine in times.values())
    shares = [sum(begun <= at <= ended for at in mine) for mine in times.values()]
    assert max(shares) - min(shares) <= 2
    assert sandbox.ledger.duplicates() == {}


def test_the_recipes_hold_no_key_and_no_machine() -> None:
    for path in RECIPES:
        text = path.read_text(encoding="utf-8")
        assert "sk-" not in text
        assert os.sep + "tmp" not in text
