"""Records of two sides by key, sorted by time: what joins keep. The contract is in join_buffer.pyi.

A side of a key is two C arrays (times and numbers) and a list (values) with a common start: the oldest go by moving `head`, and the
arrays are packed when half of them is empty. Records mostly come in order, so an insertion is an append.

What has expired is found by buckets of expiry, a sixteenth of the longer bound wide: a side of a key stands in one bucket at most,
by its oldest record when it was put there. Expiry so costs little per record, and no key is looked at in vain more than once a bucket.

Snapshots: each record has a number. What came since the last freeze stands in `added` until it goes again, so that a delta holds
neither records that came and went between two freezes nor anything twice. A full freeze is read slot by slot while the buffer changes
on: newer records are told by their number; older ones that leave before their slot was read are kept in `leaving`.
"""

cimport cython
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

from sage_actor._core.stable_hash cimport hash_key

from heapq import heappop, heappush

cdef int64_t NONE = INT64_MIN
cdef int64_t SLICE = 1000
cdef Py_ssize_t DEEPEST = 64  # a __stable_key__ of a __stable_key__ of ...; `hash_key` says what is wrong with more


@cython.cdivision(True)
cdef inline int64_t floor_divided(int64_t a, int64_t b) noexcept:
    cdef int64_t quotient = a // b
    return quotient - 1 if a % b < 0 else quotient


@cython.final
cdef class Side:
    """One side of one key."""

    def __cinit__(self):
        self.values = []
        self.bucket = NONE

    def __dealloc__(self):
        free(self.times)
        free(self.numbers)

    cdef inline Py_ssize_t first_from(self, int64_t time) noexcept:
        """The first position with at least that time."""
        cdef Py_ssize_t low = self.head, high = self.end, middle
        while low < high:
            middle = (low + high) >> 1
            if self.times[middle] < time:
                low = middle + 1
            else:
                high = middle
        return low

    cdef inline Py_ssize_t first_after(self, int64_t time) noexcept:
        """The first position with a higher time."""
        cdef Py_ssize_t low = self.head, high = self.end, middle
        if low < high and self.times[high - 1] <= time:
            return high
        while low < high:
            middle = (low + high) >> 1
            if self.times[middle] <= time:
                low = middle + 1
            else:
                high = middle
        return low

    cdef int grow(self) except -1:
        cdef Py_ssize_t room = 2 * self.room if self.room else 4
        cdef void* times = realloc(self.times, room * sizeof(int64_t))
        if times is NULL:
            raise MemoryError
        self.times = <int64_t*>times
        cdef void* numbers = realloc(self.numbers, room * sizeof(int64_t))
        if numbers is NULL:
            raise MemoryError
        self.numbers = <int64_t*>numbers
        self.room = room
        return 0

    cdef int insert(self, int64_t time, int64_t number, object value) except -1:
        if self.end == self.room:
            self.grow()
        cdef Py_ssize_t at = self.first_after(time)
        if at == self.end:
            self.values.append(value)
        else:
            self.values.insert(at, value)
            memmove(self.times + at + 1, self.times + at, (self.end - at) * sizeof(int64_t))
            memmove(self.numbers + at + 1, self.numbers + at, (self.end - at) * sizeof(int64_t))
        self.times[at] = time
        self.numbers[at] = number
        self.end += 1
        return 0

    cdef int forget(self, Py_ssize_t count) except -1:
        """Remove the oldest."""
        cdef Py_ssize_t at, head
        for at in range(self.head, self.head + count):
            self.values[at] = None
        self.head += count
        if self.head == self.end or (self.head >= 16 and 2 * self.head >= self.end):
            head, self.head = self.head, 0
            self.end -= head
            memmove(self.times, self.times + head, self.end * sizeof(int64_t))
            memmove(self.numbers, self.numbers + head, self.end * sizeof(int64_t))
            del self.values[:head]
        return 0

    cdef int take_out(self, Py_ssize_t at) except -1:
        """Remove the one at that position."""
        memmove(self.times + at, self.times + at + 1, (self.end - at - 1) * sizeof(int64_t))
        memmove(self.numbers + at, self.numbers + at + 1, (self.end - at - 1) * sizeof(int64_t))
        self.end -= 1
        del self.values[at]
        return 0


@cython.final
cdef class Slot:

    def __cinit__(self, key):
        self.key = key
        self.first = Side()
        self.second = Side()

    cdef inline Side side(self, int side):
        return self.second if side else self.first

    def count(self, int side):
        cdef Side own = self.side(side)
        return own.end - own.head

    def times(self, int side):
        cdef Side own = self.side(side)
        cdef Py_ssize_t at
        return [own.times[at] for at in range(own.head, own.end)]

    def numbers(self, int side):
        cdef Side own = self.side(side)
        cdef Py_ssize_t at
        return [own.numbers[at] for at in range(own.head, own.end)]

    def records(self, int side):
        cdef Side own = self.side(side)
        return own.values[own.head :]

    def count_until(self, int side, int64_t time):
        cdef Side own = self.side(side)
        return own.first_after(time) - own.head

    def record(self, int side, Py_ssize_t position):
        cdef Side own = self.side(side)
        return own.values[self.position_in(own, position)]

    def time(self, int side, Py_ssize_t position):
        cdef Side own = self.side(side)
        return own.times[self.position_in(own, position)]

    cdef Py_ssize_t position_in(self, Side own, Py_ssize_t position) except -1:
        if position < 0 or position >= own.end - own.head:
            raise IndexError(f"no record {position} of {own.end - own.head}")
        return own.head + position


cdef class JoinBuffer:

    def __init__(self, deleted, bounds=(None, None)):
        first, second = bounds
        self.table = {}
        self.deleted = deleted
        self.plain_type = str
        self.added = {}
        self.removed = []
        self.buckets_first = {}
        self.buckets_second = {}
        self.order_first = []
        self.order_second = []
        self.next_due = INT64_MAX
        self.bounded_first = first is not None
        self.bounded_second = second is not None
        self.bound_first = first if first is not None else 0
        self.bound_second = second if second is not None else 0
        # A bound below 0 (a side whose partners all come before it) is as good as 0 here.
        self.width = max(1, max(0, self.bound_first, self.bound_second) // 16)

    def __len__(self):
        return len(self.table)

    # -- keys -----------------------------------------------------------------------------------------------------

    cdef object plain(self, object key):
        """The key that stands for it in the dict: what its `__stable_key__` says, if it has one."""
        if PyUnicode_CheckExact(key) or type(key) is self.plain_type:
            return key
        plain = key
        for _ in range(DEEPEST):
            own = getattr(type(plain), "__stable_key__", None)
            if own is None:
                break
            plain = own(plain)
        else:
            hash_key(key)  # refuses it
        if plain is key:
            self.plain_type = type(key)
        return plain

    cdef inline Slot slot_of(self, object key):
        plain = self.plain(key)
        slot = self.table.get(plain)
        if slot is None:
            hash_key(plain)
            slot = self.table[plain] = Slot(plain)
        return <Slot>slot

    def find(self, key):
        return self.table.get(self.plain(key))

    def plain_key(self, key):
        return self.plain(key)

    # -- records --------------------------------------------------------------------------------------------------

    def add(self, key, int side, int64_t time, value):
        cdef Slot slot = self.slot_of(key)
        self.place(slot, side, time, self.next_number, value)
        self.next_number += 1
        return slot

    def slots(self):
        return list(self.table.values())

    def drop(self, Slot slot, int side, Py_ssize_t count):
        cdef Side own = slot.side(side)
        self.drop_oldest(slot, side, min(count, own.end - own.head))
        self.forget_if_empty(slot)

    def remove(self, Slot slot):
        self.drop_oldest(slot, 0, slot.first.end - slot.first.head)
        self.drop_oldest(slot, 1, slot.second.end - slot.second.head)
        self.forget_if_empty(slot)

    cdef int place(self, Slot slot, int side, int64_t time, int64_t number, object value) except -1:
        cdef Side own = slot.side(side)
        own.insert(time, number, value)
        self.records += 1
        if self.tracking:
            self.added[number] = (slot.key, side, time, value)
        if own.bucket == NONE:
            if side == 0:
                if self.bounded_first:
                    self.schedule(slot, 0, plus(own.times[own.head], self.bound_first))
            elif self.bounded_second:
                self.schedule(slot, 1, plus(own.times[own.head], self.bound_second))
        return 0

    cdef int note_removed(self, Slot slot, int side, Py_ssize_t at) except -1:
        """What snapshots must know before the record at that position goes."""
        cdef Side own = slot.side(side)
        cdef int64_t number = own.numbers[at]
        if self.tracking:
            if number >= self.frozen:
                self.added.pop(number, None)
            else:
                self.removed.append((slot.key, number))
        if self.leaving is not None and number < self.full_number and slot.drained != self.full:
            self.leaving.append(((slot.key, number), (side, own.times[at], own.values[at])))
        return 0

    cdef int drop_oldest(self, Slot slot, int side, Py_ssize_t count) except -1:
        cdef Side own = slot.side(side)
        cdef Py_ssize_t at
        if count == 0:
            return 0
        if self.tracking:  # also whenever a freeze is being read
            for at in range(own.head, own.head + count):
                self.note_removed(slot, side, at)
        own.forget(count)
        self.records -= count
        return 0

    cdef int forget_if_empty(self, Slot slot) except -1:
        """A slot that stands in a bucket stays until its turn: a new one of the same key must not be taken for it."""
        if (slot.first.head == slot.first.end and slot.second.head == slot.second.end
                and slot.first.bucket == NONE and slot.second.bucket == NONE and self.table.get(slot.key) is slot):
            del self.table[slot.key]
        return 0

    # -- expiry ---------------------------------------------------------------------------------------------------

    cdef int schedule(self, Slot slot, int side, int64_t expiry) except -1:
        cdef int64_t bucket = floor_divided(expiry, self.width)
        buckets = self.buckets_second if side else self.buckets_first
        slots = buckets.get(bucket)
        if slots is None:
            slots = buckets[bucket] = []
            heappush(self.order_second if side else self.order_first, bucket)
            self.find_next_due()
        (<list>slots).append(slot)
        slot.side(side).bucket = bucket
        return 0

    cdef inline int64_t due(self, int64_t bucket) noexcept:
        """When all of a bucket has expired."""
        if bucket >= INT64_MAX // self.width:
            return INT64_MAX
        return (bucket + 1) * self.width - 1

    cdef int find_next_due(self) except -1:
        self.next_due = INT64_MAX
        if self.order_first:
            self.next_due = self.due(self.order_first[0])
        if self.order_second:
            self.next_due = min(self.next_due, self.due(self.order_second[0]))
        return 0

    cdef int drop_expired(self, Slot slot, int side, int64_t watermark) except -1:
        cdef Side own = slot.side(side)
        cdef int64_t bound = self.bound_second if side else self.bound_first
        cdef Py_ssize_t at = own.head
        while at < own.end and plus(own.times[at], bound) <= watermark:
            at += 1
        if at > own.head:
            self.drop_oldest(slot, side, at - own.head)
        return 0

    cdef Py_ssize_t expire_side(self, int side, int64_t watermark, Py_ssize_t most) except -1:
        """Slots looked at, `most` or more if there may be others."""
        cdef list order = self.order_second if side else self.order_first
        cdef dict buckets = self.buckets_second if side else self.buckets_first
        cdef int64_t bound = self.bound_second if side else self.bound_first
        cdef list slots
        cdef Slot slot
        cdef Side own
        cdef Py_ssize_t seen = 0
        while order and self.due(order[0]) <= watermark:
            slots = buckets[order[0]]
            while slots:
                if seen >= most:
                    return seen
                seen += 1
                slot = slots.pop()
                own = slot.side(side)
                own.bucket = NONE
                self.drop_expired(slot, side, watermark)
                if own.head < own.end:
                    self.schedule(slot, side, plus(own.times[own.head], bound))
                else:
                    self.forget_if_empty(slot)
            del buckets[heappop(order)]
        return seen

    def expire(self, int64_t watermark, Py_ssize_t most):
        cdef Py_ssize_t seen = self.expire_side(0, watermark, most)
        if seen < most:
            self.expire_side(1, watermark, most - seen)
        self.find_next_due()
        return self.next_due <= watermark and (bool(self.order_first) or bool(self.order_second))

    # -- snapshots ------------------------------------------------------------------------------------------------

    def freeze(self, *, bint full):
        added, removed = self.added, self.removed
        self.added = {}
        self.removed = []
        self.frozen = self.next_number
        self.tracking = True
        self.leaving = None
        if not full:
            return self._changes(added, removed)
        self.full += 1
        self.full_number = self.next_number
        self.leaving = []
        entries = self._everything(list(self.table.values()), self.full, self.full_number)
        next(entries)  # begun, so that closing it always ends what it needs
        return entries

    def _changes(self, dict added, list removed):
        cdef list entries = []
        for number, (key, side, time, value) in added.items():
            entries.append(((key, number), (side, time, value)))
            if len(entries) >= SLICE:
                yield entries
                entries = []
        deleted = self.deleted
        for gone in removed:
            entries.append((gone, deleted))
            if len(entries) >= SLICE:
                yield entries
                entries = []
        if entries:
            yield entries

    def _everything(self, list slots, int64_t full, int64_t until):
        cdef list entries = []
        cdef Slot slot
        try:
            yield entries
            for slot in slots:
                slot.drained = full
                self._collect(slot, 0, until, entries)
                self._collect(slot, 1, until, entries)
                while len(entries) >= SLICE:
                    yield entries[:SLICE]
                    del entries[:SLICE]
            if self.full == full and self.leaving is not None:
                entries += self.leaving
            while entries:
                yield entries[:SLICE]
                del entries[:SLICE]
        finally:
            if self.full == full:
                self.leaving = None

    def _collect(self, Slot slot, int side, int64_t until, list entries):
        cdef Side own = slot.side(side)
        cdef Py_ssize_t at
        for at in range(own.head, own.end):
            if own.numbers[at] < until:
                entries.append(((slot.key, own.numbers[at]), (side, own.times[at], own.values[at])))

    def load(self, entries):
        for (key, number), content in entries:
            self.load_one(key, number, content)
        self.tracking = True
        self.frozen = self.next_number

    cdef int load_one(self, object key, int64_t number, object content) except -1:
        cdef Slot slot
        cdef Side own
        cdef Py_ssize_t at
        cdef int64_t time
        cdef int side
        cdef bint tracking = self.tracking
        self.tracking = False  # what is restored is no change
        try:
            if number >= self.next_number:
                self.next_number = number + 1
            if content is self.deleted:
                found = self.table.get(self.plain(key))
                if found is None:
                    return 0
                slot = found
                for side in range(2):
                    own = slot.side(side)
                    for at in range(own.head, own.end):
                        if own.numbers[at] == number:
                            own.take_out(at)
                            self.records -= 1
                            self.forget_if_empty(slot)
                            return 0
                return 0
            side, time, value = content
            slot = self.slot_of(key)
            own = slot.side(side)
            at = own.first_from(time)
            while at < own.end and own.times[at] == time:
                if own.numbers[at] == number:
                    return 0
                at += 1
            self.place(slot, side, time, number, value)
        finally:
            self.tracking = tracking
        return 0
