from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "key_table.h":
    unsigned int KEY_ODD
    long long KEY_MOST

    ctypedef struct KeyDigest:
        uint32_t meta

    ctypedef struct KeyEntry:
        uint16_t form
        uint8_t changed
        int64_t number  # the count, the integer sum, or the bits of the float sum
        void* key

    ctypedef struct KeyTable:
        KeyEntry* entries
        Py_ssize_t count

    ctypedef struct KeysAhead:
        Py_ssize_t* at
        KeyDigest* digests
        Py_ssize_t first, size
        bint results

    void key_table_seed(uint64_t a, uint64_t b)
    int key_table_init(KeyTable* table) except -1
    void key_table_free(KeyTable* table)
    int key_table_reserve(KeyTable* table) except -1
    Py_ssize_t key_table_add(KeyTable* table, object key, const KeyDigest* digest, bint owned)
    Py_ssize_t key_table_find(const KeyTable* table, KeyDigest* digest, object key) except -2
    void key_table_look_ahead(const KeyTable* table, list keys, Py_ssize_t first, KeysAhead* ahead)
    void key_digest_text(object text, KeyDigest* digest)
    void key_digest_hash(uint64_t hashed, KeyDigest* digest)
    bint key_compares_as_text(object key)
    object key_pair(object key, object value)
    object key_integer_pair(object key, int64_t number)


cdef class KeyedFold:
    cdef readonly Py_ssize_t index
    cdef int kind
    cdef object fn, initial
    cdef bint busy
    cdef KeyTable table
    cdef KeyDigest missing
    cdef object plain_type  # the class last found to have no __stable_key__
    cdef list held          # the keys that the table borrows because they can be part of a cycle
    cdef list accumulators  # by number of the entry; None, or nothing yet, where the entry's number is the accumulator
    cdef bint tracking        # whether changes are noted for the next freeze
    cdef Py_ssize_t* changed  # numbers of the entries changed since the last freeze
    cdef Py_ssize_t changed_count, changed_room
    cdef readonly object frozen  # the FrozenFold that is being drained
    cdef int enter(self) except -1
    cdef int push_changed(self, Py_ssize_t at) except -1
    cdef int note(self, Py_ssize_t at) except -1
    cdef int touch(self, Py_ssize_t at) except -1
    cdef int digest(self, object key, KeyDigest* digest) except -1
    cdef Py_ssize_t find(self, object key) except -2
    cdef Py_ssize_t find_ahead(self, list keys, Py_ssize_t index, KeysAhead* ahead) except -2
    cdef Py_ssize_t insert(self, object key, object accumulator) except -1
    cdef int put(self, Py_ssize_t at, object accumulator) except -1
    cdef int as_number(self, object accumulator, int64_t* number) noexcept
    cdef object accumulator_of(self, Py_ssize_t at)
    cdef object pair_of(self, Py_ssize_t at)
    cdef int store(self, Py_ssize_t at, object accumulator) except -1
    cdef int add(self, Py_ssize_t at, object value) except -1
    cdef int run_count(self, list keys, Py_ssize_t size, list out) except -1
    cdef int run_sum(self, list keys, list values, Py_ssize_t size, list out) except -1
    cdef int run_extreme(self, list keys, list values, Py_ssize_t size, list out) except -1
    cdef int run_calls(self, list keys, list values, Py_ssize_t size, list out) except -1
