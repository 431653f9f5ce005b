"""Runs a sandbox in a thread with an event loop of its own, for code that has none to share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from .server import Sandbox

__all__ = ["in_thread"]


@contextmanager
def in_thread(**options: Any) -> Iterator[Sandbox]:  # noqa: ANN401 - each option of Sandbox has its own type
    """Run a :class:`Sandbox` with these ``options`` in a thread, during the ``with`` block.

    Its methods that are not coroutines, and its ledger, may be used from the calling thread.

    :raises OSError: its port is taken.
    """
    sandbox = Sandbox(**options)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        try:
            async with sandbox:
                started.set_result((asyncio.get_running_loop(), stop))
                await stop.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
                return
            raise

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="seedance-avatar: sandbox", daemon=True)
    thread.start()
    loop, stop = started.result()
    try:
        yield sandbox
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
