"""C-level face of the pools, for `cimport` from other native modules."""


cdef class ObjectPool:
    cdef list _free
    cdef list _sizes
    cdef object _create
    cdef object _reset
    cdef object _nbytes
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _capacity_bytes
    cdef Py_ssize_t _free_bytes
    cdef long long _created
    cdef long long _reused
    cdef long long _returned
    cdef long long _discarded
    cdef object __weakref__

    cpdef object take(self)
    cpdef give(self, item)


cdef class BufferPool:
    cdef list _classes
    cdef Py_ssize_t _capacity_bytes
    cdef Py_ssize_t _free_bytes
    cdef Py_ssize_t _free_count
    cdef long long _created
    cdef long long _reused
    cdef long long _returned
    cdef long long _discarded
    cdef object __weakref__

    cpdef bytearray take(self, Py_ssize_t nbytes)
    cpdef give(self, buffer)
