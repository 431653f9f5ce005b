"""Calls for single videos: generate, look, wait, download."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import attrs

from seedance_avatar.errors import ContentRefused
from seedance_avatar.events import Accepted, Progress, ReferenceRegistered
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Entry
from seedance_avatar.models import Asset, AssetSource, VideoTask
from seedance_avatar.videos.adapter import VideoAdapter, failure_of
from seedance_avatar.videos.download import Download
from seedance_avatar.videos.exactly_once import ExactlyOnce
from seedance_avatar.videos.messages import read_video, video_query
from seedance_avatar.videos.model_table import VideoModel
from seedance_avatar.videos.real_person import refused_image, with_asset
from seedance_avatar.videos.request import GenerationRequest

from .engine import Engine
from .submission import Kept, Submission
from .waiting import Recent, wait_until_finished

__all__ = ["Ends", "Register", "Videos"]


@attrs.frozen
class Ends:
    """When a call of several steps ends.

    :ivar at: by the loop's clock, or None: it takes as long as it takes.
    """

    at: float | None
    clock: Callable[[], float]

    @classmethod
    def after(cls, timeout: float | None, clock: Callable[[], float]) -> Ends:
        """Return the end of a call that begins now."""
        return cls(None if timeout is None else clock() + timeout, clock)

    def left(self) -> float | None:
        """Return the seconds that are left, or None."""
        return None if self.at is None else max(0.001, self.at - self.clock())


Register = Callable[[AssetSource, Ends], Awaitable[Asset]]
"""Makes an active asset of a source: uploads it to a group and waits for it, both within the end of the call."""


@attrs.define(eq=False, repr=False)
class Videos:
    """The calls of a session for one video; :class:`AvatarSession` documents them."""

    engine: Callable[[], Engine]
    models: Mapping[str, VideoModel]
    allow_private: bool
    adapter: VideoAdapter = attrs.field(init=False)
    _recent: Recent = attrs.field(factory=Recent)

    def __attrs_post_init__(self) -> None:
        self.adapter = VideoAdapter(self.models, self.allow_private)

    async def generate(
        self,
        request: GenerationRequest,
        register: Register | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - its error says what became of the submission
    ) -> VideoTask:
        """Submit ``request`` exactly once, and return its task; with ``journal``, once over all runs.

        With ``register``, an image that is refused because it shows a real person is replaced by an asset of it, and
        the request is submitted again: once for each image.
        """
        registered: set[str] = set()
        ends = Ends.after(timeout, self.engine().client.clock)
        while True:
            try:
                return await self._submit(request, journal, ends.left())
            except ContentRefused as refusal:
                url = refused_image(refusal, request)
                if register is None or url is None or url in registered:
                    raise
                refused = refusal
            registered.add(url)
            source = AssetSource.image(url)
            asset = await register(source, ends)
            client = self.engine().client
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
        client = engine.client
        once = ExactlyOnce(client, engine.alone, looks=self.adapter.looks)
        business_id = self.adapter.admit(request)

        async def call(submission: Submission[VideoTask]) -> VideoTask:
            sent_as = submission.target_id
            task = await once.submit(self.adapter.request(request, sent_as), sent_as, submission)
            now = client.clock()
            self._recent.note(task.task_id, now)
            if client.observer is not None:
                client.observer(Accepted(at=now, ingest=None, source=request, asset=task))
            return task

        def entry(journal: Journal) -> Entry:
            return self.adapter.entry(journal, request, business_id)

        kept = None if path is None else Kept(path=path, entry=entry, found=self.get, resend=self.adapter.idempotent)
        submission = Submission(
            call=call, id_of=self.adapter.item_id, about=request.label, target_id=business_id, kept=kept
        )
        return await submission.finish(engine, timeout)

    async def get(self, video: VideoTask | str) -> VideoTask:
        """Return a task as it is now."""
        engine = self.engine()
        return await engine.client.call(video_query(_id_of(video)), read_video, flow=engine.asking)

    async def wait(self, video: VideoTask | str, timeout: float) -> VideoTask:  # noqa: ASYNC109 - its error carries the task as last seen
        """Wait until a video is finished, and return its task.

        :raises GenerationFailed: there will be no video.
        :raises WaitTimeout: not yet.
        """
        task_id = _id_of(video)
        return await wait_until_finished(
            self.engine(),
            video if isinstance(video, VideoTask) else None,
            question=video_query(task_id),
            accepted_at=self._recent.take(task_id),
            timeout=timeout,
            read=read_video,
            kind=lambda _: "generation",
            failure=failure_of,
        )

    async def download(
        self, video: VideoTask | str, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Path:
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
