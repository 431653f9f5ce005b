from __future__ import annotations

import aiohttp
import pytest
from aioresponses import aioresponses


@pytest.mark.asyncio
async def test_aioresponses_answers_on_this_aiohttp() -> None:
    url = "https://toapis.com/v1/thing"
    with aioresponses() as service:
        service.post(url, status=201, payload={"success": True}, headers={"X-Oneapi-Request-Id": "r-1"})
        async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as response:
            assert (response.status, await response.json()) == (201, {"success": True})
            assert response.headers["x-oneapi-request-id"] == "r-1"
        service.assert_called_once_with(url, method="POST", data=b"{}")
