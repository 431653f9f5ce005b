"""A bare HTTP client for the sandbox: what curl would see, without any of the SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from seedance_avatar.sandbox import Sandbox

PREFIX = "/v1/videos/doubao-seedance-2-0/private-avatar"


class Raw:
    """Plain calls with a key; each returns (status, headers, JSON or text)."""

    def __init__(self, url: str, session: aiohttp.ClientSession, key: str | None = "sk-sandbox") -> None:
        self.url = url
        self.session = session
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def with_key(self, key: str | None) -> Raw:
        return Raw(self.url, self.session, key)

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
        headers = {**self.headers, **more.pop("headers", {})}
        async with self.session.request(method, self.url + path, headers=headers, **more) as response:
            if response.content_type == "application/json":
                return response.status, response.headers, await response.json()
            return response.status, response.headers, await response.text()

    async def group(self, name: str = "brand") -> str:
        status, _, body = await self.call("POST", f"{PREFIX}/groups", json={"name": name})
        assert status == 200, body
        return str(body.get("data", body)["group_id"])

    async def post(self, group_id: str, url: str, asset_type: str = "image", **more: Any) -> tuple[int, Any, Any]:
        body = {"group_id": group_id, "asset_type": asset_type, "source_url": url, **more}
        return await self.call("POST", f"{PREFIX}/assets", json=body)

    async def upload(self, group_id: str, url: str, asset_type: str = "image", **more: Any) -> str:
        status, _, body = await self.post(group_id, url, asset_type, **more)
        assert status == 200, body
        return str(body.get("data", body)["asset_id"])

    async def look(self, asset_id: str) -> dict[str, Any]:
        status, _, body = await self.call("GET", f"{PREFIX}/assets/{asset_id}")
        assert status == 200, body
        found: dict[str, Any] = body.get("data", body)
        return found


@asynccontextmanager
async def sandbox_and_raw(**knobs: Any) -> AsyncIterator[tuple[Sandbox, Raw]]:
    """Open a sandbox, stepped unless told otherwise, and a client for it."""
    async with (
        Sandbox(**{"stepped": "clock" not in knobs, **knobs}) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        yield sandbox, Raw(sandbox.url, session)


async def _a_moment() -> None:
    await asyncio.sleep(0.001)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until ``true()`` is: the test's own time limit ends what never comes."""
    while not true():
        await _a_moment()
