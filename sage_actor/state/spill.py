"""A fold in C over more keys than may lie in memory: what was used lately is folded there, the rest waits in a keyed table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, cast

from sage_actor.errors import ConfigError
from sage_actor.state.pickling import is_unchanging
from sage_actor.state.store import KeyedTable

__all__ = ["FoldTable", "SpilledTable"]

_SLICE: Final = 250
"""Accumulators read from the table between two breaths of the loop."""
_STORED: Final = 2500
"""Accumulators put into it, which is quicker, and is done at barriers: each breath makes the pause longer by what others do in it."""
_ABSENT: Final = object()


class FoldTable(Protocol):
    """Accumulators by key, as `KeyedFold` holds them."""

    def items(self) -> list[tuple[Any, Any]]:
        """All of them."""
        ...

    def get(self, key: Any, default: Any = None, /) -> Any:
        """One of them, or default."""
        ...

    def load(self, items: Iterable[tuple[Any, Any]], /) -> None:
        """Set the accumulators of these keys; others keep theirs."""
        ...

    def clear(self) -> None:
        """Forget all keys."""
        ...


class SpilledTable:
    """Keeps about `most` accumulators in a `FoldTable`, and all others in a `KeyedTable`.

    Before a batch is folded its keys are given to `prefetch`; at a barrier `save` brings the table up to date, which is the
    state then: it is what gets frozen, restored and walked through. Nothing else may put keys into the fold.
    """

    def __init__(self, fold: FoldTable, table: KeyedTable, *, most: int = 50_000) -> None:
        """Raises:
        ConfigError: most is below 1.
        """
        if most < 1:
            raise ConfigError("state.spill", f"at least 1 accumulator has to stay in memory, not {most}")
        self.fold = fold
        self.table = table
        self.most = most
        self._young: dict[Any, None] = {}  # keys in the fold, by the generation in which they were last used
        self._old: dict[Any, None] = {}
        self._changed: set[Any] = set()
        self._get_many = cast("Callable[[Sequence[Any], Any], list[Any]] | None", getattr(table, "get_many", None))

    def __len__(self) -> int:
        """Number of accumulators that are in the fold now."""
        return len(self._young) + len(self._old)

    async def prefetch(self, keys: Sequence[Any]) -> None:
        """See to it that the accumulators of these keys are in the fold, as far as they have any. They count as changed then.

        All keys of one call are held together, even if they are more than `most`. Yields to the loop; cancelled, it has lost
        nothing. To be called before each batch is folded, by one task.

        Raises:
            UnstableKey: a key has no stable encoding.
        """
        young, old = self._young, self._old
        missing = [key for key in dict.fromkeys(keys) if key not in young and key not in old]
        if missing and len(self) and len(self) + len(missing) > self.most:
            await self.evict(keep=keys)
            young, old = self._young, self._old
            missing = [key for key in dict.fromkeys(keys) if key not in young and key not in old]
        for at in range(0, len(missing), _SLICE):
            part = missing[at : at + _SLICE]
            found = self._read(part)
            self.fold.load([(key, value) for key, value in zip(part, found, strict=True) if value is not _ABSENT])
            young.update(dict.fromkeys(part))
            if at + _SLICE < len(missing):
                await asyncio.sleep(0)
        if old:
            for key in keys:
                if key in old:
                    del old[key]
                    young[key] = None
        self._changed.update(keys)

    def _read(self, keys: Sequence[Any]) -> list[Any]:
        if self._get_many is not None:
            return self._get_many(keys, _ABSENT)
        return [self.table.get(key, _ABSENT) for key in keys]

    async def evict(self, *, keep: Sequence[Any] = ()) -> None:
        """Move accumulators into the table: those not used for longest, at least half of `most`; all but the kept, if need be."""
        await self._store_changed()
        current = self.fold.items()
        if len(self._young) > self.most // 2:
            self._old, self._young = self._young, {}
        kept = dict.fromkeys(self._young)
        # of the older ones, those that are about to be used stay too
        kept.update(dict.fromkeys(key for key in keep if key in self._old))
        self.fold.clear()
        self.fold.load([(key, value) for key, value in current if key in kept])
        self._young, self._old = kept, {}

    async def save(self) -> None:
        """Bring the table up to date: from now until the next `prefetch` it holds every accumulator, as it is."""
        changed = await self._store_changed()
        # What can be changed in place is, by the fold, without the table knowing: it has to be got anew for that, so that
        # something frozen stays as it was.
        if not all(map(is_unchanging, changed)):
            self.clear()

    async def _store_changed(self) -> list[Any]:
        """Bring what has changed into the table; the accumulators."""
        fold, put, absent = self.fold, self.table.put, _ABSENT
        stored: list[Any] = []
        for number, key in enumerate(self._changed, 1):
            value = fold.get(key, absent)
            if value is not absent:  # else its first record failed
                put(key, value)
                stored.append(value)
            if number % _STORED == 0:
                await asyncio.sleep(0)
        self._changed.clear()
        return stored

    def clear(self) -> None:
        """Forget what is in the fold; for a table that was restored or emptied otherwise."""
        self.fold.clear()
        self._young, self._old = {}, {}
        self._changed.clear()
