"""The file of a `SqliteJournal`: how it is opened, what is in it, how SQLite's refusals read in our words, how rows are verified."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from sage_actor.durable.journal import JournalEntry, Snapshot, entries_deleted
from sage_actor.errors import JournalCorrupt, JournalError, JournalUnavailable

__all__ = ["EntityRecord", "Row", "entries_of", "open_file", "snapshot_of", "translated"]

VERSION: Final = 1
_SMALLEST: Final = 512  # bytes; the smallest page SQLite knows
_MARK: Final = 0x53414A31  # application_id: tells a journal from any other SQLite database

# Entries carry the entity's text id: a checksum over it can be verified from the row alone, and entries whose entity record
# was lost are still known to be there. WITHOUT ROWID keeps the entries of an entity together, which is how they are read.
_SCHEMA: Final = f"""
CREATE TABLE entities (id TEXT PRIMARY KEY NOT NULL, last INTEGER NOT NULL, compacted INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    id TEXT NOT NULL, sequence INTEGER NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    payload BLOB NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (id, sequence)
) WITHOUT ROWID;
CREATE TABLE snapshots (
    id TEXT NOT NULL, sequence INTEGER NOT NULL, version INTEGER NOT NULL, payload BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (id, sequence)
);
PRAGMA application_id = {_MARK};
PRAGMA user_version = {VERSION};
"""

Row = Sequence[object]


class EntityRecord(NamedTuple):
    """What is known of an entity beside its entries: the last of them, and the last that was deleted."""

    last: int
    compacted: int


def open_file(path: str, lock_timeout: float) -> sqlite3.Connection:
    """A connection in autocommit mode, to a journal that is there or begins here. Blocks; closed by its caller.

    Raises:
        JournalError: no access, locked, another application's, damaged, or of a newer version. Nothing was changed then.
    """
    try:
        _create_folder(Path(path).parent)
        _refuse_by_size(path)
        connection = sqlite3.connect(path, timeout=lock_timeout, isolation_level=None, check_same_thread=False)
    except OSError as error:
        raise JournalUnavailable(path, f"it cannot be opened: {error}", "check the path and who may write there") from error
    except sqlite3.Error as error:
        raise translated(error, path) from error
    try:
        _prepare(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise translated(error, path) from error
        raise
    return connection


def _create_folder(folder: Path) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for created in missing:  # SQLite makes the file's own name durable; the names of new folders are for us
        place = os.open(created.parent, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)


def _refuse_by_size(path: str) -> None:
    # By size, because closing a file that a connection of this process has open would drop that connection's locks.
    size, log = _size(path), path + "-wal"
    if 0 < size < _SMALLEST:
        raise _not_a_database(path)  # SQLite would take it for an empty one
    if not size and _size(log):  # SQLite would delete this log, and the newest entries may be in it alone
        raise JournalCorrupt(path, "", 0, f"it is empty or missing, but its log {log!r} is there")


def _size(path: str) -> int:
    return os.stat(path).st_size if os.path.exists(path) else 0


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    """Look before anything is written: a foreign file stays as it is."""
    with _transaction(connection, "BEGIN"):
        begins = not _is_ours(connection, path)
    if begins:
        with _transaction(connection, "BEGIN EXCLUSIVE"):
            if not _is_ours(connection, path):  # nobody was faster
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
    mode = _use_log(connection)
    if mode != "wal":
        raise JournalUnavailable(path, f"SQLite cannot keep a write-ahead log there (it says {mode!r})", "put it on a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    with _transaction(connection, "BEGIN IMMEDIATE"):  # a read-only file, or a lock, shows now and not at the first append
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("ROLLBACK")


def _use_log(connection: sqlite3.Connection) -> object:
    # Where two begin one file at the same time SQLite refuses this at once instead of waiting. So wait for the other one
    # in a way that it does wait in, then try again.
    for _ in range(20):
        try:
            return _one(connection, "PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        with _transaction(connection, "BEGIN EXCLUSIVE"):
            pass
    return _one(connection, "PRAGMA journal_mode = WAL")


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Generator[None, None, None]:
    connection.execute(begin)
    try:
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _is_ours(connection: sqlite3.Connection, path: str) -> bool:
    """True for a journal of this version, False for an empty database; anything else is refused. Within a transaction."""
    mark, version = _one(connection, "PRAGMA application_id"), _one(connection, "PRAGMA user_version")
    if mark == _MARK and version == VERSION:
        return True
    if mark == _MARK:
        reason = f"its format is version {version}, this program knows version {VERSION}"
        raise JournalUnavailable(path, reason, "upgrade sage_actor, or name another file; nothing was changed")
    if mark or version or _one(connection, "SELECT count(*) FROM sqlite_master"):
        raise JournalUnavailable(path, "it is a database of another application", "name another file; nothing was changed")
    return False


def _one(connection: sqlite3.Connection, query: str) -> object:
    row: tuple[object, ...] = connection.execute(query).fetchone()
    return row[0]


def translated(error: sqlite3.Error, path: str, id: str = "") -> JournalError:
    """SQLite's refusal in our words, with what to do about it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the rest a detail of it
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JournalUnavailable(path, f"another process holds it locked ({error})", "end that process, or raise lock_timeout")
    if code == sqlite3.SQLITE_FULL:
        return JournalUnavailable(path, "the disk is full; what was being written was not stored", "free some space, then try again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        hint = "the file and its folder must be writable; nothing was changed"
        return JournalUnavailable(path, f"it cannot be opened for writing: {error}", hint)
    if code == sqlite3.SQLITE_NOTADB:
        return _not_a_database(path)
    if code == sqlite3.SQLITE_TOOBIG:
        return JournalError(path, f"entity {id!r}: a payload is larger than SQLite stores ({error})", "keep large data elsewhere")
    if code == sqlite3.SQLITE_CORRUPT or str(error).startswith("Could not decode"):
        return JournalCorrupt(path, id, 0, str(error))
    if code == sqlite3.SQLITE_CONSTRAINT:
        return JournalCorrupt(path, id, 0, f"entries are there that its record does not know of ({error})")
    return JournalUnavailable(path, f"SQLite refused: {error}", "check the disk; nothing that was stored is lost")


def _not_a_database(path: str) -> JournalUnavailable:
    return JournalUnavailable(path, "it is not a journal, and not a database at all", "name another file; nothing was changed")


def snapshot_of(id: str, row: Row) -> Snapshot | None:
    """The snapshot in ``sequence, version, payload, checksum``, or None if it fails its checksum."""
    sequence, version, payload, checksum = row
    if not (isinstance(sequence, int) and isinstance(version, int) and isinstance(payload, bytes)):
        return None
    snapshot = Snapshot(sequence, version, payload)
    return snapshot if snapshot.checksum(id) == checksum else None


def entries_of(path: str, id: str, after: int, record: EntityRecord, rows: Sequence[Row]) -> Iterator[JournalEntry]:
    """The entries in ``sequence, kind, version, at_ms, payload, checksum``, each verified before it comes out.

    ``rows`` are the first entries behind ``after``; none if there are none.

    Raises:
        JournalCorrupt: at the first that is damaged or missing.
        JournalError: ``after`` lies before what was deleted.
    """
    if after < record.compacted:
        raise entries_deleted(path, id, record.compacted, after + 1)
    expected = after
    for sequence, kind, version, at_ms, payload, checksum in rows:
        expected += 1
        if sequence != expected:
            raise JournalCorrupt(path, id, expected, f"it is missing; the next one there is {sequence!r}")
        if expected > record.last:
            raise JournalCorrupt(path, id, expected, f"it is there, but entry {record.last} is on record as the last")
        if not (isinstance(kind, str) and isinstance(version, int) and isinstance(at_ms, int) and isinstance(payload, bytes)):
            raise JournalCorrupt(path, id, expected, "its columns hold something else")
        entry = JournalEntry(expected, kind, version, payload, at_ms)
        if entry.checksum(id) != checksum:
            raise JournalCorrupt(path, id, expected, "it fails its checksum")
        yield entry
    if not rows and after < record.last:
        raise JournalCorrupt(path, id, after + 1, f"it is missing; entry {record.last} is on record as the last")
