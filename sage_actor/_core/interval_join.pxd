from libc.stdint cimport int64_t

from sage_actor._core.join_buffer cimport JoinBuffer


cdef class IntervalJoin(JoinBuffer):
    cdef int64_t lower, upper
    cdef Py_ssize_t offset   # matches of the record in work that were handed out before
    cdef readonly Py_ssize_t index
    cdef readonly list late
