"""What the sandbox's second host serves, what is uploaded to it, and the webhooks that tell of it."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import shutil
import socket
import struct
import subprocess
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from rig.raw import Raw, sandbox_and_raw, until

from seedance_avatar.sandbox import Fate, Sandbox
from seedance_avatar.sandbox.videos import stretched

GENERATIONS = "/v1/videos/generations"


async def finished(sandbox: Sandbox, raw: Raw, **fields: Any) -> dict[str, Any]:
    body = {"model": "seedance-2", "prompt": "She waves.", **fields}
    _, _, task = await raw.call("POST", GENERATIONS, json=body)
    sandbox.advance(300)
    return await result_of(raw, task["id"])


async def result_of(raw: Raw, task_id: str) -> dict[str, Any]:
    _, _, found = await raw.call("GET", f"{GENERATIONS}/{task_id}")
    return {**found["result"]["data"][0], "id": task_id}


def boxes(data: bytes, at: int = 0, end: int | None = None) -> dict[str, tuple[int, int]]:
    found, end = {}, len(data) if end is None else end
    while at < end:
        size, kind = struct.unpack_from(">I4s", data, at)
        found[kind.decode()] = (at + 8, at + size)
        at += size
    assert at == end
    return found


def dig(data: bytes, *path: str) -> bytes:
    start, end = 0, len(data)
    for kind in path:
        start, end = boxes(data, start, end)[kind]
    return data[start:end]


SIZES = {
    "21:9": (168, 72),
    "16:9": (160, 90),
    "4:3": (128, 96),
    "1:1": (112, 112),
    "3:4": (96, 128),
    "9:16": (90, 160),
    "adaptive": (160, 90),
}


def times(data: bytes) -> list[float]:
    """The seconds that each box of ``data`` gives as its length: of the film, its track, its media, its samples."""
    film, of_film = struct.unpack_from(">II", dig(data, "moov", "mvhd"), 12)
    (of_track,) = struct.unpack_from(">I", dig(data, "moov", "trak", "tkhd"), 20)
    media, of_media = struct.unpack_from(">II", dig(data, "moov", "trak", "mdia", "mdhd"), 12)
    entries, samples, tick = struct.unpack_from(">3I", dig(data, "moov", "trak", "mdia", "minf", "stbl", "stts"), 4)
    assert (entries, samples) == (1, 24)
    return [of_film / film, of_track / film, of_media / media, samples * tick / media]


@pytest.mark.parametrize("ratio", SIZES)
@pytest.mark.parametrize("seconds", [4, 7, 15, 30])
def test_a_video_is_one_that_players_open_and_plays_for_as_long_as_was_asked(
    ratio: str, seconds: int, tmp_path: Path
) -> None:
    data = stretched(ratio, seconds, "cgt-1")
    assert [kind for kind in boxes(data) if kind != "free"] == ["ftyp", "moov", "mdat"]  # it plays while it loads
    assert data.endswith(b"freecgt-1")
    assert times(data) == [seconds] * 4
    stbl = ("moov", "trak", "mdia", "minf", "stbl")
    avc1 = dig(data, *stbl, "stsd")[8:]
    assert avc1[4:8] == b"avc1"
    assert struct.unpack_from(">HH", avc1, 8 + 24) == SIZES[ratio]
    # Where a decoder is on the machine, it has the last word.
    file = tmp_path / "video.mp4"
    file.write_bytes(data)
    shown = "stream=codec_name,width,height,duration:format=duration"
    for tool, *arguments in (
        ("ffprobe", "-v", "warning", "-show_entries", shown, "-of", "csv=p=0", str(file)),
        ("ffmpeg", "-v", "warning", "-xerror", "-err_detect", "explode", "-i", str(file), "-f", "null", "-"),
    ):
        if (path := shutil.which(tool)) is not None:
            done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - the test's own arguments
            width, height = SIZES[ratio]
            whole = f"h264,{width},{height},{seconds}.000000\n{seconds}.000000\n" if tool == "ffprobe" else ""
            assert (done.returncode, done.stdout, done.stderr) == (0, whole, "")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ({}, 5),
        ({"duration": 0}, 5),
        ({"duration": -1}, 5),
        ({"duration": 12}, 12),
        ({"model": "seedance-2-5", "duration": 30}, 30),
    ],
)
async def test_the_length_that_was_asked_is_what_is_fetched(asked: dict[str, Any], seconds: int) -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        fetched = []
        for _ in range(2):
            async with raw.session.get((await finished(sandbox, raw, **asked))["url"]) as response:
                fetched.append(await response.read())
    assert times(fetched[0]) == [seconds] * 4
    assert fetched[0] != fetched[1]  # of another task, another file: one mistaken for the other is noticed


def test_the_files_are_small_and_say_how_they_were_made() -> None:
    here = files("seedance_avatar.sandbox") / "media"
    names = {ratio.replace(":", "x") for ratio in SIZES} - {"adaptive"}
    expected = {f"{name}.{ending}" for name in names for ending in ("mp4", "png")}
    assert {file.name for file in here.iterdir()} == expected | {"MADE.md"}
    assert sum(len((here / name).read_bytes()) for name in expected) < 20_000
    made = (here / "MADE.md").read_text()
    assert all(f"clip {name} {'x'.join(map(str, SIZES[name.replace('x', ':')]))}" in made for name in names)


@pytest.mark.asyncio
async def test_a_download_needs_no_key_and_one_that_brings_it_is_seen() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        result = await finished(sandbox, raw, aspect_ratio="1:1", duration=6, return_last_frame=True)
        async with raw.session.get(result["url"]) as response:
            assert (response.status, response.content_type) == (200, "video/mp4")
            assert response.headers["Accept-Ranges"] == "bytes"
            assert (await response.read())[4:8] == b"ftyp"
        async with raw.session.get(result["last_frame_url"]) as response:
            picture = await response.read()
            assert (response.content_type, picture[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")
            assert struct.unpack_from(">II", picture, 16) == (112, 112)
            at = picture.index(b"IDAT")
            (size,) = struct.unpack_from(">I", picture, at - 4)
            assert len(zlib.decompress(picture[at + 4 : at + 4 + size])) == 112 * (1 + 3 * 112)
        assert sandbox.ledger.leaks == []
        async with raw.session.head(result["url"], headers={"Authorization": "Bearer sk-sandbox"}) as response:
            assert (response.status, await response.read()) == (200, b"")
            assert int(response.headers["Content-Length"]) > 1000
        assert [leak.path for leak in sandbox.ledger.leaks] == [f"/videos/{result['id']}.mp4"]
        assert len(sandbox.ledger.downloads) == 3
        assert sandbox.ledger.count(kind="files", status=200) == 3


@pytest.mark.asyncio
async def test_ranges_give_the_rest_of_the_same_file_only() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        url = (await finished(sandbox, raw))["url"]
        async with raw.session.get(url) as response:
            whole, etag = await response.read(), response.headers["ETag"]

        async def part(ranged: str, **more: str) -> tuple[int, str | None, bytes]:
            async with raw.session.get(url, headers={"Range": ranged, **more}) as response:
                return response.status, response.headers.get("Content-Range"), await response.read()

        size = len(whole)
        assert await part("bytes=10-19") == (206, f"bytes 10-19/{size}", whole[10:20])
        assert await part("bytes=100-") == (206, f"bytes 100-{size - 1}/{size}", whole[100:])
        assert await part("bytes=-7") == (206, f"bytes {size - 7}-{size - 1}/{size}", whole[-7:])
        assert await part("bytes=0-", **{"If-Range": etag}) == (206, f"bytes 0-{size - 1}/{size}", whole)
        assert await part("bytes=9-", **{"If-Range": '"other"'}) == (200, None, whole)
        assert await part("lines=1-2") == (200, None, whole)
        status, told, _ = await part(f"bytes={size}-")
        assert (status, told) == (416, f"bytes */{size}")
        assert sandbox.ledger.downloads[1].ranged == "bytes=10-19"


@pytest.mark.asyncio
async def test_a_url_expires_a_fresh_look_gives_a_fresh_one_and_then_the_file_is_gone() -> None:
    async with sandbox_and_raw(url_lives=600.0) as (sandbox, raw):
        first = await finished(sandbox, raw)

        async def status(url: str) -> int:
            async with raw.session.get(url) as response:
                return response.status

        assert await status(first["url"]) == 200
        assert await status(first["url"].replace("Signature=", "Signature=0")) == 403
        assert await status(first["url"].partition("?")[0]) == 403
        sandbox.advance(600)
        assert await status(first["url"]) == 403
        fresh = await result_of(raw, first["id"])
        assert fresh["url"] != first["url"]
        assert await status(fresh["url"]) == 200
        sandbox.advance(86_400)
        assert await status((await result_of(raw, first["id"]))["url"]) == 404
        assert await status(f"{sandbox.files_url}/videos/nobody.mp4") == 404


@pytest.mark.asyncio
async def test_faults_strike_downloads_too() -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        url = (await finished(sandbox, raw))["url"]
        sandbox.faults.add("truncated", path="files", times=1)
        sandbox.faults.add("server_error", path="files", times=1, status=502)
        async with raw.session.get(url) as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        async with raw.session.get(url) as response:
            assert response.status == 502
        assert [download.status for download in sandbox.ledger.downloads] == [200, 502]


def form(name: str = "front.jpg", data: bytes = b"\xff\xd8\xff picture", field: str = "file") -> aiohttp.FormData:
    made = aiohttp.FormData()
    made.add_field("note", "something else")
    made.add_field(field, io.BytesIO(data), filename=name)
    return made


@pytest.mark.parametrize(
    ("kind", "name", "mime_type"),
    [("images", "a.JPG", "image/jpeg"), ("videos", "a.mov", "video/quicktime"), ("audios", "a.mp3", "audio/mpeg")],
)
@pytest.mark.asyncio
async def test_an_uploaded_file_can_be_fetched_and_becomes_an_asset(kind: str, name: str, mime_type: str) -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        data = b"\xff\xd8\xff" + bytes(range(256)) * 9000  # more than what other requests may carry
        status, _, body = await raw.call("POST", f"/v1/uploads/{kind}", data=form(name, data))
        assert (status, body["success"]) == (200, True)
        (entry,) = sandbox.ledger.files
        url = body["data"]["url"]
        assert body["data"] == {"id": entry.file_id, "url": url, "mime_type": mime_type, "size": len(data)}
        assert entry.sha256 == hashlib.sha256(data).hexdigest()
        async with raw.session.get(url) as response:
            assert (response.content_type, await response.read()) == (mime_type, data)
        assert await raw.upload(await raw.group(), url, kind[:-1])


@pytest.mark.parametrize(
    ("kind", "more", "status", "why"),
    [
        ("images", {"data": form("a.tiff")}, 400, "images may be gif, jpeg, jpg, png, webp, not tiff"),
        ("images", {"data": form(data=b"")}, 400, "empty"),
        ("images", {"data": form(field="picture")}, 400, "the field file is missing"),
        ("images", {"data": form(data=bytes(10_000_001))}, 400, "larger than 10 MB"),
        ("images", {"json": {"file": "a.jpg"}}, 400, "not multipart"),
        ("sounds", {"data": form()}, 404, "no such kind"),
    ],
)
@pytest.mark.asyncio
async def test_what_cannot_be_uploaded_is_refused(kind: str, more: dict[str, Any], status: int, why: str) -> None:
    async with sandbox_and_raw() as (sandbox, raw):
        got, _, body = await raw.call("POST", f"/v1/uploads/{kind}", **more)
        assert (got, body["success"]) == (status, False)
        assert why in body["message"]
        assert sandbox.ledger.files == []
        assert (await raw.with_key(None).call("POST", "/v1/uploads/images", data=form()))[0] == 401


@pytest.mark.asyncio
async def test_a_webhook_is_signed_and_comes_again_until_it_is_taken() -> None:
    seen: list[tuple[Any, bytes]] = []

    async def take(request: web.BaseRequest) -> web.Response:
        seen.append((request.headers, await request.read()))
        return web.Response(status=500 if len(seen) == 1 else 204)

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    callback = f"http://127.0.0.1:{runner.addresses[0][1]}/done"

    def decide(wanted: Any) -> Fate | None:
        return Fate.failed("too hard", after=10) if wanted["prompt"] == "hard" else Fate.active(after=10)

    async with sandbox_and_raw(webhook_secrets=("new", "old"), videos=decide) as (sandbox, raw):
        body = {"model": "seedance-2", "prompt": "x", "callback_url": callback, "client_business_id": "shot-1"}
        task_id = (await raw.call("POST", GENERATIONS, json=body))[2]["id"]
        sandbox.advance(10)
        await until(lambda: len(sandbox.ledger.deliveries) == 1)
        sandbox.advance(1)
        await until(lambda: len(sandbox.ledger.deliveries) == 2)
        assert [(d.attempt, d.status) for d in sandbox.ledger.deliveries] == [(1, 500), (2, 204)]
        (first, _), (headers, raw_body) = seen
        assert first["X-ToAPIs-Webhook-Id"] == headers["X-ToAPIs-Webhook-Id"]
        stamp = headers["X-ToAPIs-Webhook-Timestamp"]
        signed = f"{headers['X-ToAPIs-Webhook-Id']}.{stamp}.".encode() + raw_body
        expected = ",".join(f"v1={hmac.new(key, signed, hashlib.sha256).hexdigest()}" for key in (b"new", b"old"))
        assert headers["X-ToAPIs-Webhook-Signature"] == expected
        told = json.loads(raw_body)
        assert told["data"]["task_id"] == task_id
        assert (told["data"]["status"], told["data"]["progress"]) == ("SUCCESS", "100%")
        assert told["data"]["client_business_id"] == "shot-1"
        assert told["data"]["result"]["data"][0]["url"].startswith(sandbox.files_url)

        await raw.call("POST", GENERATIONS, json={"model": "seedance-2", "prompt": "hard", "callback_url": callback})
        sandbox.advance(10)
        await until(lambda: len(seen) == 3)
        told = json.loads(seen[2][1])["data"]
        assert (told["status"], told["error"]["message"]) == ("FAILURE", "too hard")
    await runner.cleanup()


@pytest.mark.asyncio
async def test_a_webhook_that_nobody_takes_is_owed_across_a_restart() -> None:
    # Bound, so that nobody else gets the port, and not listening.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        await nobody_takes_it(f"http://127.0.0.1:{deaf.getsockname()[1]}/nobody")


async def nobody_takes_it(callback: str) -> None:
    async with sandbox_and_raw(videos=lambda _: Fate.active(after=10)) as (sandbox, raw):
        body = {"model": "seedance-2", "prompt": "x", "callback_url": callback}
        await raw.call("POST", GENERATIONS, json=body)
        await sandbox.aclose()
        await sandbox.start()
        sandbox.advance(10)
        await until(lambda: len(sandbox.ledger.deliveries) == 1)
        for attempt, wait in enumerate((1, 5, 25, 125), 2):
            sandbox.advance(wait)
            await until(lambda attempt=attempt: len(sandbox.ledger.deliveries) == attempt)  # type: ignore[misc]  # bound at once
        assert {delivery.status for delivery in sandbox.ledger.deliveries} == {None}
