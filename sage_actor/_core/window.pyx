"""Windows over a batch: a table look-up or two per record in C, and one call of the user's function if there is one. The contract is in
window.pyi.

Keys are interned in the table of a `KeyedFold` (key_table.h), which gives each a small number; everything else goes by that
number. A slot holds the running value of one key in one pane (pane_windows.pyx) or of one session (session_windows.pyx). Slots are
a plain C array, so freezing for a snapshot is a copy of memory, and what was changed since the last one stands in a list. Values that
are objects are not copied then, as they can be large: one that changes before the snapshot has come to it is kept first, as it was.
"""

cimport cython
from cpython.bool cimport PyBool_Check
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport Py_GT, Py_LT, PyObject_RichCompareBool
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint32_t
from libc.string cimport memcpy

from sage_actor._core.keyed cimport KeyedFold, KeysAhead

from sage_actor.errors import SageError

cdef extern from *:
    """
    #if defined(_MSC_VER) && !defined(__clang__)
    static inline int window_add(long long a, long long b, long long *sum) {
        if ((b > 0 && a > LLONG_MAX - b) || (b < 0 && a < LLONG_MIN - b)) return 1;
        *sum = a + b;
        return 0;
    }
    #else
    #define window_add(a, b, sum) __builtin_add_overflow((long long)(a), (long long)(b), (sum))
    #endif

    /* An instance of a plain subclass of tuple with four items: what its __new__ would do, without the tuple of arguments. */
    static PyObject *window_result(PyObject *type, PyObject *key, PyObject *start, PyObject *end, PyObject *value) {
        PyObject *result = ((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 4);
        if (result == NULL) return NULL;
        Py_INCREF(key);
        Py_INCREF(start);
        Py_INCREF(end);
        Py_INCREF(value);
        PyTuple_SET_ITEM(result, 0, key);
        PyTuple_SET_ITEM(result, 1, start);
        PyTuple_SET_ITEM(result, 2, end);
        PyTuple_SET_ITEM(result, 3, value);
        return result;
    }
    """
    bint add_overflows "window_add"(long long a, long long b, long long* sum)
    object window_result(object type, object key, object start, object end, object value)
    object PyLong_FromLongLong(long long number)

cdef int COUNT = 0
cdef int SUM = 1
cdef int MIN = 2
cdef int MAX = 3
cdef dict KINDS = {"count": COUNT, "sum": SUM, "min": MIN, "max": MAX, "custom": CUSTOM, "records": RECORDS}

cdef int64_t LARGEST = 1LL << 62   # of a timestamp
cdef str WHOLE = ""                # stands for the key where there are none


cdef inline double as_double(int64_t bits) noexcept:
    cdef double value
    memcpy(&value, &bits, sizeof(double))
    return value


cdef inline int64_t as_bits(double value) noexcept:
    cdef int64_t bits
    memcpy(&bits, &value, sizeof(double))
    return bits


cdef int64_t integer(object value) except? -1:
    """A watermark, or a time from a snapshot."""
    cdef int overflow = 0
    cdef long long number
    if not PyLong_CheckExact(value):
        raise TypeError(f"a time is a whole number of milliseconds, not {value!r}")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        raise TypeError(f"a time must fit into 64 bits, and {value!r} does not")
    return number


cdef inline int64_t timestamp_of(object value) except? -1:
    cdef int64_t time = integer(value)
    if time > LARGEST or time < -LARGEST:
        raise ValueError(f"the timestamp of a windowed record lies between -2**62 and 2**62, and {value!r} does not")
    return time


cdef void* grown(void* array, Py_ssize_t* room, Py_ssize_t item) except NULL:
    cdef Py_ssize_t wanted = room[0] + (room[0] >> 1) + 16
    cdef void* moved = PyMem_Realloc(array, wanted * item)
    if moved == NULL:
        raise MemoryError()
    room[0] = wanted
    return moved


@cython.final
cdef class FrozenWindows:
    """The content of a table as of its freeze, in slices."""

    def __dealloc__(self):
        PyMem_Free(self.slots)
        PyMem_Free(self.removed)

    def __iter__(self):
        return self

    cdef object key_of(self, uint32_t entry):
        return WHOLE if self.whole else <object> self.keys.table.entries[entry].key

    cdef Py_ssize_t take(self, WindowTable table, int32_t at, Py_ssize_t count) noexcept:
        """One more slot of the table."""
        self.slots[count] = table.slots[at]
        self.slots[count].next = at
        if table.slots[at].form == OBJECT:
            table.slots[at].flags |= FROZEN
        return count + 1

    cdef object object_of(self, int32_t at):
        if at in self.kept:
            return self.kept.pop(at)
        self.table.slots[at].flags &= ~FROZEN
        return self.table.objects[at]

    cdef int leave(self) except -1:
        """Nothing more is to be kept."""
        cdef WindowTable table = self.table
        cdef Py_ssize_t at
        self.table = None
        if table is None:
            return 0
        if table.frozen is self:
            table.frozen = None
        for at in range(self.at, self.count):
            if self.slots[at].form == OBJECT and self.slots[at].next not in self.kept:
                table.slots[self.slots[at].next].flags &= ~FROZEN
        self.kept = {}
        return 0

    def close(self) -> None:
        self.leave()
        self.at, self.gone_at = self.count, self.gone

    def __next__(self) -> list:
        cdef list entries = []
        cdef Slot* slot
        cdef object value
        if self.replaced:
            raise SageError("frozen windows were read on after the windows had been frozen again")
        while self.gone_at < self.gone and len(entries) < SLICE:
            place = PyLong_FromLongLong(self.removed[self.gone_at].place)
            entries.append(((self.key_of(self.removed[self.gone_at].entry), place), self.deleted))
            self.gone_at += 1
        while self.at < self.count and len(entries) < SLICE:
            slot = self.slots + self.at
            if slot.form == OBJECT:
                value = self.object_of(slot.next)
            elif slot.form == INTEGER:
                value = PyLong_FromLongLong(slot.number)
            else:
                value = as_double(slot.number)
            if self.sessions:
                value = (slot.first, slot.end, (slot.flags & FIRED) != 0, value)
            entries.append(((self.key_of(slot.entry), PyLong_FromLongLong(slot.place)), value))
            self.at += 1
        if not entries:
            self.leave()
            raise StopIteration
        return entries


cdef class WindowTable:
    """What panes and sessions have in common: keys, slots, running values, what has changed."""

    def __cinit__(self, *args, **kwargs):
        self.index = -1
        self.free = -1
        self.watermark = INT64_MIN
        self.next_due = INT64_MAX
        self.objects = []
        self.keys = KeyedFold("count")

    def __dealloc__(self):
        PyMem_Free(self.info)
        PyMem_Free(self.slots)
        PyMem_Free(self.dirty)
        PyMem_Free(self.removed)

    cdef int begin(self, object kind, object lateness, object whole, object result_type, object deleted, object functions) except -1:
        if kind not in KINDS or (KINDS[kind] >= CUSTOM) != (functions is not None):
            raise SageError(f"a window kernel is one of {', '.join(KINDS)}, the last two with functions; not {kind!r} with {functions!r}")
        if not issubclass(result_type, tuple) or result_type.__itemsize__ != tuple.__itemsize__ \
                or result_type.__basicsize__ != tuple.__basicsize__:
            raise SageError(f"the type of window results must be a plain subclass of tuple, not {result_type!r}")
        self.kind = KINDS[kind]
        if functions is not None:
            self.create, self.function, self.merge = functions.create, functions.add, functions.merge
            self.finish, self.copy = functions.finish, functions.copy
        self.lateness = lateness
        self.whole = whole
        self.result_type = result_type
        self.deleted = deleted
        return 0

    # keys

    cdef int cover(self, Py_ssize_t entry) except -1:
        while entry >= self.info_room:
            self.info = <KeyInfo*> grown(self.info, &self.info_room, sizeof(KeyInfo))
        self.info[entry].slot = -1
        self.info[entry].total = -1
        self.info[entry].live = 0
        return 0

    cdef inline Py_ssize_t entry_at(self, list keys, Py_ssize_t index, KeysAhead* ahead) except -1:
        cdef Py_ssize_t entry
        if self.whole:
            return self.entry_of(WHOLE) if self.keys.table.count == 0 else 0
        entry = self.keys.find_ahead(keys, index, ahead)
        if entry < 0:
            entry = self.keys.insert(keys[index], 0)
            self.cover(entry)
        return entry

    cdef Py_ssize_t entry_of(self, object key) except -1:
        cdef Py_ssize_t entry = self.keys.find(key)
        if entry < 0:
            entry = self.keys.insert(key, 0)
            self.cover(entry)
        return entry

    cdef object key_of(self, Py_ssize_t entry):
        return None if self.whole else <object> self.keys.table.entries[entry].key

    cdef int hold(self, Py_ssize_t entry) noexcept:
        if self.info[entry].live == 0:
            self.live_keys += 1
        self.info[entry].live += 1
        return 0

    cdef int release(self, Py_ssize_t entry) noexcept:
        self.info[entry].live -= 1
        if self.info[entry].live == 0:
            self.live_keys -= 1
        return 0

    cdef int compact(self) except -1:
        """Forget keys of which nothing is left, once they are the majority."""
        cdef KeyedFold old = self.keys, fresh
        cdef Py_ssize_t entry, at, count = old.table.count
        cdef uint32_t* moved
        cdef KeyInfo* info
        if count <= 2 * self.live_keys + 1024:
            return 0
        fresh = KeyedFold("count")
        moved = <uint32_t*> PyMem_Malloc(count * sizeof(uint32_t))
        info = <KeyInfo*> PyMem_Malloc((self.live_keys + 16) * sizeof(KeyInfo))
        if moved == NULL or info == NULL:
            PyMem_Free(moved)
            PyMem_Free(info)
            raise MemoryError()
        try:
            for entry in range(count):
                if self.info[entry].live:
                    fresh.find(<object> old.table.entries[entry].key)
                    at = fresh.insert(<object> old.table.entries[entry].key, 0)
                    moved[entry] = <uint32_t> at
                    info[at] = self.info[entry]
        except BaseException:
            PyMem_Free(moved)
            PyMem_Free(info)
            raise
        for at in range(self.used):
            if self.slots[at].flags & LIVE:
                self.slots[at].entry = moved[self.slots[at].entry]
        for at in range(self.removed_count):
            self.removed[at].entry = moved[self.removed[at].entry]
        PyMem_Free(moved)
        PyMem_Free(self.info)
        self.info = info
        self.info_room = self.live_keys + 16
        self.keys = fresh
        return self.rebuilt()

    cdef int rebuilt(self) except -1:
        """Keys have got other numbers."""
        return 0

    # slots

    cdef int32_t new_slot(self, Py_ssize_t entry, int64_t place) except -1:
        cdef int32_t at = self.free
        cdef Slot* slot
        if at >= 0:
            self.free = self.slots[at].next
        else:
            if self.used == self.room:
                if self.used > 2000000000:
                    raise SageError("one task holds at most two thousand million open windows; raise the parallelism")
                self.slots = <Slot*> grown(self.slots, &self.room, sizeof(Slot))
            at = <int32_t> self.used
            self.slots[at].generation = 0
            self.used += 1
        slot = self.slots + at
        slot.place = place
        slot.first = slot.end = place
        slot.number = 0
        slot.entry = <uint32_t> entry
        slot.next = -1
        slot.form = INTEGER
        slot.flags = 0
        return at

    cdef int free_slot(self, int32_t at) except -1:
        cdef Slot* slot = self.slots + at
        cdef object last = None
        if slot.flags & FROZEN:
            self.keep(at)
        slot.flags = 0
        slot.generation += 1
        slot.next = self.free
        self.free = at
        if slot.form == OBJECT:
            last = self.objects[at]  # goes when nothing here is half done: that can run any code
            self.objects[at] = None
        return 0

    cdef int drop_slot(self, int32_t at) except -1:
        """The slot's content is over; snapshots must learn of it if they have it."""
        cdef Slot* slot = self.slots + at
        cdef uint32_t entry = slot.entry
        if slot.flags & SAVED:
            if self.removed_count == self.removed_room:
                self.removed = <Removed*> grown(self.removed, &self.removed_room, sizeof(Removed))
            self.removed[self.removed_count].entry = entry
            self.removed[self.removed_count].place = slot.place
            self.removed_count += 1
            self.hold(entry)
        self.release(entry)
        self.live -= 1
        return self.free_slot(at)

    cdef inline int touch(self, int32_t at) except -1:
        """It has changed: part of the next snapshot."""
        if not self.tracking or self.slots[at].flags & DIRTY:
            return 0
        if self.dirty_count == self.dirty_room:
            self.dirty = <int32_t*> grown(self.dirty, &self.dirty_room, sizeof(int32_t))
        self.dirty[self.dirty_count] = at
        self.dirty_count += 1
        self.slots[at].flags |= DIRTY
        if self.dirty_count > 2 * self.used + 1024:
            self.tracking = False  # nobody takes snapshots any more; the next one will be whole
            self.dirty_count = 0
        return 0

    # running values

    cdef int keep(self, int32_t at) except -1:
        """The object is about to change: the snapshot has it as it is now."""
        cdef object value = self.objects[at]
        self.slots[at].flags &= ~FROZEN
        if self.copy is not None:
            try:
                value = self.copy(value)
            except Exception:
                pass  # the snapshot fails with it, and says which it is
        if self.frozen is not None:
            self.frozen.kept[at] = value
        return 0

    cdef int put(self, int32_t at, object value) except -1:
        """Store an object as it is."""
        if self.slots[at].flags & FROZEN:
            self.keep(at)
        while len(self.objects) <= at:
            self.objects.append(None)
        self.slots[at].form = OBJECT
        self.objects[at] = value
        return 0

    cdef object first_of(self, object value):
        """What a window of the user's functions holds after its first record."""
        if self.kind == RECORDS:
            return [value]
        return value if self.create is None else self.function(self.create(), value)

    cdef object next_of(self, int32_t at, object value):
        """What it holds with one more; maybe the same object."""
        if self.slots[at].flags & FROZEN:
            self.keep(at)
        cdef object held = self.objects[at]
        if self.kind == RECORDS:
            (<list> held).append(value)
            return held
        return self.function(held, value)

    cdef int store(self, int32_t at, object value) except -1:
        cdef int overflow = 0
        cdef Slot* slot = self.slots + at
        cdef int64_t number
        cdef object last = None
        cdef bint held = slot.form == OBJECT
        if self.kind >= CUSTOM:
            return self.put(at, value)
        if slot.flags & FROZEN:
            self.keep(at)
        if PyLong_CheckExact(value) or (self.kind == SUM and PyBool_Check(value)):
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if not overflow:
                slot.number = number
                slot.form = INTEGER
                if held:
                    last = self.objects[at]
                    self.objects[at] = None
                return 0
        elif PyFloat_CheckExact(value):
            slot.number = as_bits(PyFloat_AS_DOUBLE(value))
            slot.form = FLOATING
            if held:
                last = self.objects[at]
                self.objects[at] = None
            return 0
        while len(self.objects) <= at:
            self.objects.append(None)
        if held:
            last = self.objects[at]
        self.objects[at] = value
        slot.form = OBJECT
        return 0

    cdef object content(self, int32_t at):
        cdef Slot* slot = self.slots + at
        if slot.form == INTEGER:
            return PyLong_FromLongLong(slot.number)
        if slot.form == FLOATING:
            return as_double(slot.number)
        return self.objects[at]

    cdef inline int add(self, int32_t at, object value, bint fresh) except -1:
        cdef Slot* slot = self.slots + at
        cdef int overflow = 0
        cdef long long number, total
        cdef object current
        if self.kind == COUNT:
            slot.number += 1
            return 0
        if self.kind >= CUSTOM:
            return self.put(at, self.next_of(at, value))
        if fresh:
            return self.store(at, value)
        if self.kind == SUM:
            if PyLong_CheckExact(value):
                number = PyLong_AsLongLongAndOverflow(value, &overflow)
                if not overflow:
                    if slot.form == INTEGER:
                        if not add_overflows(slot.number, number, &total):
                            slot.number = total
                            return 0
                    elif slot.form == FLOATING:
                        slot.number = as_bits(as_double(slot.number) + <double> number)
                        return 0
            elif PyFloat_CheckExact(value):
                if slot.form == FLOATING:
                    slot.number = as_bits(as_double(slot.number) + PyFloat_AS_DOUBLE(value))
                    return 0
                if slot.form == INTEGER:
                    slot.number = as_bits(<double> slot.number + PyFloat_AS_DOUBLE(value))
                    slot.form = FLOATING
                    return 0
            return self.store(at, self.content(at) + value)
        if slot.form == INTEGER and PyLong_CheckExact(value):
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if not overflow:
                if (number < slot.number) if self.kind == MIN else (number > slot.number):
                    slot.number = number
                return 0
        elif slot.form == FLOATING and PyFloat_CheckExact(value):
            if (PyFloat_AS_DOUBLE(value) < as_double(slot.number)) if self.kind == MIN else (
                PyFloat_AS_DOUBLE(value) > as_double(slot.number)
            ):
                slot.number = as_bits(PyFloat_AS_DOUBLE(value))
            return 0
        current = self.content(at)
        if PyObject_RichCompareBool(value, current, Py_LT if self.kind == MIN else Py_GT):
            return self.store(at, value)
        return 0

    cdef int combine(self, int32_t at, int32_t other, bint fresh) except -1:
        """Add what another slot holds."""
        cdef Slot* slot = self.slots + at
        cdef Slot* from_slot = self.slots + other
        cdef long long total
        cdef object part
        if self.kind == COUNT:
            slot.number += from_slot.number
            return 0
        if self.kind >= CUSTOM:
            part = self.copy(self.objects[other])  # other windows need it unchanged
            return self.put(at, part if fresh else self.merge(self.objects[at], part))
        if from_slot.form == INTEGER and (fresh or slot.form == INTEGER):
            if fresh:
                slot.number = from_slot.number
                slot.form = INTEGER
                return 0
            if self.kind == SUM:
                if not add_overflows(slot.number, from_slot.number, &total):
                    slot.number = total
                    return 0
            else:
                if (from_slot.number < slot.number) if self.kind == MIN else (from_slot.number > slot.number):
                    slot.number = from_slot.number
                return 0
        return self.add(at, self.content(other), fresh)

    # results

    cdef inline int emit(self, int32_t at, object key, object start, object end, object time) except -1:
        cdef object value
        if self.kind >= CUSTOM:
            if self.slots[at].flags & FROZEN:
                self.keep(at)
            value = self.finish(self.objects[at], key, start, end)
        else:
            value = self.content(at)
        self.results.append(window_result(self.result_type, key, start, end, value))
        self.times.append(time)
        self.befores.append(self.before)
        return 0

    cdef int advance_to(self, int64_t watermark) except -1:
        """Fire and remove; 0 if the turn is over before that is done: the next call must go on with it, and `firing` says so."""
        raise NotImplementedError

    cdef int take_record(self, Py_ssize_t entry, int64_t time, object value, int64_t watermark) except -1:
        """Add one record; 1 if it is late and was not added."""
        raise NotImplementedError

    cdef int enter(self) except -1:
        if self.busy:
            raise SageError("windows cannot be changed from inside the code of their own records")
        self.busy = True
        return 0

    def run(
        self, keys, values, list timestamps not None, list watermarks not None, Py_ssize_t start,
        list results not None, list times not None, list befores not None, list late not None,
    ) -> int:
        cdef Py_ssize_t size = len(timestamps), index, entry
        # Copies: the code of a record (its `+`, its key's ==) must not change what is being walked over.
        cdef list key_column = None if keys is None else keys[:]
        cdef list value_column = None if values is None else values[:]
        cdef object mark, last_mark = None, value = None
        cdef int64_t watermark = self.watermark, time
        cdef bint valued = self.kind != COUNT
        cdef KeysAhead ahead
        if len(watermarks) != size or (valued and (value_column is None or len(value_column) != size)) \
                or (not self.whole and (key_column is None or len(key_column) != size)):
            raise SageError("the columns of a batch of windowed records differ in length")
        self.enter()
        ahead.first = ahead.size = 0
        ahead.results = False
        self.left = TURN
        self.results, self.times, self.befores = results, times, befores
        try:
            if not self.firing:
                self.compact()
            for index in range(start, size):
                self.index = index
                mark = watermarks[index]
                if mark is not last_mark:
                    watermark = integer(mark)
                    if watermark >= self.next_due:
                        if not self.advance_to(watermark):
                            return index
                    if watermark > self.watermark:
                        self.watermark = watermark
                    else:
                        watermark = self.watermark
                    last_mark = mark
                time = timestamp_of(timestamps[index])
                entry = self.entry_at(key_column, index, &ahead)
                if valued:
                    value = value_column[index]
                if self.take_record(entry, time, value, watermark):
                    late.append(index)
            return size
        finally:
            self.busy = False
            self.results = self.times = self.befores = None

    def advance(self, watermark, list results not None, list times not None, list befores not None) -> bool:
        cdef int64_t reached = integer(watermark)
        if reached <= self.watermark and not self.firing:
            return True
        if reached >= self.next_due or self.firing:
            self.enter()
            self.left = TURN
            self.results, self.times, self.befores = results, times, befores
            try:
                if not self.advance_to(reached):
                    return False
            finally:
                self.busy = False
                self.results = self.times = self.befores = None
        self.watermark = reached
        return True

    # snapshots

    def freeze(self, *, bint full) -> FrozenWindows:
        cdef FrozenWindows frozen = FrozenWindows.__new__(FrozenWindows)
        cdef Py_ssize_t index, count = 0
        cdef int32_t at
        if self.firing:
            raise SageError("windows cannot be frozen in the middle of firing")
        frozen.keys = self.keys
        frozen.sessions = self.sessions
        frozen.whole = self.whole
        frozen.deleted = self.deleted
        if not self.tracking:
            full = True
        frozen.slots = <Slot*> PyMem_Malloc(((self.live if full else self.dirty_count) + 1) * sizeof(Slot))
        if frozen.slots == NULL:
            raise MemoryError()
        if self.frozen is not None:
            self.frozen.replaced = True
            self.frozen.leave()
        self.frozen = frozen
        frozen.table = self
        frozen.kept = {}
        if full:
            for at in range(<int32_t> self.used):
                if self.slots[at].flags & LIVE:
                    self.slots[at].flags = (self.slots[at].flags & ~DIRTY) | SAVED
                    count = frozen.take(self, at, count)
        else:
            for index in range(self.dirty_count):
                at = self.dirty[index]
                if self.slots[at].flags & LIVE and self.slots[at].flags & DIRTY:
                    self.slots[at].flags = (self.slots[at].flags & ~DIRTY) | SAVED
                    count = frozen.take(self, at, count)
            frozen.removed, frozen.gone = self.removed, self.removed_count
            self.removed = NULL
            self.removed_room = 0
        frozen.count = count
        for index in range(self.removed_count):
            self.release((frozen.removed if self.removed == NULL else self.removed)[index].entry)
        self.removed_count = self.dirty_count = 0
        self.tracking = True
        return frozen

    cdef int load_entry(self, object entry, object value) except -1:
        raise NotImplementedError

    def load(self, entries) -> None:
        cdef object entry, value
        self.enter()
        try:
            for entry, value in list(entries):
                self.load_entry(entry, value)
        finally:
            self.busy = False

    def restore_watermark(self, watermark) -> None:
        cdef int64_t reached = integer(watermark)
        if reached > self.watermark:
            self.watermark = reached

    def __len__(self):
        return self.live

    def keys_known(self) -> int:
        return self.keys.table.count
