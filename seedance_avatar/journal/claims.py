"""The one register of who in this process deals with which item of a journal, bulk runs and single calls alike.

At most one deals with an item at a time; who comes later waits until that one is done. It is not in the file, since it
ends with the process; two processes never have one journal open.
"""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from seedance_avatar.outcomes import AnyOutcome


class Claimant(Protocol):
    """What deals with an item, or waits for another that does."""

    item_id: Any
    """The service's id of the item, empty until it is accepted."""
    target_id: str
    """What the item is submitted under: a group's id, or a ``client_business_id``."""
    on_wire: bool
    """True from before the first byte of its submission until the answer is clear."""

    resend: bool
    """True when an earlier attempt is in doubt, and the item is as long as this one has not sent it."""

    def holder_accepted(self) -> None:
        """Note that the one it waits for was accepted: the journal holds the id of the item."""

    def holder_done(self, holder: Claimant, outcome: AnyOutcome) -> None:
        """Wait no longer: ``holder`` came to ``outcome``, and whoever is told first may claim the item."""


@attrs.define(eq=False, repr=False)
class Claims:
    """Who deals with what of one journal, by fingerprint."""

    _holders: dict[bytes, Claimant] = attrs.field(factory=dict)
    _waiting: dict[bytes, list[Claimant]] = attrs.field(factory=dict)

    def take(self, fingerprint: bytes, claimant: Claimant) -> Claimant | None:
        """Return None when ``claimant`` deals with the item from here on; else who does, for whom it waits then.

        Each call needs one :meth:`release`, however it went on.
        """
        holder = self._holders.setdefault(fingerprint, claimant)
        if holder is claimant:
            return None
        self._waiting.setdefault(fingerprint, []).append(claimant)
        return holder

    def accepted(self, fingerprint: bytes) -> None:
        """Tell those who wait that the journal holds the id of the item."""
        for waiting in list(self._waiting.get(fingerprint, ())):
            waiting.holder_accepted()

    def release(self, fingerprint: bytes, claimant: Claimant, outcome: AnyOutcome) -> None:
        """Let ``claimant`` be done: those who wait for it are told ``outcome``, in the order in which they came.

        One that only waits is forgotten; one that does neither changes nothing.
        """
        if self._holders.get(fingerprint) is claimant:
            del self._holders[fingerprint]
            for waiting in self._waiting.pop(fingerprint, ()):
                waiting.holder_done(claimant, outcome)
        elif claimant in (others := self._waiting.get(fingerprint, [])):
            others.remove(claimant)
            if not others:
                del self._waiting[fingerprint]
