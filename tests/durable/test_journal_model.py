"""Both journals against a dict: any order of calls, any conflict, closing in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.durable import Journal, JournalEntry, MemoryJournal, Snapshot, SqliteJournal
from sage_actor.errors import JournalConflict, JournalError

KEEP = 2


@dataclass
class Modelled:
    """One entity as the contract has it: all entries ever, how many are deleted, the snapshots that are kept."""

    entries: list[JournalEntry] = field(default_factory=list[JournalEntry])
    compacted: int = 0
    snapshots: dict[int, Snapshot] = field(default_factory=dict[int, Snapshot])

    def append(self, entries: list[JournalEntry], expected: int) -> bool:
        if expected == len(self.entries):
            self.entries += entries
            return True
        return False

    def save(self, snapshot: Snapshot) -> bool:
        if not 1 <= snapshot.sequence <= len(self.entries):
            return False
        if snapshot.sequence >= self.compacted:
            self.snapshots[snapshot.sequence] = snapshot
            self.snapshots = dict(sorted(self.snapshots.items())[-KEEP:])
        return True

    def delete(self, before: int) -> int:
        count = max(0, min(before - 1, min(self.snapshots, default=0)) - self.compacted)
        self.compacted += count
        return count


Ids = st.sampled_from(["a", "b"])
Step = st.one_of(
    st.tuples(st.just("append"), Ids, st.integers(0, 4), st.sampled_from([0, 0, 0, 0, 1, -1])),
    st.tuples(st.just("save"), Ids, st.integers(-1, 6), st.just(0)),
    st.tuples(st.just("delete"), Ids, st.integers(-1, 6), st.just(0)),
    st.tuples(st.just("read"), Ids, st.integers(-1, 6), st.just(0)),
    st.tuples(st.just("reopen"), Ids, st.just(0), st.just(0)),
)


async def step(journal: Journal, model: dict[str, Modelled], action: str, name: str, number: int, skew: int) -> None:
    entity = model.setdefault(name, Modelled())
    last = len(entity.entries)
    if action == "append" and last + skew >= 0:
        expected = last + skew
        entries = [JournalEntry(expected + n, "event", n, f"{name} {expected} {n}".encode(), n) for n in range(1, number + 1)]
        if entity.append(entries, expected):
            await journal.append(name, entries, expected=expected)
        else:
            with pytest.raises(JournalConflict) as caught:
                await journal.append(name, entries, expected=expected)
            assert (caught.value.expected, caught.value.stored) == (expected, last)
    elif action == "save":
        snapshot = Snapshot(last - number, number % 3, f"{name} {number}".encode())
        if entity.save(snapshot):
            await journal.save_snapshot(name, snapshot)
        else:
            with pytest.raises(JournalError):
                await journal.save_snapshot(name, snapshot)
    elif action == "delete":
        assert await journal.delete_before(name, last - number) == entity.delete(last - number)
    elif action == "reopen":
        await journal.aclose()
        await journal.open()
    elif action == "read":
        await look(journal, name, entity, max(0, last - number))


async def look(journal: Journal, name: str, entity: Modelled, after: int) -> None:
    if after < entity.compacted:
        with pytest.raises(JournalError):
            _ = [entry async for entry in journal.read(name, after)]
    else:
        assert [entry async for entry in journal.read(name, after)] == entity.entries[after:]
    assert await journal.last_sequence(name) == len(entity.entries)
    newest = max(entity.snapshots, default=0)
    assert await journal.load_snapshot(name) == entity.snapshots.get(newest)


async def follow(make: Callable[[], Journal], steps: list[tuple[str, str, int, int]]) -> None:
    journal, model = make(), dict[str, Modelled]()
    await journal.open()
    try:
        for action, name, number, skew in steps:
            await step(journal, model, action, name, number, skew)
        for name, entity in model.items():
            for after in range(len(entity.entries) + 1):
                await look(journal, name, entity, after)
        assert [name async for name in journal.ids()] == sorted(name for name, entity in model.items() if entity.entries)
    finally:
        await journal.aclose()


@settings(max_examples=60, deadline=None)
@given(st.lists(Step, max_size=25))
def test_memory_journal_is_like_the_model(steps: list[tuple[str, str, int, int]]) -> None:
    asyncio.run(follow(lambda: MemoryJournal(keep_snapshots=KEEP), steps))


@settings(max_examples=60, deadline=None)
@given(st.lists(Step, max_size=25))
def test_sqlite_journal_is_like_the_model(steps: list[tuple[str, str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(follow(lambda: SqliteJournal(Path(folder) / "journal", keep_snapshots=KEEP), steps))
