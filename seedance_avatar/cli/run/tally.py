"""Counts the outcomes of a run, groups failures by reason, and gives the exit code."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import attrs

from seedance_avatar import (
    Active,
    ApiError,
    AssetFailed,
    AssetSource,
    AuthError,
    AvatarError,
    Failed,
    InDoubt,
    Outcome,
    Pending,
    QuotaExhausted,
    Unsent,
)
from seedance_avatar.cli.exits import Exit
from seedance_avatar.cli.manifest.manifest import ManifestSource
from seedance_avatar.text import redact_url, safe_text

__all__ = ["OUTCOMES", "Reason", "Reasons", "Tally", "outcome_name", "reason_of"]

OUTCOMES: Final = {Active: "active", Failed: "failed", Pending: "pending", InDoubt: "in_doubt", Unsent: "unsent"}

_REQUEST_ID: Final = re.compile(r" ?\(request id: [^)]*\)", re.IGNORECASE)
_KINDS: Final = 200
"""Different reasons that are counted apart; all others are counted together, which bounds the memory."""
_NAMED: Final = 3
"""Sources named for each reason."""


@attrs.define(eq=False)
class Reason:
    """One reason of failure: how many sources have it, and the first few of them."""

    text: str
    outcome: str
    count: int = 0
    named: list[str] = attrs.field(factory=list)


@attrs.define(eq=False)
class Reasons:
    """Counts failures by their reason, in bounded memory."""

    _found: dict[tuple[str, str], Reason] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, outcome: str, text: str, label: str) -> None:
        """Count one ``outcome`` with the reason ``text``, of the source that ``label`` names."""
        if (outcome, text) not in self._found and len(self._found) >= _KINDS:
            text = "other reasons"
        reason = self._found.setdefault((outcome, text), Reason(text, outcome))
        reason.count += 1
        if len(reason.named) < _NAMED:
            reason.named.append(label)

    def top(self, count: int) -> list[Reason]:
        """Return the most frequent reasons: those of failures first, most frequent first."""
        failures = {"failed", "refused"}
        return sorted(self._found.values(), key=lambda it: (it.outcome not in failures, -it.count))[:count]


def outcome_name(outcome: Outcome) -> str:
    """Return ``active``, ``failed``, ``pending``, ``in_doubt`` or ``unsent``."""
    return OUTCOMES[type(outcome)]


def reason_of(error: AvatarError) -> str:
    """Return the reason of ``error`` without ids, so that equal reasons are equal texts."""
    match error:
        case AssetFailed(asset=asset):
            return asset.reason or "the service gave no reason"
        case ApiError(status=status, code=code, message=message):
            return _REQUEST_ID.sub("", f"HTTP {status} {code}".rstrip() + f": {message}")
        case _:
            return _REQUEST_ID.sub("", error.describe())


def _brief(source: AssetSource) -> str:
    """Return a short name of ``source``: its line, and its key or else its URL."""
    name = redact_url(source.source_url) if source.key is None else safe_text(source.key, 80)
    return f"line {source.line}, {name}" if isinstance(source, ManifestSource) else name


@attrs.define(eq=False)
class Tally:
    """Counts outcomes as they come; its memory does not grow with them.

    :ivar counts: the outcomes by name; ``earlier`` are those that failed or were refused in an earlier run, which are
        neither ``failed`` nor a reason for an exit code.
    :ivar rejected: rows of the manifest that never became a source.
    :ivar unread: rows of the manifest that were not read before the run ended.
    :ivar refused: the first error about the API key or the quota, or None.
    :ivar last_error: the last error, as one line that names its source, or an empty string.
    """

    counts: Counter[str] = attrs.field(factory=Counter)
    rejected: int = 0
    unread: int = 0
    refused: AvatarError | None = None
    last_error: str = ""
    reasons: Reasons = attrs.field(factory=Reasons)

    def add(self, outcome: Outcome) -> None:
        """Count ``outcome``."""
        earlier = isinstance(outcome, Failed) and outcome.earlier
        name = "earlier" if earlier else outcome_name(outcome)
        self.counts[name] += 1
        if isinstance(outcome, Active):
            return
        error = outcome.error
        if not earlier and self.refused is None and isinstance(error, AuthError | QuotaExhausted):
            self.refused = error
        text = safe_text(reason_of(error), 160)
        if not earlier:
            self.last_error = f"{_brief(outcome.source)}: {text}"
        self.reasons.add(name, text, outcome.source.label)

    @property
    def total(self) -> int:
        """How many outcomes were counted."""
        return self.counts.total()

    @property
    def unfinished(self) -> int:
        """How many may still become active: in doubt, pending, not sent or not even read."""
        return self.counts["in_doubt"] + self.counts["pending"] + self.counts["unsent"] + self.unread

    @property
    def exit(self) -> Exit:
        """The exit code that these outcomes give: 4 before 3 before 2 before 0."""
        if self.refused is not None:
            return Exit.REFUSED
        if self.unfinished:
            return Exit.UNFINISHED
        if self.counts["failed"] or self.rejected:
            return Exit.FAILED
        return Exit.DONE
