"""C-level face of an actor's mailbox, for the cell that empties it and the ref that fills it."""

from libc.stdint cimport int64_t

from sage_actor._core.batch_queue cimport BatchQueue
from sage_actor._core.reply cimport Call, Reply

cdef enum:
    STARTING = 0
    RUNNING = 1
    DRAINING = 2
    PAUSED = 3
    STOPPING = 4
    STOPPED = 5


cdef class AskInLine:
    cdef object steps
    cdef Reply reply


cdef class ActorMailbox(BatchQueue):
    cdef readonly str path
    cdef readonly object lifecycle
    cdef readonly object ref
    cdef readonly int state
    cdef object replayed
    cdef list stash
    cdef Py_ssize_t stash_capacity
    cdef object message_in_hand
    cdef object stash_item
    cdef Call call_in_hand
    cdef Reply asking
    cdef readonly int64_t handled, failed, dead_lettered, expected_errors
    cdef readonly object clock_monotonic
    cdef double probe_at, probe_taken_at, none_older_than
    cdef int64_t probe_number
    cdef double now(self)
    cdef int turn_away(self, object item) except -1
    cdef int put_in_line(self, Reply reply) except -1
    cdef int put_down(self, object message) except -1
    cdef int kick(self) except -1
    cdef object take(self)
    cdef int refuse(self, object item, str reason) except -1
    cdef int refuse_in_hand(self, Call call, object message, str reason) except -1
    cdef int probe_done(self) except -1
