"""Calls for single videos: generate, look, wait, download."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import attrs

from seedance_avatar.errors import ContentRefused
from seedance_avatar.events import Progress, ReferenceRegistered
from seedance_avatar.models import Asset, AssetSource, VideoTask
from seedance_avatar.videos.adapter import VideoAdapter, failure_of
from seedance_avatar.videos.download import Download
from seedance_avatar.videos.messages import read_video, video_query
from seedance_avatar.videos.request import GenerationRequest, VideoModel
from seedance_avatar.videos.rules import refused_image, with_asset

from .engine import Engine
from .submission import Kept, Submission
from .waiting import wait_until_finished


@attrs.define(eq=False, repr=False)
class Videos:
    """The calls of a session for one video; :class:`AvatarSession` documents them."""

    engine: Callable[[], Engine]
    models: Mapping[str, VideoModel]
    allow_private: bool
    adapter: VideoAdapter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.adapter = VideoAdapter(self.models, self.allow_private)

    async def generate(
        self,
        request: GenerationRequest,
        register: Callable[[AssetSource, Callable[[], float | None]], Awaitable[Asset]] | None,
        *,
        journal: str | os.PathLike[str] | None,
        timeout: float | None,  # noqa: ASYNC109 - its error says what became of the submission
    ) -> VideoTask:
        """Submit ``request`` exactly once, and return its task; with ``journal``, once over all runs.

        With ``register`` (given a source and the seconds that are left), an image that is refused because it shows a
        real person is replaced by an active asset of it, and the request is submitted again: once for each image.
        """
        registered: set[str] = set()
        client = self.engine().client
        end = None if timeout is None else client.clock() + timeout

        def left() -> float | None:
            return None if end is None else max(0.001, end - client.clock())

        while True:
            try:
                return await self._submit(request, journal, left())
            except ContentRefused as refusal:
                url = refused_image(refusal, request)
                if register is None or url is None or url in registered:
                    raise
                refused = refusal
            registered.add(url)
            asset = await register(AssetSource.image(url), left)
            if client.observer is not None:
                client.observer(ReferenceRegistered(at=client.clock(), request=request, asset=asset, error=refused))
            request = with_asset(request, url, asset)

    async def _submit(
        self,
        request: GenerationRequest,
        path: str | os.PathLike[str] | None,
        timeout: float | None,  # noqa: ASYNC109 - its error says what became of the submission
    ) -> VideoTask:
        engine = self.engine()
        client, flow = engine.client, engine.alone
        business_id = await self.adapter.prepare(request)

        async def call(submission: Submission[VideoTask]) -> VideoTask:
            task = await self.adapter.submit(
                request, submission.target_id, client=client, flow=flow, passage=submission, patient=False
            )
            return engine.accepted(request, task)

        submission = Submission(
            call=call,
            id_of=self.adapter.item_id,
            about=request.label,
            target_id=business_id,
            kept=None
            if path is None
            else Kept(path, lambda it: self.adapter.entry(it, request, business_id), self.get, resend=True),
        )
        return await submission.finish(engine, timeout)

    async def get(self, video: VideoTask | str) -> VideoTask:
        """Return a task as it is now."""
        engine = self.engine()
        return await engine.client.call(video_query(_id_of(video)), read_video, flow=engine.asking)

    async def wait(self, video: VideoTask | str, timeout: float) -> VideoTask:  # noqa: ASYNC109 - its error carries the task as last seen
        """Wait until a video is finished, and return its task."""
        task_id = _id_of(video)
        return await wait_until_finished(
            self.engine(),
            video if isinstance(video, VideoTask) else None,
            question=video_query(task_id),
            timeout=timeout,
            read=read_video,
            kind=lambda _: "generation",
            failure=failure_of,
        )

    async def download(self, video: VideoTask | str, path: str | os.PathLike[str], progress: Progress | None) -> Path:
        """Fetch the file of a finished video."""
        engine = self.engine()
        http = engine.transport.http
        download = Download(
            ask=self.get,
            retry=engine.client.retry,
            timeouts=engine.timeouts,
            connector=None if http is None else http.connector,
            progress=progress,
            rng=engine.client.rng,
        )
        return await download.run(video, path)


def _id_of(video: VideoTask | str) -> str:
    return video.task_id if isinstance(video, VideoTask) else video
