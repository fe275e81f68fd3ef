"""The protocols of state: tables, what can be frozen, and the keyed store that a backend brings."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sage_actor.state.parts import FileRef, OperatorPart, PartStorage

__all__ = [
    "DELETED",
    "SLICE",
    "Deleted",
    "Entries",
    "Freezable",
    "FrozenStore",
    "KeyedStore",
    "KeyedTable",
    "LoadedTable",
    "NestedTable",
    "StorePlace",
]


class Deleted(enum.Enum):
    """Type of `DELETED`: an enum, so that it stays itself when it is pickled."""

    DELETED = "deleted"


DELETED: Final = Deleted.DELETED
"""Stands for a removed entry in frozen content."""

SLICE: Final = 1000
"""Most entries that one slice of frozen content may hold."""

Entries = list[tuple[Any, Any]]
"""Keys (of nested tables: key and sub-key) and values."""


class Freezable(Protocol):
    """Something whose content is saved as slices of entries."""

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        """The content as of this call, to be drained later, slice by slice, while the table changes on.

        To be called at the barrier, so it costs at most what was changed since the last freeze, never the whole. All entries
        if full, else those changed since the last freeze, removed ones as ``(key, DELETED)``; an entry that was removed and set
        again may appear twice, so. At most `SLICE` entries a slice. Only one is drained at a time: freezing again ends the one
        before. Whoever drains it pickles a slice before others run, so the values in it may be those of the table itself. A
        ``close()`` on the iterator, where it has one, is called when the rest is not wanted.
        """
        ...

    def load(self, entries: Entries) -> None:
        """Restore, before first use: later entries win, `DELETED` removes. May be called several times."""
        ...


class LoadedTable(Protocol):
    """What the tables of every backend have in common."""

    def load(self, entries: Entries) -> None:
        """As `Freezable.load`; entries of a nested table are ``((key, sub), value)``."""
        ...

    def drop_when(self, expired: Callable[[Any], bool]) -> None:
        """From now on an entry whose value is expired may vanish whenever that is convenient. Some are looked at with each change
        or each snapshot, so that in the end only a bounded number is left. Nobody relies on one being gone: readers check for
        themselves."""
        ...

    def __len__(self) -> int:
        """Number of entries, expired ones that are still there included. May cost a walk."""
        ...


class KeyedTable(LoadedTable, Protocol):
    """Key -> value. Keys are those `stable_hash` accepts; equal keys (1, 1.0, True) share an entry. Values must pickle.

    A value got from a table and changed in place counts as changed only once it is `put` again; do that before the call of the
    stage ends, and get it anew in the next.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        """The value, or default."""
        ...

    def put(self, key: Any, value: Any) -> None:
        """Set the value.

        Raises:
            UnstableKey: the key has no stable encoding.
        """
        ...

    def delete(self, key: Any) -> None:
        """Remove the entry, if there is one."""
        ...

    def __contains__(self, key: Any) -> bool:
        """Whether there is an entry."""
        ...

    def keys(self) -> Iterator[Any]:
        """All keys, in no promised order. The table must not be changed meanwhile."""
        ...

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All entries, in no promised order. The table must not be changed meanwhile."""
        ...

    def clear(self) -> None:
        """Remove every entry."""
        ...


class NestedTable(LoadedTable, Protocol):
    """Key -> sub-key -> value, each value saved by itself. What is said of keys and values in `KeyedTable` holds; sub-keys may be
    anything that is hashable, pickles, and pickles equally where it is equal."""

    def get(self, key: Any, sub: Any, default: Any = None) -> Any:
        """The value, or default."""
        ...

    def put(self, key: Any, sub: Any, value: Any) -> None:
        """Set the value. A new sub-key goes behind the others of its key; one that is there keeps its place.

        Raises:
            UnstableKey: the key has no stable encoding.
        """
        ...

    def delete(self, key: Any, sub: Any) -> None:
        """Remove the entry, if there is one."""
        ...

    def scan(self, key: Any) -> Iterator[tuple[Any, Any]]:
        """Sub-keys and values of a key, in the order in which the sub-keys were added. Entries of that key must not be added or
        removed meanwhile."""
        ...

    def count(self, key: Any) -> int:
        """Number of entries of a key."""
        ...

    def clear(self, key: Any) -> None:
        """Remove every entry of a key."""
        ...

    def keys(self) -> Iterator[Any]:
        """All keys that have entries, in no promised order. The table must not be changed meanwhile."""
        ...


class FrozenStore(Protocol):
    """What a keyed store froze at one barrier."""

    async def write(self, storage: PartStorage, prefix: str) -> list[FileRef]:
        """Make it durable, in turns of the loop under a millisecond, while the store changes on.

        Args:
            prefix: unique in the job for this checkpoint, attempt and task; a file written before may be referred to again
                instead of being written anew.

        Returns:
            All files that `KeyedStore.restore` needs, none of which ends with `ENTRIES_SUFFIX`.
        """
        ...

    def close(self) -> None:
        """Let go of what was frozen. Called once, after `write` returned or failed, or instead of it. Must not block long."""
        ...


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where a keyed store works.

    Attributes:
        job, uid: whose it is, for errors.
        index, parallelism: the task.
        groups, first, last: number of key groups, and those of this task, inclusive.
        folder: a local folder of its own, made when needed; content that is found there is worthless.
        options: settings of the backend, such as cache sizes.
    """

    job: str
    uid: str
    index: int
    parallelism: int
    groups: int
    first: int
    last: int
    folder: str
    options: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())


class KeyedStore(Protocol):
    """All keyed tables of one operator in one task, kept by a backend that saves them as files of its own.

    ``sage_actor.state.rocksdb_store.open_store(place: StorePlace) -> KeyedStore`` (async) makes one. It is empty then;
    `restore` may follow, before anything else. The memory backend needs none: its tables are frozen one by one.
    """

    def table(self, name: str) -> KeyedTable:
        """The table of that name, always the same object; made when it is first asked for."""
        ...

    def nested(self, name: str) -> NestedTable:
        """The same for a nested table; names are shared with `table`, and the caller keeps the two kinds apart."""
        ...

    def drop(self, name: str) -> None:
        """Remove a table with everything in it."""
        ...

    def freeze(self, checkpoint: int) -> FrozenStore:
        """At the barrier: fix the content as it is now. Synchronous; costs what changed since the last freeze."""
        ...

    async def restore(self, parts: Sequence[OperatorPart], storage: PartStorage) -> None:
        """Bring back the entries of own key groups from parts of this backend, whose key ranges touch that of this store.

        Which tables there are, and of which kind, stands in ``OperatorPart.tables`` (`TableInfo.is_nested`). Parts whose range goes
        beyond that of the store hold entries of others, which are left out.

        Raises:
            CheckpointDamaged: a file is missing or damaged; the store is unusable then.
        """
        ...

    async def close(self) -> None:
        """Release everything and remove the folder. May be called twice."""
        ...
