"""The loop of the interval join over its buffer, in C: one look-up per record, two searches, and an append. The contract is in
interval_join.pyi."""

cimport cython
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int64_t

from sage_actor._core.join_buffer cimport JoinBuffer, Side, Slot, minus, plus


cdef inline tuple pair_of(object first, object second):
    pair = PyTuple_New(2)
    Py_INCREF(first)
    PyTuple_SET_ITEM(pair, 0, first)
    Py_INCREF(second)
    PyTuple_SET_ITEM(pair, 1, second)
    return pair


@cython.final
cdef class IntervalJoin(JoinBuffer):

    def __init__(self, deleted, int64_t lower, int64_t upper):
        # No right record at or before l + upper, and no left one at or before r - lower, comes once the watermark is there.
        JoinBuffer.__init__(self, deleted, (upper, minus(0, lower)))
        self.lower = lower
        self.upper = upper
        self.late = []

    def run(self, int side, list keys, list values, list times, list watermarks, Py_ssize_t start, Py_ssize_t most,
            list pairs, list pair_times, list pair_watermarks):
        cdef Py_ssize_t index, at, low, high, made = len(pairs)
        cdef int64_t time, watermark, bound
        cdef Slot slot
        cdef Side other
        cdef object stamp, mark, value, partner
        for index in range(start, len(keys)):
            self.index = index
            stamp = times[index]
            mark = watermarks[index]
            time = stamp
            watermark = mark
            if watermark >= self.next_due:
                self.expire(watermark, 64)
            if time <= watermark:
                self.late.append(index)
                continue
            slot = self.slot_of(keys[index])
            value = values[index]
            if side == 0:
                other = slot.second
                low = other.first_from(plus(time, self.lower))
                high = other.first_after(plus(time, self.upper))
                bound = self.bound_first
            else:
                other = slot.first
                low = other.first_from(minus(time, self.upper))
                high = other.first_after(minus(time, self.lower))
                bound = self.bound_second
            at = low + self.offset
            while at < high:
                if made >= most:
                    self.offset = at - low
                    return index
                partner = other.values[at]
                pairs.append(pair_of(value, partner) if side == 0 else pair_of(partner, value))
                pair_times.append(stamp if time >= other.times[at] else other.times[at])
                pair_watermarks.append(mark)
                made += 1
                at += 1
            self.offset = 0
            if plus(time, bound) > watermark:
                self.place(slot, side, time, self.next_number, value)
                self.next_number += 1
            else:
                self.forget_if_empty(slot)
        return len(keys)
