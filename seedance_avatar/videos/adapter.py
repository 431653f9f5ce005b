"""From references to a video task: judged, submitted exactly once, and followed like everything else."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import attrs

from seedance_avatar.client.client import Client, Passage
from seedance_avatar.client.gate import Flow
from seedance_avatar.errors import AvatarError, AvatarWarning, GenerationFailed, InvalidInput
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Entry
from seedance_avatar.models import VideoTask
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .exactly_once import LOOKS, ExactlyOnce
from .messages import generation_request, read_video, video_query
from .model_table import VIDEO_MODELS, VideoModel
from .request import GenerationRequest
from .rules import check_request, parts_of

__all__ = ["VideoAdapter", "failure_of"]


def failure_of(task: VideoTask) -> GenerationFailed | None:
    """Return why a task that is at its end has no video, or None when it has one.

    A task that is finished without a URL is a failure too: its error keeps what came, in ``task.raw``.
    """
    return None if task.is_completed and task.url is not None else GenerationFailed(task)


@attrs.define(eq=False, repr=False)
class VideoAdapter:
    """How requests become videos: what a :class:`~seedance_avatar.pipeline.Pipeline` needs to know of them.

    :ivar models: what each model takes; see :mod:`seedance_avatar.video_models`.
    :ivar looks: see :class:`~seedance_avatar.exactly_once.ExactlyOnce`.
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

    def polling_kind(self, source: GenerationRequest) -> str:  # noqa: ARG002 - all videos follow one schedule
        """Return ``generation``."""
        return "generation"

    async def prepare(self, source: GenerationRequest) -> str:
        """Judge the request, warn of what is doubtful, and return the id under which it goes out."""
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
                # Who has made errors of warnings wants it refused.
                raise InvalidInput(remark, about=source.label) from None
        return source.client_business_id or f"sa-{uuid.uuid4().hex}"

    def identity(self, source: GenerationRequest, target_id: str) -> Hashable:  # noqa: ARG002 - ours is never twice the same
        """Return the request's key or its own ``client_business_id``; equal requests without are so many videos."""
        return source.key or source.client_business_id

    def entry(self, journal: Journal, source: GenerationRequest, target_id: str) -> Entry:
        """Return what a journal knows the request by: its key or id; else its content, and how many were like it.

        The third request of a kind is the third one in the next run too, as long as the requests come in the same
        order. A signed URL makes other content of it at every signing: give such a request a key.
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
        return generation_request(source, parts_of(source), target_id)

    def question(self, item_id: str) -> Request:
        """Return the status request."""
        return video_query(item_id)

    def read(self, answer: Response, source: GenerationRequest, item_id: str) -> VideoTask:
        """Read the answer to it."""
        del item_id  # a gateway may tell of a task by another id than the one that it was asked by
        return read_video(answer, about=source.label)

    def item_id(self, item: VideoTask) -> str:
        """Return the task's id."""
        return item.task_id

    def from_record(self, source: GenerationRequest, target_id: str, item_id: str, status: str) -> VideoTask:
        """Return the task as last seen; of what an earlier run finished, the URL is to be asked for."""
        known = {"": "queued", "active": "completed"}.get(status, status)
        return VideoTask(task_id=item_id, status=known, model=source.model, client_business_id=target_id)

    def for_source(self, item: VideoTask, source: Any) -> VideoTask:  # noqa: ANN401, ARG002 - a task does not name its request
        """Return the task."""
        return item

    def failure(self, item: VideoTask) -> AvatarError | None:
        """Return why there is no video, or None when there is one."""
        return failure_of(item)
