from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from sage_actor._core.window cimport WindowTable


cdef struct Due:
    int64_t time
    uint64_t serial
    int32_t slot
    uint32_t generation


cdef class SessionWindows(WindowTable):
    cdef int64_t gap
    cdef Due* heap
    cdef Py_ssize_t heap_count, heap_room
    cdef uint64_t serial
    cdef int push(self, int64_t time, int32_t slot) except -1
    cdef int pop(self) noexcept
    cdef int look(self) noexcept
    cdef int unlink(self, int32_t at) noexcept
    cdef int emit_session(self, int32_t at) except -1
    cdef int merge_sessions(self, int32_t at, int32_t other) except -1
    cdef int settle(self, int32_t at, int64_t watermark) except -1
