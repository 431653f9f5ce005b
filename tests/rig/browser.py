"""A real headless Chromium, started as a plain program: no driver is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def chromium() -> str:
    """Return the browser's path; without one the test is skipped, except in CI, where that is a failure."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI"):
        pytest.fail("no Chromium on a CI machine: .ci/run installs it")
    if found is None:
        pytest.skip("no Chromium on this machine: install it (Debian: chromium) to run the report's browser tests")
    return found


def browse(page: Path, what: str, *, width: int = 1000, height: int = 1400, dark: bool = False) -> str:
    """Open ``page`` and return what Chromium writes on standard output when told to do ``what``."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(  # noqa: S603 - a browser and a page of the tests
            [
                chromium(),
                *_FLAGS,
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                what,
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=50,
        )
    return done.stdout
