"""Keyed folds over a batch: one table look-up per record, in C. The contract is in keyed.pyi.

The table itself is key_table.h. Text, by far the most frequent key, is looked up by its content without Python's hash and, up to
16 bytes, without reading a known key again; every other key by `stable_hash`, which also refuses what is no key. A counter costs
about 70 bytes beyond its key. Counts and sums stay C numbers while they are plain ints or floats that fit; anything else is left
to Python's own `+`.
"""

cimport cython
from cpython.bool cimport PyBool_Check
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport Py_GT, Py_LT, PyObject_RichCompareBool
from cpython.tuple cimport PyTuple_CheckExact
from cpython.unicode cimport PyUnicode_Check, PyUnicode_CheckExact
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.string cimport memcpy

from sage_actor._core.stable_hash cimport hash_key

import os
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
    """
    bint add_overflows "sage_add"(long long a, long long b, long long* sum)
    object PyLong_FromLongLong(long long number)
    int PyUnicode_READY(object text) except -1
    bint PyObject_IS_GC(object key)

key_table_seed(int.from_bytes(os.urandom(8), "little"), int.from_bytes(os.urandom(8), "little"))

cdef int COUNT = 0
cdef int SUM = 1
cdef int MIN = 2
cdef int MAX = 3
cdef int REDUCE = 4
cdef int FOLD = 5
cdef dict KINDS = {"count": COUNT, "sum": SUM, "min": MIN, "max": MAX, "reduce": REDUCE, "fold": FOLD}

cdef enum:
    DEEPEST = 64  # a __stable_key__ of a __stable_key__ of ...; `hash_key` says what is wrong with more

# what an entry's number is
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
@cython.no_gc_clear  # the table borrows from `held`, which clears itself
cdef class KeyedFold:
    """The state of one keyed aggregation of one task, and the loop over a batch."""

    def __cinit__(self):
        self.index = -1
        self.held = []
        self.accumulators = []
        key_table_init(&self.table)

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
        key_table_free(&self.table)
        PyMem_Free(self.changed)

    # keys

    cdef int digest(self, object key, KeyDigest* digest) except -1:
        """What the table compares of a key; raises UnstableKey for what is none. May run the key's own code."""
        cdef object own, plain = key
        cdef int depth
        if PyLong_CheckExact(key) or PyTuple_CheckExact(key) or PyFloat_CheckExact(key) or PyBool_Check(key):
            key_digest_hash(hash_key(key), digest)
            return 0
        if not PyUnicode_CheckExact(key) and type(key) is not self.plain_type:
            for depth in range(DEEPEST):
                own = getattr(type(plain), "__stable_key__", None)
                if own is None:
                    break
                plain = own(plain)
            else:
                hash_key(key)  # refuses it
            if plain is key:
                self.plain_type = type(key)
        if not PyUnicode_Check(plain):
            key_digest_hash(hash_key(plain), digest)
            return 0
        PyUnicode_READY(plain)
        key_digest_text(plain, digest)
        if plain is not key or not key_compares_as_text(key):
            digest.meta |= KEY_ODD
        return 0

    cdef inline Py_ssize_t find(self, object key) except -2:
        """Number of the entry, or -1, and then `missing` is what `insert` needs."""
        self.digest(key, &self.missing)
        return key_table_find(&self.table, &self.missing, key)

    cdef inline Py_ssize_t find_ahead(self, list keys, Py_ssize_t index, KeysAhead* ahead) except -2:
        """The same for the key of record `index`; looks up the records after it as well, where those are plain strings."""
        cdef Py_ssize_t at
        if index - ahead.first >= ahead.size:
            if PyUnicode_CheckExact(keys[index]):
                key_table_look_ahead(&self.table, keys, index, ahead)
            if index - ahead.first >= ahead.size:
                return self.find(keys[index])
        at = ahead.at[index - ahead.first]
        if at < 0:
            self.missing = ahead.digests[index - ahead.first]
            at = key_table_find(&self.table, &self.missing, keys[index])  # records in between may have brought it
        return at

    cdef Py_ssize_t insert(self, object key, object accumulator) except -1:
        """Add the key that was not found. Until its last step nothing has changed that can be seen."""
        cdef bint owned = not PyObject_IS_GC(key)
        cdef int64_t number = 0
        cdef int form = self.as_number(accumulator, &number)
        if self.table.count >= KEY_MOST:
            raise SageError("a keyed fold holds at most four thousand million keys in one task; raise the parallelism")
        key_table_reserve(&self.table)
        if form == OBJECT:
            self.put(self.table.count, accumulator)
        if not owned:  # what can be part of a cycle must be shown to the collector
            self.held.append(key)
        cdef Py_ssize_t at = key_table_add(&self.table, key, &self.missing, owned)
        self.table.entries[at].number = number
        self.table.entries[at].form = form
        if self.tracking:
            self.push_changed(at)
        return at

    # what changes

    cdef int push_changed(self, Py_ssize_t at) except -1:
        cdef Py_ssize_t room
        cdef void* grown
        if self.changed_count == self.changed_room:
            room = self.changed_room * 2 + 64
            grown = PyMem_Realloc(self.changed, room * sizeof(Py_ssize_t))
            if grown == NULL:
                raise MemoryError
            self.changed = <Py_ssize_t*> grown
            self.changed_room = room
        self.changed[self.changed_count] = at
        self.changed_count += 1
        return 0

    cdef int note(self, Py_ssize_t at) except -1:
        self.push_changed(at)
        self.table.entries[at].changed = 1
        if self.frozen is not None:
            self.frozen.keep(at, self.accumulator_of(at))
        return 0

    cdef inline int touch(self, Py_ssize_t at) except -1:
        """To be called before an entry changes: the first time since the last freeze it goes on the list."""
        return 0 if self.table.entries[at].changed else self.note(at)

    # accumulators

    cdef int put(self, Py_ssize_t at, object accumulator) except -1:
        # counts and sums keep no list of objects until the first of them leaves C
        while len(self.accumulators) <= at:
            self.accumulators.append(None)
        self.accumulators[at] = accumulator
        return 0

    cdef int as_number(self, object accumulator, int64_t* number) noexcept:
        """The form a new accumulator takes, with its number unless that is OBJECT."""
        cdef int overflow = 0
        if self.kind <= SUM:
            if PyLong_CheckExact(accumulator) or PyBool_Check(accumulator):
                number[0] = PyLong_AsLongLongAndOverflow(accumulator, &overflow)
                if not overflow:
                    return INTEGER
            elif PyFloat_CheckExact(accumulator):
                number[0] = as_bits(PyFloat_AS_DOUBLE(accumulator))
                return FLOATING
        return OBJECT

    cdef object accumulator_of(self, Py_ssize_t at):
        cdef KeyEntry* entry = self.table.entries + at
        if entry.form == OBJECT:
            return self.accumulators[at]
        if entry.form == INTEGER:
            return PyLong_FromLongLong(entry.number)
        return as_double(entry.number)

    cdef int store(self, Py_ssize_t at, object accumulator) except -1:
        cdef int64_t number = 0
        cdef int form = self.as_number(accumulator, &number)
        if form == OBJECT:
            self.put(at, accumulator)
        self.table.entries[at].number = number
        self.table.entries[at].form = form
        return 0

    cdef inline int add(self, Py_ssize_t at, object value) except -1:
        cdef int overflow = 0
        cdef long long number, total
        cdef KeyEntry* entry = self.table.entries + at
        if entry.form != OBJECT:
            if PyLong_CheckExact(value):
                number = PyLong_AsLongLongAndOverflow(value, &overflow)
                if not overflow:
                    if entry.form == FLOATING:
                        entry.number = as_bits(as_double(entry.number) + <double> number)
                        return 0
                    if not add_overflows(entry.number, number, &total):
                        entry.number = total
                        return 0
            elif PyFloat_CheckExact(value):
                if entry.form == FLOATING:
                    entry.number = as_bits(as_double(entry.number) + PyFloat_AS_DOUBLE(value))
                else:
                    entry.number = as_bits(<double> entry.number + PyFloat_AS_DOUBLE(value))
                    entry.form = FLOATING
                return 0
        return self.store(at, self.accumulator_of(at) + value)

    cdef inline object pair_of(self, Py_ssize_t at):
        cdef KeyEntry* entry = self.table.entries + at
        if entry.form == INTEGER:
            return key_integer_pair(<object> entry.key, entry.number)
        return key_pair(<object> entry.key, self.accumulator_of(at))

    # The loops. Between records nothing is held but `self.index`, so an exception leaves a state to continue from. User code
    # (a key's ==, a function, `+`) can neither change the table, see `enter`, nor the columns, which are copies.

    cdef int run_count(self, list keys, Py_ssize_t size, list out) except -1:
        cdef Py_ssize_t at, index
        cdef KeyEntry* entry
        cdef KeysAhead ahead
        ahead.first = ahead.size = 0
        ahead.results = out is not None
        for index in range(self.index, size):
            self.index = index
            at = self.find_ahead(keys, index, &ahead)
            if at < 0:
                at = self.insert(keys[index], 0)
            else:
                self.touch(at)
            entry = self.table.entries + at
            if entry.form == INTEGER and entry.number < INT64_MAX:
                entry.number += 1
            else:
                self.store(at, self.accumulator_of(at) + 1)
            if out is not None:
                out.append(self.pair_of(at))
        return 0

    cdef int run_sum(self, list keys, list values, Py_ssize_t size, list out) except -1:
        cdef Py_ssize_t at, index
        cdef KeysAhead ahead
        ahead.first = ahead.size = 0
        ahead.results = out is not None
        for index in range(self.index, size):
            self.index = index
            at = self.find_ahead(keys, index, &ahead)
            if at < 0:
                at = self.insert(keys[index], values[index])
            else:
                self.touch(at)
                self.add(at, values[index])
            if out is not None:
                out.append(self.pair_of(at))
        return 0

    cdef int run_extreme(self, list keys, list values, Py_ssize_t size, list out) except -1:
        cdef Py_ssize_t at, index
        cdef object value, current
        cdef int better
        cdef KeysAhead ahead
        ahead.first = ahead.size = 0
        ahead.results = out is not None
        for index in range(self.index, size):
            self.index = index
            value = values[index]
            at = self.find_ahead(keys, index, &ahead)
            if at < 0:
                at = self.insert(keys[index], value)
            else:
                current = self.accumulators[at]
                better = compare_fast(value, current, self.kind)
                if better < 0:
                    better = PyObject_RichCompareBool(value, current, Py_LT if self.kind == MIN else Py_GT)
                if better:
                    self.touch(at)
                    self.accumulators[at] = value
            if out is not None:
                out.append(self.pair_of(at))
        return 0

    cdef int run_calls(self, list keys, list values, Py_ssize_t size, list out) except -1:
        cdef Py_ssize_t at, index
        cdef object value, fn = self.fn
        cdef bint pairs = self.kind == FOLD
        cdef KeysAhead ahead
        ahead.first = ahead.size = 0
        ahead.results = out is not None
        for index in range(self.index, size):
            self.index = index
            value = values[index]
            at = self.find_ahead(keys, index, &ahead)
            if at >= 0:
                self.touch(at)  # before the function, which may change the accumulator in place
                value = fn(self.accumulators[at], value)
                self.accumulators[at] = value
            else:
                if pairs:
                    value = fn(self.initial(), value)
                at = self.insert(keys[index], value)
            if out is not None:
                out.append(self.pair_of(at) if pairs else value)
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
        if self.busy:  # the loops keep numbers of entries across calls of user functions
            raise SageError("a keyed fold cannot be changed from inside its own function")
        self.busy = True
        return 0

    def results(self) -> list:
        if self.kind == REDUCE:
            return self.accumulators[:self.table.count]  # an insert that ran out of memory may have left one more
        return self.items()

    def items(self) -> list:
        cdef Py_ssize_t at
        return [self.pair_of(at) for at in range(self.table.count)]

    def load(self, entries) -> None:
        cdef Py_ssize_t at
        entries = list(entries)
        self.enter()
        try:
            for key, accumulator in entries:
                at = self.find(key)
                if at < 0:
                    self.insert(key, accumulator)
                else:
                    self.touch(at)
                    self.store(at, accumulator)
        finally:
            self.busy = False

    def __len__(self):
        return self.table.count

    def clear(self) -> None:
        cdef KeyTable fresh, old
        cdef list held = [], accumulators = []
        self.enter()
        try:
            if self.frozen is not None:
                self.frozen.detach()
            key_table_init(&fresh)
            self.changed_count = 0
            old = self.table
            self.table = fresh
            held, self.held = self.held, held
            accumulators, self.accumulators = self.accumulators, accumulators
        finally:
            self.busy = False
        # the old contents go last, with nothing left that shows them: that can run any code
        key_table_free(&old)

    def get(self, key, default=None):
        cdef Py_ssize_t at = self.find(key)
        return default if at < 0 else self.accumulator_of(at)

    def absent(self, keys) -> list:
        cdef list found = []
        for key in keys:
            if self.find(key) < 0:
                found.append(key)
        return found

    # snapshots

    def freeze(self, bint full):
        cdef Py_ssize_t index
        cdef bytes numbers = None
        from sage_actor._core.frozen_fold import FrozenFold

        self.enter()
        try:
            if not self.tracking:
                full = True
                self.tracking = True
                for index in range(self.table.count):
                    self.table.entries[index].changed = 0
            if self.frozen is not None:
                self.frozen.close()
            if not full:
                numbers = PyBytes_FromStringAndSize(<char*> self.changed, self.changed_count * sizeof(Py_ssize_t))
            for index in range(self.changed_count):
                self.table.entries[self.changed[index]].changed = 0
            self.changed_count = 0
            self.frozen = FrozenFold(self, self.table.count, numbers)
            return self.frozen
        finally:
            self.busy = False

    def thaw(self) -> None:
        self.frozen = None
