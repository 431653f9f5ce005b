"""Real ingests against real limits: ``python -m benchmarks.held``, a part of ``python -m benchmarks limits``.

The simulation beside it plays hundreds of gateways; this runs the whole session over sockets against some of them,
told nothing, and beside it what is usually written: gather, a semaphore, and a few tries with backoff.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import attrs

from .gateway import GROUP, PATH, serve, url_of
from .tables import Table, machine, show

__all__ = ["main"]

_TRIES: Final = 5
_WIDTH: Final = 64


@attrs.frozen(kw_only=True)
class _Case:
    """One gateway.

    :ivar stages: ``(from, rate)``, seconds after the first submission.
    :ivar back_at: when a brake ends, or None.
    """

    name: str
    rate: float
    burst: float
    announce: str = ""
    stages: tuple[tuple[float, float], ...] = ()
    back_at: float | None = None

    def permitted(self, start: float, end: float) -> float:
        """Return how many submissions are permitted, bursts aside."""
        edges = [(0.0, self.rate), *self.stages, (end, 0.0)]
        return sum(
            rate * max(0.0, min(end, until) - max(start, at)) for (at, rate), (until, _) in itertools.pairwise(edges)
        )


def _cases(seconds: float) -> list[_Case]:
    middle = seconds / 2
    return [
        *(_Case(name=f"{rate}/s, burst {rate}", rate=rate, burst=rate) for rate in (5, 30, 100, 500)),
        _Case(name="100/s, burst 5", rate=100, burst=5),
        _Case(name="30/s, announced", rate=30, burst=60, announce="limits"),
        _Case(name="100/s, then 30/s", rate=100, burst=100, stages=((middle, 30),)),
        _Case(name="30/s, then 100/s", rate=30, burst=30, stages=((middle, 100),)),
        _Case(
            name="100/s, a brake of 30 s",
            rate=100,
            burst=100,
            stages=((middle - 15, 0), (middle + 15, 100)),
            back_at=middle + 15,
        ),
    ]


async def _endless() -> AsyncIterator[Any]:  # noqa: ASYNC900 - a source as a user writes one
    from seedance_avatar import AssetSource  # noqa: PLC0415 - the other client pays for its own imports only

    number = 0
    while True:
        yield AssetSource.image(url_of(number))
        number += 1


async def _ours(url: str, seconds: float) -> dict[str, Any]:
    """Ingest with default options for so long; return how many were taken and are not active."""
    from seedance_avatar import AvatarSession  # noqa: PLC0415 - as above

    async with (
        AvatarSession("sk-benchmark", base_url=url) as session,
        session.ingest(_endless(), group=GROUP) as stream,
    ):

        async def consume() -> None:
            async for _ in stream.outcomes():
                pass

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(seconds)
        # Left here: what was accepted and is not active yet is pending, its id known; what never left is unsent.
        await stream.aclose()
        await consumer
    return {"lost": stream.report.failed + stream.report.in_doubt, "taken": stream.report.taken}


async def _usual(url: str, seconds: float) -> dict[str, Any]:
    """Do what is usually written, for so long."""
    import aiohttp  # noqa: PLC0415 - as above

    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    gate = asyncio.Semaphore(_WIDTH)
    lost = taken = 0

    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-benchmark"}) as http:

        async def upload(number: int) -> bool:
            body = {"group_id": GROUP, "asset_type": "image", "source_url": url_of(number)}
            for attempt in range(_TRIES):
                async with gate, http.post(url + PATH, json=body) as answer:
                    if answer.status == 200:
                        await answer.read()
                        return True
                pause = 2**attempt * (0.5 + random.random())
                if clock() + pause >= until:
                    return True  # the time is over before the next try: that is no loss
                await asyncio.sleep(pause)
            return False

        async def work() -> None:
            nonlocal lost, taken
            while clock() < until:
                taken += 1
                lost += not await upload(taken)

        # As many under way as one gather of a list this long would have: far more than the semaphore lets out.
        await asyncio.gather(*(work() for _ in range(8 * _WIDTH)))
    return {"lost": lost, "taken": taken}


_CLIENTS: Final[dict[str, Callable[[str, float], Coroutine[Any, Any, dict[str, Any]]]]] = {
    "ingest": _ours,
    "gather + semaphore": _usual,
}


def _run(client: str, case: _Case, seconds: float) -> tuple[str, ...]:
    """Run one client against one gateway; return its row."""
    with serve(
        rate=case.rate, burst=case.burst, stages=[list(stage) for stage in case.stages], announce=case.announce
    ) as gateway:
        command = [sys.executable, "-m", "benchmarks.held", "--client", client, "--url", gateway.url]
        command += ["--seconds", str(seconds)]
        told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603 - ourselves
        tally = gateway.tally()
    start = min(10.0, seconds / 2)
    spans = [(start, seconds)]
    if case.back_at is not None:
        spans = [(start, case.stages[0][0]), (min(case.back_at + 10.0, seconds - 1.0), seconds)]
    elif case.stages:
        spans = [(start, case.stages[0][0]), (min(case.stages[0][0] + 10.0, seconds - 1.0), seconds)]
    permitted = sum(case.permitted(*span) for span in spans)
    passed = sum(at <= when < to for when in tally["passed"] for at, to in spans)
    refused = [when for when in tally["refused"] if when < seconds]
    sent = len(refused) + sum(when < seconds for when in tally["passed"])
    back = ""
    if case.back_at is not None:
        back = f"{_recovery(tally['passed'], case.back_at, case.rate):.1f} s"
    return (
        case.name,
        client,
        f"{passed / permitted:.1%}",
        f"{len(refused) / max(1, sent):.2%}",
        f"{len(refused) / max(1, sent - len(refused)):.2f}",
        f"{told['lost'] / max(1, told['taken']):.1%}",
        back,
    )


def _recovery(passed: Sequence[float], since: float, rate: float) -> float:
    """Return how many seconds after ``since`` the rate was back, for 2 s."""
    for tenth in range(300):
        at = since + tenth / 10
        if sum(at <= when < at + 2.0 for when in passed) >= 0.95 * 2.0 * rate:
            return tenth / 10
    return 30.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.held", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three seconds of one gateway: does it run at all")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each run (default 60)")
    parser.add_argument("--client", choices=_CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.client:
        print(json.dumps(asyncio.run(_CLIENTS[told.client](told.url, told.seconds))))
        return
    cases = _cases(told.seconds)
    if told.quick:
        told.seconds, cases = 3.0, [case for case in cases if case.name == "100/s, burst 5"]
    with ThreadPoolExecutor(len(_CLIENTS)) as pool:  # both at a time, each against a gateway of its own
        rows = [row for case in cases for row in pool.map(lambda client: _run(client, case, told.seconds), _CLIENTS)]  # noqa: B023 - done before the next case
    note = (
        f"{told.seconds:g} s each, over sockets; the share held counts from the tenth second on, and not within ten "
        f"seconds after a change. Lost: given up, failed or in doubt. {machine()}."
    )
    head = ("gateway permits", "client", "held", "429s of requests", "429s for each asset", "lost", "back after")
    command = "python -m benchmarks limits"
    show([Table(title="The limits, found by itself", note=note, command=command, head=head, rows=tuple(rows))])


if __name__ == "__main__":
    main()
