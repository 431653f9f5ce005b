"""The gateways that a pacer shall hold its own against, those it was tuned on and those kept aside."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import attrs

from seedance_avatar.limits.pacer import SUBMITS, Pacer

from .gateways import Both, Bucket, FixedWindow, Gateway, Shared, SlidingWindow, Staged
from .simulate import Net, Run, simulate

__all__ = ["Scenario", "kept_aside", "play", "tuned"]


@attrs.frozen(kw_only=True)
class Scenario:
    """One gateway, the line to it, and where to look.

    :ivar kind: what it is an example of; a row of the table.
    :ivar gateway: builds it, fresh, for one run.
    :ivar length: simulated seconds.
    :ivar announce: what its answers announce: ``""``, ``"retry"``, ``"limits"`` or ``"limits retry"``.
    :ivar spans: from when to when the share held is measured: from the tenth second on, and not within ten
        seconds after a change.
    :ivar back_at: when a brake ends or the limit is raised, or None: from then on it is measured when the full rate
        is reached.
    """

    kind: str
    name: str
    gateway: Callable[[random.Random], Gateway]
    length: float = 120.0
    net: Net = attrs.field(factory=Net)
    announce: str = ""
    spans: tuple[tuple[float, float], ...] = ((10.0, 120.0),)
    back_at: float | None = None


def play(scenario: Scenario, seed: int) -> tuple[Run, float]:
    """Run ``scenario`` with default options; return the run and the share of what was permitted that it held."""
    rng = random.Random(f"{scenario.name} {seed}")
    pacer = Pacer.build(rate=None, burst=None, start=SUBMITS, rng=rng)
    run = simulate(
        pacer, scenario.gateway(rng), length=scenario.length, net=scenario.net, rng=rng, announce=scenario.announce
    )
    permitted = sum(run.gateway.permitted(*span) for span in scenario.spans)
    held = sum(run.held(*span) * run.gateway.permitted(*span) for span in scenario.spans) / permitted
    return run, held


def _steady(rate: float, burst: float, latency: float, announce: str, length: float) -> Scenario:
    return Scenario(
        kind=f"bucket {rate:g}/s{', ' + announce if announce else ''}",
        name=f"{rate:g}/s burst {burst:g} latency {latency:g} {announce}",
        gateway=lambda _: Bucket(rate, burst),
        length=length,
        net=Net(latency=latency),
        announce=announce,
        spans=((10.0, length),),
    )


def tuned() -> Iterator[Scenario]:
    """Return the scenarios that the constants of the law were chosen on."""
    for announce in ("", "retry", "limits retry"):
        for rate in (5.0, 30.0, 100.0, 500.0):
            for burst in sorted({5.0, 50.0, rate, 2 * rate}):
                for latency in (0.005, 0.05, 0.2):
                    if rate * latency <= 50:
                        length = 60.0 if rate > 100 else 120.0
                        yield _steady(rate, burst, latency, announce, length)
    yield from _late()
    yield from _windows()
    yield from _changes()
    yield from _raised()
    yield from _brakes()
    yield from _others()


def _late() -> Iterator[Scenario]:
    machines = {"some": Net(latency=0.005, timer=0.01), "busy": Net(timer=0.01, stall=0.1), "crowded": Net(timer=0.06)}
    for rate in (5.0, 30.0, 100.0, 500.0):
        for burst in sorted({5.0, max(5.0, 0.1 * rate), rate}):
            for machine, net in machines.items():
                if burst < 2.0 * rate * net.timer:
                    continue  # no client could: the bucket overflows while its event loop sleeps
                yield Scenario(
                    kind=f"late event loop, {machine}",
                    name=f"{rate:g}/s burst {burst:g}, late: {machine}",
                    gateway=lambda _, rate=rate, burst=burst: Bucket(rate, burst),  # type: ignore[misc] # a lambda's defaults
                    length=60.0 if rate > 100 else 120.0,
                    net=net,
                    spans=((10.0, 60.0 if rate > 100 else 120.0),),
                )


def _windows() -> Iterator[Scenario]:
    gateways: list[tuple[str, Callable[[random.Random], Gateway]]] = [
        ("any 10 s: 50, any minute: 300", lambda _: Both(SlidingWindow(50, 10.0), SlidingWindow(300, 60.0))),
        ("any 10 s: 300", lambda _: SlidingWindow(300, 10.0)),
        ("each second: 30", lambda _: FixedWindow(30, 1.0, 0.3)),
        ("each 10 s: 50", lambda _: FixedWindow(50, 10.0, 4.0)),
        ("each minute: 1800", lambda _: FixedWindow(1800, 60.0, 20.0)),
    ]
    for name, gateway in gateways:
        for announce in ("", "limits retry"):
            yield Scenario(
                kind=f"window{', ' + announce if announce else ''}",
                name=f"{name} {announce}",
                gateway=gateway,
                length=240.0,
                announce=announce,
                spans=((60.0, 240.0),),
            )


def _changes() -> Iterator[Scenario]:
    for before, after in ((100.0, 30.0), (30.0, 100.0), (500.0, 100.0), (5.0, 30.0), (30.0, 5.0), (100.0, 300.0)):
        for announce in ("", "limits retry"):
            yield Scenario(
                kind=f"limit {'raised' if after > before else 'lowered'}{', ' + announce if announce else ''}",
                name=f"{before:g}/s, then {after:g}/s {announce}",
                gateway=lambda _, before=before, after=after: Staged(  # type: ignore[misc] # a lambda's defaults
                    [(0.0, before), (60.0, after)], Bucket(before, before)
                ),
                announce=announce,
                spans=((10.0, 60.0), (70.0, 120.0)),
            )


def _raised() -> Iterator[Scenario]:
    for before, after, at in ((5.0, 30.0, 300.0), (30.0, 100.0, 120.0), (100.0, 300.0, 120.0)):
        yield Scenario(
            kind=f"raised to {after:g}/s in a long run",
            name=f"{before:g}/s, then {after:g}/s after {at:g} s",
            gateway=lambda _, before=before, after=after, at=at: Staged(  # type: ignore[misc] # a lambda's defaults
                [(0.0, before), (at, after)], Bucket(before, before)
            ),
            length=at + 120.0,
            spans=((10.0, at), (at + 60.0, at + 120.0)),
            back_at=at,
        )


def _brakes() -> Iterator[Scenario]:
    for rate in (5.0, 30.0, 100.0, 500.0):
        for announce in ("", "retry"):
            yield Scenario(
                kind=f"brake of 30 s{', ' + announce if announce else ''}",
                name=f"{rate:g}/s {announce}",
                gateway=lambda _, rate=rate: Staged(  # type: ignore[misc] # a lambda's defaults
                    [(0.0, rate), (40.0, 0.0), (70.0, rate)], Bucket(rate, rate)
                ),
                announce=announce,
                spans=((10.0, 40.0), (80.0, 120.0)),
                back_at=70.0,
            )


def _others() -> Iterator[Scenario]:
    for rate, other in ((30.0, 15.0), (100.0, 50.0), (100.0, 20.0)):
        yield Scenario(
            kind="another client comes and goes",
            name=f"{rate:g}/s, another takes {other:g}/s from 40 to 80",
            gateway=lambda rng, rate=rate, other=other: Shared(  # type: ignore[misc] # a lambda's defaults
                Bucket(rate, rate), [(40.0, 80.0, other, True)], rng, 200.0
            ),
            length=160.0,
            spans=((10.0, 40.0), (50.0, 80.0), (90.0, 160.0)),
        )
    for load in (5.0, 15.0):
        yield Scenario(
            kind="30/s shared by all customers",
            name=f"the others draw {load:g}/s at random",
            gateway=lambda rng, load=load: Shared(  # type: ignore[misc] # a lambda's defaults
                Bucket(30.0, 30.0), [(0.0, 200.0, load, False)], rng, 200.0
            ),
        )


def kept_aside(seed: int, count: int) -> Iterator[Scenario]:
    """Return scenarios that nothing was tuned on: rates, bursts, lines and changes drawn at random."""
    rng, machines = random.Random(seed), random.Random(seed)
    for _ in range(count):
        rate = round(10 ** rng.uniform(0.7, 2.7), 1)
        burst = float(max(3, round(rate * 10 ** rng.uniform(-0.7, 0.7))))
        latency = round(min(10 ** rng.uniform(-2.3, -0.3), 40.0 / rate), 3)
        announce = rng.choice(("", "", "retry", "limits retry"))
        late = machines.random() < 0.5
        drawn = _steady(rate, burst, latency, announce, 120.0)
        yield attrs.evolve(
            drawn,
            kind=f"kept aside{', late loop' if late else ''}{', ' + announce if announce else ''}",
            net=attrs.evolve(drawn.net, timer=0.01, stall=0.1) if late else drawn.net,
        )
