"""WorkStealingQueue: one owner works at one end, thieves take from the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["WorkStealingQueue"]

T = TypeVar("T")


class WorkStealingQueue(Generic[T]):
    """A double-ended queue of work: its owner pushes and pops at the new end, so that it goes on with what is still in its cache;
    thieves take the oldest, which is furthest from the owner and, where work splits, the largest piece.

    Unbounded; admission is bounded elsewhere (`BackpressureController`). Thread-safe: each call is one operation of a deque, which
    the interpreter keeps whole. Every item is given out exactly once.

    The discipline is that of Blumofe and Leiserson, "Scheduling multithreaded computations by work stealing" (1999).
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items: deque[T] = deque(items)

    def __len__(self) -> int:
        """How many items wait; another thread may have changed that by the time the caller looks at it."""
        return len(self._items)

    def push(self, item: T) -> None:
        """Add work at the owner's end."""
        self._items.append(item)

    def pop(self) -> T | None:
        """The item pushed last; None if there is none. For the owner."""
        try:
            return self._items.pop()
        except IndexError:
            return None

    def steal(self) -> T | None:
        """The item pushed first; None if there is none. For everybody else."""
        try:
            return self._items.popleft()
        except IndexError:
            return None

    def snapshot(self) -> list[T]:
        """What waits now, oldest first; nothing is taken."""
        return list(self._items)
