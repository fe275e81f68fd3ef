from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from sage_actor._core.keyed cimport KeyedFold, KeysAhead


cdef enum:
    OBJECT = 0     # forms: what a slot's number is
    INTEGER = 1
    FLOATING = 2

    LIVE = 1       # flags of a slot
    DIRTY = 2      # changed since the last freeze
    SAVED = 4      # part of a freeze, so its removal must be reported
    FIRED = 8      # sessions: has given its result
    FROZEN = 16    # its object is part of a snapshot that has not come to it yet

    CUSTOM = 4     # kinds: the user's functions, and all records for them
    RECORDS = 5

    SLICE = 1000   # entries in a slice of frozen content
    TURN = 4000    # slots to fire or to remove in one call


cdef int64_t integer(object value) except? -1
cdef void* grown(void* array, Py_ssize_t* room, Py_ssize_t item) except NULL


# One key's part of one pane, or one session of one key.
cdef struct Slot:
    int64_t place        # number of the pane; for a session the time of its first record, which names it for good
    int64_t first, end   # sessions only: start <= time < end
    int64_t number       # the count, the integer, or the bits of the float
    uint32_t entry       # of the key
    int32_t next         # of the same pane, of the same key (sessions), or of the free ones; -1 ends. Frozen: its own number
    uint32_t generation  # of sessions: entries of the heap made before this are void
    uint8_t form
    uint8_t flags


cdef struct KeyInfo:
    int32_t slot         # panes: the one used last; sessions: the first of the list; -1 for none
    int32_t total        # while a window fires: where the key's panes are added up
    uint32_t live        # slots and removals to be reported that name the key


cdef struct Removed:
    uint32_t entry
    int64_t place


cdef class WindowTable


cdef class FrozenWindows:
    cdef KeyedFold keys
    cdef Slot* slots
    cdef Py_ssize_t count, at
    cdef WindowTable table  # whose objects are still to be read; None once that is over
    cdef bint replaced      # by another freeze
    cdef dict kept          # by number of the slot: objects as they were before they changed
    cdef Removed* removed
    cdef Py_ssize_t gone, gone_at
    cdef bint sessions, whole
    cdef object deleted
    cdef object key_of(self, uint32_t entry)
    cdef Py_ssize_t take(self, WindowTable table, int32_t at, Py_ssize_t count) noexcept
    cdef object object_of(self, int32_t at)
    cdef int leave(self) except -1


cdef class WindowTable:
    cdef readonly Py_ssize_t index
    cdef readonly bint firing
    cdef readonly long long watermark, next_due
    cdef int64_t lateness
    cdef int kind
    cdef bint busy, whole, sessions, tracking
    cdef object result_type, deleted
    cdef object create, function, merge, finish, copy  # of the kinds with the user's functions; else None
    cdef FrozenWindows frozen
    cdef Py_ssize_t left  # of this turn
    cdef KeyedFold keys
    cdef KeyInfo* info
    cdef Py_ssize_t info_room, live_keys
    cdef Slot* slots
    cdef Py_ssize_t used, room, live
    cdef int32_t free
    cdef list objects
    cdef int32_t* dirty
    cdef Py_ssize_t dirty_count, dirty_room
    cdef Removed* removed
    cdef Py_ssize_t removed_count, removed_room
    cdef list results, times, befores
    cdef object before
    cdef int begin(self, object kind, object lateness, object whole, object result_type, object deleted, object functions) except -1
    cdef Py_ssize_t entry_at(self, list keys, Py_ssize_t index, KeysAhead* ahead) except -1
    cdef Py_ssize_t entry_of(self, object key) except -1
    cdef int cover(self, Py_ssize_t entry) except -1
    cdef int hold(self, Py_ssize_t entry) noexcept
    cdef int release(self, Py_ssize_t entry) noexcept
    cdef int32_t new_slot(self, Py_ssize_t entry, int64_t place) except -1
    cdef int free_slot(self, int32_t at) except -1
    cdef int drop_slot(self, int32_t at) except -1
    cdef int touch(self, int32_t at) except -1
    cdef int keep(self, int32_t at) except -1
    cdef int put(self, int32_t at, object value) except -1
    cdef object first_of(self, object value)
    cdef object next_of(self, int32_t at, object value)
    cdef int store(self, int32_t at, object value) except -1
    cdef object content(self, int32_t at)
    cdef int add(self, int32_t at, object value, bint fresh) except -1
    cdef int combine(self, int32_t at, int32_t other, bint fresh) except -1
    cdef object key_of(self, Py_ssize_t entry)
    cdef int emit(self, int32_t at, object key, object start, object end, object time) except -1
    cdef int advance_to(self, int64_t watermark) except -1
    cdef int take_record(self, Py_ssize_t entry, int64_t time, object value, int64_t watermark) except -1
    cdef int compact(self) except -1
    cdef int rebuilt(self) except -1
    cdef int enter(self) except -1
    cdef int load_entry(self, object entry, object value) except -1
