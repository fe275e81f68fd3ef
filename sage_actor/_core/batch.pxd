cdef class Batch:
    cdef public object values
    cdef public list keys
    cdef public list timestamps
    cdef public list watermarks
    cdef public list tags
    cdef public long long position


cdef class Marker:
    cdef public int kind
    cdef public long long value
