"""The keyed store on RocksDB: one database per operator and task, on local disk, in front of it what was used lately.

Content: key group (2 bytes), number of the table (2 bytes), key -> value. So the key groups of a task are one range, and a task
that takes over others' groups copies ranges.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

from sage_actor.errors import CheckpointDamaged, ConfigError, StateError
from sage_actor.ports import offload
from sage_actor.state.parts import FileRef, OperatorPart, PartStorage
from sage_actor.state.rocksdb_cache import CachedTable
from sage_actor.state.rocksdb_checkpoint import FrozenRocks, RocksIndex, fetch_database, files_of
from sage_actor.state.rocksdb_database import Database, RocksSettings
from sage_actor.state.rocksdb_nested import RocksNested
from sage_actor.state.rocksdb_table import RocksTable
from sage_actor.state.store import StorePlace

__all__ = ["RocksStore", "open_store"]

_COPIED = 2000
"""Entries copied in one go while another task's key groups are taken over."""
_SWEPT = 250


async def open_store(place: StorePlace) -> RocksStore:
    """An empty store.

    Args:
        place: its options may hold sizes in bytes: cache, blocks, writes (`RocksSettings`).

    Raises:
        ConfigError: rocksdict is not installed, or an option is unknown or no size.
        StateError: the folder cannot be used.
    """
    unknown = sorted(set(place.options) - {"cache", "blocks", "writes"})
    if unknown:
        raise ConfigError(f"state.rocksdb.{unknown[0]}", "there is no such setting; there are cache, blocks and writes")
    settings = RocksSettings(**cast("dict[str, int]", dict(place.options)))

    def begin() -> Database:
        shutil.rmtree(place.folder, ignore_errors=True)
        return Database(str(Path(place.folder) / "data"), place.uid, settings)

    return RocksStore(place, settings, await offload(begin))


class RocksStore:
    """A `KeyedStore`; made by `open_store`."""

    def __init__(self, place: StorePlace, settings: RocksSettings, database: Database) -> None:
        self.place = place
        self.settings = settings
        self.database = database
        self.groups, self.first, self.last = place.groups, place.first, place.last
        self.adopted: dict[str, FileRef] = {}
        self._adopted_by: PartStorage | None = None
        self._numbers: dict[str, int] = {}
        self._tables: dict[str, RocksTable | RocksNested] = {}
        self._next_table = 0
        self._next_number = 0
        self._pending: FrozenRocks | None = None
        self._frozen = 0
        self._drained = 0
        self._closed = False
        # making a checkpoint runs in another thread, and closing the database, or doing it here instead, must not overlap it
        self._making = threading.Lock()

    # -- tables ---------------------------------------------------------------------------------------------------------------

    def table(self, name: str) -> RocksTable:
        found = self._tables.get(name)
        if found is None:
            found = self._tables[name] = RocksTable(self, self._number(name))
        if not isinstance(found, RocksTable):
            raise StateError(self.place.uid, name, "it is a nested table, and was asked for as a plain one")
        return found

    def nested(self, name: str) -> RocksNested:
        found = self._tables.get(name)
        if found is None:
            found = self._tables[name] = RocksNested(self, self._number(name), self._number_entry)
        if not isinstance(found, RocksNested):
            raise StateError(self.place.uid, name, "it is a plain table, and was asked for as a nested one")
        return found

    def drop(self, name: str) -> None:
        number = self._numbers.get(name)
        if number is None:
            return
        table: CachedTable[object] = cast("CachedTable[object]", self._tables.pop(name, None) or RocksTable(self, number))
        table.erase()
        del self._numbers[name]

    def _number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            if self._next_table > 0xFFFF:
                raise StateError(self.place.uid, name, "an operator can have no more than 65,536 tables in its life")
            number = self._numbers[name] = self._next_table
            self._next_table += 1
        return number

    def _number_entry(self) -> int:
        self._next_number += 1
        return self._next_number

    def share(self) -> int:
        return self.settings.cache // max(1, len(self._tables))

    # -- freezing -------------------------------------------------------------------------------------------------------------

    def freeze(self, checkpoint: int) -> FrozenRocks:
        self.settle()
        for table in self._tables.values():
            table.freeze()
        self._drained = 0
        self._frozen += 1
        describe = partial(RocksIndex, dict(self._numbers), self._next_table, self._next_number)
        self._pending = FrozenRocks(self, self.place.uid, str(Path(self.place.folder) / f"frozen-{self._frozen}"), describe)
        return self._pending

    def is_pending(self) -> bool:
        return self._pending is not None or any(table.frozen for table in self._tables.values())

    def settle(self) -> None:
        while self.drain(_COPIED):
            pass
        if self._pending is not None:
            self.make_files(self._pending)
            self._pending = None

    def drain(self, most: int) -> int:
        """Write some of what is frozen into the database; 0 if nothing is left."""
        for table in self._tables.values():
            if table.frozen:
                count = table.drain(most)
                self._drained += count
                return count
        return 0

    def make_files(self, frozen: FrozenRocks, *, patiently: bool = False) -> bool:
        """Make the files of what is frozen, unless they are there. Blocks; may be called in any thread.

        Args:
            patiently: hold nobody else up; the answer is False if that was not possible just now.
        """
        done = True
        with self._making:
            if not frozen.made and not frozen.abandoned and not self._closed:
                if patiently:
                    done = frozen.made = self.database.link_checkpoint(frozen.folder)
                else:
                    self.database.checkpoint(frozen.folder)
                    frozen.made = True
        if frozen.abandoned:  # since, and whoever abandoned it could not wait for us
            frozen.remove()
        return done

    def written(self, frozen: FrozenRocks) -> None:
        """The files are there: what changes from now on may go into the database."""
        if self._pending is frozen:
            self._pending = None

    def reuse(self, storage: PartStorage) -> dict[str, FileRef]:
        """Sorted files that this storage has already, to be brought up to date by the caller."""
        if storage is not self._adopted_by:
            self.adopted = {}
            self._adopted_by = storage
        return self.adopted

    def let_go(self, frozen: FrozenRocks) -> None:
        """An abandoned one is not waited for, and its folder goes."""
        self.written(frozen)
        if self._making.acquire(blocking=False):
            self._making.release()
            frozen.remove()

    async def sweep(self) -> None:
        """Remove some entries that have expired: a few times as many are looked at as were written."""
        for table in list(self._tables.values()):
            for _ in range(4 + 4 * self._drained // _SWEPT):
                if table.expired is None or self.is_pending() or self._closed:
                    break
                table.sweep(_SWEPT)
                await asyncio.sleep(0)

    # -- restoring --------------------------------------------------------------------------------------------------------------

    async def restore(self, parts: Sequence[OperatorPart], storage: PartStorage) -> None:
        ours = [part for part in parts if files_of(part) and part.first <= self.last and part.last >= self.first]
        if not ours:
            return
        # the database that has most of what is wanted becomes ours, the others are copied into it
        ours.sort(key=lambda part: (max(part.first, self.first) - min(part.last, self.last), part.index))
        base = ours[0]
        await offload(self.database.close)
        index, refs = await fetch_database(self.place.job, base, storage, self.database.folder)
        self.database = await self._open(base, self.database.folder)
        self._numbers, self._next_table, self._next_number = dict(index.tables), index.next_table, index.next_number
        self.adopted, self._adopted_by = refs, storage
        self.database.delete_range(b"", _group(self.first))
        self.database.delete_range(_group(self.last + 1), _group(self.groups + 1))
        for part in ours[1:]:
            await self._take_over(part, storage)

    async def _open(self, part: OperatorPart, folder: str) -> Database:
        try:
            return await offload(lambda: Database(folder, self.place.uid, self.settings))
        except StateError as error:
            raise CheckpointDamaged(self.place.job, files_of(part)[0].name, error.problem) from error

    async def _take_over(self, part: OperatorPart, storage: PartStorage) -> None:
        """Copy the entries of own key groups."""
        folder = str(Path(self.place.folder) / f"from-{part.index}")
        index, _ = await fetch_database(self.place.job, part, storage, folder)
        other = await self._open(part, folder)
        try:
            self._next_number = max(self._next_number, index.next_number)
            numbers = {number.to_bytes(2, "big"): self._number(name).to_bytes(2, "big") for name, number in index.tables.items()}
            entries = other.scan(_group(max(part.first, self.first)), _group(min(part.last, self.last) + 1))

            def copy() -> int:
                some = list(islice(entries, _COPIED))
                # entries of tables that were dropped may still be there
                self.database.write([(k[:2] + numbers[k[2:4]] + k[4:], value) for k, value in some if k[2:4] in numbers])
                return len(some)

            try:
                while await offload(copy):
                    pass
            except StateError as error:
                raise CheckpointDamaged(self.place.job, files_of(part)[0].name, error.problem) from error
        finally:
            other.close()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pending is not None:
            self._pending.abandoned = True
            self._pending = None
        for table in self._tables.values():
            table.forget()

        def end() -> None:
            with self._making:
                self.database.close()
            shutil.rmtree(self.place.folder, ignore_errors=True)

        await offload(end)


def _group(group: int) -> bytes:
    return group.to_bytes(2, "big")
