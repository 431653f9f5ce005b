"""No key and no signed query in anything that the library shows, keeps or hands to a tool."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rich.pretty import pretty_repr
from rig.canaries import SECRET_TEXTS, Listener, everything_of, heard_in_files, sings
from rig.journals import ROOT
from rig.leaks import no_leaks
from rig.rude import Bytes, Close, RudeServer, Seen, json_answer, raw_answer, redirect, until
from rig.world import FAST, quick

from seedance_avatar import (
    AccountPool,
    Asset,
    AssetGroup,
    AssetSource,
    AvatarError,
    AvatarSession,
    Failed,
    GenerationRequest,
    IngestError,
    InvalidInput,
    Limits,
    Reference,
    Timeouts,
    VideoTask,
)
from seedance_avatar.events import Event
from seedance_avatar.integrations.redis import RedisLimits
from seedance_avatar.sandbox import Sandbox

KEY = "sk-canary-5d1c0a7e9b"
QUERY = "?X-Amz-Signature=CANARYSIGNATURE&token=canary-token"


def signed(count: int) -> list[AssetSource]:
    return [AssetSource.image(f"https://cdn.example.com/{n}.jpg{QUERY}{n}", name=f"n{n}") for n in range(count)]


def echoing(status: int) -> Callable[[Seen], Bytes]:
    """A service that repeats all that it was sent, the key included, in every field that is looked at."""

    def answer(seen: Seen) -> Bytes:
        said = f"{seen.headers.get('authorization')} {seen.body.decode()}"
        if status != 200:
            body = {"error": {"message": said, "code": said, "type": said}, "reason": said}
            return json_answer(body, status, {"X-Oneapi-Request-Id": seen.headers.get("authorization", "")})
        what = {"asset_id": "pa_1", "group_id": "pg_1", "status": "failed", "reason": said, "source_url": said}
        return json_answer({"success": True, "message": said, "data": what})

    return answer


def saying(text: str) -> Callable[[Seen], Bytes]:
    """A service that refuses with ``text`` at every place where words are looked for."""
    body = {"error": {"message": text, "code": text, "type": text}, "reason": text}
    return lambda _: json_answer(body, 422, {"X-Oneapi-Request-Id": text})


SERVICES: dict[str, Any] = {
    **{name: saying(text) for name, text in SECRET_TEXTS.items()},
    "well": echoing(200),
    "400": echoing(400),
    "401": echoing(401),
    "422": echoing(422),
    "429": echoing(429),
    "500": echoing(500),
    "html": raw_answer(f"<html>{KEY} https://x.example/{QUERY}</html>".encode(), 502),
    "no id": json_answer({"success": True, "data": {"asset_id": f"https://x.example/{QUERY}", "message": KEY}}),
    "closed": Close(),
    "redirect": redirect(f"https://x.example/{QUERY}"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", list(SERVICES))
async def test_whatever_the_service_answers(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    events: list[Event] = []
    shown: list[str] = []
    errors: list[BaseException] = []
    knobs: dict[str, Any] = {**FAST, "timeouts": Timeouts(connect=2, request=1, drain=1), "observer": events.append}
    async with no_leaks(), RudeServer(SERVICES[name]) as server, AvatarSession(KEY, base_url=server.url, **knobs) as it:
        shown += [repr(it), repr(it.stats()), repr(vars(it)), pretty_repr(it), pretty_repr(vars(it))]
        calls = (
            lambda: it.create_group("brand"),
            lambda: it.upload(signed(1)[0], group="pg_1"),
            lambda: it.get_asset("pa_1"),
            lambda: it.wait_until_active("pa_1", timeout=1),
            lambda: it.create_group("brand", journal=tmp_path / "groups.db"),
        )
        for call in calls:
            try:
                shown.append(repr(await call()))
            except AvatarError as error:
                errors.append(error)
        stream = it.ingest(signed(4), group="pg_1", journal=tmp_path / "run.db", asset_timeout=0.2)
        shown.append(repr(stream))
        try:
            async with stream:
                async for asset in stream:
                    shown.append(repr(asset))
        except IngestError as error:
            errors.append(error)
        shown += [repr(stream), repr(stream.report), repr(stream.report.unfinished), repr(stream.stats())]
        shown += [pretty_repr(vars(it), max_depth=8), pretty_repr(it.engine.client.transport)]
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    for failure in errors:
        shown.append(everything_of(failure))
        for one in failure.exceptions if isinstance(failure, IngestError) else [failure]:
            if not hasattr(one, "asset"):  # an asset carries its source on purpose, for whoever works with it
                shown.append(pickle.dumps(one).decode("latin-1"))
    shown += [repr(event) for event in events]
    shown += [caplog.text, *(repr(record.__dict__) for record in caplog.records)]
    assert [found for text in shown if (found := sings(text)) is not None] == []
    assert events
    assert errors
    assert (tmp_path / "run.db").exists()
    assert heard_in_files(tmp_path.iterdir()) == []


@pytest.mark.asyncio
async def test_with_asyncio_s_own_debugging(caplog: pytest.LogCaptureFixture) -> None:
    """Slow callbacks, tasks that are repr()ed with what they run, exceptions that nobody fetched."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    async with no_leaks(), Sandbox(keys=(KEY,), time_scale=0.001) as sandbox:
        sandbox.faults.add("lost_answer", probability=0.2)
        sandbox.faults.add("server_error", probability=0.2)
        async with quick(sandbox.url, KEY) as session:
            group = await session.create_group("brand")
            async with session.ingest(signed(10), group=group, asset_timeout=2) as stream:
                outcomes = [outcome async for outcome in stream.outcomes()]
                tasks = [repr(task) + repr(task.get_stack()) for task in asyncio.all_tasks()]
    assert "seedance-avatar" in caplog.text  # its tasks are named in what asyncio tells of them
    assert sings(caplog.text) is None
    assert sings(repr(outcomes) + repr(tasks)) is None


@pytest.mark.asyncio
async def test_what_is_under_way_shows_itself_in_a_line() -> None:
    """asyncio and tracebacks repr() whatever they meet: not the whole session, over and over."""
    async with no_leaks(), Sandbox(keys=(KEY,)) as sandbox, quick(sandbox.url, KEY) as session:
        group = await session.create_group("brand")
        stream = session.ingest(signed(20), group=group)
        async with stream:
            await until(lambda: stream.stats().polling == 20)
            engine = session._engine
            assert engine is not None
            (pipeline,) = engine.pipelines
            job = next(iter(pipeline.alive))
            for thing in (session, stream, stream.outcomes(), engine, pipeline, pipeline.admission, job, job.pending):
                assert len(repr(thing)) < 400, type(thing)


@pytest.mark.asyncio
async def test_a_crash_in_the_middle_of_the_library(caplog: pytest.LogCaptureFixture) -> None:
    """Even what we did not foresee shows no secret: in the log, and in a traceback with all locals."""

    class Broken(Exception):  # noqa: N818 - a user's own
        pass

    def observe(event: Event) -> None:
        raise Broken(type(event).__name__)

    def group_of(source: AssetSource) -> str:
        raise Broken

    async with (
        no_leaks(),
        Sandbox(keys=(KEY,), time_scale=0.001) as sandbox,
        quick(sandbox.url, KEY, observer=observe) as session,
    ):
        stream = session.ingest(signed(3), group=group_of)
        with pytest.raises(Broken) as caught:
            async with stream:
                async for _ in stream:
                    pass
    listener = Listener()
    for record in caplog.records:
        listener.emit(record)
    assert listener.heard == []
    assert sings(everything_of(caught.value)) is None
    assert "the observer raised" in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize("name", SECRET_TEXTS)
async def test_the_log_of_a_crash_shows_no_secret_of_any_kind(name: str, caplog: pytest.LogCaptureFixture) -> None:
    def group_of(source: AssetSource) -> str:
        raise ValueError(SECRET_TEXTS[name])

    async with no_leaks(), quick("http://127.0.0.1:9", KEY) as session:
        stream = session.ingest(signed(1), group=group_of)
        with pytest.raises(ValueError, match="CANARYSIGNATURE"):
            async with stream:
                async for _ in stream:
                    pass
    assert "an ingest broke" in caplog.text
    assert sings(caplog.text) is None


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"Bearer {KEY}", f"{KEY}\x00"])
def test_a_key_that_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        AvatarSession(key)
    assert sings(everything_of(caught.value)) is None


@pytest.mark.parametrize(
    "keys", [[f"{KEY} x", "k"], [KEY, KEY], {"a b": KEY}, [KEY, lambda: KEY], KEY, {"a": f"{KEY} x"}]
)
def test_a_pool_s_keys_that_are_refused(keys: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        AccountPool(keys)
    assert sings(everything_of(caught.value)) is None


def test_a_sandbox_shows_none() -> None:
    sandbox = Sandbox(keys=(KEY,), webhook_secrets=("sk-canary-webhook",))
    assert sings(pretty_repr(vars(sandbox), max_depth=6)) is None


@pytest.mark.parametrize(
    "url",
    [
        f"http://10.0.0.1/x{QUERY}",
        f"ftp://cdn.example.com/x{QUERY}",
        f"https://user:sk-canary-password@cdn.example.com/x{QUERY}",
        f"https://cdn.example.com/x y{QUERY}",
        f"//{QUERY}",
        QUERY,
    ],
)
@pytest.mark.asyncio
async def test_a_source_that_is_refused(url: str) -> None:
    async with quick("http://127.0.0.1:9", KEY) as session:
        with pytest.raises(InvalidInput) as caught:
            await session.upload(AssetSource.image(url), group="pg_1")
        with pytest.raises(IngestError) as many:
            async with session.ingest([AssetSource.image(url)], group="pg_1") as stream:
                async for _ in stream:
                    pass
    assert sings(everything_of(caught.value) + everything_of(many.value)) is None


def test_values_show_none() -> None:
    source = signed(1)[0]
    asset = Asset(asset_id="pa_1", source=source, source_url=source.source_url, raw={"source_url": source.source_url})
    assert sings(repr(source) + str(source) + source.label + repr(asset) + str(asset)) is None
    assert sings(repr([source, {"a": asset}]) + f"{source} {asset}") is None
    session = AvatarSession(KEY, limits=Limits.unlimited())
    assert sings(repr(session) + str(session) + repr(vars(session))) is None


@pytest.mark.parametrize(
    "value",
    [
        signed(1)[0],
        Asset(asset_id="pa_1", source=signed(1)[0], source_url=f"https://x.example/{QUERY}", raw={"key": KEY}),
        AssetGroup(group_id="pg_1", raw={"key": KEY}),
        VideoTask(task_id="t_1", url=f"https://x.example/{QUERY}", last_frame_url=f"https://x.example/{QUERY}"),
        GenerationRequest(
            f"look at https://x.example/{QUERY}",
            references=[Reference.image(f"https://x.example/{QUERY}")],
            first_frame=f"https://x.example/{QUERY}",
            callback_url=f"https://x.example/{QUERY}",
        ),
        Failed(source=signed(1)[0], error=AvatarError(f"https://x.example/{QUERY} {KEY}")),
        RedisLimits(f"redis://:{KEY}@cache.example:6379/0"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rich_shows_no_secret_of_a_value(value: object) -> None:
    """rich reads the fields of attrs classes itself, so a class that has a ``__repr__`` is not enough."""
    assert sings(pretty_repr([value, {"a": value}], expand_all=True)) is None
    assert sings(repr([value])) is None


def test_the_listener_hears(tmp_path: Path) -> None:
    """A search that finds nothing proves nothing unless it finds what is there."""
    listener = Listener()
    logger = logging.Logger("planted")  # noqa: LOG001 - one that nobody else hears
    logger.addHandler(listener)
    logger.debug("GET %s", f"https://x.example/{QUERY}")
    logger.debug("key %s", KEY)
    assert len(listener.forget()) >= 2
    planted = tmp_path / "run.db"
    planted.write_bytes(b"SQLite format 3\x00" + QUERY.encode())
    assert len(heard_in_files(tmp_path.iterdir())) == 1
    planted.unlink()
    request = aiohttp.RequestInfo(url=None, method="GET", headers={"Authorization": KEY}, real_url=None)  # type: ignore[arg-type]  # as it would stand in an error of aiohttp's
    assert sings(everything_of(aiohttp.ClientResponseError(request, ())))


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_command_line(tmp_path: Path) -> None:
    """Output, results, rejects and journal of an ingest in which everything goes wrong that can."""
    rows = [f"https://cdn.example.com/{n}.jpg{QUERY}{n}" for n in range(30)]
    rows += [f"http://10.0.0.1/x.jpg{QUERY}", f"ftp://cdn.example.com/x.jpg{QUERY}"]
    (tmp_path / "urls.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    async with Sandbox(keys=(KEY,), time_scale=0.001, fail_rate=0.1) as sandbox:
        for kind in ("lost_answer", "rate_limited", "server_error", "truncated", "refused"):
            sandbox.faults.add(kind, probability=0.05, retry_after="none", path="assets")
        environment = {**os.environ, "TOAPIS_API_KEY": KEY, "TOAPIS_BASE_URL": sandbox.url, "PYTHONPATH": str(ROOT)}
        command = ["-m", "seedance_avatar.cli", "ingest", "urls.txt", "--group-name", "brand", "--journal", "run.db"]
        for out in ("results.jsonl", "again.jsonl"):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-X",
                "dev",
                *command,
                "--out",
                out,
                cwd=tmp_path,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            printed, _ = await process.communicate()
            text = printed.decode()
            assert process.returncode in {2, 3}, text
            assert "brand" in text
            assert sings(text) is None
    for file in tmp_path.iterdir():
        if file.name != "urls.txt":
            assert sings(file.read_bytes().decode("latin-1")) is None, file.name
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(results) >= 30
