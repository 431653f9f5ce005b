"""An aiohttp service that receives the service's webhooks: verified, each event taken once, the work done elsewhere."""

import asyncio
import os
import time

from aiohttp import web

from seedance_avatar import VideoTask, WebhookRefused, verify_webhook

SECRETS = os.environ["TOAPIS_WEBHOOK_SECRETS"].split(",")
handled: set[str] = set()  # for more than one process: a table with a unique column
finished: asyncio.Queue[VideoTask] = asyncio.Queue()  # another task downloads what arrives here


async def hook(request: web.Request) -> web.Response:
    try:
        event = verify_webhook(request.headers, await request.read(), SECRETS, now=time.time())
    except WebhookRefused:
        return web.Response(status=400)
    # An address gets the events of images and tests too: those have no video task.
    if event.task is not None and event.event_id not in handled:
        handled.add(event.event_id)
        finished.put_nowait(event.task)
    return web.Response(status=204)


app = web.Application(client_max_size=1 << 20)
app.router.add_post("/toapis", hook)

if __name__ == "__main__":
    web.run_app(app)
