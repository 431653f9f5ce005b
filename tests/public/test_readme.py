"""The README's examples run as they stand, against the sandbox; its tables name what exists."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import seedance_avatar
from seedance_avatar import AvatarSession, Limits, Polling, Retry, Timeouts, errors
from seedance_avatar.sandbox import Sandbox
from seedance_avatar.sandbox.threaded import in_thread

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with in_thread(time_scale=0.01) as sandbox:
        yield sandbox


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"example-{number}" for number in range(len(EXAMPLES))])
def test_an_example_runs(
    example: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-sandbox")
    monkeypatch.setenv("TOAPIS_BASE_URL", sandbox.url)
    # The example as it stands, with waits at the sandbox's pace.
    quick = {"video_polling": Polling.fixed(0.05, 0.05), "polling": Polling.fixed(0.05, 0.05)}
    defaults = {**(AvatarSession.__init__.__kwdefaults__ or {}), **quick}
    monkeypatch.setattr(AvatarSession.__init__, "__kwdefaults__", defaults)
    exec(compile(textwrap.dedent(example), "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own README
    assert sandbox.ledger.duplicates() == {}
    if "wave.mp4" in example:
        assert (tmp_path / "wave.mp4").read_bytes()[4:8] == b"ftyp"
    if "print(stream.report)" in example:
        assert "active=50" in capsys.readouterr().out


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


def test_every_error_and_method_of_the_face_is_in_the_readme() -> None:
    for name in errors.__all__:
        if name not in {"AvatarWarning", "WebhookRefused"}:
            assert f"`{name}`" in README, name
    for name in dir(AvatarSession):
        if not name.startswith("_") and callable(getattr(AvatarSession, name)):
            assert f"{name}(" in README, name


@pytest.mark.parametrize("options", [Limits, Retry, Timeouts])
def test_every_option_is_in_the_readme(options: type) -> None:
    for name in getattr(options, "__attrs_attrs__", ()):
        assert name.name in README, name.name


def test_the_version_is_one() -> None:
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{seedance_avatar.__version__}"' in pyproject
