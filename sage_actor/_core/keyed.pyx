# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Keyed folds over a batch: one table look-up per record, in C.

The table maps a key to a slot; the slot is updated in place, so a record costs one look-up and no store. A key is
checked (`stable_hash`) once, when its slot is made. Sums of exact ints and floats run in C, and turn to Python's own
addition the moment types mix or a 64-bit integer would overflow, so the result is always what ``acc + value`` gives.
"""

from cpython.dict cimport PyDict_SetItem
from cpython.object cimport PyObject, Py_LT, Py_GT, PyObject_RichCompareBool

from sage_actor._core.stable_hash cimport hash_key

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object mapping, object key) except? NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    bint PyLong_CheckExact(object o)
    bint PyFloat_CheckExact(object o)
    double PyFloat_AS_DOUBLE(object o)

cdef extern from *:
    """
    #define sage_add_overflows(a, b, r) __builtin_add_overflow(a, b, r)
    """
    bint sage_add_overflows(long long a, long long b, long long *r) noexcept nogil

cdef enum:
    COUNT
    SUM
    MIN
    MAX
    REDUCE
    FOLD

cdef enum:
    AS_INT
    AS_FLOAT
    AS_OBJECT

KINDS = {"count": COUNT, "sum": SUM, "min": MIN, "max": MAX, "reduce": REDUCE, "fold": FOLD}


cdef class Counter:
    cdef long long n


cdef class Total:
    cdef int form
    cdef long long whole
    cdef double real
    cdef object other

    cdef int start(self, object value) except -1:
        cdef int overflow = 0
        if PyLong_CheckExact(value):
            self.whole = PyLong_AsLongLongAndOverflow(value, &overflow)
            if not overflow:
                self.form = AS_INT
                return 0
        elif PyFloat_CheckExact(value):
            self.real = PyFloat_AS_DOUBLE(value)
            self.form = AS_FLOAT
            return 0
        self.form = AS_OBJECT
        self.other = value
        return 0

    cdef int add(self, object value) except -1:
        cdef int overflow = 0
        cdef long long more, total
        if self.form == AS_INT and PyLong_CheckExact(value):
            more = PyLong_AsLongLongAndOverflow(value, &overflow)
            if not overflow and not sage_add_overflows(self.whole, more, &total):
                self.whole = total
                return 0
        elif self.form == AS_FLOAT and PyFloat_CheckExact(value):
            self.real += PyFloat_AS_DOUBLE(value)
            return 0
        summed = self.get() + value
        self.start(summed)
        return 0

    cdef object get(self):
        if self.form == AS_INT:
            return self.whole
        if self.form == AS_FLOAT:
            return self.real
        return self.other


cdef class Held:
    cdef object value


cdef class KeyedFold:
    """The state of one keyed aggregation of one task, and the loop over a batch."""

    def __init__(self, kind, fn=None, initial=None):
        if kind not in KINDS:
            raise ValueError(f"unknown kind of fold {kind!r}; it must be one of {', '.join(KINDS)}")
        self.kind = KINDS[kind]
        if (self.kind == REDUCE or self.kind == FOLD) and not callable(fn):
            raise TypeError(f"{kind} needs a function, not {fn!r}")
        if self.kind == FOLD and not callable(initial):
            raise TypeError(f"fold needs a function that makes the initial value, not {initial!r}")
        self.fn = fn
        self.initial = initial
        self.table = {}
        self.index = 0

    cdef object find(self, object key):
        """The key's slot, or None. An unhashable key is refused as one that has no stable encoding."""
        cdef PyObject *found
        try:
            found = PyDict_GetItemWithError(self.table, key)
        except TypeError:
            hash_key(key)
            raise
        return <object>found if found is not NULL else None

    def run(self, keys, values, Py_ssize_t start, out):
        """Fold records start.. of the batch; append one result per record to `out`, or none if out is None."""
        cdef list key_list = keys if type(keys) is list else list(keys)
        cdef list value_list = None
        cdef list results = out
        if values is not None:
            value_list = values if type(values) is list else list(values)
            if len(value_list) != len(key_list):
                raise ValueError(f"{len(key_list)} keys for {len(value_list)} values")
        elif self.kind != COUNT:
            raise TypeError("values may be left out for count only")
        if self.kind == COUNT:
            self.run_count(key_list, start, results)
        elif self.kind == SUM:
            self.run_sum(key_list, value_list, start, results)
        elif self.kind == MIN or self.kind == MAX:
            self.run_extreme(key_list, value_list, start, results)
        else:
            self.run_calls(key_list, value_list, start, results)

    cdef int run_count(self, list keys, Py_ssize_t start, list out) except -1:
        cdef Py_ssize_t i = start, n = len(keys)
        cdef PyObject *found
        cdef Counter slot
        cdef dict table = self.table
        # One try around the loop, not one per record: entering it saves the exception state.
        try:
            while i < n:
                key = keys[i]
                found = PyDict_GetItemWithError(table, key)
                if found is NULL:
                    hash_key(key)
                    slot = Counter.__new__(Counter)
                    slot.n = 1
                    PyDict_SetItem(table, key, slot)
                else:
                    slot = <Counter>found
                    slot.n += 1
                if out is not None:
                    out.append((key, slot.n))
                i += 1
        except TypeError:
            self.index = i
            hash_key(keys[i])
            raise
        finally:
            self.index = i
        return 0

    cdef int run_sum(self, list keys, list values, Py_ssize_t start, list out) except -1:
        cdef Py_ssize_t i, n = len(keys)
        cdef Total slot
        for i in range(start, n):
            key = keys[i]
            self.index = i
            found = self.find(key)
            if found is None:
                hash_key(key)
                slot = Total.__new__(Total)
                slot.start(values[i])
                PyDict_SetItem(self.table, key, slot)
            else:
                slot = <Total>found
                slot.add(values[i])
            if out is not None:
                out.append((key, slot.get()))
        return 0

    cdef int run_extreme(self, list keys, list values, Py_ssize_t start, list out) except -1:
        cdef Py_ssize_t i, n = len(keys)
        cdef Held slot
        cdef int better = Py_LT if self.kind == MIN else Py_GT
        for i in range(start, n):
            key = keys[i]
            value = values[i]
            self.index = i
            found = self.find(key)
            if found is None:
                hash_key(key)
                slot = Held.__new__(Held)
                slot.value = value
                PyDict_SetItem(self.table, key, slot)
            else:
                slot = <Held>found
                if PyObject_RichCompareBool(value, slot.value, better):
                    slot.value = value
            if out is not None:
                out.append((key, slot.value))
        return 0

    cdef int run_calls(self, list keys, list values, Py_ssize_t start, list out) except -1:
        cdef Py_ssize_t i, n = len(keys)
        cdef Held slot
        cdef bint fold = self.kind == FOLD
        cdef object fn = self.fn
        for i in range(start, n):
            key = keys[i]
            self.index = i
            found = self.find(key)
            if found is None:
                hash_key(key)
                first = fn(self.initial(), values[i]) if fold else values[i]
                slot = Held.__new__(Held)
                slot.value = first
                PyDict_SetItem(self.table, key, slot)
            else:
                slot = <Held>found
                slot.value = fn(slot.value, values[i])
            if out is not None:
                out.append((key, slot.value) if fold else slot.value)
        return 0

    cdef object value_of(self, object slot):
        if self.kind == COUNT:
            return (<Counter>slot).n
        if self.kind == SUM:
            return (<Total>slot).get()
        return (<Held>slot).value

    def results(self):
        """Final results in order of first appearance of the key; the same shape as running output."""
        if self.kind == REDUCE:
            return [self.value_of(slot) for slot in self.table.values()]
        return self.items()

    def items(self):
        """(key, accumulator) pairs in order of first appearance."""
        return [(key, self.value_of(slot)) for key, slot in self.table.items()]

    def load(self, items):
        """Replace the state by the given (key, accumulator) pairs."""
        cdef dict table = {}
        cdef Counter counter
        cdef Total total
        cdef Held held
        for key, value in items:
            hash_key(key)
            if self.kind == COUNT:
                counter = Counter.__new__(Counter)
                counter.n = value
                table[key] = counter
            elif self.kind == SUM:
                total = Total.__new__(Total)
                total.start(value)
                table[key] = total
            else:
                held = Held.__new__(Held)
                held.value = value
                table[key] = held
        self.table = table

    def clear(self):
        """Forget everything."""
        self.table = {}

    def __len__(self):
        return len(self.table)
