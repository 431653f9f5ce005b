"""What a pacer promises, whatever it is told and whenever."""

from __future__ import annotations

from seedance_avatar.pacing import SUBMITS, Pacer


def test_a_given_burst_leaves_at_once_and_then_the_rate_holds() -> None:
    pacer = Pacer.build(rate=5.0, burst=3, start=SUBMITS)
    left: list[float] = []
    now = 1e6
    while len(left) < 6:
        at = pacer.next_at(now)
        if at <= now:
            pacer.take(now)
            left.append(round(now - 1e6, 6))
        else:
            now = at
    assert left == [0, 0, 0, 0.2, 0.4, 0.6]
