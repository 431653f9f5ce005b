"""The sandbox as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from urllib.parse import urlsplit

import aiohttp
import pytest
from rig.raw import Raw

from seedance_avatar.sandbox import Sandbox
from seedance_avatar.sandbox.server import in_thread

SERVE = "import asyncio; from seedance_avatar.sandbox import *; asyncio.run(serve(Sandbox(keys=('sk-mine',))))"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.asyncio
async def test_it_prints_its_url_and_serves_until_a_signal(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", SERVE),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    async with aiohttp.ClientSession() as session:
        raw = Raw(url, session, "sk-mine")
        status, _, text = await raw.call("GET", "/")
        assert (status, "POST" in text) == (200, True)
        await raw.upload(await raw.group(), "https://cdn.example.com/a.jpg")
        _, _, summary = await raw.call("GET", "/sandbox/ledger")
        assert (summary["uploads"], summary["processing"]) == (1, 1)
    process.send_signal(number)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")


def test_in_a_thread_it_ends_with_its_block_and_a_port_that_is_taken_is_told_to_the_caller() -> None:
    before = set(threading.enumerate())
    with in_thread() as running:
        address = urlsplit(running.url)
        socket.create_connection((address.hostname, address.port)).close()
        with pytest.raises(OSError, match="in use"), in_thread(port=address.port):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port))
    with pytest.raises(ZeroDivisionError), in_thread():
        raise ZeroDivisionError
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.asyncio
async def test_closed_it_ends_even_the_connection_that_it_had_just_accepted(turns: int) -> None:
    async with Sandbox() as sandbox:
        address = urlsplit(sandbox.url)
        with socket.create_connection((address.hostname, address.port)) as caller:
            for _ in range(turns):
                await asyncio.sleep(0)
            await sandbox.aclose()
            await asyncio.sleep(0)  # in which asyncio closes the socket
            caller.settimeout(0)
            with contextlib.suppress(ConnectionResetError):  # it was never accepted
                assert caller.recv(1) == b""
