"""The journal's statements, run on the one thread that owns the connection.

What is committed goes to the log (``-wal``) beside the file, and from there into the file now and then. ``head.whole``
is 0 in the file and 1 in the log for as long as there is a log: whoever merges all of the log leaves a 1, and a file
with a 0 that has no log beside it has lost one.

A batch goes to SQLite as one statement over one JSON array, not as a statement a row: the interpreter lock
is given up once a batch, and the loop's thread does not fight for it over every row.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import attrs

from seedance_avatar.errors import InvalidInput, JournalError
from seedance_avatar.text import safe_text

from .file import check_neighbours, connect, look, prepare, read_version, unusable
from .lock import Lock, refused
from .records import KINDS, STATES, Change, Entry, Kind, Origin, Record, Run, Sample, State, Summary, misuse

__all__ = ["Durability", "Store"]

Durability: TypeAlias = Literal["power", "process"]
"""What a commit survives: the loss of power, or only the death of the process."""

_SYNCHRONOUS: Final = {"power": "FULL", "process": "NORMAL"}
_EVERY: Final = 1.0
"""Seconds between two looks at the files."""

_LARGE_LOG: Final = 4 << 20
"""Bytes in the log from which on it is merged into the file."""

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

_FIELDS: Final = """
    item.id, item.kind, item.state, item.shown, place.group_id, item.key, item.attempts, item.remote_id,
    item.business_id, item.planned_at, item.sent_at, item.accepted_at, item.ended_at, item.doubted_at, item.error,
    item.url_hash, item.run
"""

_TIMES: Final = ("planned_at", "sent_at", "accepted_at", "ended_at", "doubted_at")
_NAMES: Final = (
    *("row", "kind", "state", "shown", "group_id", "key", "attempts", "remote_id", "business_id"),
    *_TIMES,
    *("error", "url_hash", "run"),
)
"""The fields of a record for the columns of :data:`_FIELDS`, in their order."""

# One row comes back, whatever is found: see the top of this module.
_FIND: Final = f"""
SELECT json_group_array(json_array(wanted.key, {_FIELDS}))
FROM json_each(:rows) AS wanted
CROSS JOIN item ON item.fingerprint = substr(:names, 16 * wanted.key + 1, 16)
LEFT JOIN place ON place.id = item.place
"""  # noqa: S608 - our own column names, nothing from outside


def _which(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino


def _seconds(at: int | None) -> float | None:
    return None if at is None else at / 1000


def _record(row: Sequence[Any]) -> Record:
    """Return the record of a row with the columns of :data:`_FIELDS`."""
    facts = dict(zip(_NAMES, row, strict=True))
    error = facts.pop("error")
    facts["facts"] = None if error is None else json.loads(error)
    facts["kind"], facts["state"] = KINDS[facts["kind"]], STATES[facts["state"]]
    for name in _TIMES:
        facts[name] = _seconds(facts[name])
    return Record(**facts)


@attrs.define(eq=False, repr=False)
class Store:
    """An open journal, as its thread sees it. Not to be used from any other.

    :ivar secret: what the journal's fingerprints are keyed with.
    :ivar recovered: how many items were being sent when the last process died, and are in doubt since now.
    :ivar run: the number of the run that began with the opening; 0 where it is only read.
    :ivar gone: the error of every write since the files on the disk are no longer the ones that were opened, or None.
    """

    path: Path
    _connection: sqlite3.Connection
    _lock: Lock | None
    secret: bytes = b""
    recovered: int = 0
    run: int = 0
    gone: JournalError | None = None
    _closed: bool = False
    _merges: int = 0
    _ours: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    _merged: tuple[int, int] = (0, 0)
    _looked_at: float = 0.0
    _places: dict[str, int] = attrs.field(factory=dict)

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
            # Looked at before a lock is made beside it: what is not ours is not touched in any way.
            version = read_version(path)
            if readonly and version is None:
                message = "there is no journal to read; check the path"
                raise JournalError(message, about=f"journal {path}")
            if not readonly:
                check_neighbours(path, ["-lock"])
            lock = None if readonly else Lock.acquire(path)
            try:
                if readonly:
                    look(path, readonly=True)
                else:
                    prepare(path)
                store = cls(path, connect(path, readonly=readonly), lock)
                try:
                    store._begin(durability, now, died)
                except BaseException:
                    store._connection.close()
                    raise
            except BaseException:
                if lock is not None:
                    lock.release()
                raise
        except (OSError, sqlite3.Error) as error:
            raise unusable(path, error) from None
        return store

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
            self._merges = execute("UPDATE head SET whole = 0, merges = merges + 1 RETURNING merges").fetchone()[0]
            doubt = f"UPDATE item SET state = {_IN_DOUBT}, doubted_at = ?, error = ?, run = ? WHERE state = {_SENDING}"  # noqa: S608 - our own numbers
            self.recovered = execute(doubt, (now, died, self.run)).rowcount
        execute("PRAGMA wal_autocheckpoint = 0")
        self._merge()
        self._ours = {suffix: _which(Path(f"{self.path}{suffix}")) for suffix in ("", "-wal")}

    def close(self, now: int) -> None:
        """Note the end of this run, merge the log into the file, give the lock back; fail silently. It may be repeated.

        The one method that another thread may call, when the one that owned the connection is dead.
        """
        if self._closed:
            return
        try:
            if self._lock is not None:
                with contextlib.suppress(sqlite3.Error, OSError):
                    self.gone = self.gone or self._look(self._lock)
                    if self.gone is not None:
                        self._let_go()
                        return
                    self._connection.execute("UPDATE run SET ended_at = ? WHERE id >= ?", (now, self.run))
                    # Without readers closing merges and removes the log by itself; with readers this merges it.
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            if self._lock is not None:
                self._lock.release()
            self._closed = True

    def _merge(self) -> None:
        """Merge the log into the file, and note in the log that it is in use from here on."""
        # A reader that is at an older commit leaves a part of it for the next time.
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        facts = self.path.stat()
        self._merged = facts.st_mtime_ns, facts.st_size
        self._connection.execute("UPDATE head SET whole = 1")

    def check_files(self) -> None:
        """Once a second see to it that the files are still the ones that were opened, and merge a large log.

        :raises JournalError: they are not: nothing more can be written.
        """
        if self._lock is not None and time.monotonic() - self._looked_at >= _EVERY:
            self._looked_at = time.monotonic()
            self.gone = self.gone or self._look(self._lock)
            if self.gone is None and Path(f"{self.path}-wal").stat().st_size > _LARGE_LOG:
                query = "UPDATE head SET whole = 0, merges = merges + 1 RETURNING merges"
                (self._merges,) = self._connection.execute(query).fetchone()
                self._merge()
        if self.gone is not None:
            raise self.gone.with_traceback(None)

    def _look(self, lock: Lock) -> JournalError | None:
        what, name = "", safe_text(self.path.name)
        for suffix, ours in self._ours.items():
            try:
                if _which(Path(f"{self.path}{suffix}")) != ours:
                    what = f"{name}{suffix} was replaced by another file"
            except OSError as error:
                became = "was removed or moved away" if isinstance(error, FileNotFoundError) else "cannot be reached"
                what = f"{name}{suffix} {became}"
            if what:
                break
        else:
            if not lock.in_place():
                what = f"{name}-lock was removed or replaced, so that another process may write too"
            elif self._is_overwritten():
                what = f"{name} was overwritten, perhaps with an older copy of itself"
        if not what:
            return None
        return refused(self.path, f"{what} while it was in use", "nothing more is sent; bring back what was there")

    def _is_overwritten(self) -> bool:
        """Return whether somebody else has written into the file: only a merge does, and only we merge."""
        facts = self.path.stat()
        if (facts.st_mtime_ns, facts.st_size) == self._merged:
            return False
        try:
            uri = f"{self.path.as_uri()}?mode=ro&immutable=1"
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as file_alone:
                found = file_alone.execute("SELECT merges, value FROM head, secret").fetchall()
        except sqlite3.Error:
            return True
        return found != [(self._merges, self.secret)]

    def _let_go(self) -> None:
        """Close without merging the log into what lies there now, which is not what it belongs to."""
        if not self.path.is_file():
            return  # the log belongs to what was moved away, and may follow it
        # The last connection merges when it is closed; so this is not the last one.
        with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(self.path, readonly=True)):
            self._connection.close()
        if _which(log := Path(f"{self.path}-wal")) == self._ours["-wal"]:
            log.unlink()
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
            self._places.clear()
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
        names = b"".join([it.fingerprint for it in changes])
        return self._connection.execute(_APPLY, {"names": names, "rows": json.dumps(rows)}).rowcount

    def _state(self, change: Change) -> int | None:
        row = self._connection.execute("SELECT state FROM item WHERE fingerprint = ?", (change.fingerprint,)).fetchone()
        return None if row is None else row[0]

    def begin_run(self, run: int, now: int) -> None:
        """Note that ``run`` began, the next one since the opening."""
        self._connection.execute("INSERT INTO run (id, started_at) VALUES (?, ?)", (run, now))

    def unknown(self, asset_ids: Sequence[str]) -> list[str]:
        """Return those of ``asset_ids`` that no item has."""
        query = """SELECT value FROM json_each(?)
            WHERE value NOT IN (SELECT remote_id FROM item WHERE remote_id IS NOT NULL)"""
        return [asset_id for (asset_id,) in self._connection.execute(query, (json.dumps(asset_ids),))]

    def origin(self, base_url: str, account: bytes) -> Origin:
        """Return what is known of the service at ``base_url`` and of ``account``."""
        execute = self._connection.execute
        asset = execute(
            f"""SELECT remote_id FROM item WHERE kind < 3 AND state IN ({_ACTIVE}, {_ACCEPTED})
            ORDER BY state = {_ACTIVE} DESC, id DESC LIMIT 1"""  # noqa: S608 - our own numbers
        ).fetchone()
        sent = execute(f"SELECT 1 FROM item WHERE state <> {_PLANNED} LIMIT 1").fetchone()  # noqa: S608 - our own number
        known = execute("SELECT base_url, account = ? FROM service ORDER BY run", (account,)).fetchall()
        return Origin(
            known=(base_url, 1) in known,
            base_urls=tuple(dict.fromkeys(base for base, _ in known)),
            asset_id=None if asset is None else asset[0],
            empty=sent is None,
        )

    def remember(self, base_url: str, account: bytes) -> None:
        """Note that what this journal holds is at the service at ``base_url``, in ``account``."""
        self._connection.execute("INSERT OR IGNORE INTO service VALUES (?, ?, ?)", (base_url, account, self.run))

    def claim(self, entries: Sequence[Entry], now: int, run: int) -> list[Record | None]:
        """Return the record of each entry that is known, and None for each that was new and is planned now."""
        names = b"".join([it.fingerprint for it in entries])
        rows = json.dumps(
            [(KINDS.index(it.kind), self._place(it), it.shown, it.key, it.business_id, it.url_hash) for it in entries]
        )
        execute = self._connection.execute
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
        for it in entries:
            # Of what was only planned there is nothing to keep.
            self._connection.execute(
                f"DELETE FROM item WHERE fingerprint = ? AND state = {_PLANNED}",  # noqa: S608 - our own number
                (it.fingerprint,),
            )
            self._connection.execute(
                "UPDATE item SET fingerprint = randomblob(16) WHERE fingerprint = ?", (it.fingerprint,)
            )
        self.claim(entries, now, run)

    def groups(self) -> list[str]:
        """Return the ids of the groups that something in the journal belongs to."""
        return [
            group_id for (group_id,) in self._connection.execute("SELECT group_id FROM place ORDER BY id LIMIT 100")
        ]

    def known(self, names: Sequence[bytes]) -> list[Record | None]:
        """Return the record of each fingerprint, or None where there is none; nothing is planned."""
        found = self._find(b"".join(names), json.dumps([None] * len(names)))
        return [found.get(number) for number in range(len(names))]

    def _find(self, names: bytes, rows: str) -> dict[int, Record]:
        (found,) = self._connection.execute(_FIND, {"names": names, "rows": rows}).fetchone()
        return {row[0]: _record(row[1:]) for row in sorted(json.loads(found))}

    def _place(self, entry: Entry) -> int | None:
        if entry.group_id is None:
            return None
        number = self._places.get(entry.group_id)
        if number is None:
            self._connection.execute("INSERT OR IGNORE INTO place (group_id) VALUES (?)", (entry.group_id,))
            (number,) = self._connection.execute(
                "SELECT id FROM place WHERE group_id = ?", (entry.group_id,)
            ).fetchone()
            self._places[entry.group_id] = number
        return number

    def records(
        self, after: int, limit: int, *, states: Sequence[State], kinds: Sequence[Kind]
    ) -> list[tuple[int, Record]]:
        """Return the next ``limit`` records behind row ``after``, of these states and kinds, each with its row."""
        query = f"""
            SELECT {_FIELDS} FROM item LEFT JOIN place ON place.id = item.place
            WHERE item.id > :after AND item.state IN (SELECT value FROM json_each(:states))
            AND item.kind IN (SELECT value FROM json_each(:kinds)) ORDER BY item.id LIMIT :limit
        """  # noqa: S608 - our own column names, nothing from outside
        wanted = {
            "after": after,
            "limit": limit,
            "states": json.dumps([STATES.index(it) for it in states]),
            "kinds": json.dumps([KINDS.index(it) for it in kinds]),
        }
        return [(row[0], _record(row)) for row in self._connection.execute(query, wanted)]

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
        rows = self._connection.execute("SELECT kind, facts FROM learned")
        return {kind: json.loads(facts) for kind, facts in rows}

    def note(self, at: int, values: str) -> None:
        """Keep one point for each name in ``values`` (a JSON object of numbers)."""
        query = "INSERT INTO sample SELECT ?, key, value FROM json_each(?)"
        self._connection.execute(query, (at, values))

    def samples(self, after: int, limit: int) -> list[tuple[int, Sample]]:
        """Return the next ``limit`` noted points behind row ``after``, each with its row."""
        query = "SELECT rowid, at, name, value FROM sample WHERE rowid > ? ORDER BY rowid LIMIT ?"
        rows = self._connection.execute(query, (after, limit))
        return [(row, Sample(at=at / 1000, name=name, value=value)) for row, at, name, value in rows]
