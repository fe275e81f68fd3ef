from libc.stdint cimport int64_t


cdef struct Weight:
    int64_t records
    int64_t nbytes
    bint stops


cdef int resolve(object future) except -1


cdef class Lane:
    cdef str name
    cdef bint closed
    cdef Py_ssize_t waiting
    cdef list slots
    cdef Weight* weights
    cdef Py_ssize_t size, head, count
    cdef int64_t records, nbytes, capacity, capacity_bytes
    cdef object waiters
    cdef bint held, ready, freed
    cdef object on_release
    cdef int64_t freed_records, freed_bytes
    cdef bint fits(self, int64_t records, int64_t nbytes) noexcept
    cdef int grow(self) except -1
    cdef int push(self, object item, int64_t records, int64_t nbytes, bint stops) except -1
    cdef object pop(self)
    cdef list pop_many(self, Py_ssize_t amount)
    cdef int drop_all(self) except -1
    cdef int wake_putters(self) except -1
    cdef int evict_dead(self) except -1
    cdef int pass_on(self) except -1
    cdef int leave(self, object putter) except -1
    cdef int close(self) except -1


cdef class PriorityLane(Lane):
    cdef object key
    cdef list heap
    cdef int64_t number
