"""Runs a sandbox until SIGINT or SIGTERM, as the command line does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from .server import Sandbox

__all__ = ["serve"]


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

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, end, number)
        except (RuntimeError, ValueError, NotImplementedError):
            break
        handled.append(number)
    try:
        async with sandbox:
            announce(sandbox.url)
            return await stop
    finally:
        for each in handled:
            loop.remove_signal_handler(each)
