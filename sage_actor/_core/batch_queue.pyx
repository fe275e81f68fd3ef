"""BatchQueue, a bounded two-lane mailbox; Gate, a task's inbox of many credited channels. Contracts: batch_queue.pyi.

The consumer's wait takes nothing: what woke it stays queued until drain(), so a consumer cancelled after its wake loses nothing.
How putters wait is told in lane.pyx.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t

from sage_actor._core.batch cimport Marker
from sage_actor._core.lane cimport Lane, Weight, resolve

from asyncio import get_running_loop
from asyncio.events import _get_running_loop as running_loop_or_none
from typing import Literal

from sage_actor.errors import ActorError, MailboxClosed, MailboxFull

Overflow = Literal["wait", "fail", "drop_new", "drop_old"]

cdef extern from *:
    Py_ssize_t PyList_GET_SIZE(list value)

cdef int WAIT = 0
cdef int FAIL = 1
cdef int DROP_NEW = 2
cdef int DROP_OLD = 3
cdef dict POLICIES = {"wait": WAIT, "fail": FAIL, "drop_new": DROP_NEW, "drop_old": DROP_OLD}

# the consumer of a Marker of this kind may hold the channel before it takes more from it
cdef int BARRIER_KIND = 3


@cython.final
cdef class QueueStatistics:
    def __repr__(self):
        return (
            f"QueueStatistics(accepted={self.accepted}, taken={self.taken}, queued={self.queued}, dropped={self.dropped}, "
            f"queued_bytes={self.queued_bytes}, control={self.control}, waiting_putters={self.waiting_putters})"
        )


# Stands for a list that nobody has needed yet, and is never added to: there may be very many mailboxes.
cdef list NOTHING_YET = []


cdef class Mailbox:
    """What a queue and a gate share: one consumer, the control lane, closing, the way in from other threads."""

    def __cinit__(self):
        self.control = NOTHING_YET
        self.handed_over = NOTHING_YET
        self.name = ""

    cdef bint has_items(self) noexcept:
        return False

    cdef int check_open(self) except -1:
        if self.is_closed:
            raise MailboxClosed(self.name)
        return 0

    cdef int wake(self) except -1:
        cdef object future = self.waiter
        if future is not None:
            self.waiter = None
            resolve(future)
        return 0

    cdef object park(self):
        cdef object future = self.waiter
        if future is not None and not future.done() and not future.get_loop().is_closed():
            raise ActorError(f"mailbox {self.name!r} already has a consumer waiting; a mailbox has one consumer, give each its own")
        self.waiter = self.loop.create_future()
        return self.waiter

    # From other threads. Everything below runs under the interpreter lock and calls no Python between looking and doing, so it
    # needs no lock of its own: an entry is appended before the flag is read, and the flag is cleared before entries are taken.

    cdef int add_control(self, object item) except -1:
        if self.control is NOTHING_YET:
            self.control = []
        self.control.append(item)
        return 0

    cdef int hand_over(self, object entry) except -1:
        cdef object loop
        self.check_open()
        if self.handed_over is NOTHING_YET:
            self.handed_over = []
        self.handed_over.append(entry)
        if self.flush_scheduled or self.loop is None:
            return 0  # without a loop there is no consumer yet: its first wait or drain collects the entry
        self.flush_scheduled = True
        loop = self.loop
        try:
            loop.call_soon_threadsafe(self._collect)
        except RuntimeError:
            self.flush_scheduled = False  # that loop is closed; the entry waits for the next consumer
        return 0

    def _collect(self):
        self.flush()

    cdef int flush(self) except -1:
        cdef list entries
        self.flush_scheduled = False
        entries = self.handed_over
        if not entries:
            return 0
        self.handed_over = NOTHING_YET
        for entry in entries:
            self.accept_handed_over(entry)
        return 0

    cdef int accept_handed_over(self, object entry) except -1:
        return 0

    @property
    def closed(self) -> bool:
        return self.is_closed

    async def wait(self) -> bool:
        cdef object future
        if self.has_items():
            return True
        self.loop = get_running_loop()  # before flush(): whoever hands over from now on finds the loop
        self.flush()
        while not self.has_items():
            if self.is_closed:
                return False
            future = self.park()
            try:
                await future
            finally:
                if self.waiter is future:
                    self.waiter = None
        return True

    def put_control(self, item) -> None:
        self.check_open()
        self.add_control(item)
        if self.waiter is not None:
            self.wake()


cdef class BatchQueue(Mailbox):
    """A bounded two-lane mailbox, drained as a list. The contract is in batch_queue.pyi. An actor's cell builds on it."""

    def __init__(self, int64_t capacity=1024, *, int64_t capacity_bytes=0, overflow="wait", str name=""):
        if capacity < 1 or capacity_bytes < 0:
            raise ActorError(f"mailbox {name!r}: capacity must be at least 1 and capacity_bytes at least 0 (0 is no bound)")
        if overflow not in POLICIES:
            raise ActorError(f"mailbox {name!r}: overflow={overflow!r} is not one of {', '.join(POLICIES)}")
        self.name = name
        self.policy = POLICIES[overflow]
        self.lane = Lane(name, capacity, capacity_bytes)
        self.loop = running_loop_or_none()

    cdef bint has_items(self) noexcept:
        return self.lane.count > 0 or PyList_GET_SIZE(self.control) > 0

    cdef int enqueue(self, object item, int64_t nbytes) except -1:
        self.lane.push(item, 1, nbytes, False)
        self.accepted += 1
        if self.waiter is not None:
            self.wake()
        return 0

    cdef int discard(self, object item) except -1:
        """What the policy of a full queue drops comes by here."""
        return 0

    cdef bint offer(self, object item, int64_t nbytes) except -1:
        cdef Lane lane = self.lane
        if self.is_closed:
            raise MailboxClosed(self.name)
        if nbytes < 0:
            raise ActorError(f"mailbox {self.name!r}: nbytes must not be negative, got {nbytes}")
        if not lane.fits(1, nbytes):
            if self.policy == WAIT:
                return False
            if self.policy == FAIL:
                raise MailboxFull(self.name, lane.capacity)
            if self.policy == DROP_NEW:
                self.accepted += 1
                self.dropped += 1
                self.discard(item)
                return False
            while not lane.fits(1, nbytes):
                self.dropped += 1
                self.discard(lane.pop())
        elif self.policy == WAIT and lane.waiters:
            return False  # the line goes first
        self.enqueue(item, nbytes)
        return True

    def put_nowait(self, item, int64_t nbytes=0) -> bool:
        return self.offer(item, nbytes)

    async def put(self, item, int64_t nbytes=0) -> bool:
        if self.offer(item, nbytes):
            return True
        if self.policy != WAIT:
            return False
        await self.lane.room(1, nbytes)
        try:
            self.enqueue(item, nbytes)
        finally:
            self.lane.pass_on()
        return True

    def put_threadsafe(self, item, int64_t nbytes=0) -> None:
        self.hand_over((item, nbytes))

    cdef int accept_handed_over(self, object entry) except -1:
        item, nbytes = entry
        if self.is_closed:
            self.accepted += 1
            self.dropped += 1
            self.discard(item)
            return 0
        if self.policy == WAIT:
            return self.enqueue(item, nbytes)
        try:
            self.offer(item, nbytes)
        except MailboxFull:
            self.accepted += 1  # the thread that handed it over is gone, so the refusal is a drop
            self.dropped += 1
            self.discard(item)
        return 0

    def drain(self, Py_ssize_t limit=1024) -> list:
        cdef Lane lane = self.lane
        cdef list out
        cdef Py_ssize_t amount
        if PyList_GET_SIZE(self.handed_over):
            self.flush()
        amount = lane.count if lane.count < limit else (limit if limit > 0 else 0)
        out = lane.pop_many(amount)
        self.taken += amount
        if PyList_GET_SIZE(self.control):
            control = self.control
            self.control = NOTHING_YET
            (<list> control).extend(out)
            out = control
        if lane.waiters:
            lane.wake_putters()
        return out

    async def get_batch(self, Py_ssize_t limit=1024) -> list:
        if not self.has_items():
            await self.wait()
        return self.drain(limit)

    def close(self) -> None:
        if self.is_closed:
            return
        self.flush()
        self.is_closed = True
        self.lane.close()
        self.wake()

    def __len__(self):
        return self.lane.count + PyList_GET_SIZE(self.control)

    def statistics(self) -> QueueStatistics:
        cdef QueueStatistics result = QueueStatistics.__new__(QueueStatistics)
        result.accepted = self.accepted
        result.taken = self.taken
        result.dropped = self.dropped
        result.queued = self.lane.count
        result.queued_bytes = self.lane.nbytes
        result.control = PyList_GET_SIZE(self.control)
        result.waiting_putters = self.lane.waiting
        return result


cdef void report_release(object callback, int64_t records, int64_t nbytes) noexcept:
    # what has been drained must reach its consumer, so a failing callback goes to sys.unraisablehook
    callback(records, nbytes)


@cython.final
cdef class Gate(Mailbox):
    """A task's inbox of many credited channels. The contract is in batch_queue.pyi."""

    def __init__(self, int channels, *, int64_t capacity=4096, int64_t capacity_bytes=0, str name=""):
        if channels < 0 or capacity < 1 or capacity_bytes < 0:
            raise ActorError(f"gate {name!r}: channels and capacity_bytes must not be negative and capacity at least 1")
        if self.lanes is not None:
            raise ActorError(f"gate {name!r} is already initialised")
        self.name = name
        self.ready = <int*> PyMem_Calloc(channels + 1, sizeof(int))
        self.scratch = <int*> PyMem_Calloc(2 * channels + 1, sizeof(int))
        if self.ready == NULL or self.scratch == NULL:
            raise MemoryError
        self.channels = channels
        self.lanes = [Lane(name, capacity, capacity_bytes) for _ in range(channels)]
        self.loop = running_loop_or_none()

    def __dealloc__(self):
        PyMem_Free(self.ready)
        PyMem_Free(self.scratch)

    cdef bint has_items(self) noexcept:
        return self.ready_count > 0 or PyList_GET_SIZE(self.control) > 0

    cdef Lane lane_of(self, Py_ssize_t channel):
        if not 0 <= channel < self.channels:
            raise ActorError(f"gate {self.name!r} has no channel {channel}; it was made with {self.channels}")
        return <Lane> self.lanes[channel]

    cdef void make_ready(self, int channel) noexcept:
        cdef int at = self.ready_head + self.ready_count
        if at >= self.channels:
            at -= self.channels
        self.ready[at] = channel
        self.ready_count += 1

    cdef void discard_ready(self, int channel) noexcept:
        cdef int index, at, kept = 0, total = self.ready_count
        self.ready_count = 0
        for index in range(total):
            at = self.ready[(self.ready_head + index) % self.channels]
            if at != channel:
                self.ready[(self.ready_head + kept) % self.channels] = at
                kept += 1
        self.ready_count = kept

    cdef int enqueue(self, Lane lane, Py_ssize_t channel, object item, int64_t records, int64_t nbytes, bint stops) except -1:
        lane.push(item, records, nbytes, stops)
        self.accepted += records
        self.queued_records += records
        self.queued_bytes += nbytes
        if not lane.ready and not lane.held:
            lane.ready = True
            self.make_ready(<int> channel)
            if self.waiter is not None:
                self.wake()
        return 0

    def put_nowait(self, Py_ssize_t channel, item, int64_t records, int64_t nbytes=0) -> bool:
        cdef Lane lane = self.lane_of(channel)
        if self.is_closed:
            raise MailboxClosed(self.name)
        if records < 0 or nbytes < 0:
            raise ActorError(f"gate {self.name!r}: records and nbytes must not be negative, got {records} and {nbytes}")
        if not lane.fits(records, nbytes) or lane.waiters:
            return False
        self.enqueue(lane, channel, item, records, nbytes, False)
        return True

    async def put(self, Py_ssize_t channel, item, int64_t records, int64_t nbytes=0) -> None:
        cdef Lane lane
        if self.put_nowait(channel, item, records, nbytes):
            return
        lane = self.lane_of(channel)
        await lane.room(records, nbytes)
        self.enqueue(lane, channel, item, records, nbytes, False)
        lane.pass_on()

    def put_marker(self, Py_ssize_t channel, marker) -> None:
        cdef Lane lane = self.lane_of(channel)
        self.check_open()
        # what is no Marker is not understood here, so it is treated as the strictest kind
        self.enqueue(lane, channel, marker, 0, 0, type(marker) is not Marker or (<Marker> marker).kind == BARRIER_KIND)

    def receive(self, Py_ssize_t channel, item, int64_t records, int64_t nbytes=0) -> None:
        cdef Lane lane = self.lane_of(channel)
        self.check_open()
        if records < 0 or nbytes < 0:
            raise ActorError(f"gate {self.name!r}: records and nbytes must not be negative, got {records} and {nbytes}")
        self.enqueue(lane, channel, item, records, nbytes, False)

    def put_control_threadsafe(self, item) -> None:
        self.hand_over(item)

    cdef int accept_handed_over(self, object entry) except -1:
        if not self.is_closed:
            self.put_control(entry)
        return 0

    def on_release(self, Py_ssize_t channel, callback) -> None:
        self.lane_of(channel).on_release = callback

    def drain(self, int64_t limit=4096) -> list:
        cdef list out = []
        cdef Lane lane
        cdef int channel, touched = 0, stopped = 0, index
        cdef int* stops_at = self.scratch + self.channels
        cdef int64_t taken = 0
        cdef bint some = False
        cdef Weight* weight
        cdef list callbacks = None
        if PyList_GET_SIZE(self.handed_over):
            self.flush()
        if PyList_GET_SIZE(self.control):
            control = self.control
            self.control = NOTHING_YET
            for item in <list> control:
                out.append((-1, item))
        while self.ready_count > 0:
            channel = self.ready[self.ready_head]
            lane = <Lane> self.lanes[channel]
            weight = lane.weights + lane.head
            if some and (taken >= limit or taken + weight.records > limit):
                break
            self.ready_head += 1
            if self.ready_head == self.channels:
                self.ready_head = 0
            self.ready_count -= 1
            taken += weight.records
            lane.freed_records += weight.records
            lane.freed_bytes += weight.nbytes
            if not lane.freed:
                lane.freed = True
                self.scratch[touched] = channel
                touched += 1
            some = True
            if lane.count == 1:
                lane.ready = False
            elif weight.stops:
                stops_at[stopped] = channel
                stopped += 1
            else:
                self.make_ready(channel)
            out.append((channel, lane.pop()))
        for index in range(stopped):
            self.make_ready(stops_at[index])
        self.taken += taken
        self.queued_records -= taken
        for index in range(touched):
            lane = <Lane> self.lanes[self.scratch[index]]
            lane.freed = False
            self.queued_bytes -= lane.freed_bytes
            if lane.on_release is not None and lane.freed_records + lane.freed_bytes > 0:
                if callbacks is None:
                    callbacks = []
                callbacks.append((lane.on_release, lane.freed_records, lane.freed_bytes))
            lane.freed_records = 0
            lane.freed_bytes = 0
            if lane.waiters:
                lane.wake_putters()
        if callbacks is not None:
            for callback, records, nbytes in callbacks:
                report_release(callback, records, nbytes)
        return out

    def hold(self, Py_ssize_t channel) -> None:
        cdef Lane lane = self.lane_of(channel)
        lane.held = True
        if lane.ready:
            lane.ready = False
            self.discard_ready(<int> channel)

    def release(self, Py_ssize_t channel) -> None:
        cdef Lane lane = self.lane_of(channel)
        lane.held = False
        if lane.count and not lane.ready:
            lane.ready = True
            self.make_ready(<int> channel)
            self.wake()

    def close(self) -> None:
        cdef Lane lane
        if self.is_closed:
            return
        self.is_closed = True
        self.dropped += self.queued_records
        self.queued_records = 0
        self.queued_bytes = 0
        self.ready_count = 0
        control, self.control = self.control, NOTHING_YET
        handed_over, self.handed_over = self.handed_over, NOTHING_YET
        for entry in self.lanes:
            lane = <Lane> entry
            lane.ready = False
            lane.drop_all()
            lane.close()
        self.wake()

    @property
    def depth(self) -> int:
        return self.queued_records

    @property
    def depth_bytes(self) -> int:
        return self.queued_bytes

    def credit(self, Py_ssize_t channel) -> int:
        cdef Lane lane = self.lane_of(channel)
        if self.is_closed or lane.waiters or not lane.fits(1, 1 if lane.capacity_bytes else 0):
            return 0
        return max(lane.capacity - lane.records, 0)

    def statistics(self) -> QueueStatistics:
        cdef QueueStatistics result = QueueStatistics.__new__(QueueStatistics)
        result.accepted = self.accepted
        result.taken = self.taken
        result.dropped = self.dropped
        result.queued = self.queued_records
        result.queued_bytes = self.queued_bytes
        result.control = PyList_GET_SIZE(self.control)
        for lane in self.lanes:
            result.waiting_putters += (<Lane> lane).waiting
        return result
