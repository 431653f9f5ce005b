"""What waits to go over to the journal's thread, and when it goes: gathered, for a commit costs as much as thirty.

The first change after a quiet time leaves in the very turn of the loop in which it was made. While one commit
follows another, changes are gathered for some times as long as the last commit took, unless they are many already,
or nobody is left who could add one.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from .writer import Op, Writer

__all__ = ["CommitBatcher"]

LAZY: Final = 0.05
"""Seconds after which what nobody waits for goes over."""

FULL: Final = 32
"""Changes that are worth a commit of their own, however short ago the last one was."""

REST: Final = 10
"""How many times as long as a commit took the next ones are gathered: the journal's thread has a tenth of a core."""

LONGEST_REST: Final = 0.008
"""Seconds; an answer of the service takes ten times as long."""


class CommitBatcher:
    """The changes and questions of one journal, on their way to its ``writer``; bound to the running loop."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._ops: list[Op] = []
        self._handle: asyncio.Handle | None = None
        self._due = math.inf
        self._rested_at = 0.0
        writer.settled = self._settled

    def soon(self, op: Op) -> None:
        """Send ``op`` over; somebody waits for it."""
        self._ops.append(op)
        self._flush_by(self._rested_at if len(self._ops) < FULL else 0.0)

    def later(self, op: Op) -> None:
        """Send ``op`` over with the next that somebody waits for, or after a moment."""
        self._ops.append(op)
        self._flush_by(self._loop.time() + LAZY)

    def flush(self) -> None:
        """Send over what there is, now."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._due = None, math.inf
        if self._ops:
            self._rested_at = self._loop.time() + min(REST * self._writer.took, LONGEST_REST)
            ops, self._ops = self._ops, []
            self._writer.put(ops)

    def finish(self) -> None:
        """Send over what there is, and wait for the end of it: for an interpreter that is about to end."""
        self.flush()
        self._writer.finish()

    def _settled(self, answered: int) -> None:
        # Who does nothing but write is back in the turn of the loop in which it was answered, just before this look at
        # what there is. Are all of them, there is nobody left to gather.
        self._loop.call_soon(lambda: self._flush_by(0.0 if len(self._ops) >= answered else math.inf))

    def _flush_by(self, due: float) -> None:
        if due >= self._due:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._due = due
        if due <= self._loop.time():
            self._handle = self._loop.call_soon(self.flush)
        else:
            self._handle = self._loop.call_at(due, self.flush)
