from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t


cdef inline int64_t plus(int64_t a, int64_t b) noexcept:
    """The sum, or the end of the range that it would pass."""
    if b > 0 and a > INT64_MAX - b:
        return INT64_MAX
    if b < 0 and a < INT64_MIN - b:
        return INT64_MIN
    return a + b


cdef inline int64_t minus(int64_t a, int64_t b) noexcept:
    if b < 0 and a > INT64_MAX + b:
        return INT64_MAX
    if b > 0 and a < INT64_MIN + b:
        return INT64_MIN
    return a - b


cdef class Side:
    cdef int64_t* times
    cdef int64_t* numbers
    cdef list values       # as long as `end`; what lies before `head` is gone
    cdef Py_ssize_t head, end, room
    cdef int64_t bucket    # where its expiry stands, or NONE
    cdef Py_ssize_t first_from(self, int64_t time) noexcept
    cdef Py_ssize_t first_after(self, int64_t time) noexcept
    cdef int grow(self) except -1
    cdef int insert(self, int64_t time, int64_t number, object value) except -1
    cdef int forget(self, Py_ssize_t count) except -1
    cdef int take_out(self, Py_ssize_t at) except -1


cdef class Slot:
    cdef readonly object key
    cdef Side first, second
    cdef int64_t drained   # number of the full freeze that has seen it
    cdef Side side(self, int side)
    cdef Py_ssize_t position_in(self, Side own, Py_ssize_t position) except -1


cdef class JoinBuffer:
    cdef dict table
    cdef object deleted, plain_type
    cdef readonly Py_ssize_t records
    cdef int64_t next_number
    cdef bint tracking     # whether changes are noted: from the first freeze or restore on
    cdef dict added        # number -> (key, side, time, value) of what came since the last freeze and is still here
    cdef list removed      # (key, number) of what went since the last freeze and was here before it
    cdef int64_t frozen    # numbers from here on came after the last freeze
    cdef int64_t full, full_number
    cdef list leaving      # what leaves while a full freeze is being read; None if none is
    cdef bint bounded_first, bounded_second
    cdef int64_t bound_first, bound_second, width
    cdef dict buckets_first, buckets_second
    cdef list order_first, order_second
    cdef readonly int64_t next_due
    cdef object plain(self, object key)
    cdef Slot slot_of(self, object key)
    cdef int place(self, Slot slot, int side, int64_t time, int64_t number, object value) except -1
    cdef int schedule(self, Slot slot, int side, int64_t expiry) except -1
    cdef int note_removed(self, Slot slot, int side, Py_ssize_t at) except -1
    cdef int drop_oldest(self, Slot slot, int side, Py_ssize_t count) except -1
    cdef int drop_expired(self, Slot slot, int side, int64_t watermark) except -1
    cdef int forget_if_empty(self, Slot slot) except -1
    cdef Py_ssize_t expire_side(self, int side, int64_t watermark, Py_ssize_t most) except -1
    cdef int64_t due(self, int64_t bucket) noexcept
    cdef int find_next_due(self) except -1
    cdef int load_one(self, object key, int64_t number, object content) except -1
