"""Memory that two processes share: mappings, and regions lent by one and given back by the other. The contract is in segment.pyi.

A flag is one 32-bit word, 1 while its region is lent. It is set by the lender (release: the content is written) and cleared by
the borrower (release: the content is read); each side looks with acquire. So each region has one writer at any time.
"""

import os

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport uint32_t, uintptr_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/mman.h>
    #ifndef MAP_POPULATE
    #define MAP_POPULATE 0
    #endif
    static int sage_give_up(void *address, size_t size) {
    #ifdef MADV_REMOVE
        return madvise(address, size, MADV_REMOVE);
    #else
        errno = ENOTSUP;
        return -1;
    #endif
    }
    static void *sage_map(int descriptor, long long offset, size_t size) {
        return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, (off_t) offset);
    }
    static int sage_map_failed(void *address) { return address == MAP_FAILED; }
    static inline void sage_store(uint32_t *flag, uint32_t value) { __atomic_store_n(flag, value, __ATOMIC_RELEASE); }
    static inline uint32_t sage_load(uint32_t *flag) { return __atomic_load_n(flag, __ATOMIC_ACQUIRE); }
    """
    int sage_give_up(void* address, size_t size) nogil
    void* sage_map(int descriptor, long long offset, size_t size) nogil
    int sage_map_failed(void* address) nogil
    int munmap(void* address, size_t size) nogil
    void sage_store(uint32_t* flag, uint32_t value) nogil
    uint32_t sage_load(uint32_t* flag) nogil

cdef long forks = 0


def _count_fork():
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_count_fork)


cdef class Mapping:
    """Part of a file, mapped shared. The contract is in segment.pyi."""

    def __cinit__(self, int descriptor, long long offset, Py_ssize_t size):
        cdef void* address
        self.address = NULL
        if size < 1:
            raise ValueError(f"cannot map {size} bytes")
        with nogil:
            address = sage_map(descriptor, offset, <size_t> size)
        if sage_map_failed(address):
            PyErr_SetFromErrno(OSError)
        self.address = <char*> address
        self.size = size

    def __dealloc__(self):
        if self.address != NULL:
            munmap(self.address, <size_t> self.size)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.address, self.size, 0, flags)

    def write(self, Py_ssize_t at, parts) -> int:
        cdef Py_buffer view
        if at < 0:
            raise ValueError(f"cannot write at byte {at}")
        for part in parts:
            PyObject_GetBuffer(part, &view, PyBUF_SIMPLE)
            try:
                if view.len > self.size - at:
                    raise ValueError(f"{view.len} bytes do not fit at byte {at} of {self.size}")
                memcpy(self.address + at, view.buf, <size_t> view.len)
                at += view.len
            finally:
                PyBuffer_Release(&view)
        return at

    def give_up_pages(self) -> None:
        if sage_give_up(self.address, <size_t> self.size):
            PyErr_SetFromErrno(OSError)

    cdef uint32_t* flag_at(self, Py_ssize_t flag) except NULL:
        if flag < 0 or flag >= self.size // 4:
            raise IndexError(f"no flag {flag}: there are {self.size // 4}")
        return (<uint32_t*> self.address) + flag

    def lend(self, Py_ssize_t flag) -> None:
        sage_store(self.flag_at(flag), 1)

    def give_back(self, Py_ssize_t flag) -> None:
        sage_store(self.flag_at(flag), 0)

    def is_lent(self, Py_ssize_t flag) -> bool:
        return sage_load(self.flag_at(flag)) != 0


@cython.no_gc  # it can be in no cycle, and a collector that cleared it first would lose the flag
cdef class Lease:
    """A lent region. The contract is in segment.pyi."""

    outlives_call = True

    def __cinit__(self, Mapping memory not None, Py_ssize_t start, Py_ssize_t size, Mapping flags not None, Py_ssize_t flag):
        if start < 0 or size < 0 or size > memory.size - start:
            raise ValueError(f"no bytes {start} to {start + size} in {memory.size}")
        flags.flag_at(flag)
        self.memory = memory
        self.start = start
        self.size = size
        self.flag = flag
        self.forks = forks
        self.flags = flags  # last: what was not made whole gives nothing back

    def __dealloc__(self):
        if self.flags is not None and self.forks == forks:
            sage_store((<uint32_t*> self.flags.address) + self.flag, 0)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory.address + self.start, self.size, 0, flags)


def is_aligned(buffer, Py_ssize_t boundary) -> bool:
    cdef Py_buffer view
    cdef bint aligned
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    aligned = view.len == 0 or (<uintptr_t> view.buf) % <uintptr_t> boundary == 0
    PyBuffer_Release(&view)
    return aligned
