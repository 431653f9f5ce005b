"""What every run has."""

from __future__ import annotations

from typing import Protocol

from seedance_avatar.errors import AvatarError
from seedance_avatar.outcomes import IngestReport, IngestStats

from .outcome_queue import OutcomeQueue

__all__ = [
    "Run",
]


class Run(Protocol):
    """What stands behind a stream: one :class:`~seedance_avatar.ingest.pipeline.Pipeline`, or several as one."""

    @property
    def accounts(self) -> OutcomeQueue:
        """What ended how, and what waits for the consumer."""

    @property
    def ended(self) -> bool:
        """True when there will be no more outcomes."""

    @property
    def crash(self) -> BaseException | None:
        """What ended it before its time, or None."""

    def halt(self, error: AvatarError) -> None:
        """Take no more sources and send nothing more; follow what was accepted."""

    def leave(self, error: AvatarError) -> None:
        """Halt, and follow nothing."""

    async def gone(self) -> None:
        """Wait until it is over."""

    def made_room(self) -> None:
        """Note that the consumer took an outcome."""

    def stats(self) -> IngestStats:
        """Return the accounts at this moment."""

    def report(self) -> IngestReport:
        """Return the accounts with all that is not active."""
