"""A gateway that costs next to nothing: raw asyncio, in a process of its own, always the same short answers.

It speaks as much HTTP as the clients of the benchmarks do. ``GET /bench`` tells what it has cost and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.request import urlopen

import attrs

from .limits.gateways import Bucket, Gateway, Staged

__all__ = ["GROUP", "PATH", "Served", "serve", "url_of"]

PATH: Final = "/v1/videos/doubao-seedance-2-0/private-avatar/assets"
GROUP: Final = "pg_01M8221DPP7Q0PY23701DX3TCN"

_HEAD: Final = (
    "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 16:00:00 GMT\r\nContent-Type: application/json\r\n"
    "X-Oneapi-Request-Id: 202611221600001234567890\r\n"
)
_REFUSED: Final = '{"success":false,"message":"too many requests","code":"rate_limit_exceeded"}'
_OPENING: Final = '{"success":true,"message":"","data":{"asset_id":"'


def url_of(number: int) -> str:
    """Return the URL of a source, different for each number, as long as such URLs are."""
    return f"https://cdn.example.com/brand-avatar/2026/{number:09d}/front.jpg"


def _asset(asset_id: str, status: str) -> bytes:
    body = (
        f'{_OPENING}{asset_id}","asset_url":"asset://{asset_id}","group_id":"{GROUP}","asset_type":"image",'
        f'"source_url":"{url_of(0)}","status":"{status}","name":""}}}}'
    )
    return f"{_HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@attrs.define(eq=False)
class _Service:
    """What is behind every connection: ids, counts, and a limit for submissions where one was asked for."""

    limit: Gateway | None
    announce: str
    latency: float
    rng: random.Random = attrs.field(factory=lambda: random.Random(1))
    began: float | None = None
    submitted: int = 0
    asked: int = 0
    passed: list[float] = attrs.field(factory=list)
    refused: list[float] = attrs.field(factory=list)

    def submit(self) -> bytes:
        self.submitted += 1
        if self.limit is None:
            return _asset(f"pa_{self.submitted:026d}", "processing")
        clock = time.monotonic()
        if self.began is None:
            self.began = clock
        now = clock - self.began
        if self.limit.admit(now):
            self.passed.append(now)
            answer = _asset(f"pa_{self.submitted:026d}", "processing")
        else:
            self.refused.append(now)
            answer = f"{_HEAD}Content-Length: {len(_REFUSED)}\r\n\r\n{_REFUSED}".replace(
                "200 OK", "429 Too Many Requests", 1
            ).encode()
        return answer.replace(b"\r\n", b"\r\n" + self._announced(now), 1) if self.announce else answer

    def _announced(self, now: float) -> bytes:
        if self.limit is None:
            return b""
        hints = self.limit.hints(now)
        told = {"X-RateLimit-Limit": hints.limit, "X-RateLimit-Remaining": hints.remaining}
        if hints.retry_after is not None:
            told["Retry-After"] = math.ceil(hints.retry_after)
        if hints.reset is not None:
            told["X-RateLimit-Reset"] = math.ceil(hints.reset)
        return "".join(f"{name}: {value}\r\n" for name, value in told.items() if value is not None).encode()

    def tally(self) -> bytes:
        body = json.dumps(
            {
                "cpu": time.process_time(),
                "submitted": self.submitted,
                "asked": self.asked,
                "passed": self.passed,
                "refused": self.refused,
            }
        )
        return f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class _Connection(asyncio.Protocol):
    def __init__(self, service: _Service) -> None:
        self._service = service
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        service = self._service
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            if buffer.startswith(b"POST"):
                head = buffer[:end].lower()
                at = head.find(b"content-length:")
                whole = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
                if len(buffer) < whole:
                    break
                answer = service.submit()
            elif buffer.startswith(b"GET /bench "):
                whole = end + 4
                answer = service.tally()
            else:
                whole = end + 4
                service.asked += 1
                answer = _asset(buffer[:200].split(b" ", 2)[1].rsplit(b"/", 1)[1].decode(), "active")
            buffer = buffer[whole:]
            if service.latency:
                pause = service.latency * service.rng.uniform(0.5, 1.5)
                asyncio.get_running_loop().call_later(pause, self._transport.write, answer)
            else:
                self._transport.write(answer)
        self._buffer = buffer


def _limit(told: dict[str, Any]) -> Gateway | None:
    if "rate" not in told:
        return None
    bucket = Bucket(told["rate"], told["burst"])
    return Staged([(0.0, told["rate"]), *map(tuple, told["stages"])], bucket) if told.get("stages") else bucket


async def _main(told: dict[str, Any]) -> None:
    service = _Service(_limit(told), told.get("announce", ""), told.get("latency", 0.0))
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(service), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Whoever started this process holds the other end; its going away is the signal to end.
    await asyncio.to_thread(sys.stdin.read)


@attrs.frozen
class Served:
    """A gateway that runs.

    :ivar url: its base URL.
    """

    url: str

    def tally(self) -> dict[str, Any]:
        """Return its CPU seconds (``cpu``), what it counted, and when it let through and refused submissions."""
        with urlopen(f"{self.url}/bench") as answer:  # noqa: S310 - our own loopback URL
            told: dict[str, Any] = json.load(answer)
        return told

    def measured(self, work: Callable[[], Any]) -> float:
        """Return the share of a core that the gateway needed while ``work`` ran."""
        cpu, wall = self.tally()["cpu"], time.perf_counter()
        work()
        return float((self.tally()["cpu"] - cpu) / (time.perf_counter() - wall))


@contextlib.contextmanager
def serve(**told: Any) -> Iterator[Served]:  # noqa: ANN401 - passed on as JSON
    """Run a gateway in a process of its own: unlimited, or limited in what is submitted.

    :param told: ``rate`` and ``burst`` of a token bucket; ``stages`` as ``(from, rate)``, seconds after the first
        submission, a rate of 0 letting nothing through; ``announce``: any text to announce it in headers;
        ``latency``: seconds from a request to its answer on average, evenly from half of it to one and a half.
    """
    with subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "benchmarks.gateway", json.dumps(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Served(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()
            process.wait(10)


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
