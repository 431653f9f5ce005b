"""``timeout=`` of calls that submit, and a caller that is cancelled: nothing sent, accepted, in doubt: each is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rig.leaks import no_leaks
from rig.rude import Late, RudeServer, Silence, json_answer, raw_answer, until
from rig.world import quick, sources

from seedance_avatar import (
    AvatarSession,
    InvalidInput,
    Limits,
    Retry,
    SessionStateError,
    SubmissionInDoubt,
    Timeouts,
    WaitTimeout,
)
from seedance_avatar.events import CallAbandoned, RetryPlanned
from seedance_avatar.polling import expiry
from seedance_avatar.session import submission

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x58\0\0\x02\x58\x08\x02\0\0\0" + b"\0" * 300
OK = {"success": True, "data": {"asset_id": "pa_1", "group_id": "pg_1", "status": "processing"}, "id": "t_1"}
DRAIN = Timeouts(drain=0.3, request=30)
PATIENT = Retry(attempts=1000, base=0.01, throttle_base=0.01, cap=0.02)

Call = Callable[..., Awaitable[Any]]
CALLS: dict[str, Callable[[AvatarSession], Call]] = {
    "upload": lambda session: lambda **o: session.upload(sources(1)[0], group="pg_1", **o),
    "create_group": lambda session: lambda **o: session.create_group("a name", **o),
    "generate": lambda session: lambda **o: session.generate("She waves.", **o),
}
IDS = {"upload": "pa_1", "create_group": "pg_1", "generate": "t_1"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "GRACE", 0.2)
    assert expiry.GRACE == 2.0


@pytest.mark.asyncio
@pytest.mark.parametrize("call", CALLS)
async def test_with_nothing_sent_the_error_says_so(call: str) -> None:
    seen: list[Any] = []
    async with (
        no_leaks(),
        RudeServer(raw_answer(b"{}", 429)) as server,
        quick(server.url, retry=PATIENT, timeouts=DRAIN, observer=seen.append) as session,
    ):
        with pytest.raises(WaitTimeout, match="nothing was sent") as caught:
            await CALLS[call](session)(timeout=0.2)
        assert not isinstance(caught.value, SubmissionInDoubt)
        (told,) = [event for event in seen if isinstance(event, CallAbandoned)]
        assert told.item_id is None
        assert not isinstance(told.error, SubmissionInDoubt)


@pytest.mark.asyncio
@pytest.mark.parametrize("call", CALLS)
async def test_on_the_wire_it_is_in_doubt_and_the_answer_still_comes_home(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    release = asyncio.Event()
    timeouts = Timeouts(drain=5, request=30)
    async with (
        no_leaks(),
        RudeServer(Late(json_answer(OK), release)) as server,
        quick(server.url, timeouts=timeouts, observer=seen.append) as session,
    ):
        with pytest.raises(SubmissionInDoubt) as caught:
            await CALLS[call](session)(timeout=0.1)
        assert isinstance(caught.value, TimeoutError)
        release.set()
        await until(lambda: any(isinstance(event, CallAbandoned) for event in seen))
    (told,) = [event for event in seen if isinstance(event, CallAbandoned)]
    assert (told.item_id, told.error) == (IDS[call], None)
    assert IDS[call] in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize("call", CALLS)
async def test_never_answered_it_stays_in_doubt(call: str) -> None:
    seen: list[Any] = []
    async with (
        no_leaks(),
        RudeServer(Silence()) as server,
        quick(server.url, timeouts=DRAIN, observer=seen.append) as session,
    ):
        with pytest.raises(SubmissionInDoubt):
            await CALLS[call](session)(timeout=0.1)
        await until(lambda: any(isinstance(event, CallAbandoned) for event in seen))
    (told,) = [event for event in seen if isinstance(event, CallAbandoned)]
    assert isinstance(told.error, SubmissionInDoubt)


async def passes(limit: asyncio.Timeout, server: RudeServer, seen: list[Any], *, answered: bool) -> None:
    """Let ``limit`` pass as soon as the request has arrived, or was ``answered`` and is to be repeated."""
    await until(lambda: any(isinstance(event, RetryPlanned) for event in seen) if answered else server.requests)
    limit.reschedule(asyncio.get_running_loop().time())


@pytest.mark.asyncio
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("act", "word"),
    [
        pytest.param(raw_answer(b"{}", 429, {"Retry-After": "60"}), "nothing was sent", id="braked"),
        pytest.param(Silence(), "in doubt", id="never answered"),
    ],
)
async def test_a_callers_own_timeout_gets_a_note(call: str, act: Any, word: str) -> None:
    seen: list[Any] = []
    async with (
        no_leaks(),
        RudeServer(act) as server,
        quick(server.url, retry=PATIENT, timeouts=DRAIN, observer=seen.append) as session,
    ):
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(None) as limit:
                passing = asyncio.create_task(passes(limit, server, seen, answered=not isinstance(act, Silence)))
                await CALLS[call](session)()
        await passing
        assert word in "".join(getattr(caught.value.__cause__, "__notes__", ()))
        assert word in str([event.error for event in seen if isinstance(event, CallAbandoned)])


@pytest.mark.asyncio
@pytest.mark.parametrize("call", CALLS)
async def test_cancelled_twice_the_second_one_has_the_note(call: str) -> None:
    async with no_leaks(), RudeServer(Silence()) as server, quick(server.url, timeouts=DRAIN) as session:
        task = asyncio.ensure_future(CALLS[call](session)())
        await until(lambda: server.requests)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "in doubt" in "".join(caught.value.__notes__)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    return path


SLOW = Limits(submits_per_second=0.01, submit_burst=1)
FILES = pytest.mark.parametrize(
    ("sent", "word"), [(False, "nothing was sent"), (True, "no harm to upload it again")], ids=["waiting", "sent"]
)


@pytest.mark.asyncio
@FILES
async def test_a_file_that_takes_too_long_is_no_longer_sent_and_that_is_told(
    file: Path, *, sent: bool, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    async with (
        no_leaks(),
        RudeServer(Silence() if sent else json_answer(OK)) as server,
        quick(server.url, limits=SLOW, observer=seen.append) as session,
    ):
        if not sent:
            await session.create_group("it takes the only turn")
        with pytest.raises(WaitTimeout, match="no harm") as caught:
            await session.upload_file(file, timeout=0.2)
        assert caught.value.about == str(file)
        (told,) = [event for event in seen if isinstance(event, CallAbandoned)]
    assert (told.about, told.item_id) == (str(file), None)
    assert word in str(told.error)
    assert isinstance(told.error, SubmissionInDoubt) == (word in caplog.text) == sent


@pytest.mark.asyncio
@FILES
async def test_a_file_whose_caller_leaves_is_no_longer_sent_and_that_is_told(
    file: Path, *, sent: bool, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    patient = Timeouts(drain=600, request=600)  # nothing is waited for as long as that
    async with (
        no_leaks(),
        RudeServer(Silence() if sent else json_answer(OK)) as server,
        quick(server.url, limits=SLOW, timeouts=patient, observer=seen.append) as session,
    ):
        if not sent:
            await session.create_group("it takes the only turn")
        task = asyncio.ensure_future(session.upload_file(file))
        await until(lambda: server.requests if sent else session.stats().waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert word in "".join(caught.value.__notes__)
        (told,) = [event for event in seen if isinstance(event, CallAbandoned)]
        assert word in str(told.error)
        assert (word in caplog.text) == sent
        if sent:
            await until(lambda: not server.open_connections)


@pytest.mark.asyncio
async def test_a_file_that_is_sent_when_the_session_closes_can_be_uploaded_again(file: Path) -> None:
    async with no_leaks(), RudeServer(Silence()) as server:
        async with quick(server.url, timeouts=DRAIN) as session:
            task = asyncio.ensure_future(session.upload_file(file))
            await until(lambda: server.requests)
        with pytest.raises(SessionStateError, match=r"the session was closed.*no harm to upload it again"):
            await task


@pytest.mark.asyncio
@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
@pytest.mark.parametrize("call", [*CALLS, "upload_file"])
async def test_a_timeout_that_is_none_is_refused(call: str, timeout: Any) -> None:  # noqa: ASYNC109 - what is tested
    async with RudeServer(Silence()) as server, quick(server.url) as session:
        with pytest.raises(InvalidInput, match="timeout"):
            if call == "upload_file":
                await session.upload_file("a.png", timeout=timeout)
            else:
                await CALLS[call](session)(timeout=timeout)
        assert not server.requests
