"""The journal's database: its statements, and the checks that its files are still the ones that were opened.

A commit goes to the write-ahead log (WAL, ``-wal``) beside the file; a checkpoint copies it from there into the file.
``head.whole`` is 0 in the file and 1 in the WAL for as long as there is a WAL: a checkpoint of all of it leaves a 1,
and a file with a 0 that has no WAL beside it has lost one.

A batch goes to SQLite as one statement over one JSON array, not as a statement a row: the interpreter lock
is given up once a batch, and the loop's thread does not fight for it over every row.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import attrs

from seedance_avatar.errors import InvalidInput, JournalError
from seedance_avatar.text import safe_text

from .file import check_neighbours, check_version, connect, create_or_migrate, read_version, unusable
from .lock import Lock, refused
from .records import KINDS, STATES, Change, Entry, Kind, Origin, Record, Run, Sample, State, Summary, misuse

Durability: TypeAlias = Literal["power", "process"]
"""What a commit survives: the loss of power, or only the death of the process."""

_SYNCHRONOUS: Final = {"power": "FULL", "process": "NORMAL"}
_CHECK_EVERY: Final = 1.0  # seconds between two checks of the files
_CHECK_COMMITS: Final = 64  # commits after which they are checked at the latest: a large WAL slows each of them
_LARGE_WAL: Final = 4 << 20  # bytes from which on a checkpoint is made

_PLANNED, _SENDING, _ACCEPTED, _ACTIVE, _FAILED, _REFUSED, _IN_DOUBT = range(len(STATES))

# A move that is not allowed sets the state to NULL, which the table does not take: the statement as a whole
# does nothing then. ``planned`` turns back what is sending (to *in doubt*, if it was there before) and
# leaves every other state as it is; an id, once known, never changes. Materialized, or else each of the many
# mentions of a column would take it out of the JSON anew, for half as much again as the whole costs.
_APPLY: Final = f"""
UPDATE item SET
    state = CASE
        WHEN NOT (change.allowed >> item.state) & 1 OR item.remote_id <> change.remote_id THEN NULL
        WHEN change.state <> {_PLANNED} THEN change.state
        WHEN item.state <> {_SENDING} THEN item.state
        WHEN item.doubted_at IS NULL THEN {_PLANNED}
        ELSE {_IN_DOUBT} END,
    attempts = attempts + CASE change.state
        WHEN {_SENDING} THEN 1
        WHEN {_PLANNED} THEN -(item.state = {_SENDING})
        ELSE 0 END,
    remote_id = coalesce(change.remote_id, item.remote_id),
    sent_at = CASE change.state WHEN {_SENDING} THEN change.at ELSE sent_at END,
    accepted_at = CASE change.state WHEN {_ACCEPTED} THEN coalesce(accepted_at, change.at) ELSE accepted_at END,
    ended_at = CASE
        WHEN change.state IN ({_ACTIVE}, {_FAILED}, {_REFUSED}) THEN coalesce(ended_at, change.at)
        WHEN change.state = {_SENDING} THEN NULL
        ELSE ended_at END,
    doubted_at = CASE change.state WHEN {_IN_DOUBT} THEN change.at ELSE doubted_at END,
    error = CASE WHEN change.state IN ({_PLANNED}, {_SENDING}) THEN item.error ELSE change.error END,
    run = change.run
FROM (
    WITH row AS MATERIALIZED (
        SELECT substr(:names, 16 * key + 1, 16) AS fingerprint, value ->> 0 AS state, value ->> 1 AS allowed,
            value ->> 2 AS at, value ->> 3 AS remote_id, value ->> 4 AS error, value ->> 5 AS run
        FROM json_each(:rows)
    )
    SELECT * FROM row
) AS change WHERE item.fingerprint = change.fingerprint
"""  # noqa: S608 - our own numbers, nothing from outside

_INSERT: Final = f"""
INSERT INTO item (fingerprint, kind, state, attempts, planned_at, run, place, shown, key, business_id, url_hash)
SELECT substr(:names, 16 * key + 1, 16), value ->> 0, {_PLANNED}, 0, :now, :run,
    value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
FROM json_each(:rows) WHERE true
ON CONFLICT (fingerprint) DO NOTHING
"""  # noqa: S608 - our own numbers, nothing from outside

_NAMES: Final = [field.name for field in attrs.fields(Record)]
_TIMES: Final = [name for name in _NAMES if name.endswith("_at")]
_SOURCES: Final = {"row": "item.id", "group_id": "place.group_id", "facts": "item.error"}
_COLUMNS: Final = ", ".join(_SOURCES.get(name, f"item.{name}") for name in _NAMES)
"""The columns of a record, in the order of its fields."""

_BEGIN_CHECKPOINT: Final = "UPDATE head SET whole = 0, merges = merges + 1 RETURNING merges"

# One row comes back, whatever is found: see the top of this module.
_FIND: Final = f"""
SELECT json_group_array(json_array(wanted.key, {_COLUMNS}))
FROM json_each(:rows) AS wanted
CROSS JOIN item ON item.fingerprint = substr(:names, 16 * wanted.key + 1, 16)
LEFT JOIN place ON place.id = item.place
"""  # noqa: S608 - our own column names, nothing from outside


def _seconds(at: int | None) -> float | None:
    return None if at is None else at / 1000


def _record(row: Sequence[Any]) -> Record:
    """Return the record of a row with the columns of :data:`_COLUMNS`."""
    facts = dict(zip(_NAMES, row, strict=True))
    facts["facts"] = None if facts["facts"] is None else json.loads(facts["facts"])
    facts["kind"], facts["state"] = KINDS[facts["kind"]], STATES[facts["state"]]
    for name in _TIMES:
        facts[name] = _seconds(facts[name])
    return Record(**facts)


@attrs.define(eq=False, repr=False)
class Store:
    """An open journal. Only the thread that opened it uses it; :meth:`close` may come from another.

    :ivar secret: what the journal's fingerprints are keyed with.
    :ivar recovered: how many items were being sent when the last process died, and are in doubt since now.
    :ivar run: the number of the run that began with the opening; 0 where it is only read.
    :ivar files_error: the error of every write since the files are no longer the ones that were opened, or None.
    """

    path: Path
    _connection: sqlite3.Connection
    _lock: Lock | None
    secret: bytes = b""
    recovered: int = 0
    run: int = 0
    files_error: JournalError | None = None
    _closed: bool = False
    _checkpoints: int = 0
    _checkpointed: os.stat_result = attrs.field(init=False)
    _files: dict[str, os.stat_result] = attrs.field(factory=dict)
    _checked_at: float = 0.0
    _unchecked: int = 0

    @classmethod
    def open(cls, path: Path, *, durability: Durability, readonly: bool, now: int, died: str) -> Self:
        """Open the journal at ``path``, making it unless ``readonly``; ``died`` is the error of what is recovered.

        :raises JournalError: not a journal, another version, held by another process, not writable.
        :raises InvalidInput: ``durability`` is no word of :data:`Durability`.
        """
        if durability not in _SYNCHRONOUS:
            message = f"durability must be 'power' or 'process', not {durability!r}"
            raise InvalidInput(message)
        try:
            # Read before a lock is made beside it: what is not ours is not touched in any way.
            version = read_version(path)
            if readonly and version is None:
                message = "there is no journal to read; check the path"
                raise JournalError(message, about=f"journal {path}")
            with contextlib.ExitStack() as undo:
                lock = None
                if readonly:
                    check_version(path, readonly=True)
                else:
                    check_neighbours(path, ["-lock"])
                    lock = Lock.acquire(path)
                    undo.callback(lock.release)
                    create_or_migrate(path)
                store = cls(path, connect(path, readonly=readonly), lock)
                undo.callback(store._connection.close)
                store._begin(durability, now, died)
                undo.pop_all()
                return store
        except (OSError, sqlite3.Error) as error:
            raise unusable(path, error) from None

    def _begin(self, durability: Durability, now: int, died: str) -> None:
        execute = self._connection.execute
        execute("PRAGMA cache_size = -16384")
        self.secret = execute("SELECT value FROM secret").fetchone()[0]
        if self._lock is None:
            return
        execute("PRAGMA journal_mode = WAL")  # which a copy made by VACUUM has lost
        execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
        with self.transaction():
            self.run = execute("INSERT INTO run (started_at) VALUES (?) RETURNING id", (now,)).fetchone()[0]
            self._checkpoints = execute(_BEGIN_CHECKPOINT).fetchone()[0]
            doubt = f"UPDATE item SET state = {_IN_DOUBT}, doubted_at = ?, error = ?, run = ? WHERE state = {_SENDING}"  # noqa: S608 - our own numbers
            self.recovered = execute(doubt, (now, died, self.run)).rowcount
        execute("PRAGMA wal_autocheckpoint = 0")
        self._checkpoint()
        self._files = {suffix: Path(f"{self.path}{suffix}").stat() for suffix in ("", "-wal")}

    def close(self, now: int) -> None:
        """Note the end of this run, make a checkpoint, give the lock back; fail silently. It may be repeated."""
        if self._closed:
            return
        try:
            if self._lock is not None:
                with contextlib.suppress(sqlite3.Error, OSError):
                    self._check(self._lock)
                    if self.files_error is not None:
                        self._close_without_checkpoint()
                        return
                    self._connection.execute("UPDATE run SET ended_at = ? WHERE id >= ?", (now, self.run))
                    # Without readers closing makes one and removes the WAL by itself; with readers this makes it.
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            if self._lock is not None:
                self._lock.release()
            self._closed = True

    def _checkpoint(self) -> None:
        """Copy the WAL into the file, and note in the WAL that it is in use from here on."""
        # A reader that is at an older commit leaves a part of it for the next time.
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._checkpointed = self.path.stat()
        self._connection.execute("UPDATE head SET whole = 1")

    def check_files(self) -> None:
        """Now and then make sure that the files are still the ones that were opened, and keep the WAL small.

        :raises JournalError: they are not: nothing more can be written.
        """
        self._unchecked += 1
        due = self._unchecked >= _CHECK_COMMITS or time.monotonic() - self._checked_at >= _CHECK_EVERY
        if self._lock is not None and due:
            self._unchecked, self._checked_at = 0, time.monotonic()
            self._check(self._lock)
            if self.files_error is None and Path(f"{self.path}-wal").stat().st_size > _LARGE_WAL:
                (self._checkpoints,) = self._connection.execute(_BEGIN_CHECKPOINT).fetchone()
                self._checkpoint()
        if self.files_error is not None:
            raise self.files_error.with_traceback(None)

    def _check(self, lock: Lock) -> None:
        if self.files_error is None and (what := self._damage(lock)):
            advice = "nothing more is sent; bring back what was there"
            self.files_error = refused(self.path, f"{what} while it was in use", advice)

    def _damage(self, lock: Lock) -> str:
        """Return what became of the files since they were opened; nothing where all is well."""
        name = safe_text(self.path.name)
        for suffix, opened in self._files.items():
            try:
                if not os.path.samestat(Path(f"{self.path}{suffix}").stat(), opened):
                    return f"{name}{suffix} was replaced by another file"
            except FileNotFoundError:
                return f"{name}{suffix} was removed or moved away"
            except OSError:
                return f"{name}{suffix} cannot be reached"
        if not lock.in_place():
            return f"{name}-lock was removed or replaced, so that another process may write too"
        return f"{name} was overwritten, perhaps with an older copy of itself" if self._is_overwritten() else ""

    def _is_overwritten(self) -> bool:
        """Return whether somebody else has written into the file: only a checkpoint does, and only we make one."""
        facts, ours = self.path.stat(), self._checkpointed
        if (facts.st_mtime_ns, facts.st_size) == (ours.st_mtime_ns, ours.st_size):
            return False
        try:
            uri = f"{self.path.as_uri()}?mode=ro&immutable=1"
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as file_alone:
                found = file_alone.execute("SELECT merges, value FROM head, secret").fetchall()
        except sqlite3.Error:
            return True
        return found != [(self._checkpoints, self.secret)]

    def _close_without_checkpoint(self) -> None:
        """Close, and copy nothing into the file that lies there now, which the WAL does not belong to."""
        if not self.path.is_file():
            return  # the WAL belongs to what was moved away, and may follow it
        # The last connection makes a checkpoint when it is closed; so this is not the last one.
        with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(self.path, readonly=True)):
            self._connection.close()
        if os.path.samestat((wal := Path(f"{self.path}-wal")).stat(), self._files["-wal"]):
            wal.unlink()
            Path(f"{self.path}-shm").unlink(missing_ok=True)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside as one, or nothing of it."""
        self._connection.execute("BEGIN")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back by itself already.
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    def apply(self, changes: Sequence[Change]) -> dict[int, JournalError]:
        """Make the moves, at most one for each fingerprint; return the errors of those that are not allowed."""
        try:
            done = self._apply(changes)
        except sqlite3.IntegrityError:
            if len(changes) == 1:
                return {0: misuse(changes[0], self._state(changes[0]))}
            done = -1
        if done == len(changes):
            return {}
        if len(changes) == 1:
            return {0: misuse(changes[0], None)}
        # One of them is a mistake: each on its own then. A move that was made already is not made again, since
        # the statement did nothing at all, or all that it could.
        if done >= 0:
            return {n: misuse(it, None) for n, it in enumerate(changes) if self._state(it) is None}
        return {n: error for n, it in enumerate(changes) for error in self.apply([it]).values()}

    def _apply(self, changes: Sequence[Change]) -> int:
        rows = [(STATES.index(it.state), it.allowed, it.at, it.remote_id, it.error, it.run) for it in changes]
        arguments = {"names": b"".join([it.fingerprint for it in changes]), "rows": json.dumps(rows)}
        return self._connection.execute(_APPLY, arguments).rowcount

    def _state(self, change: Change) -> int | None:
        row = self._connection.execute("SELECT state FROM item WHERE fingerprint = ?", (change.fingerprint,)).fetchone()
        return None if row is None else row[0]

    def begin_run(self, run: int, now: int) -> None:
        """Note that ``run`` began, the next one since the opening."""
        self._connection.execute("INSERT INTO run (id, started_at) VALUES (?, ?)", (run, now))

    def unknown(self, asset_ids: Sequence[str]) -> list[str]:
        """Return those of ``asset_ids`` that no item has."""
        query = "SELECT value FROM json_each(?) EXCEPT SELECT remote_id FROM item"
        found = {row[0] for row in self._connection.execute(query, (json.dumps(asset_ids),))}
        return [asset_id for asset_id in asset_ids if asset_id in found]

    def origin(self, base_url: str, account: bytes) -> Origin:
        """Return what is known of the service at ``base_url`` and of ``account``."""
        execute = self._connection.execute
        asset = execute(
            f"""SELECT remote_id FROM item WHERE kind < 3 AND state IN ({_ACTIVE}, {_ACCEPTED})
            ORDER BY state = {_ACTIVE} DESC, id DESC LIMIT 1"""  # noqa: S608 - our own numbers
        ).fetchone()
        there = execute(f"SELECT 1 FROM item WHERE state NOT IN ({_PLANNED}, {_REFUSED}) LIMIT 1").fetchone()  # noqa: S608 - our own numbers
        known = execute("SELECT base_url, account = ? FROM service ORDER BY run", (account,)).fetchall()
        return Origin(
            known=(base_url, 1) in known,
            base_urls=tuple(dict.fromkeys(base for base, _ in known)),
            asset_id=None if asset is None else asset[0],
            empty=there is None,
        )

    def remember(self, base_url: str, account: bytes) -> None:
        """Note that what this journal holds is at the service at ``base_url``, in ``account``."""
        self._connection.execute("INSERT OR IGNORE INTO service VALUES (?, ?, ?)", (base_url, account, self.run))

    def claim(self, entries: Sequence[Entry], now: int, run: int) -> list[Record | None]:
        """Return the record of each entry that is known, and None for each that was new and is planned now."""
        execute = self._connection.execute
        names = b"".join([it.fingerprint for it in entries])
        group_ids = json.dumps([*dict.fromkeys(it.group_id for it in entries if it.group_id is not None)])
        execute("INSERT OR IGNORE INTO place (group_id) SELECT value FROM json_each(?)", (group_ids,))
        query = "SELECT group_id, id FROM place WHERE group_id IN (SELECT value FROM json_each(?))"
        groups = {None: None, **dict(execute(query, (group_ids,)))}
        rows = json.dumps(
            [
                (KINDS.index(it.kind), groups[it.group_id], it.shown, it.key, it.business_id, it.url_hash)
                for it in entries
            ]
        )
        for it in entries:
            if it.former is not None:
                adopt = "UPDATE OR IGNORE item SET fingerprint = ?, key = ? WHERE fingerprint = ? AND url_hash IS NULL"
                execute(adopt, (it.fingerprint, it.key, it.former))
        (last,) = execute("SELECT max(id) FROM item").fetchone()
        # Planned first and asked after: most batches are new as a whole, and then there is nothing to ask.
        if execute(_INSERT, {"names": names, "rows": rows, "now": now, "run": run}).rowcount == len(entries):
            return [None] * len(entries)
        known = self._find(names, rows)
        # Of the same item twice among the entries, new is only the first.
        seen: set[bytes] = set()
        for number, entry in enumerate(entries):
            if known[number].row > (last or 0) and entry.fingerprint not in seen:
                del known[number]
            seen.add(entry.fingerprint)
        return [known.get(number) for number in range(len(entries))]

    def renew(self, entries: Sequence[Entry], now: int, run: int) -> None:
        """Plan ``entries``, of which each has a row: that row stays, under a fingerprint which nothing else has."""
        execute = self._connection.execute
        for it in entries:
            # Of what was only planned there is nothing to keep.
            execute(f"DELETE FROM item WHERE fingerprint = ? AND state = {_PLANNED}", (it.fingerprint,))  # noqa: S608 - our own number
            execute("UPDATE item SET fingerprint = randomblob(16) WHERE fingerprint = ?", (it.fingerprint,))
        self.claim(entries, now, run)

    def groups(self) -> list[str]:
        """Return the ids of the groups that something in the journal belongs to."""
        return [row[0] for row in self._connection.execute("SELECT group_id FROM place ORDER BY id LIMIT 100")]

    def known(self, names: Sequence[bytes]) -> list[Record | None]:
        """Return the record of each fingerprint, or None where there is none; nothing is planned."""
        found = self._find(b"".join(names), json.dumps([None] * len(names)))
        return [found.get(number) for number in range(len(names))]

    def _find(self, names: bytes, rows: str) -> dict[int, Record]:
        (found,) = self._connection.execute(_FIND, {"names": names, "rows": rows}).fetchone()
        return {row[0]: _record(row[1:]) for row in sorted(json.loads(found))}

    def records(self, after: int, limit: int, states: Iterable[State], kinds: Iterable[Kind]) -> list[Record]:
        """Return the next ``limit`` records behind row ``after``, of these states and kinds."""
        query = f"""
            SELECT {_COLUMNS} FROM item LEFT JOIN place ON place.id = item.place
            WHERE item.id > :after AND item.state IN (SELECT value FROM json_each(:states))
            AND item.kind IN (SELECT value FROM json_each(:kinds)) ORDER BY item.id LIMIT :limit
        """  # noqa: S608 - our own column names, nothing from outside
        wanted = {"states": json.dumps([*map(STATES.index, states)]), "kinds": json.dumps([*map(KINDS.index, kinds)])}
        return [_record(row) for row in self._connection.execute(query, {"after": after, "limit": limit, **wanted})]

    def summary(self) -> Summary:
        """Return the journal in figures."""
        counts: dict[Kind, dict[State, int]] = {}
        doubted = 0
        query = "SELECT kind, state, count(*), count(doubted_at) FROM item GROUP BY kind, state"
        for kind, state, number, doubts in self._connection.execute(query):
            counts.setdefault(KINDS[kind], {})[STATES[state]] = number
            doubted += doubts
        runs = self._connection.execute("SELECT started_at, ended_at FROM run ORDER BY id")
        ran = tuple(Run(started_at=start / 1000, ended_at=_seconds(end)) for start, end in runs)
        return Summary(counts=counts, doubted=doubted, runs=ran)

    def save_learned(self, kind: str, facts: str) -> None:
        """Keep ``facts`` (JSON) for the next run, in place of what was kept of this ``kind``."""
        query = "INSERT INTO learned VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET facts = excluded.facts"
        self._connection.execute(query, (kind, facts))

    def learned(self) -> dict[str, Any]:
        """Return what was kept of each kind."""
        return {kind: json.loads(facts) for kind, facts in self._connection.execute("SELECT kind, facts FROM learned")}

    def note(self, at: int, values: str) -> None:
        """Keep one point for each name in ``values`` (a JSON object of numbers)."""
        self._connection.execute("INSERT INTO sample SELECT ?, key, value FROM json_each(?)", (at, values))

    def samples(self, after: int, limit: int) -> list[tuple[int, Sample]]:
        """Return the next ``limit`` noted points behind row ``after``, each with its row."""
        query = "SELECT rowid, at, name, value FROM sample WHERE rowid > ? ORDER BY rowid LIMIT ?"
        rows = self._connection.execute(query, (after, limit))
        return [(row, Sample(at=at / 1000, name=name, value=value)) for row, at, name, value in rows]
