"""What was about to be sent and what came back, kept across crashes."""

from __future__ import annotations

from .journal import Journal, JournalReader

__all__ = ["Journal", "JournalReader"]
