"""Files that a command writes: what they may replace, and which names are names of one file."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from seedance_avatar import InvalidInput
from seedance_avatar.cli.app import run
from seedance_avatar.cli.output import OutputFile, check_distinct
from seedance_avatar.cli.streams import Unwritable


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-sandbox")
    monkeypatch.setenv("TOAPIS_BASE_URL", "http://127.0.0.1:9")


def written(path: str, text: str = "new\n", *, whole: bool = True) -> OutputFile:
    file = OutputFile(path, "the page")
    file.check()
    file.open()
    file.write(text)
    file.close(whole=whole)
    return file


def test_a_file_grows_beside_its_name_and_takes_it_at_the_end() -> None:
    Path("a").write_text("old")
    Path("a").chmod(0o640)
    file = OutputFile("a", "the page")
    file.check()
    file.open()
    file.write("new 正面 \udcff")
    assert Path("a").read_text() == "old"
    assert Path("a.partial").read_text(encoding="utf-8") == "new 正面 \\udcff"
    file.close(whole=True)
    assert Path("a").read_text(encoding="utf-8") == "new 正面 \\udcff"
    assert stat.S_IMODE(Path("a").stat().st_mode) == 0o640
    assert [path.name for path in Path().iterdir()] == ["a"]


def test_a_link_stays_a_link() -> None:
    Path("real").mkdir()
    Path("real/file").write_text("old")
    Path("link").symlink_to("real/file")
    Path("dangling").symlink_to("real/new")
    for name in ("link", "dangling"):
        written(name)
        assert Path(name).is_symlink()
        assert Path(name).read_text() == "new\n"
    assert sorted(path.name for path in Path("real").iterdir()) == ["file", "new"]


def test_a_pipe_and_a_device_are_written_and_not_replaced() -> None:
    os.mkfifo("fifo")
    reading = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    Path("null").symlink_to(os.devnull)
    for name in ("fifo", "null", os.devnull):
        assert written(name).partial == ""
    assert os.read(reading, 100) == b"new\n"
    os.close(reading)
    assert stat.S_ISFIFO(Path("fifo").stat().st_mode)
    assert Path("null").is_symlink()
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    with pytest.raises(Unwritable, match="the page cannot be written to /dev/full: No space left on device"):
        written("/dev/full")


def test_a_descriptor_of_a_regular_file_is_appended_to() -> None:
    with Path("a").open("w+") as stream:
        stream.write("before\n")
        stream.flush()
        written(f"/dev/fd/{stream.fileno()}")
        assert Path("a").read_text() == "before\nnew\n"
    assert [path.name for path in Path().iterdir()] == ["a"]


@pytest.mark.parametrize("place", ["folder", "socket", "link to folder", "partial is a folder", "no/folder"])
def test_what_cannot_be_written_is_refused_before_it_is_opened(place: str) -> None:
    name = "x"
    if place == "no/folder":
        name = place
    elif place == "folder":
        Path("x").mkdir()
    elif place == "link to folder":
        Path("y").mkdir()
        Path("x").symlink_to("y")
    elif place == "partial is a folder":
        Path("x.partial").mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("x")
    before = [(path.name, path.lstat().st_mode) for path in Path().iterdir()]
    with pytest.raises(InvalidInput, match=f"the page cannot be written to {name}: "):
        OutputFile(name, "the page").check()
    assert [(path.name, path.lstat().st_mode) for path in Path().iterdir()] == before


def test_a_partial_file_that_is_a_link_is_not_followed() -> None:
    Path("victim").write_text("precious")
    Path("a.partial").symlink_to("victim")
    with pytest.raises(InvalidInput):
        OutputFile("a", "the page").open()
    assert Path("victim").read_text() == "precious"


OTHER_NAMES = ["s.csv", "./s.csv", "{here}/s.csv", "link.csv", "hard.csv", "sub/../s.csv", "here/s.csv"]


@pytest.fixture
def files() -> dict[str, bytes]:
    Path("s.csv").write_text("source_url\nhttps://cdn.example.com/1.jpg\nftp://x/2.jpg\n")
    for name in ("run.db", "r.jsonl", "bad.jsonl", "run.db-wal"):
        Path(name).write_text(f"{name} is precious\n")
    Path("sub").mkdir()
    Path("here").symlink_to(".")
    Path("link.csv").symlink_to("s.csv")
    Path("link.db").symlink_to("run.db")
    os.link("s.csv", "hard.csv")
    os.link("r.jsonl", "hard.jsonl")
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def refused(words: list[str], files: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 64
    assert "would be one file" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()} == files


@pytest.mark.parametrize("name", OTHER_NAMES)
@pytest.mark.parametrize("option", ["--out", "--rejects", "--journal"])
def test_no_output_is_the_manifest(
    name: str, option: str, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    given = name.format(here=Path.cwd())
    refused(["ingest", "s.csv", "--group-name", "g", option, given], files, capsys)
    refused(["ingest", "s.csv", "--group-name", "g", "--dry-run", option, given], files, capsys)


@pytest.mark.parametrize(
    "options",
    [
        "--journal run.db --out run.db",
        "--journal run.db --out link.db",
        "--journal run.db --out here/run.db-wal",
        "--journal link.db --out run.db-lock",
        "--journal run.db --rejects run.db-shm",
        "--journal run.db --out r.jsonl --rejects ./r.jsonl",
        "--journal run.db --out r.jsonl --rejects hard.jsonl",
        "--journal run.db --out new.jsonl --rejects sub/../new.jsonl",
        "--journal run.db --out r.jsonl --rejects r.jsonl.partial",
        "--journal r.jsonl.partial --out r.jsonl",
        "--journal run.db --out s.csv.rejects.jsonl",
    ],
)
def test_no_two_outputs_are_one_file(options: str, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    refused(["ingest", "s.csv", "--group-name", "g", *options.split()], files, capsys)


@pytest.mark.parametrize("words", ["report run.db --html link.db", "report run.db --html run.db-wal"])
def test_a_page_is_not_the_journal(words: str, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    refused(words.split(), files, capsys)


def test_a_video_is_not_beside_the_journal(files: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    refused(["generate", "x", "--journal", "run.db", "--out", "run.db-lock"], files, capsys)


def test_descriptors_are_compared_too_and_devices_may_be_shared() -> None:
    Path("a").write_text("")
    with Path("a").open() as stream:
        for name in ("a", f"/dev/fd/{stream.fileno()}"):
            with pytest.raises(InvalidInput, match="the manifest and --out would be one file"):
                check_distinct(("the manifest", stream.fileno()), ("--out", name))
    check_distinct(("the manifest", os.devnull), ("--out", os.devnull), ("--rejects", os.devnull), ("--html", None))
