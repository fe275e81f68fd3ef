"""A nested keyed table in memory that freezes without a copy, in the same way as `memory_table`: changes go to an upper layer while
the frozen one is drained."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from sage_actor._core.stable_hash import stable_hash
from sage_actor.state.memory_table import ABSENT, MOVED, SET, SWEEP, FrozenContent, mark_put, mark_removed
from sage_actor.state.store import DELETED, Entries

__all__ = ["MemoryNested"]

Changes = dict[Any, dict[Any, int]]


class _Layer:
    """What lies over the frozen entries of one key: changes to them, or (whole) all there is now."""

    __slots__ = ("entries", "whole")

    def __init__(self, entries: dict[Any, Any], whole: bool) -> None:
        self.entries = entries
        self.whole = whole


class MemoryNested:
    """A `NestedTable` and `Freezable`. Changes are tracked from the first freeze on."""

    def __init__(self) -> None:
        self._base: dict[Any, dict[Any, Any]] = {}
        self._upper: dict[Any, _Layer] | None = None
        self._changed: Changes | None = None
        self._draining: FrozenContent | None = None
        self._walks = 0  # iterations under way, which pause merging and sweeping
        self._expired: Callable[[Any], bool] | None = None
        self._lap: deque[tuple[Any, Any]] = deque()
        self._longest_lap = 64

    def get(self, key: Any, sub: Any, default: Any = None) -> Any:
        value = self._find(key, sub, hand_out=True)
        return default if value is ABSENT else value

    def _find(self, key: Any, sub: Any, *, hand_out: bool = False) -> Any:
        """The value, or ABSENT. A value of the frozen layer is remembered as it is if it is handed out."""
        if self._upper is not None:
            layer = self._upper.get(key)
            if layer is not None:
                value = layer.entries.get(sub, ABSENT)
                if value is not ABSENT:
                    return ABSENT if value is DELETED else value
                if layer.whole:
                    return ABSENT
        inner = self._base.get(key)
        value = ABSENT if inner is None else inner.get(sub, ABSENT)
        if hand_out and value is not ABSENT and self._draining is not None:
            self._draining.keep((key, sub), value)
        return value

    def put(self, key: Any, sub: Any, value: Any) -> None:
        if self._find(key, sub) is ABSENT:
            if key not in self._base:
                stable_hash(key)  # refuses keys that could not be found again
            if self._changed is not None:
                mark_put(self._changed.setdefault(key, {}), sub)
            if self._expired is not None:
                self._lap.append((key, sub))
        elif self._changed is not None:
            self._changed.setdefault(key, {}).setdefault(sub, SET)
        if self._upper is None:
            inner = self._base.get(key)
            if inner is None:
                self._base[key] = {sub: value}
            else:
                inner[sub] = value
        else:
            self._put_above(key, sub, value)
        if self._expired is not None:
            self._sweep()

    def _put_above(self, key: Any, sub: Any, value: Any) -> None:
        assert self._upper is not None
        layer = self._upper.get(key)
        if layer is None:
            layer = self._upper[key] = _Layer({}, key not in self._base)
        elif not layer.whole and layer.entries.get(sub) is DELETED:
            # It goes behind the others now, which a change laid over its old place could not say.
            layer = self._upper[key] = _Layer(dict(self.scan(key)), True)
        layer.entries[sub] = value

    def delete(self, key: Any, sub: Any) -> None:
        if self._find(key, sub) is ABSENT:
            return
        if self._changed is not None:
            self._mark_removed(self._changed, key, sub)
        if self._upper is None:
            inner = self._base[key]
            del inner[sub]
            if not inner:
                del self._base[key]
            return
        layer = self._upper.get(key)
        if layer is None:
            layer = self._upper[key] = _Layer({}, False)
        if layer.whole or sub not in self._base[key]:
            del layer.entries[sub]
        else:
            layer.entries[sub] = DELETED

    def clear(self, key: Any) -> None:
        if self._changed is not None:
            for sub in list(self._subs(key)):
                self._mark_removed(self._changed, key, sub)
        if self._upper is None:
            self._base.pop(key, None)
        elif key in self._base or key in self._upper:
            self._upper[key] = _Layer({}, True)

    @staticmethod
    def _mark_removed(changed: Changes, key: Any, sub: Any) -> None:
        marks = changed.setdefault(key, {})
        mark_removed(marks, sub)
        if not marks:
            del changed[key]

    def scan(self, key: Any) -> Iterator[tuple[Any, Any]]:
        if self._upper is None and self._expired is None:
            inner = self._base.get(key)
            return iter(()) if inner is None else iter(inner.items())
        return self._walk(key, hand_out=True)

    def _subs(self, key: Any) -> Iterator[Any]:
        return (sub for sub, _ in self._walk(key, hand_out=False))

    def _walk(self, key: Any, *, hand_out: bool) -> Iterator[tuple[Any, Any]]:
        self._walks += 1
        try:
            layer = None if self._upper is None else self._upper.get(key)
            if layer is not None and layer.whole:
                yield from layer.entries.items()
                return
            above = {} if layer is None else layer.entries
            below = self._base.get(key, {})
            draining = self._draining if hand_out else None
            for sub, value in below.items():
                newer = above.get(sub, ABSENT)
                if newer is ABSENT:
                    if draining is not None:
                        draining.keep((key, sub), value)
                    yield sub, value
                elif newer is not DELETED:
                    yield sub, newer
            for sub, value in above.items():
                if sub not in below:
                    yield sub, value
        finally:
            self._walks -= 1
            if not self._walks and self._draining is None:
                self._merge()

    def count(self, key: Any) -> int:
        if self._upper is None or key not in self._upper:
            return len(self._base.get(key, ()))
        return sum(1 for _ in self._subs(key))

    def keys(self) -> Iterator[Any]:
        self._walks += 1
        try:
            upper = self._upper
            if upper is None:
                yield from self._base
                return
            yield from (key for key in self._base if key not in upper or self.count(key))
            yield from (key for key, layer in upper.items() if key not in self._base and layer.entries)
        finally:
            self._walks -= 1
            if not self._walks and self._draining is None:
                self._merge()

    def __len__(self) -> int:
        return sum(self.count(key) for key in self.keys())

    def drop_when(self, expired: Callable[[Any], bool]) -> None:
        self._expired = expired
        self._begin_lap()

    def _begin_lap(self) -> None:
        self._lap = deque((key, sub) for key in self.keys() for sub in self._subs(key))
        self._longest_lap = 2 * len(self._lap) + 64

    def load(self, entries: Entries) -> None:
        base = self._base
        for (key, sub), value in entries:
            if value is not DELETED:
                base.setdefault(key, {})[sub] = value
                continue
            inner = base.get(key)
            if inner is not None:
                inner.pop(sub, None)
                if not inner:
                    del base[key]
        if self._expired is not None:
            self._begin_lap()

    def entries(self) -> Iterator[tuple[Any, Any]]:
        """All entries as ``((key, sub), value)``. The table must not be changed meanwhile."""
        for key in self.keys():
            for sub, value in self._walk(key, hand_out=True):
                yield (key, sub), value

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
            marks = changed
            frozen = FrozenContent(_changes(self._base, marks), self._drained, lambda place: place[1] in marks.get(place[0], ()))
        self._draining = frozen
        return frozen

    def _everything(self) -> Iterator[tuple[Any, Any]]:
        expired, upper = self._expired, self._upper
        for key, inner in self._base.items():
            for sub, value in inner.items():
                if expired is not None and expired(value):
                    if upper is self._upper and (upper is None or key not in upper or sub not in upper[key].entries):
                        self.delete(key, sub)
                    continue
                yield (key, sub), value

    def _drained(self, frozen: FrozenContent) -> None:
        if self._draining is frozen:
            self._draining = None
            if not self._walks:
                self._merge()

    def _merge(self) -> None:
        upper, self._upper = self._upper, None
        for key, layer in (upper or {}).items():
            if layer.whole:
                inner = layer.entries
            else:
                inner = self._base.get(key, {})
                inner.update(layer.entries)
                for sub in [sub for sub, value in layer.entries.items() if value is DELETED]:
                    del inner[sub]
            if inner:
                self._base[key] = inner
            else:
                self._base.pop(key, None)

    def _sweep(self) -> None:
        """Look at the next few entries, and remove those that have expired."""
        expired = self._expired
        if expired is None or self._walks:
            return
        if len(self._lap) > self._longest_lap:  # entries that came and went may stand in it more than once
            self._begin_lap()
        lap = self._lap
        for _ in range(min(SWEEP, len(lap))):
            key, sub = lap.popleft()
            value = self._find(key, sub)
            if value is not ABSENT:
                if expired(value):
                    self.delete(key, sub)
                else:
                    lap.append((key, sub))


def _changes(base: dict[Any, dict[Any, Any]], changed: Changes) -> Iterator[tuple[Any, Any]]:
    for key, marks in changed.items():
        inner = base.get(key, {})
        for sub, mark in marks.items():
            if mark == MOVED:
                yield (key, sub), DELETED
            value = inner.get(sub, ABSENT)
            if value is not ABSENT:
                yield (key, sub), value
