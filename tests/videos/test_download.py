"""Downloads over real sockets: whole or not at all, and never with the key."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import random
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.errors import ApiError, ConnectionFailed, InvalidInput, NotFound, ProtocolError, RateLimited
from seedance_avatar.models import VideoTask
from seedance_avatar.options import Retry, Timeouts
from seedance_avatar.videos.download import Download, _Part
from seedance_avatar.videos.transfer import Boxes


def box(kind: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


HEAD = box(b"ftyp", b"mp42\0\0\0\0mp42isom") + box(b"moov", bytes(100))
VIDEO = HEAD + box(b"mdat", random.Random(7).randbytes(3_000_000))
OTHER = HEAD + box(b"mdat", random.Random(8).randbytes(3_000_000))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def host(*answers: Handler) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Serve ``answers`` one after the other, the last of them for ever; yield the URL and what arrived."""
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return await answers[min(len(seen), len(answers)) - 1](request)

    app = web.Application()
    app.router.add_get("/{name}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/video.mp4?signature=s3cret", seen
    finally:
        await runner.cleanup()


def file(
    data: bytes = VIDEO, *, etag: str | None = '"v1"', media_type: str = "video/mp4", coding: str | None = None
) -> Handler:
    """Serve ``data`` as an object store does, ranges included."""

    async def handle(request: web.Request) -> web.StreamResponse:
        extra = {"Content-Type": media_type} | ({} if etag is None else {"ETag": etag})
        if coding is not None:
            extra["Content-Encoding"] = coding
        asked = request.headers.get("Range")
        if asked is None or request.headers.get("If-Range") not in {None, etag}:
            return web.Response(body=data, headers=extra)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        extra["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return web.Response(status=206, body=data[start:], headers=extra)

    return handle


def broken(after: int, **headers: str) -> Handler:
    """Promise all of the video, send ``after`` bytes and hang up."""

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "video/mp4", **headers})
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        if start:
            answer.set_status(206)
            answer.headers["Content-Range"] = f"bytes {start}-{len(VIDEO) - 1}/{len(VIDEO)}"
        answer.content_length = len(VIDEO) - start
        await answer.prepare(request)
        await answer.write(VIDEO[start : start + after])
        assert request.transport is not None
        request.transport.close()
        return answer

    return handle


def status(code: int, **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers, text="<html>no</html>", content_type="text/html")

    return handle


def task(url: str | None, **facts: Any) -> VideoTask:
    return VideoTask(**{"task_id": "tsk_1", "status": "completed", "url": url, **facts})


class Slept(list[float]):
    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


async def never_asked(task_id: str) -> VideoTask:
    raise AssertionError(task_id)


def download(ask: Callable[[str], Awaitable[VideoTask]] = never_asked, **parts: Any) -> Download:
    parts = {"sleep": Slept(), "rng": random.Random(1), "wall_clock": lambda: 1_000.0, **parts}
    return Download(ask=ask, **parts)


@pytest.mark.asyncio
async def test_a_video_arrives_whole_and_its_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    async with host(file()) as (url, seen):
        path = await download(progress=lambda done, total: told.append((done, total))).run(
            task(url), tmp_path / "v.mp4"
        )
    assert path == tmp_path / "v.mp4"
    assert path.read_bytes() == VIDEO
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.mp4"]
    assert told[-1] == (len(VIDEO), len(VIDEO))
    assert told == sorted(told)
    assert seen[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.asyncio
async def test_the_key_stays_at_home_even_when_the_connector_is_shared(tmp_path: Path) -> None:
    async with (
        host(file()) as (url, seen),
        aiohttp.ClientSession(headers={"Authorization": "Bearer sk-canary", "Cookie": "a=b"}) as http,
    ):
        await download(connector=http.connector).run(task(url), tmp_path / "v.mp4")
        assert http.connector is not None
        assert not http.connector.closed
    assert not {"Authorization", "Cookie"} & set(seen[0].headers)


@pytest.mark.asyncio
async def test_a_broken_transfer_goes_on_where_it_broke(tmp_path: Path) -> None:
    async with host(broken(1_200_000, ETag='"v1"'), broken(900_000, ETag='"v1"'), file()) as (url, seen):
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO
    assert [request.headers.get("If-Range") for request in seen] == [None, '"v1"', '"v1"']
    starts = [int(request.headers.get("Range", "bytes=0-")[6:-1]) for request in seen]
    assert 0 == starts[0] < starts[1] <= 1_200_000
    assert starts[1] < starts[2] <= 2_100_000


@pytest.mark.asyncio
@pytest.mark.parametrize("second", [file(OTHER, etag='"v2"'), file(OTHER, etag=None)])
async def test_another_file_under_the_same_url_is_fetched_anew(tmp_path: Path, second: Handler) -> None:
    async with host(broken(1_200_000, ETag='"v1"'), second) as (url, _):
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == OTHER


@pytest.mark.asyncio
@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"'}])
async def test_what_cannot_be_told_to_be_the_same_file_begins_anew(tmp_path: Path, headers: dict[str, str]) -> None:
    async with host(broken(1_200_000, **headers), file()) as (url, seen):
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO
    assert "Range" not in seen[1].headers


@pytest.mark.asyncio
async def test_a_date_tells_the_same_file_where_there_is_no_strong_etag(tmp_path: Path) -> None:
    date = "Sun, 22 Nov 2026 10:00:00 GMT"
    headers = {"Last-Modified": date, "ETag": 'W/"v1"'}
    async with host(broken(1_200_000, **headers), file(etag=date)) as (url, seen):
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO
    assert seen[1].headers["If-Range"] == date


@pytest.mark.asyncio
async def test_a_host_that_refuses_the_range_is_asked_for_the_whole(tmp_path: Path) -> None:
    async with host(broken(1_200_000, ETag='"v1"'), status(416), file()) as (url, seen):
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO
    assert "Range" not in seen[2].headers


@pytest.mark.asyncio
async def test_the_wrong_part_is_never_glued_on(tmp_path: Path) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Range": f"bytes 5-9/{len(VIDEO)}", "Content-Type": "video/mp4"}
        return web.Response(status=206, body=b"abcde", headers=headers)

    async with host(broken(1_200_000, ETag='"v1"'), elsewhere) as (url, _):
        with pytest.raises(ProtocolError, match="another part of the file"):
            await download().run(task(url), tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
async def test_a_part_that_does_not_complete_the_whole_is_not_kept(tmp_path: Path) -> None:
    async def short(request: web.Request) -> web.StreamResponse:
        start = int(request.headers["Range"][6:-1])
        headers = {"Content-Range": f"bytes {start}-{start + 2}/{len(VIDEO)}", "Content-Type": "video/mp4"}
        return web.Response(status=206, body=b"abc", headers=headers)

    async with host(broken(1_200_000, ETag='"v1"'), short, file()) as (url, seen):
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO
    assert "Range" not in seen[2].headers


@pytest.mark.asyncio
async def test_a_transfer_that_keeps_breaking_at_one_place_ends(tmp_path: Path) -> None:
    slept = Slept()
    (tmp_path / "v.mp4").write_bytes(b"the one from yesterday")
    async with host(broken(1_000), broken(0)) as (url, seen):
        with pytest.raises(ConnectionFailed, match="broke after") as caught:
            await download(retry=Retry(attempts=3), sleep=slept).run(task(url), tmp_path / "v.mp4")
    assert "s3cret" not in f"{caught.value} {caught.value!r}"
    assert caught.value.__cause__ is None
    assert len(slept) == 2 < len(seen)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"the one from yesterday"]


@pytest.mark.asyncio
async def test_attempts_count_anew_when_a_transfer_came_further(tmp_path: Path) -> None:
    answers = [broken(400_000, ETag='"v1"') for _ in range(7)]
    async with host(*answers, file()) as (url, _):
        path = await download(retry=Retry(attempts=2)).run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO


@pytest.mark.asyncio
async def test_a_passing_refusal_is_repeated_after_what_the_host_asks(tmp_path: Path) -> None:
    slept = Slept()
    async with host(status(429, **{"Retry-After": "7"}), status(503), file()) as (url, _):
        await download(sleep=slept).run(task(url), tmp_path / "v.mp4")
    assert 7 <= slept[0] <= 8
    assert slept[1] <= 0.2


@pytest.mark.asyncio
async def test_a_wait_over_the_limit_is_the_callers_to_decide(tmp_path: Path) -> None:
    async with host(status(429, **{"Retry-After": "3600"})) as (url, seen):
        with pytest.raises(RateLimited) as caught:
            await download().run(task(url), tmp_path / "v.mp4")
    assert (caught.value.retry_after, len(seen)) == (3600, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (status(451), ApiError, "HTTP 451: 127.0.0.1 refused the download"),
        (file(b"<html>no such file</html>"), ProtocolError, "sends a page of text, not a video"),
        (file(b'\n {"error": "expired"}'), ProtocolError, "sends JSON, not a video"),
        (file(b"no such file, I am afraid"), ProtocolError, "sends text, not a video"),
        (file(b"\x89PNG\r\n\x1a\n" + bytes(90)), ProtocolError, "sends a picture, not a video"),
        (file(box(b"ftyp", b"heic\0\0\0\0") + bytes(90)), ProtocolError, "sends a picture, not a video"),
        (file(bytes(90), media_type="image/heic"), ProtocolError, "sends image/heic, not a video"),
        (file(gzip.compress(VIDEO), coding="gzip"), ProtocolError, "a file with the coding gzip, not a video"),
        (file(b"\0\0\0"), ProtocolError, "sends 3 bytes, not a video"),
        (file(b"", etag=None), ProtocolError, "not whole: 0 bytes"),
    ],
)
async def test_what_is_no_video_is_no_file(tmp_path: Path, answer: Handler, error: type[Exception], text: str) -> None:
    async with host(answer) as (url, _):
        with pytest.raises(error) as caught:
            await download(retry=Retry(attempts=2)).run(task(url, completed_at=1.0), tmp_path / "v.mp4")
    assert text in str(caught.value)
    assert str(caught.value).startswith("tsk_1: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("code", [403, 404, 410])
async def test_an_expired_url_is_renewed_by_asking_for_the_task_again(tmp_path: Path, code: int) -> None:
    async with host(status(code), file()) as (url, seen):
        asked: list[str] = []

        async def ask(task_id: str) -> VideoTask:
            asked.append(task_id)
            return task(url.replace("s3cret", "fresh"))

        path = await download(ask).run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO
    assert asked == ["tsk_1"]
    assert seen[1].query["signature"] == "fresh"


@pytest.mark.asyncio
async def test_it_says_plainly_when_the_24_hours_are_over(tmp_path: Path) -> None:
    async with host(status(404)) as (url, _):

        async def ask(task_id: str) -> VideoTask:
            return task(url, expires_at=900.0)

        with pytest.raises(
            NotFound, match="kept the video for 24 hours, until 1970-01-01 00:15 UTC: generate it again"
        ):
            await download(ask).run(task(url), tmp_path / "v.mp4")


@pytest.mark.asyncio
async def test_a_task_that_is_gone_too_ends_in_the_same_words(tmp_path: Path) -> None:
    async def ask(task_id: str) -> VideoTask:
        message = "task_not_found"
        raise NotFound(message, status=404)

    async with host(status(410)) as (url, _):
        with pytest.raises(NotFound, match="24 hours, until"):
            await download(ask).run(task(url, expires_at=900.0), tmp_path / "v.mp4")
        with pytest.raises(NotFound, match="24 hours that it keeps one may be over"):
            await download(ask).run(task(url), tmp_path / "v.mp4")


@pytest.mark.asyncio
async def test_fresh_urls_are_not_asked_for_without_end(tmp_path: Path) -> None:
    async with host(status(403)) as (url, seen):

        async def ask(task_id: str) -> VideoTask:
            return task(f"{url}{len(seen)}", completed_at=1.0)

        with pytest.raises(NotFound):
            await download(ask).run(task(url), tmp_path / "v.mp4")
    assert len(seen) == 3


@pytest.mark.asyncio
async def test_an_id_and_a_task_without_a_url_are_asked_for_first(tmp_path: Path) -> None:
    async with host(file()) as (url, _):

        async def ask(task_id: str) -> VideoTask:
            return task(url)

        await download(ask).run("tsk_1", tmp_path / "a.mp4")
        await download(ask).run(task(None), tmp_path / "b.mp4")

    async def ask_in_vain(task_id: str) -> VideoTask:
        return task(None)

    with pytest.raises(ProtocolError, match="no URL of the video") as caught:
        await download(ask_in_vain).run(task(None), tmp_path / "c.mp4")
    assert caught.value.task == task(None)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.asyncio
async def test_what_is_not_finished_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="it is in_progress, not completed: wait for it"):
        await download().run(task(None, status="in_progress"), tmp_path / "v.mp4")


@pytest.mark.asyncio
async def test_a_place_that_can_hold_no_file_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "v.mp4"):
        with pytest.raises(InvalidInput, match="not a place for a file"):
            await download().run("tsk_1", path)


@pytest.mark.asyncio
async def test_a_silent_host_is_given_up(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response()

    async with host(silent) as (url, _):
        with pytest.raises(ConnectionFailed, match="broke after 0 bytes"):
            await download(retry=Retry(attempts=1), timeouts=Timeouts(request=0.05)).run(task(url), tmp_path / "v.mp4")
        gate.set()


@pytest.mark.asyncio
async def test_cancelled_it_leaves_the_target_alone_and_nothing_beside_it(tmp_path: Path) -> None:
    arrived, gate = asyncio.Event(), asyncio.Event()
    (tmp_path / "v.mp4").write_bytes(b"old")

    async def half(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        answer.content_length = len(VIDEO)
        await answer.prepare(request)
        await answer.write(VIDEO[:2_000_000])
        await gate.wait()
        return answer

    async with host(half) as (url, _):
        run = asyncio.create_task(download(progress=lambda *_: arrived.set()).run(task(url), tmp_path / "v.mp4"))
        await arrived.wait()
        assert len(list(tmp_path.iterdir())) == 2
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        gate.set()
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


@pytest.mark.asyncio
@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_cancelled_after_any_step_it_leaves_all_or_nothing(tmp_path: Path, steps: int) -> None:
    async with host(file()) as (url, _):
        run = asyncio.create_task(download().run(task(url), tmp_path / "v.mp4"))
        for _ in range(steps):
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.wait([run])
    left = [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()]
    assert left in ([], [("v.mp4", VIDEO)])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error",
    [
        KeyError(),
        TimeoutError(),
        aiohttp.ClientError(),
        ConnectionFailed("a proxy of the caller's own"),
        KeyboardInterrupt(),
        SystemExit(),
        asyncio.CancelledError(),
        GeneratorExit(),
        StopIteration(),
        StopAsyncIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_progress_callback_raises_ends_the_download(tmp_path: Path, error: BaseException) -> None:
    told: list[int] = []

    def stop(done: int, total: int | None) -> None:
        del total
        told.append(done)
        raise error

    async def fetch() -> BaseException:
        # In here: asyncio would stop the loop where a task ends by KeyboardInterrupt.
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - what it is, is asserted
            await download(progress=stop).run(task(url), tmp_path / "v.mp4")
        return caught.value

    async with host(file()) as (url, _):
        found = await fetch()
    if isinstance(error, asyncio.CancelledError | GeneratorExit | StopIteration | StopAsyncIteration):
        assert str(found) == f"the progress callback raised {type(error).__name__}"
        assert (type(found), found.__cause__) == (RuntimeError, error)
    else:
        assert found is error
    assert len(told) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
async def test_a_signed_url_is_asked_for_byte_for_byte(tmp_path: Path) -> None:
    asked: list[str] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        asked.append(request.raw_path)
        if len(asked) == 1:
            return web.Response(status=302, headers={"Location": "/v%2D2.mp4?s=c%2Fd+e%3D"})
        return await file()(request)

    async with host(serve) as (url, _):
        odd = url.partition("/video")[0] + "/v%2D1.mp4?s=a%2Fb+c%3D%20~"
        await download().run(task(odd), tmp_path / "v.mp4")
    assert asked == ["/v%2D1.mp4?s=a%2Fb+c%3D%20~", "/v%2D2.mp4?s=c%2Fd+e%3D"]


@pytest.mark.asyncio
async def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(part: _Part, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_Part, "write", full)
    async with host(file()) as (url, seen):
        with pytest.raises(OSError, match="No space left"):
            await download().run(task(url), tmp_path / "v.mp4")
    assert (list(tmp_path.iterdir()), len(seen)) == ([], 1)


@pytest.mark.asyncio
async def test_a_redirect_of_the_host_is_followed(tmp_path: Path) -> None:
    async with host(file()) as (target, _), host(status(302, Location=target)) as (url, _):
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO


def test_a_file_that_is_opened_too_late_is_never_made(tmp_path: Path) -> None:
    part = _Part(tmp_path / "v.part")
    # As when a cancelled caller cleans up while its thread has yet to begin.
    part.clear()
    part.open()
    part.write(b"x")
    part.become(tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer", [status(code) for code in (202, 204, 400, 403, 404, 409, 410, 425)] + [file(b"{}"), file(b"")]
)
@pytest.mark.parametrize("facts", [{}, {"completed_at": 995.0}, {"expires_at": 87_390.0}])
async def test_a_file_that_is_not_there_yet_is_asked_for_again(
    tmp_path: Path, answer: Handler, facts: dict[str, Any]
) -> None:
    slept = Slept()
    async with host(answer, answer, file()) as (url, seen):

        async def ask(task_id: str) -> VideoTask:
            return task(url, **facts)

        path = await download(ask, sleep=slept).run(task(url, **facts), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO
    assert (len(seen), slept) == (3, [1.0, 2.0])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("facts", "text", "waited"),
    [
        (
            {"completed_at": 995.0, "expires_at": 87_395.0},
            "keeps the video until 1970-01-02 00:16 UTC: download it",
            True,
        ),
        ({"completed_at": -9_000.0, "expires_at": 77_400.0}, "keeps the video until 1970-01-01 21:30 UTC", False),
        ({"completed_at": -90_000.0, "expires_at": -3_600.0}, "kept the video for 24 hours", False),
        ({}, "the 24 hours that it keeps one may be over", True),
    ],
)
async def test_what_is_not_there_after_a_minute_is_told_as_what_it_is(
    tmp_path: Path, facts: dict[str, Any], text: str, *, waited: bool
) -> None:
    slept = Slept()
    async with host(status(404)) as (url, _):

        async def ask(task_id: str) -> VideoTask:
            return task(url, **facts)

        with pytest.raises(NotFound, match=text):
            await download(ask, sleep=slept).run(task(url, **facts), tmp_path / "v.mp4")
    assert 55 <= sum(slept) <= 75 if waited else slept == []


@pytest.mark.asyncio
@pytest.mark.parametrize("media_type", ["text/html", "application/json", "image/jpeg", "", "garbage"])
@pytest.mark.parametrize("coding", [None, "none", "aws-chunked", "utf-8", "gzip"])
async def test_a_video_is_one_whatever_it_is_called(tmp_path: Path, media_type: str, coding: str | None) -> None:
    async with host(file(media_type=media_type, coding=coding)) as (url, _):
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [len(HEAD), len(HEAD) + 3, 900_000, len(VIDEO) - 1])
async def test_where_no_length_is_told_the_boxes_tell_the_end(tmp_path: Path, size: int) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        await answer.write(VIDEO[:size])
        return answer

    async with host(cut) as (url, _):
        with pytest.raises(ProtocolError, match="not whole"):
            await download(retry=Retry(attempts=2)).run(task(url), tmp_path / "v.mp4")
        size = len(VIDEO)
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == VIDEO


def part_of(data: bytes, *, total: str | None = None, **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        start = int(request.headers["Range"][6:-1])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{total or len(data)}"
        return web.Response(status=206, body=data[start:], headers=headers)

    return handle


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "second",
    [
        part_of(OTHER, ETag='"v2"'),
        part_of(OTHER[:-9], ETag='"v1"'),
        part_of(OTHER, ETag='"v1"', total=str(len(OTHER) + 1)),
        part_of(OTHER, **{"ETag": '"v1"', "Last-Modified": "Tue, 24 Nov 2026 10:00:00 GMT"}),
        part_of(OTHER[:-9], total="*"),
    ],
)
async def test_two_files_are_never_spliced(tmp_path: Path, second: Handler) -> None:
    first = broken(1_200_000, **{"ETag": '"v1"', "Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT"})
    async with host(first, second, file(OTHER)) as (url, seen):
        path = await download().run(task(url), tmp_path / "v.mp4")
    assert path.read_bytes() == OTHER
    assert "Range" not in seen[2].headers


@pytest.mark.asyncio
async def test_a_replaced_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "kept.mp4").write_bytes(b"old")
    (tmp_path / "kept.mp4").chmod(0o640)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "kept.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "new.mp4")
    async with host(file()) as (url, _):
        for name in ("link.mp4", "dangling.mp4"):
            assert await download().run(task(url), tmp_path / name) == tmp_path / name
            assert (tmp_path / name).is_symlink()
    assert stat.S_IMODE((tmp_path / "kept.mp4").stat().st_mode) == 0o640
    assert (tmp_path / "kept.mp4").read_bytes() == (tmp_path / "new.mp4").read_bytes() == VIDEO


@pytest.mark.asyncio
async def test_what_is_no_regular_file_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "link", "null"):
        with pytest.raises(InvalidInput, match="only a regular file is replaced"):
            await download().run("tsk_1", tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["a\0b", "v" * 256, "\ud800", None, 7, b"v.mp4"])
async def test_a_path_that_names_no_file_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(InvalidInput):
        await download().run("tsk_1", f"{tmp_path}/{name}" if isinstance(name, str) else name)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["v" * 255, "é" * 127])
async def test_a_name_of_255_bytes_is_a_name(tmp_path: Path, name: str) -> None:
    async with host(file()) as (url, _):
        path = await download().run(task(url), tmp_path / name)
    assert path.read_bytes() == VIDEO


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "url",
    ["http://[::1", "no url", "http://files.example.com:99999/v", "file:///etc/passwd", "", "http://x.example/\r\n"],
)
async def test_a_task_s_url_that_is_none_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(ProtocolError, match="cannot be fetched"):
        await download().run(task(url), tmp_path / "v.mp4")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/x",
        "http://2130706433:{port}/x",
        "http://[::1]:{port}/x",
        "http://localhost:{port}/x",
        "http://inside.example.net:{port}/x",
        "http://169.254.169.254/x",
        "file:///etc/passwd",
        "http://",
    ],
)
async def test_a_public_host_redirects_to_no_private_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def stand_in(name: str, *args: Any, **options: Any) -> Any:
        if name == "inside.example.net":
            return [(2, 1, 6, "", ("10.1.2.3", 80))]
        return await resolve("127.0.0.1" if name == "files.example.com" else name, *args, **options)

    monkeypatch.setattr(loop, "getaddrinfo", stand_in)
    async with host(file()) as (url, seen):
        port = url.rpartition(":")[2].partition("/")[0]
        moved, away = status(302, Location="/moved.mp4"), status(302, Location=target.format(port=port))
        async with (
            host(moved, away) as (start, hops),
            aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver()) as connector,
        ):
            public = start.replace("127.0.0.1", "files.example.com")
            with pytest.raises(ProtocolError, match=r"files.example.com redirects to .*, which is not followed"):
                await download(connector=connector).run(task(public), tmp_path / "v.mp4")
        assert len(hops) == 2
    assert seen == []


@given(cut=st.integers(0, 400), pieces=st.lists(st.integers(1, 50), max_size=20))
def test_boxes_are_whole_only_at_their_end(cut: int, pieces: list[int]) -> None:
    content = HEAD + b"\0\0\0\1mdat" + (16 + 90).to_bytes(8, "big") + bytes(90)
    content = content[: max(0, len(content) - cut)]
    boxes, at = Boxes(), 0
    for size in [*pieces, len(content)]:
        boxes.feed(content[at : at + size])
        at += size
    assert boxes.whole == (cut == 0)


@pytest.mark.asyncio
async def test_what_can_be_no_page_in_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    slept = Slept()
    for content in (b"x" * 99, b"\x89PNG\r\n\x1a\n" + bytes(90)):
        async with host(file(content)) as (url, seen):
            with pytest.raises(ProtocolError, match="not a video"):
                await download(sleep=slept).run(task(url), tmp_path / "v.mp4")
        assert (len(seen), slept) == (1, [])
