"""Pools of reusable objects: batches, envelopes, numpy buffers. Only for objects that no user function can keep."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from numpy.typing import DTypeLike, NDArray

T = TypeVar("T")

class PoolStatistics:
    """Counters of one pool at one moment; returned = reused + discarded + free, always."""

    created: int
    """Objects made because none was free."""
    reused: int
    """Takes answered from the free list."""
    returned: int
    """Objects given, kept or not."""
    discarded: int
    """Given objects that were dropped: no room, a failed reset, still in use, or clear()."""
    free: int
    free_bytes: int
    """Bytes in the free list; 0 for an ObjectPool without `nbytes`."""
    def __init__(self, created: int, reused: int, returned: int, discarded: int, free: int, free_bytes: int) -> None: ...

class ObjectPool(Generic[T]):
    """A bounded free list. take() never waits; give() keeps at most `capacity` objects and `capacity_bytes` bytes and
    drops the rest. Thread-safe under the GIL. Giving the same object twice in a row raises ValueError.

    `reset` runs in give(), only for objects with room; an object whose reset raises is dropped, and the exception passes on.
    `capacity_bytes` (0 = unbounded) needs `nbytes`.
    """

    def __init__(
        self,
        create: Callable[[], T],
        *,
        reset: Callable[[T], None] | None = None,
        capacity: int = 256,
        nbytes: Callable[[T], int] | None = None,
        capacity_bytes: int = 0,
    ) -> None: ...
    def take(self) -> T:
        """The object given last, or a new one."""
    def give(self, item: T) -> None:
        """Hand an object back. The caller, and everybody it showed it to, must not use it afterwards."""
    def clear(self) -> None:
        """Drop the free objects."""
    def __len__(self) -> int:
        """How many objects are free."""
    def statistics(self) -> PoolStatistics:
        """The counters as they stand now."""

class BufferPool:
    """Byte buffers and numpy arrays by power-of-two size classes (64 bytes and up). Thread-safe under the GIL.

    Holds at most `capacity_bytes` of free buffers. Contents are whatever was there before.
    """

    def __init__(self, *, capacity_bytes: int = 64 << 20) -> None: ...
    def take(self, nbytes: int) -> bytearray:
        """A buffer of at least nbytes (length is the size class)."""
    def take_array(self, shape: tuple[int, ...], dtype: DTypeLike = "float64") -> NDArray[Any]:
        """A numpy array (uninitialised) over a pooled buffer; give it back with give(). Raises ValueError for dtypes of objects."""
    def give(self, buffer: bytearray | NDArray[Any]) -> None:
        """Hand a buffer or array back. A buffer that a memoryview still shows is dropped instead of kept; views made of
        an array cannot be seen and must not be used afterwards. Raises ValueError for what is not from a pool, and for the
        same buffer twice in a row."""
    def clear(self) -> None:
        """Drop the free buffers."""
    def statistics(self) -> PoolStatistics:
        """The counters as they stand now."""
