"""What a user is told: of mistakes where they are made, of accidents with the thing they happened to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rig.rude import RudeServer
from rig.service import Service
from rig.world import quick, sources

from seedance_avatar import AvatarSession, ConnectionFailed, IngestError, InvalidInput, Pending, SessionStateError
from seedance_avatar.cli.commands.ingest import ingest
from seedance_avatar.cli.manifest.formats import ManifestError


async def _awaited(_event: object) -> None:
    """Be what nobody awaits."""


class _Awaited:
    async def __call__(self, _event: object) -> None:
        """Be what nobody awaits."""


@pytest.mark.parametrize("observer", [5, _awaited, _Awaited()])
def test_an_observer_that_could_never_work_is_told_where_it_is_given(observer: Any) -> None:
    with pytest.raises(InvalidInput, match="observer must be a plain function"):
        AvatarSession("sk-x", observer=observer)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("provider", "told"),
    [
        (lambda: int("vault"), "the key provider failed: ValueError"),
        (lambda: None, "gave NoneType, not a text"),
        (lambda: "sk bad", "holds white space"),
    ],
)
async def test_a_key_provider_that_gives_no_key_is_what_the_error_sends_to(
    provider: Callable[[], Any], told: str
) -> None:
    async with RudeServer(Service()) as server, quick(server.url, provider) as session:
        with pytest.raises(ConnectionFailed, match=told) as caught:
            await session.get_asset("pa_1")
        assert "check the callable" in str(caught.value)
        assert "network" not in str(caught.value)
        assert not server.requests


@pytest.mark.asyncio
async def test_what_is_pending_is_named_by_the_id_that_it_was_accepted_under() -> None:
    async with RudeServer(Service(ends_as="processing")) as server, quick(server.url) as session:
        async with session.ingest(sources(1), group="pg_1", asset_timeout=0.05) as stream:
            with pytest.raises(IngestError, match="accepted as pa_1: not finished 0"):
                await anext(stream)
        (outcome,) = stream.report.unfinished
        assert isinstance(outcome, Pending)
        assert outcome.asset.asset_id in str(outcome.error)


@pytest.mark.asyncio
async def test_an_error_that_is_raised_for_many_does_not_gather_their_frames() -> None:
    async with RudeServer(Service()) as server, quick(server.url) as session:
        await session.drain(0)
        for _ in range(20):
            with pytest.raises(SessionStateError) as caught:
                await session.upload(sources(1)[0], group="pg_1")
            with pytest.raises(SessionStateError):
                await session.ingest(sources(1), group="pg_1").__aenter__()
            assert len(caught.traceback) < 20


def test_closing_again_what_is_closed_does_nothing_wherever_it_is_done() -> None:
    session = AvatarSession("sk-x", base_url="http://127.0.0.1:9")

    async def use() -> None:
        async with session:
            pass

    asyncio.run(use())
    asyncio.run(session.aclose())


@pytest.mark.asyncio
@pytest.mark.parametrize("manifest", ["missing.csv", "."])
async def test_no_group_is_made_for_a_manifest_that_cannot_be_read(
    manifest: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-sandbox")
    async with RudeServer(Service()) as server:
        monkeypatch.setenv("TOAPIS_BASE_URL", server.url)
        with pytest.raises(ManifestError, match="cannot be read"):
            await ingest(manifest, group_name="hero")
        assert not server.requests
