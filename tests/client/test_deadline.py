"""Time-outs of one length: they end what is late, spare what has only not been read yet, and cost no timer each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rig.clock import loop_clock

from seedance_avatar.client.deadline import Deadlines


@pytest.mark.asyncio
async def test_what_takes_too_long_is_ended_and_what_does_not_is_left_alone() -> None:
    with loop_clock(100.0) as clock:
        deadlines = Deadlines(5.0)
        began = clock.now()
        with pytest.raises(TimeoutError), deadlines.one():
            await asyncio.sleep(3600.0)
        assert clock.now() - began >= 5.0
        with deadlines.one():
            await asyncio.sleep(0.1)
        deadlines.stop()


@pytest.mark.asyncio
async def test_each_has_its_own_end() -> None:
    with loop_clock(100.0):
        deadlines = Deadlines(5.0)
        ended: list[int] = []

        async def late(number: int) -> None:
            await asyncio.sleep(number)
            try:
                with deadlines.one():
                    await asyncio.sleep(3600.0)
            except TimeoutError:
                ended.append(number)

        async def timely() -> None:
            with deadlines.one():
                await asyncio.sleep(1.0)

        await asyncio.gather(late(2), late(0), late(1), timely())
        assert ended == [0, 1, 2]
        deadlines.stop()


@pytest.mark.asyncio
async def test_after_a_stall_what_has_arrived_meanwhile_is_read_first() -> None:
    with loop_clock() as clock:
        deadlines = Deadlines(5.0)
        answered = asyncio.get_running_loop().create_future()

        async def ask() -> str:
            with deadlines.one():
                return str(await answered)

        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        clock.stall(600.0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        answered.set_result("in time")
        assert await task == "in time"
        deadlines.stop()


@pytest.mark.asyncio
async def test_a_cancellation_by_others_stays_one() -> None:
    deadlines = Deadlines(3600.0)

    async def work() -> None:
        with deadlines.one():
            await asyncio.sleep(3600.0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel("by others")
    with pytest.raises(asyncio.CancelledError, match="by others"):
        await task
    deadlines.stop()


@pytest.mark.asyncio
async def test_a_cancellation_that_comes_with_the_end_wins() -> None:
    with loop_clock(100.0):
        deadlines = Deadlines(1.0)
        task: asyncio.Task[None]

        async def work() -> None:
            with deadlines.one():
                try:
                    await asyncio.sleep(3600.0)
                except asyncio.CancelledError:
                    task.cancel()  # somebody else, in the same moment
                    raise

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task
        deadlines.stop()


@pytest.mark.asyncio
async def test_one_timer_does_for_all() -> None:
    loop: Any = asyncio.get_running_loop()
    if not hasattr(loop, "_scheduled"):
        pytest.skip("the timers of this event loop cannot be counted")
    deadlines = Deadlines(3600.0)
    before = len(loop._scheduled)
    for _ in range(100):
        with deadlines.one():
            pass
    assert len(loop._scheduled) == before + 1
    deadlines.stop()


def test_outside_of_a_task_there_is_nothing_to_end() -> None:
    async def made() -> Deadlines:
        return Deadlines(1.0)

    loop = asyncio.new_event_loop()
    deadlines = loop.run_until_complete(made())
    raised: list[BaseException] = []

    def enter() -> None:
        try:
            with deadlines.one():
                pass
        except RuntimeError as error:
            raised.append(error)
        loop.stop()

    loop.call_soon(enter)
    loop.run_forever()
    loop.close()
    assert "needs a task" in str(raised[0])
