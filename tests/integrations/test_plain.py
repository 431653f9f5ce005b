"""The logging observer, and the pytest plugin as a user's own project meets it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from rig.world import sources, world

from seedance_avatar import IngestError
from seedance_avatar.events import Outage
from seedance_avatar.integrations.logging import LoggingObserver
from seedance_avatar.sandbox import Sandbox
from seedance_avatar.sandbox.server import in_thread

pytest_plugins = ["pytester"]


@pytest.mark.asyncio
async def test_events_become_log_records_with_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="seedance_avatar.events")
    async with world({"observer": LoggingObserver()}) as w:
        w.sandbox.fail(sources(4)[1].source_url, reason="blurred\n\x1b[31m")
        w.sandbox.faults.add("rate_limited", method="POST", path="assets", times=1, retry_after="none")
        with pytest.raises(IngestError):
            async with w.session.ingest(sources(4), group=w.group) as stream:
                async for _ in stream:
                    pass
    records = [record for record in caplog.records if record.name == "seedance_avatar.events"]
    assert {vars(record)["avatar_event"] for record in records} >= {
        "RequestFinished",
        "RetryPlanned",
        "Accepted",
        "Settled",
        "IngestStarted",
        "IngestEnded",
    }
    (failed,) = [record for record in records if vars(record).get("avatar_outcome") == "Failed"]
    assert failed.levelno == logging.WARNING
    assert "blurred" in failed.getMessage()
    assert "\x1b" not in failed.getMessage()
    assert "canary" not in json.dumps([vars(record) for record in records], default=repr)
    assert all(len(record.getMessage().splitlines()) == 1 for record in records)


def test_an_outage_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    LoggingObserver()(Outage(at=1.0, down=False, error=None))
    assert "again" in caplog.text


def test_a_taken_port_is_told() -> None:
    with (
        in_thread() as sandbox,
        pytest.raises(OSError, match="address already in use"),
        in_thread(port=int(sandbox.url.rpartition(":")[2])),
    ):
        pass


@pytest.mark.avatar_sandbox(time_scale=0.5, keys=("sk-mine",))
def test_the_fixture_takes_its_options_from_the_marker(avatar_sandbox: Sandbox) -> None:
    assert avatar_sandbox.url.startswith("http://127.0.0.1:")
    assert avatar_sandbox.account("sk-mine").name


def test_a_users_own_project_has_the_fixture(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(
        """
        import asyncio
        from seedance_avatar import AssetSource, AvatarSession, Polling

        async def register(urls, base_url):
            async with AvatarSession("sk-sandbox", base_url=base_url, polling=Polling.fixed(0.01, 0.01)) as session:
                group = await session.create_group("brand")
                async with session.ingest(map(AssetSource.image, urls), group=group) as stream:
                    return [asset.uri async for asset in stream]

        def test_my_service(avatar_sandbox):
            uris = asyncio.run(register(["https://cdn.example.com/a.jpg"], avatar_sandbox.url))
            assert len(uris) == 1
            assert avatar_sandbox.ledger.duplicates() == {}
        """
    )
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    # Installed, the plugin comes by itself; from a source tree it is named.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    result = pytester.runpytest_subprocess("-p", "seedance_avatar.integrations.pytest_plugin")
    result.assert_outcomes(passed=1)
