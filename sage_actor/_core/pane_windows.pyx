"""Tumbling and sliding windows in C. The contract is in pane_windows.pyi.

A pane is the stretch between two borders of windows: a record is added once, to its pane, and windows over it share what that holds.
Panes stand in order of time, each with a chain of its keys' slots; a table leads from key and pane to the slot.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memmove

from sage_actor._core.window cimport CUSTOM, FROZEN, LIVE, WindowTable, grown, integer

from sage_actor.errors import SageError

cdef extern from *:
    object PyLong_FromLongLong(long long number)

cdef enum:
    NEXT          # phases of firing: which window is due next
    FIRE
    ADD
    TOTALS
    NEXT_REMOVAL  # which pane is over
    REMOVE
    OVER

cdef int64_t FAR = (1LL << 62) + (1LL << 61)  # beyond every end of a window


cdef inline int64_t floor_divide(int64_t number, int64_t by) noexcept nogil:
    cdef int64_t quotient
    with cython.cdivision(True):
        quotient = number // by
        return quotient - 1 if number % by < 0 else quotient


cdef inline int64_t ceil_divide(int64_t number, int64_t by) noexcept nogil:
    return -floor_divide(-number, by)


@cython.final
cdef class PaneWindows(WindowTable):
    """Tumbling and sliding windows."""

    def __init__(self, kind, size, every, offset, *, lateness=0, whole=False, result_type, deleted, functions=None, separate=False):
        cdef int64_t left, right
        self.begin(kind, lateness, whole, result_type, deleted, functions)
        self.size, self.every, self.offset = size, every, offset
        if not 1 <= self.every <= self.size or not 0 <= self.offset < self.every:
            raise SageError(f"no windows of size {size}, every {every}, offset {offset}")
        left, right = self.size, self.every
        while right:
            left, right = right, left % right
        self.separate = separate and self.size > self.every
        if self.kind >= CUSTOM and self.merge is None and self.size > self.every and not self.separate:
            raise SageError("windows that overlap share what they hold only if it can be merged")
        self.width = left
        self.per_step = self.every // left
        self.per_size = self.size // left
        if self.separate:
            self.width = self.every
            self.per_step = self.per_size = 1
        self.table = <uint32_t*> PyMem_Calloc(64, sizeof(uint32_t))
        if self.table == NULL:
            raise MemoryError()
        self.mask = 63
        self.now_at = -1

    def __dealloc__(self):
        PyMem_Free(self.table)
        PyMem_Free(self.panes)

    # (key, pane) -> slot

    cdef inline uint64_t place_of(self, Py_ssize_t entry, int64_t pane) noexcept:
        cdef uint64_t mixed = (<uint64_t> pane * <uint64_t> 0x9E3779B97F4A7C15) ^ (<uint64_t> entry * <uint64_t> 0xC2B2AE3D27D4EB4F)
        mixed ^= mixed >> 32
        mixed *= <uint64_t> 0xD6E8FEB86659FD93
        return (mixed ^ (mixed >> 29)) & self.mask

    cdef int32_t find_slot(self, Py_ssize_t entry, int64_t pane) noexcept:
        cdef uint64_t place = self.place_of(entry, pane)
        cdef int32_t at
        while self.table[place]:
            at = <int32_t> (self.table[place] - 1)
            if self.slots[at].entry == <uint32_t> entry and self.slots[at].place == pane:
                return at
            place = (place + 1) & self.mask
        return -1

    cdef int put_slot(self, int32_t at) except -1:
        cdef uint64_t place
        if <uint64_t> self.live * 3 > (self.mask + 1) * 2:
            self.widen(self.mask * 2 + 1)
        place = self.place_of(self.slots[at].entry, self.slots[at].place)
        while self.table[place]:
            place = (place + 1) & self.mask
        self.table[place] = <uint32_t> at + 1
        return 0

    cdef int widen(self, uint64_t mask) except -1:
        cdef uint32_t* table = <uint32_t*> PyMem_Calloc(mask + 1, sizeof(uint32_t))
        cdef uint32_t* old = self.table
        cdef uint64_t place, index, size = self.mask + 1
        if table == NULL:
            raise MemoryError()
        self.table = table
        self.mask = mask
        for index in range(size):
            if old[index]:
                place = self.place_of(self.slots[old[index] - 1].entry, self.slots[old[index] - 1].place)
                while table[place]:
                    place = (place + 1) & mask
                table[place] = old[index]
        PyMem_Free(old)
        return 0

    cdef int rebuilt(self) except -1:
        return self.widen(self.mask)

    cdef int forget_slot(self, int32_t at) noexcept:
        """Take it out of the table, and move up what it was in the way of."""
        cdef uint64_t hole = self.place_of(self.slots[at].entry, self.slots[at].place), place, home
        while self.table[hole] != <uint32_t> at + 1:
            hole = (hole + 1) & self.mask
        place = hole
        while True:
            place = (place + 1) & self.mask
            if not self.table[place]:
                break
            home = self.place_of(self.slots[self.table[place] - 1].entry, self.slots[self.table[place] - 1].place)
            if ((place - home) & self.mask) >= ((place - hole) & self.mask):
                self.table[hole] = self.table[place]
                hole = place
        self.table[hole] = 0
        return 0

    # panes, in order of time

    cdef Py_ssize_t lower(self, int64_t number) noexcept:
        """Where the first pane of at least this number stands."""
        cdef Py_ssize_t low = self.pane_first, high = self.pane_end, middle
        if high > low and self.panes[high - 1].number < number:
            return high
        while low < high:
            middle = (low + high) >> 1
            if self.panes[middle].number < number:
                low = middle + 1
            else:
                high = middle
        return low

    cdef Py_ssize_t pane_at(self, int64_t number) except -1:
        """Where the pane stands; it is made if there is none."""
        cdef Py_ssize_t at = self.lower(number)
        if at < self.pane_end and self.panes[at].number == number:
            return at
        if self.pane_end == self.pane_room:
            if self.pane_first > self.pane_room >> 1:
                memmove(self.panes, self.panes + self.pane_first, (self.pane_end - self.pane_first) * sizeof(Pane))
                at -= self.pane_first
                self.pane_end -= self.pane_first
                self.pane_first = 0
            else:
                self.panes = <Pane*> grown(self.panes, &self.pane_room, sizeof(Pane))
        memmove(self.panes + at + 1, self.panes + at, (self.pane_end - at) * sizeof(Pane))
        self.panes[at].number = number
        self.panes[at].first = self.panes[at].last = -1
        self.pane_end += 1
        return at

    cdef int64_t first_end(self, int64_t number) noexcept:
        """Where the earliest window over a pane ends."""
        return self.offset + ceil_divide(number + 1 - self.per_size, self.per_step) * self.every + self.size

    cdef int64_t last_end(self, int64_t number) noexcept:
        """Where the latest window over a pane ends."""
        return self.offset + floor_divide(number, self.per_step) * self.every + self.size

    cdef int64_t next_end(self) noexcept:
        """The end of the next window to fire; INT64_MAX if nothing is left to fire."""
        cdef int64_t least, end
        cdef Py_ssize_t at
        if self.pane_first == self.pane_end or self.watermark >= FAR:
            return INT64_MAX
        if self.watermark < -FAR:
            return self.first_end(self.panes[self.pane_first].number)
        # Windows that end up to watermark + 1 have fired; panes before the least that counts have no other.
        least = self.offset + self.size + ceil_divide(self.watermark + 2 - self.offset - self.size, self.every) * self.every
        at = self.lower(floor_divide(least - self.size - self.offset, self.every) * self.per_step)
        if at == self.pane_end:
            return INT64_MAX
        end = self.first_end(self.panes[at].number)
        return end if end > least else least

    cdef int look(self) noexcept:
        """Set when something is due next."""
        cdef int64_t end = self.next_end(), over
        self.next_due = INT64_MAX if end == INT64_MAX else end - 1
        if self.pane_first < self.pane_end:
            over = self.last_end(self.panes[self.pane_first].number) - 1 + self.lateness
            if over < self.next_due:
                self.next_due = over
        return 0

    # firing, in turns

    cdef int advance_to(self, int64_t watermark) except -1:
        if not self.firing:
            self.firing = True
            self.before = PyLong_FromLongLong(self.watermark)
            self.phase = NEXT
        while self.phase != OVER:
            if self.left <= 0:
                return 0
            if self.phase == NEXT:
                self.begin_next(watermark)
            elif self.phase == FIRE:
                self.fire_some()
            elif self.phase == ADD:
                self.add_some()
            elif self.phase == TOTALS:
                self.fire_totals()
            elif self.phase == NEXT_REMOVAL:
                self.begin_removal(watermark)
            else:
                self.remove_some()
        self.look()
        self.now_at = -1
        self.firing = False
        return 1

    cdef int begin_next(self, int64_t watermark) except -1:
        """Turn to the next window that is due."""
        cdef int64_t end = self.next_end(), number
        self.left -= 1
        if end == INT64_MAX or end - 1 > watermark:
            if watermark > self.watermark:
                self.watermark = watermark
            self.phase = NEXT_REMOVAL
            return 0
        number = floor_divide(end - self.size - self.offset, self.width)
        self.end = end
        self.pane = self.lower(number)
        self.slot = self.panes[self.pane].first
        self.total_first = self.total_last = -1
        self.phase = FIRE if self.per_size == 1 else ADD
        return 0

    cdef int fire_some(self) except -1:
        """Results of a window that is one pane."""
        cdef int64_t end = self.end
        cdef object start = PyLong_FromLongLong(end - self.size), stop = PyLong_FromLongLong(end), time = PyLong_FromLongLong(end - 1)
        while self.slot >= 0 and self.left > 0:
            self.left -= 1
            self.emit(self.slot, self.key_of(self.slots[self.slot].entry), start, stop, time)
            self.slot = self.slots[self.slot].next
        if self.slot < 0:
            self.watermark = end - 1
            self.phase = NEXT
        return 0

    cdef int add_some(self) except -1:
        """Add the panes of a window up, key by key."""
        cdef int64_t over = floor_divide(self.end - self.size - self.offset, self.width) + self.per_size
        cdef int32_t total
        cdef uint32_t entry
        cdef bint fresh
        while True:
            while self.slot >= 0:
                if self.left <= 0:
                    return 0
                self.left -= 1
                entry = self.slots[self.slot].entry
                total = self.info[entry].total
                fresh = total < 0
                if fresh:
                    total = self.new_slot(entry, 0)  # on loan: not LIVE, so in no snapshot
                    self.info[entry].total = total
                    if self.total_last < 0:
                        self.total_first = total
                    else:
                        self.slots[self.total_last].next = total
                    self.total_last = total
                self.combine(total, self.slot, fresh)
                self.slot = self.slots[self.slot].next
            self.pane += 1
            if self.pane >= self.pane_end or self.panes[self.pane].number >= over:
                break
            self.slot = self.panes[self.pane].first
        self.phase = TOTALS
        return 0

    cdef int fire_totals(self) except -1:
        """Results of a window that is several panes."""
        cdef int64_t end = self.end
        cdef object start = PyLong_FromLongLong(end - self.size), stop = PyLong_FromLongLong(end), time = PyLong_FromLongLong(end - 1)
        cdef int32_t total
        cdef uint32_t entry
        while self.total_first >= 0 and self.left > 0:
            self.left -= 1
            total = self.total_first
            entry = self.slots[total].entry
            self.emit(total, self.key_of(entry), start, stop, time)
            self.total_first = self.slots[total].next
            self.info[entry].total = -1
            self.free_slot(total)
        if self.total_first < 0:
            self.watermark = end - 1
            self.phase = NEXT
        return 0

    cdef int begin_removal(self, int64_t watermark) except -1:
        """Turn to the next pane all of whose windows are over for good (F21)."""
        self.phase = OVER
        if self.pane_first == self.pane_end:
            self.pane_first = self.pane_end = 0
        elif self.last_end(self.panes[self.pane_first].number) - 1 + self.lateness <= watermark:
            self.slot = self.panes[self.pane_first].first
            self.phase = REMOVE
        return 0

    cdef int remove_some(self) except -1:
        cdef int32_t slot
        while self.slot >= 0 and self.left > 0:
            self.left -= 1
            slot = self.slot
            self.slot = self.slots[slot].next
            if self.info[self.slots[slot].entry].slot == slot:
                self.info[self.slots[slot].entry].slot = -1
            self.forget_slot(slot)
            self.drop_slot(slot)
        if self.slot < 0:
            self.pane_first += 1
            self.phase = NEXT_REMOVAL
        return 0

    # records

    cdef inline int32_t slot_for(self, Py_ssize_t entry, int64_t pane, bint* fresh) except -1:
        cdef int32_t at = self.info[entry].slot
        cdef Pane* home
        fresh[0] = False
        if at >= 0 and self.slots[at].place == pane:
            return at
        at = self.find_slot(entry, pane)
        if at < 0:
            if self.now_at < 0 or self.panes[self.now_at].number != pane:
                self.now_at = self.pane_at(pane)
                self.look()
            at = self.new_slot(entry, pane)
            self.slots[at].flags = LIVE
            self.live += 1
            self.hold(entry)
            self.put_slot(at)
            home = self.panes + self.now_at
            if home.last < 0:
                home.first = at
            else:
                self.slots[home.last].next = at
            home.last = at
            fresh[0] = True
        self.info[entry].slot = at
        return at

    cdef int take_record(self, Py_ssize_t entry, int64_t time, object value, int64_t watermark) except -1:
        cdef int32_t at
        cdef bint fresh
        cdef int64_t pane
        if self.separate:
            return self.take_separately(entry, time, value, watermark)
        if self.now_at < 0 or time < self.now_start or time >= self.now_start + self.width:
            pane = floor_divide(time - self.offset, self.width)
            self.now_start = pane * self.width + self.offset
            self.now_pane = pane
            self.now_fired = self.first_end(pane) - 1
            if self.last_end(pane) - 1 + self.lateness <= watermark:
                self.now_at = -1
                return 1
            self.now_at = self.pane_at(pane)
            self.look()
        # else the pane is not over: its removal would have been due before this record, and would have led to another look
        if self.kind >= CUSTOM:
            at = self.take_custom(entry, self.now_pane, value)
        else:
            at = self.slot_for(entry, self.now_pane, &fresh)
            self.add(at, value, fresh)
        self.touch(at)
        if self.now_fired <= watermark and self.lateness:
            self.fire_again(entry, self.now_pane, watermark)
        return 0

    cdef int32_t take_custom(self, Py_ssize_t entry, int64_t pane, object value) except -1:
        cdef int32_t at = self.info[entry].slot
        cdef bint fresh
        if at < 0 or self.slots[at].place != pane:
            at = self.find_slot(entry, pane)
        if at < 0:
            value = self.first_of(value)  # before anything shows: it may fail
            at = self.slot_for(entry, pane, &fresh)
        else:
            value = self.next_of(at, value)
        self.put(at, value)
        return at

    cdef int take_separately(self, Py_ssize_t entry, int64_t time, object value, int64_t watermark) except -1:
        """Add a record to each of its windows that is not over for good: first all that can fail, then all that shows."""
        cdef int64_t newest = floor_divide(time - self.offset, self.every), window
        cdef int64_t first = floor_divide(time - self.offset - self.size, self.every) + 1
        cdef int32_t at
        cdef bint fresh
        cdef list held = []
        while first <= newest and self.first_end(first) - 1 + self.lateness <= watermark:
            first += 1
        if first > newest:
            return 1
        for window in range(first, newest + 1):
            at = self.find_slot(entry, window)
            held.append(self.first_of(value) if at < 0 else self.next_of(at, value))
        for window in range(first, newest + 1):
            at = self.slot_for(entry, window, &fresh)
            self.put(at, held[window - first])
            self.touch(at)
        for window in range(first, newest + 1):
            self.fire_again(entry, window, watermark)
        return 0

    cdef int fire_again(self, Py_ssize_t entry, int64_t pane, int64_t watermark) except -1:
        """A record was added to windows that have fired and are not over for good: they fire with it at once."""
        cdef int64_t end = self.first_end(pane), number, one
        cdef int64_t last = self.last_end(pane)
        cdef int32_t total, slot
        cdef bint fresh, shared = self.per_size > 1
        cdef object stop
        self.before = PyLong_FromLongLong(watermark)
        while end <= last and end - 1 <= watermark:
            if end - 1 + self.lateness > watermark:
                number = floor_divide(end - self.size - self.offset, self.width)
                total = self.new_slot(entry, 0) if shared else self.find_slot(entry, number)
                fresh = True
                try:
                    for one in range(number, number + self.per_size if shared else number):
                        slot = self.find_slot(entry, one)
                        if slot >= 0:
                            self.combine(total, slot, fresh)
                            fresh = False
                    stop = PyLong_FromLongLong(end)
                    self.emit(total, self.key_of(entry), stop - self.size, stop, PyLong_FromLongLong(end - 1))
                finally:
                    if shared:
                        self.free_slot(total)
            end += self.every
        return 0

    cdef int drop_from_pane(self, int32_t at) except -1:
        cdef Py_ssize_t home = self.lower(self.slots[at].place)
        cdef int32_t before = -1, one = self.panes[home].first
        while one != at:
            before = one
            one = self.slots[one].next
        if before < 0:
            self.panes[home].first = self.slots[at].next
        else:
            self.slots[before].next = self.slots[at].next
        if self.panes[home].last == at:
            self.panes[home].last = before
        if self.info[self.slots[at].entry].slot == at:
            self.info[self.slots[at].entry].slot = -1
        self.forget_slot(at)
        self.drop_slot(at)
        if self.panes[home].first < 0:
            memmove(self.panes + home, self.panes + home + 1, (self.pane_end - home - 1) * sizeof(Pane))
            self.pane_end -= 1
        return 0

    cdef int load_entry(self, object entry, object value) except -1:
        cdef Py_ssize_t key = self.entry_of(entry[0])
        cdef int64_t pane = integer(entry[1])
        cdef bint fresh
        cdef int32_t at
        self.now_at = -1
        if value is self.deleted:
            at = self.find_slot(key, pane)
            if at >= 0:
                self.drop_from_pane(at)
        else:
            at = self.slot_for(key, pane, &fresh)
            self.store(at, value)
            self.touch(at)
        self.now_at = -1
        return self.look()

    def restore_watermark(self, watermark) -> None:
        WindowTable.restore_watermark(self, watermark)
        self.look()
