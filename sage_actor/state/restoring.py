"""Reading back what the former tasks of an operator saved: own key groups of the tables, all items of the lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_actor._core.stable_hash import key_group
from sage_actor.errors import StateMismatch
from sage_actor.state.memory_nested import MemoryNested
from sage_actor.state.memory_table import MemoryTable
from sage_actor.state.part_file import ENTRIES, LIST, read_part_file
from sage_actor.state.parts import ENTRIES_SUFFIX, OperatorPart, PartStorage, TableInfo
from sage_actor.state.store import Entries, KeyedStore, LoadedTable, StorePlace

__all__ = ["ATTACHED", "RestoredContent", "own_entries", "read_parts"]

ATTACHED = "attached"
"""Form of a table that a stage brings itself. Which key an entry belongs to only the stage can say."""


@dataclass(slots=True)
class RestoredContent:
    """What was read back and nobody has claimed yet.

    Attributes:
        parallelism: that of the tasks that saved it.
        tables: by name; those of the keyed store are in there and only named here (None).
        lists: by name: index of a former task, and its items.
        infos: what is known of all of them.
        mixed: attached tables in which entries of other tasks may be.
    """

    parallelism: int = 0
    tables: dict[str, LoadedTable | None] = field(default_factory=lambda: dict[str, "LoadedTable | None"]())
    lists: dict[str, list[tuple[int, list[Any]]]] = field(default_factory=lambda: dict[str, "list[tuple[int, list[Any]]]"]())
    infos: dict[str, TableInfo] = field(default_factory=lambda: dict[str, TableInfo]())
    mixed: set[str] = field(default_factory=lambda: set[str]())


def own_entries(entries: Entries, place: StorePlace, key: Callable[[Any], Any] | None) -> Entries:
    """The entries whose key groups are those of a task (rules F14, F15).

    Args:
        entries: of a table.
        place: the task.
        key: gives the record's key of an entry's key; None: that is it.
    """
    first, last, groups = place.first, place.last, place.groups
    if key is None:
        return [entry for entry in entries if first <= key_group(entry[0], groups) <= last]
    return [entry for entry in entries if first <= key_group(key(entry[0]), groups) <= last]


async def read_parts(
    place: StorePlace, parts: Sequence[OperatorPart], storage: PartStorage, backend: str, store: KeyedStore | None
) -> RestoredContent:
    """Read parts of all former tasks of an operator, in short turns of the loop.

    Raises:
        StateMismatch: another number of key groups, or a backend that this one cannot read.
        CheckpointDamaged, StateError: from the files.
    """
    content = RestoredContent()
    _check(place, parts, backend)
    parts = sorted(parts, key=lambda part: part.index)
    near = [part for part in parts if part.first <= place.last and part.last >= place.first]
    for part in parts:
        content.parallelism = part.parallelism
        for name, info in part.tables.items():
            content.infos.setdefault(name, info)
    if store is not None:
        stored = [part for part in near if any(not file.name.endswith(ENTRIES_SUFFIX) for file in part.files)]
        if stored:
            await store.restore(stored, storage)
        for part in stored:
            content.tables.update({name: None for name, info in part.tables.items() if info.kind == "keyed" and info.form != ATTACHED})
    for part in parts:
        await _read_part(place, part, storage, store, content, part in near)
    return content


def _check(place: StorePlace, parts: Sequence[OperatorPart], backend: str) -> None:
    for part in parts:
        if part.groups != place.groups and any(info.kind == "keyed" for info in part.tables.values()):
            raise StateMismatch(
                place.uid,
                f"it was saved with {part.groups} key groups (max_parallelism) and is to run with {place.groups}",
                f"keep set_max_parallelism({part.groups})",
            )
        if part.backend != backend and any(not file.name.endswith(ENTRIES_SUFFIX) for file in part.files):
            raise StateMismatch(
                place.uid,
                f"it was saved by the state backend {part.backend!r} and is to run with {backend!r}",
                f"set state.backend to {part.backend!r}",
            )


async def _read_part(
    place: StorePlace, part: OperatorPart, storage: PartStorage, store: KeyedStore | None, content: RestoredContent, near: bool
) -> None:
    chain = [file for file in part.files if file.name.endswith(ENTRIES_SUFFIX)]
    foreign = part.first < place.first or part.last > place.last
    for file in chain if near else chain[-1:]:
        blocks = read_part_file(place.job, place.uid, file, storage)
        try:
            async for kind, name, items in blocks:
                info = part.tables.get(name)
                if kind == LIST:
                    if file is chain[-1] and info is not None:
                        content.lists.setdefault(name, []).append((part.index, items))
                elif kind == ENTRIES and not near:
                    break  # lists come first
                elif info is not None:  # else its state was dropped since
                    if foreign and info.form == ATTACHED:
                        content.mixed.add(name)
                    elif foreign:
                        items = own_entries(items, place, _first if info.is_nested else None)
                    _target(name, info, store, content).load(items)
                await asyncio.sleep(0)
        finally:
            await blocks.aclose()


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _target(name: str, info: TableInfo, store: KeyedStore | None, content: RestoredContent) -> LoadedTable:
    known = content.tables.get(name)
    if known is not None:
        return known
    if store is not None and info.form != ATTACHED:
        content.tables[name] = None
        return store.nested(name) if info.is_nested else store.table(name)
    table = content.tables[name] = MemoryNested() if info.is_nested else MemoryTable()
    return table
