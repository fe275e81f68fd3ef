"""All state of one operator in one task: opened or restored, frozen at barriers, written behind the running dataflow."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from sage_actor._core.stable_hash import group_range
from sage_actor.errors import ConfigError, StateError, StateMismatch
from sage_actor.ports import Clock, current_clock
from sage_actor.state.frozen_state import FrozenState
from sage_actor.state.handles import StateAccess
from sage_actor.state.memory_nested import MemoryNested
from sage_actor.state.memory_table import ABSENT, MemoryTable
from sage_actor.state.operator_list import ListMode, OperatorList, deal_items
from sage_actor.state.part_file import FileHeader
from sage_actor.state.parts import ENTRIES_SUFFIX, FileRef, OperatorPart, PartStorage, TableInfo
from sage_actor.state.pickling import dump
from sage_actor.state.restoring import ATTACHED, RestoredContent, own_entries, read_parts
from sage_actor.state.stamped import Stamping
from sage_actor.state.store import SLICE, Entries, Freezable, FrozenStore, KeyedStore, KeyedTable, LoadedTable, NestedTable, StorePlace

__all__ = ["FrozenState", "OperatorState"]

Items = list[Any]

MOST_CHANGES: Final = 16
"""So many files of changes may follow a base; then a new base is written."""


@dataclass(slots=True)
class _Entry:
    """A table in use, or kept for somebody who may ask yet. `table` is what is frozen; None: the keyed store freezes it."""

    info: TableInfo
    handle: Any
    table: Freezable | None
    claimed: bool = True
    frozen: bool = False


class OperatorState:
    """State of one operator in one task. Make it with `restore`, also where there is nothing to restore.

    Used by the task's own loop only. Attributes: `uid`, `index`, `parallelism`, `groups`, `first`, `last` (own key groups,
    inclusive), `backend`, `operator` (a name for errors), `clock`.
    """

    def __init__(self, place: StorePlace, backend: str, operator: str, clock: Clock, store: KeyedStore | None) -> None:
        self.place = place
        self.uid = place.uid
        self.index = place.index
        self.parallelism = place.parallelism
        self.groups = place.groups
        self.first = place.first
        self.last = place.last
        self.backend = backend
        self.operator = operator
        self.clock = clock
        self._store = store
        self._tables: dict[str, _Entry] = {}
        self._lists: dict[str, OperatorList] = {}
        self._readers: dict[str, Callable[[Any], Any]] = {}
        self._restored = RestoredContent()
        self._chain: list[FileRef] = []
        self._broken = False
        self._outstanding: FrozenState | None = None

    @classmethod
    async def restore(
        cls,
        parts: Sequence[OperatorPart],
        storage: PartStorage | None,
        *,
        uid: str,
        index: int = 0,
        parallelism: int = 1,
        groups: int = 128,
        own: tuple[int, int] | None = None,
        backend: str = "memory",
        folder: str | None = None,
        clock: Clock | None = None,
        operator: str = "",
        job: str = "",
        options: Mapping[str, object] | None = None,
    ) -> OperatorState:
        """Open the state of an operator with what its former tasks have saved.

        Args:
            parts: of one checkpoint, of all former tasks; empty: begin with nothing.
            storage: where their files are; may be None without parts.
            uid, index, parallelism, groups: the task; the former parallelism may have been another one.
            own: the task's key groups, first and last; None: its range of an even division.
            backend: "memory" or "rocksdb".
            folder: local folder for a backend on disk.
            clock: processing time; None: that of the loop.
            operator, job: names, for errors.
            options: settings of the backend.

        Raises:
            StateMismatch: the parts do not fit.
            CheckpointDamaged: a file is missing or damaged.
            ConfigError: no such backend, or it is not installed.
        """
        first, last = group_range(index, groups, parallelism) if own is None else own
        place = StorePlace(job, uid, index, parallelism, groups, first, last, folder or "", options or {})
        store = await _open_store(backend, place)
        state = cls(place, backend, operator or uid, clock or current_clock(), store)
        if parts:
            assert storage is not None, "parts without storage"
            try:
                state._restored = await read_parts(place, parts, storage, backend, store)
            except BaseException:
                await state.close()
                raise
        return state

    # -- what stages and functions use -----------------------------------------------------------------------------------

    def table(self, name: str) -> KeyedTable:
        """The stage's table of that name, restored content included; the same object each time.

        Raises:
            StateMismatch: what was saved under that name is of another kind.
        """
        return cast("KeyedTable", self._keyed(name, TableInfo("keyed")))

    def nested(self, name: str) -> NestedTable:
        """The same for a nested table."""
        return cast("NestedTable", self._keyed(name, TableInfo("keyed", form="nested")))

    def attach(self, name: str, table: Freezable, *, key: Callable[[Any], Any] | None = None) -> None:
        """Save a stage's own table with the rest, and load what was saved of it into it now: entries of own key groups only.

        Args:
            name: of its own among the tables of the operator.
            table: empty.
            key: gives the record's key of an entry's key, which decides whose entry it is; None: the entry's key is that.

        Raises:
            StateMismatch: what was saved under that name is of another kind.
            StateError: there is a table of that name already.
        """
        info = TableInfo("keyed", form=ATTACHED)
        known = self._tables.get(name)
        if known is not None and known.claimed:
            raise StateError(self.operator, name, "there are two tables of that name")
        self._fits(name, info)
        restored = self._restored.tables.pop(name, None) if known is None else known.handle
        if restored is not None:
            items = cast("MemoryTable", restored).items()
            mixed = name in self._restored.mixed
            while entries := list(itertools.islice(items, SLICE)):
                table.load(own_entries(entries, self.place, key) if mixed else entries)
        self._tables[name] = _Entry(info, table, table)

    def list(self, name: str, *, mode: ListMode = "split") -> OperatorList:
        """A list of this task, with what it was dealt of the saved ones; the same object each time.

        Args:
            name: of its own among the lists and tables of the operator.
            mode: what happens when it is restored. "split": each task has its own items again, or at another parallelism an even
                share of all, in order; "union": each has the items of all (and puts its own there before the next snapshot, or
                they multiply); "own": as "split", but another parallelism is refused.

        Raises:
            StateMismatch: it was saved with another mode, or with "own" at another parallelism.
        """
        known = self._lists.get(name)
        if known is not None:
            if known.mode != mode:
                raise StateError(self.operator, name, f"the list is asked for as {mode!r} and as {known.mode!r}")
            return known
        self._fits(name, TableInfo(mode, form="list"))
        found = self._lists[name] = OperatorList(mode, self._dealt(name, mode))
        self._restored.lists.pop(name, None)
        return found

    def access(self) -> StateAccess:
        """Handles for one user function; the operator sets ``key`` before each call."""
        return StateAccess(self)

    def declare(self, name: str, form: str, stamping: Stamping) -> Any:
        """The table behind a handle; see `StateDeclarer`."""
        name = f"user/{name}"  # apart from the tables of the stage
        info = TableInfo("keyed", stamping.version, form, stamping.lifetime is not None)
        before = self._restored.infos.get(name)
        if before is not None and before.form == form:
            stamping.check(before.version)
        table = self._keyed(name, info)
        if stamping.lifetime is not None:
            if before is not None and not before.timed:
                _stamp_all(table, stamping)
            table.drop_when(stamping.expired)
        return table

    def expose(self, name: str, read: Callable[[Any], Any]) -> None:
        """Let `peek` see a user's state; see `StateDeclarer`."""
        self._readers[name] = read

    def readable(self) -> tuple[str, ...]:
        """The names that `peek` knows: those that functions have declared, in alphabetical order."""
        return tuple(sorted(self._readers))

    def peek(self, name: str, key: Any, default: Any = None) -> Any:
        """What a function's state is for a key just now, read by somebody else: between two turns of the task, on its loop.

        A value or what reducing gave as it is, a list as a list, a map as a dict, an aggregate as its result; what has expired is
        not there. It may be the live object: do not change it, and copy it before the task's next turn. Nothing is changed.

        Raises:
            StateError: no function has declared a state of that name.
            StateMismatch: the value was written under a version that cannot be read.
        """
        read = self._readers.get(name)
        if read is None:
            known = ", ".join(repr(each) for each in self.readable())
            raise StateError(self.operator, name, f"there is no state of that name; the operator has {known or 'none that can be queried'}")
        found = read(key)
        return default if found is ABSENT else found

    def check_claimed(self, *, allow_unmatched: bool = False) -> None:
        """Once every stage and function is open: refuse saved state that nobody has asked for.

        Args:
            allow_unmatched: drop it instead. Without this call it is kept and saved on.

        Raises:
            StateMismatch: some is left.
        """
        left = sorted([*self._restored.tables, *self._restored.lists])
        if not left:
            return
        if not allow_unmatched:
            names = ", ".join(repr(name.removeprefix("user/")) for name in left)
            raise StateMismatch(
                self.operator,
                f"saved state {names} is not declared any more",
                "declare it in open() under that name, or allow it to be dropped: 'checkpoint.allow_unmatched': True",
            )
        for name, table in self._restored.tables.items():
            if table is None and self._store is not None:
                self._store.drop(name)
        self._restored.tables.clear()
        self._restored.lists.clear()

    # -- snapshots -------------------------------------------------------------------------------------------------------

    def freeze(self, checkpoint: int) -> FrozenState:
        """At the barrier: fix everything as it is now, at the cost of what changed since the last freeze.

        To be handed to `write`. If what was frozen before has not been written yet, that is given up: its `write` fails.

        Raises:
            StateError: an item of a list cannot be pickled.
        """
        self._keep_unclaimed()
        full = self._begins_anew()
        if self._outstanding is not None:
            self._outstanding.close()
        infos = {name: TableInfo(entry.mode, form="list") for name, entry in self._lists.items()}
        lists = [(name, self._pickled(name, entry.items)) for name, entry in self._lists.items()]
        tables: list[tuple[str, Iterator[Entries]]] = []
        for name, entry in self._tables.items():
            infos[name] = entry.info
            if entry.table is not None:
                tables.append((name, entry.table.freeze(full=full or not entry.frozen)))
                entry.frozen = True
        store: FrozenStore | None = None if self._store is None else self._store.freeze(checkpoint)
        frozen = FrozenState(self.operator, FileHeader(self.uid, checkpoint, self.index, full, infos), lists, tables, store)
        self._outstanding = frozen
        return frozen

    async def write(self, frozen: FrozenState, storage: PartStorage, prefix: str) -> OperatorPart:
        """Save what was frozen, in turns of the loop under a millisecond, while the state changes on.

        Args:
            frozen: from the last `freeze`.
            storage: the same at each call.
            prefix: of the names of the new files; unique for checkpoint, attempt, task and operator.

        Raises:
            StateError: a value cannot be pickled, or there was another `freeze` meanwhile.
            CheckpointError: the storage refused.
        """
        header = frozen.header
        files: list[FileRef] = []
        try:
            if frozen is not self._outstanding:
                raise StateError(self.operator, "", f"checkpoint {header.checkpoint} was given up before its state was written")
            if frozen.store is not None:
                files = await frozen.store.write(storage, prefix)
            if header.tables:
                ref = await storage.write(f"{prefix}{ENTRIES_SUFFIX}", frozen.blocks(lambda: frozen is self._outstanding))
            else:
                ref = None
            if frozen is not self._outstanding:
                raise StateError(self.operator, "", f"checkpoint {header.checkpoint} was given up while its state was written")
        finally:
            frozen.close()
            if frozen is self._outstanding:  # what is not written now is lost to the chain, unless the next line says otherwise
                self._outstanding = None
                self._broken = True
        self._broken = False
        if header.full:
            self._chain = []
        if ref is not None:
            self._chain.append(ref)
        return OperatorPart(
            self.uid,
            self.index,
            self.parallelism,
            self.groups,
            self.first,
            self.last,
            self.backend,
            dict(header.tables),
            [*files, *self._chain],
        )

    async def close(self) -> None:
        """Let everything go. May be called twice."""
        outstanding, self._outstanding = self._outstanding, None
        if outstanding is not None:
            outstanding.close()
        if self._store is not None:
            await self._store.close()

    # -- inner -----------------------------------------------------------------------------------------------------------

    def _keyed(self, name: str, info: TableInfo) -> LoadedTable:
        known = self._tables.get(name)
        if known is not None and known.claimed:
            if known.info != info:
                raise StateError(self.operator, name, f"it is asked for as {info} and as {known.info}")
            return cast("LoadedTable", known.handle)
        self._fits(name, info)
        if known is not None:
            known.info, known.claimed = info, True
            return cast("LoadedTable", known.handle)
        restored = self._restored.tables.pop(name, None)
        entry = self._tables[name] = self._entry(name, info, restored)
        return cast("LoadedTable", entry.handle)

    def _entry(self, name: str, info: TableInfo, restored: LoadedTable | None) -> _Entry:
        if restored is None and self._store is not None:
            return _Entry(info, self._store.nested(name) if info.is_nested else self._store.table(name), None)
        table = restored if restored is not None else MemoryNested() if info.is_nested else MemoryTable()
        return _Entry(info, table, cast("Freezable", table))

    def _fits(self, name: str, info: TableInfo) -> None:
        """Refuse to read what was saved as something else."""
        saved = self._restored.infos.get(name)
        if saved is None:
            return
        if saved.kind != info.kind or saved.form != info.form:
            plain = name.removeprefix("user/")
            raise StateMismatch(
                self.operator,
                f"state {plain!r} was saved as {_described(saved)} and is asked for as {_described(info)}",
                "keep its kind, or give the new one another name",
            )

    def _dealt(self, name: str, mode: ListMode) -> Items:
        saved = self._restored.lists.get(name, [])
        return deal_items(self.operator, name, mode, saved, self._restored.parallelism, self.index, self.parallelism)

    def _keep_unclaimed(self) -> None:
        """What was restored and nobody has asked for (yet) is saved on."""
        for name in list(self._restored.tables):
            info = self._restored.infos[name]
            entry = self._tables[name] = self._entry(name, info, self._restored.tables.pop(name))
            entry.claimed = False
        for name in list(self._restored.lists):
            mode = cast("ListMode", self._restored.infos[name].kind)
            items = self._dealt(name, mode)
            self._lists[name] = OperatorList(mode, items if mode != "union" or self.index == 0 else [])
            del self._restored.lists[name]

    def _begins_anew(self) -> bool:
        if not self._chain or self._broken or self._outstanding is not None:
            return True
        changes = self._chain[1:]
        return len(changes) >= MOST_CHANGES or sum(file.size for file in changes) > self._chain[0].size

    def _pickled(self, name: str, items: Items) -> bytes:
        try:
            return dump(items)
        except Exception as error:
            raise StateError(self.operator, name, f"its items cannot be saved: {type(error).__name__}: {error}") from error


def _described(info: TableInfo) -> str:
    return info.form if info.kind == "keyed" else f"list of mode {info.kind!r}"


def _stamp_all(table: Any, stamping: Stamping) -> None:
    """Values that were written before their state had a time to live begin to live now."""
    if isinstance(table, MemoryNested) or hasattr(table, "scan"):
        for key in list(table.keys()):
            for sub, stored in list(table.scan(key)):
                table.put(key, sub, stamping.stamp(stored))
    else:
        for key, stored in list(table.items()):
            table.put(key, stamping.stamp(stored))


async def _open_store(backend: str, place: StorePlace) -> KeyedStore | None:
    if backend == "memory":
        return None
    if backend != "rocksdb":
        raise ConfigError("state.backend", f"{backend!r} is no state backend; there are 'memory' and 'rocksdb'")
    module: Any = importlib.import_module("sage_actor.state.rocksdb_store")  # says what to install where rocksdict is missing
    return cast("KeyedStore", await module.open_store(place))
