"""A key hash that is equal for equal keys in every process, and the key groups built on it. The contract is in stable_hash.pyi.

Every key is reduced to a canonical form (type class and payload) and mixed with 64x64 -> 128 bit multiplications, in the manner
of wyhash. All numbers share one class: what is integral is hashed as an integer, whatever its type; a Decimal that a float
represents exactly is hashed as that float. Python's own `hash()` takes no part: it is salted per process. The values are stored
in checkpoints and compared between processes, so changing them needs a new state format.
"""

cimport cython
from cpython.bool cimport PyBool_Check
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.tuple cimport PyTuple_Check, PyTuple_CheckExact
from cpython.unicode cimport PyUnicode_Check, PyUnicode_CheckExact
from libc.math cimport isfinite
from libc.stdint cimport uint16_t, uint64_t

from sage_actor._core.batch cimport Batch

from dataclasses import fields as dataclass_fields
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

from sage_actor.errors import GraphError, SageError, UnstableKey

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(_MSC_VER) && !defined(__clang__)
    #include <intrin.h>
    #endif

    static inline uint64_t sage_mix(uint64_t a, uint64_t b) {
    #if defined(_MSC_VER) && !defined(__clang__)
        uint64_t high, low = _umul128(a, b, &high);
        return low ^ high;
    #else
        __uint128_t product = (__uint128_t)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    #endif
    }

    #define SAGE_P0 0xa0761d6478bd642fULL
    #define SAGE_P1 0xe7037ed1a0b428dbULL
    #define SAGE_P2 0x8ebc6af09c88c6e3ULL

    /* Words are read in the machine's order: every platform we build for is little endian. */
    static inline uint64_t sage_read8(const unsigned char *at) { uint64_t word; memcpy(&word, at, 8); return word; }
    static inline uint64_t sage_read4(const unsigned char *at) { uint32_t word; memcpy(&word, at, 4); return word; }

    static inline uint64_t sage_hash_bytes(const void *data, size_t size, uint64_t seed) {
        const unsigned char *at = (const unsigned char *)data;
        uint64_t a, b;
        size_t left = size;
        seed ^= SAGE_P0;
        if (size <= 16) {
            if (size >= 4) {
                size_t step = (size >> 3) << 2;
                a = (sage_read4(at) << 32) | sage_read4(at + step);
                b = (sage_read4(at + size - 4) << 32) | sage_read4(at + size - 4 - step);
            } else if (size > 0) {
                a = ((uint64_t)at[0] << 16) | ((uint64_t)at[size >> 1] << 8) | at[size - 1];
                b = 0;
            } else {
                a = b = 0;
            }
        } else {
            while (left > 16) {
                seed = sage_mix(sage_read8(at) ^ SAGE_P1, sage_read8(at + 8) ^ seed);
                at += 16;
                left -= 16;
            }
            a = sage_read8(at + left - 16);
            b = sage_read8(at + left - 8);
        }
        return sage_mix(SAGE_P1 ^ (uint64_t)size, sage_mix(a ^ SAGE_P1, b ^ seed) ^ SAGE_P2);
    }

    static inline uint64_t sage_hash_word(uint64_t word, uint64_t seed) {
        return sage_mix(sage_mix(word ^ SAGE_P1, seed ^ SAGE_P0) ^ word, SAGE_P2);
    }

    /* Equal strings have the same kind, because CPython always stores the narrowest. */
    static inline uint64_t sage_hash_text(PyObject *text, uint64_t seed) {
        int kind = PyUnicode_KIND(text);
        return sage_hash_bytes(PyUnicode_DATA(text), (size_t)PyUnicode_GET_LENGTH(text) * kind, seed + kind);
    }
    """
    uint64_t hash_bytes "sage_hash_bytes"(const void* data, size_t size, uint64_t seed) nogil
    uint64_t hash_word "sage_hash_word"(uint64_t word, uint64_t seed) nogil
    uint64_t hash_text "sage_hash_text"(object text, uint64_t seed)
    int PyUnicode_READY(object text) except -1
    list PyList_New(Py_ssize_t size)
    void PyList_SET_ITEM(list target, Py_ssize_t at, object item)
    Py_ssize_t PyList_GET_SIZE(list value)
    void Py_INCREF(object)

# one number per class of keys that can be equal to one another
cdef uint64_t TEXT = 0x10
cdef uint64_t BYTES = 0x21
cdef uint64_t INTEGER = 0x32
cdef uint64_t BIG_INTEGER = 0x43
cdef uint64_t FRACTION = 0x54
cdef uint64_t DECIMAL = 0x65
cdef uint64_t IDENTIFIER = 0x76
cdef uint64_t DAY = 0x87
cdef uint64_t NAIVE_TIME = 0x98
cdef uint64_t AWARE_TIME = 0xA9
cdef uint64_t MEMBER = 0xBA
cdef uint64_t TUPLE = 0xCB
cdef uint64_t RECORD = 0xDC

cdef int DEEPEST = 64
cdef int LARGEST_EXPONENT = 4096
cdef int MOST_GROUPS = 32768

cdef object EPOCH = datetime(1970, 1, 1)
cdef object MICROSECOND = timedelta(microseconds=1)

# class -> (qualified name, compared field names) of frozen dataclasses and structs, looked up once per class
cdef dict RECORD_FIELDS = {}


cdef uint64_t hash_big(object value) except? 0:
    cdef bytes raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return hash_bytes(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), BIG_INTEGER)


cdef uint64_t hash_integer(object value) except? 0:
    cdef int overflow = 0
    cdef long long small = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        return hash_big(int(value))
    return hash_word(<uint64_t> small, INTEGER)


cdef uint64_t hash_float(object key) except? 0:
    cdef double value = PyFloat_AS_DOUBLE(key)
    if -9.2e18 < value < 9.2e18:
        if <double> (<long long> value) == value:
            return hash_word(<uint64_t> (<long long> value), INTEGER)
        return hash_bytes(&value, sizeof(double), FRACTION)
    if not isfinite(value):
        raise UnstableKey(type(key).__name__, f"{key!r} is not finite and not equal to itself everywhere")
    return hash_integer(int(key))


cdef tuple without_trailing_zeros(object value):
    """Sign, exponent and digits of a Decimal, the same for all that are equal; Decimal.normalize() would round."""
    cdef Py_ssize_t size
    sign, digits, exponent = value.as_tuple()
    size = len(<tuple> digits)
    while size > 1 and (<tuple> digits)[size - 1] == 0:
        size -= 1
        exponent += 1
    if size == 1 and (<tuple> digits)[0] == 0:
        return (0, 0, (0,))
    return (sign, exponent, (<tuple> digits)[:size])


cdef uint64_t hash_decimal(object key) except? 0:
    cdef object nearest
    if not key.is_finite():
        raise UnstableKey(type(key).__name__, f"{key!r} is not finite")
    if abs(key.adjusted()) > LARGEST_EXPONENT:
        raise UnstableKey(type(key).__name__, f"its exponent is beyond {LARGEST_EXPONENT}")
    parts = without_trailing_zeros(key)
    if parts[1] >= 0:
        return hash_integer(int(key))
    nearest = float(key)
    if isfinite(nearest) and without_trailing_zeros(Decimal.from_float(nearest)) == parts:
        return hash_float(nearest)
    return hash_word(hash_tuple(parts, 1), DECIMAL)


cdef uint64_t hash_datetime(object key) except? 0:
    # equality between times of one zone ignores `fold`, so the offset is taken without it, as datetime's own hash does
    offset = key.replace(fold=0).utcoffset()
    plain = datetime(key.year, key.month, key.day, key.hour, key.minute, key.second, key.microsecond)
    since = plain - EPOCH
    if offset is None:
        return hash_word(<uint64_t> (<long long> (since // MICROSECOND)), NAIVE_TIME)
    return hash_word(<uint64_t> (<long long> ((since - offset) // MICROSECOND)), AWARE_TIME)


cdef uint64_t hash_tuple(object key, int depth) except? 0:
    cdef uint64_t state = TUPLE
    cdef Py_ssize_t size = 0
    for item in <tuple> key:
        state = hash_word(hash_key_at(item, depth + 1), state)
        size += 1
    return hash_word(<uint64_t> size, state)


cdef tuple record_fields(type cls):
    """Qualified name and compared fields of a frozen dataclass or struct class; raises UnstableKey for any other class."""
    cdef object names, config, params
    found = RECORD_FIELDS.get(cls)
    if found is not None:
        return <tuple> found
    params = getattr(cls, "__dataclass_params__", None)
    config = getattr(cls, "__struct_config__", None)
    if params is not None:
        if not params.frozen:
            raise UnstableKey(cls.__qualname__, "the dataclass is not frozen")
        if not params.eq:
            raise UnstableKey(cls.__qualname__, "the dataclass has eq=False, so equal contents are not equal keys")
        names = tuple(field.name for field in dataclass_fields(cls) if field.compare)
    elif config is not None:
        if not config.frozen:
            raise UnstableKey(cls.__qualname__, "the struct is not frozen")
        if not config.eq:
            raise UnstableKey(cls.__qualname__, "the struct has eq=False, so equal contents are not equal keys")
        names = tuple(cls.__struct_fields__)
    else:
        raise UnstableKey(cls.__qualname__)
    if len(RECORD_FIELDS) >= 1024:  # classes made on the fly must not pile up here
        RECORD_FIELDS.clear()
    RECORD_FIELDS[cls] = (cls.__qualname__, names)
    return (cls.__qualname__, names)


cdef uint64_t hash_record(object key, int depth) except? 0:
    name, names = record_fields(type(key))
    cdef uint64_t state = hash_word(hash_text(name, TEXT), RECORD)
    for field in <tuple> names:
        state = hash_word(hash_key_at(getattr(key, field), depth + 1), state)
    return state


cdef uint64_t hash_other(object key, int depth) except? 0:
    cdef object own
    if key is None:
        raise UnstableKey("NoneType", "None is no key; give such records a key of their own or filter them before key_by")
    if depth > DEEPEST:
        raise UnstableKey(type(key).__name__, f"it is nested deeper than {DEEPEST}")
    own = getattr(type(key), "__stable_key__", None)
    if own is not None:
        return hash_key_at(own(key), depth + 1)
    if PyUnicode_Check(key):
        PyUnicode_READY(key)
        return hash_text(key, TEXT)
    if PyLong_Check(key):
        return hash_integer(key)
    if PyFloat_Check(key):
        return hash_float(key)
    if isinstance(key, bytes):
        return hash_bytes(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), BYTES)
    if PyTuple_Check(key):
        return hash_tuple(key, depth)
    if isinstance(key, Decimal):
        return hash_decimal(key)
    if isinstance(key, Enum):
        return hash_word(hash_text(type(key).__qualname__, TEXT), hash_text(str(key.name if key.name is not None else key.value), MEMBER))
    if isinstance(key, UUID):
        raw = key.bytes
        return hash_bytes(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), IDENTIFIER)
    if isinstance(key, datetime):
        return hash_datetime(key)
    if isinstance(key, date):
        return hash_word(<uint64_t> (<long long> key.toordinal()), DAY)
    return hash_record(key, depth)


cdef uint64_t hash_key_at(object key, int depth) except? 0:
    if PyUnicode_CheckExact(key):
        PyUnicode_READY(key)
        return hash_text(key, TEXT)
    if PyLong_CheckExact(key) or PyBool_Check(key):
        return hash_integer(key)
    if PyFloat_CheckExact(key):
        return hash_float(key)
    if PyTuple_CheckExact(key) and depth <= DEEPEST:
        return hash_tuple(key, depth)
    return hash_other(key, depth)


cdef uint64_t hash_key(object key) except? 0:
    return hash_key_at(key, 0)


def stable_hash(key) -> int:
    return hash_key_at(key, 0)


cdef int check_groups(long groups, long parallelism) except -1:
    if not 1 <= groups <= MOST_GROUPS:
        raise GraphError(f"key groups must be between 1 and {MOST_GROUPS}, not {groups}")
    if not 1 <= parallelism <= groups:
        raise GraphError(f"parallelism must be between 1 and the number of key groups ({groups}), not {parallelism}")
    return 0


def key_group(key, long groups) -> int:
    check_groups(groups, 1)
    return hash_key_at(key, 0) % <uint64_t> groups


def operator_of_group(long group, long groups, long parallelism) -> int:
    check_groups(groups, parallelism)
    if not 0 <= group < groups:
        raise GraphError(f"group {group} is not one of 0..{groups - 1}")
    return group * parallelism // groups


def group_range(long index, long groups, long parallelism) -> tuple:
    check_groups(groups, parallelism)
    if not 0 <= index < parallelism:
        raise GraphError(f"instance {index} is not one of 0..{parallelism - 1}")
    return (index * groups + parallelism - 1) // parallelism, ((index + 1) * groups - 1) // parallelism


def default_groups(long parallelism) -> int:
    cdef long wanted = parallelism + (parallelism + 1) // 2, groups = 128
    if parallelism < 1:
        raise GraphError(f"parallelism must be at least 1, not {parallelism}")
    while groups < wanted and groups < MOST_GROUPS:
        groups *= 2
    return groups


cdef list new_columns(list source, Py_ssize_t* counts, long parallelism):
    cdef list columns = []
    cdef long instance
    for instance in range(parallelism):
        columns.append(PyList_New(counts[instance]) if counts[instance] else None)
    return columns


cdef list deal(list column, uint16_t* instances, Py_ssize_t size, Py_ssize_t* counts, Py_ssize_t* filled, long parallelism):
    """One list per instance with that instance's items of the column, in order."""
    cdef list columns = new_columns(column, counts, parallelism)
    cdef Py_ssize_t index
    cdef long instance
    for instance in range(parallelism):
        filled[instance] = 0
    for index in range(size):
        item = column[index]
        instance = instances[index]
        Py_INCREF(item)
        PyList_SET_ITEM(<list> columns[instance], filled[instance], item)
        filled[instance] += 1
    return columns


cdef list deal_sequence(object column, uint16_t* instances, Py_ssize_t size, long parallelism):
    """The same for an array (kept an array, through its own `take`)."""
    cdef list rows = [[] for _ in range(parallelism)]
    cdef Py_ssize_t index
    for index in range(size):
        (<list> rows[instances[index]]).append(index)
    return [column.take(row, 0) if row else None for row in rows]


def split_by_key(Batch batch not None, long groups, long parallelism, table=None, counts=None) -> list:
    cdef list keys = batch.keys, values, result, value_columns, key_columns, time_columns = None, tag_columns = None, watermark_columns = None
    cdef Py_ssize_t size, index, most = 0
    cdef uint64_t hashed, total = <uint64_t> groups
    cdef uint64_t mask
    cdef bint power
    cdef uint16_t* instances = NULL
    cdef Py_ssize_t* sizes = NULL
    cdef long instance
    cdef Batch part
    cdef const uint16_t[::1] owners = None
    cdef uint64_t[::1] seen = None
    cdef const uint16_t* owner_of = NULL
    cdef uint64_t* seen_of = NULL
    check_groups(groups, parallelism)
    if table is not None:
        owners = table
        if owners.shape[0] != groups:
            raise SageError(f"the table of key groups has {owners.shape[0]} entries for {groups} groups")
        owner_of = &owners[0]
    if counts is not None:
        seen = counts
        if seen.shape[0] != groups:
            raise SageError(f"there are {seen.shape[0]} counts for {groups} key groups")
        seen_of = &seen[0]
    if keys is None:
        raise SageError("split_by_key needs a batch with a column of keys")
    size = PyList_GET_SIZE(keys)
    if len(batch.values) != size or (batch.timestamps is not None and PyList_GET_SIZE(batch.timestamps) != size) or (
        batch.tags is not None and PyList_GET_SIZE(batch.tags) != size
    ) or (batch.watermarks is not None and PyList_GET_SIZE(batch.watermarks) != size):
        raise SageError("the columns of the batch differ in length")
    power = (groups & (groups - 1)) == 0
    mask = total - 1
    instances = <uint16_t*> PyMem_Malloc((size + 1) * sizeof(uint16_t))
    sizes = <Py_ssize_t*> PyMem_Malloc(2 * parallelism * sizeof(Py_ssize_t))
    try:
        if instances == NULL or sizes == NULL:
            raise MemoryError
        for instance in range(2 * parallelism):
            sizes[instance] = 0
        for index in range(size):
            if index >= PyList_GET_SIZE(keys):  # a __stable_key__ has changed the batch it is in
                raise SageError("the batch changed while it was being split")
            key = keys[index]
            hashed = hash_key_at(key, 0)
            hashed = hashed & mask if power else hashed % total
            if seen_of != NULL:
                seen_of[hashed] += 1
            if owner_of == NULL:
                instance = <long> (hashed * <uint64_t> parallelism // total)
            else:
                instance = owner_of[hashed]
                if instance >= parallelism:
                    raise SageError(f"key group {hashed} belongs to instance {instance}, and there are {parallelism}")
            instances[index] = <uint16_t> instance
            sizes[instance] += 1
        for instance in range(parallelism):
            if sizes[instance] > most:
                most = sizes[instance]
        result = [None] * parallelism
        if most == size:
            if size:
                result[instances[0]] = batch
            return result
        if PyList_GET_SIZE(keys) != size or len(batch.values) != size:
            raise SageError("the batch changed while it was being split")
        if type(batch.values) is not list and hasattr(batch.values, "take"):
            value_columns = deal_sequence(batch.values, instances, size, parallelism)
        else:
            values = batch.values if type(batch.values) is list else list(batch.values)
            value_columns = deal(values, instances, size, sizes, sizes + parallelism, parallelism)
        key_columns = deal(keys, instances, size, sizes, sizes + parallelism, parallelism)
        if batch.timestamps is not None:
            time_columns = deal(batch.timestamps, instances, size, sizes, sizes + parallelism, parallelism)
        if batch.tags is not None:
            tag_columns = deal(batch.tags, instances, size, sizes, sizes + parallelism, parallelism)
        if batch.watermarks is not None:
            watermark_columns = deal(batch.watermarks, instances, size, sizes, sizes + parallelism, parallelism)
        for instance in range(parallelism):
            if sizes[instance]:
                part = Batch.__new__(Batch)
                part.values = value_columns[instance]
                part.keys = key_columns[instance]
                part.timestamps = time_columns[instance] if time_columns is not None else None
                part.tags = tag_columns[instance] if tag_columns is not None else None
                part.watermarks = watermark_columns[instance] if watermark_columns is not None else None
                part.position = -1
                result[instance] = part
        return result
    finally:
        PyMem_Free(instances)
        PyMem_Free(sizes)
