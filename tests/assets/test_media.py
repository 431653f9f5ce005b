"""What a local file is, told by its bytes, and every limit that it would break."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.media import mp4, png, wav

from seedance_avatar.assets import media
from seedance_avatar.assets.media import ASSET_LIMITS, UPLOAD_LIMITS, MediaFacts, probe
from seedance_avatar.errors import InvalidInput

BEGINNINGS = [
    (b"\xff\xd8\xff\xe0\0\x10JFIF", "jpeg", "image"),
    (b"\x89PNG\r\n\x1a\n", "png", "image"),
    (b"RIFF\0\0\0\0WEBPVP8 ", "webp", "image"),
    (b"GIF89a", "gif", "image"),
    (b"BM\0\0", "bmp", "image"),
    (b"II*\0\x08", "tiff", "image"),
    (b"MM\0*\0", "tiff", "image"),
    (b"\0\0\0\x18ftypheic\0\0\0\0", "heic", "image"),
    (b"\0\0\0\x18ftypmp42\0\0\0\0", "mp4", "video"),
    (b"\0\0\0\x14ftypqt  \0\0\0\0", "mov", "video"),
    (b"\0\0\0\x08wide\0\0\0\0mdat", "mov", "video"),
    (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "webm", "video"),
    (b"ID3\x04\0", "mp3", "audio"),
    (b"\xff\xfb\x90\x64", "mp3", "audio"),
    (b"RIFF\0\0\0\0WAVEfmt ", "wav", "audio"),
    (b"\0\0\0\x18ftypM4A \0\0\0\0", "m4a", "audio"),
    (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska", None, None),
    (b"\xff\xf1\x50\x80", None, None),  # AAC, which is layer 0
    (b"%PDF-1.7", None, None),
    (b"", None, None),
]


@pytest.mark.parametrize(("head", "media_format", "media_type"), BEGINNINGS)
def test_the_format_is_told_by_the_first_bytes(
    tmp_path: Path, head: bytes, media_format: str | None, media_type: str | None
) -> None:
    path = tmp_path / "named.txt"
    path.write_bytes(head)
    facts = probe(path)
    assert (facts.media_format, facts.media_type, facts.size) == (media_format, media_type, len(head))
    assert (facts.mime_type is None) == (media_format is None)


def test_dimensions_and_durations_are_read_by_the_libraries_of_the_extra(tmp_path: Path) -> None:
    for name, data in (
        ("a.png", png(640, 480)),
        ("a.wav", wav(2.5)),
        ("a.mp4", mp4(4.0)),
        ("a.mov", mp4(3.0, b"qt  ")),
    ):
        (tmp_path / name).write_bytes(data)
    image = probe(str(tmp_path / "a.png"))
    assert (image.width, image.height, image.ratio) == (640, 480, 640 / 480)
    assert probe(tmp_path / "a.wav").duration == pytest.approx(2.5)
    assert probe(tmp_path / "a.mp4").duration == pytest.approx(4.0)
    assert probe(tmp_path / "a.mov").duration == pytest.approx(3.0)


def test_without_the_extra_format_and_size_are_known_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png(10, 10))
    (tmp_path / "a.wav").write_bytes(wav(60))
    monkeypatch.setattr(media, "_optional", lambda _: None)
    image, audio = probe(tmp_path / "a.png"), probe(tmp_path / "a.wav")
    assert (image.media_format, image.width, image.ratio, audio.duration) == ("png", None, None, None)
    assert not list(ASSET_LIMITS["image"].problems(image))
    assert not list(ASSET_LIMITS["audio"].problems(audio))


def test_a_library_that_is_not_installed_is_none() -> None:
    assert media._optional("seedance_avatar_no_such_library") is None


@given(tail=st.binary(max_size=200), head=st.sampled_from([head for head, _, _ in BEGINNINGS]))
def test_a_damaged_file_never_breaks_the_probe(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(head + tail)
    assert probe(path).size == len(head + tail)


def facts(**known: Any) -> MediaFacts:
    return MediaFacts(**{"path": Path("x"), "size": 1000, **known})


MB = 1 << 20
PROBLEMS = [
    ("image", facts(media_format="mp4"), "its format is mp4, not one of jpeg, png"),
    ("image", facts(media_format=None), "its format is not known"),
    ("image", facts(media_format="png", size=0), "it is empty"),
    ("image", facts(media_format="png", size=30 * MB), "it has 31,457,280 bytes, more than 31,457,279"),
    ("image", facts(media_format="png", width=299, height=400), "its width is 299 pixels, not 300 to 6000"),
    ("image", facts(media_format="png", width=3000, height=6001), "its height is 6001 pixels"),
    ("image", facts(media_format="png", width=1000, height=399), "its width/height is 2.506, not 0.4 to 2.5"),
    ("image", facts(media_format="png", width=399, height=1000), "its width/height is 0.399, not 0.4 to 2.5"),
    ("video", facts(media_format="webm"), "its format is webm, not one of mp4, mov"),
    ("video", facts(media_format="mp4", size=50 * MB + 1), "it has 52,428,801 bytes, more than 52,428,800"),
    ("video", facts(media_format="mp4", duration=1.9), "it lasts 1.9 seconds, not 2 to 15"),
    ("video", facts(media_format="mp4", duration=15.1), "it lasts 15.1 seconds"),
    ("audio", facts(media_format="m4a"), "its format is m4a, not one of mp3, wav"),
    ("audio", facts(media_format="wav", size=15 * MB + 1), "it has 15,728,641 bytes, more than 15,728,640"),
    ("audio", facts(media_format="wav", duration=16.0), "it lasts 16 seconds"),
]


@pytest.mark.parametrize(("media_type", "known", "problem"), PROBLEMS)
def test_every_limit_is_named(media_type: str, known: MediaFacts, problem: str) -> None:
    problems = list(ASSET_LIMITS[media_type].problems(known))  # type: ignore[index]  # a plain string of the table
    assert any(problem in it for it in problems), problems


def test_what_keeps_to_the_limits_has_no_problem() -> None:
    best = facts(media_format="jpeg", size=30 * MB - 1, width=6000, height=2400)
    assert not list(ASSET_LIMITS["image"].problems(best))
    assert not list(ASSET_LIMITS["video"].problems(facts(media_format="mov", size=50 * MB, duration=15.0)))
    assert not list(UPLOAD_LIMITS["audio"].problems(facts(media_format="m4a", size=50 * MB, duration=900.0)))


def test_all_that_is_wrong_is_named_at_once() -> None:
    assert (
        len(list(ASSET_LIMITS["image"].problems(facts(media_format="png", size=40 * MB, width=100, height=100)))) == 3
    )


def test_what_a_library_cannot_read_is_left_unsaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise KeyError(name)

    (tmp_path / "a.png").write_bytes(png(10, 10))
    (tmp_path / "a.wav").write_bytes(wav(3))
    monkeypatch.setattr(media, "_optional", lambda _: Broken())
    image, audio = probe(tmp_path / "a.png"), probe(tmp_path / "a.wav")
    assert (image.width, image.height, audio.duration) == (None, None, None)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "a.png").write_bytes(png(10, 10))
    monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(InvalidInput, match=r"a\.png cannot be read: Permission denied"):
        probe(tmp_path / "a.png")


def test_what_is_no_file_is_refused_with_its_name(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.png"):
        with pytest.raises(InvalidInput, match=f"{path.name} is no file"):
            probe(path)
