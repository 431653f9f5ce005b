"""The same verdicts when a user's test puts aioresponses in the place of the network."""

from __future__ import annotations

import aiohttp
import pytest
from aioresponses import aioresponses
from rig.trips import KEY, get, opened, post
from yarl import URL

from seedance_avatar.client.transport import ResponseLost
from seedance_avatar.errors import ConnectionFailed

BASE = "https://gateway.example"


@pytest.mark.asyncio
async def test_a_mocked_answer_is_read_and_the_request_can_be_inspected() -> None:
    with aioresponses() as mocked:
        mocked.post(f"{BASE}/v1/things", payload={"a": 1}, headers={"X-Oneapi-Request-Id": "r"})
        mocked.get(f"{BASE}/v1/thing", status=500, body="oh no")
        async with opened(BASE) as transport:
            answer = await transport.send(post(b'{"b": 2}'))
            assert (answer.status, answer.body, answer.request_id) == (200, b'{"a": 1}', "r")
            assert (await transport.send(get())).status == 500
        (call,) = mocked.requests["POST", URL(f"{BASE}/v1/things")]
    assert call.kwargs["headers"]["Authorization"] == f"Bearer {KEY}"
    assert call.kwargs["data"] == b'{"b": 2}'
    assert call.kwargs["allow_redirects"] is False


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("exception", "verdict"),
    [
        (aiohttp.ServerDisconnectedError(), ResponseLost),
        (aiohttp.ClientOSError(104, "Connection reset by peer"), ResponseLost),
        (aiohttp.ClientPayloadError(), ResponseLost),
        (TimeoutError(), ResponseLost),
        (aiohttp.ConnectionTimeoutError(), ConnectionFailed),
        (ValueError("anything else"), ResponseLost),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_a_mocked_exception_gets_the_verdict_of_its_type(exception: Exception, verdict: type[Exception]) -> None:
    with aioresponses() as mocked:
        mocked.post(f"{BASE}/v1/things", exception=exception)
        async with opened(BASE) as transport:
            with pytest.raises(verdict):
                await transport.send(post())
