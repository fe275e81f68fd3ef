"""The sending side of frames in shared memory: write a frame into a segment, lend it, use the segment again once it is given back."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sage_actor._core.segment import Mapping
from sage_actor.actor.backend import Buffer
from sage_actor.backends.segment_file import FLAGS_SIZE, REFERENCE, SLOTS, SPAN, offset_of

__all__ = ["SegmentLender"]

_ALIGNMENT: Final = 64
_IDLE: Final = 64 << 20  # bytes of segments that may wait for their next use, unless `keep_for_reuse` says otherwise
_STEPS: Final = 4  # lengths of segments between two powers of two


@dataclass(frozen=True, slots=True)
class _Segment:
    slot: int
    memory: Mapping


class SegmentLender:
    """One worker's own segments, lent to whichever worker a frame goes to.

    New pages cost several times what a copy does, so segments are used again, and up to 64 MiB of them are kept for that, or what
    `keep_for_reuse` says. All together they take at most 256 MiB. A borrower that has died gives nothing back: what it had is lost
    until the group ends.
    """

    def __init__(self, descriptor: int) -> None:
        """Lend from the file that `create_segment_file` gave, which belongs to the caller.

        Raises:
            OSError: no address space.
        """
        self._descriptor = descriptor
        self._flags = Mapping(descriptor, 0, FLAGS_SIZE)
        self._lent: deque[_Segment] = deque()  # the one looked at longest ago first
        self._idle: dict[int, list[_Segment]] = {}  # by length; no list is empty
        self._idle_bytes = 0
        self._most_idle = _IDLE
        self._unused = list(range(SLOTS - 1, -1, -1))  # the lowest is taken first, so the file stays short
        self._total = 0

    def keep_for_reuse(self, nbytes: int) -> None:
        """Keep at most so many bytes of segments that nobody has borrowed, at once and from here on; with 0 each is made anew."""
        self._most_idle = nbytes
        self.sweep()

    def lend(self, parts: Sequence[Buffer], sizes: Sequence[int]) -> bytes | None:
        """Write one frame of these parts, which have these sizes; what to send in its place, or None where there is no memory for it.

        The largest part begins at a multiple of 64 bytes, so that an array in it can be used where it lies.

        Raises:
            BufferError: a part is not contiguous.
        """
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        start = -sum(sizes[:largest]) % _ALIGNMENT
        size = sum(sizes)
        segment = self._take(start + size)
        if segment is None:
            return None
        try:
            segment.memory.write(start, parts)
        except BaseException:
            self._put_back(segment)
            self._shrink(self._most_idle)
            raise
        self._flags.lend(segment.slot)
        self._lent.append(segment)
        return REFERENCE.pack(segment.slot, segment.memory.size, start, size)

    @property
    def is_swollen(self) -> bool:
        """Whether there is more memory than is kept when nothing is lent, so that `sweep` may be worth while."""
        return self._total > self._most_idle

    def sweep(self) -> None:
        """Look what has been given back, and give to the system what is not worth keeping."""
        self._collect(SPAN + 1)  # nothing is that large, so all of it is looked through
        self._shrink(self._most_idle)

    def _take(self, size: int) -> _Segment | None:
        if size > SPAN:
            return None
        found = self._find(size)
        if found is None and self._collect(size):
            found = self._find(size)
        return found or self._create(_rounded(size))

    def _find(self, size: int) -> _Segment | None:
        """An idle segment that holds so much, unless half of it would be wasted."""
        length = _rounded(size)
        if length not in self._idle:
            length = min((length for length in self._idle if size <= length <= 2 * size), default=0)
        return self._pop(length) if length else None

    def _collect(self, size: int) -> bool:
        """Look what has been given back, until something fits.

        What is given back in the order of lending is found at the first look; what a borrower keeps moves to the end of the line.
        """
        for _ in range(len(self._lent)):
            segment = self._lent.popleft()
            if self._flags.is_lent(segment.slot):
                self._lent.append(segment)
                continue
            self._put_back(segment)
            if self._most_idle and size <= segment.memory.size <= 2 * size:
                return True
            self._shrink(self._most_idle)
        return False

    def _put_back(self, segment: _Segment) -> None:
        self._idle.setdefault(segment.memory.size, []).append(segment)
        self._idle_bytes += segment.memory.size

    def _pop(self, length: int) -> _Segment:
        segments = self._idle[length]
        segment = segments.pop()
        if not segments:
            del self._idle[length]
        self._idle_bytes -= length
        return segment

    def _shrink(self, most: int) -> None:
        """Give pages back to the system until at most so many bytes are idle, the largest segments first."""
        while self._idle_bytes > most:
            segment = self._pop(max(self._idle))
            segment.memory.give_up_pages()
            self._total -= segment.memory.size
            self._unused.append(segment.slot)

    def _create(self, length: int) -> _Segment | None:
        if self._total + length > SPAN or not self._unused:
            self._shrink(0)
            if self._total + length > SPAN or not self._unused:
                return None
        slot = self._unused[-1]
        try:
            # Reserved before it is touched: memory that is not there is an error here, and would be a fatal signal there.
            os.posix_fallocate(self._descriptor, offset_of(slot), length)
            memory = Mapping(self._descriptor, offset_of(slot), length)
        except OSError:
            self._shrink(0)
            return None
        self._unused.pop()
        self._total += length
        return _Segment(slot, memory)


def _rounded(size: int) -> int:
    """The next of four lengths between two powers of two, in whole pages; so few different ones fit every frame."""
    step = max(mmap.PAGESIZE, (1 << (size - 1).bit_length()) // (2 * _STEPS))
    return min(SPAN, -(-size // step) * step)
