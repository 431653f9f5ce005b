"""Several accounts as one: a session for each key, and one stream over all of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self, TypeAlias
from weakref import WeakKeyDictionary

from seedance_avatar.assets.adapter import AssetAdapter
from seedance_avatar.assets.media import MediaFacts
from seedance_avatar.assets.messages import group_request
from seedance_avatar.client.tasks import TaskSet
from seedance_avatar.errors import InvalidInput, JournalError, SessionStateError
from seedance_avatar.ingest.sources import SourceReader
from seedance_avatar.ingest.stream import Ingest
from seedance_avatar.models import Asset, AssetGroup, AssetSource
from seedance_avatar.options import Changed, Doubt, Limits, Rerun, SharedLimits, check_positive
from seedance_avatar.session.session import AvatarSession
from seedance_avatar.text import KeyProvider, Secret, safe_text
from seedance_avatar.wire.request import check_key

from .member import PoolMember
from .run import PooledRun

__all__ = ["AccountPool", "GroupName"]

GroupName: TypeAlias = str | Callable[[AssetSource], str]
"""The name of the group of all sources, or a function that returns it for one and always says the same of it."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def _named(  # noqa: PLR0911 - one return for each thing that can be wrong
    keys: Sequence[str | KeyProvider] | Mapping[str, str | KeyProvider],
) -> dict[str, Secret[str] | KeyProvider] | InvalidInput:
    """Return the keys by their accounts. An error is returned, not raised: this frame holds the keys."""
    if isinstance(keys, Mapping):
        named = {name: key if callable(key) else Secret(key) for name, key in keys.items()}
    elif isinstance(keys, str) or not isinstance(keys, Sequence):
        return InvalidInput("AccountPool needs a list of keys, or a mapping of names to keys")
    else:
        named = {}
        for key in keys:
            if callable(key):
                return InvalidInput("a key that is a callable needs a name: pass AccountPool({name: key, ...})")
            try:
                check_key(key)
            except InvalidInput as error:
                return error.with_traceback(None)
            # The same in every run, in whatever order the keys stand; 32 bits of a hash give nothing of a key away.
            named[f"account-{hashlib.blake2b(key.encode(), digest_size=4).hexdigest()}"] = Secret(key)
        if len(named) < len(keys):
            return InvalidInput("AccountPool was given the same key twice")
    if not named:
        return InvalidInput("AccountPool needs at least one key")
    for name in named:
        if not _NAME.match(str(name)):
            return InvalidInput(
                f"{safe_text(name, 80)!r} cannot name an account: use letters, digits, '.', '_' and '-'"
            )
    return named


class AccountPool:
    """Several accounts, each with its own session and limits, that work through one list of sources.

    .. code-block:: python

        async with AccountPool([key_1, key_2]) as pool:
            async with pool.ingest(sources, group_name="brand", journal="runs/") as stream:
                async for asset in stream:
                    ...

    Assets are not shared across accounts: what is uploaded in one can be used in that one only. Ask
    :meth:`session_of` for the session in which an asset lives.

    :param keys: the keys, or a mapping of names of your own to keys (or to callables that return them). A key without
        a name is named after a short hash of itself.
    :param limits: how fast each account may go, by default found by itself; or a function that returns it for the
        name of an account.
    :param options: every other option of :class:`AvatarSession`, the same for all.
    :raises InvalidInput: an argument cannot be used. No key is ever shown.
    """

    def __init__(
        self,
        keys: Sequence[str | KeyProvider] | Mapping[str, str | KeyProvider],
        *,
        limits: Limits | Callable[[str], Limits | SharedLimits] | None = None,
        **options: Any,  # noqa: ANN401 - handed on to AvatarSession, which judges them
    ) -> None:
        self._allow_private = bool(options.get("allow_private_sources"))
        self._sessions: dict[str, AvatarSession] = {}
        named = _named(keys)
        del keys  # tracebacks may be shown with locals
        if isinstance(named, InvalidInput):
            raise named
        self._sessions = {
            name: AvatarSession(
                key.reveal() if isinstance(key, Secret) else key,
                limits=limits(name) if callable(limits) else limits,
                **options,
            )
            for name, key in named.items()
        }
        self._groups: dict[tuple[str, str, Path | None], AssetGroup] = {}
        self._creating = {name: asyncio.Lock() for name in self._sessions}
        self._tasks = TaskSet()
        self._runs: set[PooledRun] = set()

    def __repr__(self) -> str:
        return f"<AccountPool of {len(self._sessions)}: {', '.join(self._sessions)}>"

    @property
    def sessions(self) -> Mapping[str, AvatarSession]:
        """The sessions by the names of their accounts."""
        return MappingProxyType(self._sessions)

    def session_of(self, asset: Asset | AssetGroup | str) -> AvatarSession:
        """Return the session in which an asset lives (or a group, or a group's id) that this pool ingested.

        :raises InvalidInput: it is in no group that this pool has used.
        """
        group_id = asset if isinstance(asset, str) else asset.group_id
        for (name, _, _), group in self._groups.items():
            if group.group_id == group_id:
                return self._sessions[name]
        message = f"group {safe_text(str(group_id), 80)} is not one that this pool has used"
        raise InvalidInput(message)

    async def open(self) -> Self:
        """Open every session; nothing is sent."""
        async with AsyncExitStack() as undo:
            for session in self._sessions.values():
                await undo.enter_async_context(session)
            undo.pop_all()
        return self

    async def aclose(self) -> None:
        """Close every session. Streams that still run end first, as when their blocks are left. Safe to call twice."""
        async with AsyncExitStack() as closing:
            for session in self._sessions.values():
                closing.push_async_callback(session.aclose)
            closing.push_async_callback(self._tasks.aclose)
            runs = list(self._runs)
            for run in runs:
                run.leave(SessionStateError("the pool was closed"))
            for run in runs:
                await run.gone()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def ingest(  # noqa: PLR0913 - the options of one run, by keyword
        self,
        sources: Iterable[AssetSource] | AsyncIterable[AssetSource],
        *,
        group_name: GroupName,
        asset_timeout: float = 1800.0,
        max_pending: int = 20_000,
        on_failure: Literal["continue", "stop"] = "continue",
        journal: str | os.PathLike[str] | None = None,
        on_in_doubt: Doubt = "hold",
        on_changed: Changed = "refuse",
        retry_refused: bool = False,
        retry_failed: bool | str | Iterable[str] = False,
    ) -> Ingest[AssetSource, Asset]:
        """Return a stream that uploads every source into one of the accounts and follows it until it is active.

        It is the stream of :meth:`AvatarSession.ingest`, and the options are the same but for these. Every outcome
        names its ``account`` (None only for what no account had taken). An account whose key is refused, whose
        money is spent, or that cannot go on for another reason leaves the run; what it had not sent goes to the
        others, what it had sent never does. When none is left, the rest is ``Unsent``. An observer hears of such
        a source as ``Unsent`` in the account that left, and again from the one that took it.
        The same source again is one upload while it is pending, and over all runs with a journal.

        :param group_name: the name of the group, which is created once in each account that takes a source; or a
            function that returns it for a source.
        :param sources: any iterable or async iterable; it is read lazily.
        :param asset_timeout: seconds from acceptance after which an asset that is not finished is ``Pending``.
        :param max_pending: sources at most that are taken and not yet delivered as outcomes.
        :param on_failure: ``"stop"`` to take and send nothing more after the first ``Failed``.
        :param on_in_doubt: ``"hold"`` what an earlier run left in doubt, or ``"resend"`` it, which may make duplicates.
        :param on_changed: see :meth:`AvatarSession.ingest`; so for ``retry_failed``.
        :param retry_refused: send again what an earlier run was refused.
        :param journal: a directory, with a journal for each account in it, named after the account. A source that
            one of them knows goes to that account in every later run.
        :raises InvalidInput: an argument cannot be used.

        Entering the stream raises :class:`JournalError` when a journal cannot be used, or when the directory holds
        the journal of an account that is not in the pool: its sources would be uploaded a second time.
        """
        check_positive("asset_timeout", asset_timeout)
        check_positive("max_pending", max_pending)
        if on_failure not in {"continue", "stop"}:
            message = f"on_failure must be 'continue' or 'stop', not {on_failure!r}"
            raise InvalidInput(message)
        rerun = Rerun.of(
            on_in_doubt=on_in_doubt, retry_refused=retry_refused, retry_failed=retry_failed, on_changed=on_changed
        )
        if not callable(group_name):
            group_request(group_name, None)
        SourceReader.of(sources)

        async def begin() -> PooledRun:
            stack = AsyncExitStack()
            facts: WeakKeyDictionary[AssetSource, MediaFacts] = WeakKeyDictionary()
            try:
                members = [
                    await self._member(
                        name,
                        group_name if callable(group_name) else lambda _: group_name,
                        None if journal is None else self._journal(Path(journal), name),
                        stack,
                        facts,
                        asset_timeout=asset_timeout,
                        max_pending=max_pending,
                        stop_on_failure=False,
                        rerun=rerun,
                    )
                    for name in self._sessions
                ]
            except BaseException:
                await stack.aclose()
                raise
            run = PooledRun(
                members=members,
                reader=SourceReader.of(sources),
                group_of=group_name if callable(group_name) else lambda _: group_name,
                max_pending=max_pending,
                stop_on_failure=on_failure == "stop",
                clock=asyncio.get_running_loop().time,
                release=stack.aclose,
                drain=max(session.engine.timeouts.drain for session in self._sessions.values()),
            )
            run.task = self._tasks.spawn(run.run(), name="seedance-avatar: pooled ingest")
            self._runs.add(run)
            run.task.add_done_callback(lambda _: self._runs.discard(run))
            return run

        return Ingest(begin)

    def _journal(self, directory: Path, name: str) -> Path:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        strangers = {path.stem for path in directory.glob("*.db")} - set(self._sessions)
        if strangers:
            message = (
                f"{directory} holds the journal of {', '.join(sorted(strangers))}, which is not in the pool: add the "
                "account, or move the file away if its sources may be uploaded again"
            )
            raise JournalError(message)
        return directory / f"{name}.db"

    async def _member(
        self,
        name: str,
        group_of: Callable[[AssetSource], str],
        path: Path | None,
        stack: AsyncExitStack,
        facts: WeakKeyDictionary[AssetSource, MediaFacts],
        **options: Any,  # noqa: ANN401 - of Engine.begin
    ) -> PoolMember:
        engine = self._sessions[name].engine
        journal = None
        if path is not None:
            journal = await engine.journals.acquire(path)
            stack.push_async_callback(engine.journals.release, journal)

        async def group(source: AssetSource) -> AssetGroup:
            return await self._group(name, group_of(source), path, resend=options["rerun"].resend)

        adapter = AssetAdapter(group, self._allow_private, facts=facts)

        def begin(feed: AsyncIterator[Any]) -> Awaitable[Any]:
            return engine.begin(adapter, feed, journal=path, **options)

        return PoolMember(name=name, adapter=adapter, begin=begin, journal=journal)

    async def _group(self, account: str, name: str, path: Path | None, *, resend: bool) -> AssetGroup:
        async with self._creating[account]:
            known = self._groups.get((account, name, path))
            if known is None:
                known = await self._sessions[account].create_group(
                    name, journal=path, on_in_doubt="resend" if resend else "hold"
                )
                self._groups[account, name, path] = known
            return known
