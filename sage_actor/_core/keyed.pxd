cdef class KeyedFold:
    cdef dict table
    cdef int kind
    cdef object fn
    cdef object initial
    cdef public Py_ssize_t index
    cdef object find(self, object key)
    cdef object value_of(self, object slot)
    cdef int run_count(self, list keys, Py_ssize_t start, list out) except -1
    cdef int run_sum(self, list keys, list values, Py_ssize_t start, list out) except -1
    cdef int run_extreme(self, list keys, list values, Py_ssize_t start, list out) except -1
    cdef int run_calls(self, list keys, list values, Py_ssize_t start, list out) except -1
