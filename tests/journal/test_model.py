"""Any sequence of moves, reopenings and crashes, against a dictionary that does the same."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rig.journals import entry_of

from seedance_avatar.errors import JournalError
from seedance_avatar.journal.journal import Journal

THINGS = st.integers(0, 5)


@attrs.define
class Fate:
    state: str = "planned"
    attempts: int = 0
    remote_id: str | None = None
    doubted: bool = False


class Journaling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.model: dict[int, Fate] = {}
        self.generation = 0
        self.path = self.directory / "run0.db"
        self.journal = self.runner.run(Journal.open(self.path, durability="process"))

    def teardown(self) -> None:
        self.runner.run(self.journal.aclose())
        self.runner.close()
        shutil.rmtree(self.directory)

    def name(self, thing: int) -> bytes:
        return entry_of(self.journal, thing).fingerprint

    def move(self, action: Callable[[], Awaitable[None]], thing: int, *before: str) -> Fate | None:
        """Do it here; return the fate to be changed in the model when it must have worked, else None."""
        fate = self.model.get(thing)
        allowed = fate is not None and fate.state in before

        async def act() -> None:
            await action()

        try:
            self.runner.run(act())
        except JournalError:
            assert not allowed, f"{fate} was refused"
            return None
        assert allowed, f"{fate} was let through"
        return fate

    @rule(things=st.lists(THINGS, max_size=8))
    def claim(self, things: list[int]) -> None:
        answers = self.runner.run(self.journal.claim([entry_of(self.journal, thing) for thing in things]))
        for thing, answer in zip(things, answers, strict=True):
            fate = self.model.get(thing)
            if fate is None:
                assert answer is None
                self.model[thing] = Fate()
            else:
                assert answer is not None
                assert (answer.state, answer.remote_id) == (fate.state, fate.remote_id)

    @rule(thing=THINGS, resend=st.booleans())
    def sending(self, thing: int, *, resend: bool) -> None:
        before = ("planned", "refused", *(["in_doubt"] if resend else []))
        if fate := self.move(lambda: self.journal.sending(self.name(thing), resend=resend), thing, *before):
            fate.state = "sending"
            fate.attempts += 1

    @rule(thing=THINGS)
    def unsent(self, thing: int) -> None:
        before = ("planned", "sending", "refused", "in_doubt")
        fate = self.move(lambda: self.journal.unsent(self.name(thing)), thing, *before)
        if fate and fate.state == "sending":
            fate.state = "in_doubt" if fate.doubted else "planned"
            fate.attempts -= 1

    @rule(thing=THINGS, other=st.booleans())
    def accepted(self, thing: int, *, other: bool) -> None:
        fate = self.model.get(thing)
        remote_id = f"pa_{thing}{'b' if other else ''}"
        same = fate is None or fate.remote_id in {None, remote_id}
        before = ("sending", "in_doubt", "accepted") if same else ()
        if fate := self.move(lambda: self.journal.accepted(self.name(thing), remote_id), thing, *before):
            fate.state, fate.remote_id = "accepted", remote_id

    @rule(thing=THINGS)
    def refused(self, thing: int) -> None:
        if fate := self.move(
            lambda: self.journal.refused(self.name(thing), "no"), thing, "planned", "sending", "refused"
        ):
            fate.state = "refused"

    @rule(thing=THINGS)
    def in_doubt(self, thing: int) -> None:
        if fate := self.move(lambda: self.journal.in_doubt(self.name(thing), "lost"), thing, "sending", "in_doubt"):
            fate.state, fate.doubted = "in_doubt", True

    @precondition(lambda self: any(fate.state == "accepted" for fate in self.model.values()))
    @rule(failed=st.booleans(), data=st.data())
    def ended(self, *, failed: bool, data: st.DataObject) -> None:
        thing = data.draw(st.sampled_from([it for it, fate in self.model.items() if fate.state == "accepted"]))

        async def end() -> None:
            self.journal.ended(self.name(thing), "failed" if failed else "active", "why" if failed else None)

        self.runner.run(end())
        self.model[thing].state = "failed" if failed else "active"

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.journal.aclose())
        self.journal = self.runner.run(Journal.open(self.path, durability="process"))
        self.doubt_what_was_sending()

    @rule()
    def crash(self) -> None:
        # What the files hold at this moment is what a process that starts after a kill finds.
        self.runner.run(self.journal.summary())
        self.generation += 1
        there = self.directory / f"run{self.generation}.db"
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(f"{self.path}{suffix}", f"{there}{suffix}")
        self.runner.run(self.journal.aclose())
        self.path = there
        self.journal = self.runner.run(Journal.open(self.path, durability="process"))
        self.doubt_what_was_sending()

    def doubt_what_was_sending(self) -> None:
        sending = [fate for fate in self.model.values() if fate.state == "sending"]
        assert self.journal.recovered == len(sending)
        for fate in sending:
            fate.state, fate.doubted = "in_doubt", True

    @invariant()
    def journal_and_model_are_equal(self) -> None:
        async def read() -> dict[str, tuple[Any, ...]]:
            return {
                it.shown: (it.state, it.attempts, it.remote_id, it.doubted_at is not None)
                async for it in self.journal.records()
            }

        expected = {
            f"https://cdn.example.com/{thing}.jpg": (fate.state, fate.attempts, fate.remote_id, fate.doubted)
            for thing, fate in self.model.items()
        }
        assert self.runner.run(read()) == expected


TestJournaling = Journaling.TestCase
TestJournaling.settings = settings(max_examples=25, stateful_step_count=30)
