"""Routes a request to its handler: checks the key, applies limits and faults, and counts the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from email.utils import formatdate
from typing import Any, Final

import attrs
from aiohttp import web

from seedance_avatar.sandbox import uploads, videos

from .accounts import Account, Accounts, unauthorized
from .assets import Assets
from .clock import Clock
from .dialect import Vintage
from .fault_replies import faulty_reply
from .faults import Fault, Faults
from .files import Files
from .ledger import Lane, Ledger
from .records import Download
from .replies import Refused, Reply, as_json, no_answer, refusal

__all__ = ["Router"]

PREFIX: Final = "/v1/videos/doubao-seedance-2-0/private-avatar"
_ASSET: Final = f"{PREFIX}/assets/"
_TASK: Final = f"{videos.PREFIX}/"
_POSTS: Final = {f"{PREFIX}/groups": "groups", f"{PREFIX}/assets": "assets", videos.PREFIX: "generations"}
_GETS: Final = {"asset": _ASSET, "generation": _TASK}
_HELLO: Final = f"""A local ToAPIs for the Seedance 2 private-avatar API. Nothing here leaves this machine.

POST {PREFIX}/groups
     {{"name": "my-avatar"}}
POST {PREFIX}/assets
     {{"group_id": "pg_…", "asset_type": "image", "source_url": "https://…"}}
GET  {_ASSET}<asset_id>
POST {videos.PREFIX}
     {{"model": "seedance-2", "prompt": "…", "image_with_roles": [{{"url": "asset://…", "role": "reference_image"}}]}}
GET  {_TASK}<task id or client_business_id>
POST {uploads.PREFIX}images (or videos, audios)
     multipart/form-data with the field: file

Every call needs the header  Authorization: Bearer <key>
GET  /sandbox/ledger needs none; it answers with counts of what arrived.
"""


def _route(method: str, path: str) -> tuple[str, str]:
    """Return the kind of a path, as the ledger counts it, and the id or kind of upload at its end."""
    if method == "POST":
        if path in _POSTS:
            return _POSTS[path], ""
        if path.startswith(uploads.PREFIX):
            return "uploads", path[len(uploads.PREFIX) :]
    elif method == "GET":
        for kind, prefix in _GETS.items():
            if path.startswith(prefix):
                return kind, path[len(prefix) :]
    return "other", ""


@attrs.define(eq=False, kw_only=True)
class Router:
    """Answers every request, to the API and to the files host.

    :ivar latency: seconds that every answer of the API takes.
    """

    clock: Clock
    accounts: Accounts
    ledger: Ledger
    faults: Faults
    vintage: Vintage
    assets: Assets
    videos: videos.Videos
    uploads: uploads.Uploads
    files: Files
    latency: float
    _handlers: dict[str, Callable[[Account, Any], Reply]] = attrs.field(init=False)
    _requests: int = attrs.field(init=False, default=0)
    _second: int = attrs.field(init=False, default=-1)
    _date: str = attrs.field(init=False, default="")

    def __attrs_post_init__(self) -> None:
        self._handlers = {
            "groups": self.assets.create_group,
            "assets": self.assets.create,
            "asset": self.assets.look,
            "generations": self.videos.create,
            "generation": self.videos.look,
        }

    async def answer(self, request: web.BaseRequest) -> Reply:
        """Answer a request to the API."""
        path = request.raw_path.partition("?")[0]
        kind, name = _route(request.method, path)
        if kind == "other":
            return await self._counted(request.method, kind, self._elsewhere(request.method, path))
        return await self._counted(request.method, kind, self._api(request, kind, name))

    async def answer_file(self, request: web.BaseRequest) -> Reply:
        """Answer a request to the files host, which needs no key."""
        return await self._counted(request.method, "files", self._file(request))

    async def _counted(self, method: str, kind: str, answering: Coroutine[None, None, Reply]) -> Reply:
        ledger = self.ledger
        self._requests += 1
        number = self._requests
        ledger.in_flight += 1
        ledger.peak = max(ledger.peak, ledger.in_flight)
        try:
            reply = await answering
        except ConnectionError:
            # The client closed the connection during its request: nothing was done, and there is nobody to answer.
            reply = no_answer()
        finally:
            ledger.in_flight -= 1
        ledger.counts[method, kind, reply.status] += 1
        second = int(self.clock.wall())
        if second != self._second:
            self._second, self._date = second, f"Date: {formatdate(second, usegmt=True)}\r\n"
        reply.headers += self._date
        reply.request_id = f"{second}{number:012d}"
        if b"{id}" in reply.body and reply.content_type.startswith("application/json"):
            reply.body = reply.body.replace(b"{id}", reply.request_id.encode())
        return reply

    async def _api(self, request: web.BaseRequest, kind: str, name: str) -> Reply:
        # An uploaded file is read in chunks, up to its own limit; all other bodies are small.
        body = await request.read() if kind != "uploads" and request.body_exists else b""
        if self.latency:
            await self.clock.sleep(self.latency)
        authorization = request.headers.get("Authorization")
        account = self.accounts.of_header(authorization)
        if account is None:
            return unauthorized(authorization)
        argument = body if request.method == "POST" and kind != "uploads" else name
        headers, reply = self._limited(account, request.method, kind)
        if reply is None:
            rule = self.faults.match(request.method, kind) if self.faults else None
            if rule is None:
                reply = await self._do(request, account, kind, argument)
            else:
                reply = await self._misbehave(rule, lambda: self._do(request, account, kind, argument))
        reply.headers += headers
        return reply

    def _limited(self, account: Account, method: str, kind: str) -> tuple[str, Reply | None]:
        """Return the rate-limit headers, and the refusal if a limit is reached."""
        if kind == "uploads":
            return "", None
        lane: Lane = "submit" if method == "POST" else "query"
        now, limits = self.clock.now(), account.limits
        gates = () if limits is None else limits.submits if lane == "submit" else limits.queries
        if limits is None or not gates:
            self.ledger.note(account.name, lane, now, refused=False)
            return "", None
        headers, refused = limits.pass_or_refuse(gates, now, self.clock.wall_at(now))
        self.ledger.note(account.name, lane, now, refused=refused is not None)
        return headers, refused

    async def _do(self, request: web.BaseRequest, account: Account, kind: str, argument: Any) -> Reply:  # noqa: ANN401 - a name or a body
        try:
            if kind == "uploads":
                return await self.uploads.receive(argument, account, request)
            return self._handlers[kind](account, argument)
        except Refused as refused:
            return refused.reply

    async def _misbehave(self, rule: Fault, do: Callable[[], Awaitable[Reply]]) -> Reply:
        if rule.kind == "slow":
            await self.clock.sleep(rule.delay)
        right = await do() if self.faults.applies(rule) else None
        return faulty_reply(rule, right, self.faults.rng, self.clock, self.vintage)

    async def _file(self, request: web.BaseRequest) -> Reply:
        asked = request.headers

        async def fetch() -> Reply:
            return self.files.fetch(request.raw_path, asked.get("Range"), asked.get("If-Range"))

        rule = self.faults.match(request.method, "files") if self.faults else None
        reply = await fetch() if rule is None else await self._misbehave(rule, fetch)
        entry = Download(
            path=request.raw_path.partition("?")[0],
            status=reply.status,
            authorized="Authorization" in asked,
            ranged=asked.get("Range"),
            at=self.clock.now(),
        )
        self.ledger.downloads.append(entry)
        return reply

    async def _elsewhere(self, method: str, path: str) -> Reply:
        if path == "/":
            return Reply(200, _HELLO.encode(), content_type="text/plain; charset=utf-8")
        if path == "/sandbox/ledger":
            return as_json(self.ledger.summary())
        return refusal(404, f"Invalid URL ({method} {path})")
