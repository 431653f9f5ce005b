from __future__ import annotations

import functools
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from rig.command import started

from seedance_avatar import AvatarSession, ContentRefused, InvalidInput, NotFound, Polling, WaitTimeout
from seedance_avatar.cli.commands import generate as module
from seedance_avatar.cli.commands.generate import generate
from seedance_avatar.cli.commands.ingest import ingest
from seedance_avatar.cli.exits import exit_for_error
from seedance_avatar.sandbox import Fate, Sandbox


@pytest_asyncio.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(immediate=1.0, time_scale=0.001, processing={"generation": 150.0}) as running:
        monkeypatch.setenv("TOAPIS_API_KEY", "sk-sandbox")
        monkeypatch.setenv("TOAPIS_BASE_URL", running.url)
        monkeypatch.chdir(tmp_path)
        quick = functools.partial(AvatarSession, video_polling=Polling.fixed(0, 0.02))
        monkeypatch.setattr(module, "AvatarSession", quick)
        yield running


async def journal(count: int = 3) -> str:
    names = ["face.jpg", "walk.mp4", "voice.mp3", *(f"more-{number}.png" for number in range(count - 3))]
    rows = [f"https://x.example.com/{name},{name.partition('.')[0]}" for name in names]
    Path("m.csv").write_text("source_url,key\n" + "\n".join(rows) + "\n")
    assert await ingest("m.csv", group_name="hero", journal="run.db", out="r.jsonl") == 0
    return "run.db"


def ids(sandbox: Sandbox) -> dict[str, str]:
    return {upload.asset_type: upload.asset_id for upload in sandbox.ledger.uploads}


@pytest.mark.asyncio
async def test_a_journal_becomes_a_video_file(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    path = await journal()
    assert await generate("She waves.", out="wave.mp4", journal=path, duration=5) == 0
    told = capsys.readouterr()
    assert told.out == "wave.mp4\n"
    assert Path("wave.mp4").read_bytes()[4:8] == b"ftyp"
    (made,) = sandbox.ledger.generations
    assert f"submitted: video task {made.task_id}" in told.err
    assert "downloaded " in told.err
    for kind, asset_id in ids(sandbox).items():
        assert made.request[f"{kind}_with_roles"] == [{"url": f"asset://{asset_id}", "role": f"reference_{kind}"}]


@pytest.mark.asyncio
async def test_keys_choose_and_order_what_is_taken(sandbox: Sandbox) -> None:
    path = await journal(6)
    assert await generate("x", out="a.mp4", journal=path, key=["more-2", "face"]) == 0
    by_url = {upload.source_url: upload.asset_id for upload in sandbox.ledger.uploads}
    wanted = [by_url[f"https://x.example.com/{name}"] for name in ("more-2.png", "face.jpg")]
    (made,) = sandbox.ledger.generations
    assert [each["url"] for each in made.request["image_with_roles"]] == [f"asset://{each}" for each in wanted]
    with pytest.raises(InvalidInput, match=r"run.db holds no active asset with the key nobody"):
        await generate("x", out="b.mp4", journal=path, key=["face", "nobody"])


@pytest.mark.asyncio
async def test_assets_are_named_by_id_with_or_without_a_type(sandbox: Sandbox) -> None:
    await journal()
    known = ids(sandbox)
    assert await generate("x", out="a.mp4", asset=[f"image:{known['image']}", f"asset://{known['audio']}"]) == 0
    assert await generate("x", out="b.mp4", first_frame=known["image"]) == 0
    first, second = sandbox.ledger.generations
    assert set(first.request) >= {"image_with_roles", "audio_with_roles"}
    assert second.request["image_with_roles"] == [{"url": f"asset://{known['image']}", "role": "first_frame"}]


@pytest.mark.asyncio
async def test_an_asset_that_is_not_active_is_refused_before_the_money_is_spent(sandbox: Sandbox) -> None:
    sandbox.decide("https://x.example.com/face.jpg", Fate.stuck())
    Path("m.csv").write_text("source_url\nhttps://x.example.com/face.jpg\n")
    assert await ingest("m.csv", group_name="hero", out="r.jsonl", asset_timeout=0.1) == 3
    with pytest.raises(InvalidInput, match="is processing, not active"):
        await generate("x", out="a.mp4", asset=[ids(sandbox)["image"]])
    with pytest.raises(NotFound) as missing:
        await generate("x", out="a.mp4", asset=["pa_01J8"])
    assert exit_for_error(missing.value) == 2
    assert sandbox.ledger.generations == []


@pytest.mark.asyncio
async def test_a_refused_prompt_is_code_two(sandbox: Sandbox) -> None:
    path = await journal()
    sandbox.faults.add("refused", path="generations", times=1)
    with pytest.raises(Exception) as refused:  # noqa: PT011 - which of the refusals is the client's affair
        await generate("x", out="a.mp4", journal=path)
    assert exit_for_error(refused.value) == 2
    assert exit_for_error(ContentRefused("x", status=422)) == 2
    assert not Path("a.mp4").exists()


@pytest.mark.asyncio
async def test_a_video_that_takes_too_long_can_be_fetched_later(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await journal()
    quick = functools.partial(AvatarSession, video_polling=Polling.fixed(30, 30))
    with monkeypatch.context() as patch, pytest.raises(WaitTimeout):
        patch.setattr(module, "AvatarSession", quick)
        await generate("x", out="my wave.mp4", journal=path, timeout=0.05)
    (made,) = sandbox.ledger.generations
    told = capsys.readouterr().err
    again = f"seedance-avatar generate --task {made.task_id} --out 'my wave.mp4'"
    assert f"the generation continues at the service; get the video with: {again}" in told
    assert await generate(out="my wave.mp4", task=made.task_id) == 0
    assert Path("my wave.mp4").exists()
    assert len(sandbox.ledger.generations) == 1


@pytest.mark.asyncio
async def test_a_finished_video_that_cannot_be_fetched_is_no_failed_one(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await journal()

    async def gone(*_: object, **__: object) -> Path:
        message = "the host does not have the file"
        raise NotFound(message, status=404, about="vt_1")

    with monkeypatch.context() as patch:
        patch.setattr(AvatarSession, "download", gone)
        assert await generate("x", out="wave.mp4", journal=path) == 3
    told = capsys.readouterr().err
    (made,) = sandbox.ledger.generations
    assert "vt_1: HTTP 404: the host does not have the file" in told
    again = f"seedance-avatar generate --task {made.task_id} --out wave.mp4"
    assert f"the video is finished and was not downloaded: get it with: {again}" in told
    assert await generate(out="wave.mp4", task=made.task_id) == 0


@pytest.mark.asyncio
async def test_what_could_only_end_badly_is_refused_before_anything_is_sent(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("there.mp4").write_text("the only copy")
    cases: list[tuple[dict[str, object], str]] = [
        ({"out": "a.mp4"}, "give either a PROMPT"),
        ({"out": "a.mp4", "task": "vt_1", "prompt": "x"}, "give either a PROMPT"),
        ({"out": "there.mp4", "prompt": "x"}, "exists and is not replaced"),
        ({"out": "no/where.mp4", "prompt": "x"}, "the folder of no/where.mp4 does not exist"),
        ({"out": "a.mp4", "prompt": "x", "key": ["face"]}, "give --journal too"),
        ({"out": "a.mp4", "prompt": "x", "asset": [f"pa_{number}" for number in range(51)]}, "more than 50"),
    ]
    for arguments, says in cases:
        prompt = str(arguments.pop("prompt", ""))
        with pytest.raises(InvalidInput, match=says):
            await generate(prompt, **arguments)  # type: ignore[arg-type]  # a table of arguments of several types
    monkeypatch.delenv("TOAPIS_API_KEY")
    with pytest.raises(InvalidInput, match="no API key"):
        await generate("x", out="a.mp4")
    assert sandbox.ledger.counts.total() == 0


@pytest.mark.asyncio
async def test_an_interrupted_wait_says_how_to_get_the_video(sandbox: Sandbox) -> None:
    path = await journal()
    async with started("generate", "x", "--journal", path, "--out", "late.mp4", url=sandbox.url) as process:
        await process.until("generating, one to five minutes")
        process.send(signal.SIGINT)
        code, out = await process.end()
    assert (code, out) == (130, "")
    (made,) = sandbox.ledger.generations
    assert f"get the video with: seedance-avatar generate --task {made.task_id} --out late.mp4" in process.err
    assert "Traceback" not in process.err
