"""HTTP answers and how they are written, and the JSON formats of refusals.

An answer is written directly, because aiohttp's response object would take more time than all the rest of a request,
and a benchmark would then measure the sandbox instead of the client.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Literal, NoReturn

import attrs
from aiohttp import web

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@attrs.define(eq=False)
class Reply:
    """One answer, or a connection that ends without one: it has the methods that aiohttp's server calls."""

    status: int = 0
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    end: Literal["answer", "cut", "close", "reset"] = "answer"  # cut: half of the body; close, reset: nothing
    headers: str = ""
    request_id: str = ""
    sent: Callable[[], object] | None = None  # called once the whole answer was written
    keep_alive: bool = True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write the answer to the connection of ``request``."""
        transport = request.transport
        if transport is None or transport.is_closing():
            return
        self.keep_alive = request.keep_alive and self.end == "answer"
        if self.end == "close":
            transport.close()
            return
        if self.end == "reset":
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            return
        body = self.body
        head = (
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\nX-Oneapi-Request-Id: {self.request_id}\r\n{self.headers}"
            f"{'' if self.keep_alive else 'Connection: close' + chr(13) + chr(10)}\r\n"
        ).encode("latin-1")
        if request.method == "HEAD":
            body = b""
        transport.write(head + (body if self.end == "answer" else body[: len(body) // 2]))
        if self.end == "answer" and self.sent is not None:
            self.sent()

    async def write_eof(self) -> None:
        """Do nothing: :meth:`prepare` wrote everything."""


class Refused(Exception):  # noqa: N818 - the name says what happened, and the sandbox catches it itself
    """Ends the handling of a request with the refusal ``reply``."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def as_json(value: Any, status: int = 200) -> Reply:  # noqa: ANN401 - any JSON value
    """Return ``value`` as a JSON answer."""
    return Reply(status, _encode(value).encode("utf-8", "surrogatepass"))


def refusal(status: int, message: str, *, code: str = "", kind: str = "invalid_request_error") -> Reply:
    """Return a refusal in the New API gateway's format ``{"error": {"message", "type", "code"}}``."""
    return as_json({"error": {"message": message, "type": kind, "param": "", "code": code}}, status)


def refusal_in_envelope(status: int, message: str) -> Reply:
    """Return a refusal in the format of the private-avatar endpoints, ``{"message", "success": false}``."""
    return as_json({"message": message, "success": False}, status)


def refuse(
    message: str, *, status: int = 400, code: str = "InvalidParameter", kind: str = "invalid_request_error"
) -> NoReturn:
    """Refuse a generation, as :func:`refusal` words it, with the id of the request."""
    raise Refused(refusal(status, f"{message} (request id: {{id}})", code=code, kind=kind))


def refuse_in_envelope(message: str = "invalid request body", *, status: int = 400) -> NoReturn:
    """Refuse a group, an asset or an upload."""
    raise Refused(refusal_in_envelope(status, message))


def unauthorized(authorization: str | None) -> Reply:
    """Return the 401 for a missing key, or for one that is not accepted."""
    if not authorization:
        return refusal(401, "no API key was provided (request id: {id})", kind="new_api_error")
    code = "authentication_error"
    return refusal(401, "the API key is not valid (request id: {id})", code=code, kind=code)


def no_money(status: Literal[402, 403]) -> Reply:
    """Return the refusal for a balance that is too low: 402 as documented, 403 as the New API gateway answers."""
    code = "insufficient_quota" if status == 402 else "insufficient_user_quota"  # noqa: PLR2004 - an HTTP status
    return refusal(status, "the balance is too low (request id: {id})", code=code, kind="new_api_error")
