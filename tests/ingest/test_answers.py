"""Answers that are well formed and not to be believed."""

from __future__ import annotations

import pytest
from rig.rude import RudeServer
from rig.service import Service, accepted
from rig.world import quick, sources

from seedance_avatar import ProtocolError

pytestmark = pytest.mark.asyncio


async def test_an_answer_about_another_asset_is_not_believed() -> None:
    service = Service(get=[accepted("pa_other", "active"), accepted("pa_other", "failed")])
    async with RudeServer(service) as server, quick(server.url) as session:
        async with session.ingest(sources(1), group="pg_1") as stream:
            assert [asset.asset_id async for asset in stream] == ["pa_1"]
        assert len(service.looks) == 3


async def test_an_asset_that_is_asked_for_is_the_one_that_is_returned() -> None:
    service = Service(get=[accepted("pa_other", "active")] * 4)
    async with RudeServer(service) as server, quick(server.url) as session:
        with pytest.raises(ProtocolError, match="asked about pa_1, the answer is about pa_other"):
            await session.get_asset("pa_1")
        asset = await session.upload(sources(1)[0], group="pg_1")
        assert (await session.wait_until_active(asset, timeout=5)).asset_id == asset.asset_id
