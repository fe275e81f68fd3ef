from libc.stdint cimport uint64_t

cdef uint64_t hash_key(object key) except? 0
