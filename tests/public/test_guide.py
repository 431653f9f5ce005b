"""The guide: its examples run as they stand, its messages exist, its pages are shown, and errors name them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest
from rig.command import ROOT, on_terminal

from seedance_avatar import (
    Asset,
    AssetFailed,
    AssetSource,
    AuthError,
    AvatarError,
    InDoubt,
    InvalidInput,
    JournalError,
    QuotaExhausted,
    SubmissionInDoubt,
    Unsent,
)
from seedance_avatar.cli.app import app, run
from seedance_avatar.cli.pages import PAGES, page_pointer, read_page
from seedance_avatar.cli.run.results import record
from seedance_avatar.cli.run.summary import advice
from seedance_avatar.cli.run.tally import Tally
from seedance_avatar.journal.records import STATES
from seedance_avatar.sandbox import Sandbox
from seedance_avatar.sandbox.server import in_thread

GUIDE = ROOT / "seedance_avatar" / "guide"
README = ROOT / "README.md"
EXPORT = "export TOAPIS_API_KEY=sk-...\n"

PRELUDE = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from seedance_avatar import AvatarSession, Polling
quick = Polling.fixed(0.05, 0.05)
AvatarSession.__init__.__kwdefaults__.update(polling=quick, video_polling=quick)
"""
"""What stands before a program of the guide, so that it polls at the sandbox's pace."""
_COMMAND = "from seedance_avatar.cli import main\nsys.exit(main())\n"
_PYTHON = """import runpy
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@attrs.frozen
class Block:
    """A fenced block: its language, what stands behind that (a file's name, ``exit=2``, ``output``), its text."""

    language: str
    info: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*each) for each in found]


def run_block(block: Block, folder: Path, url: str) -> str:
    """Run a block of Python or of the shell; return what it printed."""
    binary = folder / "bin"
    if not binary.exists():
        binary.mkdir()
        for name, program in (("seedance-avatar", _COMMAND), ("python3", _PYTHON)):
            (binary / name).write_text(f"{PRELUDE}{program}")
            (binary / name).chmod(0o755)
    if block.language == "python":
        (folder / "example.py").write_text(block.text)
        words = [str(binary / "python3"), "example.py"]
    else:
        words = ["bash", "-eu", "-c", block.text.replace(EXPORT, "")]
    environment = {
        **{name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ},
        "PATH": f"{binary}:{os.environ['PATH']}",
        "PYTHONWARNINGS": "error",
        "TOAPIS_API_KEY": "sk-sandbox",
        "TOAPIS_BASE_URL": url,
        "TOAPIS_WEBHOOK_SECRETS": "whsec-sandbox",
    }
    told = subprocess.run(  # noqa: S603 - our own guide
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    wanted = int(block.info.removeprefix("exit=")) if block.info.startswith("exit=") else 0
    assert told.returncode == wanted, told.stdout + told.stderr
    return told.stdout + told.stderr


def shows(printed: str, wanted: str) -> bool:
    """Tell whether the lines of ``wanted``, where ``…`` stands for anything, are in ``printed`` in their order."""
    lines = iter(printed.splitlines())
    return all(
        any(re.fullmatch(".*".join(map(re.escape, line.split("…"))), it.rstrip()) for it in lines)
        for line in wanted.splitlines()
    )


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with in_thread(time_scale=0.002, fail_rate=0.01) as sandbox:
        yield sandbox


_LONG: Final = {"tutorial": [pytest.mark.slow]}  # fifty sources, three runs of the command, a video


@pytest.mark.parametrize("page", [pytest.param(page, marks=_LONG.get(page, [])) for page in (*PAGES, "README")])
def test_the_examples_of_a_page_run_as_they_stand_and_print_what_it_says(
    page: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    printed = ""
    for block in blocks(README if page == "README" else GUIDE / f"{page}.md"):
        if block.info and block.language in {"csv", "text", "python"} and block.info != "output":
            (tmp_path / block.info).write_text(block.text)
        elif page == "README" and (block.language == "python" or ".venv" in block.text):
            continue  # test_readme.py has the first, .ci/run the second
        elif block.language == "csv":
            (tmp_path / "sources.csv").write_text(block.text)
        elif block.language in {"python", "sh"}:
            printed = run_block(block, tmp_path, sandbox.url)
        elif block.info == "output":
            assert shows(printed, block.text), printed
    assert sandbox.ledger.duplicates() == {}


INTEGRATIONS = ROOT / "seedance_avatar" / "integrations" / "README.md"
FRAGMENTS = [
    pytest.param(block.text, id=f"{page.parent.name}-{page.stem}-{number}")
    for page in [README, INTEGRATIONS, *sorted(GUIDE.glob("*.md"))]
    for number, block in enumerate(blocks(page))
    if block.language == "py"
]


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_fragment_is_python_and_imports_what_exists(fragment: str) -> None:
    tree = compile(fragment, "fragment", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    imports: list[ast.stmt] = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), "fragment", "exec"))  # noqa: S102 - imports of our own pages


def test_what_stands_for_anything_does_not_stand_for_everything() -> None:
    assert shows("a\n  active    49   x\nb 1\n", "…active…49…\nb 1")
    assert not shows("a\n  active    4   x\n", "…active…49…")
    assert not shows("second\nfirst\n", "first\nsecond")


def test_the_tutorial_s_sandbox_is_the_one_of_its_test() -> None:
    assert "--fail-rate 0.01" in read_page("tutorial")


# --- what the pages say ------------------------------------------------------------------------------------------


def test_the_pages_are_the_files_and_small_enough_to_travel() -> None:
    assert sorted(path.name for path in GUIDE.iterdir()) == sorted(f"{name}.md" for name in PAGES)
    assert sum(path.stat().st_size for path in GUIDE.iterdir()) <= 60_000
    for name in PAGES:
        assert read_page(name).startswith("# ")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_page(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", read_page(page)):
        assert link.removesuffix(".md") in PAGES, link


def texts_of_the_package() -> str:
    """Return every text in the package's source, one a line; where an f-string has a value there is a ``…``."""
    found: list[str] = []
    for path in (ROOT / "seedance_avatar").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(it.value) if isinstance(it, ast.Constant) else "…" for it in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


OF_THE_SERVICE = re.compile(r"HTTP \d|insufficient_quota|quota_not_enough|rate_limit_exceeded|invalid request body")
OF_NOBODY = {
    "ConnectionFailed after a wait",
    "it is slow",
    "429s are shown",
    "Ctrl-C seems to hang",
    "500",
    "502",
    "504",
}


def test_every_message_that_is_explained_exists() -> None:
    texts = texts_of_the_package()
    messages = [
        message
        for message in (
            *re.findall(r"\*\*(.+?)\*\*", read_page("troubleshooting")),
            *re.findall(r"^- \*(.+?)\*:", read_page("journal").partition("## Messages")[2], re.MULTILINE),
        )
        if message not in OF_NOBODY and not OF_THE_SERVICE.search(message)
    ]
    assert len(messages) > 40
    parts = {part.strip(): message for message in messages for part in re.split(r"…| / |\bN\b|REASON", message)}
    assert "\n".join(message for part, message in parts.items() if part not in texts) == ""


def first_cells(page: str, head: str) -> list[str]:
    """Return the names in the first and second cells of the table of ``page`` that begins with ``head``."""
    rows = read_page(page).partition(f"{head}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return re.findall(r"`(\w+)`", " ".join(" ".join(row.split("|")[1:3]) for row in rows))


def test_the_tables_name_what_exists() -> None:
    package = ROOT / "seedance_avatar"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    words = {path.stem for path in package.glob("[!_]*.py")}
    assert sorted(first_cells("architecture", "| floor | folders | what they do |")) == sorted(rooms | words)
    assert sorted(word for word in words if f"`{word}`" in read_page("architecture").partition("## Versions")[0]) == (
        sorted(words)
    )
    states = re.findall(r"^\| `(\w+)` \|", read_page("journal"), re.MULTILINE)
    assert states == list(STATES)
    fields = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", read_page("files"), re.MULTILINE)))
    written = record(Unsent(source=AssetSource.image("https://cdn.example.com/1.jpg"), error=AvatarError("x")))
    assert set(written) <= set(fields)


# --- how they are shown ------------------------------------------------------------------------------------------


def test_into_a_pipe_a_page_goes_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["guide", "in-doubt"], ["guide", "in-doubt.md"], ["guide", "In-Doubt"]):
        assert run(words) == 0
        assert capsys.readouterr().out == (GUIDE / "in-doubt.md").read_text(encoding="utf-8")


def test_without_a_page_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["guide"]) == 0
    told = capsys.readouterr().out
    for name in PAGES:
        title = read_page(name).partition("\n")[0].removeprefix("# ")
        assert re.search(rf"^ +{name} +{re.escape(title)}$", told, re.MULTILINE)


@pytest.mark.parametrize("word", ["nothing", "../errors", "", "\x1b[31m", "/etc/passwd"])
def test_an_unknown_page_is_an_error_that_lists_the_pages(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["guide", word]) == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert line.endswith("its pages are " + ", ".join(PAGES))


@pytest.mark.asyncio
async def test_on_a_terminal_a_page_is_laid_out() -> None:
    with on_terminal("guide", "limits", columns=70, rows=200) as terminal:
        assert await terminal.end() == 0
        text = terminal.text
    assert "Limits and money" in text
    assert "# Limits and money" not in text
    assert "**" not in text
    assert max(map(len, terminal.lines)) <= 70


# --- which error names which page --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "page"),
    [
        (SubmissionInDoubt("the answer was lost"), "in-doubt"),
        (JournalError("is held by process 1"), "journal"),
        (QuotaExhausted("no money", status=402), "limits"),
        (AuthError("no", status=401), "troubleshooting"),
        (AssetFailed(Asset(asset_id="pa_1", status="failed")), "troubleshooting"),
        (InvalidInput("no API key: pass api_key, or set TOAPIS_API_KEY"), "first-run"),
    ],
)
def test_an_error_that_a_page_explains_names_it_in_its_last_words(
    error: AvatarError, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.command
    def probe() -> int:
        raise error

    try:
        run(["probe"])
    finally:
        del app["probe"]
    assert capsys.readouterr().err == f"seedance-avatar: {error} (seedance-avatar guide {page})\n"


def test_the_pointer_survives_a_message_that_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    @app.command
    def probe() -> int:
        raise JournalError("x" * 5000, about="y" * 5000)

    try:
        run(["probe"])
    finally:
        del app["probe"]
    assert capsys.readouterr().err.endswith(" (seedance-avatar guide journal)\n")


def test_no_page_explains_an_ordinary_mistake() -> None:
    assert page_pointer(InvalidInput("give only one of them")) == ""
    assert page_pointer(LookupError("a fault")) == ""


def test_every_page_that_is_pointed_to_exists() -> None:
    from seedance_avatar.cli.pages import _EXPLAINED  # noqa: PLC0415 - the table itself is what is looked at

    assert {page for *_, page in _EXPLAINED} <= {"", *PAGES}
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "seedance_avatar" / "cli").rglob("*.py"))
    named = re.findall(r"""pointer\(["']([a-z-]+)["']\)|seedance-avatar guide ([a-z-]+)""", source)
    assert len(named) > 2
    assert {page for pair in named for page in pair if page} <= set(PAGES)


def test_the_summary_of_a_run_names_the_pages_too() -> None:
    tally = Tally()
    source = AssetSource.image("https://cdn.example.com/1.jpg")
    tally.add(InDoubt(source=source, error=SubmissionInDoubt("lost")))
    tally.add(Unsent(source=source, error=AuthError("no", status=401)))
    told = advice(tally, command="x", journal="run.db", interrupted=False, rejects="")
    assert told[0].endswith("(seedance-avatar guide troubleshooting)")
    assert told[-1].endswith("(seedance-avatar guide in-doubt)")
