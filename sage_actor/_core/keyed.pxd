from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef struct Slot:
    uint64_t hashed
    void* key        # borrowed from `keys`
    int64_t number   # the count, the integer sum, or the bits of the float sum


cdef class KeyedFold:
    cdef readonly Py_ssize_t index
    cdef int kind
    cdef object fn, initial
    cdef bint busy
    cdef list keys          # in order of first appearance; owns them and shows them to the cycle collector
    cdef list accumulators  # same order; None where the number in the slot is the accumulator
    cdef Slot* slots
    cdef unsigned char* forms
    cdef uint64_t* table    # upper 32 bits of the hash, then slot number + 1; 0 is free
    cdef Py_ssize_t count, room
    cdef uint64_t mask
    cdef int reset(self) except -1
    cdef int enter(self) except -1
    cdef int grow_table(self) except -1
    cdef int grow_slots(self) except -1
    cdef Py_ssize_t find(self, object key, uint64_t hashed) except -2
    cdef Py_ssize_t insert(self, object key, uint64_t hashed, object accumulator) except -1
    cdef object accumulator_of(self, Py_ssize_t at)
    cdef int store(self, Py_ssize_t at, object accumulator) except -1
    cdef int store_object(self, Py_ssize_t at, object accumulator) except -1
    cdef int add(self, Py_ssize_t at, object value) except -1
    cdef Py_ssize_t look_ahead(self, list keys, Py_ssize_t start, Py_ssize_t size, uint64_t* hashes) except -1
    cdef int run_count(self, list keys, Py_ssize_t size, list out) except -1
    cdef int run_sum(self, list keys, list values, Py_ssize_t size, list out) except -1
    cdef int run_extreme(self, list keys, list values, Py_ssize_t size, list out) except -1
    cdef int run_calls(self, list keys, list values, Py_ssize_t size, list out) except -1
