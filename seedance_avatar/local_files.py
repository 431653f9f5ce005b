"""Sources that are local files: each is judged, and put where the service can fetch it.

Most sources are URLs, so what reads files and uploads them is loaded with the first that is none.
"""

from __future__ import annotations

import attrs
from anyio import to_thread

from .client import Client
from .gate import Flow
from .models import AssetSource
from .wire import check_source

__all__ = ["judge", "published"]


async def judge(source: AssetSource) -> None:
    """Refuse a source made of a local file that cannot become an asset of its type; a URL passes.

    :raises InvalidSource: there is no such file, or it breaks limits of the service: each is named.
    """
    if source.path is not None:
        from .uploads import check_file  # noqa: PLC0415 - see the top of this module

        await to_thread.run_sync(check_file, source)


async def published(source: AssetSource, *, client: Client, flow: Flow, patient: bool = False) -> AssetSource:
    """Return ``source`` with a URL that the service can fetch: a local file is judged and uploaded first.

    :raises InvalidSource: see :func:`judge`. What :func:`~seedance_avatar.uploads.upload_file` raises, likewise.
    """
    path = getattr(source, "path", None)
    if path is None:
        return source  # its own URL is judged where the request is built
    from .uploads import upload_file  # noqa: PLC0415 - see the top of this module

    check_source(source)
    await judge(source)
    url = await upload_file(path, client=client, flow=flow, patient=patient)
    return attrs.evolve(source, source_url=url, path=None)
