"""The webhook recipes, run as they are, and called over real sockets as the service calls."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import runpy
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web

from seedance_avatar.videos import webhooks

RECIPES = Path(__file__).parents[1] / "recipes"
BODY = json.dumps(
    {
        "id": "evt_1",
        "type": "task.completed",
        "data": {
            "task_id": "tsk_1",
            "status": "SUCCESS",
            "result": {"data": [{"url": "https://files.example.com/v.mp4"}]},
        },
    }
).encode()


def recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TOAPIS_WEBHOOK_SECRETS", "whsec_new,whsec_old")
    return runpy.run_path(str(RECIPES / f"{name}.py"))


@asynccontextmanager
async def under_aiohttp(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/toapis"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def under_uvicorn(app: Any) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/toapis"
        finally:
            server.should_exit = True
            await serving


def signed(secret: str, body: bytes = BODY, at: float | None = None) -> dict[str, str]:
    timestamp = str(int(time.time() if at is None else at))
    signature = hmac.new(secret.encode(), b".".join((b"evt_1", timestamp.encode(), body)), hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-ToAPIs-Webhook-Id": "evt_1",
        "X-ToAPIs-Webhook-Timestamp": timestamp,
        "X-ToAPIs-Webhook-Signature": f"v1={'0' * 64},v1={signature}",
    }


def test_the_module_names_the_recipes() -> None:
    assert webhooks.__doc__ is not None
    named = re.findall(r"tests/recipes/(\w+)\.py", webhooks.__doc__)
    assert sorted(named) == sorted(path.stem for path in RECIPES.glob("webhook_*.py"))


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "serve"), [("webhook_aiohttp", under_aiohttp), ("webhook_starlette", under_uvicorn)])
async def test_a_recipe_takes_what_is_genuine_once(
    name: str, serve: Callable[[Any], AbstractAsyncContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = recipe(name, monkeypatch)
    async with serve(space["app"]) as url, aiohttp.ClientSession() as http:

        async def call(headers: dict[str, str], body: bytes = BODY) -> int:
            async with http.post(url, data=body, headers=headers) as answer:
                return answer.status

        assert await call(signed("whsec_old")) == 204
        assert await call(signed("whsec_new")) == 204  # delivered again, and skipped
        assert await call(signed("whsec_other")) == 400
        assert await call(signed("whsec_new", at=time.time() - 3600)) == 400
        assert await call(signed("whsec_new"), BODY + b" ") == 400
        assert await call({}) == 400
    finished = space["finished"]
    assert finished.qsize() == 1
    task = finished.get_nowait()
    assert (task.task_id, task.is_completed, task.url) == ("tsk_1", True, "https://files.example.com/v.mp4")
