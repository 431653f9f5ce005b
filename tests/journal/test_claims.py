"""The register of claims: at most one deals with an item, who waits is told in order, and nobody is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from seedance_avatar.errors import SessionStateError
from seedance_avatar.journal.claims import Claimant, Claims
from seedance_avatar.outcomes import Unsent

UNSENT: Unsent[Any, Any] = Unsent(source=None, error=SessionStateError("stopped"))
ITEMS = [bytes([number]) * 16 for number in range(3)]


@attrs.define(eq=False)
class Call:
    """A claimant that notes what it was told, and claims again when the one before it is done, where it shall."""

    claims: Claims
    persistent: bool = True
    item_id: str = ""
    target_id: str = ""
    on_wire: bool = False
    resend: bool = False
    item: bytes = b""
    holder: Claimant | None = None
    accepted: int = 0
    ended: list[Claimant] = attrs.field(factory=list)

    def want(self, item: bytes) -> None:
        self.item, self.holder = item, self.claims.take(item, self)

    def holder_accepted(self) -> None:
        self.accepted += 1

    def holder_done(self, holder: Claimant, outcome: Any) -> None:
        assert outcome is UNSENT
        assert holder is self.holder
        self.holder = None
        self.ended.append(holder)
        if self.persistent:
            self.want(self.item)
        else:
            self.item = b""


def calls(claims: Claims, count: int, *, persistent: bool = True) -> list[Call]:
    made = [Call(claims, persistent) for _ in range(count)]
    for call in made:
        call.want(ITEMS[0])
    return made


def test_the_first_deals_with_it_and_the_others_wait_for_that_one() -> None:
    first, second, third = calls(Claims(), 3)
    assert first.holder is None
    assert second.holder is third.holder is first


def test_the_next_in_line_takes_over_and_the_rest_wait_for_it() -> None:
    claims = Claims()
    first, second, third = calls(claims, 3)
    claims.release(ITEMS[0], first, UNSENT)
    assert second.holder is None
    assert third.holder is second
    assert third.ended == [first]
    claims.release(ITEMS[0], second, UNSENT)
    assert third.holder is None


def test_acceptance_is_told_to_those_who_wait_and_changes_nothing_else() -> None:
    claims = Claims()
    first, second, third = calls(claims, 3)
    claims.accepted(ITEMS[0])
    claims.accepted(ITEMS[1])  # nobody waits for that one
    assert [call.accepted for call in (first, second, third)] == [0, 1, 1]
    assert second.holder is third.holder is first


def test_who_stops_waiting_is_told_no_more_and_holds_nobody_up() -> None:
    claims = Claims()
    first, second, third = calls(claims, 3)
    claims.release(ITEMS[0], second, UNSENT)
    claims.release(ITEMS[0], second, UNSENT)  # a second time changes nothing
    claims.release(ITEMS[0], first, UNSENT)
    assert second.ended == []
    assert third.holder is None


def test_once_all_are_done_nothing_is_kept() -> None:
    claims = Claims()
    first, second, _ = calls(claims, 3, persistent=False)
    claims.release(ITEMS[0], second, UNSENT)
    claims.release(ITEMS[0], first, UNSENT)
    assert not claims._holders
    assert not claims._waiting


@given(
    st.lists(
        st.tuples(st.sampled_from(["want", "release"]), st.integers(0, 5), st.integers(0, len(ITEMS) - 1)), max_size=60
    )
)
def test_each_item_has_one_holder_as_long_as_anybody_wants_it(steps: Sequence[tuple[str, int, int]]) -> None:
    claims = Claims()
    made = [Call(claims) for _ in range(6)]
    for what, who, item in steps:
        call = made[who]
        if what == "want" and not call.item:
            call.want(ITEMS[item])
        elif what == "release" and call.item:
            wanted, call.item, call.holder = call.item, b"", None
            claims.release(wanted, call, UNSENT)
        for name in ITEMS:
            wanting = [call for call in made if call.item == name]
            holders = [call for call in wanting if call.holder is None]
            assert len(holders) == bool(wanting)
            assert all(call.holder is holders[0] for call in wanting if call not in holders)
