from __future__ import annotations

import asyncio

import pytest

from seedance_avatar import AssetGroup, AssetSource, AuthError, InvalidSource
from seedance_avatar.cli.manifest.manifest import ManifestSource
from seedance_avatar.cli.run.groups import Groups

URL = "https://x.example.com/a.jpg"


class Service:
    """Creates groups when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.error: AuthError | None = None

    async def create(self, name: str) -> AssetGroup:
        self.asked.append(name)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return AssetGroup(group_id=f"pg_{name}", name=name)


@pytest.mark.asyncio
async def test_a_name_is_created_once_however_many_ask_at_once() -> None:
    service = Service()
    service.go.clear()
    groups = Groups(service.create, name="default")
    asking = [asyncio.create_task(groups(AssetSource(URL))) for _ in range(5)]
    asking += [asyncio.create_task(groups(ManifestSource(URL, group="own"))) for _ in range(5)]
    await asyncio.sleep(0)
    service.go.set()
    found = [getattr(group, "group_id", group) for group in await asyncio.gather(*asking)]
    assert found == ["pg_default"] * 5 + ["pg_own"] * 5
    assert sorted(service.asked) == ["default", "own"]


@pytest.mark.asyncio
async def test_an_id_needs_nothing_created_and_a_row_of_its_own_group_goes_there() -> None:
    service = Service()
    groups = Groups(service.create, group_id="pg_1")
    assert await groups(AssetSource(URL)) == "pg_1"
    assert service.asked == []
    await groups(ManifestSource(URL, group="own"))
    assert service.asked == ["own"]


@pytest.mark.asyncio
async def test_a_refused_group_is_refused_once_and_remembered() -> None:
    service = Service()
    service.error = AuthError("no", status=401)
    groups = Groups(service.create, name="default")
    for _ in range(3):
        with pytest.raises(AuthError):
            await groups(AssetSource(URL))
    assert service.asked == ["default"]
    assert groups.error is service.error


@pytest.mark.asyncio
async def test_cancelled_while_a_group_is_created_the_cancellation_reaches_the_creation() -> None:
    service = Service()
    service.go.clear()
    groups = Groups(service.create, name="default")
    asking = asyncio.create_task(groups.made("default"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asyncio.all_tasks() == {asyncio.current_task()}  # the session's own shield stands inside the creation
    assert groups.error is None


def test_a_source_without_a_group_is_refused() -> None:
    groups = Groups(Service.create, name=None)  # type: ignore[arg-type]  # it is never called
    with pytest.raises(InvalidSource, match="names no group"):
        groups.check(AssetSource(URL))
    groups.check(ManifestSource(URL, group="own"))
