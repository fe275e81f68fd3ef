"""What the two kinds of tables on RocksDB share: recently used items in memory, written back in batches.

Items lie in two generations. One that is used moves to the young one; when there are too many, the old one is written back
and dropped from its front, and when it is empty the young one becomes the old. A look-up of a hot key is one look-up in a dict
and changes nothing, which a list in order of use would have to.

Freezing gives everything to the old generation and sets the changed items aside: that is all the barrier pays for. They are
encoded and written later, in slices; one that is used before its turn is encoded first, since it may be changed in place then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Generic, Protocol, TypeVar

from sage_actor._core.stable_hash import key_group
from sage_actor.state.rocksdb_database import Change, Database

__all__ = ["ABSENT", "CachedTable", "TableHost"]

ABSENT: Final = object()
STEP: Final = 256
"""Items taken in between two looks at the bounds; about as many go then, so that no turn is held up for long."""
FEWEST: Final = 16

I = TypeVar("I")  # noqa: E741 - the item


class TableHost(Protocol):
    """The store, as its tables see it."""

    database: Database
    groups: int
    first: int
    last: int

    def share(self) -> int:
        """Bytes that one table may hold in memory, about."""
        ...

    def is_pending(self) -> bool:
        """Whether something frozen is not in the database yet, or not in its checkpoint: writing back must wait."""
        ...

    def settle(self) -> None:
        """Finish, here and now, what is pending."""
        ...


class CachedTable(Generic[I]):
    """Items by key in front of the database; kinds of tables say what an item is."""

    def __init__(self, host: TableHost, number: int) -> None:
        self.host = host
        self.number = number
        self.young: dict[Any, I] = {}
        self.old: dict[Any, I] = {}
        self.dirty: dict[Any, I] = {}  # changed since the last freeze, and not written back; each is in a generation too
        self.frozen: dict[Any, I] = {}  # changed before the last freeze, and not written yet
        self.captured: dict[Any, list[Change]] = {}  # of the frozen ones, those that were used since
        self.young_weight = 0
        self.old_weight = 0
        self.room = FEWEST
        self.entry_size = 64  # of an encoded entry, on average
        self.expired: Callable[[Any], bool] | None = None
        self.swept: bytes = b""

    def drop_when(self, expired: Callable[[Any], bool]) -> None:
        self.expired = expired

    # -- what the kinds say -----------------------------------------------------------------------------------------------

    def _fetch(self, key: Any) -> I:
        """The item, from the database."""
        raise NotImplementedError

    def _weight(self, item: I) -> int:
        """Number of entries that the item stands for, at least 1."""
        raise NotImplementedError

    def _changes(self, key: Any, item: I) -> list[Change]:
        """What has to be written for an item that is dirty; it counts as clean then."""
        raise NotImplementedError

    def _keep(self, key: Any, item: I) -> None:
        """A frozen item is about to be used: put its changes into `captured` if it may change in place."""
        raise NotImplementedError

    def _sweep(self, entries: Iterator[tuple[bytes, bytes]]) -> None:
        """Remove those of the stored entries that have expired and are not in memory."""
        raise NotImplementedError

    # -- generations --------------------------------------------------------------------------------------------------------

    def _promote(self, key: Any) -> I:
        """The item, which is in the young generation from now on."""
        item: Any = self.old.pop(key, ABSENT)
        if item is ABSENT:
            item = self._fetch(key)
        else:
            self.old_weight -= self._weight(item)
            if self.frozen and key in self.frozen and key not in self.captured:
                self._keep(key, item)
        self._admit(key, item)
        return item  # type: ignore[no-any-return]

    def _admit(self, key: Any, item: I) -> None:
        self.young[key] = item
        self._grown(self._weight(item))

    def _grown(self, weight: int) -> None:
        self.young_weight += weight
        self.room -= weight
        if self.room <= 0:
            self._look()

    def _measured(self, size: int) -> None:
        """An entry of that many bytes was encoded or decoded."""
        self.entry_size += (size - self.entry_size) >> 3

    def _limit(self) -> int:
        # decoded, an entry takes about twice its bytes, and a dict's slot, a key and an object's head beside
        return max(FEWEST, self.host.share() // (250 + 2 * self.entry_size))

    def _look(self) -> None:
        """Make room, if there is too much. May write to the database."""
        limit = self._limit()
        self.room = max(1, min(STEP, limit // 8))
        excess = self.young_weight + self.old_weight - limit
        if excess <= 0:
            return
        if self.host.is_pending():
            if excess < limit:
                return
            self.host.settle()
        self._evict(excess + self.room)

    def _evict(self, weight: int) -> None:
        # the item that is being used is in the young generation, and must stay where its user will look for it
        if not self.old:
            last = next(reversed(self.young))
            self.old, self.young = self.young, {last: self.young.pop(last)}
            self.old_weight, self.young_weight = self.young_weight, self._weight(self.young[last])
            self.old_weight -= self.young_weight
        gone: list[Any] = []
        changes: list[Change] = []
        for key, item in islice(self.old.items(), weight):
            gone.append(key)
            own = self._weight(item)
            weight -= own
            self.old_weight -= own
            if key in self.dirty:
                changes += self._changes(key, item)
            if weight <= 0:
                break
        self.host.database.write(changes)
        for key in gone:
            del self.old[key]
            self.dirty.pop(key, None)

    def write_back(self) -> None:
        """Everything that is changed, into the database; it stays in memory too. To be called when nothing is pending."""
        while self.dirty:
            part = list(islice(self.dirty.items(), STEP))
            self.host.database.write([change for key, item in part for change in self._changes(key, item)])
            for key, _ in part:
                del self.dirty[key]

    # -- freezing -------------------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Set aside what is changed. To be called when nothing is pending."""
        if len(self.old) < len(self.young):
            self.old, self.young = self.young, self.old
        self.old.update(self.young)
        self.old_weight += self.young_weight
        self.young = {}
        self.young_weight = 0
        self.frozen, self.dirty = self.dirty, {}

    def drain(self, most: int) -> int:
        """Write up to that many of the frozen items; returns how many."""
        part = list(islice(self.frozen.items(), most))
        changes: list[Change] = []
        for key, item in part:
            captured = self.captured.get(key)
            changes += self._changes(key, item) if captured is None else captured
        self.host.database.write(changes)
        for key, _ in part:
            del self.frozen[key]
            self.captured.pop(key, None)
        return len(part)

    def forget(self) -> None:
        """Drop everything from memory, changed or not."""
        for content in (self.young, self.old, self.dirty, self.frozen, self.captured):
            content.clear()
        self.young_weight = self.old_weight = 0

    # -- places in the database ------------------------------------------------------------------------------------------------

    def _group(self, key: Any) -> int:
        return key_group(key, self.host.groups)

    def _prefix(self, group: int) -> bytes:
        return (group << 16 | self.number).to_bytes(4, "big")

    def _range(self, group: int) -> tuple[bytes, bytes]:
        first = group << 16 | self.number
        return first.to_bytes(4, "big"), (first + 1).to_bytes(4, "big")

    def _stored(self) -> Iterator[tuple[bytes, bytes]]:
        """All that is in the database of this table, with everything changed written before."""
        self.host.settle()
        self.write_back()
        yield from self._on_disk(b"")

    def _on_disk(self, after: bytes) -> Iterator[tuple[bytes, bytes]]:
        for group in range(self.host.first, self.host.last + 1):
            first, end = self._range(group)
            if end > after:
                yield from self.host.database.scan(max(first, after), end)

    def erase(self) -> None:
        """Remove everything."""
        self.host.settle()
        self.forget()
        for group in range(self.host.first, self.host.last + 1):
            self.host.database.delete_range(*self._range(group))

    def sweep(self, most: int) -> None:
        """Look at the next few stored entries, and remove those that have expired. To be called when nothing is pending."""
        if self.expired is None:
            return
        part = list(islice(self._on_disk(self.swept), most))
        self.swept = part[-1][0] + b"\0" if len(part) == most else b""
        self._sweep(iter(part))
