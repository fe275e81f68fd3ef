"""The receiving side of frames in shared memory: a frame where its sender wrote it, given back when nobody uses it any more."""

from __future__ import annotations

import os
import struct

from sage_actor._core.segment import Lease, Mapping
from sage_actor.backends.segment_file import FLAGS_SIZE, REFERENCE, SLOTS, SPAN, offset_of
from sage_actor.errors import FrameError

__all__ = ["SegmentBorrower"]


class SegmentBorrower:
    """The segments of one other worker. A mapping is kept as long as its segment has the same length, for its next frame."""

    def __init__(self, lender: int, descriptor: int) -> None:
        """Borrow from worker `lender`, whose file belongs to the caller.

        Raises:
            OSError: no address space.
        """
        self._lender = lender
        self._descriptor = descriptor
        self._flags = Mapping(descriptor, 0, FLAGS_SIZE)
        self._mapped: dict[int, Mapping] = {}

    def borrow(self, reference: memoryview) -> memoryview:
        """The frame that a reference stands for: writable, and ours as long as something refers to it.

        Without address space to map it, it is copied.

        Raises:
            FrameError: the reference is damaged, or there is no memory for a copy either.
        """
        try:
            slot, length, start, size = REFERENCE.unpack(reference)
        except struct.error as error:
            raise FrameError(f"a damaged reference to a frame from worker {self._lender}: {error}") from error
        if not (slot < SLOTS and 0 < length <= SPAN and start + size <= length):
            raise FrameError(f"a damaged reference to a frame from worker {self._lender}: bytes {start} to {start + size} of {length}")
        memory = self._mapped.get(slot)
        if memory is None or memory.size != length:
            if offset_of(slot) + length > os.fstat(self._descriptor).st_size:  # to look behind the end would be a fatal signal
                raise FrameError(f"a damaged reference to a frame from worker {self._lender}: nothing was ever lent in slot {slot}")
            try:
                memory = self._mapped[slot] = Mapping(self._descriptor, offset_of(slot), length)
            except OSError:
                return self._copied(slot, start, size)
        return memoryview(Lease(memory, start, size, self._flags, slot))

    def _copied(self, slot: int, start: int, size: int) -> memoryview:
        try:
            frame = memoryview(bytearray(size))
            left = frame
            while left:
                done = os.preadv(self._descriptor, [left], offset_of(slot) + start + size - len(left))
                if not done:
                    raise FrameError(f"a frame of {size} bytes from worker {self._lender} ends {len(left)} bytes early")
                left = left[done:]
        except (MemoryError, OSError) as error:
            raise FrameError(f"no memory for a frame of {size} bytes from worker {self._lender}: {error!r}") from error
        self._flags.give_back(slot)
        return frame
