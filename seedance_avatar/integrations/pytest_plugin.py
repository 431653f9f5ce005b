"""A pytest plugin with the fixture ``avatar_sandbox``, for users' own tests; installed with the package.

.. code-block:: python

    @pytest.mark.avatar_sandbox(time_scale=0.001, fail_rate=0.1)
    async def test_my_service(avatar_sandbox, monkeypatch):
        monkeypatch.setenv("TOAPIS_BASE_URL", avatar_sandbox.url)
        monkeypatch.setenv("TOAPIS_API_KEY", "sk-sandbox")
        ...
        assert avatar_sandbox.ledger.duplicates() == {}

The sandbox runs in a thread with its own event loop, so it serves synchronous tests and every asynchronous plugin. The
marker's arguments are those of :class:`seedance_avatar.sandbox.Sandbox`; without it processing takes a thousandth of
its real time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from seedance_avatar.sandbox import Sandbox

__all__ = ["avatar_sandbox"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "avatar_sandbox(**options): options of the Sandbox of this test")


@pytest.fixture
def avatar_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Run the sandbox on a loopback port for one test; see ``seedance_avatar.sandbox``."""
    from seedance_avatar.sandbox.server import in_thread  # noqa: PLC0415 - pytest loads this plugin in every run, and few use the sandbox

    marker = request.node.get_closest_marker("avatar_sandbox")
    options = {"time_scale": 0.001} if marker is None else marker.kwargs
    with in_thread(**options) as sandbox:
        yield sandbox
