"""Regions that one process lends and another gives back: whole, aligned, and never given back while somebody may still read."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Iterator

import pytest

from sage_actor._core.segment import Lease, Mapping, is_aligned

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are a thing of Linux")

PAGE = mmap.PAGESIZE


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = os.memfd_create("segments of a test")
    os.ftruncate(made, 8 * PAGE)
    yield made
    os.close(made)


def test_two_mappings_of_one_file_are_one_memory(descriptor: int) -> None:
    here, there = Mapping(descriptor, PAGE, PAGE), Mapping(descriptor, PAGE, PAGE)
    assert here.write(10, [b"abc", bytearray(b"def"), memoryview(b"ghi")]) == 19
    assert bytes(memoryview(there)[10:19]) == b"abcdefghi"
    here.give_up_pages()
    assert not any(memoryview(there))


def test_a_mapping_outlives_its_descriptor() -> None:
    descriptor = os.memfd_create("segments of a test")
    os.ftruncate(descriptor, PAGE)
    mapping = Mapping(descriptor, 0, PAGE)
    os.close(descriptor)
    mapping.write(0, [b"still there"])
    view = memoryview(mapping)[:11]
    del mapping
    assert bytes(view) == b"still there"


def test_what_does_not_fit_is_refused(descriptor: int) -> None:
    mapping = Mapping(descriptor, 0, PAGE)
    with pytest.raises(ValueError, match="do not fit at byte 4090"):
        mapping.write(PAGE - 6, [b"1234567"])
    with pytest.raises(ValueError, match="cannot write at byte -1"):
        mapping.write(-1, [b"1"])
    for flag in (-1, PAGE // 4):
        for touch in (mapping.lend, mapping.give_back, mapping.is_lent):
            with pytest.raises(IndexError, match="no flag"):
                touch(flag)
    with pytest.raises(ValueError, match="cannot map 0 bytes"):
        Mapping(descriptor, 0, 0)
    with pytest.raises(OSError, match="Invalid argument"):
        Mapping(descriptor, 1, PAGE)  # not at a page
    with pytest.raises(OSError, match="Cannot allocate memory"):
        Mapping(descriptor, 0, 1 << 60)
    for start, size in ((-1, 1), (0, PAGE + 1), (PAGE, 1), (0, -1)):
        with pytest.raises(ValueError, match="no bytes"):
            Lease(mapping, start, size, mapping, 0)
    with pytest.raises(IndexError, match="no flag"):
        Lease(mapping, 0, 1, mapping, PAGE)
    assert not mapping.is_lent(0)


def test_a_lease_is_given_back_with_its_last_view(descriptor: int) -> None:
    flags, memory = Mapping(descriptor, 0, PAGE), Mapping(descriptor, PAGE, PAGE)
    memory.write(0, [b"0123456789"])
    flags.lend(3)
    frame = memoryview(Lease(memory, 2, 5, flags, 3))
    part = frame[1:3]
    del frame, memory
    gc.collect()
    assert flags.is_lent(3)
    assert bytes(part) == b"34"
    part[:] = b"xy"  # ours as long as we hold it
    del part
    assert not flags.is_lent(3)


def test_a_lease_in_a_cycle_is_given_back(descriptor: int) -> None:
    flags = Mapping(descriptor, 0, PAGE)
    flags.lend(0)
    cycle: list[object] = [Lease(flags, 0, 8, flags, 0)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert not flags.is_lent(0)


def test_what_a_child_may_read_is_never_given_back(descriptor: int) -> None:
    flags = Mapping(descriptor, 0, PAGE)
    flags.lend(1)
    flags.lend(2)
    before = Lease(flags, 0, 8, flags, 1)
    child = os.fork()
    if not child:
        del before
        os._exit(0)
    os.waitpid(child, 0)
    assert flags.is_lent(1), "the child gave back what its parent still reads"
    del before
    assert flags.is_lent(1), "it was given back though the child may still read it"
    after = Lease(flags, 0, 8, flags, 2)
    del after
    assert not flags.is_lent(2)


def test_alignment_is_that_of_the_memory(descriptor: int) -> None:
    view = memoryview(Mapping(descriptor, 0, PAGE))
    assert is_aligned(view, PAGE)
    assert is_aligned(view[64:], 64)
    assert not is_aligned(view[8:], 16)
    assert is_aligned(b"", 4096)
