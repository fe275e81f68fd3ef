"""Session windows in C. The contract is in session_windows.pyi.

The few sessions of a key are a chain; a heap says which session is due next. It is lazy: a session that has grown meanwhile is put
back when its old time comes, so a record costs no change of the heap.
"""

cimport cython
from cpython.mem cimport PyMem_Free
from libc.stdint cimport INT64_MAX, int32_t, int64_t

from sage_actor._core.window cimport CUSTOM, FIRED, FROZEN, LIVE, RECORDS, Slot, WindowTable, grown, integer

from sage_actor.errors import SageError

cdef extern from *:
    object PyLong_FromLongLong(long long number)


@cython.final
cdef class SessionWindows(WindowTable):
    """Sessions."""

    def __init__(self, kind, gap, *, lateness=0, whole=False, result_type, deleted, functions=None):
        self.begin(kind, lateness, whole, result_type, deleted, functions)
        self.gap = gap
        self.sessions = True
        if self.gap < 1:
            raise SageError(f"no sessions with a gap of {gap}")

    def __dealloc__(self):
        PyMem_Free(self.heap)

    # when sessions are due, lazily: one that has grown is put back when its old time comes

    cdef int push(self, int64_t time, int32_t slot) except -1:
        cdef Py_ssize_t at = self.heap_count, parent
        cdef Due due
        if at == self.heap_room:
            self.heap = <Due*> grown(self.heap, &self.heap_room, sizeof(Due))
        due.time = time
        due.serial = self.serial
        due.slot = slot
        due.generation = self.slots[slot].generation
        self.serial += 1
        while at > 0:
            parent = (at - 1) >> 1
            if self.heap[parent].time <= time:  # of equal times the earlier one first: serials grow
                break
            self.heap[at] = self.heap[parent]
            at = parent
        self.heap[at] = due
        self.heap_count += 1
        if time < self.next_due:
            self.next_due = time
        return 0

    cdef int pop(self) noexcept:
        cdef Due last
        cdef Py_ssize_t at = 0, child
        self.heap_count -= 1
        last = self.heap[self.heap_count]
        while True:
            child = 2 * at + 1
            if child >= self.heap_count:
                break
            if child + 1 < self.heap_count and (
                self.heap[child + 1].time < self.heap[child].time
                or (self.heap[child + 1].time == self.heap[child].time and self.heap[child + 1].serial < self.heap[child].serial)
            ):
                child += 1
            if self.heap[child].time > last.time or (self.heap[child].time == last.time and self.heap[child].serial > last.serial):
                break
            self.heap[at] = self.heap[child]
            at = child
        self.heap[at] = last
        return 0

    cdef int look(self) noexcept:
        self.next_due = self.heap[0].time if self.heap_count else INT64_MAX
        return 0

    cdef int advance_to(self, int64_t watermark) except -1:
        cdef Due due
        cdef Slot* slot
        cdef int64_t last
        if not self.firing:
            self.firing = True
            self.before = PyLong_FromLongLong(self.watermark)
        while self.heap_count and self.heap[0].time <= watermark:
            if self.left <= 0:
                return 0
            self.left -= 1
            due = self.heap[0]
            self.pop()
            slot = self.slots + due.slot
            if not slot.flags & LIVE or slot.generation != due.generation:
                continue
            last = slot.end - 1
            if slot.flags & FIRED:
                if last + self.lateness > due.time:
                    self.push(last + self.lateness, due.slot)
                else:
                    self.unlink(due.slot)
                    self.drop_slot(due.slot)
            elif last > due.time:
                self.push(last, due.slot)
            else:
                self.emit_session(due.slot)
                if self.lateness:
                    slot = self.slots + due.slot
                    slot.flags |= FIRED
                    self.touch(due.slot)
                    self.push(last + self.lateness, due.slot)
                else:
                    self.unlink(due.slot)
                    self.drop_slot(due.slot)
        self.watermark = watermark
        self.look()
        self.firing = False
        return 1

    cdef int unlink(self, int32_t at) noexcept:
        cdef int32_t* link = &self.info[self.slots[at].entry].slot
        while link[0] != at:
            link = &self.slots[link[0]].next
        link[0] = self.slots[at].next
        return 0

    cdef int emit_session(self, int32_t at) except -1:
        cdef Slot* slot = self.slots + at
        return self.emit(
            at, self.key_of(slot.entry), PyLong_FromLongLong(slot.first), PyLong_FromLongLong(slot.end), PyLong_FromLongLong(slot.end - 1)
        )

    cdef int merge_sessions(self, int32_t at, int32_t other) except -1:
        """Add to one session what the other holds: the user's functions get the earlier one first."""
        cdef object earlier, later
        if self.kind < CUSTOM:
            return self.combine(at, other, False)
        if self.slots[at].flags & FROZEN:
            self.keep(at)
        if self.slots[other].flags & FROZEN:
            self.keep(other)
        earlier, later = self.objects[at], self.objects[other]
        if self.slots[other].first < self.slots[at].first:
            earlier, later = later, earlier
        return self.put(at, earlier + later if self.kind == RECORDS else self.merge(earlier, later))

    cdef int take_record(self, Py_ssize_t entry, int64_t time, object value, int64_t watermark) except -1:
        cdef int64_t end = time + self.gap
        cdef int32_t at = -1, one = self.info[entry].slot, following
        cdef Slot* slot
        cdef bint fresh = False, grown_up = False
        while one >= 0:  # sessions merge before the record is judged (F22)
            slot = self.slots + one
            following = slot.next
            if slot.first < end and time < slot.end:
                if at < 0:
                    at = one
                else:
                    self.merge_sessions(at, one)
                    slot = self.slots + one
                    self.slots[at].first = min(self.slots[at].first, slot.first)
                    self.slots[at].end = max(self.slots[at].end, slot.end)
                    self.unlink(one)
                    self.drop_slot(one)
                    self.touch(at)
                    grown_up = True
            one = following
        if at < 0:
            if end - 1 + self.lateness <= watermark:
                return 1
            if self.kind >= CUSTOM:
                value = self.first_of(value)  # before anything shows: it may fail
            at = self.new_slot(entry, time)
            slot = self.slots + at
            slot.flags = LIVE
            slot.next = self.info[entry].slot
            self.info[entry].slot = at
            self.live += 1
            self.hold(entry)
            slot.end = end
            if self.kind >= CUSTOM:
                self.put(at, value)
            else:
                self.add(at, value, True)
            if end - 1 > watermark:
                self.push(end - 1, at)
                return self.touch(at)
            self.slots[at].flags |= FIRED
            self.push(end - 1 + self.lateness, at)
            return self.settle(at, watermark)
        if grown_up and self.slots[at].flags & FIRED and self.slots[at].end - 1 > watermark:
            self.slots[at].flags &= ~FIRED  # also if adding the record fails
            self.slots[at].generation += 1
            self.push(self.slots[at].end - 1, at)
        self.add(at, value, False)
        slot = self.slots + at
        if time < slot.first:
            slot.first = time
        if end > slot.end:
            slot.end = end
        return self.settle(at, watermark)

    cdef inline int settle(self, int32_t at, int64_t watermark) except -1:
        """A record was added to a session: if it has fired, fire it again, now or at its new end."""
        cdef Slot* slot = self.slots + at
        self.touch(at)
        if slot.flags & FIRED:
            if slot.end - 1 > watermark:
                slot.flags &= ~FIRED
                slot.generation += 1
                self.push(slot.end - 1, at)
            else:
                self.before = PyLong_FromLongLong(watermark)
                self.emit_session(at)
        return 0

    cdef int load_entry(self, object entry, object value) except -1:
        cdef Py_ssize_t key = self.entry_of(entry[0])
        cdef int64_t place = integer(entry[1])
        cdef int32_t at = self.info[key].slot
        cdef Slot* slot
        while at >= 0 and self.slots[at].place != place:
            at = self.slots[at].next
        if at >= 0:
            self.unlink(at)
            self.drop_slot(at)
        if value is self.deleted:
            return 0
        at = self.new_slot(key, place)
        slot = self.slots + at
        slot.first, slot.end = integer(value[0]), integer(value[1])
        slot.flags = LIVE | (FIRED if value[2] else 0)
        slot.next = self.info[key].slot
        self.info[key].slot = at
        self.live += 1
        self.hold(key)
        self.store(at, value[3])
        slot = self.slots + at
        self.touch(at)
        return self.push(slot.end - 1 + (self.lateness if slot.flags & FIRED else 0), at)
