"""A journal in one SQLite file, with group commit.

One task owns the connection. It takes everything that wants to be appended at that moment, whoever asks, into one
transaction: the disk is waited for once a group, not once an append. Which appends of a group conflict is decided before
anything is written, so a conflict costs the others nothing; if SQLite refuses the group as a whole, each goes alone.
(A savepoint around each append would isolate them too, at three more round trips to SQLite's thread each.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar, cast

from sage_actor.durable.journal import JournalEntry, Snapshot, check_append, check_id, check_snapshot, snapshot_ahead
from sage_actor.durable.sqlite_file import EntityRecord, Row, entries_of, open_file, snapshot_of, translated
from sage_actor.durations import parse_duration
from sage_actor.errors import ConfigError, JournalConflict, JournalCorrupt, JournalError, JournalUnavailable

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["SqliteJournal"]

R = TypeVar("R")

_log = logging.getLogger("sage_actor.durable")

_LARGEST: Final = 2**63 - 1
_GROUP_APPENDS: Final = 500
_GROUP_BYTES: Final = 8 * 1024 * 1024
_PAGE_ENTRIES: Final = 256
_PAGE_BYTES: Final = 1024 * 1024
_SLICE: Final = 2_000  # entries deleted per transaction: other entities wait no longer than that takes

# The record, and the highest sequence and a snapshot that are really there: a record that was lost shows.
_RECORD = """
SELECT last, compacted, (SELECT max(sequence) FROM entries WHERE id = :id), EXISTS (SELECT 1 FROM snapshots WHERE id = :id)
FROM (SELECT 1) LEFT JOIN entities ON entities.id = :id
"""
# Up to a number of entries and, but for the first, of bytes. The innermost SELECT reads lengths only, no payloads.
_PAGE = f"""
SELECT sequence, kind, version, at_ms, payload, checksum FROM entries WHERE id = :id AND sequence > :after AND sequence <= (
    SELECT max(sequence) FROM (
        SELECT sequence, sum(size) OVER (ORDER BY sequence) - size AS before FROM (
            SELECT sequence, length(payload) AS size FROM entries WHERE id = :id AND sequence > :after
            ORDER BY sequence LIMIT {_PAGE_ENTRIES}
        )
    ) WHERE before < {_PAGE_BYTES}
) ORDER BY sequence
"""
_SNAPSHOT = "SELECT sequence, version, payload, checksum FROM snapshots WHERE id = ? AND sequence < ? ORDER BY sequence DESC LIMIT 1"
_IDS = f"SELECT id FROM entities WHERE id > ? ORDER BY id LIMIT {_PAGE_ENTRIES}"
_SAVE_RECORD = "INSERT INTO entities VALUES (?, ?, 0) ON CONFLICT (id) DO UPDATE SET last = excluded.last"


class _Append(NamedTuple):
    id: str
    expected: int
    last: int
    rows: list[tuple[str, int, str, int, int, bytes, int]]
    size: int
    answer: asyncio.Future[None]


class SqliteJournal:
    """A `Journal` in one file (and, while it is open, a log and an index beside it): ``async with SqliteJournal(path) as journal``.

    Several may be open on one file, in this process and others; they see each other's entries, and of two that append
    for one entity at a time the slower gets `JournalConflict`. Every append is synced to the disk before it returns.

    What is damaged on the disk is found when it is read: contents of entries and snapshots by their checksums, entries that
    are missing by their numbers, a lost record of an entity by the entries that are still there.
    """

    def __init__(self, path: str | os.PathLike[str], *, keep_snapshots: int = 2, lock_timeout: str | float = "5s") -> None:
        """Args:
            path: the file; it and its folder are created by `open`. On a local disk: SQLite's log needs shared memory.
            keep_snapshots: how many of the newest sound snapshots of an entity are kept.
            lock_timeout: how long to wait for another process that writes to the same file.

        Raises:
            ConfigError: a setting makes no sense.
        """
        if keep_snapshots < 1:
            raise ConfigError("keep_snapshots", f"at least one is kept, not {keep_snapshots!r}")
        self._path = os.path.abspath(path)
        self._keep = keep_snapshots
        self._lock_timeout = parse_duration(lock_timeout, key="lock_timeout")
        self._appends: deque[_Append] = deque()
        self._calls: deque[Callable[[aiosqlite.Connection], Awaitable[None]]] = deque()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._wake = asyncio.Event()
        self._closing = False
        self._opened: asyncio.Future[None] | None = None
        self._owner: asyncio.Task[None] | None = None  # held here: the loop itself holds tasks weakly

    # -- life cycle ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        if self._owner is not None and not self._owner.done():
            if self._closing or self._opened is None:
                raise JournalUnavailable(self._path, "it is being closed", "await journal.aclose() first")
            await asyncio.shield(self._opened)
            return
        loop = asyncio.get_running_loop()
        self._closing, self._wake, self._opened = False, asyncio.Event(), loop.create_future()
        self._owner = loop.create_task(self._own(self._opened), name=f"journal {self._path}")
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        owner, opened = self._owner, self._opened
        if owner is None or opened is None:
            return
        self._closing = True
        self._wake.set()
        if owner.get_loop() is asyncio.get_running_loop():  # else that loop has ended, and its tasks with it
            await asyncio.wait((owner,))
        if opened.done() and not opened.cancelled():
            opened.exception()  # who opened has it; the loop need not complain that nobody looked

    async def _own(self, opened: asyncio.Future[None]) -> None:
        """The life of the connection, and the only place that uses it."""
        import aiosqlite  # only who opens one needs it

        threads: list[threading.Thread] = []
        files: list[sqlite3.Connection] = []

        begun = threading.Event()

        def connect() -> sqlite3.Connection:
            threads.append(threading.current_thread())
            begun.set()
            files.append(open_file(self._path, self._lock_timeout))
            return files[0]

        connection = aiosqlite.Connection(connect, iter_chunk_size=64)
        reason = "it was closed"
        try:
            try:
                _ = await connection
            except JournalError as error:
                if not opened.done():
                    opened.set_exception(error)
                return
            except asyncio.CancelledError:  # the loop ends: its thread must not outlive it
                begun.wait()
                raise
            if not opened.done():
                opened.set_result(None)
            try:
                await self._serve(connection)
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)  # a cursor in one of them would keep the file open, and locked
                with suppress(sqlite3.Error):  # a COMMIT under way may be faster
                    await _undo(connection)
                raise
            finally:
                await connection.close()
        except BaseException as error:
            reason = f"it stopped working ({type(error).__name__}: {error})"
            raise
        finally:
            self._end(opened, reason)
            for thread in threads:
                thread.join()  # it has had its last order, and ends at once
            for file in files:
                file.close()  # again, unless this task was cancelled while it connected

    def _end(self, opened: asyncio.Future[None], reason: str) -> None:
        """Nobody will serve any more: whoever waits is told."""
        self._closing = True
        self._appends.clear()
        self._calls.clear()
        waiting: set[asyncio.Future[Any]] = {opened, *self._waiting}
        for future in waiting:
            if not future.done():
                future.set_exception(JournalUnavailable(self._path, reason, "open it again"))

    async def _serve(self, connection: aiosqlite.Connection) -> None:
        while True:
            if not self._appends and not self._calls:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            if group := self._next_group():
                await self._write_group(connection, group)
            for _ in range(len(self._calls)):  # those of now: appends get their turn between them
                await self._calls.popleft()(connection)

    # -- asking the owner ---------------------------------------------------------------------------------------------

    def _require_open(self) -> None:
        if self._closing or self._opened is None or not self._opened.done() or self._opened.exception() is not None:
            raise JournalUnavailable(self._path, "it is not open", "await journal.open() first")
        if self._opened.get_loop() is not asyncio.get_running_loop():
            raise JournalUnavailable(self._path, "it was opened on another event loop", "open one journal a loop")

    async def _answer(self, future: asyncio.Future[R]) -> R:
        self._waiting.add(future)
        self._wake.set()
        try:
            return await future
        finally:
            self._waiting.discard(future)

    async def _call(self, id: str, work: Callable[[aiosqlite.Connection], Awaitable[R]]) -> R:
        """Let the owner do it. Cancelled before its turn it is not begun, afterwards it is finished without us."""
        self._require_open()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()

        async def run(connection: aiosqlite.Connection) -> None:
            if future.done():
                return
            try:
                result = await work(connection)
            except (sqlite3.Error, JournalError) as error:
                await _undo(connection)
                if not future.done():
                    future.set_exception(self._refusal(error, id))
            else:
                if not future.done():
                    future.set_result(result)

        self._calls.append(run)
        return await self._answer(future)

    def _refusal(self, error: sqlite3.Error | JournalError, id: str) -> JournalError:
        if isinstance(error, JournalError):
            return error
        refusal = translated(error, self._path, id)
        refusal.__cause__ = error
        return refusal

    # -- appending ----------------------------------------------------------------------------------------------------

    async def append(self, id: str, entries: Sequence[JournalEntry], *, expected: int) -> None:
        self._require_open()
        run = list(entries)  # the caller's list may change while the group waits
        check_append(self._path, id, run, expected)
        rows = [(id, e.sequence, e.kind, e.version, e.at_ms, e.payload, e.checksum(id)) for e in run]
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        size = sum(len(entry.payload) for entry in run)
        self._appends.append(_Append(id, expected, expected + len(rows), rows, size, answer))
        await self._answer(answer)

    def _next_group(self) -> list[_Append]:
        group: list[_Append] = []
        size = 0
        while self._appends and len(group) < _GROUP_APPENDS and size < _GROUP_BYTES:
            append = self._appends.popleft()
            if not append.answer.done():  # cancelled before its turn: not stored at all
                group.append(append)
                size += append.size
        return group

    async def _write_group(self, connection: aiosqlite.Connection, group: Sequence[_Append]) -> None:
        """Store those of a group that fit, and answer each of them."""
        begun = False
        try:
            await connection.execute_fetchall("BEGIN IMMEDIATE")
            begun = True
            refused = await self._write(connection, group)
            await connection.execute_fetchall("COMMIT")
        except (sqlite3.Error, JournalError) as error:
            await _undo(connection)
            if begun and len(group) > 1:  # it may be the fault of one of them; a lock is nobody's
                for append in group:
                    await self._write_group(connection, [append])
                return
            refused = [self._refusal(error, append.id) for append in group]
        for append, refusal in zip(group, refused, strict=True):
            if append.answer.done():
                continue
            if refusal is None:
                append.answer.set_result(None)
            else:
                append.answer.set_exception(refusal)

    async def _write(self, connection: aiosqlite.Connection, group: Sequence[_Append]) -> list[JournalError | None]:
        known = await _last_sequences(connection, {append.id for append in group})
        refused: list[JournalError | None] = []
        accepted: list[_Append] = []
        for append in group:
            stored = known.get(append.id, 0)
            if not isinstance(stored, int):
                raise JournalCorrupt(self._path, append.id, 0, f"its record is damaged (last {stored!r})")
            if stored != append.expected:
                refused.append(JournalConflict(self._path, append.id, append.expected, stored))
                continue
            refused.append(None)
            if append.rows:
                known[append.id] = append.last
                accepted.append(append)
        if accepted:
            changed = {append.id: append.last for append in accepted}
            await connection.executemany(_SAVE_RECORD, changed.items())
            rows = [row for append in accepted for row in append.rows]
            await connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        return refused

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read(self, id: str, after: int = 0) -> AsyncIterator[JournalEntry]:
        check_id(self._path, id)
        at = min(max(after, 0), _LARGEST)
        while True:
            record, rows = await self._call(id, partial(self._read_page, id=id, after=at))
            for entry in entries_of(self._path, id, at, record, rows):
                yield entry
                at = entry.sequence
            if at >= record.last:
                return

    async def _read_page(self, connection: aiosqlite.Connection, id: str, after: int) -> tuple[EntityRecord, list[Row]]:
        await connection.execute_fetchall("BEGIN")  # one view for both, whatever other processes do
        record = await self._record(connection, id)
        rows = await _rows(connection, _PAGE, {"id": id, "after": after})
        await connection.execute_fetchall("COMMIT")
        return record, rows

    async def last_sequence(self, id: str) -> int:
        check_id(self._path, id)
        return (await self._call(id, lambda connection: self._record(connection, id))).last

    async def _record(self, connection: aiosqlite.Connection, id: str) -> EntityRecord:
        """The record of an entity, held against what is there."""
        ((last, compacted, highest, has_snapshot),) = await _rows(connection, _RECORD, {"id": id})
        if last is None and highest is None and not has_snapshot:
            return EntityRecord(0, 0)
        if last is None:
            raise JournalCorrupt(self._path, id, 0, "its record is missing, but entries or snapshots of it are there")
        if not isinstance(last, int) or not isinstance(compacted, int) or not 0 <= compacted <= last:
            raise JournalCorrupt(self._path, id, 0, f"its record is damaged (last {last!r}, deleted up to {compacted!r})")
        return EntityRecord(last, compacted)

    async def ids(self) -> AsyncIterator[str]:
        after = ""
        while True:
            rows = await self._call("", partial(_rows, query=_IDS, values=(after,)))
            for (name,) in rows:
                if not isinstance(name, str):
                    raise JournalCorrupt(self._path, "", 0, f"the record behind that of entity {after!r} has no text for an id")
                yield (after := name)
            if not rows:
                return

    # -- snapshots ----------------------------------------------------------------------------------------------------

    async def save_snapshot(self, id: str, snapshot: Snapshot) -> None:
        check_snapshot(self._path, id, snapshot)
        await self._call(id, lambda connection: self._save_snapshot(connection, id, snapshot))

    async def _save_snapshot(self, connection: aiosqlite.Connection, id: str, snapshot: Snapshot) -> None:
        await connection.execute_fetchall("BEGIN IMMEDIATE")
        record = await self._record(connection, id)
        if snapshot.sequence > record.last:
            raise snapshot_ahead(self._path, id, snapshot.sequence, record.last)
        if snapshot.sequence >= record.compacted:
            row = (id, snapshot.sequence, snapshot.version, snapshot.payload, snapshot.checksum(id))
            await connection.execute_fetchall("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?)", row)
            sound, _ = await self._sound_snapshots(connection, id, self._keep)
            oldest = sound[-1].sequence  # damaged ones do not count, and go with the old ones
            await connection.execute_fetchall("DELETE FROM snapshots WHERE id = ? AND sequence < ?", (id, oldest))
        await connection.execute_fetchall("COMMIT")

    async def _sound_snapshots(self, connection: aiosqlite.Connection, id: str, limit: int) -> tuple[list[Snapshot], list[int]]:
        """The newest snapshots that pass their checksums, newest first, and the sequences of damaged ones before them."""
        sound: list[Snapshot] = []
        damaged: list[int] = []
        below: object = _LARGEST
        while len(sound) < limit and (rows := await _rows(connection, _SNAPSHOT, (id, below))):
            below = rows[0][0]
            snapshot = snapshot_of(id, rows[0])
            if snapshot is None:
                damaged.append(cast("int", below))
            else:
                sound.append(snapshot)
        return sound, damaged

    async def load_snapshot(self, id: str) -> Snapshot | None:
        check_id(self._path, id)
        return await self._call(id, lambda connection: self._load_snapshot(connection, id))

    async def _load_snapshot(self, connection: aiosqlite.Connection, id: str) -> Snapshot | None:
        await connection.execute_fetchall("BEGIN")
        record = await self._record(connection, id)
        sound, damaged = await self._sound_snapshots(connection, id, 1)
        await connection.execute_fetchall("COMMIT")
        for sequence in damaged:
            _log.warning(
                "journal %r: entity %r: the snapshot of entry %d fails its checksum and is passed over; look at the disk",
                self._path,
                id,
                sequence,
            )
        if sound:
            return sound[0]
        if record.compacted:
            damage = f"no snapshot is sound, and the entries up to {record.compacted} were deleted under one"
            raise JournalCorrupt(self._path, id, 0, damage)
        return None

    async def delete_before(self, id: str, sequence: int) -> int:
        check_id(self._path, id)
        count = 0
        while deleted := await self._call(id, lambda connection: self._delete_slice(connection, id, min(sequence - 1, _LARGEST))):
            count += deleted
        return count

    async def _delete_slice(self, connection: aiosqlite.Connection, id: str, up_to: int) -> int:
        await connection.execute_fetchall("BEGIN IMMEDIATE")
        record = await self._record(connection, id)
        sound, _ = await self._sound_snapshots(connection, id, self._keep)
        oldest = sound[-1].sequence if sound else 0
        compacted = min(up_to, oldest, record.compacted + _SLICE)
        if compacted > record.compacted:
            await connection.execute_fetchall("DELETE FROM entries WHERE id = ? AND sequence <= ?", (id, compacted))
            await connection.execute_fetchall("UPDATE entities SET compacted = ? WHERE id = ?", (compacted, id))
        await connection.execute_fetchall("COMMIT")
        return max(0, compacted - record.compacted)


async def _rows(connection: aiosqlite.Connection, query: str, values: object) -> list[Row]:
    return list(cast("Iterable[Row]", await connection.execute_fetchall(query, cast("Iterable[object]", values))))


async def _last_sequences(connection: aiosqlite.Connection, ids: set[str]) -> dict[str, int]:
    query = f"SELECT id, last FROM entities WHERE id IN ({', '.join('?' * len(ids))})"
    return {cast("str", row[0]): cast("int", row[1]) for row in await _rows(connection, query, tuple(ids))}


async def _undo(connection: aiosqlite.Connection) -> None:
    if connection.in_transaction:
        await connection.execute_fetchall("ROLLBACK")
