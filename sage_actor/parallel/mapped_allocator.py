"""MemoryMappedAllocator: pieces of one memory map, for arrays that should not come and go with the heap."""

from __future__ import annotations

import bisect
import ctypes
import mmap
import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sage_actor.durations import parse_size
from sage_actor.errors import PoolError, PoolFull

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["AllocatorStatistics", "MappedBlock", "MemoryMappedAllocator"]


@dataclass(frozen=True, slots=True)
class AllocatorStatistics:
    """Bytes and pieces of one moment; `largest` is the largest block that could be had now."""

    size: int
    used: int
    free: int
    largest: int
    blocks: int
    pieces: int


class MappedBlock:
    """One allocated piece: writable, aligned, its own until `free`. Its content is whatever was there before."""

    __slots__ = ("_allocator", "_memory", "_view", "nbytes", "offset")

    def __init__(self, allocator: MemoryMappedAllocator, memory: ctypes.Array[ctypes.c_char], offset: int) -> None:
        self._allocator = allocator
        # Every view of it, and every array over one, keeps this object alive; so, without our own, it tells whether there are others.
        self._memory = weakref.ref(memory)
        self._view: memoryview | None = memoryview(memory).cast("B")
        self.offset = offset
        """Where it begins in the map (and in the file, if there is one)."""
        self.nbytes = len(memory)

    @property
    def view(self) -> memoryview:
        """Its bytes.

        Raises:
            PoolError: it has been freed.
        """
        if self._view is None:
            raise PoolError(f"the block at offset {self.offset} has been freed; what was in it may be another's by now")
        return self._view

    def array(self, shape: int | Sequence[int], dtype: DTypeLike = "float64") -> NDArray[Any]:
        """A numpy array over the beginning of the block, not copied. The block cannot be freed while the array lives.

        Raises:
            PoolError: the array would not fit, or the block has been freed.
        """
        import numpy as np

        kind = np.dtype(dtype)
        extent = (shape,) if isinstance(shape, int) else tuple(shape)
        count = 1
        for side in extent:
            count *= side
        if kind.hasobject or min(extent, default=0) < 0 or count * kind.itemsize > self.nbytes:
            raise PoolError(f"an array of shape {extent} and type {kind} does not fit into a block of {self.nbytes} bytes")
        return np.frombuffer(self.view[: count * kind.itemsize], np.uint8).view(kind).reshape(extent)

    def free(self) -> None:
        """Give it back. Using the view afterwards raises `ValueError`.

        Raises:
            PoolError: an array or a part of the view still shows it, or it has been freed before.
        """
        with self._allocator._lock:
            with suppress(BufferError):
                self.view.release()
            memory = self._memory()
            if memory is not None:
                self._view = memoryview(memory).cast("B")
                del memory  # the error would hold it
                raise PoolError(
                    f"the block at offset {self.offset} is still shown by an array or a view; let go of these before it is freed"
                )
            self._view = None
            self._allocator._give(self.offset, self.nbytes)


class MemoryMappedAllocator:
    """Hands out pieces of one memory map of a fixed size, best fit, neighbours joined again when they are freed. Thread-safe.

    Pages that were never touched cost nothing, and a freed piece is handed out again with its pages in place, so that large arrays
    are not faulted in anew each time. On a file the content outlives the process, and can be larger than memory.

    Args:
        size: bytes, or such as "1GB"; rounded up to whole pages.
        path: a file that holds the content; made, or made longer, if need be. None for memory that ends with the allocator.
        alignment: every block begins at a multiple of it, a power of two.

    Raises:
        PoolError: a size or alignment that makes no sense.
        OSError: the file cannot be opened, or the disk has no room for it.
    """

    def __init__(self, size: int | str, path: str | os.PathLike[str] | None = None, *, alignment: int = 64) -> None:
        wanted = parse_size(size) if isinstance(size, str) else size
        if wanted < 1:
            raise PoolError(f"memory-mapped allocator: size={size!r} must be at least 1 byte")
        if alignment < 1 or alignment & (alignment - 1) or alignment > mmap.PAGESIZE:
            raise PoolError(f"memory-mapped allocator: alignment={alignment} must be a power of two of at most {mmap.PAGESIZE}")
        self.size = -(-wanted // mmap.PAGESIZE) * mmap.PAGESIZE
        self.alignment = alignment
        self._lock = threading.Lock()
        self._map = _open(self.size, path)
        self._closed = False
        self._offsets = [0]  # of the free pieces, ascending
        self._pieces = {0: self.size}
        self._used = 0
        self._blocks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with nullcontext() if exception[0] is None else suppress(PoolError):  # blocks are left because of that exception
            self.close()

    def allocate(self, nbytes: int) -> MappedBlock:
        """A block of so many bytes.

        Raises:
            PoolFull: no free piece is large enough; the message says how large the largest is.
            PoolError: `nbytes` is below 1, or the allocator is closed.
        """
        if nbytes < 1:
            raise PoolError(f"memory-mapped allocator: a block of {nbytes} bytes makes no sense")
        taken = self._rounded(nbytes)
        with self._lock:
            if self._closed:
                raise PoolError("memory-mapped allocator: it is closed")
            best = min((offset for offset in self._offsets if self._pieces[offset] >= taken), key=self._pieces.__getitem__, default=None)
            if best is None:
                largest = max(self._pieces.values(), default=0)
                raise PoolFull(f"memory-mapped allocator: its largest free piece has {largest} bytes, {nbytes} were asked for")
            left = self._pieces.pop(best) - taken
            at = bisect.bisect_left(self._offsets, best)
            if left:
                self._offsets[at] = best + taken
                self._pieces[best + taken] = left
            else:
                del self._offsets[at]
            self._used += taken
            self._blocks += 1
            return MappedBlock(self, (ctypes.c_char * nbytes).from_buffer(self._map, best), best)

    def _rounded(self, nbytes: int) -> int:
        return -(-nbytes // self.alignment) * self.alignment

    def _give(self, offset: int, nbytes: int) -> None:
        """Take back; the caller holds the lock."""
        size = self._rounded(nbytes)
        self._used -= size
        self._blocks -= 1
        at = bisect.bisect_left(self._offsets, offset)
        if at < len(self._offsets) and self._offsets[at] == offset + size:
            size += self._pieces.pop(self._offsets.pop(at))
        if at and self._offsets[at - 1] + self._pieces[self._offsets[at - 1]] == offset:
            self._pieces[self._offsets[at - 1]] += size
        else:
            self._offsets.insert(at, offset)
            self._pieces[offset] = size

    def flush(self) -> None:
        """Bring what was written to the file, and wait for the disk. Nothing to do without a file."""
        if not self._closed:
            self._map.flush()

    def statistics(self) -> AllocatorStatistics:
        """The counters as they stand now."""
        with self._lock:
            sizes = self._pieces.values()
            return AllocatorStatistics(self.size, self._used, self.size - self._used, max(sizes, default=0), self._blocks, len(sizes))

    def close(self) -> None:
        """Let go of the map. Idempotent.

        Raises:
            PoolError: blocks have not been freed.
        """
        with self._lock:
            if self._closed:
                return
            if self._blocks:
                raise PoolError(f"memory-mapped allocator: {self._blocks} blocks have not been freed, so its memory cannot go yet")
            self._closed = True
            self._map.close()


def _open(size: int, path: str | os.PathLike[str] | None) -> mmap.mmap:
    if path is None:
        return mmap.mmap(-1, size)
    with ExitStack() as stack:
        descriptor = os.open(Path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, descriptor)
        if os.fstat(descriptor).st_size < size:
            # Not ftruncate: on a full disk the first touch of a page without a place would end the process with SIGBUS.
            os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
