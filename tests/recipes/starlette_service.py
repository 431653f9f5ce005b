"""A Starlette service: ingests in the background, progress as server-sent events, a graceful shutdown.

Serve it with ``uvicorn starlette_service:app --timeout-graceful-shutdown 5``, so that a browser that still listens
does not keep the process from ending. FastAPI takes the same lifespan.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from seedance_avatar import Active, AssetSource, AvatarSession, IngestReport, IngestStats


@dataclass
class Job:
    """An ingest in the background: a task that ends by itself when its session drains."""

    ready: dict[str, str] = field(default_factory=dict)  # in production: your database
    stats: Callable[[], IngestStats] = IngestStats  # the figures at this moment
    task: asyncio.Task[IngestReport] = field(init=False)

    async def run(self, session: AvatarSession, urls: list[str], group: str, journal: str) -> IngestReport:
        sources = (AssetSource.image(url, key=url) for url in urls)
        async with session.ingest(sources, group=group, journal=journal) as stream:
            self.stats = stream.stats
            async for outcome in stream.outcomes():
                if isinstance(outcome, Active):
                    self.ready[outcome.source.label] = outcome.asset.uri
        return stream.report

    async def events(self) -> AsyncIterator[str]:
        while not self.task.done():
            yield event("progress", attrs.asdict(self.stats()))
            await asyncio.wait([self.task], timeout=0.5)
        if error := self.task.exception():
            yield event("error", {"error": str(error)})
        else:
            report = self.task.result()
            yield event("done", {"taken": report.taken, "active": report.active, "failed": report.failed})


def event(name: str, facts: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(facts)}\n\n"


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with AvatarSession() as session:
        app.state.session, app.state.jobs, app.state.numbers = session, {}, itertools.count(1)
        yield
        await session.drain(10)  # nothing new is sent; every ingest ends with an outcome for each source it took
        await asyncio.gather(*(job.task for job in app.state.jobs.values()), return_exceptions=True)


async def start(request: Request) -> Response:
    state, wanted = request.app.state, await request.json()
    number = next(state.numbers)
    job = state.jobs[number] = Job()
    work = job.run(state.session, wanted["urls"], wanted["group"], journal=f"ingest-{number}.db")
    job.task = asyncio.create_task(work)
    return JSONResponse({"progress": f"/ingests/{number}"}, status_code=202)


async def progress(request: Request) -> Response:
    job = request.app.state.jobs.get(request.path_params["number"])
    if job is None:
        return JSONResponse({"error": "no such ingest"}, status_code=404)
    return StreamingResponse(job.events(), media_type="text/event-stream")


async def health(request: Request) -> Response:
    stats = request.app.state.session.stats()
    unreachable = stats.down_for is not None and stats.down_for > 30
    return JSONResponse(attrs.asdict(stats), status_code=503 if unreachable else 200)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/ingests", start, methods=["POST"]),
        Route("/ingests/{number:int}", progress),
        Route("/health", health),
    ],
)
