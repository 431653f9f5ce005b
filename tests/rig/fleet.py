"""One process of a fleet: ``python -m rig.fleet`` reads an order as one line of JSON, and tells what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rig.world import quick, sources
from seedance_avatar import Limits
from seedance_avatar.integrations.redis import RedisLimits

__all__ = ["started"]


async def _run(order: dict[str, Any]) -> dict[str, int]:
    limits = RedisLimits(order["redis"], limits=Limits(**order["limits"]))
    ends: Counter[str] = Counter()
    async with (
        quick(order["url"], limits=limits) as session,
        session.ingest(sources(order["count"], order["start"]), group=order["group"]) as stream,
    ):
        async for outcome in stream.outcomes():
            ends[type(outcome).__name__] += 1
    return dict(ends)


@asynccontextmanager
async def started(order: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yield a process that carries out ``order``; what it writes at its end is JSON, the outcomes counted."""
    tests = Path(__file__).parent.parent
    path = os.pathsep.join([str(tests), str(tests.parent)])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "rig.fleet",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        await process.stdin.drain()
        process.stdin.close()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_run(json.loads(sys.stdin.readline())))))
