"""``AvatarSession``: opening, closing, and every call of an account."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self

import aiohttp
import attrs

from seedance_avatar.assets.adapter import AssetAdapter, GroupOf, group_id_of
from seedance_avatar.assets.messages import (
    asset_query,
    asset_request,
    check_source,
    group_request,
    read_asset,
    read_group,
)
from seedance_avatar.assets.uploads import judge, published, upload_file
from seedance_avatar.client.client import Passage
from seedance_avatar.client.tasks import wait_through_cancel
from seedance_avatar.errors import AssetFailed, InvalidInput, SessionStateError
from seedance_avatar.events import Observer, Progress, callable_observer
from seedance_avatar.ingest.sources import SourceReader
from seedance_avatar.ingest.stream import Ingest
from seedance_avatar.models import Asset, AssetGroup, AssetSource, VideoTask
from seedance_avatar.options import (
    Changed,
    Doubt,
    Limits,
    Polling,
    Rerun,
    Retry,
    SharedLimits,
    Timeouts,
    check_count,
    check_positive,
    check_seconds,
    given,
)
from seedance_avatar.outcomes import SessionStats
from seedance_avatar.text import KeyProvider, Secret, safe_text
from seedance_avatar.videos.request import VIDEO_MODELS, GenerationRequest, Reference, VideoModel
from seedance_avatar.wire.request import check_key, normalize_base

from .engine import Engine
from .submission import Kept, Submission
from .waiting import wait_until_finished

if TYPE_CHECKING:
    from .video_calls import Videos

__all__ = ["AvatarSession"]

_BASE: Final = "https://toapis.com"


def _key(key: Secret[str] | KeyProvider | None) -> Secret[str] | KeyProvider:
    if key is None and (found := os.environ.get("TOAPIS_API_KEY")) is not None:
        key = Secret(found)
        del found  # tracebacks may be shown with locals
    if key is None:
        message = "no API key: pass api_key, or set TOAPIS_API_KEY"
        raise InvalidInput(message)
    if not isinstance(key, Secret):
        return key
    try:
        check_key(key.reveal())
    except InvalidInput as error:
        flaw = error.with_traceback(None)  # the frames below hold the key
    else:
        return key
    raise flaw


class AvatarSession:
    """One account at the service: all its calls, under limits shared by every task that uses it.

    Keep one for the life of the process. It may be built anywhere (no loop is needed and nothing is sent) and
    belongs to the loop in which it is opened, by ``async with`` or ``await session.open()``::

        async with AvatarSession() as session:
            group = await session.create_group("brand-avatar-group")

    What ``create_group``, ``upload`` and ``generate`` submit outlives the patience of who asked for it. Their
    ``timeout`` is the seconds within which the call ends (two more where an answer may be on its way); None: no bound.
    It raises :class:`WaitTimeout` where nothing was sent, or where the id is known (it is in the message), and a
    :class:`SubmissionInDoubt` that is a :class:`TimeoutError` too where it was sent: an answer that comes within
    ``timeouts.drain`` seconds more goes to observer, log and journal. Cancelled after it was sent, the response is
    waited for, so that observer and log get it, and then the cancellation is raised, with a note that says what became
    of it.

    :param api_key: the key, or a callable (sync or async) that is asked for it before every request, so that keys
        can rotate; by default ``TOAPIS_API_KEY`` of the environment.
    :param base_url: the service, with or without ``/v1``; by default ``TOAPIS_BASE_URL``, else ``https://toapis.com``.
    :param limits: how fast to go, by default found by itself; or limits shared with others (``RedisLimits``).
    :param retry: how often to retry what is safe to retry.
    :param polling: when to look at pending assets; by default learned.
    :param video_polling: when to look at pending videos; by default after 5 s, then every 10 s.
    :param timeouts: how long single items may take.
    :param http: an ``aiohttp.ClientSession`` to use; it is never closed here.
    :param observer: called with every event (see ``seedance_avatar.events``).
    :param trust_env: True to obey the proxy variables of the environment.
    :param fast_path: False to send every request by ``ClientSession.request``, which takes more CPU. By default the
        session writes its small requests to aiohttp's connections itself, by parts of aiohttp that it tries at opening;
        should one of them fail, that is logged once and ``ClientSession.request`` takes over.
    :param allow_private_sources: True to send source URLs of private hosts too, for a gateway in the same
        network; the service itself refuses them without a reason, so they are refused here by default.
    :param video_models: what each video model takes, by name; a model that it does not hold goes unchecked.
    :raises InvalidInput: no key, a key or base URL that cannot be used. The key is never shown.
    """

    def __init__(  # noqa: PLR0913 - the options of a session, all but the key by keyword
        self,
        api_key: str | KeyProvider | None = None,
        *,
        base_url: str | None = None,
        limits: Limits | SharedLimits | None = None,
        retry: Retry | None = None,
        polling: Polling | None = None,
        video_polling: Polling | None = None,
        timeouts: Timeouts | None = None,
        http: aiohttp.ClientSession | None = None,
        observer: Observer | None = None,
        trust_env: bool = False,
        fast_path: bool = True,
        allow_private_sources: bool = False,
        video_models: Mapping[str, VideoModel] = VIDEO_MODELS,
    ) -> None:
        self._engine: Engine | None = None
        self._closing: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        key = api_key if api_key is None or callable(api_key) else Secret(api_key)
        del api_key  # tracebacks may be shown with locals
        self._base = normalize_base(base_url or os.environ.get("TOAPIS_BASE_URL") or _BASE)
        self._timeouts = given("timeouts", timeouts, Timeouts) or Timeouts()
        self._start = partial(
            Engine.start,
            self._base,
            _key(key),
            limits=given("limits", limits, Limits | SharedLimits) or Limits(),
            retry=given("retry", retry, Retry) or Retry(),
            polling=given("polling", polling, Polling) or Polling.learned(),
            video_polling=given("video_polling", video_polling, Polling) or Polling.fixed(5, 10),
            timeouts=self._timeouts,
            http=http,
            observer=None if observer is None else callable_observer(observer),
            trust_env=trust_env,
            fast_path=fast_path,
        )
        self._allow_private = allow_private_sources
        self._video_models = video_models

    def __repr__(self) -> str:
        state = "closed" if self._closing else "open" if self._engine else "not open"
        return f"<AvatarSession {getattr(self, '_base', 'not built')} {state}>"

    # Opening and closing

    async def open(self) -> Self:
        """Open the session in the running loop; nothing is sent. Opening an open session does nothing.

        :raises SessionStateError: it was closed, or is open in another loop or process.

        Cancelled, it is not open, and may be opened again.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            message = "a session is for asyncio only: there is no running asyncio event loop"
            raise SessionStateError(message) from None
        async with self._opening:
            if self._engine is None:
                self._engine = await self._start()
            _ = self.engine  # raises where it was closed, or is open elsewhere
            return self

    async def aclose(self) -> None:
        """Close the session: calls that wait get :class:`SessionStateError`, requests that were sent are waited for.

        It takes at most ``timeouts.drain`` seconds and may be called twice, from any task of the session's loop.
        Cancelled, however often, it closes all the same, and then raises the cancellation.
        """
        if self._engine is None and self._opening.locked():
            async with self._opening:  # it is being opened in another task: what is opened then is closed here
                pass
        engine = self._engine
        if engine is None or (self._closing is not None and self._closing.done()):
            return
        engine.check_outside()
        if self._closing is None:
            self._closing = asyncio.create_task(engine.aclose(), name="seedance-avatar: closing")
        await wait_through_cancel(self._closing, second_cancels=False)
        self._closing.result()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> NoReturn:
        message = "AvatarSession is for asyncio only: did you mean `async with`?"
        raise SessionStateError(message)

    def __exit__(self, *_: object) -> None:
        """Stand beside ``__enter__``, which always raises."""

    async def drain(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the ingests end in order after it, which a cancel scope of the caller would prevent
        """Send nothing new, wait for requests that were already sent, and end every ingest in order.

        For a service that shuts down. Every source that was taken has its outcome when this returns, and the
        streams end by themselves; the session stays open for status requests.

        :param timeout: seconds to wait for requests that were sent, by default ``timeouts.drain``.
        :raises InvalidInput: ``timeout`` is not a finite number of at least 0; nothing was stopped.
        """
        limit = self._timeouts.drain if timeout is None else timeout
        check_seconds("timeout", limit)
        await self.engine.drain(limit, SessionStateError("the session is draining: nothing new is sent"))

    def stats(self) -> SessionStats:
        """Return the session's figures at this moment; they are all zero before it is opened."""
        return SessionStats() if self._engine is None else self._engine.stats()

    @property
    def engine(self) -> Engine:
        """What is behind the session while it is open. For the package itself: it may change in any release.

        :raises SessionStateError: it is not open, or belongs to another loop or process.
        """
        if self._engine is None:
            message = "this session is not open: use `async with AvatarSession(...) as session:` or await open()"
            raise SessionStateError(message)
        if self._closing is not None:
            message = "this session was closed: build another one"
            raise SessionStateError(message)
        self._engine.transport.check_here()
        return self._engine

    # Groups and single assets

    async def create_group(
        self,
        name: str,
        description: str | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        on_in_doubt: Doubt = "hold",
        timeout: float | None = None,  # noqa: ASYNC109 - its error says what became of the submission
    ) -> AssetGroup:
        """Create a group, one for each virtual character, and return it.

        :param name: at most 64 characters.
        :param description: at most 300 characters.
        :param journal: a journal that knows groups by their name: one that an earlier run created is returned again.
        :param on_in_doubt: whether a group that an earlier run left in doubt is created again (``"resend"``).
        :param timeout: seconds, or None: no bound. What it raises, and a cancellation does, is said by the class.
        :raises InvalidInput: the name or description cannot be sent.
        :raises SubmissionInDoubt: the answer was lost; a group of this name may exist, and cannot be looked up.
        :raises ApiError: the service refused.
        """
        engine, request = self.engine, group_request(name, description)

        async def found(group_id: str) -> AssetGroup:
            return AssetGroup(group_id=group_id, name=name)

        submission = Submission[AssetGroup](
            call=lambda it: engine.client.call(request, read_group, flow=engine.alone, passage=it),
            id_of=lambda group: group.group_id,
            about=request.about,
            kept=None
            if journal is None
            else Kept(
                journal, lambda it: it.entry(kind="group", key=name, shown=name), found, resend=on_in_doubt == "resend"
            ),
        )
        return await submission.finish(engine, timeout)

    async def upload(
        self,
        source: AssetSource,
        *,
        group: AssetGroup | str,
        timeout: float | None = None,  # noqa: ASYNC109 - its error says what became of the submission
    ) -> Asset:
        """Upload one source and return its asset, which is usually still ``processing``.

        :param source: what to upload.
        :param group: the group, or its id.
        :param timeout: seconds, or None: no bound. What it raises, and a cancellation does, is said by the class.
        :raises InvalidSource: refused here; nothing was sent.
        :raises SubmissionInDoubt: it may exist; it is not sent again.
        :raises ConnectionFailed: nothing was sent.
        :raises ApiError: the service refused.
        """
        engine, group_id = self.engine, group_id_of(group)
        check_source(source, allow_private=self._allow_private)
        client = engine.client

        async def call(passage: Passage) -> Asset:
            sent = await published(source, await judge(source), client=client, flow=engine.alone)
            request, read = asset_request(sent, group_id), partial(read_asset, source=source)
            return engine.accepted(source, await client.call(request, read, flow=engine.alone, passage=passage))

        submission = Submission(call=call, id_of=lambda asset: asset.asset_id, about=source.label)
        return await submission.finish(engine, timeout)

    async def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - its error is one of ours
    ) -> str:
        """Upload a local file to the service, and return its public URL there.

        :param path: an image (JPEG, PNG, WebP, GIF; 10 MB at most), a video (MP4, WebM, MOV; 50 MB) or an audio (MP3,
            WAV, M4A; 50 MB), recognised by its first bytes.
        :param timeout: seconds after which it stops sending and raises :class:`WaitTimeout`; None: no bound.
        :raises InvalidInput: the service would not take it; each reason is named. Nothing was sent.
        :raises ConnectionFailed: no answer came in all attempts.
        :raises ApiError: the service refused.

        Cancelled, it stops sending, and the cancellation has a note that says what became of the file; so do observer
        and log. It does no harm to upload a file twice.
        """
        engine = self.engine
        submission = Submission[str](
            call=lambda it: upload_file(path, client=engine.client, flow=engine.alone, passage=it),
            id_of=str,
            about=safe_text(path),
            harmless=True,
        )
        return await submission.finish(engine, timeout)

    async def get_asset(self, asset_id: str) -> Asset:
        """Return an asset as it is now.

        :raises NotFound: the service does not know the id.
        :raises ApiError: the service refused.
        :raises ConnectionFailed: no answer came in all attempts.
        """
        engine, read = self.engine, partial(read_asset, asked=asset_id)
        return await engine.client.call(asset_query(asset_id), read, flow=engine.asking)

    async def wait_until_active(self, asset: Asset | str, *, timeout: float = 600.0) -> Asset:  # noqa: ASYNC109 - its error carries the asset as last seen
        """Wait until an asset is active, and return it.

        One schedule polls everything that is waited for, under the session's limits.

        :param asset: the asset, or its id.
        :param timeout: seconds from now. When they pass, the asset may still become active.
        :raises AssetFailed: the asset failed, which is final.
        :raises WaitTimeout: it is not active yet; the error carries the asset as last seen.
        :raises NotFound: the service does not know the id (for a minute after its upload, a 404 is retried).

        Cancelled, it is not polled any more.
        """
        seen = asset if isinstance(asset, Asset) else None
        asset_id = asset.asset_id if isinstance(asset, Asset) else asset
        return await wait_until_finished(
            self.engine,
            seen,
            question=asset_query(asset_id),
            timeout=timeout,
            read=partial(read_asset, source=None if seen is None else seen.source, asked=asset_id),
            kind=lambda last: None if last is None else last.asset_type,
            failure=lambda last: AssetFailed(last) if last.is_failed else None,
        )

    # Videos

    @cached_property
    def _videos(self) -> Videos:
        from .video_calls import Videos  # noqa: PLC0415 - most sessions make no videos, and start faster

        return Videos(lambda: self.engine, self._video_models, self._allow_private)

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
        :param timeout: seconds, or None: no bound. What it raises, and a cancellation does, is said by the class.
        :raises InvalidInput: the request breaks a rule, which the message names; nothing was sent.
        :raises SubmissionInDoubt: the response was lost, and the service could not be asked for the task.
        :raises ContentRefused: the service's content policy refused the prompt or a reference.
        :raises ConnectionFailed: nothing was sent.
        :raises ApiError: the service refused.
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
        group = register_refused

        async def register(source: AssetSource, left: Callable[[], float | None]) -> Asset:
            assert group is not None  # noqa: S101 - only called where a group was given
            asset = await self.upload(source, group=group, timeout=left())
            return await self.wait_until_active(asset, timeout=left() or 600.0)

        return await self._videos.generate(
            request, None if group is None else register, journal=journal, timeout=timeout
        )

    async def get_video(self, video: VideoTask | str) -> VideoTask:
        """Return a generation as it is now.

        :param video: the task, its id, or its ``client_business_id``.
        :raises NotFound: the service does not know the id.
        :raises ApiError: the service refused.
        :raises ConnectionFailed: no answer came in all attempts.
        """
        return await self._videos.get(video)

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
        return await self._videos.wait(video, timeout)

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
        return await self._videos.download(video, path, progress)

    # Many at once

    def ingest(  # noqa: PLR0913 - the options of one run, by keyword
        self,
        sources: Iterable[AssetSource] | AsyncIterable[AssetSource],
        *,
        group: AssetGroup | str | GroupOf,
        asset_timeout: float = 1800.0,
        max_pending: int = 20_000,
        on_failure: Literal["continue", "stop"] = "continue",
        journal: str | os.PathLike[str] | None = None,
        on_in_doubt: Doubt = "hold",
        on_changed: Changed = "refuse",
        retry_refused: bool = False,
        retry_failed: bool | str | Iterable[str] = False,
    ) -> Ingest[AssetSource, Asset]:
        """Return a stream that uploads every source and follows it until it is active.

        The same source again (same group and key; without a key same group, type and URL) is one upload with an outcome
        for each: over the whole run, as far as about the last 600,000 sources (under 40 MiB are kept for that), and
        with a journal over all of them and all runs. Another type or URL, up to its query, under a key of its group is
        ``Failed`` with :class:`InvalidSource`.

        :param sources: any iterable or async iterable; it is read lazily, as fast as uploads can be handled. One
            that may block (a file, a cursor) is read in a thread of its own. A few are read ahead: when the
            run halts by itself they are ``Unsent``; when the stream is left early, ``report.dropped`` counts them.
        :param group: the group or its id; or a callable (sync or async) that returns it for a source.
        :param asset_timeout: seconds from acceptance after which an asset that is not finished is ``Pending``.
        :param max_pending: sources at most that are taken and not yet delivered as outcomes.
        :param on_failure: ``"stop"`` to take and send nothing more after the first ``Failed``.
        :param journal: a file that keeps what was about to be sent and what came back. The same call with the same
            journal resumes after any end, ``kill -9`` included: what was accepted is polled, what was not sent is sent,
            what was being sent is in doubt.
        :param on_in_doubt: ``"hold"`` what an earlier run left in doubt (it is reported as such), or ``"resend"`` it,
            which may make duplicates that cannot be deleted.
        :param on_changed: what to do with a source whose key an earlier run used for another one of the group (another
            type, or URL up to its query) that exists or may exist: ``"refuse"`` it as :class:`InvalidSource`, or
            ``"replace"`` that one, which the service keeps, too. What failed or was refused is replaced in any case.
        :param retry_refused: send again what an earlier run was refused.
        :param retry_failed: submit again, as a new asset, what failed in an earlier run after it was accepted: True for
            all of it, or texts of which one is the error's code or is contained in the reason, in any case.
        :raises InvalidInput: an argument cannot be used.

        Entering the stream raises :class:`JournalError` when the journal is held by another process, is not a
        journal, or cannot be written.
        """
        check_positive("asset_timeout", asset_timeout)
        check_count("max_pending", max_pending)
        rerun = Rerun.of(
            on_in_doubt=on_in_doubt, retry_refused=retry_refused, retry_failed=retry_failed, on_changed=on_changed
        )
        if not callable(group):
            group_id_of(group)
        return self._stream(
            AssetAdapter(group, self._allow_private),
            sources,
            asset_timeout=asset_timeout,
            max_pending=max_pending,
            on_failure=on_failure,
            journal=journal,
            rerun=rerun,
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
        return self._stream(
            attrs.evolve(self._videos.adapter),
            requests,
            asset_timeout=video_timeout,
            max_pending=max_pending,
            on_failure=on_failure,
            journal=journal,
            rerun=Rerun.of(retry_refused=retry_refused),
        )

    def _stream(self, adapter: Any, sources: Any, *, on_failure: str, **options: Any) -> Ingest[Any, Any]:  # noqa: ANN401 - its callers are typed
        """Return a stream over ``sources``, with ``options`` of :meth:`Engine.begin`; nothing is read yet."""
        if on_failure not in {"continue", "stop"}:
            message = f"on_failure must be 'continue' or 'stop', not {on_failure!r}"
            raise InvalidInput(message)
        SourceReader.of(sources)

        def begin() -> Awaitable[Any]:
            return self.engine.begin(adapter, sources, stop_on_failure=on_failure == "stop", **options)

        return Ingest(begin)
