# cython: language_level=3, boundscheck=False, wraparound=False
"""An LRU cache bounded in entries and bytes, with TTL, optional compression, statistics and single flight.

How it stays whole: the dict owns the entries, the ring (a doubly linked list with a sentinel) orders them. Calls into
Python (hash and equality of keys, sizeof, clock, load, destructors) may re-enter the cache or let another thread in,
so each change of dict and ring together happens after the last such call of a step, and what is removed is dropped
only when both agree again. `clear` swaps dict and ring; whoever was inside the old dict notices by identity.
"""

import asyncio
import functools
import math
import pickle
import sys
import threading
import time
import types

cimport cython
from cpython.dict cimport PyDict_GetItemWithError, PyDict_SetDefault
from cpython.ref cimport PyObject

cdef object MISSING = object()
cdef object getsizeof = sys.getsizeof
cdef object get_ident = threading.get_ident
cdef object allocate_lock = threading.Lock
# Who waits for which flight, over all caches: thread id or task -> Flight. Walked to refuse waits that could never end.
cdef dict WAITING = {}
cdef double FOREVER = math.inf


class CacheStatistics:
    """Counters of one cache at one moment; plain integers, never updated."""

    __slots__ = ("hits", "misses", "evictions", "expirations", "entries", "bytes", "loads", "shared_loads")

    def __init__(self, hits, misses, evictions, expirations, entries, bytes, loads, shared_loads):
        self.hits, self.misses, self.evictions, self.expirations = hits, misses, evictions, expirations
        self.entries, self.bytes, self.loads, self.shared_loads = entries, bytes, loads, shared_loads

    def __repr__(self):
        return "CacheStatistics(" + ", ".join(f"{name}={getattr(self, name)}" for name in self.__slots__) + ")"


@cython.final
@cython.freelist(256)
cdef class Entry:
    """One key and value; its ring pointers are borrowed, so an entry that goes away leaves the ring by itself."""

    cdef inline void link_after(self, Entry head) noexcept:
        self.newer = <PyObject *>head
        self.older = head.older
        (<Entry>head.older).newer = <PyObject *>self
        head.older = <PyObject *>self

    cdef inline void unlink(self) noexcept:
        if self.newer is not NULL:
            (<Entry>self.newer).older = self.older
            (<Entry>self.older).newer = self.newer
            self.newer = NULL
            self.older = NULL

    def __dealloc__(self):
        if self.newer is not NULL:
            # Borrowed casts of the neighbours only: they are alive, or they would have left the ring.
            (<Entry>self.newer).older = self.older
            (<Entry>self.older).newer = self.newer


cdef Entry new_ring():
    cdef Entry ring = Entry.__new__(Entry)
    ring.newer = <PyObject *>ring
    ring.older = <PyObject *>ring
    return ring


@cython.final
cdef class ThreadFlight:
    """A load under way in a thread; others wait for its lock, which is held until the load ends."""

    cdef readonly object owner
    cdef object lock
    cdef object value
    cdef object error
    cdef bint done
    cdef bint abandoned

    def __cinit__(self):
        self.owner = get_ident()
        # A bare lock: threading.Event costs several times the whole rest of a load's bookkeeping.
        self.lock = allocate_lock()
        self.lock.acquire()

    cdef finish(self):
        self.done = True
        self.lock.release()

    cdef wait(self):
        self.lock.acquire()
        self.lock.release()


@cython.final
cdef class TaskFlight:
    """A load under way in a task of its own, and how many callers still want it."""

    cdef readonly object owner
    cdef Py_ssize_t waiters


cdef int refuse_endless_wait(object key, object flight, object me) except -1:
    """Raise if the load waited for waits, over any number of steps, for the caller itself."""
    cdef object step = flight
    while step is not None:
        owner = step.owner
        if owner == me:
            raise RuntimeError(
                f"loading {key!r} asks the cache for {key!r} again (directly, or through another load that waits for it) and "
                "would wait for itself; compute it without the cache inside load()"
            )
        step = WAITING.get(owner)
    return 0


def _retrieve(task):
    # A load whose callers all left may still fail: nobody is there to be told, and asyncio must not log it as forgotten.
    task.cancelled() or task.exception()


def _wake(arrival, task):
    if not arrival.done():
        arrival.set_result(None)


cdef class LRUCache:
    """Least recently used goes first. Thread-safe. See the stub for the contract."""

    def __init__(self, capacity=1024, *, capacity_bytes=0, ttl=0.0, compression="none", clock=None, **options):
        # `sizeof` is a word of Cython's own and cannot be a parameter's name here.
        measure_with = options.pop("sizeof", None)
        if options:
            raise TypeError(f"LRUCache() got an unexpected keyword argument {next(iter(options))!r}")
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity!r}; for a bound in bytes only pass sys.maxsize and capacity_bytes")
        if capacity_bytes < 0:
            raise ValueError(f"capacity_bytes must be 0 (unbounded) or more, not {capacity_bytes!r}")
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._ttl = checked_ttl(ttl)
        self._timed = self._ttl != FOREVER
        self._compress, self._decompress = codec(compression)
        self._sizeof = measure_with
        self._clock = time.monotonic if clock is None else clock

    def __cinit__(self, *arguments, **options):
        # Also for a subclass that forgets super().__init__().
        self._map = {}
        self._ring = new_ring()
        self._flights = {}

    def __reduce__(self):
        raise TypeError("an LRUCache cannot be pickled or copied: it belongs to one process; create it where it is used, such as in open(context)")

    __class_getitem__ = classmethod(types.GenericAlias)

    def get(self, key, default=None):
        value = self._find(key, True)
        return default if value is MISSING else value

    def put(self, key, value, *, ttl=None):
        self._store(key, value, self._ttl if ttl is None else checked_ttl(ttl))

    def pop(self, key, default=None):
        cdef double now = self._now() if self._timed else 0.0
        cdef Entry entry = self._take(key)
        if entry is None or (self._timed and entry.expires <= now):
            self._expirations += entry is not None
            return default
        return entry.value if self._compress is None else self._decode(entry.value)

    def __contains__(self, key):
        cdef double now = self._now() if self._timed else 0.0
        cdef dict map_ = self._map
        cdef PyObject *found = PyDict_GetItemWithError(map_, key)
        return found is not NULL and not (self._timed and (<Entry>found).expires <= now)

    def __len__(self):
        return len(self._map)

    def clear(self):
        cdef dict fresh_map = {}
        cdef Entry fresh_ring = new_ring()
        cdef dict old_map = self._map
        cdef Entry old_ring = self._ring
        self._map = fresh_map
        self._ring = fresh_ring
        self._bytes = 0
        # The entries (and with them destructors of values) go here, when the cache is whole and empty.
        old_map = None
        old_ring = None

    def statistics(self):
        counts = (self._hits, self._misses, self._evictions, self._expirations)
        return CacheStatistics(*counts, len(self._map), self._bytes, self._loads, self._shared_loads)

    def __repr__(self):
        return f"<LRUCache {len(self._map)} of {self._capacity} entries, {self._bytes} bytes>"

    def get_or_load(self, key, load):
        cdef ThreadFlight mine, flight
        value = self._find(key, True)
        while value is MISSING:
            mine = ThreadFlight()
            flight = self._flights.setdefault(key, mine)
            if flight is mine:
                return self._lead(key, load, flight)
            me = get_ident()
            # A finished flight is still in the table for a moment: nothing to wait for, so nothing to refuse.
            if not flight.done:
                refuse_endless_wait(key, flight, me)
                self._shared_loads += 1
                WAITING[me] = flight
                try:
                    flight.wait()
                finally:
                    WAITING.pop(me, None)
                if flight.error is not None:
                    raise flight.error
                if not flight.abandoned:
                    return flight.value
            elif self._flights.get(key) is flight:
                # Its leader could not take it out of the table (the key's __eq__ raised); load alone rather than wait.
                self._loads += 1
                return load()
            value = self._find(key, False)
        return value

    def _lead(self, key, load, ThreadFlight flight):
        try:
            # The previous leader may have finished between the look-up and the start of this flight.
            value = self._find(key, False)
            if value is MISSING:
                self._loads += 1
                value = load()
                self._store(key, value, self._ttl)
        except Exception as error:
            flight.error = error
            raise
        except BaseException:
            # Interrupts belong to this thread; the waiting ones load for themselves.
            flight.abandoned = True
            raise
        else:
            flight.value = value
            return value
        finally:
            try:
                self._land(key, flight)
            finally:
                flight.finish()

    async def aget_or_load(self, key, load):
        cdef TaskFlight flight
        value = self._find(key, True)
        if value is not MISSING:
            return value
        loop = asyncio.get_running_loop()
        # Per loop: a future of one loop cannot be awaited in another.
        place = (loop, key)
        me = asyncio.current_task()
        flight = self._flights.get(place)
        if flight is None or flight.owner.done():
            flight = TaskFlight()
            flight.owner = loop.create_task(self._load_in_task(key, place, load, flight))
            flight.owner.add_done_callback(_retrieve)
            self._flights[place] = flight
        else:
            refuse_endless_wait(key, flight, me)
            self._shared_loads += 1
        # A future of its own for each caller (not asyncio.shield, which reports a failure that nobody awaits any more).
        arrival = loop.create_future()
        wake = functools.partial(_wake, arrival)
        flight.owner.add_done_callback(wake)
        flight.waiters += 1
        WAITING[me] = flight
        try:
            await arrival
        finally:
            WAITING.pop(me, None)
            flight.waiters -= 1
            flight.owner.remove_done_callback(wake)
            if flight.waiters == 0 and not flight.owner.done():
                # Nobody wants it any more. It leaves the table first: a new caller starts anew instead of joining a dying load.
                self._land(place, flight)
                flight.owner.cancel()
        return flight.owner.result()

    async def _load_in_task(self, key, place, load, TaskFlight flight):
        try:
            self._loads += 1
            value = await load()
            if self._flights.get(place) is flight:
                self._store(key, value, self._ttl)
            return value
        finally:
            self._land(place, flight)

    cdef object _land(self, object place, object flight):
        if self._flights.get(place) is flight:
            self._flights.pop(place, None)

    cdef object _find(self, object key, bint counted):
        cdef double now = self._now() if self._timed else 0.0
        cdef dict map_ = self._map
        cdef Entry entry, ring, taken
        cdef PyObject *found = PyDict_GetItemWithError(map_, key)
        if found is NULL or self._map is not map_:
            self._misses += counted
            return MISSING
        entry = <Entry>found
        if entry.expires <= now and self._timed:
            taken = self._take(key)
            if taken is entry:
                self._expirations += 1
            elif taken is not None:
                # A fresh value came in while Python compared keys: gone as by eviction, which may happen at any time.
                self._evictions += 1
            self._misses += counted
            return MISSING
        ring = self._ring
        if ring.older is not <PyObject *>entry:
            entry.unlink()
            entry.link_after(ring)
        self._hits += counted
        return entry.value if self._compress is None else self._decode(entry.value)

    cdef int _store(self, object key, object value, double ttl) except -1:
        # Everything that runs user code and can fail comes first.
        cdef object payload = value if self._compress is None else self._encode(value)
        cdef Py_ssize_t nbytes = self._measure(payload)
        cdef double now = 0.0
        cdef Entry entry, stored
        cdef dict map_
        cdef object old
        if ttl != FOREVER:
            self._timed = True
        if self._timed:
            now = self._now()
        if self._capacity_bytes and nbytes > self._capacity_bytes:
            # Not kept; an older value under the key would be wrong to keep as well.
            if self._take(key) is not None:
                self._evictions += 1
            return 0
        entry = Entry.__new__(Entry)
        entry.key = key
        entry.value = payload
        entry.nbytes = nbytes
        entry.expires = now + ttl
        while True:
            # What an interrupted round left goes first: its destructors must not run between insertion and linking.
            stored = None
            map_ = None
            map_ = self._map
            stored = <Entry>PyDict_SetDefault(map_, key, entry)
            if self._map is map_:
                break
        if stored is entry:
            entry.link_after(self._ring)
            self._bytes += nbytes
        else:
            old = stored.value
            stored.value = payload
            stored.expires = entry.expires
            self._bytes += nbytes - stored.nbytes
            stored.nbytes = nbytes
            stored.unlink()
            stored.link_after(self._ring)
            # The payload belongs to `stored` now; `old` is dropped at return.
        if len(self._map) > self._capacity or (self._capacity_bytes and self._bytes > self._capacity_bytes):
            self._shrink(now)
        return 0

    cdef Entry _take(self, object key):
        """Remove the key from dict and ring, atomically once its hash and equality have been asked. None if absent."""
        cdef dict map_ = self._map
        cdef object found = map_.pop(key, None)
        cdef Entry entry
        if found is None or self._map is not map_:
            return None
        entry = <Entry>found
        entry.unlink()
        self._bytes -= entry.nbytes
        return entry

    cdef int _shrink(self, double now) except -1:
        cdef Entry victim, taken
        while len(self._map) > self._capacity or (self._capacity_bytes and self._bytes > self._capacity_bytes):
            victim = <Entry>self._ring.newer
            taken = self._take(victim.key)
            if taken is not None:
                if taken.expires <= now and self._timed:
                    self._expirations += 1
                else:
                    self._evictions += 1
            elif <PyObject *>victim is self._ring.newer:
                # Still there, yet not found under its key: the key's hash changed while it was in use as a key. No entry
                # can be trusted to be found again, so all go; a cache may forget, it may not grow or hang.
                self._evictions += len(self._map)
                self.clear()
        return 0

    cdef object _encode(self, object value):
        try:
            data = pickle.dumps(value, 5)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            error.add_note("an LRUCache with compression pickles its values; use compression='none' for values that cannot be pickled")
            raise
        return self._compress(data)

    cdef object _decode(self, object payload):
        return pickle.loads(self._decompress(payload))

    cdef Py_ssize_t _measure(self, object value) except -1:
        cdef Py_ssize_t nbytes
        if self._compress is not None:
            return len(<bytes>value)
        if self._sizeof is not None:
            nbytes = self._sizeof(value)
            if nbytes < 0:
                raise ValueError(f"sizeof() answered {nbytes} for a value of type {type(value).__name__!r}; a size is 0 or more")
            return nbytes
        # Measuring costs more than the rest of a put, so it is done only where a bound asks for it.
        return measure(value) if self._capacity_bytes else 0

    cdef double _now(self) except? -1.0:
        return self._clock()


cdef Py_ssize_t measure(object value) except -1:
    """sys.getsizeof of the value and, one level deep, of its items; snapshots, since __sizeof__ may be Python."""
    cdef Py_ssize_t total = shallow(value)
    cdef list items
    cdef object item
    if isinstance(value, (str, bytes, bytearray, int, float)) or value is None:
        return total
    if isinstance(value, dict):
        items = [*(<dict>value).keys(), *(<dict>value).values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = list(value)
    elif isinstance(fields := getattr(value, "__dict__", None), dict):
        items = list((<dict>fields).values())
    else:
        return total
    for item in items:
        total += shallow(item)
    return total


cdef Py_ssize_t shallow(object value) except -1:
    cdef Py_ssize_t size = getsizeof(value)
    # Views (memoryview, a slice of a numpy array) keep alive what they show, which getsizeof leaves out.
    cdef object shown = None if isinstance(value, (str, bytes, int, float)) else getattr(value, "nbytes", None)
    if type(shown) is int and shown > size:
        return shown
    return size


cdef double checked_ttl(object ttl) except? -1.0:
    cdef double seconds = ttl
    if not seconds >= 0.0:
        raise ValueError(f"ttl must be 0 (for ever) or a positive number of seconds, not {ttl!r}")
    return seconds if seconds > 0.0 else FOREVER


cdef tuple codec(str compression):
    """The compress and decompress functions of a name; the libraries are loaded here, when one is asked for."""
    if compression == "none":
        return None, None
    if compression == "lz4":
        import lz4.block
        return lz4.block.compress, lz4.block.decompress
    if compression == "zstd":
        import zstandard
        # A zstandard context must not be used by two threads at once, and it lets go of the GIL while it works.
        local = threading.local()

        def context(name, make):
            if not hasattr(local, name):
                setattr(local, name, make())
            return getattr(local, name)

        return (
            lambda data: context("compressor", zstandard.ZstdCompressor).compress(data),
            lambda data: context("decompressor", zstandard.ZstdDecompressor).decompress(data),
        )
    raise ValueError(f"compression must be 'none', 'lz4' or 'zstd', not {compression!r}")
