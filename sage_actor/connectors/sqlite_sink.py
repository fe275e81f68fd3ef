"""SqliteSink: records to a table of an SQLite database, each once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar, Unpack, cast

from sage_actor import ports
from sage_actor.connectors.off_loop import OffLoop
from sage_actor.connectors.options import SqliteSinkKeywords, SqliteSinkOptions
from sage_actor.connectors.sqlite_table import SinkIdentity, SqliteTable, TransactionName
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.sink import SinkRecovery
from sage_actor.dataflow.two_phase_commit import TwoPhaseCommitSink
from sage_actor.errors import ConnectorError

__all__ = ["SqliteSink"]

R = TypeVar("R")


class SqliteSink(TwoPhaseCommitSink[object, TransactionName]):
    """Writes records as rows: a mapping by its names, a list or tuple by position. Values: int, float, str, bytes, None.

    Options come as one mapping or as keywords; an unknown or ill-typed one raises `ConfigError` at once.

    Args:
        path: the database; created if missing.
        table: the table; created if missing, without types, with ``key`` as its primary key.
        columns: the columns that are written. Default: those that the table has; needed if it is to be created.
        key: a column, or several: a row replaces the one with the same key. The table must have a primary key or a unique
            index over exactly these.
        transactional: True: rows appear when their checkpoint is complete. False: they appear at once, and after a restart
            replace themselves; needs ``key`` and what `IdempotentSink` asks for.
        lock_timeout: how long to wait while somebody else writes the database ("30s").

    Guarantee: exactly once (with ``transactional=False``: once in the end). Rows wait in a table of the same database,
    ``sage_staged_<table>``, are moved from there when their checkpoint is complete, and in the same SQLite transaction it is
    written down that they were: so no crash can do the one without the other, and a repeated commit does nothing.

    The table ``sage_sinks`` holds, for each job and operator, the attempt that may write. Each start of the job puts its number
    there, and every later transaction looks first: a process that was taken for dead and goes on writing is refused with
    `Fenced`. Where attempts are restarted and databases are shared over a network file system, SQLite's locks must work there.
    """

    def __init__(self, options: Mapping[str, object] | None = None, /, **keywords: Unpack[SqliteSinkKeywords]) -> None:
        self._options = SqliteSinkOptions.parse(options, keywords)
        self._call: OffLoop[object] = OffLoop()
        self._table: SqliteTable | None = None
        self._number = 0

    async def open(self, context: FunctionContext) -> None:
        """Open the database, and create what is missing in it. Raises `ConnectorError`."""
        await super().open(context)
        table = SqliteTable(self._options, SinkIdentity(context.job, context.operator_name))
        # Kept before it is open, so that `close` finds it if this is cancelled.
        self._table = table
        await self._run(table.open)

    async def recover(self, prepared: Sequence[tuple[int, object]], recovery: SinkRecovery) -> None:
        """Shut out earlier attempts, then go on as every sink with transactions. Raises `Fenced`."""
        await self._run(partial(self._opened().take_over, recovery.attempt, anew=recovery.checkpoint is None))
        await super().recover(prepared, recovery)

    async def begin(self) -> TransactionName:
        """A name that no other task and attempt uses."""
        self._number += 1
        chance = ports.current_random().getrandbits(32)
        return TransactionName(self.context.subtask_index, self.attempt, self._number, f"{chance:08x}")

    async def write(self, batch: Sequence[object]) -> None:
        """Write the rows, all or none of them. Raises `ConnectorError` for a record that does not fit, `Fenced`."""
        if self._options.transactional:
            await super().write(batch)
        elif batch:
            await self._run(partial(self._opened().upsert, batch, self.attempt))

    async def write_to(self, transaction: TransactionName, batch: Sequence[object]) -> None:
        """Put the rows where they wait."""
        await self._run(partial(self._opened().stage, transaction, batch))

    async def pre_commit(self, transaction: TransactionName) -> None:
        """Nothing is left to do but to wait for a write that was cancelled: each write is durable by itself."""
        await self._run(lambda: None)

    async def commit_transaction(self, transaction: TransactionName) -> None:
        """Move the rows into the table."""
        await self._run(partial(self._opened().commit, transaction, self.attempt))

    async def abort(self, transaction: TransactionName) -> None:
        """Drop the rows that wait."""
        await self._run(partial(self._opened().drop, transaction))

    async def abort_orphans(self, keep: Sequence[TransactionName]) -> None:
        """Drop the rows that earlier attempts left waiting."""
        await self._run(partial(self._opened().drop_orphans, keep, self.attempt))

    async def close(self) -> None:
        """Drop what was not prepared, and close the database; waits for a write that is under way."""
        try:
            await super().close()
        finally:
            table, self._table = self._table, None
            if table is not None:
                await self._call.finish(table.close)

    def _opened(self) -> SqliteTable:
        if self._table is None:
            raise ConnectorError(self._options.path, "the SQLite sink is not open", "await open(context) first")
        return self._table

    async def _run(self, function: Callable[[], R]) -> R:
        # One call at a time: a connection serves one thread, and a cancelled call goes on in its own.
        try:
            while self._call.started:
                await self._call.wait()
                if self._call.started:
                    self._call.take()
            self._call.start(function)
            await self._call.wait()
            return cast("R", self._call.take())
        except sqlite3.Error as error:
            hint = "check path, table and columns, and who else writes the database"
            raise ConnectorError(self._options.path, f"SQLite refused: {error}", hint) from error
