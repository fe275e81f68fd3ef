"""ActorRef: an actor's address, and how messages get from a caller into its cell. The contract is in actor_ref.pyi."""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM

from sage_actor._core.actor_cell cimport Cell, Handler, request_of_caller, stands_for_its_parent
from sage_actor._core.actor_mailbox cimport STOPPING
from sage_actor._core.reply cimport ACCEPTED, FAILED, PENDING, Call, Reply, Request

from types import GenericAlias

from sage_actor.durations import parse_duration
from sage_actor.errors import ActorError, ActorStopped, AskAbandoned, AskCycle, AskTimeout, BadCall, MailboxClosed, MailboxFull

cdef extern from "stack_method.h":
    int sage_add_method(object type, const char *name, void *function, const char *text) except -1

cdef extern from "Python.h":
    bint PyFunction_Check(object value) noexcept
    unsigned long PyThread_get_thread_ident() noexcept

cdef int WAIT = 0


@cython.final
cdef class Refused:
    """What a tell answers when the message went to the dead letters: awaiting it takes no time and answers False."""

    def __await__(self):
        return self

    def __next__(self):
        raise StopIteration(False)

    def __repr__(self):
        return "<refused>"


cdef Refused REFUSED = Refused()


cdef double seconds_of(object timeout) except -1:
    cdef double seconds
    if isinstance(timeout, str):
        seconds = parse_duration(timeout, key="ask timeout")
    else:
        seconds = timeout
    if not seconds >= 0.0:
        raise ActorError(f"ask: timeout={timeout!r} must be a duration, 0 or more")
    return seconds


cdef bint waits_for_caller(Cell cell) except -1:
    """Whether the actor handles a message whose handler is, or waits for, the one that calls here: waiting for it never ends."""
    cdef Request request = request_of_caller()
    while request is not None:
        if not request.finished and request.target is cell:
            return True
        request = request.parent
    return False


cdef object waits_in_circle(Cell asked, Cell asker):
    """The circle of actors, each awaiting the next one's answer for a request of its own, that an ask would close; or None.

    Only the last ask of each handler is seen, and only once it is awaited.
    """
    cdef Cell cell = asked
    cdef Reply asking
    cdef list paths = [asker.path, asked.path]
    while cell.busy and cell.concurrency == 1 and not cell.reentrant and len(paths) < 1000:
        asking = cell.asking
        if asking is None or asking.state != PENDING or (asking.callback is None and asking.further_callbacks is None):
            return None
        cell = <Cell> asking.target
        paths.append(cell.path)
        if cell is asker:
            return paths
    return None


cdef Py_ssize_t waits_in(Cell cell, Request request):
    """How many of the actor's handlers wait along this chain."""
    cdef Py_ssize_t count = 0
    while request is not None:
        if request.target is cell and not request.finished and not stands_for_its_parent(request):
            count += 1
        request = request.parent
    return count


cdef object cycle_through(Cell cell, Request request):
    """The paths around the cycle that an ask of `cell` on behalf of `request` would close; None if it closes none."""
    cdef Request earlier = request
    cdef list paths = [cell.path]
    while earlier is not None:
        if not earlier.finished and not stands_for_its_parent(earlier):
            paths.append((<Cell> earlier.target).path)
            if earlier.target is cell:
                return paths[::-1]
        earlier = earlier.parent
    return None


@cython.final
cdef class ActorRef:
    """An actor's address. The contract is in actor_ref.pyi."""

    __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, Cell cell not None):
        self.cell = cell

    @property
    def path(self) -> str:
        return self.cell.path

    @property
    def name(self) -> str:
        return self.cell.path.rpartition("/")[2]

    @property
    def alive(self) -> bool:
        return self.cell.state < STOPPING

    def __repr__(self):
        return f"ActorRef({self.cell.path!r})"

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError(f"the ref of actor {self.cell.path!r} cannot leave its process: send a name and look it up on the other side")

    cdef object handler_named(self, object message, bint has_arguments):
        """The handler that a method names; None for a message to `receive`."""
        cdef object handler = None
        if PyFunction_Check(message) and self.cell.handlers is not None:
            handler = self.cell.handlers.get(message)
        if handler is None:
            if has_arguments:
                raise self.no_method(message)
            return None
        if (<Handler> handler).streaming:
            raise BadCall(self.cell.path, f"{handler.name} yields its answer in parts; use `async for part in ref.stream(...)`")
        return handler

    cdef object item_of(self, object message, object arguments, object options):
        """What goes into the mailbox: the message itself, or a Call of one of the actor's methods."""
        cdef Call call
        cdef object handler = self.handler_named(message, bool(arguments) or options is not None)
        if handler is None:
            return message
        call = Call.__new__(Call)
        call.target = self.cell
        call.handler = handler
        call.message = arguments
        call.options = options
        return call

    cdef object no_method(self, object message):
        return BadCall(
            self.cell.path,
            f"{getattr(message, '__qualname__', repr(message))} is no method of its class, so no arguments can go with it; "
            "a message for `receive` goes alone",
        )

    cdef object tell_item(self, object item, bint waits):
        """Into the mailbox, or to the dead letters. With `waits` an awaitable, else whether it was accepted."""
        cdef Cell cell = self.cell
        cdef bint accepted
        if PyThread_get_thread_ident() != cell.thread:
            accepted = self.hand_over(item)
        elif cell.is_closed:
            cell.lifecycle.dead_letter(item, cell.lifecycle.why_closed())
            accepted = False
        elif cell.offer(item, 0):
            accepted = True
        elif cell.policy != WAIT:
            accepted = False
        elif not waits or waits_for_caller(cell):
            raise MailboxFull(cell.path, cell.lane.capacity)
        else:
            return cell.submit_when_room(item)
        if waits:
            return ACCEPTED if accepted else REFUSED
        return accepted

    cdef bint hand_over(self, object item) except -1:
        cdef Cell cell = self.cell
        if not cell.is_closed and not cell.loop.is_closed():
            try:
                cell.hand_over((item, 0))
                return True
            except MailboxClosed:
                pass
        cell.lifecycle.dead_letter(item, cell.lifecycle.why_closed())
        return False

    cdef Reply ask_item(self, object message, object handler, object arguments, object options, object timeout):
        """Start an ask; whatever is wrong with it stands in the reply, unless the call itself makes no sense."""
        cdef Cell cell = self.cell
        cdef Reply reply
        cdef Request parent
        cdef double deadline
        if PyThread_get_thread_ident() != cell.thread:
            raise ActorError(f"ask: actor {cell.path!r} lives on the event loop of another thread; ask it through `system.sync`")
        reply = Reply.__new__(Reply)
        reply.target = cell
        reply.loop = cell.loop
        reply.handler = handler
        reply.message = message if handler is None else arguments
        reply.options = options
        if cell.tracer is not None:
            reply.span = cell.tracer.asked(reply, request_of_caller())
        if cell.is_closed:
            reply.settle(FAILED, ActorStopped(cell.path, cell.lifecycle.why_closed()))
            return reply
        parent = request_of_caller()
        if parent is not None and not self.joins(reply, parent):
            return reply
        if timeout is not None:
            deadline = cell.now() + seconds_of(timeout)
            if deadline == 0.0:  # a clock may begin there, and 0.0 means none
                deadline = 1e-300
            if reply.deadline == 0.0 or deadline < reply.deadline:
                reply.deadline = deadline
        if cell.can_inline(<Handler> handler) and cell.run_inline(reply):
            if reply.deadline != 0.0 and reply.state == PENDING:
                reply.asked_at = cell.now()
                cell.wheel.add(reply, reply.deadline)
            return reply
        if reply.deadline != 0.0:
            reply.asked_at = cell.now()
            cell.wheel.add(reply, reply.deadline)
        if parent is not None and cell.reentrant and cycle_through(cell, parent) is not None:
            cell.run_reentrant(reply)
            return reply
        try:
            if not cell.offer(reply, 0) and cell.policy == WAIT:
                cell.put_in_line(reply)
        except (MailboxFull, BadCall) as refused:  # BadCall: of the priority
            reply.settle(FAILED, refused)
        return reply

    def ask_handler(self, Handler handler not None, tuple arguments not None, timeout=None):
        return self.ask_item(None, handler, arguments, None, timeout)

    def stream(self, method, /, *arguments, int demand=16, **options):
        cdef Cell cell = self.cell
        cdef object handler = None
        if PyFunction_Check(method) and cell.handlers is not None:
            handler = cell.handlers.get(method)
        if handler is None or not (<Handler> handler).streaming:
            name = getattr(method, "__qualname__", repr(method))
            raise BadCall(cell.path, f"{name} is no async generator method of its class; use `await ref.ask(...)` for a single answer")
        if demand < 1:
            raise BadCall(cell.path, f"demand={demand} must be at least 1: so many parts may be on their way")
        return cell.lifecycle.open_stream(handler, arguments, options or None, demand)

    cdef bint joins(self, Reply reply, Request parent) except -1:
        """Ties an ask to the request on whose behalf it is made. False if it is settled already."""
        cdef Cell cell = self.cell
        reply.parent = parent
        reply.deadline = parent.deadline
        if parent.is_abandoned():
            reply.settle(FAILED, AskAbandoned(cell.path))
            return False
        if not cell.reentrant:
            cycle = cycle_through(cell, parent)
            if cycle is not None and (cell.concurrency == 1 or waits_in(cell, parent) >= cell.concurrency):
                reply.settle(FAILED, AskCycle(cycle))
                return False
        if (<Cell> parent.target).concurrency == 1 and (<Cell> parent.target).busy:  # with a free slot it can still answer
            if not cell.reentrant:
                cycle = waits_in_circle(cell, <Cell> parent.target)
                if cycle is not None:
                    reply.settle(FAILED, AskCycle(cycle))
                    return False
            (<Cell> parent.target).asking = reply
        return True


def expire(Reply reply, double now) -> None:
    """The deadline of an ask has passed."""
    cdef Cell cell = reply.target
    cdef str doing = "receive" if reply.handler is None else reply.handler.name
    reply.settle(FAILED, AskTimeout(cell.path, now - reply.asked_at, doing))
    if reply.handled:
        cell.caller_gone(reply)


# The methods below take (self, arguments, their number, names of keyword arguments), as the interpreter lays them out.

cdef object first_of(PyObject **arguments, Py_ssize_t count, str method):
    if count < 1:
        raise TypeError(f"ActorRef.{method}() needs a message, or a method of the actor and its arguments")
    return <object> arguments[0]


cdef tuple rest_of(PyObject **arguments, Py_ssize_t count):
    cdef Py_ssize_t index
    cdef tuple rest = PyTuple_New(count - 1)
    for index in range(1, count):
        argument = <object> arguments[index]
        Py_INCREF(argument)
        PyTuple_SET_ITEM(rest, index - 1, argument)
    return rest


cdef dict options_of(PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef dict options
    cdef Py_ssize_t index = count
    if names == NULL:
        return None
    options = {}
    for name in <tuple> names:
        options[name] = <object> arguments[index]
        index += 1
    return options


cdef object ref_tell(object self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef object item = first_of(arguments, count, "tell")
    if count > 1 or names != NULL or PyFunction_Check(item):
        item = (<ActorRef> self).item_of(item, rest_of(arguments, count), options_of(arguments, count, names))
    elif type(item) is Reply or type(item) is Call:
        item = Call((<ActorRef> self).cell, None, item)  # a message like any other, not one of our own making
    return (<ActorRef> self).tell_item(item, True)


cdef object ref_tell_nowait(object self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef object item = first_of(arguments, count, "tell_nowait")
    if count > 1 or names != NULL or PyFunction_Check(item):
        item = (<ActorRef> self).item_of(item, rest_of(arguments, count), options_of(arguments, count, names))
    elif type(item) is Reply or type(item) is Call:
        item = Call((<ActorRef> self).cell, None, item)
    return (<ActorRef> self).tell_item(item, False)


cdef object ref_ask(object self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef ActorRef ref = <ActorRef> self
    cdef object message = first_of(arguments, count, "ask")
    cdef object timeout = None
    cdef object handler = None
    cdef dict options = None
    if names != NULL:
        options = options_of(arguments, count, names)
        timeout = options.pop("timeout", None)
        if not options:
            options = None
    if count > 1 or options is not None or PyFunction_Check(message):
        handler = ref.handler_named(message, count > 1 or options is not None)
    return ref.ask_item(message, handler, None if handler is None else rest_of(arguments, count), options, timeout)


sage_add_method(ActorRef, "tell", <void *> ref_tell, "Send; awaiting it waits for room, and answers whether the message was accepted.")
sage_add_method(ActorRef, "tell_nowait", <void *> ref_tell_nowait, "Send without waiting; answers whether the message was accepted.")
sage_add_method(ActorRef, "ask", <void *> ref_ask, "Send, and await the answer.")
