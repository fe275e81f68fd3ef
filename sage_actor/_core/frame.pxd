from libc.stdint cimport uint32_t, uint64_t


cdef class FrameHeader:
    cdef readonly int kind
    cdef readonly uint64_t job, sequence
    cdef readonly uint32_t attempt, channel, records
