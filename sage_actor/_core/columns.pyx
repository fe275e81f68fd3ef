"""Columns of plain values as bytes. The contract is in columns.pyi.

Layout, little endian: kind u8, number of rows u32, then by kind: integers of 1, 2, 4 or 8 bytes; doubles; bools of one byte; nothing
for None; for strs a u32 each (length and, in the lowest two bits, width) followed by their code units; for tuples a width u8,
then each field as a column of its own behind its length u32.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_FromDouble
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN, INT8_MAX, INT8_MIN
from libc.stdint cimport int16_t, int32_t, int64_t, int8_t, uint16_t, uint32_t, uint8_t
from libc.string cimport memcpy

from sage_actor.errors import FrameError

cdef extern from *:
    """
    static inline PyObject *sage_type(PyObject *item) { return (PyObject *) Py_TYPE(item); }
    """
    PyObject* TYPE "sage_type" (PyObject* item) noexcept

cdef extern from "Python.h":
    object PyLong_FromLong(long value)
    object PyLong_FromLongLong(long long value)
    long long PyLong_AsLongLongAndOverflow(PyObject* item, int* overflow)
    int PyUnicode_KIND(PyObject* text)
    void* PyUnicode_DATA(PyObject* text)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text)
    int PyUnicode_IS_ASCII(PyObject* text)
    int PyUnicode_READY(PyObject* text) except -1
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 most)
    void PyObject_GC_UnTrack(PyObject* item)
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False

cdef uint8_t INTEGERS_1 = 1, INTEGERS_2 = 2, INTEGERS_4 = 3, INTEGERS_8 = 4
cdef uint8_t FLOATS = 5, BOOLS = 6, NONES = 7, TEXTS = 8, TUPLES = 9
cdef Py_ssize_t FIXED = 5
cdef Py_ssize_t LONG_TEXT = 64  # bytes of a str on average, from which its being repeated as an object may matter
cdef int DEEPEST = 3
cdef Py_ssize_t LONGEST = 1 << 20  # rows; far more than a batch has, and so few that damage cannot take all memory
cdef Py_ssize_t WIDEST = 64
cdef Py_UCS4* MOST = [127, 255, 65535, 1114111]
cdef Py_ssize_t* WIDTH = [1, 1, 2, 4]


cdef bytes begin(uint8_t kind, Py_ssize_t count, Py_ssize_t size):
    """The bytes of a column with its header written."""
    cdef bytes packed = PyBytes_FromStringAndSize(NULL, FIXED + size)
    cdef char* at = PyBytes_AS_STRING(packed)
    cdef uint32_t rows = <uint32_t> count
    at[0] = <char> kind
    memcpy(at + 1, &rows, 4)
    return packed


cdef bytes pack_integers(list column, Py_ssize_t count):
    cdef int64_t* wide = <int64_t*> PyMem_Malloc(8 * count)
    cdef int64_t least = 0, most = 0, value
    cdef int16_t two
    cdef int32_t four
    cdef Py_ssize_t index
    cdef int overflow = 0
    cdef PyObject* item
    cdef bytes packed
    cdef char* at
    if wide == NULL:
        raise MemoryError
    try:
        for index in range(count):
            item = <PyObject*> PyList_GET_ITEM(column, index)
            if TYPE(item) != <PyObject*> int:
                return None
            value = PyLong_AsLongLongAndOverflow(item, &overflow)
            if overflow:
                return None
            wide[index] = value
            if value < least:
                least = value
            elif value > most:
                most = value
        if INT8_MIN <= least and most <= INT8_MAX:
            packed = begin(INTEGERS_1, count, count)
            at = PyBytes_AS_STRING(packed) + FIXED
            for index in range(count):
                (<int8_t*> at)[index] = <int8_t> wide[index]
        elif INT16_MIN <= least and most <= INT16_MAX:
            packed = begin(INTEGERS_2, count, 2 * count)
            at = PyBytes_AS_STRING(packed) + FIXED
            for index in range(count):
                two = <int16_t> wide[index]
                memcpy(at + 2 * index, &two, 2)
        elif INT32_MIN <= least and most <= INT32_MAX:
            packed = begin(INTEGERS_4, count, 4 * count)
            at = PyBytes_AS_STRING(packed) + FIXED
            for index in range(count):
                four = <int32_t> wide[index]
                memcpy(at + 4 * index, &four, 4)
        else:
            packed = begin(INTEGERS_8, count, 8 * count)
            memcpy(PyBytes_AS_STRING(packed) + FIXED, wide, 8 * count)
        return packed
    finally:
        PyMem_Free(wide)


cdef bytes pack_floats(list column, Py_ssize_t count):
    cdef bytes packed = begin(FLOATS, count, 8 * count)
    cdef char* at = PyBytes_AS_STRING(packed) + FIXED
    cdef Py_ssize_t index
    cdef double value
    for index in range(count):
        if TYPE(<PyObject*> PyList_GET_ITEM(column, index)) != <PyObject*> float:
            return None
        value = PyFloat_AS_DOUBLE(<object> PyList_GET_ITEM(column, index))
        memcpy(at + 8 * index, &value, 8)
    return packed


cdef bytes pack_bools(list column, Py_ssize_t count):
    cdef bytes packed = begin(BOOLS, count, count)
    cdef char* at = PyBytes_AS_STRING(packed) + FIXED
    cdef Py_ssize_t index
    cdef PyObject* item
    for index in range(count):
        item = <PyObject*> PyList_GET_ITEM(column, index)
        if item == Py_True:
            at[index] = 1
        elif item == Py_False:
            at[index] = 0
        else:
            return None
    return packed


cdef bytes pack_nones(list column, Py_ssize_t count):
    cdef Py_ssize_t index
    for index in range(count):
        if <PyObject*> PyList_GET_ITEM(column, index) != Py_None:
            return None
    return begin(NONES, count, 0)


cdef inline int width_of(PyObject* text) noexcept:
    """0 to 3: ASCII, and one, two or four bytes for each character."""
    cdef int kind = PyUnicode_KIND(text)
    if kind == 1:
        return 0 if PyUnicode_IS_ASCII(text) else 1
    return 2 if kind == 2 else 3


cdef bytes pack_texts(list column, Py_ssize_t count):
    cdef Py_ssize_t index, size = 0, length, most = LONG_TEXT * count
    cdef PyObject* item
    cdef bytes packed
    cdef char* at
    cdef char* heads
    cdef uint32_t head
    cdef int width
    for index in range(count):
        item = <PyObject*> PyList_GET_ITEM(column, index)
        if TYPE(item) != <PyObject*> str:
            return None
        PyUnicode_READY(item)
        size += PyUnicode_GET_LENGTH(item) * PyUnicode_KIND(item)
        if size > most:
            return None
    if size >> 30:  # the lengths have 30 bits
        return None
    packed = begin(TEXTS, count, 4 * count + size)
    heads = PyBytes_AS_STRING(packed) + FIXED
    at = heads + 4 * count
    for index in range(count):
        item = <PyObject*> PyList_GET_ITEM(column, index)
        length, width = PyUnicode_GET_LENGTH(item), width_of(item)
        head = <uint32_t> (length << 2) | <uint32_t> width
        memcpy(heads + 4 * index, &head, 4)
        memcpy(at, PyUnicode_DATA(item), length * WIDTH[width])
        at += length * WIDTH[width]
    return packed


cdef bytes pack_tuples(list column, Py_ssize_t count, int depth):
    cdef Py_ssize_t width = PyTuple_GET_SIZE(<tuple> PyList_GET_ITEM(column, 0)), index, field, size = 1
    cdef PyObject* item
    cdef list fields = []
    cdef list one
    cdef bytes packed, part
    cdef char* at
    cdef uint32_t length
    if width == 0 or width > WIDEST or depth >= DEEPEST:
        return None
    for index in range(count):
        item = <PyObject*> PyList_GET_ITEM(column, index)
        if TYPE(item) != <PyObject*> tuple or PyTuple_GET_SIZE(<object> item) != width:
            return None
    one = PyList_New(count)
    for index in range(count):
        Py_INCREF(None)
        PyList_SET_ITEM(one, index, None)
    for field in range(width):
        for index in range(count):
            one[index] = <object> PyTuple_GET_ITEM(<object> PyList_GET_ITEM(column, index), field)
        part = pack(one, depth + 1)
        if part is None:
            return None
        fields.append(part)
        size += 4 + len(part)
    if size >> 31:
        return None
    packed = begin(TUPLES, count, size)
    at = PyBytes_AS_STRING(packed) + FIXED
    at[0] = <char> width
    at += 1
    for part in fields:
        length = <uint32_t> len(part)
        memcpy(at, &length, 4)
        memcpy(at + 4, PyBytes_AS_STRING(part), length)
        at += 4 + length
    return packed


cdef bytes pack(list column, int depth):
    cdef Py_ssize_t count = PyList_GET_SIZE(column)
    cdef PyObject* kind
    if count == 0 or count > LONGEST:
        return None
    kind = TYPE(<PyObject*> PyList_GET_ITEM(column, 0))
    if kind == <PyObject*> int:
        return pack_integers(column, count)
    if kind == <PyObject*> str:
        return pack_texts(column, count)
    if kind == <PyObject*> float:
        return pack_floats(column, count)
    if kind == <PyObject*> tuple:
        return pack_tuples(column, count, depth)
    if kind == <PyObject*> bool:
        return pack_bools(column, count)
    if <PyObject*> PyList_GET_ITEM(column, 0) == Py_None:
        return pack_nones(column, count)
    return None


def pack_column(list column not None):
    return pack(column, 0)


cdef inline object number_at(const char* at, Py_ssize_t index, uint8_t kind):
    """Row `index` of a column of integers or floats."""
    cdef int16_t two
    cdef int32_t four
    cdef int64_t eight
    cdef double real
    if kind == INTEGERS_4:
        memcpy(&four, at + 4 * index, 4)
        return PyLong_FromLong(four)
    if kind == INTEGERS_2:
        memcpy(&two, at + 2 * index, 2)
        return PyLong_FromLong(two)
    if kind == INTEGERS_1:
        return PyLong_FromLong((<const int8_t*> at)[index])
    if kind == FLOATS:
        memcpy(&real, at + 8 * index, 8)
        return PyFloat_FromDouble(real)
    memcpy(&eight, at + 8 * index, 8)
    return PyLong_FromLongLong(eight)


cdef list unpack_numbers(const char* at, Py_ssize_t count, uint8_t kind):
    cdef list column = PyList_New(count)
    cdef Py_ssize_t index
    cdef object item
    for index in range(count):
        item = number_at(at, index, kind)
        Py_INCREF(item)
        PyList_SET_ITEM(column, index, item)
    return column


cdef bint is_right_width(PyObject* text, Py_ssize_t length, int width) noexcept:
    """Whether a str has the form that its characters ask for: Python relies on there being one form of each."""
    cdef const void* data = PyUnicode_DATA(text)
    cdef Py_UCS4 most = 0, one
    cdef Py_ssize_t index
    if width <= 1:
        for index in range(length):
            one = (<const uint8_t*> data)[index]
            most = one if one > most else most
    elif width == 2:
        for index in range(length):
            one = (<const uint16_t*> data)[index]
            most = one if one > most else most
    else:
        for index in range(length):
            one = (<const Py_UCS4*> data)[index]
            most = one if one > most else most
    return most <= MOST[width] and (width == 0 or most > MOST[width - 1])


cdef list unpack_texts(const char* heads, Py_ssize_t count, const char* end):
    cdef list column = [None] * count
    cdef const char* at = heads + 4 * count
    cdef Py_ssize_t index, length, size
    cdef uint32_t head
    cdef object item
    for index in range(count):
        memcpy(&head, heads + 4 * index, 4)
        length = head >> 2
        size = length * WIDTH[head & 3]
        if size > end - at:
            raise FrameError(f"text {index} of {count} ends behind its column")
        item = PyUnicode_New(length, MOST[head & 3])
        if size:
            memcpy(PyUnicode_DATA(<PyObject*> item), at, size)
        if not is_right_width(<PyObject*> item, length, head & 3):
            raise FrameError(f"text {index} of {count} is not made of the characters that it says")
        column[index] = item
        at += size
    if at != end:
        raise FrameError(f"{end - at} bytes are left over behind a column of text")
    return column


cdef struct Field:
    const char* numbers  # where they lie; NULL for the other kinds, which are unpacked first
    uint8_t kind
    PyObject* column


cdef const char* find_fields(const char* at, const char* end, Py_ssize_t count, Field* fields, Py_ssize_t width, list kept, int depth) except NULL:
    """Fill in where each field comes from; where the last one ends."""
    cdef Py_ssize_t field
    cdef uint32_t length
    cdef list one
    for field in range(width):
        if end - at < 4:
            raise FrameError(f"field {field} of a column of tuples is missing")
        memcpy(&length, at, 4)
        at += 4
        if <Py_ssize_t> length > end - at:
            raise FrameError(f"field {field} of a column of tuples ends behind it")
        fields[field].numbers = numbers_in(at, at + length, count, &fields[field].kind)
        if fields[field].numbers == NULL:
            one = unpack(at, at + length, depth + 1)
            if PyList_GET_SIZE(one) != count:
                raise FrameError(f"field {field} of a column of tuples has {len(one)} rows, not {count}")
            kept.append(one)
            fields[field].column = <PyObject*> one
        at += length
    return at


cdef const char* numbers_in(const char* at, const char* end, Py_ssize_t count, uint8_t* kind) noexcept:
    """The numbers of a packed column of so many; NULL if it is anything else."""
    cdef uint32_t rows
    if end - at < FIXED:
        return NULL
    memcpy(&rows, at + 1, 4)
    kind[0] = <uint8_t> at[0]
    if rows != count or kind[0] < INTEGERS_1 or kind[0] > FLOATS:
        return NULL
    if end - at - FIXED != count * (8 if kind[0] == FLOATS else 1 << (kind[0] - 1)):
        return NULL
    return at + FIXED


cdef list unpack_tuples(const char* at, Py_ssize_t count, const char* end, int depth):
    cdef Field[64] fields
    cdef list kept = []
    cdef list column
    cdef Py_ssize_t width, field, index
    cdef object row, item
    if end - at < 1 or depth >= DEEPEST:
        raise FrameError("a column of tuples is damaged")
    width = <uint8_t> at[0]
    if width == 0 or width > WIDEST:
        raise FrameError(f"a column of tuples of {width} fields is damaged")
    if find_fields(at + 1, end, count, fields, width, kept, depth) != end:
        raise FrameError("a column of tuples does not end with its last field")
    column = [None] * count
    for index in range(count):
        row = PyTuple_New(width)
        for field in range(width):
            if fields[field].numbers != NULL:
                item = number_at(fields[field].numbers, index, fields[field].kind)
            else:
                item = <object> PyList_GET_ITEM(<list> fields[field].column, index)
            Py_INCREF(item)
            PyTuple_SET_ITEM(row, field, item)
        # Nothing in it can refer back to it: the collector, which would find that out itself, need not look.
        PyObject_GC_UnTrack(<PyObject*> row)
        column[index] = row
    return column


cdef list unpack(const char* at, const char* end, int depth):
    cdef Py_ssize_t size = end - at - FIXED, count, index
    cdef uint32_t rows
    cdef uint8_t kind
    cdef list column
    if size < 0:
        raise FrameError(f"a packed column of {end - at} bytes is too short")
    kind = <uint8_t> at[0]
    memcpy(&rows, at + 1, 4)
    count = rows
    at += FIXED
    if count > LONGEST:
        raise FrameError(f"a packed column of {count} rows is too long")
    if kind >= INTEGERS_1 and kind <= INTEGERS_8:
        check(size == count << (kind - 1), count, size)
        return unpack_numbers(at, count, kind)
    if kind == FLOATS:
        check(size == 8 * count, count, size)
        return unpack_numbers(at, count, kind)
    if kind == TEXTS:
        check(size >= 4 * count, count, size)
        return unpack_texts(at, count, end)
    if kind == TUPLES:
        check(size >= 5, count, size)
        return unpack_tuples(at, count, end, depth)
    if kind == BOOLS:
        check(size == count, count, size)
        return [at[index] != 0 for index in range(count)]
    if kind == NONES:
        check(size == 0, count, size)
        return [None] * count
    raise FrameError(f"unknown kind of column {kind}")


cdef int check(bint right, Py_ssize_t count, Py_ssize_t size) except -1:
    if not right:
        raise FrameError(f"a column of {count} rows cannot have {size} bytes")
    return 0


def unpack_column(packed) -> list:
    cdef Py_buffer view
    PyObject_GetBuffer(packed, &view, PyBUF_SIMPLE)
    try:
        return unpack(<const char*> view.buf, <const char*> view.buf + view.len, 0)
    finally:
        PyBuffer_Release(&view)


def same_field(list keys not None, list values not None) -> int:
    cdef Py_ssize_t count = PyList_GET_SIZE(keys), index, field = -1, width
    cdef PyObject* key
    cdef PyObject* value
    if count == 0 or PyList_GET_SIZE(values) != count:
        return -2
    key, value = <PyObject*> PyList_GET_ITEM(keys, 0), <PyObject*> PyList_GET_ITEM(values, 0)
    if key != value:
        if TYPE(value) != <PyObject*> tuple:
            return -2
        width = PyTuple_GET_SIZE(<object> value)
        field = 0
        while field < width and <PyObject*> PyTuple_GET_ITEM(<object> value, field) != key:
            field += 1
        if field == width:
            return -2
    for index in range(1, count):
        key, value = <PyObject*> PyList_GET_ITEM(keys, index), <PyObject*> PyList_GET_ITEM(values, index)
        if field < 0:
            if key != value:
                return -2
        elif TYPE(value) != <PyObject*> tuple or PyTuple_GET_SIZE(<object> value) <= field:
            return -2
        elif <PyObject*> PyTuple_GET_ITEM(<object> value, field) != key:
            return -2
    return <int> field


def take_field(list values not None, Py_ssize_t field) -> list:
    cdef Py_ssize_t count = PyList_GET_SIZE(values), index
    cdef PyObject* value
    cdef list column
    cdef object item
    if field < 0:
        return values[:]
    column = [None] * count
    for index in range(count):
        value = <PyObject*> PyList_GET_ITEM(values, index)
        if TYPE(value) != <PyObject*> tuple or PyTuple_GET_SIZE(<object> value) <= field:
            raise FrameError(f"row {index} has no field {field} to be its key")
        item = <object> PyTuple_GET_ITEM(<object> value, field)
        column[index] = item
    return column
