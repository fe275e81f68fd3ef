"""ActorMailbox: what an actor's cell adds to a mailbox: signals, the stash, dead letters, and samples of how long messages wait.

The contract is in actor_mailbox.pyi. What empties it is in actor_cell.pyx.
"""

cimport cython
from libc.stdint cimport int64_t

from sage_actor._core.batch_queue cimport BatchQueue
from sage_actor._core.lane cimport Lane, PriorityLane
from sage_actor._core.reply cimport FAILED, PENDING, Call, Reply

from collections import deque

from sage_actor.errors import ActorStopped, BadCall, MailboxClosed, MailboxFull

cdef extern from *:
    """
    #include <time.h>
    static double sage_monotonic(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
    }
    """
    double sage_monotonic() noexcept
    Py_ssize_t PyList_GET_SIZE(list value) noexcept

cdef int DROP_OLD = 3

cdef object NOTHING_HERE = object()
nothing = NOTHING_HERE  # what take() answers when there is nothing; None is a message like any other

cdef dict STATES = {
    STARTING: "starting", RUNNING: "running", DRAINING: "draining", PAUSED: "restarting", STOPPING: "stopping", STOPPED: "stopped"
}


@cython.final
cdef class AskInLine:
    """An ask that waits for room: a coroutine that is driven by the futures it waits for, without a task."""

    def go_on(self, _) -> None:
        if self.steps is None:
            return
        try:
            future = self.steps.send(None)
        except StopIteration:
            self.steps = None
        except Exception as error:
            self.steps = None
            self.reply.settle(FAILED, error)
        else:
            future._asyncio_future_blocking = False
            future.add_done_callback(self.go_on)

    def give_up(self, _) -> None:
        if self.steps is not None:
            steps, self.steps = self.steps, None
            steps.close()  # leaves the line, and passes a wake-up on


cdef class ActorMailbox(BatchQueue):
    """An actor's mailbox. The contract is in actor_mailbox.pyi."""

    def __init__(
        self, str path, lifecycle, *, int64_t capacity, str overflow, priority=None, Py_ssize_t stash_capacity=1000, clock_monotonic=None
    ):
        BatchQueue.__init__(self, capacity, overflow=overflow, name=path)
        if priority is not None:
            self.lane = PriorityLane(path, capacity, 0)
            (<PriorityLane> self.lane).key = priority
        self.path = path
        self.lifecycle = lifecycle
        self.stash_capacity = stash_capacity
        self.message_in_hand = NOTHING_HERE
        self.stash_item = NOTHING_HERE
        self.clock_monotonic = clock_monotonic

    cdef int kick(self) except -1:
        """There is something to do: what empties the mailbox sees to it."""
        return 0

    cdef double now(self):
        return sage_monotonic() if self.clock_monotonic is None else self.clock_monotonic()

    def bind(self, ref) -> None:
        self.ref = ref

    def take_leftovers(self) -> list:
        """Everything that was accepted and will not be handled, oldest first."""
        cdef list left = []
        self.flush()
        if self.stash is not None:
            left.extend(self.stash)
            self.stash = None
        if self.replayed is not None:
            left.extend(self.replayed)
            self.replayed = None
        while self.lane.count:
            self.taken += 1
            left.append(self.lane.pop())
        self.control = []
        return left

    def has_mail(self) -> bool:
        """Whether a message or signal waits that could be begun next; what is stashed does not count."""
        return self.has_items()

    cdef bint has_items(self) noexcept:
        return self.lane.count > 0 or PyList_GET_SIZE(self.control) > 0 or bool(self.replayed)

    cdef int enqueue(self, object item, int64_t nbytes) except -1:
        self.lane.push(item, 1, nbytes, False)
        self.accepted += 1
        if self.lane.count == 1:
            self.none_older_than = self.now()
        if self.probe_number == 0 and (self.accepted & 63) == 0:
            self.probe_number = self.lane.count
            self.probe_at = self.now()
        if self.waiter is not None:
            self.wake()
        return 0

    cdef int discard(self, object item) except -1:
        if self.probe_number > 0 and self.policy == DROP_OLD:
            self.probe_number -= 1
        self.refuse(item, "the mailbox was full")
        return 0

    async def submit_when_room(self, item) -> bool:
        try:
            return await self.put(item)
        except MailboxClosed:
            self.turn_away(item)
            return False

    cdef int turn_away(self, object item) except -1:
        """A message that was not accepted, because the actor takes none any more."""
        if type(item) is Reply:
            (<Reply> item).settle(FAILED, ActorStopped(self.path, self.lifecycle.why_closed()))
        else:
            self.lifecycle.dead_letter(item, self.lifecycle.why_closed())
        return 0

    cdef int put_in_line(self, Reply reply) except -1:
        """An ask waits for room, its place in the line taken now."""
        cdef AskInLine waiting = AskInLine.__new__(AskInLine)
        waiting.reply = reply
        waiting.steps = self.submit_when_room(reply)
        waiting.go_on(None)
        if waiting.steps is not None:
            reply.add_done_callback(waiting.give_up)
        return 0

    cdef int accept_handed_over(self, object entry) except -1:
        if self.is_closed:
            return self.turn_away(entry[0])
        try:
            return BatchQueue.accept_handed_over(self, entry)
        except BadCall as error:  # its priority; the thread that sent it is gone
            self.accepted += 1
            self.dropped += 1
            self.refuse(entry[0], error.problem)
        return 0

    cdef int wake(self) except -1:
        if self.waiter is not None:
            self.waiter = None
            self.kick()
        return 0

    def signal(self, handler, tuple arguments):
        """Put a call of a hook into the control lane; answers it, so that it can be revoked."""
        cdef Call call = Call(self, handler, arguments)
        call.signal = True
        if self.state < STOPPING:
            self.add_control(call)
            if self.waiter is not None:
                self.wake()
        return call

    cdef object take(self):
        cdef Lane lane = self.lane
        if PyList_GET_SIZE(self.control):
            return self.control.pop(0)
        if self.replayed:
            return self.replayed.popleft()
        if PyList_GET_SIZE(self.handed_over):
            self.flush()
        if lane.count == 0:
            return NOTHING_HERE
        item = lane.pop()
        self.taken += 1
        if self.probe_number:
            self.probe_number -= 1
            if self.probe_number == 0:
                self.probe_taken_at = self.now()
                self.none_older_than = self.probe_at
        return item

    cdef int refuse_in_hand(self, Call call, object message, str reason) except -1:
        self.put_down(message)
        if self.stash_item is message:
            self.stash_item = NOTHING_HERE
        if call is None or not call.signal:
            self.refuse(message, reason)
        return 0

    cdef int put_down(self, object message) except -1:
        """It is not in hand any more; another one may be, whose handler waits meanwhile."""
        if self.message_in_hand is message:
            self.message_in_hand = NOTHING_HERE
            self.call_in_hand = None
            self.asking = None
        return 0

    cdef int refuse(self, object item, str reason) except -1:
        """An accepted message that will not be handled."""
        cdef Reply reply
        if type(item) is Call and (<Call> item).signal:
            return 0
        self.dead_lettered += 1
        if type(item) is Reply:
            reply = <Reply> item
            reply.finished = True
            if reply.state == PENDING:
                if reason == "the mailbox was full":
                    reply.settle(FAILED, MailboxFull(self.path, self.lane.capacity))
                else:
                    reply.settle(FAILED, ActorStopped(self.path, reason))
        self.lifecycle.dead_letter(item, reason)
        return 0

    def refuse_leftover(self, item, str reason) -> None:
        self.refuse(item, reason)

    def unstash(self) -> int:
        cdef Py_ssize_t count
        if not self.stash:
            return 0
        count = len(self.stash)
        if self.replayed is None:
            self.replayed = deque()
        self.replayed.extendleft(reversed(self.stash))
        self.stash = None
        if self.waiter is not None:
            self.wake()
        return count

    cdef int probe_done(self) except -1:
        taken_at, self.probe_taken_at = self.probe_taken_at, 0.0
        self.lifecycle.sample(taken_at - self.probe_at, self.now() - taken_at)
        return 0

    @property
    def queued(self) -> int:
        return self.lane.count

    @property
    def stashed(self) -> int:
        return (len(self.stash) if self.stash is not None else 0) + (len(self.replayed) if self.replayed is not None else 0)

    @property
    def state_name(self) -> str:
        return STATES[self.state]

    def queued_since(self) -> float:
        """A time on the clock before which no waiting message was sent; 0.0 if none waits."""
        return self.none_older_than if self.lane.count else 0.0

    def pending_messages(self) -> list:
        """What waits in the mailbox, oldest first, still waiting."""
        cdef Lane lane = self.lane
        cdef list found = [] if self.replayed is None else list(self.replayed)
        if isinstance(lane, PriorityLane):
            found.extend([entry[2] for entry in sorted((<PriorityLane> lane).heap, key=lambda entry: entry[:2])])
        else:
            for index in range(lane.count):
                found.append(lane.slots[(lane.head + index) & (lane.size - 1)])
        return found
