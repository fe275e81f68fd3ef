"""The table that an `SqliteSink` writes, and those beside it that make it exactly once. Blocks the thread; runs off the loop."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple, cast

from sage_actor.connectors.options import SqliteSinkOptions
from sage_actor.errors import CommitFailed, ConnectorError, Fenced

__all__ = ["SinkIdentity", "SqliteTable", "TransactionName"]

_VALUES: Final = (int, float, str, bytes, type(None))

# sage_sinks: who may write. sage_commits: how far each task's transactions went. sage_transactions: those that wait.
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS sage_sinks (sink TEXT PRIMARY KEY NOT NULL, attempt INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS sage_commits (sink TEXT NOT NULL, subtask INTEGER NOT NULL, attempt INTEGER NOT NULL, "
    "number INTEGER NOT NULL, PRIMARY KEY (sink, subtask)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS sage_transactions (id INTEGER PRIMARY KEY, sink TEXT NOT NULL, name TEXT NOT NULL, "
    "attempt INTEGER NOT NULL, UNIQUE (sink, name))",
)


class SinkIdentity(NamedTuple):
    """Whose rows they are."""

    job: str
    operator: str


class TransactionName(NamedTuple):
    """Names a transaction of one sink: the task and attempt that began it, its number there, and chance."""

    subtask: int
    attempt: int
    number: int
    chance: str

    def text(self) -> str:
        """As it is stored."""
        return f"{self.subtask}.{self.attempt}.{self.number}.{self.chance}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class SqliteTable:
    """One connection; everything is a short SQLite transaction that looks first whether this attempt may write still."""

    def __init__(self, options: SqliteSinkOptions, identity: SinkIdentity) -> None:
        self._options = options
        self._identity = identity
        self._sink = f"{identity.job}/{identity.operator}/{options.table}"
        self._connection: sqlite3.Connection | None = None
        self._columns: tuple[str, ...] = ()
        self._places: dict[str, int] = {}
        self._insert = self._insert_staged = self._move = ""
        self._staged = _quoted(f"sage_staged_{options.table}")

    def open(self) -> None:
        """Connect, create what is missing, and look at the columns. Raises `ConnectorError`, `sqlite3.Error`."""
        options = self._options
        folder = os.path.dirname(options.path)
        try:
            if folder:
                os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise ConnectorError(options.path, error.strerror or str(error)) from error
        self._connection = sqlite3.connect(options.path, timeout=options.lock_timeout, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction() as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
            self._columns = self._find_columns(connection)
            self._places = {name: place for place, name in enumerate(self._columns)}
            names = ", ".join(map(_quoted, self._columns))
            connection.execute(f"CREATE TABLE IF NOT EXISTS {self._staged} (sage_transaction INTEGER NOT NULL, {names})")
            index = _quoted(f"sage_staged_{options.table}_by")
            connection.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {self._staged} (sage_transaction)")
        marks = ", ".join("?" * len(self._columns))
        target, after = _quoted(options.table), self._on_conflict()
        self._insert = f"INSERT INTO {target} ({names}) VALUES ({marks}){after}"
        self._insert_staged = f"INSERT INTO {self._staged} (sage_transaction, {names}) VALUES (?, {marks})"
        # "WHERE true" tells SQLite's parser that ON CONFLICT does not belong to a join.
        chosen = "WHERE sage_transaction = ? AND true ORDER BY rowid"
        self._move = f"INSERT INTO {target} ({names}) SELECT {names} FROM {self._staged} {chosen}{after}"

    def _find_columns(self, connection: sqlite3.Connection) -> tuple[str, ...]:
        options = self._options
        there = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({_quoted(options.table)})")]
        wanted = options.columns or tuple(there)
        place = f"{options.path}: table {options.table}"
        if not there:
            if not wanted:
                raise ConnectorError(place, "there is no such table", "create it, or say which columns it gets with columns=[...]")
            key = f", PRIMARY KEY ({', '.join(map(_quoted, options.key))})" if options.key else ""
            connection.execute(f"CREATE TABLE {_quoted(options.table)} ({', '.join(map(_quoted, wanted))}{key})")
            there = list(wanted)
        for name in (*wanted, *options.key):
            if name not in there or name not in wanted:
                raise ConnectorError(place, f"has no column {name!r}", f"it has {', '.join(there)}; name others with columns= and key=")
        return wanted

    def _on_conflict(self) -> str:
        key = self._options.key
        if not key:
            return ""
        others = [_quoted(name) for name in self._columns if name not in key]
        change = f"UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in others)}" if others else "NOTHING"
        return f" ON CONFLICT ({', '.join(map(_quoted, key))}) DO {change}"

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        connection = self._connection
        if connection is None:
            raise ConnectorError(self._options.path, "the database is not open")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _check(self, connection: sqlite3.Connection, attempt: int) -> None:
        """Raises `Fenced` if another attempt has taken over. Attempt 0 is a job without checkpoints: it has no fence."""
        row = connection.execute("SELECT attempt FROM sage_sinks WHERE sink = ?", (self._sink,)).fetchone()
        if attempt and row is not None and row[0] != attempt:
            raise Fenced(self._identity.job, attempt, int(row[0]))

    def take_over(self, attempt: int, *, anew: bool) -> None:
        """From now on only this attempt writes.

        Args:
            anew: the job does not go on from a checkpoint; then numbers of attempts may have begun anew as well.
        """
        with self._transaction() as connection:
            row = connection.execute("SELECT attempt FROM sage_sinks WHERE sink = ?", (self._sink,)).fetchone()
            if row is not None and row[0] > attempt and not anew:
                raise Fenced(self._identity.job, attempt, int(row[0]))
            connection.execute("INSERT OR REPLACE INTO sage_sinks VALUES (?, ?)", (self._sink, attempt))
            if anew and (row is None or row[0] != attempt):  # the first task of this attempt
                connection.execute("DELETE FROM sage_commits WHERE sink = ?", (self._sink,))

    def _rows(self, batch: Sequence[object]) -> list[list[object]]:
        return [self._row(record) for record in batch]

    def _row(self, record: object) -> list[object]:
        row: list[object]
        if isinstance(record, Mapping):
            row = [None] * len(self._columns)
            for name, value in cast("Mapping[str, object]", record).items():
                place = self._places.get(name)
                if place is None:
                    raise self._unfit(cast("object", record), f"{name!r} is not among the columns {', '.join(self._columns)}")
                row[place] = value
        elif isinstance(record, list | tuple):
            row = list(cast("Sequence[object]", record))
            if len(row) != len(self._columns):
                raise self._unfit(row, f"{len(row)} values do not fit the columns {', '.join(self._columns)}")
        else:
            raise self._unfit(record, f"a row is a mapping, a list or a tuple, not {type(record).__name__}")
        for value in row:
            if not isinstance(value, _VALUES) or (isinstance(value, int) and not -(1 << 63) <= value < 1 << 63):
                raise self._unfit(row, f"SQLite cannot hold {value!r}")
        return row

    def _unfit(self, record: object, reason: str) -> ConnectorError:
        shown = repr(record)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
        place = f"{self._options.path}: table {self._options.table}"
        return ConnectorError(place, f"cannot write {shown}: {reason}", "change the records in a map before the sink")

    def upsert(self, batch: Sequence[object], attempt: int) -> None:
        """Write rows into the table at once."""
        rows = self._rows(batch)
        with self._transaction() as connection:
            self._check(connection, attempt)
            connection.executemany(self._insert, rows)

    def stage(self, name: TransactionName, batch: Sequence[object]) -> None:
        """Add rows to a transaction, which begins with its first ones."""
        rows = self._rows(batch)
        with self._transaction() as connection:
            self._check(connection, name.attempt)
            number = self._number_of(connection, name)
            if number is None:
                statement = "INSERT INTO sage_transactions (sink, name, attempt) VALUES (?, ?, ?)"
                number = connection.execute(statement, (self._sink, name.text(), name.attempt)).lastrowid
            connection.executemany(self._insert_staged, [(number, *row) for row in rows])

    def _number_of(self, connection: sqlite3.Connection, name: TransactionName) -> int | None:
        row = connection.execute("SELECT id FROM sage_transactions WHERE sink = ? AND name = ?", (self._sink, name.text())).fetchone()
        return None if row is None else int(row[0])

    def commit(self, name: TransactionName, attempt: int) -> None:
        """Move the rows into the table, unless that was done before.

        Raises:
            CommitFailed: they are not here, nor were they ever.
        """
        with self._transaction() as connection:
            self._check(connection, attempt)
            number = self._number_of(connection, name)
            if number is None:
                self._check_committed(connection, name)
                return
            connection.execute(self._move, (number,))
            self._delete(connection, number)
            later = "WHERE (excluded.attempt, excluded.number) > (attempt, number)"
            connection.execute(
                "INSERT INTO sage_commits VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET attempt = excluded.attempt, "
                f"number = excluded.number {later}",
                (self._sink, name.subtask, name.attempt, name.number),
            )

    def _check_committed(self, connection: sqlite3.Connection, name: TransactionName) -> None:
        statement = "SELECT attempt, number FROM sage_commits WHERE sink = ? AND subtask = ?"
        last = connection.execute(statement, (self._sink, name.subtask)).fetchone()
        if last is None or (last[0], last[1]) < (name.attempt, name.number):
            problem = f"{self._options.path} holds neither its rows nor a note that they were committed: it is another or an older database"
            raise CommitFailed(self._identity.operator, name.text(), problem)

    def _delete(self, connection: sqlite3.Connection, number: int) -> None:
        connection.execute(f"DELETE FROM {self._staged} WHERE sage_transaction = ?", (number,))
        connection.execute("DELETE FROM sage_transactions WHERE id = ?", (number,))

    def drop(self, name: TransactionName) -> None:
        """Give up a transaction."""
        with self._transaction() as connection:
            number = self._number_of(connection, name)
            if number is not None:
                self._delete(connection, number)

    def drop_orphans(self, keep: Sequence[TransactionName], attempt: int) -> None:
        """Give up what other attempts of this sink began, except these."""
        kept = {name.text() for name in keep}
        with self._transaction() as connection:
            self._check(connection, attempt)
            statement = "SELECT id, name FROM sage_transactions WHERE sink = ? AND attempt NOT IN (0, ?)"
            for number, name in connection.execute(statement, (self._sink, attempt)).fetchall():
                if name not in kept:
                    self._delete(connection, int(number))

    def close(self) -> None:
        """Release the database."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
