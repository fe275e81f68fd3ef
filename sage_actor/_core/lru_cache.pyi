"""An LRU cache bounded in entries and bytes, with TTL, optional compression, statistics and single flight."""

from collections.abc import Awaitable, Callable
from typing import Generic, Literal, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

class CacheStatistics:
    """Counters of one cache at one moment; plain integers, never updated afterwards."""

    hits: int
    misses: int
    evictions: int
    """Entries dropped for room, too large ones that displaced an older value included."""
    expirations: int
    entries: int
    """Entries held; an expired one counts until it is asked for, replaced, or the oldest when room is needed."""
    bytes: int
    """Sum of the entries' sizes; 0 where nothing measures (no capacity_bytes, no sizeof, no compression)."""
    loads: int
    shared_loads: int
    """Calls that waited for another caller's load of the same key (single flight)."""
    def __init__(
        self, hits: int, misses: int, evictions: int, expirations: int, entries: int, bytes: int, loads: int, shared_loads: int
    ) -> None: ...

class LRUCache(Generic[K, V]):
    """Least recently used goes first. Thread-safe. Sizes are in bytes (0 = unbounded), ttl in seconds (0 = for ever).

    With compression "lz4" or "zstd", values are pickled and compressed (so they come out as copies) and counted at their
    compressed size; without, size is measured by `sizeof` (default: sys.getsizeof of the value and, one level deep, of its
    items; only with capacity_bytes). An entry larger than capacity_bytes is not kept, and an older value of its key goes.
    Keys may have Python `__hash__` and `__eq__`: they may re-enter the cache or let other threads in; the cache stays whole.
    Raises ValueError for capacity below 1 (pass sys.maxsize for a bound in bytes only), negative sizes or ttl, unknown compression.
    """

    def __init__(
        self,
        capacity: int = 1024,
        *,
        capacity_bytes: int = 0,
        ttl: float = 0.0,
        compression: Literal["none", "lz4", "zstd"] = "none",
        sizeof: Callable[[V], int] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None: ...
    @overload
    def get(self, key: K) -> V | None:
        """The value, which becomes the most recently used one; the default (None) if it is absent or expired."""
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def put(self, key: K, value: V, *, ttl: float | None = None) -> None:
        """Keep the value as the most recently used one. `ttl` overrides the cache's (0 = for ever). Leaves the cache as it
        was if measuring or compressing the value raises."""
    @overload
    def pop(self, key: K) -> V | None:
        """Take the value out; the default (None) if it is absent or expired. Counts neither as hit nor as miss."""
    @overload
    def pop(self, key: K, default: D) -> V | D: ...
    def __contains__(self, key: object) -> bool:
        """Whether get() would find it; changes neither order nor statistics."""
    def __len__(self) -> int:
        """Entries held, as `CacheStatistics.entries`."""
    def clear(self) -> None:
        """Drop all entries; counters go on. Loads under way still arrive."""
    def get_or_load(self, key: K, load: Callable[[], V]) -> V:
        """Single flight over threads: of concurrent callers one runs load(), the others wait for its result or exception.

        Failures are not cached. load() may ask for other keys; asking for a key whose load waits for this very call (the same
        key, or a ring of loads) raises RuntimeError instead of waiting for ever. If the loading thread is interrupted
        (KeyboardInterrupt, SystemExit), one of the others loads.
        """
    async def aget_or_load(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        """Single flight over tasks of one loop. Cancelling one waiter disturbs nobody; cancelling all cancels the load.

        The load runs in a task of its own, in the first caller's context. Failures are not cached. Endless waits raise
        RuntimeError as in get_or_load. Flights are not shared with get_or_load, nor between loops.
        """
    def statistics(self) -> CacheStatistics:
        """The counters as they stand now."""
