"""An outer system with transactions, for simulations: it outlives every process, and never forgives."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sage_actor.dataflow.two_phase_commit import TwoPhaseCommitSink
from sage_actor.errors import ConnectorError
from sage_actor.testing.simulated_process import is_running
from sage_actor.testing.simulated_processes import stand_still

__all__ = ["STORE", "SimulatedStore", "StoreSink", "Transaction"]

State = Literal["open", "prepared", "committed", "aborted"]


@dataclass(slots=True)
class Transaction:
    """One transaction of a table: its records are visible once it is committed."""

    name: str
    table: str
    attempt: int
    state: State = "open"
    records: list[Any] = field(default_factory=lambda: list[Any]())


class SimulatedStore:
    """Tables of committed records, and the transactions on their way there.

    Every call takes a moment, in which the caller may crash: then it has happened or not. What a caller has no right to is
    written down in `violations`.

    Attributes:
        tables: what is visible, in the order of the commits.
        violations: in words; a run is right only if there are none.
        newest: of each table, the newest attempt that has shown itself: older ones may not begin or prepare anything more.
        on_commit: called with (table, records) as they become visible.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.tables: dict[str, list[Any]] = {}
        self.transactions: dict[str, Transaction] = {}
        self.violations: list[str] = []
        self.on_commit: Callable[[str, list[Any]], object] | None = None
        self.newest: dict[str, int] = {}
        self._numbers = 0

    async def call(self) -> None:
        """The way there."""
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)
        if self.chance.random() < 0.2:
            await asyncio.sleep(self.chance.random() * 0.05)
        if not is_running():
            await stand_still()

    def begin(self, table: str, attempt: int) -> str:
        """A new transaction; its name."""
        if attempt < self.newest.get(table, 0):
            raise ConnectorError("store", f"attempt {attempt} of {table} was replaced by {self.newest[table]}")
        self._numbers += 1
        name = f"{table}-{attempt}-{self._numbers}"
        self.transactions[name] = Transaction(name, table, attempt)
        return name

    def write(self, name: str, records: Sequence[Any]) -> None:
        """Add records to an open transaction."""
        transaction = self._in(name, "open")
        transaction.records.extend(records)

    def prepare(self, name: str) -> None:
        """It can be committed from now on, whatever crashes."""
        self._in(name, "open").state = "prepared"

    def commit(self, name: str) -> None:
        """Make it visible; once more is harmless."""
        transaction = self.transactions.get(name)
        if transaction is None or transaction.state in ("open", "aborted"):
            state = "unknown" if transaction is None else transaction.state
            self.violations.append(f"commit of {name}, which is {state}: its records are lost")
            raise ConnectorError("store", f"{name} cannot be committed: it is {state}")
        if transaction.state == "prepared":
            transaction.state = "committed"
            self.tables.setdefault(transaction.table, []).extend(transaction.records)
            if self.on_commit is not None:
                self.on_commit(transaction.table, transaction.records)

    def abort(self, name: str) -> None:
        """Forget it."""
        transaction = self.transactions[name]
        if transaction.state == "committed":
            self.violations.append(f"abort of {name}, which is committed")
        else:
            transaction.state = "aborted"

    def _in(self, name: str, state: State) -> Transaction:
        transaction = self.transactions[name]
        if transaction.state != state:  # a zombie's, aborted by its successor
            raise ConnectorError("store", f"{name} is {transaction.state}, not {state}")
        return transaction


STORE: Final[ContextVar[SimulatedStore]] = ContextVar("STORE")
"""The store of the running simulation; processes inherit it."""


class StoreSink(TwoPhaseCommitSink[Any, str]):
    """Writes into a table of the `SimulatedStore`, as slow as the seed wants it."""

    def __init__(self, table: str) -> None:
        self.table = table

    async def begin(self) -> str:
        store = STORE.get()
        await store.call()
        return store.begin(self.table, self.attempt)

    async def write_to(self, transaction: str, batch: Sequence[Any]) -> None:
        store = STORE.get()
        await store.call()
        store.write(transaction, batch)

    async def pre_commit(self, transaction: str) -> None:
        store = STORE.get()
        await store.call()
        store.prepare(transaction)

    async def commit_transaction(self, transaction: str) -> None:
        store = STORE.get()
        await store.call()
        store.commit(transaction)
        await store.call()

    async def abort(self, transaction: str) -> None:
        store = STORE.get()
        await store.call()
        if store.transactions[transaction].state != "aborted":
            store.abort(transaction)

    async def abort_orphans(self, keep: Sequence[str]) -> None:
        store = STORE.get()
        await store.call()
        store.newest[self.table] = max(self.attempt, store.newest.get(self.table, 0))
        for name, transaction in store.transactions.items():
            ours = transaction.table == self.table and transaction.attempt < self.attempt
            if ours and name not in keep and transaction.state in ("open", "prepared"):
                store.abort(name)
