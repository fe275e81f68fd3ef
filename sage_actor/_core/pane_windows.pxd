from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from sage_actor._core.window cimport WindowTable


cdef struct Pane:
    int64_t number
    int32_t first, last


cdef class PaneWindows(WindowTable):
    cdef int64_t size, every, offset, width
    cdef int64_t per_step, per_size  # panes in a step, and in a window
    cdef bint separate               # windows that overlap share nothing: each is a pane of its own, as long as a window
    cdef uint32_t* table
    cdef uint64_t mask
    cdef Pane* panes
    cdef Py_ssize_t pane_first, pane_end, pane_room
    cdef int64_t now_pane, now_start, now_fired
    cdef Py_ssize_t now_at
    # where firing goes on in the next turn
    cdef int phase
    cdef int64_t end
    cdef Py_ssize_t pane
    cdef int32_t slot, total_first, total_last
    cdef uint64_t place_of(self, Py_ssize_t entry, int64_t pane) noexcept
    cdef int32_t find_slot(self, Py_ssize_t entry, int64_t pane) noexcept
    cdef int put_slot(self, int32_t at) except -1
    cdef int widen(self, uint64_t mask) except -1
    cdef int forget_slot(self, int32_t at) noexcept
    cdef Py_ssize_t lower(self, int64_t number) noexcept
    cdef Py_ssize_t pane_at(self, int64_t number) except -1
    cdef int64_t first_end(self, int64_t number) noexcept
    cdef int64_t last_end(self, int64_t number) noexcept
    cdef int64_t next_end(self) noexcept
    cdef int look(self) noexcept
    cdef int begin_next(self, int64_t watermark) except -1
    cdef int begin_removal(self, int64_t watermark) except -1
    cdef int fire_some(self) except -1
    cdef int add_some(self) except -1
    cdef int fire_totals(self) except -1
    cdef int remove_some(self) except -1
    cdef int fire_again(self, Py_ssize_t entry, int64_t pane, int64_t watermark) except -1
    cdef int32_t take_custom(self, Py_ssize_t entry, int64_t pane, object value) except -1
    cdef int take_separately(self, Py_ssize_t entry, int64_t time, object value, int64_t watermark) except -1
    cdef int32_t slot_for(self, Py_ssize_t entry, int64_t pane, bint* fresh) except -1
    cdef int drop_from_pane(self, int32_t at) except -1
