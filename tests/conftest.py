"""What every test stands on."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import hypothesis
import pytest
from rig.canaries import Listener, heard_in_files, sings

from seedance_avatar.client import transport
from seedance_avatar.client.internals import Internals


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

# A job that outlives its terminal (nohup) ignores SIGHUP, and what it starts inherits that: commands of the tests would
# be right to ignore it, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# pytest-asyncio asks for "the loop before this one"; asked for the first time, asyncio 3.11 makes one, and nobody
# closes it: a ResourceWarning in whatever test the collector happens to run in. Once told that there is none, it
# makes none.
asyncio.set_event_loop(None)

# No test depends on the machine's speed; and where a run decides about a change, it is the same run every time.
hypothesis.settings.register_profile(
    "house",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("house")


def _uvloop() -> asyncio.AbstractEventLoop:
    return importlib.import_module("uvloop").new_event_loop()  # type: ignore[no-any-return]  # installed for its run only


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - Python 3.11 has none, nor its types
    return loop


_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": _uvloop, "eager": _eager}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--event-loop``."""
    parser.addoption("--event-loop", choices=_LOOPS, help="run asynchronous tests on uvloop, or with eager tasks")


class _Loops:
    """What makes the loops of asynchronous tests, where ``--event-loop`` asks for others than asyncio's."""

    def __init__(self, name: str) -> None:
        self._factories = {name: _LOOPS[name]}

    def pytest_asyncio_loop_factories(self) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        return self._factories


def pytest_configure(config: pytest.Config) -> None:
    """Carry out ``--event-loop``."""
    name = config.getoption("event_loop")
    if name is not None:  # pytest-asyncio takes no None for an answer
        config.pluginmanager.register(_Loops(name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Fail a test in which a planted secret came up in a log record, at any level."""
    listener, root = Listener(), logging.getLogger()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(listener)
    assert listener.heard == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test that left a planted secret in a journal."""
    home = getattr(item, "funcargs", {}).get("tmp_path")
    yield
    assert home is None or heard_in_files(home.rglob("*")) == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Fail a test that printed a planted secret."""
    report: Any = yield
    printed = [f"{title}: …{found}…" for title, content in report.sections if (found := sings(content)) is not None]
    if report.passed and printed:
        report.outcome = "failed"
        report.longrepr = f"{item.name} printed a secret: {printed}"
    return report


@pytest.fixture(params=["fast path", "ClientSession.request", "documented"])
def every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the fast path, without it, and without anything that aiohttp does not document."""

    async def found(internals: Internals, **_: bool) -> None:
        internals.fast = False
        internals.hook = internals.hook_proved = request.param != "documented"

    if request.param == "documented" and request.node.get_closest_marker("reuse") is not None:
        pytest.skip("no connection is used twice that way")
    if request.param != "fast path":
        monkeypatch.setattr(transport, "probe", found)
