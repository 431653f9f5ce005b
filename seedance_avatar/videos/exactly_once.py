"""Submits a generation exactly once, also where an answer is lost, by its ``client_business_id``.

The service finds a generation by its ``client_business_id``. When the answer to a submission is lost, the service is
asked for that id first; only if it does not know the id for some seconds is the same submission sent again with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from seedance_avatar.client.client import Client, Passage
from seedance_avatar.client.gate import Flow
from seedance_avatar.errors import (
    AvatarError,
    ConnectionFailed,
    NotFound,
    ProtocolError,
    ServerError,
    SubmissionInDoubt,
)
from seedance_avatar.models import VideoTask
from seedance_avatar.wire.request import Request

from .messages import read_video, video_query

__all__ = ["LOOKS", "ExactlyOnce"]

LOOKS: Final = (1.0, 3.0, 8.0)
"""Seconds before each look-up of a submission whose answer was lost. The service may process a submission after its
connection is gone, so one *not found* is not enough."""

_SUBMISSIONS: Final = 3
"""How often one submission is sent at most while its answers are lost."""


@attrs.frozen
class ExactlyOnce:
    """Submits requests exactly once.

    :ivar flow: the flow whose turns the submission and the look-ups take.
    :ivar looks: seconds before each look-up.
    :ivar patient: as for :meth:`Client.call`.
    """

    client: Client
    flow: Flow
    looks: Sequence[float] = attrs.field(default=LOOKS, kw_only=True)
    patient: bool = attrs.field(default=False, kw_only=True)

    async def submit(self, request: Request, business_id: str, passage: Passage) -> VideoTask:
        """Send ``request``, which carries ``business_id``, so that it makes one task, and return the task.

        :param passage: called before the first byte is sent, and when the service has not applied the request. For a
            resend the service is asked for ``business_id`` before anything is sent.
        :raises SubmissionInDoubt: the answer was lost, and the look-ups gave no clear answer either.
        :raises ConnectionFailed: nothing was sent.
        :raises ApiError: the service refused.

        Cancelled after sending or between look-ups, the submission is in doubt.
        """
        if passage.resend:
            before = SubmissionInDoubt("it was sent before, and the service could not be asked what came of it")
            if (task := await self._find(business_id, (0.0,), before)) is not None:
                return task
        submissions = 1
        while True:
            try:
                return await self.client.call(
                    request, read_video, flow=self.flow, patient=self.patient, passage=passage
                )
            except SubmissionInDoubt as lost:
                if (task := await self._find(business_id, self.looks, lost)) is not None:
                    return task
                if submissions == _SUBMISSIONS:
                    raise
            submissions += 1
            await passage.not_applied()

    async def _find(self, business_id: str, pauses: Sequence[float], doubt: SubmissionInDoubt) -> VideoTask | None:
        """Return the task of this id, or None when the service does not know it after any of ``pauses``."""
        unclear: AvatarError | None = None
        for pause in pauses:
            try:
                await self.flow.sleep(pause)
                return await self.client.call(
                    video_query(business_id), read_video, flow=self.flow, patient=self.patient
                )
            except NotFound:
                unclear = None
            except (ConnectionFailed, ProtocolError, ServerError) as error:
                unclear = error
                if self.client.gave_up is not None:
                    break
            except AvatarError as error:
                unclear = error
                break
        if unclear is not None:
            raise doubt from unclear  # whatever prevented the look-up, the submission is still in doubt
        return None
