"""An ASGI service (Starlette) that receives the service's webhooks: ``uvicorn webhook_starlette:app``."""

import asyncio
import os
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seedance_avatar import VideoTask, WebhookRefused, verify_webhook

SECRETS = os.environ["TOAPIS_WEBHOOK_SECRETS"].split(",")
handled: set[str] = set()  # for more than one process: a table with a unique column
finished: asyncio.Queue[VideoTask] = asyncio.Queue()  # another task downloads what arrives here


async def hook(request: Request) -> Response:
    try:
        event = verify_webhook(request.headers, await request.body(), SECRETS, now=time.time())
    except WebhookRefused:
        return Response(status_code=400)
    # An address gets the events of images and tests too: those have no video task.
    if event.task is not None and event.event_id not in handled:
        handled.add(event.event_id)
        finished.put_nowait(event.task)
    return Response(status_code=204)


app = Starlette(routes=[Route("/toapis", hook, methods=["POST"])])
