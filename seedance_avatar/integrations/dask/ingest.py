"""An ingest on a Dask cluster (extra ``[dask]``): many machines, one journal, nothing uploaded twice.

.. code-block:: python

    async with Client(address, asynchronous=True) as client:
        async with ingest_on_cluster(client, sources, group=group, journal="run.db") as stream:
            async for outcome in stream.outcomes():
                ...

The coordinator (who calls this) reads the sources, owns the one journal and commits the intents of a shard before it
hands it out; a worker uploads and follows a shard with a session of its own, and tells each id and each outcome
home as it comes. Of a worker that is lost, what it had told of as accepted is followed by another; everything else
of its shard is in doubt, since nobody knows what of it had left. A smaller ``shard`` puts less in doubt.

The leases that a lost worker held count until ``distributed.scheduler.locks.lease-timeout`` (30 s) is over.

The cluster must not repeat a task by itself: its *scheduler* needs ``distributed.scheduler.allowed-failures: 0`` in its
configuration, which is checked. The package must be installed on scheduler and workers.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterable, Iterable
from contextlib import AsyncExitStack
from typing import Any

from distributed import Client

from seedance_avatar.assets.adapter import AssetAdapter, group_id_of
from seedance_avatar.errors import InvalidInput
from seedance_avatar.ingest.sources import SourceReader
from seedance_avatar.ingest.stream import Ingest
from seedance_avatar.models import Asset, AssetGroup, AssetSource
from seedance_avatar.options import Changed, Doubt, Rerun, check_positive
from seedance_avatar.session.session import AvatarSession

from .coordinator import ClusterRun, cluster_gone
from .worker import Key, Order

__all__ = ["ingest_on_cluster"]


def _allowed_failures(dask_scheduler: Any) -> int:  # noqa: ANN401 - distributed passes its Scheduler
    return int(dask_scheduler.allowed_failures)


def ingest_on_cluster(  # noqa: PLR0913 - the options of one run, by keyword
    client: Client,
    sources: Iterable[AssetSource] | AsyncIterable[AssetSource],
    *,
    group: AssetGroup | str,
    api_key: str | None = None,
    journal: str | os.PathLike[str] | None = None,
    shard: int = 500,
    max_submitting_total: int = 64,
    asset_timeout: float = 1800.0,
    on_in_doubt: Doubt = "hold",
    on_changed: Changed = "refuse",
    retry_refused: bool = False,
    retry_failed: bool | str | Iterable[str] = False,
    **options: Any,  # noqa: ANN401 - of AvatarSession, which judges them
) -> Ingest[AssetSource, Asset]:
    """Return a stream that uploads every source on the workers of ``client``'s cluster and follows it until active.

    It is the stream of :meth:`AvatarSession.ingest`, with the same outcomes, accounts and journal. Leaving its block
    early, and ``stop()``, reach every worker. The same source again is one upload while it is pending, and over
    all runs with a journal.

    :param client: an open ``distributed.Client(asynchronous=True)``.
    :param group: the group, or its id.
    :param api_key: the key, by default ``TOAPIS_API_KEY`` of each worker. One that is given travels to the workers as
        the cluster's messages do: use TLS there, or the environment.
    :param journal: a file beside the coordinator, which needs the key then, too, to prove that the journal is of this
        service and account; see :meth:`AvatarSession.ingest`.
    :param shard: sources that a worker is given at one time. They are read and handed out two shards a thread ahead.
    :param max_submitting_total: uploads on the wire at one time, over all workers (a semaphore of the cluster: a
        worker that stalls for longer than its lease, by default 30 s, is not counted). It is no rate:
        for that give ``limits=RedisLimits(...)``, or limits divided by the number of workers.
    :param asset_timeout: seconds from acceptance after which an asset that is not finished is ``Pending``.
    :param on_in_doubt: ``"hold"`` what is in doubt, or ``"resend"`` what an earlier run left so.
    :param on_changed: see :meth:`AvatarSession.ingest`; so for ``retry_refused`` and ``retry_failed``.
    :param options: every other option of :class:`AvatarSession`; they are pickled.
    :raises InvalidInput: an argument cannot be used.

    Entering the stream raises :class:`InvalidInput` when the cluster would repeat a lost task by itself,
    :class:`SessionStateError` when its scheduler is gone, and :class:`JournalError` when the journal cannot be used.
    A scheduler that dies on the way ends the stream, after the outcomes, with :class:`SessionStateError`.
    """
    group_id = group_id_of(group)
    key = Key(api_key or "")
    del api_key  # tracebacks may be shown with locals
    for word, number in (("shard", shard), ("max_submitting_total", max_submitting_total)):
        check_positive(word, number)
    check_positive("asset_timeout", asset_timeout)
    rerun = Rerun.of(
        on_in_doubt=on_in_doubt, retry_refused=retry_refused, retry_failed=retry_failed, on_changed=on_changed
    )
    if not client.asynchronous:
        message = "ingest_on_cluster needs distributed.Client(..., asynchronous=True)"
        raise InvalidInput(message)
    SourceReader.of(sources)
    name = f"seedance-avatar-{uuid.uuid4().hex}"

    def order(number: int, items: list[tuple[AssetSource, str | None]]) -> Order:
        return Order(
            run=name,
            number=number,
            key=key,
            group_id=group_id,
            items=items,
            options=options,
            asset_timeout=asset_timeout,
            leases=max_submitting_total,
        )

    async def begin() -> ClusterRun:
        try:
            allowed = await client.run_on_scheduler(_allowed_failures)
        except (OSError, TimeoutError, RuntimeError) as error:  # a client that was closed raises RuntimeError
            raise cluster_gone(error) from error
        if allowed != 0:
            message = (
                f"the cluster would run a lost shard again (allowed-failures is {allowed}), and upload it twice: set "
                "distributed.scheduler.allowed-failures to 0 in the scheduler's configuration and start it anew"
            )
            raise InvalidInput(message)
        stack = AsyncExitStack()
        opened = None
        if journal is not None:
            # A session of the coordinator's own proves that the journal is of this service and account.
            session = await stack.enter_async_context(AvatarSession(key.reveal() or None, **options))
            try:
                opened = await session.engine.journals.acquire(journal)
            except BaseException:
                await stack.aclose()
                raise
            stack.push_async_callback(session.engine.journals.release, opened)
        run = ClusterRun(
            client=client,
            reader=SourceReader.of(sources),
            adapter=AssetAdapter(group_id, bool(options.get("allow_private_sources"))),
            order=order,
            name=name,
            shard=shard,
            clock=asyncio.get_running_loop().time,
            worker_drain=options["timeouts"].drain if "timeouts" in options else 10.0,
            leases=max_submitting_total,
            journal=opened,
            release=stack.aclose,
            rerun=rerun,
        )
        run.task = asyncio.get_running_loop().create_task(run.run(), name="seedance-avatar: ingest on a cluster")
        return run

    return Ingest(begin)
