"""The journal's file on the disk: recognised by its header, created, migrated, connected to.

A file that is not a journal, or one of a newer version, is recognised by reading its first hundred bytes
(https://www.sqlite.org/fileformat.html, section 1.3), so that nothing in it or beside it is touched.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from seedance_avatar.errors import JournalError
from seedance_avatar.text import safe_text

from .lock import refused
from .records import Hasher

APPLICATION_ID: Final = 0x53644176
_MAGIC: Final = b"SQLite format 3\0"
_HEADER: Final = 100
_OLDEST_SQLITE: Final = (3, 38)  # json_each and ->> in every build
_LONGEST_PID: Final = 20

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


def locate(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of the journal at ``path``, with every symbolic link resolved.

    :raises JournalError: no file can have this name.
    """
    try:
        return Path(os.fsdecode(path)).resolve()
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        message = f"{safe_text(path, 160)} cannot be the path of a journal: {error}; give the path of a file"
        raise JournalError(message) from None


def unusable(path: Path, error: Exception) -> JournalError:
    """Return the error for a journal that the operating system or SQLite refuses to open, read or write."""
    what = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    advice = "it needs free space and a directory that can be written, on a local disk (not a network share)"
    return refused(path, f"cannot be used: {what}", advice)


def read_version(path: Path) -> int | None:
    """Return the version of the journal at ``path``, or None where there is no file or an empty one.

    :raises JournalError: it is not a journal, or it is one of a newer version; it was not touched.
    """
    try:
        # Before it is opened: opening a pipe would wait for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise refused(
                path, "is a folder, a device or a pipe and was not touched", "give the path of a regular file"
            )
        header = _header(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unusable(path, error) from None
    if not header:
        return None
    if len(header) < _HEADER or not _is_journal(header):
        raise refused(path, "is not a journal of this library and was not touched", "give another path")
    return _supported(path, int.from_bytes(header[60:64], "big"))


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER)


def _is_journal(header: bytes) -> bool:
    return header.startswith(_MAGIC) and int.from_bytes(header[68:72], "big") == APPLICATION_ID


_WAL_MAGIC: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_INDEX_MAGIC: Final = ((3007000).to_bytes(4, sys.byteorder), bytes(4))
_BESIDE: Final = ("-journal", "-wal", "-shm")
_BESIDE_NEW: Final = (*_BESIDE, "-new", "-new-journal", "-new-wal", "-new-shm")


def _is_ours(suffix: str, header: bytes) -> bool:
    """Return whether a file with this ``header``, at a journal's name plus ``suffix``, is the journal's own."""
    match suffix:
        case "-wal" | "-new-wal":
            return not header or header[:4] in _WAL_MAGIC
        case "-shm" | "-new-shm":
            return not header or header[:4] in _INDEX_MAGIC
        case "-new":
            return not header or _is_journal(header)
        case "-lock":
            return not header or (len(header) <= _LONGEST_PID and header.strip().isdigit())
        case _:
            return False


def check_neighbours(path: Path, suffixes: Sequence[str], *, new: bool = False) -> None:
    """Refuse the journal at ``path`` where a file of somebody else lies at its name plus one of ``suffixes``.

    :param new: there is no journal yet.
    :raises JournalError: it names the file, which was not touched.
    """
    for suffix in suffixes:
        beside = Path(f"{path}{suffix}")
        try:
            facts = beside.lstat()
        except FileNotFoundError:
            continue
        # A second name of a file is a name that we have not given it.
        alone = stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1
        if alone and _is_ours(suffix, _header(beside)):
            if new and suffix == "-wal" and facts.st_size:
                what = f"is not there, but its log {safe_text(beside.name)} is"
                raise refused(path, what, "bring the journal back; to begin anew, remove the log")
            continue
        what = f"needs the name {safe_text(beside.name)} beside it, which something else has (it was not touched)"
        raise refused(path, what, "give another path, or move that away")


def _supported(path: Path, version: int) -> int:
    if version > len(MIGRATIONS):
        what = f"has version {version} and was not touched: this library knows versions up to {len(MIGRATIONS)}"
        raise refused(path, what, "use the library that wrote it, or a newer one")
    return version


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """Return a connection to the database, in autocommit mode, for one thread at a time."""
    uri = f"{path.as_uri()}?mode={'ro' if readonly else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error:
        connection.close()
        # A reader of a WAL database makes its index beside it, which a read-only directory does not permit.
        # Without a WAL there is nothing to index, and the file can be read as it lies there.
        if not readonly or _has_wal(path):
            raise
        return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return connection


def _has_wal(path: Path) -> bool:
    wal = Path(f"{path}-wal")
    return wal.exists() and wal.stat().st_size > 0


def create_or_migrate(path: Path) -> None:
    """Create the journal at ``path`` where there is none, or migrate an older one. The caller holds the lock.

    :raises JournalError: it is not a journal, or it is one of a newer version; it was not touched.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        what = f"needs SQLite {oldest} or newer, and Python was built with {sqlite3.sqlite_version}"
        raise refused(path, what, "use a newer Python")
    new = read_version(path) is None
    check_neighbours(path, _BESIDE_NEW if new else _BESIDE, new=new)
    if new:
        # Made beside its place and moved there whole: a kill leaves a journal or none, never half of one.
        fresh = Path(f"{path}-new")
        # What a killed creation or a removed journal left behind must not be taken for this one's WAL.
        for leftover in ("-new", "-new-wal", "-new-shm", "-wal", "-shm"):
            Path(f"{path}{leftover}").unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(connect(fresh, readonly=False)) as connection:
            # First of all it is made known as ours, in one write, so that a later run may clear it away.
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise refused(path, "lies on a file system without shared memory", "use a local disk")
            _migrate(connection, 0)
        fresh.replace(path)
        _sync_directory(path.parent)
    version = check_version(path, has_wal=new or _has_wal(path))  # looked for before we open the file, which makes one
    if version < len(MIGRATIONS):
        with contextlib.closing(connect(path, readonly=False)) as connection:
            _migrate(connection, version)


def check_version(path: Path, *, readonly: bool = False, has_wal: bool = True) -> int:
    """Return the version of the journal at ``path``, and change nothing in it.

    :raises JournalError: it is of a newer version, or (``readonly``) of an older one; or its WAL is missing.
    """
    # The header can be behind the WAL. A read-only connection reads both, and makes no checkpoint.
    with contextlib.closing(connect(path, readonly=True)) as connection:
        version = _supported(path, connection.execute("PRAGMA user_version").fetchone()[0])
        if not has_wal and version > 1 and connection.execute("SELECT whole FROM head").fetchone() == (0,):
            log = f"{safe_text(path.name)}-wal"
            what = f"was not closed, and its log {log}, which holds the ids of its last run, is missing"
            raise refused(path, what, "put the log beside it, or begin with a new journal")
    if readonly and version < len(MIGRATIONS):
        raise refused(path, f"has the older version {version}", "open it once for writing to bring it up to date")
    return version


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    def key_in_group(name: bytes, group_id: str | None) -> bytes:
        (secret,) = connection.execute("SELECT value FROM secret").fetchone()
        return Hasher(secret).key_in_group(name, group_id)

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
    try:
        number = os.open(directory, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder, and has the name on the disk by itself
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)
