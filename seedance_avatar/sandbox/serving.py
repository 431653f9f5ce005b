"""Runs a sandbox for code without an event loop to share: until a signal comes, or in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from anyio.from_thread import start_blocking_portal

from .server import Sandbox


async def serve(sandbox: Sandbox, *, announce: Callable[[str], None] = print) -> int:
    """Start ``sandbox``, call ``announce`` with its URL, and serve until SIGINT or SIGTERM comes.

    In another thread than the main one no signal arrives, and it serves until it is cancelled.

    :return: the number of the signal that ended it.
    :raises OSError: the port is taken.
    """
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()
    handled: list[int] = []

    def end(number: int) -> None:
        if not stop.done():
            stop.set_result(number)

    with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):  # another thread, or Windows
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number)
            handled.append(number)
    try:
        async with sandbox:
            announce(sandbox.url)
            return await stop
    finally:
        for each in handled:
            loop.remove_signal_handler(each)


@contextlib.contextmanager
def in_thread(**options: Any) -> Iterator[Sandbox]:  # noqa: ANN401 - each option of Sandbox has its own type
    """Run a :class:`Sandbox` with these ``options`` in a thread, during the ``with`` block.

    Its methods that are not coroutines, and its ledger, may be used from the calling thread.

    :raises OSError: its port is taken.
    """
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Sandbox(**options)) as sandbox:
        yield sandbox
