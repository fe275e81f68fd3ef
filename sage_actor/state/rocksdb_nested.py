"""A nested table on RocksDB: key -> sub-key -> value, each value stored by itself under key and sub-key.

The order in which sub-keys were added is that of numbers stored with the values, since the database sorts by bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from sage_actor.state.pickling import dump
from sage_actor.state.rocksdb_cache import ABSENT, CachedTable, TableHost
from sage_actor.state.rocksdb_database import Change
from sage_actor.state.rocksdb_keys import decode, encode, encode_any
from sage_actor.state.rocksdb_table import pack, unpack
from sage_actor.state.store import DELETED, Entries

__all__ = ["RocksNested", "Rows"]

_SIZE: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">Q")


class Rows:
    """What is known of the entries of one key."""

    __slots__ = ("complete", "dirty", "gone", "numbers", "values", "wiped")

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.numbers: dict[Any, int] = {}  # of the same sub-keys: their places in the order of adding
        self.gone: set[Any] = set()  # known to have no entry
        self.dirty: set[Any] = set()
        self.complete = False  # nothing is in the database that is not here, and `values` is in order
        self.wiped = False  # everything that is in the database of this key has to go


class RocksNested(CachedTable[Rows]):
    """A `NestedTable`. The entries of a key that is scanned are held in memory together."""

    def __init__(self, host: TableHost, number: int, next_number: Callable[[], int]) -> None:
        super().__init__(host, number)
        self._next_number = next_number

    def get(self, key: Any, sub: Any, default: Any = None) -> Any:
        rows = self._rows(key)
        value = rows.values.get(sub, ABSENT)
        if value is ABSENT:
            value = self._fetch_one(key, rows, sub)
        return default if value is ABSENT else value

    def put(self, key: Any, sub: Any, value: Any) -> None:
        rows = self._rows(key)
        if sub not in rows.values and self._fetch_one(key, rows, sub) is ABSENT:
            rows.numbers[sub] = self._next_number()
            rows.gone.discard(sub)
            rows.values[sub] = value
            self._changed(key, rows, sub)
            self._grown(1)
        else:
            rows.values[sub] = value
            self._changed(key, rows, sub)

    def delete(self, key: Any, sub: Any) -> None:
        rows = self._rows(key)
        if sub in rows.values:
            del rows.values[sub]
            del rows.numbers[sub]
            self.young_weight -= 1
        elif rows.complete or sub in rows.gone:
            return
        if not rows.complete:
            rows.gone.add(sub)
        self._changed(key, rows, sub)

    def scan(self, key: Any) -> Iterator[tuple[Any, Any]]:
        return iter(self._complete(key).values.items())

    def count(self, key: Any) -> int:
        return len(self._complete(key).values)

    def clear(self, key: Any) -> None:
        rows = self._rows(key)
        if rows.complete and not rows.values and not rows.dirty:
            return
        self.young_weight -= len(rows.values)
        rows.values, rows.numbers, rows.gone, rows.dirty = {}, {}, set(), set()
        rows.complete = rows.wiped = True
        self.dirty[key] = rows

    def keys(self) -> Iterator[Any]:
        before = b""
        for place, data in self._stored():
            size = _SIZE.unpack_from(place, 4)[0] + 8
            if place[:size] != before:
                before = place[:size]
                names = unpack(data[8:])[0]
                yield decode(place[8:size]) if names is ABSENT else names[0]

    def __len__(self) -> int:
        return sum(1 for _ in self._stored())

    def load(self, entries: Entries) -> None:
        for (key, sub), value in entries:
            if value is DELETED:
                self.delete(key, sub)
            else:
                self.put(key, sub, value)

    # -- rows -----------------------------------------------------------------------------------------------------------------

    def _rows(self, key: Any) -> Rows:
        rows = self.young.get(key)
        return self._promote(key) if rows is None else rows

    def _changed(self, key: Any, rows: Rows, sub: Any) -> None:
        rows.dirty.add(sub)
        self.dirty[key] = rows

    def _fetch(self, key: Any) -> Rows:
        self._group(key)  # refuses keys that could not be found again
        return Rows()

    def _fetch_one(self, key: Any, rows: Rows, sub: Any) -> Any:
        """An entry that is not among the values; it is from then on, if there is one."""
        if rows.complete or sub in rows.gone:
            return ABSENT
        data = self.host.database.get(self._start(key) + encode_any(sub)[0])
        if data is None:
            rows.gone.add(sub)
            return ABSENT
        self._measured(len(data))
        rows.numbers[sub] = _NUMBER.unpack_from(data)[0]
        value = rows.values[sub] = unpack(data[8:])[1]
        # no look at the bounds here: it could take the rows away while the caller changes them
        self.young_weight += 1
        self.room -= 1
        return value

    def _complete(self, key: Any) -> Rows:
        """The rows with everything that is in the database, in order."""
        rows = self._rows(key)
        if rows.complete:
            return rows
        start = self._start(key)
        added = 0
        for place, data in self.host.database.scan(start, _after(start)):
            names, value = unpack(data[8:])
            sub = decode(place[len(start) :]) if names is ABSENT else names[1]
            if sub not in rows.values and sub not in rows.gone:
                rows.values[sub] = value
                rows.numbers[sub] = _NUMBER.unpack_from(data)[0]
                added += 1
        numbers = rows.numbers
        order = sorted(numbers, key=numbers.__getitem__)
        rows.values = {sub: rows.values[sub] for sub in order}
        rows.gone.clear()
        rows.complete = True
        self._grown(added)
        return rows

    def _start(self, key: Any) -> bytes:
        data = encode(key)[0]
        return self._prefix(self._group(key)) + _SIZE.pack(len(data)) + data

    def _weight(self, item: Rows) -> int:
        return 1 + len(item.values)

    def _changes(self, key: Any, item: Rows) -> list[Change]:
        data, exact_key = encode(key)
        start = self._prefix(self._group(key)) + _SIZE.pack(len(data)) + data
        changes: list[Change] = []
        if item.wiped:
            changes += [(place, None) for place, _ in self.host.database.scan(start, _after(start))]
            item.wiped = False
        for sub in item.dirty:
            name, exact = encode_any(sub)
            value = item.values.get(sub, ABSENT)
            if value is ABSENT or (self.expired is not None and self.expired(value)):
                changes.append((start + name, None))
                continue
            packed = _NUMBER.pack(item.numbers[sub]) + pack((key, sub), exact and exact_key, value)
            self._measured(len(packed))
            changes.append((start + name, packed))
        item.dirty.clear()
        return changes

    def _keep(self, key: Any, item: Rows) -> None:
        self.captured[key] = self._changes(key, item)

    def _look(self) -> None:
        rows = next(reversed(self.young.values())) if self.young else None
        if rows is not None and rows.dirty and rows.values:
            self._measured(len(dump(next(reversed(rows.values.values())))))  # nothing may have been encoded yet
        super()._look()

    def _sweep(self, entries: Iterator[tuple[bytes, bytes]]) -> None:
        for place, data in entries:
            names, value = unpack(data[8:])
            if self.expired is None or not self.expired(value):
                continue
            size = _SIZE.unpack_from(place, 4)[0] + 8
            key = decode(place[8:size]) if names is ABSENT else names[0]
            if key not in self.young and key not in self.old:
                self.host.database.write([(place, None)])


def _after(start: bytes) -> bytes:
    """The end of the range of all keys that begin so: what begins with it is never all 0xFF, since a key group is in front."""
    return (int.from_bytes(start, "big") + 1).to_bytes(len(start), "big")
