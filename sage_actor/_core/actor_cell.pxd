"""C-level face of an actor's cell, for its ref."""

from sage_actor._core.actor_mailbox cimport ActorMailbox
from sage_actor._core.reply cimport Call, Reply, Request

cdef class Handler:
    cdef readonly object function
    cdef readonly str name
    cdef readonly bint plain
    cdef readonly str pool
    cdef readonly bint interruptible
    cdef readonly bint streaming


cdef class Cell(ActorMailbox):
    cdef readonly object context
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
    cdef dict apart
    cdef readonly bint killed
    cdef bint kill_sent
    cdef int turn_left
    cdef double turn_begun
    cdef Request plain_scope
    cdef bint unbegun
    cdef int begun_apart(self) except -1
    cdef readonly bint passive
    cdef unsigned long thread
    cdef double turn_seconds
    cdef object wheel
    cdef public object tracer
    cdef bint broken_off(self, object task, Call call, object message, object error) except -1
    cdef int begin_task(self) except -1
    cdef bint in_step(self, object task) except -1
    cdef int run_reentrant(self, Reply reply) except -1
    cdef int step(self) except -1
    cdef int serve(self) except -1
    cdef int deliver(self, object item) except -1
    cdef object invoke(self, Call call)
    cdef object invoke_receive(self, object message)
    cdef int finish(self, Call call, object message, object result) except -1
    cdef int fail_item(self, Call call, object message, object error) except -1
    cdef int after_step(self) except -1
    cdef bint can_inline(self, Handler handler) noexcept
    cdef bint run_inline(self, Reply reply) except -1
    cdef int cut_off(self) except -1
    cdef bint after_handler(self, Call call) except -1
    cdef int start_apart(self, object awaitable, Call call, object message) except -1

cdef Request request_of_caller()
cdef bint stands_for_its_parent(Request request) noexcept
cdef Cell cell_of_caller()
