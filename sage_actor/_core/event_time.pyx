"""Columns of watermarks, computed and combined in C. The contracts are in event_time.pyi."""

from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact

cdef extern from "Python.h":
    object PyLong_FromLongLong(long long number)

cdef long long LEAST = -9223372036854775807LL - 1


cdef long long number_at(list column, Py_ssize_t index) except? -1:
    cdef object value = column[index]
    cdef int overflow = 0
    cdef long long number
    if not PyLong_CheckExact(value):
        raise TypeError(f"a timestamp is a whole number of milliseconds, not {value!r}", index)
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        raise TypeError(f"a timestamp must fit into 64 bits, and {value!r} does not", index)
    return number


def running_watermarks(list timestamps not None, long long delay, long long watermark, long long limit) -> tuple:
    cdef Py_ssize_t index, size = len(timestamps)
    cdef long long timestamp, certain
    cdef object shown = PyLong_FromLongLong(watermark)
    cdef list column = [None] * size
    for index in range(size):
        timestamp = number_at(timestamps, index)
        column[index] = shown
        if timestamp <= limit and timestamp > LEAST + delay:
            certain = timestamp - delay - 1
            if certain > watermark:
                watermark = certain
                shown = PyLong_FromLongLong(certain)
    return column, watermark


def combined_watermarks(list column not None, long long others, long long least) -> list:
    cdef Py_ssize_t index, size = len(column)
    cdef long long value
    cdef object most, floor
    cdef list combined
    if size == 0 or (number_at(column, size - 1) <= others and number_at(column, 0) >= least):
        return column
    if others < least:
        others = least
    most, floor = PyLong_FromLongLong(others), PyLong_FromLongLong(least)
    combined = [None] * size
    for index in range(size):
        value = number_at(column, index)
        combined[index] = most if value >= others else floor if value <= least else column[index]
    return combined
