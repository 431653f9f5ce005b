"""What every test stands on."""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import hypothesis


class _AnswerWithoutWriter(aiohttp.ClientResponse):
    """A response as aioresponses 0.7.9 builds it: without the ``stream_writer`` that aiohttp 3.14 asks for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)


# Once either of the two has changed its mind, this does nothing.
if "stream_writer" in inspect.signature(aiohttp.ClientResponse).parameters and "stream_writer" not in inspect.getsource(
    aioresponses.core.RequestMatch
):
    setattr(aioresponses.core, "ClientResponse", _AnswerWithoutWriter)  # noqa: B010 - not a name that it exports

# pytest-asyncio asks for "the loop before this one"; asked for the first time, asyncio 3.11 makes one, and nobody
# closes it: a ResourceWarning in whatever test the collector happens to run in. Once told that there is none, it
# makes none.
asyncio.set_event_loop(None)

# No test depends on the machine's speed; and where a run decides about a change, it is the same run every time.
hypothesis.settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("house")
