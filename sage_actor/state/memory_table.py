"""A keyed table in memory that freezes without a copy.

Freezing puts a second, empty layer over the content. While the frozen layer is drained nobody writes to it: changes go to the
upper one, look-ups go through both. When it has been drained the layers become one again. So a barrier costs nothing, and what
follows costs what is changed meanwhile. What could still reach into the frozen layer is a value that is changed in place; it
is pickled when it is first handed out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from sage_actor._core.stable_hash import stable_hash
from sage_actor.errors import StateError
from sage_actor.state.pickling import dump, is_unchanging, load
from sage_actor.state.store import DELETED, SLICE, Entries

__all__ = ["ABSENT", "MOVED", "NEW", "SET", "SWEEP", "FrozenContent", "MemoryTable", "mark_put", "mark_removed"]

ABSENT: Final = object()
"""Stands for "no entry" where None and `DELETED` are values."""

NEW: Final = 0
"""Mark of a changed entry: it was not there at the last freeze."""
SET: Final = 1
"""Mark: it was there, and has another value now."""
MOVED: Final = 2
"""Mark: it was there, was removed since, and may have been added again, behind the others."""

SWEEP: Final = 2
"""Entries looked at for expiry per change: a lap around the table takes half as many changes as it has entries."""


class FrozenContent:
    """Content of one table as of one freeze, drained by iterating; `close` gives up the rest.

    The values in a slice are those of the table: what a value looked like at the freeze can be relied upon until the loop's
    next turn, no longer.

    Attributes:
        limit: most entries of the next slice.
    """

    def __init__(
        self, entries: Iterator[tuple[Any, Any]], done: Callable[[FrozenContent], None], keys: Callable[[Any], bool] | None
    ) -> None:
        """Args:
        entries: what is to be drained; nothing may write to where that reads from.
        done: told once, when it has been drained or given up.
        keys: whether an entry of that key is part of it; None if all are.
        """
        self.limit = SLICE
        self._entries = entries
        self._done: Callable[[FrozenContent], None] | None = done
        self._holds = keys
        self._kept: dict[Any, bytes] = {}
        self._complete = False

    def __iter__(self) -> Iterator[Entries]:
        return self

    def __next__(self) -> Entries:
        if self._complete:
            raise StopIteration
        if self._done is None:
            raise StateError("", "", "frozen content was read on after it had been given up, or after the table had been frozen again")
        part = [(key, self._original(key, value)) for key, value in islice(self._entries, self.limit)]
        if part:
            return part
        self._complete = True
        self.close()
        raise StopIteration

    def keep(self, key: Any, value: Any) -> None:
        """A value of the frozen layer is about to be handed out: remember what it looks like, if it can be changed in place."""
        if key not in self._kept and not is_unchanging(value) and (self._holds is None or self._holds(key)):
            self._kept[key] = dump(value)

    def _original(self, key: Any, value: Any) -> Any:
        if self._kept and value is not DELETED:
            kept = self._kept.get(key)
            if kept is not None:
                return load(kept)
        return value

    def close(self) -> None:
        """Give up the rest. May be called at any time and more than once."""
        done, self._done = self._done, None
        if done is not None:
            self._kept.clear()
            done(self)


class MemoryTable:
    """A `KeyedTable` and `Freezable`. Changes are tracked from the first freeze on."""

    def __init__(self) -> None:
        self._base: dict[Any, Any] = {}
        self._upper: dict[Any, Any] | None = None
        self._changed: dict[Any, int] | None = None
        self._draining: FrozenContent | None = None
        self._walks = 0  # iterations under way, which pause merging and sweeping
        self._expired: Callable[[Any], bool] | None = None
        self._lap: deque[Any] = deque()

    def get(self, key: Any, default: Any = None) -> Any:
        if self._upper is None:
            return self._base.get(key, default)
        value = self._upper.get(key, ABSENT)
        if value is ABSENT:
            value = self._base.get(key, ABSENT)
            if value is ABSENT:
                return default
            if self._draining is not None:
                self._draining.keep(key, value)
            return value
        return default if value is DELETED else value

    def put(self, key: Any, value: Any) -> None:
        upper = self._upper
        layer = self._base if upper is None else upper
        if key not in self:
            stable_hash(key)  # refuses keys that could not be found again
            if self._changed is not None:
                mark_put(self._changed, key)
            if self._expired is not None:
                self._lap.append(key)
        elif self._changed is not None:
            self._changed.setdefault(key, SET)
        layer[key] = value
        if self._expired is not None:
            self._sweep()

    def delete(self, key: Any) -> None:
        if key not in self:
            return
        if self._changed is not None:
            mark_removed(self._changed, key)
        if self._upper is None:
            del self._base[key]
        elif key in self._base:
            self._upper[key] = DELETED
        else:
            del self._upper[key]

    def __contains__(self, key: Any) -> bool:
        if self._upper is not None:
            value = self._upper.get(key, ABSENT)
            if value is not ABSENT:
                return value is not DELETED
        return key in self._base

    def __len__(self) -> int:
        if self._upper is None:
            return len(self._base)
        base = self._base
        return len(base) + sum((value is not DELETED) - (key in base) for key, value in self._upper.items())

    def keys(self) -> Iterator[Any]:
        return (key for key, _ in self.items())

    def items(self) -> Iterator[tuple[Any, Any]]:
        self._walks += 1
        try:
            upper, base = self._upper, self._base
            if upper is None:
                yield from base.items()
                return
            draining = self._draining
            for key, value in base.items():
                newer = upper.get(key, ABSENT)
                if newer is ABSENT:
                    if draining is not None:
                        draining.keep(key, value)
                    yield key, value
                elif newer is not DELETED:
                    yield key, newer
            for key, value in upper.items():
                if value is not DELETED and key not in base:
                    yield key, value
        finally:
            self._walks -= 1
            if not self._walks and self._draining is None:
                self._merge()

    def clear(self) -> None:
        if self._changed is None and self._upper is None:
            self._base.clear()
            return
        for key in list(self.keys()):
            self.delete(key)

    def drop_when(self, expired: Callable[[Any], bool]) -> None:
        self._expired = expired
        self._lap = deque(self.keys())

    def load(self, entries: Entries) -> None:
        base = self._base
        for key, value in entries:
            if value is DELETED:
                base.pop(key, None)
            else:
                base[key] = value
        if self._expired is not None:
            self._lap = deque(self.keys())

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        """See `Freezable`: costs nothing at the barrier, whatever the table holds."""
        if self._draining is not None:
            self._draining.close()
        self._merge()
        changed, self._changed = self._changed, {}
        self._upper = {}
        if full or changed is None:
            frozen = FrozenContent(self._everything(), self._drained, None)
        else:
            frozen = FrozenContent(_changes(self._base, changed), self._drained, changed.__contains__)
        self._draining = frozen
        return frozen

    def _everything(self) -> Iterator[tuple[Any, Any]]:
        expired, upper = self._expired, self._upper
        for key, value in self._base.items():
            if expired is not None and expired(value):
                if upper is self._upper and upper is not None and key not in upper:
                    self.delete(key)
                continue
            yield key, value

    def _drained(self, frozen: FrozenContent) -> None:
        if self._draining is frozen:
            self._draining = None
            if not self._walks:
                self._merge()

    def _merge(self) -> None:
        upper, self._upper = self._upper, None
        if upper:
            self._base.update(upper)
            for key in [key for key, value in upper.items() if value is DELETED]:
                del self._base[key]

    def _sweep(self) -> None:
        """Look at the next few entries, and remove those that have expired."""
        lap, expired = self._lap, self._expired
        if expired is None or self._walks:
            return
        if len(lap) > 2 * len(self._base) + 64:  # keys that came and went stand in it more than once
            lap = self._lap = deque(self.keys())
        for _ in range(min(SWEEP, len(lap))):
            key = lap.popleft()
            value = ABSENT if self._upper is None else self._upper.get(key, ABSENT)
            if value is ABSENT:
                value = self._base.get(key, DELETED)
            if value is not DELETED:
                if expired(value):
                    self.delete(key)
                else:
                    lap.append(key)


def _changes(base: dict[Any, Any], changed: dict[Any, int]) -> Iterator[tuple[Any, Any]]:
    for key, mark in changed.items():
        if mark == MOVED:
            yield key, DELETED
        value = base.get(key, ABSENT)
        if value is not ABSENT:
            yield key, value


def mark_put(changed: dict[Any, int], key: Any) -> None:
    """A key that had no entry gets one: its mark goes behind the others, as the entry does."""
    changed[key] = MOVED if changed.pop(key, NEW) == MOVED else NEW


def mark_removed(changed: dict[Any, int], key: Any) -> None:
    """An entry goes; one that came since the last freeze leaves no trace."""
    if changed.get(key) == NEW:
        del changed[key]
    else:
        changed[key] = MOVED
