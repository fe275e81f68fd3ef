# cython: language_level=3, boundscheck=False, wraparound=False
"""Pools of reusable objects: batches, envelopes, numpy buffers. Only for objects that no user function can keep.

User callables (create, reset, nbytes) and destructors may re-enter a pool or let another thread in; the free lists and
their accounts change together, between such calls.
"""

import types

from cpython.bytearray cimport PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport PyObject

cdef extern from "Python.h":
    ctypedef struct PyByteArrayObject:
        Py_ssize_t ob_exports

# Buffers of 64 bytes (class 0), 128, 256 ... up to 2**46: more than any machine has.
cdef int SMALLEST = 6
cdef int CLASSES = 41

cdef object numpy = None


class PoolStatistics:
    """Counters of one pool at one moment; returned = reused + discarded + free, always."""

    __slots__ = ("created", "reused", "returned", "discarded", "free", "free_bytes")

    def __init__(self, created, reused, returned, discarded, free, free_bytes):
        self.created = created
        self.reused = reused
        self.returned = returned
        self.discarded = discarded
        self.free = free
        self.free_bytes = free_bytes

    def __repr__(self):
        return "PoolStatistics(" + ", ".join(f"{name}={getattr(self, name)}" for name in self.__slots__) + ")"


cdef inline bint is_last(list free, object item) noexcept:
    cdef Py_ssize_t size = PyList_GET_SIZE(free)
    return size > 0 and <PyObject *>PyList_GET_ITEM(free, size - 1) is <PyObject *>item


cdef object given_twice(object item):
    return ValueError(f"a {type(item).__name__} was given to its pool twice; give each object once, when nobody uses it any more")


cdef class ObjectPool:
    """A bounded free list. See the stub for the contract."""

    def __init__(self, create, *, reset=None, capacity=256, nbytes=None, capacity_bytes=0):
        if not callable(create):
            raise TypeError(f"create must be callable, not {create!r}")
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity!r}")
        if capacity_bytes < 0:
            raise ValueError(f"capacity_bytes must be 0 (unbounded) or more, not {capacity_bytes!r}")
        if capacity_bytes and nbytes is None:
            raise ValueError("capacity_bytes needs nbytes, the function that measures an object")
        self._create = create
        self._reset = reset
        self._nbytes = nbytes
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes

    def __cinit__(self, *arguments, **options):
        self._free = []
        self._sizes = []

    def __reduce__(self):
        raise TypeError("an ObjectPool cannot be pickled or copied: it belongs to one process; create it where it is used")

    __class_getitem__ = classmethod(types.GenericAlias)

    cpdef object take(self):
        cdef Py_ssize_t size
        if PyList_GET_SIZE(self._free) == 0:
            item = self._create()
            self._created += 1
            return item
        if self._nbytes is not None:
            size = self._sizes.pop()
            self._free_bytes -= size
        self._reused += 1
        return self._free.pop()

    cpdef give(self, item):
        cdef Py_ssize_t size = 0
        if is_last(self._free, item):
            raise given_twice(item)
        if PyList_GET_SIZE(self._free) < self._capacity:
            try:
                if self._reset is not None:
                    self._reset(item)
                if self._nbytes is not None:
                    size = self._nbytes(item)
                    if size < 0:
                        raise ValueError(f"nbytes() answered {size} for a {type(item).__name__}; a size is 0 or more")
            except BaseException:
                # An object in an unknown state is not handed out again.
                self._returned += 1
                self._discarded += 1
                raise
            # Asked again: reset and nbytes may have let others give.
            if is_last(self._free, item):
                raise given_twice(item)
            if PyList_GET_SIZE(self._free) < self._capacity and (
                self._capacity_bytes == 0 or self._free_bytes + size <= self._capacity_bytes
            ):
                if self._nbytes is not None:
                    self._sizes.append(size)
                    self._free_bytes += size
                self._free.append(item)
                self._returned += 1
                return
        self._returned += 1
        self._discarded += 1

    def clear(self):
        cdef list free = []
        cdef list sizes = []
        cdef list dropped = self._free
        self._free = free
        self._sizes = sizes
        self._free_bytes = 0
        self._discarded += PyList_GET_SIZE(dropped)

    def __len__(self):
        return PyList_GET_SIZE(self._free)

    def statistics(self):
        return PoolStatistics(
            self._created, self._reused, self._returned, self._discarded, PyList_GET_SIZE(self._free), self._free_bytes
        )


cdef inline int size_class(Py_ssize_t nbytes) noexcept:
    """Index of the smallest class that holds nbytes, CLASSES if none does."""
    cdef int index = 0
    while index < CLASSES and (<Py_ssize_t>1 << (SMALLEST + index)) < nbytes:
        index += 1
    return index


cdef class BufferPool:
    """Byte buffers and numpy arrays by power-of-two size classes. See the stub for the contract."""

    def __init__(self, *, capacity_bytes=64 << 20):
        if capacity_bytes < 1:
            raise ValueError(f"capacity_bytes must be at least 1, not {capacity_bytes!r}")
        self._capacity_bytes = capacity_bytes

    def __cinit__(self, *arguments, **options):
        self._classes = [[] for _ in range(CLASSES)]

    def __reduce__(self):
        raise TypeError("a BufferPool cannot be pickled or copied: it belongs to one process; create it where it is used")

    cpdef bytearray take(self, Py_ssize_t nbytes):
        cdef int index
        cdef list free
        if nbytes < 0:
            raise ValueError(f"a buffer cannot have {nbytes} bytes")
        index = size_class(nbytes)
        if index == CLASSES:
            raise MemoryError(f"no buffer of {nbytes} bytes: the largest size class is 2**{SMALLEST + CLASSES - 1}")
        free = <list>self._classes[index]
        if PyList_GET_SIZE(free) == 0:
            buffer = PyByteArray_FromStringAndSize(NULL, <Py_ssize_t>1 << (SMALLEST + index))
            self._created += 1
            return buffer
        self._free_bytes -= <Py_ssize_t>1 << (SMALLEST + index)
        self._free_count -= 1
        self._reused += 1
        return <bytearray>free.pop()

    def take_array(self, shape, dtype="float64"):
        global numpy
        if numpy is None:
            import numpy
        element = numpy.dtype(dtype)
        if element.hasobject:
            raise ValueError(f"dtype {element} holds references to objects, which an uninitialised buffer cannot; allocate it with numpy.empty")
        # A Python integer: it does not overflow before take() refuses it.
        count = 1
        for extent in shape:
            if extent < 0:
                raise ValueError(f"an array cannot have the shape {shape!r}")
            count *= extent
        # Unlike ndarray(buffer=...), frombuffer holds an export: the buffer cannot be resized under the array.
        return numpy.frombuffer(self.take(count * element.itemsize), element, count).reshape(shape)

    cpdef give(self, buffer):
        cdef Py_ssize_t size
        cdef int index
        cdef list free
        cdef bytearray data
        if type(buffer) is bytearray:
            data = <bytearray>buffer
            shown = (<PyByteArrayObject *>data).ob_exports != 0
        else:
            data = buffer_under(buffer)
            # One export is the array's own. Another (a view somebody made) or a second array over the buffer is not.
            shown = (<PyByteArrayObject *>data).ob_exports > 1
        size = PyByteArray_GET_SIZE(data)
        index = size_class(size)
        if index == CLASSES or size != <Py_ssize_t>1 << (SMALLEST + index):
            raise ValueError(f"a buffer of {size} bytes is not from this pool (sizes are powers of two); give what take() answered, not resized")
        free = <list>self._classes[index]
        if is_last(free, data):
            raise given_twice(buffer)
        self._returned += 1
        if shown or self._free_bytes + size > self._capacity_bytes:
            self._discarded += 1
            return
        free.append(data)
        self._free_bytes += size
        self._free_count += 1

    def clear(self):
        cdef list classes = [[] for _ in range(CLASSES)]
        cdef list dropped = self._classes
        self._classes = classes
        self._discarded += self._free_count
        self._free_bytes = 0
        self._free_count = 0

    def statistics(self):
        return PoolStatistics(self._created, self._reused, self._returned, self._discarded, self._free_count, self._free_bytes)


cdef bytearray buffer_under(object array):
    """The pooled bytearray under an array from take_array (or under a reshaped or sliced view of it)."""
    cdef object base = array
    cdef int depth
    for depth in range(64):
        if type(base) is bytearray:
            return <bytearray>base
        base = base.obj if type(base) is memoryview else getattr(base, "base", None)
        if base is None:
            break
    raise ValueError(f"a {type(array).__name__} that is not from this pool cannot be given to it; give what take() or take_array() answered")
