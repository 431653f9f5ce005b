"""A worker in a container: on SIGTERM it drains, and the next run of it resumes from the journal."""

import asyncio
import signal
import sys

from seedance_avatar import AssetSource, AvatarSession


async def main(urls: str, group: str, journal: str) -> int:
    """Ingest a file of URLs, one a line; return 0 when all are active, 3 when there is something left to do."""
    loop = asyncio.get_running_loop()
    async with AvatarSession() as session:
        draining = set()  # a task that nobody holds may be collected
        loop.add_signal_handler(
            signal.SIGTERM, lambda: draining.add(loop.create_task(session.drain(10)))
        )  # less than what the orchestrator waits before it kills
        with open(urls) as lines:
            sources = (AssetSource.image(line.strip(), key=line.strip()) for line in lines)
            async with session.ingest(sources, group=group, journal=journal) as stream:
                async for outcome in stream.outcomes():
                    print(type(outcome).__name__, outcome.source.label, flush=True)
        await asyncio.gather(*draining)
    report = stream.report
    return 0 if report.exhausted and report.active == report.taken else 3


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
