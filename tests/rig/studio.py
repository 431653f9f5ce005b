"""A small scripted service for videos: generations that are found again by the caller's id, files, uploads, assets."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import attrs
from aiohttp import web

__all__ = ["MP4", "Studio", "studio"]

MP4 = b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(range(256)) * 64

Act = Literal["lose answer", "lose request", "apply late", "garble"] | tuple[int, dict[str, Any]]
"""What happens to a submission: applied and its answer lost; lost before it was applied; lost, and applied only when
it was asked for ``late`` times; applied and answered with rubbish; or answered with a status and a body."""


@attrs.define(eq=False)
class Studio:
    """What the service knows, and what it shall do.

    :ivar script: what happens to the next submissions, one after the other; then all goes well.
    :ivar looks: how many looks at a task find it unfinished, and then what it ends with.
    :ivar deaf: True to break the connection of every question.
    """

    url: str = ""
    script: deque[Act] = attrs.field(factory=deque, converter=deque)
    looks: int = 1
    late: int = 1
    ending: dict[str, Any] = attrs.field(factory=lambda: {"status": "completed"})
    deaf: bool = False
    submissions: list[dict[str, Any]] = attrs.field(factory=list)
    tasks: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    asked: list[str] = attrs.field(factory=list)
    assets: list[dict[str, Any]] = attrs.field(factory=list)
    uploads: list[tuple[str, str, bytes]] = attrs.field(factory=list)
    upload_script: deque[Act] = attrs.field(factory=deque, converter=deque)
    downloads: list[web.Request] = attrs.field(factory=list)
    arrived: asyncio.Event = attrs.field(factory=asyncio.Event)
    hold: asyncio.Event | None = None
    _seen: dict[str, int] = attrs.field(factory=dict)
    _delayed: list[dict[str, Any]] = attrs.field(factory=list)

    def _apply(self, told: dict[str, Any]) -> dict[str, Any]:
        task_id = f"tsk_{len(self.tasks) + 1}"
        task = {"id": task_id, "object": "generation.task", "model": told["model"], "status": "queued", "progress": 10}
        self.tasks[task_id] = {**task, "client_business_id": told["client_business_id"]}
        return self.tasks[task_id]

    async def submit(self, request: web.Request) -> web.StreamResponse:
        told = json.loads(await request.read())
        self.submissions.append(told)
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        act = self.script.popleft() if self.script else None
        if isinstance(act, tuple):
            return web.json_response(act[1], status=act[0])
        if act == "apply late":
            self._delayed.append(told)
        if act in {"lose request", "apply late"}:
            return hang_up(request)
        task = self._apply(told)
        if act == "lose answer":
            return hang_up(request)
        if act == "garble":
            return web.Response(body=b"<html>", content_type="text/html")
        return web.json_response(task)

    async def ask(self, request: web.Request) -> web.StreamResponse:
        wanted = request.match_info["id"]
        self.asked.append(wanted)
        if self.deaf:
            return hang_up(request)
        if self._delayed and len(self.asked) > self.late:
            self._apply(self._delayed.pop())
        for task in self.tasks.values():
            if wanted in {task["id"], task["client_business_id"]}:
                return web.json_response(self._grown(task))
        return web.json_response({"code": "task_not_exist", "message": "task_not_exist"}, status=400)

    def _grown(self, task: dict[str, Any]) -> dict[str, Any]:
        looks = self._seen[task["id"]] = self._seen.get(task["id"], 0) + 1
        if looks <= self.looks:
            return {**task, "status": "in_progress"}
        result = {"data": [{"url": f"{self.url}/files/{task['id']}.mp4?signature=s3cret", "format": "mp4"}]}
        return {**task, "result": result, **self.ending}

    async def file(self, request: web.Request) -> web.StreamResponse:
        self.downloads.append(request)
        return web.Response(body=MP4, content_type="video/mp4")

    async def upload(self, request: web.Request) -> web.StreamResponse:
        part = await (await request.multipart()).next()
        assert part is not None
        data = bytes(await part.read())  # type: ignore[union-attr]  # the one part is no nested multipart
        self.uploads.append((request.match_info["kind"], part.headers["Content-Type"], data))
        act = self.upload_script.popleft() if self.upload_script else None
        if isinstance(act, tuple):
            return web.json_response(act[1], status=act[0])
        if act is not None:
            return hang_up(request)
        url = f"https://files.example.com/{len(self.uploads)}"
        return web.json_response(
            {"success": True, "message": "", "data": {"id": "up_1", "url": url, "size": len(data)}}
        )

    async def register(self, request: web.Request) -> web.StreamResponse:
        told = await request.json()
        self.assets.append(told)
        asset = {**told, "asset_id": f"pa_{len(self.assets)}", "status": "processing"}
        return web.json_response({"success": True, "data": asset})

    async def asset(self, request: web.Request) -> web.StreamResponse:
        asset_id = request.match_info["id"]
        return web.json_response(
            {"success": True, "data": {"asset_id": asset_id, "asset_type": "image", "status": "active"}}
        )


def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def studio(**script: Any) -> AsyncIterator[Studio]:
    """Serve a studio."""
    service = Studio(**script)
    avatars = "/v1/videos/doubao-seedance-2-0/private-avatar/assets"
    app = web.Application(client_max_size=1 << 26)
    app.add_routes(
        [
            web.post("/v1/videos/generations", service.submit),
            web.get("/v1/videos/generations/{id}", service.ask),
            web.post("/v1/uploads/{kind}", service.upload),
            web.post(avatars, service.register),
            web.get(f"{avatars}/{{id}}", service.asset),
            web.get("/files/{name}", service.file),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        if service.hold is not None:
            service.hold.set()
        await runner.cleanup()
