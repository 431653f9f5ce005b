"""The tasks of a session: none is left behind, and waiting for one survives a cancellation."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from seedance_avatar.client.tasks import TaskSet, wait_through_cancel


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_closing_cancels_what_runs_and_what_that_starts() -> None:
    tasks = TaskSet()
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("child")

    async def parent() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            tasks.spawn(child(), name="child")
            ended.append("parent")

    tasks.spawn(parent(), name="parent")
    await turns()
    await tasks.aclose()
    assert ended[0] == "parent"
    assert len(tasks) == 0


@pytest.mark.asyncio
async def test_a_cancelled_close_has_asked_every_task_to_end() -> None:
    tasks = TaskSet()
    cancelled: list[int] = []
    release = asyncio.Event()

    async def slow(number: int) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(number)
            await release.wait()
            raise

    for number in range(3):
        tasks.spawn(slow(number), name="slow")
    await turns()
    closing = asyncio.create_task(tasks.aclose())
    await turns()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert sorted(cancelled) == [0, 1, 2]
    release.set()
    await tasks.gone(5)
    assert len(tasks) == 0


@pytest.mark.asyncio
async def test_waiting_until_all_are_gone_is_bounded_and_can_be_cancelled() -> None:
    tasks = TaskSet()
    task = tasks.spawn(asyncio.sleep(60), name="long")
    await tasks.gone(0)
    waiting = asyncio.create_task(tasks.gone(60))
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not task.done()
    await tasks.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("second_cancels", [True, False])
async def test_a_first_cancellation_is_raised_once_the_task_is_over(second_cancels: bool) -> None:  # noqa: FBT001 - a parameter
    release = asyncio.Event()
    task = asyncio.create_task(release.wait())
    waiting = asyncio.create_task(wait_through_cancel(task, second_cancels=second_cancels))
    await turns()
    waiting.cancel()
    await turns()
    assert not waiting.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert task.result() is True


@pytest.mark.asyncio
@pytest.mark.parametrize("second_cancels", [True, False])
async def test_a_second_cancellation_cancels_the_task_only_where_it_may(second_cancels: bool) -> None:  # noqa: FBT001 - a parameter
    release = asyncio.Event()
    task = asyncio.create_task(release.wait())
    waiting = asyncio.create_task(wait_through_cancel(task, second_cancels=second_cancels))
    for _ in range(2):
        await turns()
        waiting.cancel()
    await turns()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert task.cancelled() is second_cancels


@pytest.mark.asyncio
async def test_a_cancelled_scope_of_anyio_waits_too() -> None:
    release = asyncio.Event()
    task = asyncio.create_task(release.wait())
    with anyio.CancelScope() as scope:
        scope.cancel()
        asyncio.get_running_loop().call_later(0.01, release.set)
        await wait_through_cancel(task)
    assert task.result() is True
