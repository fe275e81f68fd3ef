"""Requests to actors, and Reply: an ask under way, which is message, future and awaitable in one allocation.

A Reply speaks asyncio's future protocol (``_asyncio_future_blocking``), so tasks wait for it directly, and `gather`,
`wait` and `ensure_future` take it without a task around it. An answer that is there already costs no loop turn.
"""

cimport cython

from asyncio import CancelledError, InvalidStateError
from types import GenericAlias

cdef extern from "stack_method.h":
    int sage_add_method(object type, const char *name, void *function, const char *text) except -1

cdef extern from *:
    """
    /* await ends by StopIteration(value). Set raw, the interpreter takes the value without making an exception object; a tuple
       or an exception would be unpacked on the way, so those get one. */
    static void sage_stop_with(PyObject *value) {
        if (value == Py_None) return;  /* NULL without an exception means None */
        if (!PyTuple_Check(value) && !PyExceptionInstance_Check(value)) {
            PyErr_SetObject(PyExc_StopIteration, value);
            return;
        }
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
        if (stop == NULL) return;
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    static void sage_raise(PyObject *error) { PyErr_SetObject((PyObject *) Py_TYPE(error), error); }
    static PyObject *sage_context_names = NULL;
    static PyObject *sage_call_soon_name = NULL;
    static PyObject *sage_call_soon(PyObject *loop, PyObject *callback, PyObject *argument, PyObject *context) {
        PyObject *arguments[4] = {loop, callback, argument, context};
        if (sage_context_names == NULL) {
            sage_context_names = Py_BuildValue("(s)", "context");
            sage_call_soon_name = PyUnicode_InternFromString("call_soon");
            if (sage_context_names == NULL || sage_call_soon_name == NULL) return NULL;
        }
        return PyObject_VectorcallMethod(sage_call_soon_name, arguments, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, sage_context_names);
    }
    #define sage_set_iternext(type, function) (((PyTypeObject *)(type))->tp_iternext = (iternextfunc)(function))
    """
    ctypedef struct PyObject
    void sage_stop_with(PyObject *value) noexcept
    void sage_raise(PyObject *error) noexcept
    object sage_call_soon(object loop, object callback, object argument, object context)
    void sage_set_iternext(object type, void *function) noexcept
    object PyContext_CopyCurrent()
    void Py_INCREF(PyObject *value) noexcept
    void PyErr_SetObject(PyObject *type, PyObject *value) noexcept
    PyObject *PyExc_StopIteration
    PyObject *Py_True


@cython.freelist(64)
cdef class Request:
    """Something an actor does on somebody's behalf: who handles it, and for whom. The contract is in reply.pyi."""

    def __init__(self, target, Request parent=None):
        self.target = target
        self.parent = parent
        if parent is not None:
            self.deadline = parent.deadline

    cdef bint is_abandoned(self) noexcept:
        cdef Request request = self
        while request is not None:
            if type(request) is Reply and (<Reply> request).state >= FAILED and not request.finished:
                return True
            request = request.parent
        return False

    @property
    def abandoned(self) -> bool:
        return self.is_abandoned()

    def finish(self) -> None:
        self.finished = True


cdef class Call(Request):
    """A message for one handler of an actor, told or as a signal."""

    def __init__(self, target, handler, message, dict options=None):
        self.target = target
        self.handler = handler
        self.message = message
        self.options = options

    def revoke(self) -> None:
        self.revoked = True


@cython.final
cdef class Reply(Call):
    """An ask under way. The contract is in reply.pyi."""

    __class_getitem__ = classmethod(GenericAlias)

    cdef int schedule(self, object callback, object context) except -1:
        sage_call_soon(self.loop, callback, self, context)
        return 0

    cdef int settle(self, int state, object value) except -1:
        """The first settling wins; later ones change nothing."""
        cdef list further
        if self.state != PENDING:
            return 0
        self.state = state
        self.value = value
        if self.span is not None:
            self.span.settled(self)
        if self.bucket is not None:
            self.bucket.pop(self, None)
            self.bucket = None
        if self.callback is not None:
            callback, context = self.callback, self.callback_context
            self.callback = self.callback_context = None
            self.schedule(callback, context)
        if self.further_callbacks is not None:
            further, self.further_callbacks = self.further_callbacks, None
            for callback, context in further:
                self.schedule(callback, context)
        return 0

    def fail(self, error) -> None:
        self.settle(FAILED, error)

    def answer(self, value) -> None:
        self.settle(ANSWERED, value)

    def in_bucket(self, dict bucket) -> None:
        self.bucket = bucket
        bucket[self] = None

    # the future protocol

    def get_loop(self):
        return self.loop

    def done(self) -> bool:
        return self.state != PENDING

    def cancelled(self) -> bool:
        return self.state == CANCELLED

    def cancel(self, msg=None) -> bool:
        if self.state != PENDING:
            return False
        self.settle(CANCELLED, msg)
        if self.target is not None and self.handled:
            self.target.caller_gone(self)
        return True

    cdef object failure(self):
        if self.state == CANCELLED:
            return CancelledError() if self.value is None else CancelledError(self.value)
        return self.value

    def _make_cancelled_error(self):  # asyncio.gather asks for both
        return self.failure()

    @property
    def _cancel_message(self):
        return self.value if self.state == CANCELLED else None

    def result(self):
        if self.state == ANSWERED:
            return self.value
        if self.state == PENDING:
            raise InvalidStateError("this ask has no answer yet; await it")
        raise self.failure()

    def exception(self):
        if self.state == PENDING:
            raise InvalidStateError("this ask has no answer yet; await it")
        if self.state == CANCELLED:
            raise self.failure()
        return self.value if self.state == FAILED else None

    cdef int when_done(self, object callback, object context) except -1:
        if self.state != PENDING:
            self.schedule(callback, context)
        elif self.callback is None and self.further_callbacks is None:
            self.callback = callback
            self.callback_context = context
        else:
            if self.further_callbacks is None:
                self.further_callbacks = []
            self.further_callbacks.append((callback, context))
        return 0

    def remove_done_callback(self, callback) -> int:
        removed = 0
        if self.callback is not None and self.callback == callback:
            self.callback = self.callback_context = None
            removed += 1
        if self.further_callbacks is not None:
            kept = [entry for entry in self.further_callbacks if entry[0] != callback]
            removed += len(self.further_callbacks) - len(kept)
            self.further_callbacks = kept or None
        return removed

    def __await__(self):
        return self

    __iter__ = __await__

    def __next__(self):
        return None  # never runs: the type's slot is set to reply_next below

    def __repr__(self):
        state = ("pending", "answered", "failed", "cancelled")[self.state]
        return f"<Reply {state} of {self.target!r}>"


cdef PyObject *reply_next(PyObject *self) noexcept:
    cdef Reply reply = <Reply> self
    cdef object error
    if reply.state == ANSWERED:
        sage_stop_with(<PyObject *> reply.value)
        return NULL
    if reply.state != PENDING:
        try:
            error = reply.failure()
        except BaseException as other:  # no memory for the exception
            error = other
        sage_raise(<PyObject *> error)
        return NULL
    reply._asyncio_future_blocking = True
    Py_INCREF(self)
    return self


@cython.final
cdef class Accepted:
    """What a tell answers when there was room: awaiting it takes no time and answers True."""

    def __await__(self):
        return self

    def __next__(self):
        return None  # never runs: the type's slot is set to accepted_next below

    def __repr__(self):
        return "<accepted>"


cdef PyObject *accepted_next(PyObject *self) noexcept:
    PyErr_SetObject(PyExc_StopIteration, Py_True)
    return NULL


cdef object reply_add_done_callback(object self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    """(self, callback, *, context=None), from the interpreter's stack: every await of a task comes by here."""
    cdef object context
    if count != 1 or (names != NULL and (len(<tuple> names) != 1 or (<tuple> names)[0] != "context")):
        raise TypeError("add_done_callback(callback, *, context=None)")
    context = None if names == NULL else <object> arguments[1]
    (<Reply> self).when_done(<object> arguments[0], PyContext_CopyCurrent() if context is None else context)


sage_add_method(Reply, "add_done_callback", <void *> reply_add_done_callback, "Call back on a later turn of the loop when it is done.")
sage_set_iternext(Reply, <void *> reply_next)
sage_set_iternext(Accepted, <void *> accepted_next)

ACCEPTED = Accepted()
accepted = ACCEPTED


cdef bint raised_at_the_call(object error, object function):
    """Whether a TypeError comes from the call itself: no frame of the function has run."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is code:
            return False
        trace = trace.tb_next
    return True
