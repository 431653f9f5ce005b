"""``seedance-avatar generate``: generates a video with active assets and downloads it."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

import attrs
from cyclopts import Parameter
from rich.live import Live
from rich.text import Text

from seedance_avatar import Asset, AvatarError, AvatarSession, InvalidInput, VideoTask, WaitTimeout
from seedance_avatar.cli.arguments import check_folder
from seedance_avatar.cli.exits import Exit
from seedance_avatar.cli.formatting import duration as spoken
from seedance_avatar.cli.formatting import size
from seedance_avatar.cli.output import check_distinct
from seedance_avatar.cli.pages import pointer
from seedance_avatar.cli.run.ingest_run import on_live_terminal
from seedance_avatar.cli.run.signals import DRAIN, Interrupts, bring_home
from seedance_avatar.cli.run.summary import plain_console
from seedance_avatar.models import ASSET_TYPES
from seedance_avatar.text import safe_text

from .journal_assets import remembered_assets

__all__ = ["generate"]

T = TypeVar("T")

_MOST: Final = 50
"""The most reference assets that any model takes."""


async def generate(  # noqa: PLR0913 - a command's options are its arguments
    prompt: Annotated[str, Parameter(show_default=False)] = "",
    /,
    *,
    out: str,
    asset: Annotated[list[str] | None, Parameter(negative="")] = None,
    journal: str | None = None,
    key: Annotated[list[str] | None, Parameter(negative="")] = None,
    task: str | None = None,
    first_frame: str | None = None,
    last_frame: str | None = None,
    model: str = "seedance-2",
    duration: int | None = None,
    aspect_ratio: str | None = None,
    resolution: str | None = None,
    audio: bool | None = None,
    seed: int | None = None,
    timeout: float = 1800.0,  # noqa: ASYNC109 - the option's name
    base_url: str | None = None,
) -> int:
    r"""Generate a video with active assets, wait for it and download it.

    Examples:
        seedance-avatar generate "She waves at the camera." \
            --asset pa_01J8A --asset pa_01J8B --out wave.mp4

        seedance-avatar generate "She says hello." \
            --journal run.db --key face-001 --key voice-001 --out hello.mp4

        seedance-avatar generate --task vt_01J8C --out wave.mp4

    The status of each asset is checked before anything is sent: a generation
    with one that is not active may cost money and fail without a clear error.
    In the prompt, name media by type and number ("image 1"), never by id.

    A generation takes one to five minutes. It is submitted exactly once, and
    continues at the service when this command ends: --task waits for it again.
    The path of the finished file is written to standard output.

    :param prompt: what the video shows and says.
    :param out: file for the video; an existing file is not replaced.
    :param asset: id of a reference asset; may be given several times. Write TYPE:ID (image:pa_01J8A) if the service
        does not report the asset's type.
    :param journal: use the active assets in this journal of an ingest as references: those of --key, or all.
    :param key: key of an asset in the journal; may be given several times.
    :param task: id of a video that was submitted earlier: only wait for it and download it.
    :param first_frame: id of the image asset for the first frame; not together with reference assets.
    :param last_frame: id of the image asset for the last frame.
    :param model: name of the model.
    :param duration: length in whole seconds; 0 lets the model choose.
    :param aspect_ratio: 16:9, 9:16, 1:1, 4:3, 3:4, 21:9 or adaptive.
    :param resolution: 480p, 720p, 1080p or 4k, if the model supports it.
    :param audio: generate sound as well.
    :param seed: seed of the model; the same seed gives similar videos.
    :param timeout: seconds to wait for the video.
    :param base_url: base URL of the service; by default TOAPIS_BASE_URL, else https://toapis.com.
    """
    _check(prompt, task, out, key_without_journal=bool(key) and journal is None)
    check_distinct(("--out", out), journal=journal)
    wanted = [_Wanted.read(word) for word in asset or ()]
    if journal is not None:
        found = await remembered_assets(journal, key or (), most=_MOST)
        wanted += [_Wanted(known.asset_id, known.asset_type) for known in found]
    if len(wanted) > _MOST:
        advice = "choose some of the journal's with --key" if journal else "give fewer"
        message = f"no model takes more than {_MOST} reference assets: {advice}"
        raise InvalidInput(message)
    film = _Film(out, asyncio.current_task())

    async def submit(session: AvatarSession) -> VideoTask:
        if task is not None:
            return await session.get_video(task)
        call = session.generate(
            prompt,
            references=[await _looked_up(session, each) for each in wanted],
            first_frame=await _frame(session, first_frame),
            last_frame=await _frame(session, last_frame),
            model=model,
            duration=duration,
            aspect_ratio=aspect_ratio,
            resolution=resolution,
            generate_audio=audio,
            seed=seed,
        )
        film.call = asyncio.ensure_future(call)
        made = await film.call
        _say(f"submitted: video task {made.task_id}")
        return made

    code = await film.make(AvatarSession(base_url=base_url), submit, timeout)
    if code == Exit.DONE:
        sys.stdout.write(f"{out}\n")
    return code


def _check(prompt: str, task: str | None, out: str, *, key_without_journal: bool) -> None:
    """Check before anything is sent what would otherwise fail after the generation was paid for."""
    message = ""
    if bool(prompt) == bool(task):
        message = "give either a PROMPT for a new video, or --task for one that was submitted earlier"
    elif Path(out).exists():
        message = f"{out} exists and is not replaced: name another --out"
    elif key_without_journal:
        message = "--key names assets of a journal: give --journal too"
    elif not os.environ.get("TOAPIS_API_KEY"):
        message = "no API key: export TOAPIS_API_KEY=sk-... first"
    if message:
        raise InvalidInput(message)
    check_folder(out)


@attrs.frozen
class _Wanted:
    """A reference asset: its id, and its type where the user gave it."""

    asset_id: str
    asset_type: str | None = None

    @classmethod
    def read(cls, word: str) -> Self:
        """Read ``ID`` or ``TYPE:ID``; an ``asset://`` before the id is left out."""
        kind, colon, rest = word.partition(":")
        if colon and kind in ASSET_TYPES:
            return cls(rest.removeprefix("asset://"), kind)
        return cls(word.removeprefix("asset://"))


async def _looked_up(session: AvatarSession, wanted: _Wanted) -> Asset:
    asset = await session.get_asset(wanted.asset_id)
    if asset.asset_type in ASSET_TYPES:
        return asset
    if wanted.asset_type is None:
        message = f"the service does not report the type of {asset.asset_id}: write --asset image:{asset.asset_id}"
        raise InvalidInput(message)
    return attrs.evolve(asset, asset_type=wanted.asset_type)


async def _frame(session: AvatarSession, asset_id: str | None) -> Asset | None:
    return None if asset_id is None else await _looked_up(session, _Wanted(asset_id.removeprefix("asset://"), "image"))


@attrs.define(eq=False)
class _Film:
    """A generation in progress: its task, once that is known, and the path of its file."""

    out: str
    main: asyncio.Task[Any] | None
    session: AvatarSession | None = None
    call: asyncio.Task[VideoTask] | None = None
    task: VideoTask | None = None
    finished: bool = False
    _ending: asyncio.Task[None] | None = None

    def interrupt(self) -> None:
        """End in order: what is being submitted gets its answer, everything else is cancelled."""
        if self.call is not None and self.session is not None and not self.call.done():
            _say(f"stopping: waiting ({DRAIN:g} s at most) for the answer to the generation; Ctrl-C again ends at once")
            self._ending = asyncio.ensure_future(bring_home(self.session, self.call))
        elif self.main is not None:
            self.main.cancel()

    def last_words(self) -> str:
        """Return :meth:`go_on` as a line."""
        return f"{self.go_on()}\n"

    def go_on(self) -> str:
        """Return one line that says how to get the video later."""
        if self.call is None and self.task is None:
            return "interrupted before anything was sent"
        if self.task is None:
            return (
                "interrupted while the generation was being sent: it may exist at the service, and cost; the same "
                f"command would generate another one{pointer('in-doubt')}"
            )
        command = shlex.join(["seedance-avatar", "generate", "--task", self.task.task_id, "--out", self.out])
        if self.finished:
            return f"get it with: {command}"
        return f"the generation continues at the service; get the video with: {command}"

    async def make(
        self,
        session: AvatarSession,
        submit: Callable[[AvatarSession], Awaitable[VideoTask]],
        timeout: float,  # noqa: ASYNC109 - passed on to wait_for_video
    ) -> int:
        """Submit the video, wait for it and download it; return the exit code."""
        with Interrupts(self.interrupt, self.last_words) as interrupts:
            try:
                async with session:
                    self.session = session
                    self.task = await submit(session)
                    if interrupts.exit is None:
                        await self._finish(session, self.task, timeout)
            except asyncio.CancelledError:
                if interrupts.exit is None:
                    raise
            except AvatarError as error:
                if isinstance(error, WaitTimeout):
                    _say(self.go_on())
                if interrupts.exit is None and not self.finished:
                    raise
                _say(str(error))
                if interrupts.exit is None:
                    _say(f"the video is finished and was not downloaded: {self.go_on()}")
                    return Exit.UNFINISHED
            if interrupts.exit is not None:
                _say(self.go_on())
            return interrupts.exit or Exit.DONE

    async def _finish(self, session: AvatarSession, task: VideoTask, timeout: float) -> None:  # noqa: ASYNC109 - passed on to wait_for_video
        began = time.monotonic()
        self.task = await _shown("generating, one to five minutes", session.wait_for_video(task, timeout=timeout))
        _say(f"finished after {spoken(time.monotonic() - began)}")
        self.finished = True
        path = await _shown("downloading", session.download(self.task, self.out))
        _say(f"downloaded {size(path.stat().st_size)}")


async def _shown(doing: str, work: Awaitable[T]) -> T:
    """Await ``work``; on a terminal show ``doing`` and the seconds so far."""
    if not on_live_terminal():
        _say(doing)
        return await work
    began = time.monotonic()

    def line() -> Text:
        return Text(f"{doing} … {spoken(max(1.0, time.monotonic() - began))}")

    with Live(console=plain_console(sys.stderr), get_renderable=line, transient=True, redirect_stdout=False):
        return await work


def _say(text: str) -> None:
    sys.stderr.write(f"{safe_text(text, 500)}\n")
    sys.stderr.flush()
