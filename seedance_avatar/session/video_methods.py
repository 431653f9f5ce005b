"""The methods of a session for videos."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from seedance_avatar.events import Progress
from seedance_avatar.ingest.stream import Ingest
from seedance_avatar.models import Asset, AssetGroup, AssetSource, VideoTask
from seedance_avatar.options import Rerun, check_count, check_positive
from seedance_avatar.videos.request import GenerationRequest, Reference

from .calls import Calls

if TYPE_CHECKING:
    from .video_calls import Ends

__all__ = ["VideoMethods"]


class VideoMethods:
    """The methods of :class:`~seedance_avatar.AvatarSession` for videos."""

    _calls: Calls

    async def generate(  # noqa: PLR0913 - the options of one video, all but the prompt by keyword
        self,
        prompt: str,
        *,
        references: Iterable[Asset | Reference] | Asset | Reference = (),
        first_frame: Asset | str | None = None,
        last_frame: Asset | str | None = None,
        model: str = "seedance-2",
        duration: int | None = None,
        aspect_ratio: str | None = None,
        resolution: str | None = None,
        generate_audio: bool | None = None,
        seed: int | None = None,
        return_last_frame: bool | None = None,
        callback_url: str | None = None,
        tools: Iterable[Mapping[str, Any]] | None = None,
        client_business_id: str | None = None,
        register_refused: AssetGroup | str | None = None,
        journal: str | os.PathLike[str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - its error says what became of the submission
    ) -> VideoTask:
        """Submit one generation exactly once, and return its task, which is usually still ``queued``.

        Every argument but the last three is a field of :class:`~seedance_avatar.GenerationRequest`; what is None is not
        sent. What is known to break a rule of the model is refused before anything is sent. Every submission has a
        ``client_business_id``; where the response is lost, the service is asked for that id for some seconds, and the
        submission is sent again, with the same id, only when the service does not know it.

        :param prompt: what the video shows and says. Refer to media by type and number (``image 1``).
        :param references: active assets, or :class:`~seedance_avatar.Reference` values, or one of them.
        :param first_frame: the image to begin with, an asset or a URL. Not with references.
        :param last_frame: the image to end with, an asset or a URL. Not with references.
        :param duration: whole seconds; 0 or -1 lets the model choose, where it can.
        :param model: the model's name.
        :param aspect_ratio: ``"16:9"`` and the like, or ``"adaptive"``.
        :param resolution: ``"480p"``, ``"720p"``, ``"1080p"`` or ``"4k"``, as the model has them.
        :param generate_audio: whether the video has sound (the service's default: yes).
        :param seed: the same seed makes similar videos.
        :param return_last_frame: whether the last frame is wanted as an image too.
        :param tools: the service's tools to use, as it documents them.
        :param callback_url: called when the video is finished; see :func:`~seedance_avatar.verify_webhook`.
        :param client_business_id: your own id of this generation, under which ``get_video`` finds it too.
        :param register_refused: a group. An image URL that is refused because it "may contain real person" is then
            uploaded to the group, waited for, and put into the request as an asset, which is submitted once more.
        :param journal: a file that keeps the ``client_business_id`` and the task. The same call with it after any
            end, a kill included, returns the same task. Calls are told apart by their own ``client_business_id``, else
            by their content and their order.
        :param timeout: seconds within which the call ends (two more where an answer may be on its way); None: no bound.
            It raises :class:`WaitTimeout` where nothing was sent, or where the id is known (it is in the message), and
            a :class:`SubmissionInDoubt` that is a :class:`TimeoutError` too where it was sent: an answer that comes
            within ``timeouts.drain`` seconds more goes to observer, log and journal.
        :raises InvalidInput: the request breaks a rule, which the message names; nothing was sent.
        :raises SubmissionInDoubt: the response was lost, and the service could not be asked for the task.
        :raises ContentRefused: the service's content policy refused the prompt or a reference.
        :raises ConnectionFailed: nothing was sent.
        :raises ApiError: the service refused.

        Cancelled after it was sent, the response is waited for, so that observer and log get it, and then the
        cancellation is raised, with a note that says what became of it.
        """
        if timeout is not None:
            check_positive("timeout", timeout)
        request = GenerationRequest(
            prompt,
            references=references,
            first_frame=first_frame,
            last_frame=last_frame,
            model=model,
            duration=duration,
            aspect_ratio=aspect_ratio,
            resolution=resolution,
            generate_audio=generate_audio,
            seed=seed,
            return_last_frame=return_last_frame,
            callback_url=callback_url,
            tools=tools,
            client_business_id=client_business_id,
        )
        group, assets = register_refused, self._calls.assets

        async def register(source: AssetSource, ends: Ends) -> Asset:
            assert group is not None  # noqa: S101 - only called where a group was given
            asset = await assets.upload(source, group, ends.left())
            return await assets.wait(asset, ends.left() or 600.0)

        return await self._calls.videos.generate(
            request, None if group is None else register, journal=journal, timeout=timeout
        )

    def generate_many(  # noqa: PLR0913 - the options of one run, by keyword
        self,
        requests: Iterable[GenerationRequest] | AsyncIterable[GenerationRequest],
        *,
        video_timeout: float = 1800.0,
        max_pending: int = 1_000,
        on_failure: Literal["continue", "stop"] = "continue",
        journal: str | os.PathLike[str] | None = None,
        retry_refused: bool = False,
    ) -> Ingest[GenerationRequest, VideoTask]:
        """Return a stream that submits every request exactly once and follows it until its video is finished.

        It is a stream like that of :meth:`ingest`, with the same outcomes: ``source`` is the request and ``asset`` the
        task. Requests with the same ``key`` or ``client_business_id`` are one video; equal requests without either
        are a video each.

        :param requests: any iterable or async iterable; it is read lazily.
        :param video_timeout: seconds from acceptance after which a video that is not finished is ``Pending``.
        :param max_pending: requests at most that are taken and not yet delivered as outcomes.
        :param on_failure: ``"stop"`` to take and send nothing more after the first ``Failed``.
        :param journal: a file that keeps what was about to be sent and what came back; the same call with it resumes.
            What an earlier run left in doubt is asked for by its id, so nothing is generated twice. Give requests a
            ``key``: without one they are recognised by their content and order.
        :param retry_refused: send again what an earlier run was refused.
        :raises InvalidInput: an argument cannot be used.
        """
        check_positive("video_timeout", video_timeout)
        check_count("max_pending", max_pending)
        return self._calls.stream(
            attrs.evolve(self._calls.videos.adapter),
            requests,
            asset_timeout=video_timeout,
            max_pending=max_pending,
            on_failure=on_failure,
            journal=journal,
            rerun=Rerun.of(retry_refused=retry_refused),
        )

    async def get_video(self, video: VideoTask | str) -> VideoTask:
        """Return a generation as it is now.

        :param video: the task, its id, or its ``client_business_id``.
        :raises NotFound: the service does not know the id.
        :raises ApiError: the service refused.
        :raises ConnectionFailed: no answer came in all attempts.
        """
        return await self._calls.videos.get(video)

    async def wait_for_video(self, video: VideoTask | str, *, timeout: float = 600.0) -> VideoTask:  # noqa: ASYNC109 - its error carries the task as last seen
        """Wait until a video is finished, and return its task, which has the URL.

        It is polled as ``video_polling`` says: by default after 5 s, then about every 10 s.

        :param video: the task, its id, or its ``client_business_id``.
        :param timeout: seconds from now. When they pass, the video may still be finished.
        :raises GenerationFailed: there will be no video; its ``task`` says why, and keeps what came.
        :raises ProtocolError: it is finished, and its answer holds no URL; the error's ``task.raw`` is that answer.
        :raises WaitTimeout: it is not finished yet; the error carries the task as last seen.
        :raises NotFound: the service does not know the id (for a minute after its submission, a 404 is retried).

        Cancelled, it is not polled any more.
        """
        check_positive("timeout", timeout)
        return await self._calls.videos.wait(video, timeout)

    async def download(
        self, video: VideoTask | str, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Path:
        """Fetch the file of a finished video to ``path``, whole or not at all, and return the path.

        A broken transfer is resumed where it broke, if the host allows it; for an expired URL a new one is requested.
        The key is never sent to the host of the file.

        :param video: the finished task, or its id.
        :param path: a file, which is replaced once the new one is whole; its folder must exist.
        :param progress: called with the bytes received so far, and in all where they are known.
        :raises InvalidInput: the task is not finished, or ``path`` cannot be a file.
        :raises NotFound: the host does not have the file: not yet (it was asked for a minute), or no longer.
        :raises ConnectionFailed: the host could not be reached, or the transfer kept breaking.
        :raises ProtocolError: the host sends something that is no video.
        :raises OSError: the file could not be written.

        Cancelled, it leaves the target as it was, and no partial file.
        """
        return await self._calls.videos.download(video, path, progress=progress)
