"""A journal belongs to one service and one account; another has to show first that it knows what the journal holds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rig.journals import sql
from rig.leaks import no_leaks
from rig.rude import Act, Close, RudeServer, Silence, json_answer, raw_answer, until
from rig.service import Service
from rig.world import quick, sources

from seedance_avatar import (
    AccountPool,
    Active,
    AssetSource,
    AuthError,
    AvatarSession,
    GenerationRequest,
    JournalError,
    Polling,
    Retry,
    Timeouts,
)
from seedance_avatar.sandbox import Sandbox

KEYS = {"sk-first": "one", "sk-first-rotated": "one", "sk-second": "two"}


def service(**knobs: Any) -> Sandbox:
    return Sandbox(time_scale=0.002, keys=KEYS, **knobs)


async def ingest(session: AvatarSession, journal: Path, items: list[AssetSource], group: str = "pg_1") -> Counter[str]:
    async with session.ingest(items, group=group, journal=journal) as stream:
        return Counter([type(outcome).__name__ async for outcome in stream.outcomes()])


async def filled(sandbox: Sandbox, journal: Path, key: str = "sk-first") -> str:
    """Have ``journal`` hold three active assets of ``sandbox``; return the id of their group."""
    async with quick(sandbox.url, key) as session:
        group = (await session.create_group("brand")).group_id
        assert await ingest(session, journal, sources(3), group) == {"Active": 3}
    return group


async def _generated(session: AvatarSession, path: Path) -> None:
    async with session.generate_many([GenerationRequest("She waves.", key="w")], journal=path) as stream:
        [outcome async for outcome in stream.outcomes()]


USES: dict[str, Callable[[AvatarSession, Path], Awaitable[Any]]] = {
    "ingest": lambda session, path: ingest(session, path, sources(5)),
    "create_group": lambda session, path: session.create_group("other", journal=path),
    "generate": lambda session, path: session.generate("She waves.", client_business_id="b-1", journal=path),
    "generate_many": _generated,
}


@pytest.mark.asyncio
@pytest.mark.parametrize("use", USES)
async def test_another_service_that_does_not_know_its_assets_is_refused_before_anything_is_sent(
    tmp_path: Path, use: str
) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), service(seed=1) as first, service(seed=2) as second:
        await filled(first, path)
        async with quick(second.url, "sk-first") as session:
            with pytest.raises(JournalError, match="does not know its asset") as caught:
                await USES[use](session, path)
        assert first.url in str(caught.value)
        assert second.url in str(caught.value)
        assert second.ledger.count(method="POST") == 0
        assert second.ledger.count(method="GET") == 1
        assert sql(path, "SELECT count(*) FROM service") == [(1,)]


@pytest.mark.asyncio
async def test_a_rotated_key_is_proved_once_and_a_key_of_another_account_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), service() as sandbox:
        group = await filled(sandbox, path)
        looks = sandbox.ledger.count(method="GET")
        for proofs in (1, 0):
            async with quick(sandbox.url, "sk-first-rotated") as session:
                assert await ingest(session, path, sources(3), group) == {"Active": 3}
            assert sandbox.ledger.count(method="GET") == looks + proofs
            looks += proofs

        async def rotating() -> str:
            await asyncio.sleep(0)
            return "sk-second"

        posts = sandbox.ledger.count(method="POST")
        for key in ("sk-second", lambda: "sk-second", rotating):
            async with quick(sandbox.url, key) as session:
                with pytest.raises(JournalError, match="with this API key") as caught:
                    await ingest(session, path, sources(5), group)
            assert "sk-second" not in str(caught.value)
        async with quick(sandbox.url, "sk-wrong") as session:
            with pytest.raises(AuthError):
                await ingest(session, path, sources(5), group)
        assert sandbox.ledger.count(method="POST") == posts
    assert b"sk-" not in path.read_bytes()


@pytest.mark.asyncio
async def test_another_host_of_the_same_service_is_proved_and_remembered(tmp_path: Path) -> None:
    path, one = tmp_path / "run.db", Service()
    async with no_leaks(), RudeServer(one) as first, RudeServer(one) as second:
        for server, looks in ((first, 3), (second, 1), (second, 0), (first, 0)):
            one.looks.clear()
            async with quick(server.url, polling=Polling.fixed(0.0, 0.01)) as session:
                assert await ingest(session, path, sources(3)) == {"Active": 3}
            assert len(one.looks) == looks
        assert len(one.posts) == 3


@pytest.mark.asyncio
async def test_with_nothing_to_look_at_another_service_is_refused_and_another_key_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), service() as first, service() as second:
        async with quick(first.url, "sk-first") as session:
            group = await session.create_group("brand", journal=path)
        async with quick(second.url, "sk-first") as session:
            with pytest.raises(JournalError, match=r"holds no asset that .* could be asked for"):
                await session.create_group("brand", journal=path)
        assert second.ledger.count() == 0
        async with quick(first.url, "sk-second") as session:
            assert (await session.create_group("brand", journal=path)).group_id == group.group_id


@pytest.mark.asyncio
async def test_a_journal_in_which_nothing_was_sent_goes_along_with_a_corrected_base_url(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), service() as sandbox:
        async with quick("http://127.0.0.1:9", "sk-first", retry=Retry(attempts=1, patience=0.0)) as session:
            assert await ingest(session, path, sources(2)) == {"Unsent": 2}
        async with quick(sandbox.url, "sk-first") as session:
            group = (await session.create_group("brand")).group_id
            assert await ingest(session, path, sources(2), group) == {"Active": 2}


@pytest.mark.asyncio
async def test_a_journal_of_refusals_alone_goes_along_with_another_service(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    refusal = json_answer({"error": {"code": "invalid_request", "message": "no"}}, 400)
    async with no_leaks(), RudeServer(refusal) as first, RudeServer(Service()) as second:
        async with quick(first.url, "sk-first") as session:
            assert await ingest(session, path, sources(2)) == {"Failed": 2}
        async with (
            quick(second.url, "sk-first") as session,
            session.ingest(sources(2), group="pg_1", journal=path, retry_refused=True) as stream,
        ):
            assert [type(outcome) async for outcome in stream.outcomes()] == [Active, Active]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer",
    [
        raw_answer(b"<html>Bad Gateway</html>", 502),
        json_answer({"success": False, "message": "busy"}),
        json_answer({"success": True, "data": {"asset_id": "pa_other", "status": "active"}}),
        Close(),
        Silence(),
    ],
)
async def test_a_look_without_a_clear_answer_proves_nothing(tmp_path: Path, answer: Act) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), service() as first, RudeServer(answer) as second:
        await filled(first, path)
        timeouts = Timeouts(connect=0.2, request=0.2, drain=0.2)
        async with quick(second.url, "sk-first", timeouts=timeouts, retry=Retry(attempts=2, base=0.001)) as session:
            with pytest.raises(JournalError, match=r"could not be found out: .*Nothing was sent; try again later"):
                await ingest(session, path, sources(5))
        assert {seen.method for seen in second.requests} == {"GET"}
        assert sql(path, "SELECT count(*) FROM service") == [(1,)]
        # It is closed again, and as good as before.
        await filled(first, path)


@pytest.mark.asyncio
async def test_what_is_looked_at_is_the_newest_active_asset_else_the_newest_accepted(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), service() as first, service() as second:
        items = sources(4)
        first.fail(items[3].source_url)
        async with quick(first.url, "sk-first") as session:
            group = (await session.create_group("brand")).group_id
            await ingest(session, path, items, group)
        ids = [str(row[0]) for row in sql(path, "SELECT remote_id FROM item ORDER BY id")]
        for states, expected in (((3, 3, 2, 4), ids[1]), ((2, 2, 4, 4), ids[1])):
            for number, state in enumerate(states, 1):
                sql(path, f"UPDATE item SET state = {state} WHERE id = {number}")  # noqa: S608 - two numbers of this test
            async with quick(second.url, "sk-first") as session:
                with pytest.raises(JournalError, match=f"does not know its asset {expected}"):
                    await ingest(session, path, items, group)
        sql(path, "UPDATE item SET state = 4")
        async with quick(second.url, "sk-first") as session:
            with pytest.raises(JournalError, match="holds no asset"):
                await ingest(session, path, items, group)


@pytest.mark.asyncio
async def test_a_journal_that_names_no_service_is_proved_where_it_holds_an_asset_and_adopted_where_not(
    tmp_path: Path,
) -> None:
    path, without = tmp_path / "run.db", tmp_path / "without.db"
    async with no_leaks(), service() as first, service() as second:
        group = await filled(first, path)
        async with quick(first.url, "sk-first") as session:
            await session.create_group("brand", journal=without)
        for journal in (path, without):
            sql(journal, "DELETE FROM service")  # as version 1 of the file has it
        async with quick(second.url, "sk-first") as session:
            with pytest.raises(JournalError, match="belongs to a service that it does not name"):
                await ingest(session, path, sources(3), group)
        async with quick(first.url, "sk-first") as session:
            assert await ingest(session, path, sources(3), group) == {"Active": 3}
            await session.create_group("brand", journal=without)
        for journal in (path, without):
            assert sql(journal, "SELECT base_url FROM service") == [(first.url,)]


@pytest.mark.asyncio
async def test_each_account_of_a_pool_has_its_own_proof(tmp_path: Path) -> None:
    async with no_leaks(), service(seed=1) as first, service(seed=2) as second:
        knobs: dict[str, Any] = {"polling": Polling.fixed(0.01, 0.02)}
        keys = {"a": "sk-first", "b": "sk-second"}
        for sandbox, refused in ((first, False), (second, True)):
            async with AccountPool(keys, base_url=sandbox.url, **knobs) as pool:
                stream = pool.ingest(sources(4), group_name="brand", journal=tmp_path / "run")
                if refused:
                    with pytest.raises(JournalError, match="does not know its asset"):
                        async with stream:
                            pass
                    continue
                async with stream:
                    assert len([outcome async for outcome in stream.outcomes()]) == 4
        assert second.ledger.count(method="POST") == 0


@pytest.mark.asyncio
async def test_who_is_cancelled_does_not_wait_for_the_proof(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with no_leaks(), service() as first, RudeServer(Silence()) as second:
        group = await filled(first, path)
        short = Timeouts(connect=2.0, request=0.3, drain=2.0)
        async with quick(second.url, "sk-first", timeouts=short) as session:
            task = asyncio.ensure_future(ingest(session, path, sources(3)))
            await until(lambda: second.requests)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(1):
                    await task
            # Two wait for one opening: that one of them leaves is nothing to the other.
            tasks = [asyncio.ensure_future(ingest(session, path, sources(3))) for _ in range(2)]
            await until(lambda: len(second.requests) == 2)
            tasks[0].cancel()
            (ended, _) = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError)
            assert isinstance(tasks[1].exception(), JournalError)
        async with quick(first.url, "sk-first") as session:
            assert await ingest(session, path, sources(3), group) == {"Active": 3}
