"""Lane: a bounded FIFO, and the line of putters that wait for room in it. What mailboxes and gates are made of.

How waiting works. A putter that finds no room parks in the line and *keeps its item*; a drain wakes as many putters from the
front of the line as its room admits, and each enqueues when it resumes. So a cancelled put has never put, and a putter
cancelled between wake and resume only has to pass the wake on. Nobody overtakes the line: while it is not empty, `put_nowait`
answers "full".
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t

from asyncio import get_running_loop
from collections import deque
from heapq import heappop, heappush

from sage_actor.errors import MailboxClosed

cdef extern from *:
    """
    /* Lanes are rings over a Python list, so that the cycle collector sees what waits in them; free slots are NULL. */
    static inline void sage_slot_put(PyObject *slots, Py_ssize_t at, PyObject *item) {
        Py_INCREF(item);
        PyList_SET_ITEM(slots, at, item);
    }
    static inline PyObject *sage_slot_take(PyObject *slots, Py_ssize_t at) {
        PyObject *item = PyList_GET_ITEM(slots, at);
        PyList_SET_ITEM(slots, at, NULL);
        return item;
    }
    static inline void sage_slot_move(PyObject *from, Py_ssize_t source, PyObject *to, Py_ssize_t target) {
        PyList_SET_ITEM(to, target, PyList_GET_ITEM(from, source));
        PyList_SET_ITEM(from, source, NULL);
    }
    """
    void slot_put "sage_slot_put"(list slots, Py_ssize_t at, object item)
    object slot_take "sage_slot_take"(list slots, Py_ssize_t at)
    void slot_move "sage_slot_move"(list source, Py_ssize_t at, list target, Py_ssize_t to)
    list PyList_New(Py_ssize_t size)
    Py_ssize_t PyList_GET_SIZE(list value)


cdef int resolve(object future) except -1:
    if not future.done():
        try:
            future.set_result(None)
        except RuntimeError:
            pass  # its loop has been closed: nobody will resume there, and its coroutine cleans up when it is collected
    return 0


@cython.final
cdef class Putter:
    """One parked put: what it needs, and whether it has been woken."""

    cdef object future
    cdef int64_t records, nbytes
    cdef bint woken


@cython.no_gc_clear  # clearing would turn `slots` into None under a finalizer that still uses the lane; the list clears itself
cdef class Lane:
    """A bounded FIFO with the line of putters that wait for room in it."""

    def __cinit__(self, str name, int64_t capacity, int64_t capacity_bytes):
        self.name = name
        self.capacity = capacity
        self.capacity_bytes = capacity_bytes
        self.slots = []  # room is made with the first push

    def __dealloc__(self):
        PyMem_Free(self.weights)

    cdef bint fits(self, int64_t records, int64_t nbytes) noexcept:
        # an empty lane accepts anything: one oversized item always passes
        return self.records + self.nbytes == 0 or (
            self.records + records <= self.capacity
            and (self.capacity_bytes == 0 or self.nbytes + nbytes <= self.capacity_bytes)
        )

    cdef int grow(self) except -1:
        cdef Py_ssize_t size = self.size * 2 if self.size else 8, at
        cdef list slots = PyList_New(size)
        cdef Weight* weights = <Weight*> PyMem_Malloc(size * sizeof(Weight))
        if weights == NULL:
            raise MemoryError
        for at in range(self.count):
            slot_move(self.slots, (self.head + at) & (self.size - 1), slots, at)
            weights[at] = self.weights[(self.head + at) & (self.size - 1)]
        PyMem_Free(self.weights)
        self.weights = weights
        self.slots = slots
        self.size = size
        self.head = 0
        return 0

    cdef int push(self, object item, int64_t records, int64_t nbytes, bint stops) except -1:
        cdef Py_ssize_t at
        cdef Weight* weight
        if self.count == self.size:
            self.grow()
        if PyList_GET_SIZE(self.slots) != self.size:  # the collector has cleared it: the mailbox is garbage
            return 0
        at = (self.head + self.count) & (self.size - 1)
        slot_put(self.slots, at, item)
        weight = self.weights + at
        weight.records = records
        weight.nbytes = nbytes
        weight.stops = stops
        self.count += 1
        self.records += records
        self.nbytes += nbytes
        return 0

    cdef object pop(self):
        cdef Py_ssize_t at = self.head
        self.head = (at + 1) & (self.size - 1)
        self.count -= 1
        self.records -= self.weights[at].records
        self.nbytes -= self.weights[at].nbytes
        return slot_take(self.slots, at)

    cdef list pop_many(self, Py_ssize_t amount):
        cdef list out = PyList_New(amount)
        cdef Py_ssize_t index, at, mask = self.size - 1, head = self.head
        for index in range(amount):
            at = (head + index) & mask
            slot_move(self.slots, at, out, index)
            self.records -= self.weights[at].records
            self.nbytes -= self.weights[at].nbytes
        self.head = (head + amount) & mask
        self.count -= amount
        return out

    cdef int drop_all(self) except -1:
        cdef list dropped = self.slots  # kept to the end: destroying items can run any code, also code that looks here
        self.slots = PyList_New(self.size)
        self.head = 0
        self.count = 0
        self.records = 0
        self.nbytes = 0
        return 0

    cdef int wake_putters(self) except -1:
        """Wake the putters at the front of the line whose items fit all together."""
        cdef Putter putter
        cdef list woken = None
        cdef int64_t had_records = self.records, had_nbytes = self.nbytes
        if not self.waiters:
            return 0
        for entry in self.waiters:
            putter = <Putter> entry
            if putter.future.cancelled():
                continue  # it leaves the line on its next turn
            if not self.fits(putter.records, putter.nbytes):
                break
            self.records += putter.records  # reserved, for the sake of the next one in this loop
            self.nbytes += putter.nbytes
            if not putter.woken:
                putter.woken = True
                if woken is None:
                    woken = []
                woken.append(putter.future)
        self.records = had_records
        self.nbytes = had_nbytes
        if woken is not None:  # only now: under a closed loop, resolving destroys the putter's task, which leaves the line
            for future in woken:
                resolve(future)
        return 0

    cdef int evict_dead(self) except -1:
        """Take out of the line whoever waits on a loop that has been closed under it: it will never resume."""
        cdef list dead = [putter for putter in self.waiters if (<Putter> putter).future.get_loop().is_closed()]
        for putter in dead:
            self.leave(putter)
        for putter in dead:
            resolve((<Putter> putter).future)
        return 0

    cdef int pass_on(self) except -1:
        """After an admitted put: the next in line may have resumed too early and parked again although there is room."""
        if self.waiters and not (<Putter> self.waiters[0]).woken:
            self.wake_putters()
        return 0

    cdef int leave(self, object putter) except -1:
        if self.waiters and self.waiters[0] is putter:
            self.waiters.popleft()
        elif putter in self.waiters:  # else it has been evicted
            self.waiters.remove(putter)
        return 0

    cdef int close(self) except -1:
        """Wake everyone in line to a MailboxClosed."""
        self.closed = True
        for putter in list(self.waiters or ()):
            resolve((<Putter> putter).future)
        return 0

    async def room(self, int64_t records, int64_t nbytes):
        """Return when it is the caller's turn and its item fits; the caller enqueues at once, without another await."""
        cdef Putter putter = Putter.__new__(Putter)
        cdef bint admitted = False
        loop = get_running_loop()
        putter.records = records
        putter.nbytes = nbytes
        if self.waiters is None:
            self.waiters = deque()
        elif self.waiters and (<Putter> self.waiters[0]).future.get_loop().is_closed():
            self.evict_dead()
            if not self.waiters and self.fits(records, nbytes):
                return
        putter.future = loop.create_future()
        self.waiters.append(putter)
        self.waiting += 1
        try:
            while True:
                await putter.future
                if self.closed:
                    raise MailboxClosed(self.name)
                if self.waiters[0] is putter and self.fits(records, nbytes):
                    admitted = True
                    return
                putter.woken = False
                putter.future = loop.create_future()
        finally:
            self.waiting -= 1
            self.leave(putter)
            if not admitted:
                self.wake_putters()


@cython.final
@cython.no_gc_clear
cdef class PriorityLane(Lane):
    """A lane that gives the least key first; among equal keys the one pushed first. The key of an item is asked for once."""

    def __cinit__(self, str name, int64_t capacity, int64_t capacity_bytes):
        self.heap = []

    cdef int push(self, object item, int64_t records, int64_t nbytes, bint stops) except -1:
        heappush(self.heap, (<double> self.key(item), self.number, item, records, nbytes))  # a number, or nothing is pushed
        self.number += 1
        self.count += 1
        self.records += records
        self.nbytes += nbytes
        return 0

    cdef object pop(self):
        key, number, item, records, nbytes = heappop(self.heap)
        self.count -= 1
        self.records -= <int64_t> records
        self.nbytes -= <int64_t> nbytes
        return item

    cdef list pop_many(self, Py_ssize_t amount):
        return [self.pop() for _ in range(amount)]

    cdef int drop_all(self) except -1:
        self.heap = []
        Lane.drop_all(self)
        return 0
