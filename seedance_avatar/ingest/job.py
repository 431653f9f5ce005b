"""One submission under way, from being taken to its outcome."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from seedance_avatar.errors import AvatarError, WaitTimeout
from seedance_avatar.outcomes import Active, AnyOutcome, Failed, Pending
from seedance_avatar.polling.schedule import PendingItem
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

from .adapter import Adapter
from .classify import concerning_pending

if TYPE_CHECKING:
    from seedance_avatar.journal.claims import Claimant

__all__ = ["Job"]


class JobRun(Protocol):
    """What a job asks of the run that it belongs to."""

    adapter: Adapter[Any, Any]

    async def before_send(self, job: Job) -> None:
        """Commit the intent to send it."""

    async def not_applied(self, job: Job) -> None:
        """Take the intent back: nothing came of it."""

    def polled(self, job: Job, item: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - the adapter's item
        """Take the end of its polling: ``item`` where it is terminal, else why the polling stopped."""

    def inherit(self, job: Job, holder: Claimant, outcome: AnyOutcome) -> None:
        """Go on with it: ``holder``, for whom it waited, came to ``outcome``."""


@attrs.define(eq=False, repr=False)
class Job:
    """One submission, and all the sources that share it. Small: a hundred thousand may be pending.

    It implements ``Passage`` (what is called around its sending), ``Pollable`` (what the poller asks and reads) and
    ``Claimant`` (what the journal's register of claims calls).

    :ivar target_id: what it is submitted under; see :meth:`Adapter.prepare`.
    :ivar content: a hash of what its source is, which other sources of its identity must share.
    :ivar fingerprint: its fingerprint in the journal, empty without one.
    :ivar resend: True when it goes out although an earlier run left it in doubt.
    :ivar on_wire: True from before its first byte until its answer is clear.
    :ivar item_id: the service's id, empty until it is accepted.
    :ivar sharing: other sources that share it, or None.
    :ivar holder: who else in this process submits or follows the same item of the journal; this job waits for it.
    """

    run: JobRun
    source: Any
    taken_at: float
    target_id: str = ""
    identity: Hashable = None
    content: int = 0
    fingerprint: bytes = b""
    resend: bool = False
    on_wire: bool = False
    teaches: bool = True
    misses: int = 0
    item_id: str = ""
    status: str = ""
    accepted_at: float = 0.0
    pending: PendingItem | None = None
    sharing: list[Any] | None = None
    holder: Claimant | None = None

    def share(self, source: Any) -> None:  # noqa: ANN401 - whatever the adapter deals in
        """Let another ``source`` of the same identity have the outcome, too."""
        if self.sharing is None:
            self.sharing = []
        self.sharing.append(source)

    # As a Passage

    async def before_send(self) -> None:
        """Commit the intent, then note that it is on the wire."""
        await self.run.before_send(self)
        self.on_wire = True

    async def not_applied(self) -> None:
        """Note that it is not on the wire any more, and that nothing came of it."""
        self.on_wire = False
        await self.run.not_applied(self)

    # As a Pollable

    def question(self) -> Request:
        """Return the status request."""
        return self.run.adapter.question(self.item_id)

    def read(self, answer: Response) -> Any:  # noqa: ANN401 - the adapter's item
        """Read the answer to it."""
        return self.run.adapter.read(answer, self.source, self.item_id)

    def saw(self, item: Any) -> None:  # noqa: ANN401 - the adapter's item
        """Take note of a status that is not the end."""
        self.status = sys.intern(item.status)  # one string for a hundred thousand that are pending

    def ended(self, item: Any, error: AvatarError | None) -> None:  # noqa: ANN401 - the adapter's item
        """Hand the end to the pipeline."""
        self.pending = None
        self.run.polled(self, item, error)

    # As a Claimant

    def holder_accepted(self) -> None:
        """Do nothing: a job waits for the end, not for the id."""

    def holder_done(self, holder: Claimant, outcome: AnyOutcome) -> None:
        """Hand what became of ``holder`` to the pipeline."""
        self.holder = None
        self.run.inherit(self, holder, outcome)

    # Its outcome

    def outcome(self, end: type[AnyOutcome], error: AvatarError | None, item: Any) -> AnyOutcome:  # noqa: ANN401 - the adapter's item, or None
        """Return the ``end`` it came to, for its own source."""
        adapter = self.run.adapter
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
