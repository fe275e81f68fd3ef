from libc.stdint cimport int64_t

from sage_actor._core.lane cimport Lane


cdef class Mailbox:
    cdef str name
    cdef bint is_closed
    cdef object loop
    cdef object waiter
    cdef list control
    cdef list handed_over
    cdef bint flush_scheduled
    cdef object __weakref__
    cdef int64_t accepted, taken, dropped
    cdef bint has_items(self) noexcept
    cdef int check_open(self) except -1
    cdef int wake(self) except -1
    cdef int add_control(self, object item) except -1
    cdef int hand_over(self, object entry) except -1
    cdef int flush(self) except -1
    cdef int accept_handed_over(self, object entry) except -1
    cdef object park(self)


cdef class QueueStatistics:
    cdef readonly int64_t accepted, taken, queued, dropped, queued_bytes, control, waiting_putters


cdef class BatchQueue(Mailbox):
    cdef Lane lane
    cdef int policy
    cdef bint offer(self, object item, int64_t nbytes) except -1
    cdef int enqueue(self, object item, int64_t nbytes) except -1
    cdef int discard(self, object item) except -1


cdef class Gate(Mailbox):
    cdef list lanes
    cdef int* ready
    cdef int* scratch
    cdef int channels, ready_head, ready_count
    cdef int64_t queued_records, queued_bytes
    cdef Lane lane_of(self, Py_ssize_t channel)
    cdef int enqueue(self, Lane lane, Py_ssize_t channel, object item, int64_t records, int64_t nbytes, bint stops) except -1
    cdef void make_ready(self, int channel) noexcept
    cdef void discard_ready(self, int channel) noexcept
