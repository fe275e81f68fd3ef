from libc.stdint cimport uint32_t


cdef class Mapping:
    cdef char* address
    cdef readonly Py_ssize_t size

    cdef uint32_t* flag_at(self, Py_ssize_t flag) except NULL


cdef class Lease:
    cdef Mapping memory
    cdef Mapping flags
    cdef Py_ssize_t start, size, flag
    cdef long forks
