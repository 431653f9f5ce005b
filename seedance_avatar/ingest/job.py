"""One submission under way, from being taken to its outcome."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import attrs

from seedance_avatar.errors import AvatarError, WaitTimeout
from seedance_avatar.outcomes import Active, AnyOutcome, Failed, Pending
from seedance_avatar.polling.schedule import PendingItem
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .classify import concerning_pending

if TYPE_CHECKING:
    from seedance_avatar.journal.claims import Claimant

    from .pipeline import Pipeline

__all__ = ["Job"]


@attrs.define(eq=False, repr=False)
class Job:
    """One submission, and all the sources that share it. Small: a hundred thousand may be pending.

    It is its own passage (it notes when it is on the wire) and its own question to the polling hub.

    :ivar target_id: what it is submitted under; see :meth:`Adapter.prepare`.
    :ivar mark: its fingerprint in the journal, empty without one.
    :ivar resend: True when it goes out although an earlier run left it in doubt.
    :ivar on_wire: True from before its first byte until its answer is clear.
    :ivar item_id: the service's id, empty until it is accepted.
    :ivar owner: who else in this process submits or follows the same item of the journal; this job waits for it.
    """

    pipeline: Pipeline
    source: Any
    target_id: str
    identity: Hashable
    taken_at: float
    fingerprint: bytes = b""
    resend: bool = False
    on_wire: bool = False
    teaches: bool = True
    misses: int = 0
    item_id: str = ""
    status: str = ""
    accepted_at: float = 0.0
    pending: PendingItem | None = None
    twins: list[Any] | None = None
    owner: Claimant | None = None

    # Its passage

    async def before_send(self) -> None:
        """Commit the intent, then note that it is on the wire."""
        if self.pipeline.recorder is not None:
            await self.pipeline.recorder.before_send(self)
        self.on_wire = True

    async def not_applied(self) -> None:
        """Note that it is not on the wire any more, and that nothing came of it."""
        self.on_wire = False
        if self.pipeline.recorder is not None:
            await self.pipeline.recorder.not_applied(self)

    # Its question

    def question(self) -> Request:
        """Return the status request."""
        return self.pipeline.adapter.question(self.item_id)

    def read(self, answer: Response) -> Any:  # noqa: ANN401 - the adapter's item
        """Read the answer to it."""
        return self.pipeline.adapter.read(answer, self.source, self.item_id)

    def saw(self, item: Any) -> None:  # noqa: ANN401 - the adapter's item
        """Take note of a status that is not the end."""
        self.status = sys.intern(item.status)  # one string for a hundred thousand that are pending

    def ended(self, item: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - the adapter's item
        """Hand the end to the pipeline."""
        self.pending = None
        self.pipeline.polled(self, item, error)

    # Its claim in a journal

    def holder_accepted(self) -> None:
        """Do nothing: a job waits for the end, not for the id."""

    def holder_done(self, holder: Claimant, outcome: AnyOutcome) -> None:
        """Hand what became of ``holder`` to the pipeline."""
        self.owner = None
        self.pipeline.inherit(self, holder, outcome)

    # Its outcome

    def outcome(self, end: type[AnyOutcome], error: AvatarError | None, item: Any) -> AnyOutcome:  # noqa: ANN401 - the adapter's item, or None
        """Return the ``end`` it came to, for its own source."""
        adapter = self.pipeline.adapter
        facts: dict[str, Any] = {"source": self.source}
        if end in {Active, Failed, Pending} and (item is not None or self.item_id):
            if item is None:
                item = adapter.from_record(self.source, self.target_id, self.item_id, self.status)
            facts["asset"] = item
        if error is not None:
            # A copy: it names the source, and it holds no traceback and so no frames.
            label = adapter.label(self.source)
            error = concerning_pending(error, label, self.item_id) if end is Pending else error.concerning(label)
            if isinstance(error, WaitTimeout):
                error.last = item
            facts["error"] = error
        return end(**facts)
