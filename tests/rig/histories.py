"""Journals of runs that never were: a few hundred assets with every end there is, on a clock of their own."""

from __future__ import annotations

import random
from pathlib import Path

from seedance_avatar import ContentRefused, SubmissionInDoubt
from seedance_avatar.journal.journal import Journal
from seedance_avatar.journal.records import Kind

# What somebody may put into a name to break the page that shows it; the page's tests look for its traces.
HOSTILE = "</title><script>document.title='HACKED'</script> javascript:alert(1) \u202egpj.exe \x1b[31mred"
BEGAN = 1_790_000_000.0


class Past:
    """A clock that is set, and the journal that is written by it."""

    def __init__(self, path: Path, *, seed: int = 0) -> None:
        self.path = path
        self.now = BEGAN
        self.draw = random.Random(seed)
        self.taken = 0

    async def run(self, count: int, *, group: str = "hero", fail: str = "image width is less than 300 px") -> None:
        """Let a run of ``count`` more sources pass: of each hundred one is in doubt, two refused, two fail."""
        async with await Journal.open(self.path, durability="process", clock=lambda: self.now) as journal:
            named = journal.entry(kind="group", key=group, shown=group)
            if (await journal.claim([named]))[0] is None:
                await journal.sending(named.fingerprint)
                await journal.accepted(named.fingerprint, "pg_1")
            ends: list[tuple[float, bytes, bool]] = []
            for number in range(self.taken, self.taken + count):
                kind: Kind = ("image", "image", "video", "audio")[number % 4]
                entry = journal.entry(
                    kind=kind,
                    group_id="pg_1",
                    url=f"https://cdn.example.com/{number}.jpg?sig=CANARY",
                    key=f"<img src=x onerror=alert({number})>" if number % 100 < 3 else None,
                )
                await journal.claim([entry])
                self.now += 0.05
                await journal.sending(entry.fingerprint)
                if number % 100 == 1:
                    error = SubmissionInDoubt("the connection was lost after sending", request_id="<b>id</b>")
                    await journal.in_doubt(entry.fingerprint, error)
                elif number % 100 in {2, 3}:
                    refusal = ContentRefused("may contain real person", status=422, code="content_policy_violation")
                    await journal.refused(entry.fingerprint, refusal)
                else:
                    await journal.accepted(entry.fingerprint, f"pa_{number}")
                    ends.append((self.now + self.draw.uniform(5, 20), entry.fingerprint, number % 100 not in {4, 5}))
                if number % 20 == 0:
                    journal.note({"requests": number, "throttled": number // 50, "submit_limit": 20.0})
            self.taken += count
            for at, fingerprint, well in sorted(ends):
                self.now = at
                journal.ended(fingerprint, "active" if well else "failed", None if well else fail)
