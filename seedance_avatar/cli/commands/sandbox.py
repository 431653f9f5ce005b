"""``seedance-avatar sandbox``: runs a local copy of the service for any client."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from typing import Literal

from seedance_avatar import InvalidInput
from seedance_avatar.cli.exits import Exit
from seedance_avatar.cli.run.signals import Interrupts
from seedance_avatar.cli.streams import Unwritable
from seedance_avatar.sandbox import RateLimits, Sandbox

__all__ = ["sandbox"]

_GREETING = """A local copy of the service; nothing leaves this machine, and nothing is kept when it ends.

    URL   {url}
    key   {key}

With this library or command line:

    export TOAPIS_BASE_URL={url} TOAPIS_API_KEY={key}
    seedance-avatar ingest sources.csv --group-name test

With curl:

    curl -s {url}/v1/videos/doubao-seedance-2-0/private-avatar/groups \\
      -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{"name": "test"}}'

Ctrl-C ends it.
"""


async def sandbox(  # noqa: PLR0913 - each is an option of the command
    *,
    port: int = 8080,
    host: str = "127.0.0.1",
    key: str = "sk-sandbox",
    time_scale: float = 1.0,
    fail_rate: float = 0.0,
    limits: Literal["none", "default", "vip", "svip"] = "default",
    seed: int = 0,
) -> int:
    """Run a local copy of the service for any client.

    It answers as the service does, until Ctrl-C, and keeps nothing. It prints
    what this library, this command line and curl need to use it.

    Examples:
        seedance-avatar sandbox

        seedance-avatar sandbox --port 9000 --time-scale 0.1 --fail-rate 0.05

    :param port: port to listen on; 0 takes a free one.
    :param host: address to listen on.
    :param key: the API key to accept.
    :param time_scale: factor on processing times: 0.1 makes the 13 seconds of an image 1.3.
    :param fail_rate: share of the sources that fail while processing, 0 to 1.
    :param limits: rate limits of the account: those of a documented tier, or none.
    :param seed: seed of the random processing times and failures.
    """
    for option, value, lowest, highest in (
        ("--port", port, 0, 65_535),
        ("--time-scale", time_scale, 0, math.inf),
        ("--fail-rate", fail_rate, 0, 1),
    ):
        if not lowest <= value <= highest:
            allowed = f"{lowest:g} or more" if highest == math.inf else f"{lowest:g} to {highest:g}"
            message = f"{option} must be {allowed}, not {value:g}"
            raise InvalidInput(message)
    server = Sandbox(
        keys=(key,),
        host=host,
        port=port,
        time_scale=time_scale,
        fail_rate=fail_rate,
        seed=seed,
        limits=None if limits == "none" else RateLimits.tier(limits),
    )

    ended = asyncio.Event()
    with Interrupts(ended.set, str) as interrupts:
        try:
            await server.start()
        except OSError as error:
            message = f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port or --host"
            raise InvalidInput(message) from None
        try:
            with contextlib.suppress(Unwritable):  # it serves all the same
                sys.stdout.write(_GREETING.format(url=server.url, key=key))
                sys.stdout.flush()
            await ended.wait()
        finally:
            await server.aclose()
    return interrupts.exit or Exit.DONE
