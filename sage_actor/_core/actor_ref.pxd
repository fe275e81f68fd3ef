"""C-level face of refs."""

from sage_actor._core.actor_cell cimport Cell
from sage_actor._core.reply cimport Reply, Request


cdef class ActorRef:
    cdef readonly Cell cell
    cdef object __weakref__
    cdef object handler_named(self, object message, bint has_arguments)
    cdef object item_of(self, object message, object arguments, object options)
    cdef object tell_item(self, object item, bint waits)
    cdef Reply ask_item(self, object message, object handler, object arguments, object options, object timeout)
    cdef object no_method(self, object message)
    cdef bint hand_over(self, object item) except -1
    cdef bint joins(self, Reply reply, Request parent) except -1
