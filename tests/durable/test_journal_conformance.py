"""Our journals against the public conformance rules; and journals that break a rule, against the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sage_actor.durable import Journal, JournalEntry, MemoryJournal, Snapshot, SqliteJournal
from sage_actor.testing.journal_conformance import JOURNAL_RULES, JournalCase, JournalRule, rule_name


def sqlite_case(folder: Path, keep_snapshots: int = 2) -> JournalCase:
    names = itertools.count()
    made: dict[int, Path] = {}

    def make() -> Journal:
        path = folder / f"new/{next(names)}.journal"
        journal = SqliteJournal(path, keep_snapshots=keep_snapshots)
        made[id(journal)] = path
        kept.append(journal)
        return journal

    kept: list[Journal] = []  # ids stay theirs
    return JournalCase(make, lambda journal: SqliteJournal(made[id(journal)]), keep_snapshots=keep_snapshots)


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", JOURNAL_RULES, ids=rule_name)
async def test_sqlite_journal(rule: JournalRule, tmp_path: Path) -> None:
    await rule(sqlite_case(tmp_path))


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", JOURNAL_RULES, ids=rule_name)
async def test_memory_journal(rule: JournalRule) -> None:
    await rule(JournalCase(lambda: MemoryJournal(keep_snapshots=3), keep_snapshots=3))


class Forgetful(MemoryJournal):
    """Loses what it held when it is closed."""

    async def aclose(self) -> None:
        await super().aclose()
        self._entities.clear()


class Trusting(MemoryJournal):
    """Takes an append after whatever is stored."""

    async def append(self, id: str, entries: Sequence[JournalEntry], *, expected: int) -> None:
        last = await self.last_sequence(id)
        renumbered = [replace(entry, sequence=last + n) for n, entry in enumerate(entries, 1)]
        await super().append(id, renumbered, expected=last)


class Halving(MemoryJournal):
    """Stores long runs one entry at a time, and may be cancelled between them."""

    async def append(self, id: str, entries: Sequence[JournalEntry], *, expected: int) -> None:
        await super().append(id, (), expected=expected)
        for entry in entries:
            await super().append(id, [entry], expected=entry.sequence - 1)
            await asyncio.sleep(0)


class Eager(MemoryJournal):
    """Deletes whatever it is told to."""

    async def delete_before(self, id: str, sequence: int) -> int:
        if await self.last_sequence(id):
            await super().save_snapshot(id, Snapshot(await self.last_sequence(id), 1, b""))
        return await super().delete_before(id, sequence)


class Hasty(MemoryJournal):
    """Reads what was there when it began."""

    async def read(self, id: str, after: int = 0) -> AsyncIterator[JournalEntry]:
        for entry in [entry async for entry in super().read(id, after)]:
            yield entry


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Forgetful, "survives_closing"),
        (Trusting, "refuses_stale_writers"),
        (Halving, "cancelled_append_is_whole_or_nothing"),
        (Eager, "deletes_only_what_a_snapshot_covers"),
        (Hasty, "reading_goes_with_writing"),
    ],
)
async def test_the_rules_can_fail(broken: Callable[[], Journal], rule: str) -> None:
    (broken_rule,) = [candidate for candidate in JOURNAL_RULES if rule_name(candidate) == rule]
    with pytest.raises(AssertionError):
        await broken_rule(JournalCase(broken, keep_snapshots=2))
