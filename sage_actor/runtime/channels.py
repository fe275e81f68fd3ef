"""The sending end of a channel: to a gate in this process, or over a backend's endpoint to another worker.

Both kinds keep the same promise: records of one channel arrive in order, and no more than its credit is ever under way.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sage_actor._core.batch import Batch, Marker
from sage_actor._core.batch_queue import Gate
from sage_actor._core.frame import CREDIT, DATA, MARKER, encode
from sage_actor.actor.backend import Buffer, Endpoint
from sage_actor.actor.portable import dump
from sage_actor.errors import SerializationError

__all__ = ["Channel", "LocalChannel", "RemoteChannel", "credit_frame", "decode_batch", "decode_marker", "encode_batch", "estimate_bytes"]


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


class RemoteChannel:
    """Over an endpoint. Counts what is under way; the receiver gives credit back as its gate is drained.

    A batch larger than the whole credit passes when nothing is under way. Sequence numbers cover batches and markers.
    """

    __slots__ = (
        "attempt",
        "bytes_limit",
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
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
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
        parts = encode_batch(batch)
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

    def credit(self, records: int, nbytes: int) -> None:
        """The receiver has taken this much."""
        self.sent_records -= records
        self.sent_bytes -= nbytes
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


def encode_batch(batch: Batch) -> list[Buffer]:
    """Parts of a data frame: one pickle of the columns, then arrays out of band (not copied here).

    Raises:
        SerializationError: a record cannot be pickled, not even by cloudpickle.
    """
    columns = (batch.values, batch.keys, batch.timestamps, batch.tags, batch.position, batch.watermarks)
    buffers: list[pickle.PickleBuffer] = []
    try:
        head = pickle.dumps(columns, protocol=5, buffer_callback=buffers.append)
    except (pickle.PicklingError, AttributeError, TypeError):
        buffers.clear()
        try:
            head = dump(columns, buffers.append)
        except (pickle.PicklingError, AttributeError, TypeError, RecursionError, ValueError) as error:
            culprit = next((value for value in batch.values if not picklable(value)), batch.values)
            raise SerializationError(f"a record of type {type(culprit).__name__!r}", str(error)) from error
    return [head, *[buffer.raw() for buffer in buffers]]


def picklable(value: Any) -> bool:
    """Whether one record can travel."""
    try:
        dump(value)
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError, ValueError):
        return False
    return True


def decode_batch(parts: list[memoryview]) -> Batch:
    """The batch of a data frame. Array buffers are copied out of the frame once, so that the frame may go."""
    values, keys, timestamps, tags, position, watermarks = pickle.loads(parts[0], buffers=[bytearray(part) for part in parts[1:]])
    return Batch(values, keys, timestamps, tags, position, watermarks)


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
