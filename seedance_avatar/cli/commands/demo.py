"""``seedance-avatar demo``: ingest and generate against a local copy of the service, without a key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from seedance_avatar import Active, Asset, AssetSource, AvatarSession, InvalidInput, Outcome, Polling
from seedance_avatar.cli.arguments import Flag, check_folder
from seedance_avatar.cli.exits import Exit
from seedance_avatar.cli.formatting import size
from seedance_avatar.cli.manifest.manifest import ManifestSource
from seedance_avatar.cli.run.ingest_run import Run, choose_view, fan_out
from seedance_avatar.cli.run.meter import Meter
from seedance_avatar.cli.run.summary import Summary, show_summary
from seedance_avatar.cli.streams import Unwritable
from seedance_avatar.models import AssetType
from seedance_avatar.sandbox import Fate, RateLimits, Sandbox
from seedance_avatar.text import safe_text

__all__ = ["demo"]

_PROMPT: Final = "The woman of image 1 walks as in video 1 and says hello with the voice of audio 1."
_KEY: Final = "sk-sandbox"
_GROUP: Final = "demo-avatar"
_SOURCES: Final[tuple[tuple[AssetType, str, int], ...]] = (
    ("image", "https://cdn.example.com/avatar/face-{:03d}.jpg", 130),
    ("video", "https://cdn.example.com/avatar/walk-{:03d}.mp4", 40),
    ("audio", "https://cdn.example.com/avatar/voice-{:03d}.mp3", 30),
)
_FATES: Final = {
    "face-017": Fate.failed("image width is less than 300 px"),
    "face-058": Fate.failed("more than one subject was found in the material"),
    "face-101": Fate.refused("the material may contain a real person"),
    "walk-023": Fate.failed("the video is longer than 15 seconds"),
    "voice-009": Fate.failed("the material could not be downloaded"),
}
"""The sources that fail on purpose."""


async def demo(*, out: str = "demo.mp4", speed: float = 5.0, json: Flag = False) -> int:
    """Ingest 200 sources and generate a video on this machine, without a key.

    Starts a local copy of the service on a free port, with time five times as
    fast, uploads 200 sources to it over HTTP, generates a video with three of
    them and downloads it. Takes about fifteen seconds. Nothing leaves this
    machine.

    Five of the sources fail on purpose, to show what a failure looks like. The
    exit code is 0 when only these failed.

    :param out: file for the video.
    :param speed: how many times faster than at the service time passes.
    :param json: write progress and events as JSON Lines to standard error.
    """
    if not speed > 0:
        message = f"--speed must be more than 0, not {speed:g}"
        raise InvalidInput(message)
    check_folder(out)
    # The default schedule begins with the service's own processing times, and here time passes faster.
    polling = Polling.fixed(5 / speed, 2.5 / speed)
    limits = RateLimits.per_second(submits=6 * speed, submit_burst=30)
    view, log = choose_view(as_json=json)
    meter = Meter()
    cast: dict[str, Asset] = {}
    files: list[tuple[str, str]] = []
    run = Run(f"demo → {_GROUP}", view, meter, total=sum(count for *_, count in _SOURCES))
    run.seen = lambda outcome: _choose(cast, outcome)
    with run.interrupts(str) as interrupts:
        try:
            async with Sandbox(
                keys=(_KEY,), time_scale=1 / speed, fates=_fate, limits=limits, processing={"generation": 8.0}
            ) as sandbox:
                view.say(f"a local copy of the service listens at {sandbox.url}; nothing leaves this machine")
                async with AvatarSession(
                    _KEY, base_url=sandbox.url, polling=polling, video_polling=polling, observer=fan_out(meter, log)
                ) as session:
                    group = await session.create_group(_GROUP)
                    view.say(f"group {_GROUP}: {group.group_id}")
                    await run.follow(session, _sources(), group=group)
                    if interrupts.exit is None:
                        files = [await _film(run, session, cast, out)]
        except asyncio.CancelledError:
            if interrupts.exit is None:
                raise
        finally:
            view.close()
    summary = Summary(title=run.title, elapsed=run.elapsed, tally=run.tally, meter=meter, files=files, advice=_NEXT)
    show_summary(summary, log)
    return interrupts.exit or _verdict(run)


_NEXT: Final = (
    "the failures above were made on purpose. With your own key:",
    "",
    "    export TOAPIS_API_KEY=sk-...",
    "    seedance-avatar ingest sources.csv --group-name brand-avatar --journal run.db --out results.jsonl",
)


def _choose(cast: dict[str, Asset], outcome: Outcome) -> None:
    """Keep the first active asset of each type as a reference for the video."""
    if isinstance(outcome, Active):
        cast.setdefault(outcome.source.asset_type, outcome.asset)


async def _film(run: Run, session: AvatarSession, cast: dict[str, Asset], out: str) -> tuple[str, str]:
    names = ", ".join(asset.source.key or "" for asset in cast.values() if asset.source is not None)
    task = await session.generate(_PROMPT, references=cast.values(), duration=5)
    task = await run.beside(f"generating a video with {names}", session.wait_for_video(task))
    try:
        path = await session.download(task, out)
        return out, f"the finished video ({size(path.stat().st_size)}), made with {names}"
    except OSError as error:
        message = f"the video cannot be written to {safe_text(out)}: {error.strerror}"
        raise Unwritable(message) from None


def _sources() -> Iterator[AssetSource]:
    line = 0
    for kind, url, count in _SOURCES:
        for number in range(1, count + 1):
            line += 1
            source_url = url.format(number)
            yield ManifestSource(source_url, kind, key=_key(source_url), line=line)


def _key(source_url: str) -> str:
    return source_url.rpartition("/")[2].partition(".")[0]


def _fate(source_url: str, asset_type: str) -> Fate | None:
    del asset_type
    return _FATES.get(_key(source_url))


def _verdict(run: Run) -> int:
    """Return 0 when exactly the five sources failed that should, else the ordinary exit code."""
    as_meant = run.tally.counts["failed"] == len(_FATES) and run.tally.total == run.total and not run.tally.unfinished
    return Exit.DONE if as_meant else run.tally.exit
