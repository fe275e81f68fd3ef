"""The sending end of a channel: to a gate in this process, or over a backend's endpoint to another worker.

Both kinds keep the same promise: records of one channel arrive in order, and no more than its credit is ever under way.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sage_actor._core.batch import Batch, Marker
from sage_actor._core.batch_queue import Gate
from sage_actor._core.frame import CREDIT, DATA, MARKER, encode
from sage_actor.actor.backend import Buffer, Endpoint
from sage_actor.runtime.batch_codec import encode_batch

__all__ = ["Channel", "LocalChannel", "RemoteChannel", "credit_frame", "decode_marker", "estimate_bytes"]


class Channel(Protocol):
    """One ordered path to a task."""

    def offer(self, batch: Batch) -> bool:
        """Send without waiting; False if there is no credit."""
        ...

    async def put(self, batch: Batch) -> None:
        """Send, waiting for credit."""
        ...

    def mark(self, marker: Marker) -> None:
        """Send a marker, in order, without credit."""
        ...

    @property
    def room(self) -> int:
        """Records for which there is credit now; all of it if nothing sent waits at the receiver."""
        ...

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call back whenever credit has come back."""
        ...


class LocalChannel:
    """Into a gate of the same event loop: objects by reference."""

    __slots__ = ("gate", "slot")

    def __init__(self, gate: Gate, slot: int) -> None:
        self.gate = gate
        self.slot = slot

    def offer(self, batch: Batch) -> bool:
        return self.gate.put_nowait(self.slot, batch, len(batch), estimate_bytes(batch))

    async def put(self, batch: Batch) -> None:
        await self.gate.put(self.slot, batch, len(batch), estimate_bytes(batch))

    def mark(self, marker: Marker) -> None:
        self.gate.put_marker(self.slot, marker)

    @property
    def room(self) -> int:
        return self.gate.credit(self.slot)

    def on_room(self, callback: Callable[[], None]) -> None:
        self.gate.on_release(self.slot, lambda records, nbytes: callback())


class RemoteChannel:
    """Over an endpoint. Counts what is under way; the receiver gives credit back as its gate is drained.

    A batch larger than the whole credit passes when nothing is under way. Sequence numbers cover batches and markers.
    """

    __slots__ = (
        "attempt",
        "bytes_limit",
        "came_back",
        "channel",
        "endpoint",
        "job",
        "limit",
        "on_sent",
        "sent_bytes",
        "sent_records",
        "sequence",
        "target",
        "waiters",
        "zero_copy",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        target: int,
        channel: int,
        *,
        job: int,
        attempt: int,
        limit: int,
        bytes_limit: int,
        zero_copy: bool = True,
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
        self.zero_copy = zero_copy
        self.endpoint = endpoint
        self.target = target
        self.channel = channel
        self.job = job
        self.attempt = attempt
        self.limit = limit
        self.bytes_limit = bytes_limit
        self.sent_records = 0
        self.sent_bytes = 0
        self.sequence = 0
        self.waiters: deque[asyncio.Future[None]] = deque()
        self.on_sent = on_sent
        self.came_back: Callable[[], None] | None = None

    def _has_room(self, records: int) -> bool:
        if not self.sent_records:
            return True
        return self.sent_records + records <= self.limit and self.sent_bytes < self.bytes_limit

    def offer(self, batch: Batch) -> bool:
        if self.waiters or not self._has_room(len(batch)):
            return False
        self._send(batch)
        return True

    async def put(self, batch: Batch) -> None:
        records = len(batch)
        while not self._has_room(records):
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self.waiters:
                    self.waiters.remove(waiter)
        self._send(batch)

    def _send(self, batch: Batch) -> None:
        parts = encode_batch(batch, out_of_band=self.zero_copy)
        records = len(batch)
        frame = encode(DATA, self.job, self.attempt, self.channel, self.sequence, records, parts)
        self.sequence += 1
        self.sent_records += records
        self.sent_bytes += sum(map(memory_size, frame))
        self.endpoint.send(self.target, frame)

    def mark(self, marker: Marker) -> None:
        body = marker.kind.to_bytes(1, "little") + marker.value.to_bytes(8, "little", signed=True)
        self.endpoint.send(self.target, encode(MARKER, self.job, self.attempt, self.channel, self.sequence, 0, [body]))
        self.sequence += 1

    @property
    def room(self) -> int:
        return max(0, self.limit - self.sent_records) if not self.waiters else 0

    def on_room(self, callback: Callable[[], None]) -> None:
        self.came_back = callback

    def credit(self, records: int, nbytes: int) -> None:
        """The receiver has taken this much."""
        self.sent_records -= records
        self.sent_bytes -= nbytes
        if self.came_back is not None:
            self.came_back()
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break


def memory_size(part: Buffer) -> int:
    """Bytes of one part."""
    return part.nbytes if isinstance(part, memoryview) else len(part)


def credit_frame(job: int, attempt: int, channel: int, records: int, nbytes: int) -> Sequence[Buffer]:
    """The frame that gives credit back to the sender of a channel."""
    return encode(CREDIT, job, attempt, channel, 0, records, [nbytes.to_bytes(8, "little")])


def decode_marker(body: memoryview) -> Marker:
    """The marker of a marker frame."""
    return Marker(body[0], int.from_bytes(body[1:9], "little", signed=True))


def estimate_bytes(batch: Batch) -> int:
    """Bytes of a batch of local objects, from its first record; arrays exactly."""
    values = batch.values
    nbytes = getattr(values, "nbytes", None)
    if nbytes is not None:
        return int(nbytes)
    if not len(values):
        return 0
    first: Any = values[0]
    return int(getattr(first, "nbytes", None) or sys.getsizeof(first, 64)) * len(values)
