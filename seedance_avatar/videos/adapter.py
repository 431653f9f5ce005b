"""The adapter with which a pipeline submits generation requests and polls video tasks."""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import attrs

from seedance_avatar.client.client import Client, Passage
from seedance_avatar.client.gate import Flow
from seedance_avatar.errors import AvatarError, AvatarWarning, GenerationFailed, InvalidInput, ProtocolError
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Entry
from seedance_avatar.models import VideoTask
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .exactly_once import LOOKS, ExactlyOnce
from .messages import generation_request, read_video, video_query
from .model_table import VIDEO_MODELS, VideoModel
from .request import GenerationRequest
from .rules import as_sent, check_request, parts_of

__all__ = ["VideoAdapter", "failure_of"]


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
    """How requests become videos: what a :class:`~seedance_avatar.ingest.pipeline.Pipeline` needs to know of them.

    :ivar models: the limits of each model; see :mod:`seedance_avatar.videos.model_table`.
    :ivar looks: see :class:`~seedance_avatar.videos.exactly_once.ExactlyOnce`.
    """

    models: Mapping[str, VideoModel] = attrs.field(default=VIDEO_MODELS)
    allow_private: bool = False
    looks: Sequence[float] = LOOKS
    kind: str = "videos"
    idempotent: bool = True
    _takes: Counter[bytes] = attrs.field(factory=Counter, init=False)

    def label(self, source: object) -> str:
        """Return the request's label."""
        return source.label if isinstance(source, GenerationRequest) else f"<{type(source).__name__}>"

    def polling_kind(self, source: GenerationRequest) -> str:  # noqa: ARG002 - all videos share one schedule
        """Return ``generation``."""
        return "generation"

    async def prepare(self, source: GenerationRequest) -> str:
        """Check the request, warn of likely mistakes, and return its ``client_business_id``, made if it has none."""
        return self.admit(source)

    def admit(self, source: object) -> str:
        """Do what :meth:`prepare` does."""
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

    async def submit(
        self, source: GenerationRequest, target_id: str, *, client: Client, flow: Flow, passage: Passage
    ) -> VideoTask:
        """Submit the request exactly once."""
        once = ExactlyOnce(client, flow, looks=self.looks, patient=True)
        return await once.submit(self.request(source, target_id), target_id, passage)

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
