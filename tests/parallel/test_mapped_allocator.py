"""Pieces of one memory map: never overlapping, all of it usable, whole again when all are freed."""

from __future__ import annotations

import mmap
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor import MappedBlock, MemoryMappedAllocator, PoolError, PoolFull

SIZE = mmap.PAGESIZE
STEPS = st.lists(st.one_of(st.integers(1, SIZE), st.tuples(st.integers(0, 50))), max_size=40)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.sampled_from([1, 8, 64, 512]))
def test_blocks_never_overlap_and_free_bytes_add_up(steps: list[int | tuple[int]], alignment: int) -> None:
    with MemoryMappedAllocator(SIZE, alignment=alignment) as allocator:
        living: list[tuple[MappedBlock, int]] = []
        owner = bytearray(SIZE)  # the model: which block each byte belongs to
        for number, step in enumerate(steps, 1):
            if isinstance(step, tuple):
                if living:
                    block, mark = living.pop(step[0] % len(living))
                    assert bytes(block.view) == bytes([mark]) * block.nbytes, "somebody else wrote into it"
                    block.free()
                    owner[block.offset : block.offset + rounded(block.nbytes, alignment)] = bytes(rounded(block.nbytes, alignment))
            else:
                gap = longest_gap(owner)
                if rounded(step, alignment) > gap:
                    with pytest.raises(PoolFull, match=f" {gap} bytes"):
                        allocator.allocate(step)
                else:
                    block = allocator.allocate(step)
                    assert block.offset % alignment == 0
                    stop = block.offset + rounded(step, alignment)
                    assert not any(owner[block.offset : stop])
                    owner[block.offset : stop] = bytes([number]) * (stop - block.offset)
                    block.view[:] = bytes([number]) * step
                    living.append((block, number))
            statistics = allocator.statistics()
            assert (statistics.used, statistics.largest) == (SIZE - owner.count(0), longest_gap(owner))
            assert (statistics.blocks, statistics.used + statistics.free) == (len(living), SIZE)
        for block, _ in living:
            block.free()
        assert (allocator.statistics().largest, allocator.statistics().pieces) == (SIZE, 1)


def rounded(nbytes: int, alignment: int) -> int:
    return -(-nbytes // alignment) * alignment


def longest_gap(owner: bytearray) -> int:
    return max((len(run) for run in re.findall(rb"\x00+", bytes(owner))), default=0)


def test_arrays_lie_in_the_map_and_hold_their_block() -> None:
    with MemoryMappedAllocator("1MB") as allocator:
        block = allocator.allocate(8000)
        array = block.array((10, 100))
        array[:] = 7.0
        assert bytes(block.view[:8]) == np.float64(7.0).tobytes()
        with pytest.raises(PoolError, match="still shown by an array"):
            block.free()
        for shape in (1001, -1, (2, -3)):
            with pytest.raises(PoolError, match="does not fit"):
                block.array(shape)
        del array
        block.free()
        with pytest.raises(PoolError, match="has been freed"):
            block.free()
        with pytest.raises(PoolError, match="has been freed"):
            block.array(1)


def test_a_kept_view_of_a_freed_block_cannot_be_used() -> None:
    with MemoryMappedAllocator(100) as allocator:
        block = allocator.allocate(10)
        view = block.view
        block.free()
        with pytest.raises(ValueError, match="released"):
            view[0] = 1


@pytest.mark.parametrize("show", [lambda view: view[:4], lambda view: np.frombuffer(view, np.uint8), memoryview])
def test_whatever_shows_a_block_holds_it(show: Callable[[memoryview], object]) -> None:
    with MemoryMappedAllocator(100) as allocator:
        block = allocator.allocate(10)
        shown = show(block.view)
        with pytest.raises(PoolError, match="still shown") as kept:
            block.free()
        block.view[0] = 7
        del shown
        block.free()
        assert kept.value.__traceback__ is not None, "it must not hold the block either"


def test_of_two_threads_that_free_a_block_one_is_refused() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with MemoryMappedAllocator(100) as allocator:
            for _ in range(100):
                block, go, refused = allocator.allocate(10), threading.Barrier(2), []

                def free(block: MappedBlock, go: threading.Barrier, refused: list[str]) -> None:
                    go.wait(10)
                    try:
                        block.free()
                    except PoolError as error:
                        refused.append(str(error))

                threads = [threading.Thread(target=free, args=(block, go, refused)) for _ in range(2)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert len(refused) == 1
                assert "has been freed" in refused[0]
    finally:
        sys.setswitchinterval(interval)


def test_an_error_inside_its_block_is_not_hidden_by_blocks_that_are_left() -> None:
    with pytest.raises(KeyError), MemoryMappedAllocator(100) as allocator:
        allocator.allocate(10)
        raise KeyError


def test_a_file_keeps_the_content(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    with MemoryMappedAllocator(mmap.PAGESIZE, path) as allocator:
        block = allocator.allocate(5)
        block.view[:] = b"hello"
        allocator.flush()
        block.free()
    assert path.read_bytes()[:5] == b"hello"
    with MemoryMappedAllocator(2 * mmap.PAGESIZE, path) as longer:
        first = longer.allocate(2 * mmap.PAGESIZE)
        assert bytes(first.view[:5]) == b"hello"
        first.free()
    assert path.stat().st_size == 2 * mmap.PAGESIZE
    assert path.stat().st_mode & 0o077 == 0


def test_closing_with_blocks_and_senseless_sizes_are_refused() -> None:
    allocator = MemoryMappedAllocator(1)
    assert allocator.size == mmap.PAGESIZE
    block = allocator.allocate(1)
    with pytest.raises(PoolError, match="1 blocks have not been freed"):
        allocator.close()
    with pytest.raises(PoolError, match="makes no sense"):
        allocator.allocate(0)
    block.free()
    allocator.close()
    allocator.close()
    with pytest.raises(PoolError, match="it is closed"):
        allocator.allocate(1)
    with pytest.raises(PoolError, match="size=0"):
        MemoryMappedAllocator(0)
    with pytest.raises(PoolError, match="alignment=3"):
        MemoryMappedAllocator(10, alignment=3)
