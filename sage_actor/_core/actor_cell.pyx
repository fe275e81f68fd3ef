"""Cell: the mailbox of one actor and the loop that empties it, one message at a time.

As long as no handler has to wait, a cell needs no task: it empties itself in a callback of the event loop, in the actor's own
context. The first handler that waits gets the cell a long-lived task, which from then on does the emptying. What happens at the
ends of a life (start, failure, restart, stop) is decided in Python, by the cell's `lifecycle`; a cell only says when.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from sage_actor._core.actor_mailbox cimport DRAINING, PAUSED, RUNNING, STARTING, STOPPED, STOPPING, ActorMailbox
from sage_actor._core.reply cimport ANSWERED, FAILED, PENDING, Call, Reply, Request, raised_at_the_call

from asyncio import CancelledError, InvalidStateError, current_task, sleep
from contextvars import ContextVar

from sage_actor._core.actor_mailbox import nothing
from sage_actor.errors import AskAbandoned, BadCall, MailboxFull

cdef extern from *:
    """
    static inline int sage_is_awaitable(PyObject *value) {
        PyAsyncMethods *slots = Py_TYPE(value)->tp_as_async;
        return slots != NULL && slots->am_await != NULL;
    }
    /* function(actor, *arguments, **options), without building a tuple for a few arguments */
    static PyObject *sage_call_method(PyObject *function, PyObject *actor, PyObject *arguments, PyObject *options) {
        Py_ssize_t count = PyTuple_GET_SIZE(arguments), index;
        PyObject *all, *result;
        if (options == Py_None && count < 7) {
            PyObject *stack[9];
            stack[0] = NULL;
            stack[1] = actor;
            for (index = 0; index < count; index++) stack[index + 2] = PyTuple_GET_ITEM(arguments, index);
            return PyObject_Vectorcall(function, stack + 1, (size_t) (count + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        }
        all = PyTuple_New(count + 1);
        if (all == NULL) return NULL;
        Py_INCREF(actor);
        PyTuple_SET_ITEM(all, 0, actor);
        for (index = 0; index < count; index++) {
            PyObject *argument = PyTuple_GET_ITEM(arguments, index);
            Py_INCREF(argument);
            PyTuple_SET_ITEM(all, index + 1, argument);
        }
        result = PyObject_Call(function, all, options == Py_None ? NULL : options);
        Py_DECREF(all);
        return result;
    }
    """
    object sage_call_method(object function, object actor, object arguments, object options)
    bint sage_is_awaitable(object value) noexcept
    object PyObject_CallOneArg(object function, object argument)
    Py_ssize_t PyList_GET_SIZE(list value) noexcept
    int PyContextVar_Get(object variable, PyObject *default, PyObject **value) except -1
    object PyContextVar_Set(object variable, object value)
    int PyContext_Enter(object context) noexcept
    int PyContext_Exit(object context) except -1
    void PyErr_Clear() noexcept
    void Py_XDECREF(PyObject *value) noexcept
    unsigned long PyThread_get_thread_ident() noexcept

# The request on whose behalf code runs, or the cell whose code it is; None outside of actors.
cdef object CURRENT = ContextVar("sage_actor_request", default=None)
current_request_variable = CURRENT

cdef object NOTHING = nothing
cdef object WAKE = object()  # stands in `waiter` while the cell is idle: the next message wakes it

cdef int TURN_MESSAGES = 1024
cdef int INLINE_DEPTH = 8  # inline asks nest on the C stack
cdef int inline_depth = 0


cdef Request request_of_caller():
    """On whose behalf the running code works: the request of the handler it belongs to, or None."""
    cdef PyObject *found = NULL
    cdef Request request = None
    cdef Cell cell
    PyContextVar_Get(CURRENT, NULL, &found)
    value = <object> found
    Py_XDECREF(found)
    if value is None:
        return None
    if type(value) is Cell:
        cell = <Cell> value
    else:
        request = <Request> value
        cell = <Cell> request.target
    if cell.in_plain and cell.thread == PyThread_get_thread_ident():
        if cell.call_in_hand is not None:
            return cell.call_in_hand
        if cell.plain_scope is None:  # a plain message: it gets a request when somebody asks for it
            cell.plain_scope = Request(cell)
        return cell.plain_scope
    return None if request is None or request.finished else request


cdef Cell cell_of_caller():
    """The actor whose handler, or task begun by a handler, is running; None outside of actors."""
    cdef PyObject *found = NULL
    PyContextVar_Get(CURRENT, NULL, &found)
    value = <object> found
    Py_XDECREF(found)
    if value is None or type(value) is Cell:
        return <Cell> value
    return <Cell> (<Request> value).target


cdef bint stands_for_its_parent(Request request) noexcept:
    """Whether it is what an async handler's context holds in place of the ask that it handles."""
    return type(request) is Request and type(request.parent) is Reply and request.parent.target is request.target


def current_request():
    cdef Request request = request_of_caller()
    return request.parent if request is not None and stands_for_its_parent(request) else request


def current_cell():
    return cell_of_caller()


@cython.final
cdef class Handler:
    """One method of an actor class that messages may name. The contract is in actor_cell.pyi."""

    def __init__(self, function, str name, *, bint plain, pool=None, bint interruptible=False, bint streaming=False):
        self.function = function
        self.name = name
        self.plain = plain
        self.pool = pool
        self.interruptible = interruptible
        self.streaming = streaming


@cython.final
cdef class Cell(ActorMailbox):
    """One actor's mailbox and the loop that empties it. The contract is in actor_cell.pyi."""

    def __init__(
        self, str path, loop, context, lifecycle, *, int64_t capacity, str overflow, priority=None,
        Py_ssize_t stash_capacity=1000, Py_ssize_t concurrency=1, bint reentrant=False, bint inline_asks=True, clock_monotonic=None,
        wheel=None,
    ):
        ActorMailbox.__init__(
            self, path, lifecycle, capacity=capacity, overflow=overflow, priority=priority, stash_capacity=stash_capacity,
            clock_monotonic=clock_monotonic,
        )
        self.loop = loop
        self.context = context
        self.concurrency = concurrency
        self.reentrant = reentrant
        self.inline_asks = inline_asks
        self.thread = PyThread_get_thread_ident()
        self.turn_seconds = 0.002 if clock_monotonic is None else 0.0  # another clock than the machine's: turns by count alone
        self.wheel = wheel
        context.run(CURRENT.set, self)

    def __repr__(self):
        return f"<cell {self.path!r} {self.state_name}>"

    def install(self, actor, receive, dict handlers) -> None:
        """A new instance takes over; the cell runs when `run` is called."""
        self.actor = actor
        self.receive = receive
        self.behaviour = None if receive is None else self.lifecycle.handler_of(receive)
        self.behaviours = None
        self.handlers = handlers

    def run(self) -> None:
        """Serve messages from now on, those that wait first."""
        if self.state == STARTING or self.state == PAUSED:
            self.state = DRAINING if self.is_closed else RUNNING
            if self.state == RUNNING and self.task is None and not self.busy and not self.has_items() and not self.handed_over:
                self.waiter = WAKE  # no turn for nothing
            else:
                self.kick()

    def pause(self) -> None:
        """No message is begun until `run`; mail is kept."""
        if self.state < STOPPING:
            self.state = PAUSED

    def sleep_until_mail(self) -> None:
        """The instance has been let go; the next message or signal has the lifecycle make a new one."""
        self.state = PAUSED
        self.actor = self.receive = self.behaviour = None
        self.passive = True
        self.waiter = WAKE
        if self.has_items():
            self.wake()

    def drain_and_refuse(self) -> None:
        """Take no new mail; what is queued is still served, then the lifecycle is told that all is quiet."""
        self.close()
        if self.state == RUNNING:
            self.state = DRAINING
        if not self.busy:
            self.kick()

    def stop_serving(self) -> None:
        """Begin no message any more. The running handler may end."""
        self.close()
        if self.state < STOPPING:
            self.state = STOPPING

    def ended(self) -> None:
        """The last state. What is left is refused; the task ends."""
        self.state = STOPPED
        self.behaviour = self.receive = self.actor = None
        self.waiter = None
        self.turn_callback = None  # breaks the circle
        if self.parked is not None:
            parked, self.parked = self.parked, None
            if not parked.done():
                parked.set_result(None)

    def kill(self) -> None:
        """Interrupt the running handlers. Their messages are refused; the actor must have stopped serving."""
        self.killed = True
        if self.busy and self.task is not None and not self.kill_sent:
            self.kill_sent = True
            self.task.cancel()
        if self.apart:
            for task in list(self.apart):
                task.cancel()

    def revive(self) -> None:
        """After handlers were interrupted for a restart, serve again as before."""
        self.killed = False

    def idle(self) -> bool:
        """No handler runs, and nothing waits that could be served now."""
        if self.busy or self.scheduled or self.active:
            return False
        return self.state >= PAUSED or (not self.has_items() and self.lane.waiting == 0)

    def quiescent(self) -> bool:
        """No handler runs."""
        return not self.busy and self.active == 0

    cdef int kick(self) except -1:
        """See to it that a turn comes."""
        if self.scheduled or self.state >= STOPPING:
            return 0
        if self.passive:
            self.passive = False
            self.lifecycle.wake_up()
            return 0
        if self.parked is not None:
            parked, self.parked = self.parked, None
            self.scheduled = True
            try:
                parked.set_result(None)
            except InvalidStateError:
                pass  # the task has been cancelled there
        elif self.task is None and not self.busy:
            self.scheduled = True
            if self.turn_callback is None:
                self.turn_callback = self.turn
            self.loop.call_soon(self.turn_callback, context=self.context)
        return 0

    def turn(self) -> None:
        cdef int status = -1
        self.scheduled = False
        if self.busy or self.task is not None:
            return
        self.busy = True
        self.waiter = None
        self.turn_left = TURN_MESSAGES
        self.turn_begun = 0.0
        try:
            status = self.step()
        finally:
            if status != 1:
                self.busy = False
            if status == 2 or status == -1:
                self.kick()
        if status == 1:
            self.begin_task()
        elif status == 0:
            self.waiter = WAKE
            self.after_step()

    cdef int after_step(self) except -1:
        if self.state >= DRAINING and not self.busy and self.active == 0:
            self.lifecycle.quiet()
        return 0

    cdef int step(self) except -1:
        """Handle messages until one has to be awaited (1), nothing is left to do (0), or the turn is over (2)."""
        cdef int status
        try:
            status = self.serve()
        finally:
            if self.lane.waiting:
                self.lane.wake_putters()  # once a step: they resume only when it is over
        return status

    cdef int serve(self) except -1:
        while self.state == RUNNING or self.state == DRAINING:
            if self.concurrency > 1 and (self.active >= self.concurrency or self.unbegun):
                return 0
            if self.turn_left <= 0:
                return 2 if self.has_items() else 0
            item = self.take()
            if item is NOTHING:
                return 0
            # Counted over all steps of a turn: handlers that are awaited, but never wait, must not keep the loop to themselves.
            self.turn_left -= 1
            if self.turn_left & 31 == 0 and self.turn_seconds > 0:
                if self.turn_begun == 0.0:
                    self.turn_begun = self.now()
                elif self.now() - self.turn_begun > self.turn_seconds:
                    self.turn_left = 0
            if self.deliver(item):
                return 1
        return 0

    cdef object invoke(self, Call call):
        cdef Handler handler = call.handler
        if handler is None:
            return self.invoke_receive(call.message)
        if handler.pool is not None:
            return self.lifecycle.run_blocking(handler, self.actor, call.message, call.options)
        return sage_call_method(handler.function, self.actor, call.message, call.options)

    cdef object invoke_receive(self, object message):
        if self.receive is None:
            raise BadCall(self.path, f"{type(self.actor).__name__} has no `receive`; name one of its methods")
        if (<Handler> self.behaviour).pool is not None:
            return self.lifecycle.run_blocking(self.behaviour, self.actor, (message,), None)
        return PyObject_CallOneArg(self.receive, message)

    cdef int deliver(self, object item) except -1:
        """Handle one message. 1 if its handler has to be awaited: then `pending` holds what."""
        cdef Call call = None
        cdef Reply reply
        if type(item) is Reply or type(item) is Call:
            call = <Call> item
            if type(item) is Reply:
                reply = <Reply> item
                if reply.state != PENDING:
                    self.refuse(reply, "its caller gave up")
                    return 0
                if reply.parent is not None and reply.parent.is_abandoned():
                    reply.settle(FAILED, AskAbandoned(self.path))
                    self.refuse(reply, "its caller gave up")
                    return 0
                reply.handled = True
                if reply.span is not None:
                    reply.span.handling(reply)
            elif call.revoked:
                return 0
        self.call_in_hand = call
        self.message_in_hand = item
        self.in_plain = True
        try:
            if call is not None:
                result = self.invoke(call)
            else:
                result = self.invoke_receive(item)
        except BaseException as error:
            self.in_plain = False
            self.fail_item(call, item, error)
            if not isinstance(error, (Exception, CancelledError)):
                raise
            return 0
        self.in_plain = False
        if sage_is_awaitable(result):
            if self.concurrency > 1:
                self.start_apart(result, call, item)
                self.put_down(item)
                return 0
            self.pending = result
            return 1
        self.finish(call, item, result)
        return 0

    cdef int begin_task(self) except -1:
        self.task = self.loop.create_task(self.consume(), context=self.context, name=f"actor {self.path}")
        self.task.add_done_callback(self.task_done)
        return 0

    def task_done(self, task) -> None:
        """A task that was cancelled before its first step has run none of its own code."""
        if self.task is task:
            self.cut_off()

    cdef int cut_off(self) except -1:
        """The task ends between two handlers: by `kill`, or by a cancellation from outside, which ends the actor."""
        self.task = None
        self.parked = None
        self.scheduled = False
        self.kill_sent = False
        self.busy = False
        if self.pending is not None:
            awaitable, self.pending = self.pending, None
            if hasattr(awaitable, "close"):
                awaitable.close()
            self.refuse_in_hand(self.call_in_hand, self.message_in_hand, "it was interrupted")
        if not self.killed:
            self.lifecycle.task_cancelled()
        elif self.waiter is None and self.state < STOPPING:
            self.waiter = WAKE
        self.after_step()
        return 0

    async def consume(self) -> None:
        cdef int status = 1
        cdef Call call
        cdef Request request
        while True:
            if status == 1:
                call = self.call_in_hand
                message = self.message_in_hand
                awaitable, self.pending = self.pending, None
                if type(call) is Reply and (<Reply> call).interrupted:  # before its first step
                    if hasattr(awaitable, "close"):
                        awaitable.close()
                    self.refuse_in_hand(call, message, "its caller gave up")
                else:
                    if type(call) is Reply:
                        # Not the reply itself: the context would keep it, with its answer, until the next message.
                        request = Request.__new__(Request)
                        request.target = self
                        request.parent = call
                        request.deadline = call.deadline
                        request.span = call.span
                    elif self.plain_scope is not None:
                        request = self.plain_scope
                    else:
                        request = Request(self)
                    PyContextVar_Set(CURRENT, request)
                    try:
                        result = await awaitable
                    except BaseException as error:
                        awaitable = None
                        request.finished = True
                        request.parent = None
                        if self.broken_off(self.task, call, message, error):
                            self.task = None
                            self.busy = False
                            self.kill_sent = False
                            self.after_step()
                            if not self.killed or isinstance(error, (KeyboardInterrupt, SystemExit)):
                                raise
                            return
                    else:
                        request.finished = True
                        request.parent = None
                        self.finish(call, message, result)
                        if self.after_handler(call):
                            self.cut_off()
                            return
                awaitable = result = message = call = request = None
            else:
                try:
                    if status == 2:
                        await sleep(0)
                    else:
                        self.busy = False
                        self.waiter = WAKE
                        self.after_step()
                        if self.state == STOPPED:
                            return
                        if self.state >= PAUSED or not self.has_items():
                            self.parked = self.loop.create_future()
                            await self.parked
                            self.scheduled = False
                except CancelledError:
                    if self.task is not None:
                        self.cut_off()
                    if self.killed:
                        return
                    raise
                if self.state == STOPPED:
                    self.task = None
                    if self.pending is not None:
                        self.cut_off()
                    return
                self.waiter = None
                self.busy = True
                self.turn_left = TURN_MESSAGES
                self.turn_begun = 0.0
                if self.pending is not None:  # an inline ask turned out to have something to await
                    status = 1
                    continue
            status = self.step()

    cdef bint after_handler(self, Call call) except -1:
        """A handler has ended although its task was told to stop. Takes back what was meant for it; True if more was meant."""
        cdef object task = self.task
        if type(call) is Reply and (<Reply> call).interrupted and task.cancelling():
            task.uncancel()
        if self.kill_sent:
            self.kill_sent = False
            if task.cancelling():
                task.uncancel()
        return task.cancelling() > 0

    cdef bint broken_off(self, object task, Call call, object message, object error) except -1:
        """An awaited handler has raised. True if the task must end."""
        if isinstance(error, CancelledError):
            if self.killed:
                self.refuse_in_hand(call, message, "it was interrupted")
                return True
            if type(call) is Reply and (<Reply> call).interrupted:
                self.refuse_in_hand(call, message, "its caller gave up")
                if task.uncancel() == 0:
                    return False
                self.killed = True
                self.lifecycle.task_cancelled()
                return True
            if task.cancelling() > 0:
                self.killed = True
                self.refuse_in_hand(call, message, "its task was cancelled from outside")
                self.lifecycle.task_cancelled()
                return True
        self.fail_item(call, message, error)
        if task is self.task and self.after_handler(call):
            self.killed = True
            self.lifecycle.task_cancelled()
            return True
        return not isinstance(error, (Exception, CancelledError))

    cdef int start_apart(self, object awaitable, Call call, object message) except -1:
        cdef Request request
        if type(call) is Reply:
            request = call
        elif self.plain_scope is not None and self.concurrency > 1:
            request, self.plain_scope = self.plain_scope, None
        else:
            request = Request(self)
        # With concurrency, what stands behind it begins when it has taken its first step: they begin in the order sent.
        self.unbegun = self.concurrency > 1
        context = self.context.copy()
        context.run(CURRENT.set, request)
        if self.apart is None:
            self.apart = {}
        task = self.loop.create_task(self.run_apart(call, message, awaitable, request), context=context, name=f"actor {self.path}")
        self.apart[task] = [call, message, awaitable, False]
        task.add_done_callback(self.apart_done)
        self.active += 1
        return 0

    async def run_apart(self, Call call, message, awaitable, Request request) -> None:
        task = current_task()
        entry = self.apart[task]
        entry[2] = None  # it has begun
        self.begun_apart()
        try:
            result = await awaitable
        except BaseException as error:
            request.finished = True
            entry[3] = True
            if self.broken_off(task, call, message, error) and not self.killed:
                raise
        else:
            request.finished = True
            entry[3] = True
            self.finish(call, message, result)

    cdef int begun_apart(self) except -1:
        if self.unbegun:
            self.unbegun = False
            if self.has_items() and self.waiter is not None:
                self.wake()
        return 0

    def apart_done(self, task) -> None:
        entry = self.apart.pop(task)
        self.active -= 1
        call, message, awaitable, _ = entry
        if awaitable is not None:  # cancelled before its first step
            self.begun_apart()
            if hasattr(awaitable, "close"):
                awaitable.close()
            gave_up = type(call) is Reply and (<Reply> call).interrupted
            self.refuse_in_hand(call, message, "its caller gave up" if gave_up else "it was interrupted")
            if not self.killed and not gave_up:
                self.lifecycle.task_cancelled()
        if not task.cancelled():
            task.exception()  # KeyboardInterrupt and the like have been raised through the loop already
        if self.state < STOPPING and self.waiter is not None and self.has_items():
            self.wake()
        self.after_step()

    cdef int run_reentrant(self, Reply reply) except -1:
        """An ask that has come back around to an actor which allows that: handled at once, between the lines of the others."""
        cdef Call call = self.call_in_hand
        cdef object message = self.message_in_hand
        cdef object stash_item = self.stash_item
        cdef bint in_plain = self.in_plain
        context = self.context.copy()
        context.run(CURRENT.set, reply)
        self.accepted += 1
        self.taken += 1
        if PyContext_Enter(context) < 0:
            PyErr_Clear()
        try:
            awaits = self.deliver(reply)
        finally:
            PyContext_Exit(context)
            self.in_plain = in_plain
            self.call_in_hand = call
            self.message_in_hand = message
            self.stash_item = stash_item
        if awaits:
            awaitable, self.pending = self.pending, None
            self.start_apart(awaitable, reply, reply)
        return 0

    # -- out --

    cdef int finish(self, Call call, object message, object result) except -1:
        if self.plain_scope is not None and self.message_in_hand is message:
            self.plain_scope.finished = True
            self.plain_scope = None
        self.put_down(message)
        if self.stash_item is not NOTHING and self.stash_item is message:
            self.stash_item = NOTHING
            if self.stash is None:
                self.stash = []
            self.stash.append(message)
            if call is not None:
                call.finished = False
                if type(call) is Reply:
                    (<Reply> call).handled = False
            return 0
        if call is None:
            self.handled += 1
        else:
            call.finished = True
            if not call.signal:
                self.handled += 1
                if type(call) is Reply:
                    (<Reply> call).settle(ANSWERED, result)
            call.message = None  # the context of the last handler keeps the call; nobody shall keep what was sent
            call.options = None
        if self.probe_taken_at != 0.0:
            self.probe_done()
        return 0

    cdef int fail_item(self, Call call, object message, object error) except -1:
        cdef Handler handler = None if call is None else call.handler
        cdef bint asked = call is not None and type(call) is Reply
        if self.plain_scope is not None and self.message_in_hand is message:
            self.plain_scope.finished = True
            self.plain_scope = None
        self.put_down(message)
        if self.stash_item is message:
            self.stash_item = NOTHING
        self.probe_taken_at = 0.0
        if call is not None:
            call.finished = True
        if isinstance(error, TypeError) and not isinstance(error, BadCall) and handler is not None and not call.signal:
            if handler.pool != "process" and raised_at_the_call(error, handler.function):  # a process has its own frames
                cause, error = error, BadCall(self.path, str(error))
                error.__cause__ = cause
        if isinstance(error, BadCall) and error.actor == self.path and (call is None or not call.signal):
            if asked:
                (<Reply> call).settle(FAILED, error)
            self.refuse(message, error.problem)
            return 0
        if asked and isinstance(error, self.lifecycle.expected_errors):
            self.handled += 1
            self.expected_errors += 1
            (<Reply> call).settle(FAILED, error)
            return 0
        if call is None or not call.signal:
            self.handled += 1
        self.failed += 1
        doing = "receive" if handler is None else handler.name
        if asked:
            (<Reply> call).settle(FAILED, self.lifecycle.failure_of(error, doing))
        if self.state < PAUSED:
            self.state = PAUSED
        self.lifecycle.failed(error, doing)
        return 0

    def caller_gone(self, Reply reply) -> None:
        """The caller of a request that is being handled gave up."""
        cdef Handler handler = self.behaviour if reply.handler is None else reply.handler
        if handler is None or not handler.interruptible:
            return
        cdef object task = None
        if self.call_in_hand is reply:
            if self.pending is not None:  # its handler has not taken a step: the task will see
                reply.interrupted = True
                return
            task = self.task
        elif self.apart is not None:
            for other, entry in self.apart.items():
                if (<list> entry)[0] is reply:
                    task = other
        # Only while the handler is suspended: then the cancellation reaches it, and nothing else, at its next step.
        if task is not None and not reply.interrupted and not self.in_step(task):
            reply.interrupted = True
            task.cancel()

    cdef bint in_step(self, task) except -1:
        return current_task(self.loop) is task

    # -- inline --

    cdef bint can_inline(self, Handler handler) noexcept:
        if handler is None:
            handler = <Handler> self.behaviour
        return (
            self.inline_asks
            and self.state == RUNNING
            and not self.busy
            and not self.scheduled
            and handler is not None
            and handler.plain
            and self.active == 0
            and self.lane.count == 0
            and self.lane.waiting == 0
            and PyList_GET_SIZE(self.control) == 0
            and not self.replayed
            and not self.handed_over
            and inline_depth < INLINE_DEPTH
        )

    cdef bint run_inline(self, Reply reply) except -1:
        """Handle an ask on its caller's own stack, in the actor's context, if that can be entered. The actor is idle."""
        global inline_depth
        cdef int awaits = -1
        if PyContext_Enter(self.context) < 0:  # somebody runs in this very context
            PyErr_Clear()
            return False
        self.accepted += 1
        self.taken += 1
        self.busy = True
        inline_depth += 1
        try:
            awaits = self.deliver(reply)
        finally:
            inline_depth -= 1
            self.busy = awaits == 1
            PyContext_Exit(self.context)
            if awaits != 1 and self.waiter is None:  # it was told something meanwhile
                if self.has_items() and self.state < PAUSED:
                    self.kick()
                else:
                    self.waiter = WAKE
        if awaits == 1:
            self.waiter = None
            if self.task is None:
                self.begin_task()
            else:
                self.kick()
        elif self.state != RUNNING:
            self.after_step()
        return True

    def become(self, receive, bint keep) -> None:
        if keep:
            if self.behaviours is None:
                self.behaviours = []
            self.behaviours.append((self.receive, self.behaviour))
        self.receive = receive
        self.behaviour = self.lifecycle.handler_of(receive)

    def unbecome(self) -> bool:
        if not self.behaviours:
            return False
        self.receive, self.behaviour = self.behaviours.pop()
        return True

    def stash_current(self) -> None:
        if not self.in_plain and not (self.busy and self.in_step(self.task)):
            raise BadCall(self.path, "stash() is for the message whose handler runs, and not for handlers that run beside each other")
        if self.call_in_hand is not None and self.call_in_hand.signal:
            raise BadCall(self.path, "a timer's tick or another signal cannot be stashed")
        if (0 if self.stash is None else len(self.stash)) >= self.stash_capacity:
            raise MailboxFull(f"{self.path} (stash)", self.stash_capacity)
        self.stash_item = self.message_in_hand

    @property
    def in_hand(self) -> int:
        cdef Py_ssize_t count = 0
        if self.apart:
            for entry in self.apart.values():
                if not entry[3] and (entry[0] is None or not entry[0].signal):
                    count += 1
        if self.busy and self.message_in_hand is not NOTHING and (self.call_in_hand is None or not self.call_in_hand.signal):
            count += 1
        return count
