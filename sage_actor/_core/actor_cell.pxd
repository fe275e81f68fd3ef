"""C-level face of an actor's cell, for its ref."""

from libc.stdint cimport int64_t

from sage_actor._core.batch_queue cimport BatchQueue
from sage_actor._core.reply cimport Call, Reply, Request

cdef enum:
    STARTING = 0
    RUNNING = 1
    DRAINING = 2
    PAUSED = 3
    STOPPING = 4
    STOPPED = 5


cdef class Handler:
    cdef readonly object function
    cdef readonly str name
    cdef readonly bint plain
    cdef readonly str pool
    cdef readonly bint interruptible
    cdef readonly bint streaming


cdef class Cell(BatchQueue):
    cdef readonly str path
    cdef readonly object lifecycle
    cdef readonly object ref
    cdef readonly object context
    cdef readonly int state
    cdef readonly object actor
    cdef object receive
    cdef object behaviour
    cdef list behaviours
    cdef readonly dict handlers
    cdef readonly bint reentrant
    cdef readonly Py_ssize_t concurrency
    cdef readonly Py_ssize_t active
    cdef bint scheduled
    cdef readonly bint busy
    cdef bint in_plain
    cdef bint inline_asks
    cdef object turn_callback
    cdef object task
    cdef object parked
    cdef object pending
    cdef Request scope
    cdef object message_in_hand
    cdef Call call_in_hand
    cdef object stash_item
    cdef dict apart
    cdef readonly bint killed
    cdef readonly bint passive
    cdef object replayed
    cdef list stash
    cdef Py_ssize_t stash_capacity
    cdef unsigned long thread
    cdef double turn_seconds
    cdef readonly int64_t handled, failed, dead_lettered, expected_errors
    cdef readonly object clock_monotonic
    cdef double probe_at, probe_taken_at
    cdef int64_t probe_number
    cdef object wheel
    cdef public object tracer
    cdef double now(self)
    cdef bint broken_off(self, object task, Call call, object message, object error) except -1
    cdef int refuse_in_hand(self, Call call, object message, str reason) except -1
    cdef int begin_task(self) except -1
    cdef bint in_step(self, object task) except -1
    cdef int run_reentrant(self, Reply reply) except -1
    cdef bint submit(self, object item) except -1
    cdef int kick(self) except -1
    cdef object take(self)
    cdef int refuse(self, object item, str reason) except -1
    cdef int step(self) except -1
    cdef int serve(self) except -1
    cdef int deliver(self, object item) except -1
    cdef object invoke(self, Call call)
    cdef int finish(self, Call call, object message, object result) except -1
    cdef int fail_item(self, Call call, object message, object error) except -1
    cdef int after_step(self) except -1
    cdef bint can_inline(self, Handler handler) noexcept
    cdef int run_inline(self, Reply reply) except -1
    cdef int probe_done(self) except -1
    cdef int start_apart(self, object awaitable, Call call, object message) except -1

cdef Request request_of_caller()
cdef Cell cell_of_caller()
