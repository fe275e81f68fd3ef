"""A plain table on RocksDB: key -> value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sage_actor.state.pickling import dump, is_unchanging, load
from sage_actor.state.rocksdb_cache import ABSENT, CachedTable
from sage_actor.state.rocksdb_database import Change
from sage_actor.state.rocksdb_keys import decode, encode
from sage_actor.state.store import DELETED, Entries

__all__ = ["RocksTable", "pack", "unpack"]

WITH_KEY: Final = b"k"
"""First byte of a stored value whose key cannot be had back from its bytes and is pickled with it; a plain pickle starts otherwise."""


def pack(key: Any, exact: bool, value: Any) -> bytes:
    """A value to be stored; with the key, if that is not exact."""
    return dump(value) if exact else WITH_KEY + dump((key, value))


def unpack(data: bytes) -> tuple[Any, Any]:
    """The key, or `ABSENT` if it stands in the stored key; and the value."""
    if data[:1] == WITH_KEY:
        key, value = load(memoryview(data)[1:])
        return key, value
    return ABSENT, load(data)


class RocksTable(CachedTable[Any]):
    """A `KeyedTable`. An item is a value, or `DELETED` for a key that is known to have none."""

    def get(self, key: Any, default: Any = None) -> Any:
        value = self.young.get(key, ABSENT)
        if value is ABSENT:
            value = self._promote(key)
        return default if value is DELETED else value

    def get_many(self, keys: Sequence[Any], default: Any = None) -> list[Any]:
        """The values of many keys at once; those that are not in memory are read in few calls of the library."""
        self.prefetch(keys)
        return [self.get(key, default) for key in keys]

    def prefetch(self, keys: Sequence[Any]) -> None:
        """Bring these into memory, as far as they fit: `get` finds them there then."""
        missing = [key for key in dict.fromkeys(keys) if key not in self.young and key not in self.old]
        for at in range(0, len(missing), 256):
            part = missing[at : at + 256]
            found = self.host.database.get_many([self._place(key) for key in part])
            for key, data in zip(part, found, strict=True):
                if key not in self.young and key not in self.old:
                    self._admit(key, self._unpacked(data))

    def put(self, key: Any, value: Any) -> None:
        if key in self.young:
            self.young[key] = self.dirty[key] = value
            return
        if self.old.pop(key, ABSENT) is ABSENT:
            self._group(key)  # refuses keys that could not be found again
        else:
            self.old_weight -= 1
        self.dirty[key] = value
        self._admit(key, value)

    def delete(self, key: Any) -> None:
        self.put(key, DELETED)

    def __contains__(self, key: Any) -> bool:
        return self.get(key, ABSENT) is not ABSENT

    def __len__(self) -> int:
        return sum(1 for _ in self._stored())

    def keys(self) -> Iterator[Any]:
        return (key for key, _ in self.items())

    def items(self) -> Iterator[tuple[Any, Any]]:
        for place, data in self._stored():
            key, value = unpack(data)
            yield decode(place[4:]) if key is ABSENT else key, value

    def clear(self) -> None:
        self.erase()

    def load(self, entries: Entries) -> None:
        for key, value in entries:
            self.put(key, value)

    def _place(self, key: Any) -> bytes:
        return self._prefix(self._group(key)) + encode(key)[0]

    def _unpacked(self, data: bytes | None) -> Any:
        if data is None:
            return DELETED
        self._measured(len(data))
        return unpack(data)[1]

    def _fetch(self, key: Any) -> Any:
        return self._unpacked(self.host.database.get(self._place(key)))

    def _weight(self, item: Any) -> int:
        return 1

    def _changes(self, key: Any, item: Any) -> list[Change]:
        data, exact = encode(key)
        place = self._prefix(self._group(key)) + data
        if item is DELETED or (self.expired is not None and self.expired(item)):
            return [(place, None)]
        packed = pack(key, exact, item)
        self._measured(len(packed))
        return [(place, packed)]

    def _keep(self, key: Any, item: Any) -> None:
        if not is_unchanging(item):
            self.captured[key] = self._changes(key, item)

    def _look(self) -> None:
        if self.young:
            newest = next(reversed(self.young.values()))
            if newest is not DELETED and self.dirty:
                self._measured(len(dump(newest)))  # nothing may have been encoded yet
        super()._look()

    def _sweep(self, entries: Iterator[tuple[bytes, bytes]]) -> None:
        for place, data in entries:
            key, value = unpack(data)
            if self.expired is not None and self.expired(value):
                key = decode(place[4:]) if key is ABSENT else key
                if key not in self.young and key not in self.old:
                    self.host.database.write([(place, None)])
