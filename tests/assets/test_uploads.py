"""Local files: judged before anything is sent, streamed, tried again, and made assets like any URL."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from rig.leaks import no_leaks
from rig.media import mp4, png, wav
from rig.rude import until
from rig.studio import Studio, studio
from rig.suspend import counted
from rig.world import quick

from seedance_avatar import (
    Active,
    AssetSource,
    ConnectionFailed,
    Failed,
    InvalidInput,
    InvalidRequest,
    InvalidSource,
    ProtocolError,
    Unsent,
)
from seedance_avatar.assets import messages, uploads
from seedance_avatar.assets.adapter import AssetAdapter
from seedance_avatar.assets.media import probe
from seedance_avatar.wire.public_urls import judge_url


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "data", "kind", "mime_type"),
    [
        ("a.png", png(400, 400), "images", "image/png"),
        ("named wrongly.jpg", mp4(3), "videos", "video/mp4"),
        ("a.wav", wav(3), "audios", "audio/wav"),
    ],
)
async def test_a_file_goes_where_its_bytes_belong(
    tmp_path: Path, name: str, data: bytes, kind: str, mime_type: str
) -> None:
    async with studio() as service, quick(service.url) as session:
        assert await session.upload_file(put(tmp_path, name, data)) == "https://files.example.com/1"
    assert service.uploads == [(kind, mime_type, data)]


@pytest.mark.asyncio
async def test_a_large_file_is_streamed_whole(tmp_path: Path) -> None:
    data = png(400, 400) + bytes(range(256)) * 20_000
    async with studio() as service, quick(service.url) as session:
        await session.upload_file(put(tmp_path, "a.png", data))
    assert service.uploads[0][2] == data


@pytest.mark.asyncio
async def test_what_breaks_is_sent_again_from_the_first_byte(tmp_path: Path) -> None:
    data = png(400, 400) + bytes(600_000)
    script: list[Any] = ["lose answer", (502, {}), (429, {})]
    async with studio(upload_script=script) as service, quick(service.url) as session:
        assert await session.upload_file(put(tmp_path, "a.png", data)) == "https://files.example.com/4"
    assert [sent for _, _, sent in service.uploads] == [data] * 4


@pytest.mark.asyncio
async def test_what_the_service_refuses_is_raised_and_an_answer_without_a_url_too(tmp_path: Path) -> None:
    path = put(tmp_path, "a.png", png(400, 400))
    script: list[Any] = [(400, {"success": False, "message": "file too ugly"})] + [
        (200, {"success": True, "data": {}})
    ] * 4
    async with studio(upload_script=script) as service, quick(service.url) as session:
        with pytest.raises(InvalidRequest, match=r"a\.png: HTTP 400: file too ugly"):
            await session.upload_file(path)
        with pytest.raises(ProtocolError, match="no usable url"):
            await session.upload_file(path)
    assert len(service.uploads) == 5


@pytest.mark.asyncio
async def test_what_cannot_be_uploaded_is_never_sent(tmp_path: Path) -> None:
    cases = [
        (put(tmp_path, "a.txt", b"hello"), "its format is not known"),
        (put(tmp_path, "a.bmp", b"BM" + bytes(100)), "its format is bmp, not one of jpeg, png, webp, gif"),
        (put(tmp_path, "a.png", png(1, 1) + bytes(11 << 20)), "more than 10,485,760"),
        (tmp_path / "missing.png", "is no file"),
    ]
    async with studio() as service, quick(service.url) as session:
        for path, words in cases:
            with pytest.raises(InvalidInput, match=words):
                await session.upload_file(path)
    assert service.uploads == []


@pytest.mark.asyncio
async def test_a_file_that_vanishes_after_it_was_judged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = probe(put(tmp_path, "a.png", png(400, 400)))
    facts.path.unlink()
    monkeypatch.setattr(uploads, "probe", lambda _: facts)
    async with studio() as service, quick(service.url) as session:
        with pytest.raises(InvalidInput, match=r"a\.png cannot be read: No such file"):
            await session.upload_file(facts.path)


@pytest.mark.asyncio
@pytest.mark.parametrize("change", [-100, 100])
async def test_a_file_that_changes_after_it_was_checked_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    path = put(tmp_path, "a.png", png(400, 400) + bytes(1000))
    facts = probe(path)
    path.write_bytes(path.read_bytes()[: facts.size + change] + bytes(max(0, change)))
    monkeypatch.setattr(uploads, "probe", lambda _: facts)
    async with studio() as service, quick(service.url) as session:
        with pytest.raises(InvalidInput, match=r"a\.png changed after it was checked .* upload it again"):
            await session.upload_file(path)
    assert service.uploads == []


@pytest.mark.asyncio
@pytest.mark.parametrize("change", [-100, 100])
async def test_a_file_that_changes_its_length_while_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    path = put(tmp_path, "a.png", png(400, 400) + bytes(1000))
    data = path.read_bytes()
    opened = uploads._Reader.open

    def open_and_change(reader: uploads._Reader) -> None:
        opened(reader)
        path.write_bytes(data[: len(data) + change] + bytes(max(0, change)))

    monkeypatch.setattr(uploads._Reader, "open", open_and_change)
    async with studio() as service, quick(service.url) as session:
        if change < 0:
            with pytest.raises(ConnectionFailed):
                await session.upload_file(path)
            assert service.uploads == []
        else:
            await session.upload_file(path)
            assert service.uploads[0][2] == data  # as many bytes as were announced


class Calls:
    """Counts the calls of a function that it stands in for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.arguments: list[Any] = []

    def __call__(self, argument: Any, **options: Any) -> Any:
        self.arguments.append(argument)
        return self.function(argument, **options)


@pytest.mark.asyncio
@pytest.mark.parametrize("journal", [False, True])
async def test_a_local_file_is_read_and_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, journal: bool
) -> None:
    paths = [put(tmp_path, f"{number}.png", png(400, 400 + number)) for number in range(3)]
    probes = Calls(probe)
    monkeypatch.setattr(uploads, "probe", probes)
    options: dict[str, Any] = {"journal": tmp_path / "run.db"} if journal else {}
    async with studio() as service, quick(service.url) as session:
        async with session.ingest(map(AssetSource.from_file, paths), group="pg_1", **options) as stream:
            assert len([asset async for asset in stream]) == 3
        assert sorted(probes.arguments) == paths
        probes.arguments.clear()
        await session.upload(AssetSource.from_file(paths[0]), group="pg_1")
        await session.upload_file(paths[1])
    assert probes.arguments == paths[:2]
    assert len(service.uploads) == 5


@pytest.mark.asyncio
async def test_the_facts_of_files_are_kept_no_longer_than_their_sources(tmp_path: Path) -> None:
    path = put(tmp_path, "a.png", png(400, 400))
    adapter = AssetAdapter("pg_1")
    for number in range(3):
        await adapter.prepare(AssetSource.from_file(path, key=f"{number}"))
    gc.collect()
    assert len(adapter.facts) == 0


@pytest.mark.asyncio
async def test_a_source_url_is_judged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [f"https://cdn.example.com/{number}.jpg" for number in range(5)]
    judged = Calls(judge_url)
    monkeypatch.setattr(messages, "judge_url", judged)
    async with studio() as service, quick(service.url) as session:
        async with session.ingest(map(AssetSource.image, urls), group="pg_1", journal=tmp_path / "run.db") as stream:
            assert len([asset async for asset in stream]) == 5
        await session.upload(AssetSource.image(urls[0]), group="pg_1")
        await session.upload(AssetSource.from_file(put(tmp_path, "a.png", png(400, 400))), group="pg_1")
    assert judged.arguments == [*urls, urls[0]]
    assert len(service.assets) == 7


@pytest.mark.asyncio
async def test_a_service_that_is_away_is_a_failed_connection(tmp_path: Path) -> None:
    async with quick("http://127.0.0.1:9") as session:
        with pytest.raises(ConnectionFailed):
            await session.upload_file(put(tmp_path, "a.png", png(400, 400)))


@pytest.mark.asyncio
async def test_cancelled_at_every_await_it_stops_and_leaves_nothing_open(tmp_path: Path) -> None:
    path = put(tmp_path, "a.png", png(400, 400) + bytes(600_000))
    at, done = 0, False
    while not done:
        at += 1
        async with no_leaks(), studio() as service, quick(service.url) as session:
            with counted() as suspensions:
                run = asyncio.get_running_loop().create_task(suspensions.wrap(session.upload_file(path)))
                suspensions.at(at, run.cancel)
                await asyncio.wait([run])
            assert await session.upload_file(path)
        # How many awaits there are depends on how the bytes flow; the last run has fewer than ``at``.
        done = not run.cancelled() and bool(run.result())
    assert at > 5


def test_a_file_that_is_opened_too_late_stays_closed(tmp_path: Path) -> None:
    reader = uploads._Reader(put(tmp_path, "a.png", png(400, 400)), 0)
    # As when a cancelled caller cleans up while its thread has yet to begin.
    reader.close()
    reader.open()
    assert (reader._file, reader.read(0, 10)) == (None, b"")


def test_a_source_from_a_file_is_named_by_it_and_typed_by_its_ending(tmp_path: Path) -> None:
    told = {
        name: AssetSource.from_file(tmp_path / name).asset_type for name in ("a.PNG", "a.mov", "a.Mp3", "a", "a.m4a")
    }
    assert told == {"a.PNG": "image", "a.mov": "video", "a.Mp3": "audio", "a": "image", "a.m4a": "audio"}
    source = AssetSource.from_file("her face.png", "video", name="n", description="d", key="k")
    assert source.path is not None
    assert source.path.is_absolute()
    assert (source.source_url, source.asset_type) == (source.path.as_uri(), "video")
    assert (source.name, source.description, source.key) == ("n", "d", "k")
    assert source.label.startswith("k (file:///")


@pytest.mark.asyncio
async def test_an_ingest_uploads_files_first_and_names_what_cannot_become_an_asset(tmp_path: Path) -> None:
    good = AssetSource.from_file(put(tmp_path, "good.png", png(400, 400)), key="her")
    small = AssetSource.from_file(put(tmp_path, "small.png", png(200, 1000)))
    short = AssetSource.from_file(put(tmp_path, "short.wav", wav(1)))
    misnamed = AssetSource.from_file(put(tmp_path, "misnamed.mp4", wav(3)))
    url = AssetSource.image("https://cdn.example.com/a.jpg")
    async with (
        studio() as service,
        quick(service.url) as session,
        session.ingest([good, small, short, misnamed, url], group="pg_1") as stream,
    ):
        outcomes = {outcome.source: outcome async for outcome in stream.outcomes()}
    assert {source for source, outcome in outcomes.items() if isinstance(outcome, Active)} == {good, url}
    problems = {
        small: "its width is 200 pixels, not 300 to 6000; its width/height is 0.2, not 0.4 to 2.5",
        short: "it lasts 1 seconds, not 2 to 15",
        misnamed: "cannot become an asset of type video: its format is wav, not one of mp4, mov",
    }
    for source, words in problems.items():
        outcome = outcomes[source]
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, InvalidSource)
        assert words in str(outcome.error)
    assert sorted(told["source_url"] for told in service.assets) == [
        "https://cdn.example.com/a.jpg",
        "https://files.example.com/1",
    ]
    assert len(service.uploads) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("lost", [0, 1, 3, 10])
async def test_a_file_whose_answers_are_lost_for_ever_does_not_hold_up_the_others(tmp_path: Path, lost: int) -> None:
    # With three lost answers in a row the service counts as ill, and the file itself is what is tried again.
    file = AssetSource.from_file(put(tmp_path, "her.png", png(400, 400)))
    urls = [AssetSource.image(f"https://cdn.example.com/{number}.jpg") for number in range(3)]
    script: list[Any] = ["lose answer"] * 100_000  # more than its patience has time for

    async def first_the_file(service: Studio) -> AsyncIterator[AssetSource]:  # noqa: ASYNC900 - it holds no scope
        yield file
        await until(lambda: len(service.uploads) >= lost)
        for url in urls:
            yield url

    async with (
        studio(upload_script=script) as service,
        quick(service.url) as session,
        session.ingest(first_the_file(service), group="pg_1") as stream,
    ):
        outcomes = {outcome.source: outcome async for outcome in stream.outcomes()}
    assert isinstance(outcomes[file], Unsent)
    assert all(isinstance(outcomes[url], Active) for url in urls)
    assert len(service.uploads) >= 4


@pytest.mark.asyncio
async def test_a_single_upload_takes_a_file_too_and_its_asset_names_it(tmp_path: Path) -> None:
    source = AssetSource.from_file(put(tmp_path, "her.png", png(400, 400)))
    async with studio() as service, quick(service.url) as session:
        asset = await session.upload(source, group="pg_1")
        assert asset.source is source
        with pytest.raises(InvalidSource, match="is no file"):
            await session.upload(AssetSource.from_file(tmp_path / "missing.png"), group="pg_1")
    assert len(service.uploads) == 1


@pytest.mark.asyncio
async def test_a_file_url_in_a_manifest_reads_nothing_from_the_disk(tmp_path: Path) -> None:
    path = put(tmp_path, "private.png", png(400, 400))
    async with studio() as service, quick(service.url) as session:
        with pytest.raises(InvalidSource, match="local path"):
            await session.upload(AssetSource.image(path.as_uri()), group="pg_1")
    assert service.uploads == []
