"""IdempotentSink: records that are written again replace themselves, so that a replay changes nothing in the end."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from sage_actor.dataflow.sink import Sink

__all__ = ["IdempotentSink"]

T = TypeVar("T")


class IdempotentSink(Sink[T], Generic[T]):
    """Base class of sinks into targets that keep one record per key: tables with a primary key, key-value stores, objects by name.

    A job that goes on from a checkpoint writes what followed it once more. Here this puts the same records under the same keys,
    so in the end each is there once. Meanwhile a reader may see a key go back to an older record and forward again; use a
    `TwoPhaseCommitSink` where that matters.

    It holds only if, as the subclass has to see to:

    * the key of a record depends on the record alone, not on time, chance, task or attempt;
    * what is written for a key is the whole record, not an addition to what is there;
    * records of a key reach one task in the order in which they should win (``key_by`` the same key before the sink), and
      what the job computes is the same when it is computed again: no results that depend on time or chance.

    Implement `key_of` and `upsert`.
    """

    def key_of(self, record: T) -> Hashable:
        """Under what the record is kept. Must not be None."""
        raise NotImplementedError(f"{type(self).__name__} must implement key_of(record)")

    async def upsert(self, records: Mapping[Hashable, T]) -> None:
        """Replace or insert; return when the target has them for good, else override `flush` to wait for that."""
        raise NotImplementedError(f"{type(self).__name__} must implement upsert(records)")

    async def write(self, batch: Sequence[T]) -> None:
        """Write the last record of each key."""
        latest: dict[Hashable, T] = {}
        for record in batch:
            key = self.key_of(record)
            latest.pop(key, None)  # so that keys stand in the order of their last records
            latest[key] = record
        if latest:
            await self.upsert(latest)
