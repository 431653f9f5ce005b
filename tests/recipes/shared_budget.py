"""Ten ingests at once under one account's limits: each gets an equal share, and a short one ends early."""

import anyio

from seedance_avatar import Active, AssetSource, AvatarSession, Limits


async def main(tenants: dict[str, list[str]], limits: Limits | None = None) -> dict[str, int]:
    """Ingest each tenant's URLs into a group of its own; return how many became active of each."""
    active: dict[str, int] = {}

    async def ingest(session: AvatarSession, tenant: str, urls: list[str]) -> None:
        group = await session.create_group(tenant)
        async with session.ingest(map(AssetSource.image, urls), group=group) as stream:
            async for outcome in stream.outcomes():
                if isinstance(outcome, Active):  # in production: the tenant's own records
                    active[tenant] = active.get(tenant, 0) + 1

    async with AvatarSession(limits=limits) as session, anyio.create_task_group() as tasks:
        for tenant, urls in tenants.items():
            tasks.start_soon(ingest, session, tenant, urls)
    return active


if __name__ == "__main__":
    several = {
        f"tenant-{name}": [f"https://cdn.example.com/{name}/{number}.jpg" for number in range(50)] for name in range(10)
    }
    print(anyio.run(main, several))
