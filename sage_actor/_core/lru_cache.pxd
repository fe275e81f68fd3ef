"""C-level face of the LRU cache, for `cimport` from other native modules."""

from cpython.ref cimport PyObject


cdef class Entry:
    cdef object key
    cdef object value
    cdef PyObject *newer
    cdef PyObject *older
    cdef double expires
    cdef Py_ssize_t nbytes

    cdef inline void link_after(self, Entry head) noexcept
    cdef inline void unlink(self) noexcept


cdef class LRUCache:
    cdef dict _map
    cdef Entry _ring
    cdef dict _flights
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _capacity_bytes
    cdef Py_ssize_t _bytes
    cdef double _ttl
    cdef bint _timed
    cdef object _clock
    cdef object _sizeof
    cdef object _compress
    cdef object _decompress
    cdef long long _hits
    cdef long long _misses
    cdef long long _evictions
    cdef long long _expirations
    cdef long long _loads
    cdef long long _shared_loads
    cdef object __weakref__

    cdef object _find(self, object key, bint counted)
    cdef int _store(self, object key, object value, double ttl) except -1
    cdef Entry _take(self, object key)
    cdef int _shrink(self, double now) except -1
    cdef object _encode(self, object value)
    cdef object _decode(self, object payload)
    cdef Py_ssize_t _measure(self, object value) except -1
    cdef double _now(self) except? -1.0
    cdef object _land(self, object place, object flight)
