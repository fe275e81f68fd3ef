"""C-level face of requests: for the actor's cell and its ref."""

cdef enum:
    PENDING = 0
    ANSWERED = 1
    FAILED = 2
    CANCELLED = 3


cdef class Request:
    cdef readonly object target
    cdef readonly Request parent
    cdef readonly bint finished
    cdef readonly double deadline
    cdef public object span
    cdef bint is_abandoned(self) noexcept


cdef class Call(Request):
    cdef readonly object handler
    cdef readonly object message
    cdef readonly dict options
    cdef readonly bint revoked
    cdef readonly bint signal


cdef class Reply(Call):
    cdef public bint _asyncio_future_blocking
    cdef readonly int state
    cdef bint handled
    cdef bint interrupted
    cdef object value
    cdef object loop
    cdef object callback
    cdef object callback_context
    cdef list further_callbacks
    cdef dict bucket
    cdef double asked_at
    cdef object __weakref__
    cdef int settle(self, int state, object value) except -1
    cdef object failure(self)
    cdef int when_done(self, object callback, object context) except -1
    cdef int schedule(self, object callback, object context) except -1


cdef class Accepted:
    pass


cdef Accepted ACCEPTED

cdef bint raised_at_the_call(object error, object function)
