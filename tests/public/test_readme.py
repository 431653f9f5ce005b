"""The README's examples run as they stand, against the sandbox; its tables name what exists."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import seedance_avatar
from seedance_avatar import Active, Asset, AssetSource, AvatarSession, Limits, Polling, Retry, Timeouts, errors
from seedance_avatar.cli.app import app
from seedance_avatar.cli.exits import EXIT_CODES
from seedance_avatar.cli.manifest.manifest import COLUMNS
from seedance_avatar.cli.run.results import record
from seedance_avatar.sandbox import Sandbox
from seedance_avatar.sandbox.server import in_thread

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OTHERS = ["benchmarks", "tests/proof", "tests/recipes", "seedance_avatar/integrations"]
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = FENCE.findall(README) + FENCE.findall((ROOT / OTHERS[-1] / "README.md").read_text(encoding="utf-8"))


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
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize("folder", ["", *OTHERS])
def test_every_link_leads_to_a_file_and_a_heading(folder: str) -> None:
    page = ROOT / folder / "README.md"
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            text = target.read_text(encoding="utf-8")
            titles = [re.sub(r"[^\w -]", "", title.lower()) for title in re.findall(r"^#+ (.*)", text, re.MULTILINE)]
            assert heading in {title.replace(" ", "-") for title in titles} or f'<a id="{heading}">' in text, link


def test_the_readme_ends() -> None:
    assert len(README.splitlines()) <= 335


def test_the_figures_of_the_overhead_are_the_measured_ones() -> None:
    ours, bare = re.findall(r"\((\d+) µs against (\d+) µs", README)[0]
    tables = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert f"| seedance-avatar, call by call | {ours} µs |" in tables
    assert f"| bare aiohttp | {bare} µs |" in tables


def test_every_error_and_method_of_the_face_is_in_the_readme() -> None:
    for name in errors.__all__:
        if name not in {"AvatarWarning", "WebhookRefused"}:
            assert f"`{name}`" in README, name
    for name in dir(AvatarSession):
        if not name.startswith("_") and callable(getattr(AvatarSession, name)):
            assert f"{name}(" in README, name


def first_cells(heading: str) -> set[str]:
    """Return what stands in backticks in the first cells of the table under ``heading``."""
    table = README.partition(heading)[2].partition("\n\n")[0]
    return {word for row in table.splitlines() for word in re.findall(r"`(\w+)[^`]*`", row.split("|")[1])}


def test_the_tables_of_the_command_line_name_what_exists() -> None:
    assert first_cells("| column | meaning |\n") == set(COLUMNS)
    assert first_cells("| command | what it does |\n") == {name for name in app if not name.startswith("-")}
    codes = README.partition("Exit codes: ")[2].partition("\n\n")[0]
    told = {int(code) for code in re.findall(r"(?:^|[;,.] | and )\s*(\d+)", codes.replace("\n", " "))}
    assert told == {int(code) for code in re.findall(r"^ +(\d+) ", EXIT_CODES, re.MULTILINE)}


def test_the_line_of_results_is_one_that_is_written() -> None:
    (line,) = re.findall(r"^```json\n(.*?)\n```", README, re.MULTILINE | re.DOTALL)
    source = AssetSource.image("https://cdn.example.com/front.jpg", key="front")
    asset = Asset(asset_id="pa_01J8", status="active", source=source)
    assert json.loads(line).items() <= {**record(Active(source=source, asset=asset)), "line": 2}.items()


def test_every_option_of_a_session_and_an_ingest_is_in_the_readme() -> None:
    assert first_cells("| option | default | meaning |\n") == set(inspect.signature(AvatarSession).parameters)
    (line,) = re.findall(r"^`ingest` itself takes .*", README, re.MULTILINE)
    known = {name: it.default for name, it in inspect.signature(AvatarSession.ingest).parameters.items()}
    told = dict(re.findall(r"`(\w+)=([^`]*)`", line))
    assert set(told) == set(known) - {"self", "sources", "group"}
    assert {name: ast.literal_eval(value) for name, value in told.items()} == {name: known[name] for name in told}


@pytest.mark.parametrize("options", [Limits, Retry, Timeouts])
def test_every_option_is_in_the_readme(options: type) -> None:
    for name in getattr(options, "__attrs_attrs__", ()):
        assert name.name in README, name.name


def test_the_version_is_one() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{seedance_avatar.__version__}"' in pyproject
