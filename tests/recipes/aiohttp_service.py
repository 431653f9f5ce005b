"""An aiohttp service: one session for the life of the process, and a health check from its statistics."""

import contextlib
from collections.abc import AsyncIterator

import attrs
from aiohttp import web

from seedance_avatar import AssetSource, AvatarError, AvatarSession, InvalidInput, WaitTimeout

SESSION = web.AppKey("session", AvatarSession)


@contextlib.asynccontextmanager
async def one_session(app: web.Application) -> AsyncIterator[None]:
    async with AvatarSession() as session:  # TOAPIS_API_KEY
        app[SESSION] = session
        yield


async def add_asset(request: web.Request) -> web.Response:
    wanted = await request.json()
    session = request.app[SESSION]
    try:
        asset = await session.upload(AssetSource.image(wanted["url"]), group=wanted["group"])
    except InvalidInput as error:  # the caller's mistake: nothing was sent
        return web.json_response({"error": str(error)}, status=422)
    except AvatarError as error:  # every error is one line, and holds no secret
        return web.json_response({"error": str(error)}, status=502)
    try:
        asset = await session.wait_until_active(asset, timeout=120)
    except WaitTimeout as error:  # no failure: it may still become active
        return web.json_response({"asset_id": asset.asset_id, "note": str(error)}, status=202)
    except AvatarError as error:
        return web.json_response({"asset_id": asset.asset_id, "error": str(error)}, status=502)
    return web.json_response({"asset": asset.uri}, status=201)


async def health(request: web.Request) -> web.Response:
    stats = request.app[SESSION].stats()
    unreachable = stats.down_for is not None and stats.down_for > 30
    return web.json_response(attrs.asdict(stats), status=503 if unreachable else 200)


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(one_session)
    app.add_routes([web.post("/assets", add_asset), web.get("/health", health)])
    return app


if __name__ == "__main__":
    web.run_app(make_app())
