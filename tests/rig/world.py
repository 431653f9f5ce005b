"""A sandbox and a session that goes as fast as the machine, in one line; and sources by the dozen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from seedance_avatar import AssetGroup, AssetSource, AvatarSession, Limits, Polling, Retry, Timeouts
from seedance_avatar.sandbox import Sandbox

__all__ = ["FAST", "World", "quick", "sources", "world"]

KEY = "sk-sandbox"

FAST: dict[str, Any] = {
    "limits": Limits.unlimited(),
    "polling": Polling.fixed(0.01, 0.02),
    "video_polling": Polling.fixed(0.01, 0.02),
    "retry": Retry(base=0.001, throttle_base=0.002, cap=0.01, patience=1.0),
    "timeouts": Timeouts(connect=2.0, request=2.0, drain=2.0),
}
"""Options of a session for tests: no limits, short waits."""


def quick(base_url: str, key: str | Callable[[], Any] = KEY, **knobs: Any) -> AvatarSession:
    """Return a session with :data:`FAST` options, some of them replaced."""
    return AvatarSession(key, base_url=base_url, **{**FAST, **knobs})


def sources(count: int, start: int = 0) -> list[AssetSource]:
    """Return ``count`` sources of all three types, with signed URLs."""
    make = (AssetSource.image, AssetSource.video, AssetSource.audio)
    return [make[i % 3](f"https://cdn.example.com/{i}?sig=canary-{i}") for i in range(start, start + count)]


@attrs.frozen
class World:
    """What a test plays with."""

    sandbox: Sandbox
    session: AvatarSession
    group: AssetGroup


@asynccontextmanager
async def world(session_knobs: dict[str, Any] | None = None, **knobs: Any) -> AsyncIterator[World]:
    """Yield a world; ``knobs`` are the sandbox's, assets take some hundredths of a second."""
    async with (
        Sandbox(**{"time_scale": 0.002, **knobs}) as sandbox,
        quick(sandbox.url, **(session_knobs or {})) as session,
    ):
        yield World(sandbox, session, await session.create_group("brand"))
