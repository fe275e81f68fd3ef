"""Keyed folds over a batch: one table look-up per record, in C. The contract is in keyed.pyi.

The table is open addressing over `stable_hash`, not a dict: the hash doubles as the check of the key (equal keys hash equally,
whatever their types), a look-up touches a table word and one slot, and a counter costs about 60 bytes beyond its key.
Counts and sums stay C numbers while they are plain ints or floats that fit; anything else is left to Python's own `+`.
"""

cimport cython
from cpython.bool cimport PyBool_Check
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport Py_EQ, Py_GT, Py_LT, PyObject_RichCompareBool
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from sage_actor._core.stable_hash cimport hash_key

from typing import Literal

from sage_actor.errors import SageError

FoldKind = Literal["count", "sum", "min", "max", "reduce", "fold"]

cdef extern from *:
    """
    #if defined(_MSC_VER) && !defined(__clang__)
    static inline int sage_add(long long a, long long b, long long *sum) {
        if ((b > 0 && a > LLONG_MAX - b) || (b < 0 && a < LLONG_MIN - b)) return 1;
        *sum = a + b;
        return 0;
    }
    #else
    #define sage_add(a, b, sum) __builtin_add_overflow((long long)(a), (long long)(b), (sum))
    #endif
    #if defined(_MSC_VER) && !defined(__clang__)
    #define sage_prefetch(at) ((void)(at))
    #else
    #define sage_prefetch(at) __builtin_prefetch((const void *)(at))
    #endif
    /* A short string may lie on two lines: its length on the first, its characters on the second. */
    #define sage_prefetch_text(text) (sage_prefetch(text), sage_prefetch((const char *)(text) + 56))
    /* Both are exact str; equal strings have the same kind. */
    static inline int sage_same_text(PyObject *a, PyObject *b) {
        Py_ssize_t size = PyUnicode_GET_LENGTH(a);
        return size == PyUnicode_GET_LENGTH(b) && PyUnicode_KIND(a) == PyUnicode_KIND(b)
            && memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)size * PyUnicode_KIND(a)) == 0;
    }
    static inline PyObject *sage_count_pair(PyObject *key, long long count) {
        PyObject *number = PyLong_FromLongLong(count), *pair = number == NULL ? NULL : PyTuple_New(2);
        if (pair == NULL) { Py_XDECREF(number); return NULL; }
        Py_INCREF(key);
        PyTuple_SET_ITEM(pair, 0, key);
        PyTuple_SET_ITEM(pair, 1, number);
        return pair;
    }
    """
    void prefetch "sage_prefetch"(void* at)
    void prefetch_text "sage_prefetch_text"(void* text)
    bint add_overflows "sage_add"(long long a, long long b, long long* sum)
    bint same_text "sage_same_text"(object a, object b)
    object count_pair "sage_count_pair"(object key, long long count)
    int PyList_Append(list target, object item) except -1

cdef int COUNT = 0
cdef int SUM = 1
cdef int MIN = 2
cdef int MAX = 3
cdef int REDUCE = 4
cdef int FOLD = 5
cdef dict KINDS = {"count": COUNT, "sum": SUM, "min": MIN, "max": MAX, "reduce": REDUCE, "fold": FOLD}

cdef enum:
    BLOCK = 16  # records that count and sum look ahead

# what a slot's number is
cdef enum Form:
    OBJECT = 0    # nothing: the accumulator is a Python object
    INTEGER = 1
    FLOATING = 2


cdef inline double as_double(int64_t bits) noexcept:
    cdef double value
    memcpy(&value, &bits, sizeof(double))
    return value


cdef inline int64_t as_bits(double value) noexcept:
    cdef int64_t bits
    memcpy(&bits, &value, sizeof(double))
    return bits


cdef inline int compare_fast(object value, object current, int kind) noexcept:
    """For two exact floats: 1 if value replaces current, 0 if not; -1 if Python must decide."""
    if PyFloat_CheckExact(value) and PyFloat_CheckExact(current):
        if kind == MIN:
            return PyFloat_AS_DOUBLE(value) < PyFloat_AS_DOUBLE(current)
        return PyFloat_AS_DOUBLE(value) > PyFloat_AS_DOUBLE(current)
    return -1


cdef list as_list(object column):
    """A copy: loops look ahead, and functions may change what they are called with. Arrays become plain numbers, which cannot wrap."""
    if type(column) is list:
        return (<list> column)[:]
    if hasattr(column, "tolist"):
        return column.tolist()
    return list(column)


@cython.final
@cython.no_gc_clear  # the slots borrow from the lists, which clear themselves
@cython.final
cdef class KeyedFold:
    """The state of one keyed aggregation of one task, and the loop over a batch."""

    def __cinit__(self):
        self.index = -1
        self.keys = []
        self.accumulators = []
        self.reset()

    def __init__(self, kind, fn=None, initial=None):
        if kind not in KINDS:
            raise SageError(f"a keyed fold is one of {', '.join(KINDS)}, not {kind!r}")
        self.kind = KINDS[kind]
        if self.kind >= REDUCE and not callable(fn):
            raise SageError(f"a keyed {kind} needs a function of accumulator and value, not {fn!r}")
        if self.kind == FOLD and not callable(initial):
            raise SageError(f"a keyed fold needs a function that makes the initial value, not {initial!r}")
        self.fn = fn
        self.initial = initial

    def __dealloc__(self):
        PyMem_Free(self.slots)
        PyMem_Free(self.forms)
        PyMem_Free(self.table)

    cdef int reset(self) except -1:
        PyMem_Free(self.slots)
        PyMem_Free(self.forms)
        PyMem_Free(self.table)
        self.count = 0
        self.room = 8
        self.mask = 15
        self.slots = <Slot*> PyMem_Malloc(8 * sizeof(Slot))
        self.forms = <unsigned char*> PyMem_Calloc(8, 1)
        self.table = <uint64_t*> PyMem_Calloc(16, sizeof(uint64_t))
        if self.slots == NULL or self.forms == NULL or self.table == NULL:
            self.room = 0
            raise MemoryError
        return 0

    cdef int grow_table(self) except -1:
        cdef uint64_t mask = self.mask * 2 + 1, at
        cdef uint64_t* table = <uint64_t*> PyMem_Calloc(mask + 1, sizeof(uint64_t))
        cdef Py_ssize_t index
        cdef uint64_t hashed
        if table == NULL:
            raise MemoryError
        for index in range(self.count):
            hashed = self.slots[index].hashed
            at = hashed & mask
            while table[at] != 0:
                at = (at + 1) & mask
            table[at] = (hashed >> 32 << 32) | <uint64_t> (index + 1)
        PyMem_Free(self.table)
        self.table = table
        self.mask = mask
        return 0

    cdef int grow_slots(self) except -1:
        cdef Py_ssize_t room = self.room + (self.room >> 1)
        cdef void* slots
        cdef void* forms
        if room >= 0xFFFFFFFF:
            raise SageError("a keyed fold holds at most four thousand million keys in one task; raise the parallelism")
        slots = PyMem_Realloc(self.slots, room * sizeof(Slot))
        if slots == NULL:
            raise MemoryError
        self.slots = <Slot*> slots
        forms = PyMem_Realloc(self.forms, room)
        if forms == NULL:
            raise MemoryError
        self.forms = <unsigned char*> forms
        self.room = room
        return 0

    cdef inline Py_ssize_t find(self, object key, uint64_t hashed) except -2:
        """Slot number of the key, or -1."""
        cdef uint64_t at = hashed & self.mask
        cdef uint64_t word
        cdef Py_ssize_t index
        cdef object known
        while True:
            word = self.table[at]
            if word == 0:
                return -1
            if (word ^ hashed) >> 32 == 0:
                index = <Py_ssize_t> <uint32_t> word - 1
                if self.slots[index].hashed == hashed:
                    if self.slots[index].key == <void*> key:
                        return index
                    known = <object> self.slots[index].key
                    if PyUnicode_CheckExact(key) and PyUnicode_CheckExact(known):
                        if same_text(key, known):
                            return index
                    elif PyObject_RichCompareBool(known, key, Py_EQ):
                        return index
            at = (at + 1) & self.mask

    cdef Py_ssize_t insert(self, object key, uint64_t hashed, object accumulator) except -1:
        cdef Py_ssize_t index = self.count
        cdef uint64_t at
        if index == self.room:
            self.grow_slots()
        if <uint64_t> (index + 1) * 3 > (self.mask + 1) * 2:
            self.grow_table()
        self.keys.append(key)
        if self.kind > SUM:
            self.accumulators.append(accumulator)
        self.slots[index].hashed = hashed
        self.slots[index].key = <void*> key
        self.slots[index].number = 0
        self.forms[index] = OBJECT
        at = hashed & self.mask
        while self.table[at] != 0:
            at = (at + 1) & self.mask
        self.table[at] = (hashed >> 32 << 32) | <uint64_t> (index + 1)
        self.count = index + 1
        return index

    cdef object accumulator_of(self, Py_ssize_t at):
        if self.forms[at] == OBJECT:
            return self.accumulators[at]
        if self.forms[at] == INTEGER:
            return self.slots[at].number
        return as_double(self.slots[at].number)

    cdef int store_object(self, Py_ssize_t at, object accumulator) except -1:
        # counts and sums keep no list of objects until the first of them leaves C
        while len(self.accumulators) < self.count:
            self.accumulators.append(None)
        self.accumulators[at] = accumulator
        self.forms[at] = OBJECT
        return 0

    cdef int store(self, Py_ssize_t at, object accumulator) except -1:
        cdef int overflow = 0
        cdef long long number
        if self.kind <= SUM:
            if PyLong_CheckExact(accumulator) or PyBool_Check(accumulator):
                number = PyLong_AsLongLongAndOverflow(accumulator, &overflow)
                if not overflow:
                    self.slots[at].number = number
                    self.forms[at] = INTEGER
                    return 0
            elif PyFloat_CheckExact(accumulator):
                self.slots[at].number = as_bits(PyFloat_AS_DOUBLE(accumulator))
                self.forms[at] = FLOATING
                return 0
        return self.store_object(at, accumulator)

    cdef inline int add(self, Py_ssize_t at, object value) except -1:
        cdef int overflow = 0
        cdef long long number, total
        cdef Slot* slot = self.slots + at
        cdef unsigned char form = self.forms[at]
        if PyLong_CheckExact(value) and form != OBJECT:
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if not overflow:
                if form == FLOATING:
                    slot.number = as_bits(as_double(slot.number) + <double> number)
                    return 0
                if not add_overflows(slot.number, number, &total):
                    slot.number = total
                    return 0
        elif PyFloat_CheckExact(value) and form != OBJECT:
            if form == FLOATING:
                slot.number = as_bits(as_double(slot.number) + PyFloat_AS_DOUBLE(value))
            else:
                slot.number = as_bits(<double> slot.number + PyFloat_AS_DOUBLE(value))
                self.forms[at] = FLOATING
            return 0
        return self.store(at, self.accumulator_of(at) + value)

    # the loops. Between records nothing is held but `self.index`, so an exception leaves a state to continue from.

    cdef Py_ssize_t look_ahead(self, list keys, Py_ssize_t start, Py_ssize_t size, uint64_t* hashes) except -1:
        """Hash the plain strings from `start` on, up to BLOCK of them, and fetch what finding them will touch; says how many.

        A table beyond the processor's cache costs three misses a record, one after the other; here those of a block overlap.
        """
        cdef Py_ssize_t amount = 0, index, end = min(size, start + BLOCK)
        cdef uint64_t word
        cdef object key
        for index in range(start, end):
            key = keys[index]
            if not PyUnicode_CheckExact(key):
                break
            hashes[amount] = hash_key(key)
            prefetch(self.table + (hashes[amount] & self.mask))
            amount += 1
        for index in range(amount):
            word = <uint32_t> self.table[hashes[index] & self.mask]
            if word != 0:
                prefetch(self.slots + (word - 1))
        for index in range(amount):
            word = <uint32_t> self.table[hashes[index] & self.mask]
            if word != 0:
                prefetch_text(self.slots[word - 1].key)
        return amount

    cdef int run_count(self, list keys, Py_ssize_t size, list out) except -1:
        cdef Py_ssize_t at, index, ahead = self.index, first = self.index
        cdef uint64_t hashed
        cdef uint64_t hashes[BLOCK]
        cdef object key
        for index in range(self.index, size):
            self.index = index
            if index == ahead:
                first = index
                ahead += self.look_ahead(keys, index, size, hashes)
            key = keys[index]
            if index < ahead:
                hashed = hashes[index - first]
            else:
                hashed = hash_key(key)
                ahead = index + 1
            at = self.find(key, hashed)
            if at < 0:
                at = self.insert(key, hashed, None)
                self.forms[at] = INTEGER
            if self.forms[at] == INTEGER and self.slots[at].number < INT64_MAX:
                self.slots[at].number += 1
                if out is not None:
                    PyList_Append(out, count_pair(<object> self.slots[at].key, self.slots[at].number))
            else:
                self.store_object(at, self.accumulator_of(at) + 1)
                if out is not None:
                    out.append((<object> self.slots[at].key, self.accumulators[at]))
        return 0

    cdef int run_sum(self, list keys, list values, Py_ssize_t size, list out) except -1:
        cdef Py_ssize_t at, index, ahead = self.index, first = self.index
        cdef uint64_t hashed
        cdef uint64_t hashes[BLOCK]
        cdef object key, value
        for index in range(self.index, size):
            self.index = index
            if index == ahead:
                first = index
                ahead += self.look_ahead(keys, index, size, hashes)
            key = keys[index]
            value = values[index]
            if index < ahead:
                hashed = hashes[index - first]
            else:
                hashed = hash_key(key)
                ahead = index + 1
            at = self.find(key, hashed)
            if at < 0:
                at = self.insert(key, hashed, None)
                self.store(at, value)
            else:
                self.add(at, value)
            if out is not None:
                if self.forms[at] == INTEGER:
                    PyList_Append(out, count_pair(<object> self.slots[at].key, self.slots[at].number))
                else:
                    PyList_Append(out, (<object> self.slots[at].key, self.accumulator_of(at)))
        return 0

    cdef int run_extreme(self, list keys, list values, Py_ssize_t size, list out) except -1:
        cdef Py_ssize_t at, index
        cdef uint64_t hashed
        cdef object key, value, current
        cdef int better
        for index in range(self.index, size):
            self.index = index
            key = keys[index]
            value = values[index]
            hashed = hash_key(key)
            at = self.find(key, hashed)
            if at < 0:
                at = self.insert(key, hashed, value)
            else:
                current = self.accumulators[at]
                better = compare_fast(value, current, self.kind)
                if better < 0:
                    better = PyObject_RichCompareBool(value, current, Py_LT if self.kind == MIN else Py_GT)
                if better:
                    self.accumulators[at] = value
                else:
                    value = current
            if out is not None:
                PyList_Append(out, (<object> self.slots[at].key, value))
        return 0

    cdef int run_calls(self, list keys, list values, Py_ssize_t size, list out) except -1:
        cdef Py_ssize_t at, index
        cdef uint64_t hashed
        cdef object key, value, fn = self.fn
        cdef bint pairs = self.kind == FOLD
        for index in range(self.index, size):
            self.index = index
            key = keys[index]
            value = values[index]
            hashed = hash_key(key)
            at = self.find(key, hashed)
            if at >= 0:
                value = fn(self.accumulators[at], value)
                self.accumulators[at] = value
            else:
                if pairs:
                    value = fn(self.initial(), value)
                at = self.insert(key, hashed, value)
            if out is not None:
                if pairs:
                    PyList_Append(out, (<object> self.slots[at].key, value))
                else:
                    PyList_Append(out, value)
        return 0

    def run(self, keys, values, Py_ssize_t start, list out) -> None:
        cdef list key_column = as_list(keys)
        cdef list value_column
        cdef Py_ssize_t size = len(key_column)
        self.enter()
        try:
            if self.kind != COUNT:
                if values is None:
                    raise SageError("only a keyed count can do without values")
                value_column = as_list(values)
                if len(value_column) != size:
                    raise SageError(f"{size} keys came with {len(value_column)} values")
            if start < 0:
                raise SageError(f"a run starts at record 0 or later, not at {start}")
            self.index = start
            if start < size:
                if self.kind == COUNT:
                    self.run_count(key_column, size, out)
                elif self.kind == SUM:
                    self.run_sum(key_column, value_column, size, out)
                elif self.kind <= MAX:
                    self.run_extreme(key_column, value_column, size, out)
                else:
                    self.run_calls(key_column, value_column, size, out)
        finally:
            self.busy = False

    cdef int enter(self) except -1:
        if self.busy:  # the loops keep slot numbers across calls of user functions
            raise SageError("a keyed fold cannot be changed from inside its own function")
        self.busy = True
        return 0

    def results(self) -> list:
        if self.kind == REDUCE:
            return list(self.accumulators)
        return self.items()

    def items(self) -> list:
        cdef Py_ssize_t at
        return [(self.keys[at], self.accumulator_of(at)) for at in range(self.count)]

    def load(self, items) -> None:
        cdef Py_ssize_t at
        cdef uint64_t hashed
        entries = list(items)
        self.enter()
        try:
            for key, accumulator in entries:
                hashed = hash_key(key)
                at = self.find(key, hashed)
                if at < 0:
                    at = self.insert(key, hashed, accumulator)
                self.store(at, accumulator)
        finally:
            self.busy = False

    def __len__(self):
        return self.count

    def clear(self) -> None:
        self.enter()
        try:
            keys, accumulators = self.keys, self.accumulators  # destroyed last: that can run any code
            self.keys = []
            self.accumulators = []
            self.reset()
        finally:
            self.busy = False
