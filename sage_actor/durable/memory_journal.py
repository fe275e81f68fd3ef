"""A journal in memory: for tests, and for entities that need to outlive their actor but not the process."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from sage_actor.durable.journal import JournalEntry, Snapshot, check_append, check_id, check_snapshot, entries_deleted, snapshot_ahead
from sage_actor.errors import ConfigError, JournalConflict, JournalUnavailable

__all__ = ["MemoryJournal"]

_NAME = "memory"


@dataclass(slots=True)
class _Entity:
    """Entries ``compacted + 1`` to ``last``, and the snapshots that are kept, by sequence."""

    compacted: int = 0
    entries: list[JournalEntry] = field(default_factory=list[JournalEntry])
    snapshots: list[Snapshot] = field(default_factory=list[Snapshot])

    @property
    def last(self) -> int:
        return self.compacted + len(self.entries)


class MemoryJournal:
    """A `Journal` whose disk is this object: what it holds is there after `aclose` and `open`, and gone with the object.

    ``async with MemoryJournal() as journal`` opens and closes it. No method ever waits, so none can be cancelled halfway.
    """

    def __init__(self, *, keep_snapshots: int = 2) -> None:
        """Args:
            keep_snapshots: how many of the newest snapshots of an entity are kept.

        Raises:
            ConfigError: fewer than one.
        """
        if keep_snapshots < 1:
            raise ConfigError("keep_snapshots", f"at least one is kept, not {keep_snapshots!r}")
        self._keep = keep_snapshots
        self._entities: dict[str, _Entity] = {}
        self._opened = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        self._opened = True

    async def aclose(self) -> None:
        self._opened = False

    async def append(self, id: str, entries: Sequence[JournalEntry], *, expected: int) -> None:
        self._require_open()
        run = list(entries)  # the caller's list may change under a later append
        check_append(_NAME, id, run, expected)
        entity = self._entities.get(id) or _Entity()
        if entity.last != expected:
            raise JournalConflict(_NAME, id, expected, entity.last)
        if run:
            entity.entries += run
            self._entities[id] = entity

    async def read(self, id: str, after: int = 0) -> AsyncIterator[JournalEntry]:
        check_id(_NAME, id)
        at = max(after, 0)
        while True:
            self._require_open()
            entity = self._entities.get(id) or _Entity()
            if at < entity.compacted:
                raise entries_deleted(_NAME, id, entity.compacted, at + 1)
            if at >= entity.last:
                return
            yield entity.entries[at - entity.compacted]
            at += 1

    async def last_sequence(self, id: str) -> int:
        self._require_open()
        check_id(_NAME, id)
        entity = self._entities.get(id)
        return entity.last if entity else 0

    async def save_snapshot(self, id: str, snapshot: Snapshot) -> None:
        self._require_open()
        check_snapshot(_NAME, id, snapshot)
        entity = self._entities.get(id) or _Entity()
        if snapshot.sequence > entity.last:
            raise snapshot_ahead(_NAME, id, snapshot.sequence, entity.last)
        if snapshot.sequence < entity.compacted:
            return
        others = [kept for kept in entity.snapshots if kept.sequence != snapshot.sequence]
        others.insert(bisect_right(others, snapshot.sequence, key=lambda kept: kept.sequence), snapshot)
        entity.snapshots = others[-self._keep :]

    async def load_snapshot(self, id: str) -> Snapshot | None:
        self._require_open()
        check_id(_NAME, id)
        entity = self._entities.get(id)
        return entity.snapshots[-1] if entity and entity.snapshots else None

    async def delete_before(self, id: str, sequence: int) -> int:
        self._require_open()
        check_id(_NAME, id)
        entity = self._entities.get(id)
        if entity is None or not entity.snapshots:
            return 0
        count = max(0, min(sequence - 1, entity.snapshots[0].sequence) - entity.compacted)
        del entity.entries[:count]
        entity.compacted += count
        return count

    async def ids(self) -> AsyncIterator[str]:
        self._require_open()
        for entity in sorted(self._entities):
            yield entity

    def _require_open(self) -> None:
        if not self._opened:
            raise JournalUnavailable(_NAME, "it is not open", "await journal.open() first")
