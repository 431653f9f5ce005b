"""The adapter with which generation requests are submitted, each exactly once, and video tasks polled.

The service finds a generation by its ``client_business_id``. When the answer to a submission is lost, the service is
asked for that id first; only if it does not know the id for some seconds is the same submission sent again with it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Final

import attrs

from seedance_avatar.client.client import Client, Passage
from seedance_avatar.client.gate import Flow
from seedance_avatar.errors import (
    AvatarError,
    AvatarWarning,
    ConnectionFailed,
    GenerationFailed,
    InvalidInput,
    NotFound,
    ProtocolError,
    ServerError,
    SubmissionInDoubt,
)
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Entry
from seedance_avatar.models import VideoTask
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .messages import generation_request, read_video, video_query
from .request import VIDEO_MODELS, GenerationRequest, VideoModel
from .rules import as_sent, check_request, parts_of

_SUBMISSIONS: Final = 3
"""How often one submission is sent at most while its answers are lost."""


def failure_of(task: VideoTask) -> GenerationFailed | ProtocolError | None:
    """Return why a finished task has no video, or None when it has one.

    A completed task without a URL did not fail: its video exists and is paid for, and the answer may name it somewhere.
    """
    if not task.is_completed:
        return GenerationFailed(task)
    if task.url is not None:
        return None
    message = f"video task {task.task_id} is {task.status}, but no URL of the video was found in its answer"
    body = json.dumps(task.raw, ensure_ascii=False, default=repr)
    return ProtocolError(message, task=task, body=body, hint="look at error.task.raw, or ask for the task again")


@attrs.define(eq=False, repr=False)
class VideoAdapter:
    """How requests become videos: what a :class:`~seedance_avatar.ingest.pipeline.Pipeline` needs to know of them."""

    models: Mapping[str, VideoModel] = VIDEO_MODELS
    allow_private: bool = False
    looks: Sequence[float] = (1.0, 3.0, 8.0)
    """Seconds before each look-up of a submission whose answer was lost. The service may process a submission after its
    connection is gone, so one *not found* is not enough."""
    kind: str = "videos"
    idempotent: bool = True
    _takes: Counter[bytes] = attrs.field(factory=Counter, init=False)

    def label(self, source: object) -> str:
        """Return the request's label."""
        return source.label if isinstance(source, GenerationRequest) else f"<{type(source).__name__}>"

    def polling_kind(self, source: GenerationRequest) -> str:  # noqa: ARG002 - all videos share one schedule
        """Return ``generation``."""
        return "generation"

    async def prepare(self, source: object) -> str:
        """Check the request, warn of likely mistakes, and return its ``client_business_id``, made if it has none."""
        if not isinstance(source, GenerationRequest):
            message = f"a request must be a GenerationRequest, not {type(source).__name__}"
            raise InvalidInput(message)
        for remark in check_request(source, self.models, allow_private=self.allow_private):
            try:
                warnings.warn(remark, AvatarWarning, stacklevel=2)
            except AvatarWarning:
                # Warnings were turned into errors, so the request is refused.
                raise InvalidInput(remark, about=source.label) from None
        return source.client_business_id or f"sa-{uuid.uuid4().hex}"

    def identity(self, source: GenerationRequest, target_id: str) -> Hashable:  # noqa: ARG002 - an id that was made is different each time
        """Return the key or ``client_business_id``, or None: equal requests without either are separate videos."""
        return source.key or source.client_business_id

    def content(self, source: GenerationRequest) -> Hashable:
        """Return None: requests of one key are one video."""

    def entry(self, journal: Journal, source: GenerationRequest, target_id: str) -> Entry:
        """Return the journal entry of the request: by its key or id, else by its content and a count of equal ones.

        The third of equal requests is the third in the next run too, as long as they come in the same order. The
        content includes URLs, and a signed URL changes with every signature: give such a request a key.
        """
        name, content = source.key or source.client_business_id, ""
        if name is None:
            digest = hashlib.blake2b(self.request(source, "").body or b"", digest_size=16).digest()
            self._takes[digest] += 1
            content = f"{digest.hex()}:{self._takes[digest]}"
        return journal.entry(kind="generation", url=content, key=name, shown=source.label, business_id=target_id)

    async def submit(  # noqa: PLR0913 - the facts of one submission, by keyword
        self,
        source: GenerationRequest,
        target_id: str,
        *,
        client: Client,
        flow: Flow,
        passage: Passage,
        patient: bool = True,
    ) -> VideoTask:
        """Submit the request so that it makes one task, and return the task.

        :param passage: called before the first byte is sent, and when the service has not applied the request. For a
            resend the service is asked for ``target_id`` before anything is sent.
        :param patient: as for :meth:`Client.call`.
        :raises SubmissionInDoubt: the answer was lost, and the look-ups gave no clear answer either.
        :raises ConnectionFailed: nothing was sent.
        :raises ApiError: the service refused.

        Cancelled after sending or between look-ups, the submission is in doubt.
        """

        async def look(pause: float) -> VideoTask:
            await flow.sleep(pause)
            return await client.call(video_query(target_id), read_video, flow=flow, patient=patient)

        request = self.request(source, target_id)
        if passage.resend:
            before = SubmissionInDoubt("it was sent before, and the service could not be asked what came of it")
            if (task := await _found(look, (0.0,), before, client)) is not None:
                return task
        submissions = 1
        while True:
            try:
                return await client.call(request, read_video, flow=flow, patient=patient, passage=passage)
            except SubmissionInDoubt as lost:
                if (task := await _found(look, self.looks, lost, client)) is not None:
                    return task
                if submissions == _SUBMISSIONS:
                    raise
            submissions += 1
            await passage.not_applied()

    def request(self, source: GenerationRequest, target_id: str) -> Request:
        """Return the submission of ``source`` under the id ``target_id``."""
        return generation_request(as_sent(source, self.models), parts_of(source), target_id)

    def question(self, item_id: str) -> Request:
        """Return the status request."""
        return video_query(item_id)

    def read(self, answer: Response, source: GenerationRequest, item_id: str) -> VideoTask:
        """Read the answer to the status request."""
        del item_id  # a gateway may answer with another id of the same task
        return read_video(answer, about=source.label)

    def item_id(self, item: VideoTask) -> str:
        """Return the task's id."""
        return item.task_id

    def from_record(self, source: GenerationRequest, target_id: str, item_id: str, status: str) -> VideoTask:
        """Return the task that the journal remembers; it has no URL, which must be asked for again."""
        known = {"": "queued", "active": "completed"}.get(status, status)
        return VideoTask(task_id=item_id, status=known, model=source.model, client_business_id=target_id)

    def for_source(self, item: VideoTask, source: Any) -> VideoTask:  # noqa: ANN401, ARG002 - a task holds no request to be exchanged
        """Return the task."""
        return item

    def failure(self, item: VideoTask) -> AvatarError | None:
        """Return why there is no video, or None when there is one."""
        return failure_of(item)


async def _found(
    look: Callable[[float], Awaitable[VideoTask]], pauses: Sequence[float], doubt: SubmissionInDoubt, client: Client
) -> VideoTask | None:
    """Return the task that a ``look`` finds, or None when the service does not know its id after any of ``pauses``."""
    unclear: AvatarError | None = None
    for pause in pauses:
        try:
            return await look(pause)
        except NotFound:
            unclear = None
        except (ConnectionFailed, ProtocolError, ServerError) as error:
            unclear = error
            if client.gave_up is not None:
                break
        except AvatarError as error:
            unclear = error
            break
    if unclear is not None:
        raise doubt from unclear  # whatever prevented the look-up, the submission is still in doubt
    return None
