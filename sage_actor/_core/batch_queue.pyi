"""BatchQueue, a bounded two-lane mailbox; Gate, a task's inbox of many credited channels. One consumer each."""

from collections.abc import Callable
from typing import Any, Literal

Overflow = Literal["wait", "fail", "drop_new", "drop_old"]

class QueueStatistics:
    """accepted = taken + queued + dropped, always (rule A41). Counted in items for a queue, in records for a gate.

    What a full queue drops by its policy counts as accepted and dropped. Control items are apart: `control` is how many wait now.
    """

    @property
    def accepted(self) -> int:
        """Taken in charge so far: put, received, or dropped by the policy of a full queue."""
    @property
    def taken(self) -> int:
        """Drained so far."""
    @property
    def queued(self) -> int:
        """Waiting to be drained."""
    @property
    def dropped(self) -> int:
        """Dropped by the policy of a full queue, or by close() of a gate."""
    @property
    def queued_bytes(self) -> int:
        """Sum of the sizes given for what is queued."""
    @property
    def control(self) -> int:
        """Control items that wait to be drained."""
    @property
    def waiting_putters(self) -> int:
        """Tasks parked in put()."""

class BatchQueue:
    """A mailbox: bounded in items and bytes, with a control lane that never waits, drained as a list.

    Single consumer, any number of producers on the same loop; `put_threadsafe` from other threads. FIFO per producer,
    also across waits. Safe at every cancellation point: a put that raises CancelledError has not put, a cancelled wait takes
    nothing; no item is lost or doubled (A41). One item larger than the byte bound passes when the queue is empty.
    May be made, filled and drained outside a loop, and used by one loop after another.
    """

    def __init__(self, capacity: int = 1024, *, capacity_bytes: int = 0, overflow: Overflow = "wait", name: str = "") -> None: ...
    def put_nowait(self, item: Any, nbytes: int = 0) -> bool:
        """Enqueue without waiting. True if the item was accepted. Full: "wait" answers False; "fail" raises MailboxFull;
        "drop_new" drops it and answers False; "drop_old" drops the oldest and answers True. Raises MailboxClosed."""
    async def put(self, item: Any, nbytes: int = 0) -> bool:
        """Like put_nowait, but waits for room when overflow is "wait". Waiters are served in order (no overtaking by put_nowait).
        Without a wait nothing is awaited. Raises MailboxClosed, also when closed while waiting."""
    def put_control(self, item: Any) -> None:
        """Enqueue into the control lane: never waits, never refused while open, taken before all other items."""
    def put_threadsafe(self, item: Any, nbytes: int = 0) -> None:
        """From any thread: hand over; accepted on the consumer's loop as by `put_nowait` (over capacity if "wait", dropped where
        "fail" would raise); order per thread kept. One wake-up of the loop per burst. Raises MailboxClosed."""
    def drain(self, limit: int = 1024) -> list[Any]:
        """Take what is there: control items first, then up to `limit` items. Never waits; [] if empty. Wakes waiting putters."""
    async def wait(self) -> bool:
        """Return True as soon as drain() would answer something, False when closed and empty. Takes nothing itself.
        Raises ActorError if another task waits already."""
    async def get_batch(self, limit: int = 1024) -> list[Any]:
        """wait() then drain(); [] only when closed and empty."""
    def close(self) -> None:
        """Refuse further puts (waiting putters raise MailboxClosed); what is queued can still be drained."""
    @property
    def closed(self) -> bool:
        """Whether close() has been called."""
    def __len__(self) -> int:
        """Items and control items that wait to be drained."""
    def statistics(self) -> QueueStatistics:
        """The counts as of now; a snapshot that does not change any more."""

class Gate:
    """A task's inbox: per input channel one queue and one credit account, a ready list, and a control lane.

    Credit is counted in records and bytes: what a channel may still accept. Batches need it, markers do not, so a gate
    never deadlocks with any capacity of at least one record (F43). A batch larger than the whole capacity passes when
    its channel is empty. Channels are served round-robin; order inside a channel is kept. Cancellation-safe like BatchQueue.
    """

    def __init__(self, channels: int, *, capacity: int = 4096, capacity_bytes: int = 0, name: str = "") -> None: ...
    def put_nowait(self, channel: int, item: Any, records: int, nbytes: int = 0) -> bool:
        """Enqueue if the channel has credit (and nobody waits on it); says whether it did. Raises MailboxClosed."""
    async def put(self, channel: int, item: Any, records: int, nbytes: int = 0) -> None:
        """Enqueue, waiting for credit; FIFO among waiters of one channel."""
    def put_marker(self, channel: int, marker: Any) -> None:
        """Enqueue in order without credit."""
    def receive(self, channel: int, item: Any, records: int, nbytes: int = 0) -> None:
        """Enqueue without waiting, for a remote sender that keeps its own credit account; accounted all the same."""
    def put_control(self, item: Any) -> None:
        """Control lane: never waits; comes out before anything else, with channel -1."""
    def put_control_threadsafe(self, item: Any) -> None:
        """put_control() from any thread: order per thread kept, one wake-up of the loop per burst. Raises MailboxClosed."""
    def on_release(self, channel: int, callback: Callable[[int, int], None]) -> None:
        """Call callback(records, bytes) whenever a drain frees that much credit of the channel (once per drain, at its end).
        It may use the gate. What it raises goes to sys.unraisablehook: the drained items must reach their consumer."""
    def drain(self, limit: int = 4096) -> list[tuple[int, Any]]:
        """Take control items, then items of ready, unheld channels round-robin until `limit` records; at least one item
        if any is ready. Markers come out alone in their order; a BARRIER (or a marker of unknown type) ends its channel's part of
        this drain, so that the consumer can hold() before anything behind it. Frees credit and wakes waiting senders. Never waits."""
    async def wait(self) -> bool:
        """Return True as soon as drain() would answer something, False when closed and empty."""
    def hold(self, channel: int) -> None:
        """Stop taking from the channel (barrier alignment); its credit runs out by itself, the others flow."""
    def release(self, channel: int) -> None:
        """Take from a held channel again; wakes the consumer if something waits in it."""
    def close(self) -> None:
        """Refuse further puts (waiting senders raise MailboxClosed), drop what is queued (control too), wake the consumer."""
    @property
    def closed(self) -> bool:
        """Whether close() has been called."""
    @property
    def depth(self) -> int:
        """Records queued over all channels."""
    @property
    def depth_bytes(self) -> int:
        """Bytes queued over all channels, as given by the senders."""
    def credit(self, channel: int) -> int:
        """Records the channel would accept now (never negative; 0 while senders wait for it)."""
    def statistics(self) -> QueueStatistics:
        """The counts as of now; a snapshot that does not change any more."""
