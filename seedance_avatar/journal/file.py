"""The journal's file: whether it is one, who holds it, how it is made and brought up to date.

A file that is not a journal, or one of a newer version, is recognised by reading its first hundred bytes
(https://www.sqlite.org/fileformat.html, section 1.3), so that nothing in it or beside it is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import weakref
from pathlib import Path
from typing import Final

import attrs

from seedance_avatar.errors import JournalError
from seedance_avatar.journal import records
from seedance_avatar.text import safe_text

__all__ = ["APPLICATION_ID", "MIGRATIONS", "Lock", "connect", "look", "prepare", "read_version"]

APPLICATION_ID: Final = 0x53644176
_MAGIC: Final = b"SQLite format 3\0"
_OLDEST_SQLITE: Final = (3, 38)  # json_each and ->> in every build

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # Times are milliseconds since the epoch. Kinds and states are their places in KINDS and STATES.
        "CREATE TABLE place (id INTEGER PRIMARY KEY, group_id TEXT NOT NULL UNIQUE) STRICT",
        """CREATE TABLE item (
            id INTEGER PRIMARY KEY,
            fingerprint BLOB NOT NULL UNIQUE,
            kind INTEGER NOT NULL,
            state INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            place INTEGER REFERENCES place,
            shown TEXT NOT NULL,
            key TEXT,
            business_id TEXT,
            remote_id TEXT,
            planned_at INTEGER NOT NULL,
            sent_at INTEGER,
            accepted_at INTEGER,
            ended_at INTEGER,
            doubted_at INTEGER,
            error TEXT
        ) STRICT""",
        "CREATE TABLE run (id INTEGER PRIMARY KEY, started_at INTEGER NOT NULL, ended_at INTEGER) STRICT",
        "CREATE TABLE learned (kind TEXT PRIMARY KEY, facts TEXT NOT NULL) STRICT",
        "CREATE TABLE sample (at INTEGER NOT NULL, name TEXT NOT NULL, value REAL NOT NULL) STRICT",
        "CREATE TABLE secret (value BLOB NOT NULL) STRICT",
        "INSERT INTO secret VALUES (randomblob(32))",
    ),
    (
        # What an item's URL is without its query, as a keyed hash, and the run that changed the item last.
        "ALTER TABLE item ADD COLUMN url_hash INTEGER",
        "ALTER TABLE item ADD COLUMN run INTEGER",
        # A key names one item in its group; it named one in all groups.
        """UPDATE item SET fingerprint = key_in_group(fingerprint, (SELECT group_id FROM place WHERE id = place))
            WHERE key IS NOT NULL AND kind < 3""",
        # The services and accounts (a keyed hash of the API key) that are known to have what this journal holds.
        """CREATE TABLE service (
            base_url TEXT NOT NULL,
            account BLOB NOT NULL,
            run INTEGER NOT NULL,
            PRIMARY KEY (base_url, account)
        ) STRICT""",
        # Whether the file holds, with the log beside it or without, all that was ever committed: see store.py.
        "CREATE TABLE head (merges INTEGER NOT NULL, whole INTEGER NOT NULL) STRICT",
        "INSERT INTO head VALUES (0, 1)",
    ),
)
"""The statements that take a journal from each version to the next; a new one goes through all of them."""


def _refused(path: Path, what: str, advice: str) -> JournalError:
    return JournalError(f"{what}; {advice}", about=f"journal {safe_text(path, 160)}")


def unusable(path: Path, error: Exception) -> JournalError:
    """Return the error for a journal that the system or SQLite would not let us use."""
    what = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    advice = "it needs free space and a directory that can be written, on a local disk (not a network share)"
    return _refused(path, f"cannot be used: {what}", advice)


def read_version(path: Path) -> int | None:
    """Return the version of the journal at ``path``, or None where there is no file or an empty one.

    :raises JournalError: it is not a journal, or it is one of a newer version; it was not touched.
    """
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable(path, error) from None
    if not head:
        return None
    if len(head) < 100 or not head.startswith(_MAGIC) or int.from_bytes(head[68:72], "big") != APPLICATION_ID:  # noqa: PLR2004 - the header's own length
        raise _refused(path, "is not a journal of this library and was not touched", "give another path")
    return _not_newer(path, int.from_bytes(head[60:64], "big"))


def _not_newer(path: Path, version: int) -> int:
    if version > len(MIGRATIONS):
        what = f"has version {version} and was not touched: this library knows versions up to {len(MIGRATIONS)}"
        raise _refused(path, what, "use the library that wrote it, or a newer one")
    return version


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """Open the database itself, in autocommit mode, for the calling thread alone."""
    mode = "ro" if readonly else "rw"
    connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=5.0)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error:
        connection.close()
        # A reader of a WAL database makes its index beside it, which a read-only directory does not permit.
        # Without a log there is nothing to index, and the file can be read as it lies there.
        log = Path(f"{path}-wal")
        if not readonly or (log.exists() and log.stat().st_size > 0):
            raise
        return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return connection


def prepare(path: Path) -> None:
    """Make the journal at ``path`` where there is none, or bring an older one up to date. The lock is held.

    :raises JournalError: it is not a journal, or it is one of a newer version; it was not touched.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        what = f"needs SQLite {oldest} or newer, and Python was built with {sqlite3.sqlite_version}"
        raise _refused(path, what, "use a newer Python")
    if read_version(path) is None:
        # Made beside its place and moved there whole: a kill leaves a journal or none, never half of one.
        fresh = Path(f"{path}-new")
        # What a killed creation or a removed journal left behind must not be taken for this one's log.
        for leftover in ("-new", "-new-wal", "-new-shm", "-wal", "-shm"):
            Path(f"{path}{leftover}").unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(connect(fresh, readonly=False)) as connection:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise _refused(path, "lies on a file system without shared memory", "use a local disk")
            _migrate(connection, 0)
        fresh.replace(path)
        _sync_directory(path.parent)
    version = look(path)
    if version < len(MIGRATIONS):
        with contextlib.closing(connect(path, readonly=False)) as connection:
            _migrate(connection, version)


def look(path: Path, *, readonly: bool = False) -> int:
    """Return the version of the journal at ``path`` without changing anything in it.

    :raises JournalError: it is one of a newer version, or (``readonly``) of an older one.
    """
    # The header can be behind the log. A read-only look reads both, and merges nothing into the file.
    with contextlib.closing(connect(path, readonly=True)) as connection:
        version = _not_newer(path, connection.execute("PRAGMA user_version").fetchone()[0])
    if readonly and version < len(MIGRATIONS):
        raise _refused(path, f"has the older version {version}", "open it once for writing to bring it up to date")
    return version


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    def key_in_group(name: bytes, group_id: str | None) -> bytes:
        (secret,) = connection.execute("SELECT value FROM secret").fetchone()
        return records.key_in_group(records.hasher(secret), name, group_id)

    connection.create_function("key_in_group", 2, key_in_group)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _sync_directory(directory: Path) -> None:
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@attrs.define(eq=False, repr=False)
class Lock:
    """One writer at a time: a lock of the system on a file beside the journal, which holds the writer's pid.

    The system frees it when the process ends, however it ends, so it cannot be stale. The file goes away
    with it.
    """

    _path: Path
    _number: int

    @classmethod
    def acquire(cls, journal: Path) -> Lock:
        """Take the lock.

        :raises JournalError: another process, or another ``Journal`` of this one, holds it.
        """
        path = Path(f"{journal}-lock")
        while True:
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                try:
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise _held(journal, os.pread(number, 20, 0)) from None
                # Who held it before may have removed the file between our two calls: then we locked a ghost.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(number), path.stat()):
                        os.ftruncate(number, 0)
                        os.pwrite(number, b"%d\n" % os.getpid(), 0)
                        lock = cls(path, number)
                        _held_here.add(lock)
                        return lock
            except BaseException:
                os.close(number)
                raise
            os.close(number)

    def release(self) -> None:
        """Give the lock back and remove its file; a second time does nothing."""
        if self._number >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self.forget()

    def forget(self) -> None:
        """Close our handle without touching the lock itself: what a forked child does with its copy."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)


def _held(path: Path, content: bytes) -> JournalError:
    pid = content.strip().decode("ascii", "replace")
    if pid == str(os.getpid()):
        return _refused(path, "is already open in this process", "close it there first")
    holder = f"process {pid}" if pid.isdigit() else "another process"
    return _refused(path, f"is held by {holder}", "wait until it has ended, or open it with readonly=True")


_held_here: weakref.WeakSet[Lock] = weakref.WeakSet()


def _after_fork() -> None:
    # A child's copy of the handle would keep the lock alive after its parent is dead.
    for lock in list(_held_here):
        lock.forget()


os.register_at_fork(after_in_child=_after_fork)
