"""What an operator's state was at one barrier, and how it becomes a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

from sage_actor.errors import StateError
from sage_actor.state.memory_table import FrozenContent
from sage_actor.state.part_file import ENTRIES, LIST, FileHeader, encode_block, encode_end, encode_header
from sage_actor.state.pickling import dump
from sage_actor.state.store import SLICE, Entries, FrozenStore

__all__ = ["FrozenState"]

BLOCK_BYTES: Final = 96_000
"""What a block should hold, so that pickling it holds the loop for well under a millisecond."""
FEW: Final = 64
"""Entries of the first block of a table, whose size nobody knows yet."""


class FrozenState:
    """All state of one operator in one task, as of one barrier. Made by `OperatorState.freeze`, used up by `OperatorState.write`.

    Attributes:
        header: what it holds.
        store: what the keyed store froze, if there is one.
    """

    def __init__(
        self,
        operator: str,
        header: FileHeader,
        lists: Sequence[tuple[str, bytes]],
        tables: Sequence[tuple[str, Iterator[Entries]]],
        store: FrozenStore | None,
    ) -> None:
        self.header = header
        self.store = store
        self._operator = operator
        self._lists = lists
        self._tables = tables
        self._size = FEW

    async def blocks(self, is_wanted: Callable[[], bool]) -> AsyncIterator[bytes]:
        """The file, block by block, giving way to others after each.

        Args:
            is_wanted: whether the content still stands; what was frozen anew meanwhile must not be read on.

        Raises:
            StateError: a value cannot be pickled, or the content does not stand any more.
        """
        places = {name: place for place, name in enumerate(self.header.tables)}
        count = 0
        yield encode_header(self.header)
        for name, body in self._lists:
            yield encode_block(LIST, places[name], body)
            count += 1
            await asyncio.sleep(0)
        for name, slices in self._tables:
            self._size = FEW
            while True:
                if not is_wanted():
                    raise StateError(self._operator, name, f"checkpoint {self.header.checkpoint} was given up before its state was written")
                if isinstance(slices, FrozenContent):
                    slices.limit = self._size
                entries = next(slices, None)
                if entries is None:
                    break
                # All of a slice at once: the next turn of the loop may change its values in place.
                for body in self._pickled_parts(name, entries):
                    yield encode_block(ENTRIES, places[name], body)
                    count += 1
                    await asyncio.sleep(0)
        yield encode_end(count)

    def _pickled_parts(self, name: str, entries: Entries) -> list[bytes]:
        bodies: list[bytes] = []
        start = 0
        while start < len(entries):
            part = entries[start : start + self._size]
            start += len(part)
            body = self._pickle(name, part)
            # By size, not by time: a simulation must see the same blocks whenever it runs again.
            self._size = max(1, min(SLICE, BLOCK_BYTES * len(part) // max(1, len(body))))
            bodies.append(body)
        return bodies

    def _pickle(self, name: str, entries: Entries) -> bytes:
        try:
            return dump(entries)
        except Exception as error:
            key = next((key for key, value in entries if not _pickles(value)), None)
            raise StateError(
                self._operator, name, f"the value of key {key!r} cannot be saved: {type(error).__name__}: {error}; keep only what pickles"
            ) from error

    def close(self) -> None:
        """Let go of what was not read."""
        for _, slices in self._tables:
            close: Any = getattr(slices, "close", None)
            if close is not None:
                close()
        if self.store is not None:
            store, self.store = self.store, None
            store.close()


def _pickles(value: object) -> bool:
    try:
        dump(value)
    except Exception:  # noqa: BLE001 - the classes of values are the user's
        return False
    return True
