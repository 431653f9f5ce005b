"""Serving until somebody says stop: what stands behind the command line."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from .server import Sandbox

__all__ = ["serve"]


async def serve(sandbox: Sandbox, *, announce: Callable[[str], None] = print) -> int | None:
    """Start ``sandbox``, call ``announce`` with its URL, and serve until SIGINT or SIGTERM comes.

    Called from another thread than the main one it hears no signals, and serves until it is cancelled.

    :return: the number of the signal that ended it.
    :raises OSError: the port is taken.
    """
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()
    heard = []

    def hear(number: int) -> None:
        if not stop.done():
            stop.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, hear, number)
        except (RuntimeError, ValueError, NotImplementedError):
            break
        heard.append(number)
    try:
        async with sandbox:
            announce(sandbox.url)
            return await stop
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
