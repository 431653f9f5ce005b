"""What was about to be sent and what came back, kept across crashes."""

from __future__ import annotations

from .journal import Change, Durability, Entry, Journal, Kind, Record, Run, Sample, State, Summary
from .reader import JournalReader

__all__ = [
    "Change",
    "Durability",
    "Entry",
    "Journal",
    "JournalReader",
    "Kind",
    "Record",
    "Run",
    "Sample",
    "State",
    "Summary",
]
