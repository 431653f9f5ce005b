"""Nothing is left behind: no task, no socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["no_leaks", "open_sockets"]


def open_sockets() -> set[str]:
    """Return the sockets that this process holds, each by its number in the kernel."""
    links = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.add(str(entry.readlink()))
        except OSError:  # the descriptor that listed the directory
            continue
    return {link for link in links if link.startswith("socket:")}


@asynccontextmanager
async def no_leaks(patience: float = 2.0) -> AsyncIterator[None]:
    """Fail when the body leaves a task or a socket that was not there before.

    What closes in an orderly way needs some turns of the loop, so it gets ``patience`` seconds for them.
    """
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    yield
    deadline = time.monotonic() + patience
    while True:
        left = {task for task in asyncio.all_tasks() - tasks if not task.done()}
        held = open_sockets() - sockets
        if not left and not held:
            return
        if time.monotonic() > deadline:
            message = f"left behind: tasks {sorted(map(repr, left))}, sockets {sorted(held)}"
            raise AssertionError(message)
        await asyncio.sleep(0.005)
