"""What a pipeline needs to know of the items it deals in, so that assets and videos share one pipeline."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from seedance_avatar.client.client import Client, Passage
from seedance_avatar.client.gate import Flow
from seedance_avatar.errors import AvatarError
from seedance_avatar.wire.request import Request
from seedance_avatar.wire.response import Response

if TYPE_CHECKING:
    from seedance_avatar.journal.journal import Journal
    from seedance_avatar.journal.records import Entry

__all__ = ["Adapter"]

S_contra = TypeVar("S_contra", contravariant=True)
A = TypeVar("A")


class Adapter(Protocol[S_contra, A]):
    """What a pipeline deals in: assets or videos. It knows how; the pipeline knows when and what then."""

    kind: str
    """``"assets"`` or ``"videos"``, for events."""
    idempotent: bool
    """True when submitting what is in doubt once more makes no duplicate (a video's own id sees to that)."""

    def label(self, source: S_contra) -> str:
        """Return what names ``source`` in messages, without secrets."""

    def polling_kind(self, source: S_contra) -> str:
        """Return whose completion times it is polled by: ``image``, ``video``, ``audio`` or ``generation``."""

    async def prepare(self, source: S_contra) -> str:
        """Judge ``source``, or raise :class:`AvatarError`; return what it is submitted under.

        For an asset that is its group's id, for a video its ``client_business_id``.
        """

    def identity(self, source: S_contra, target_id: str) -> Hashable:
        """Return what is equal for two sources that are one upload, or None when each stands alone."""

    def content(self, source: S_contra) -> Hashable:
        """Return what is equal, too, for two sources of one identity that may share an upload."""

    def entry(self, journal: Journal, source: S_contra, target_id: str) -> Entry:
        """Return what a journal knows it by."""

    async def submit(self, source: S_contra, target_id: str, *, client: Client, flow: Flow, passage: Passage) -> A:
        """Submit ``source`` and return what the service made of it."""

    def question(self, item_id: str) -> Request:
        """Return the status request for ``item_id``."""

    def read(self, answer: Response, source: S_contra, item_id: str) -> A:
        """Read the answer to :meth:`question` about ``item_id``."""

    def item_id(self, item: A) -> str:
        """Return the id that :meth:`question` takes."""

    def from_record(self, source: S_contra, target_id: str, item_id: str, status: str) -> A:
        """Return the item as last seen, from what a pending job or a journal keeps of it."""

    def failure(self, item: A) -> AvatarError | None:
        """Return why a terminal ``item`` is a failure, or None when it is a success."""

    def for_source(self, item: A, source: Any) -> A:  # noqa: ANN401 - contravariance forbids to name it twice
        """Return ``item`` as it is for ``source``, one of several that share it."""
