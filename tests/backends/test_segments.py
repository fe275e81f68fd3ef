"""Frames in shared memory: whatever is lent, kept and given back, each frame is what was sent, and memory stays bounded."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.backends.segment_borrower import SegmentBorrower
from sage_actor.backends.segment_file import REFERENCE, SPAN, create_segment_file
from sage_actor.backends.segment_lender import SegmentLender
from sage_actor.errors import FrameError

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are a thing of Linux")


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = create_segment_file()
    assert made is not None
    yield made
    os.close(made)


def allocated(descriptor: int) -> int:
    """Bytes that the file really takes."""
    return os.fstat(descriptor).st_blocks * 512


def lend(lender: SegmentLender, *parts: bytes) -> bytes | None:
    return lender.lend(parts, [len(part) for part in parts])


actions = st.lists(st.one_of(st.tuples(st.integers(1, 300_000), st.integers(1, 300_000)), st.integers(0, 30)), max_size=60)


@settings(deadline=None)  # megabytes are copied
@given(actions)
def test_every_frame_stays_what_was_sent_until_it_is_dropped(actions: list[tuple[int, int] | int]) -> None:
    descriptor = create_segment_file()
    assert descriptor is not None
    lender, borrower = SegmentLender(descriptor), SegmentBorrower(1, descriptor)
    held: list[tuple[memoryview, bytes]] = []
    number = 0
    for action in actions:
        if isinstance(action, tuple):
            number += 1
            parts = [bytes([number % 251]) * size for size in action]
            reference = lend(lender, *parts)
            assert reference is not None
            held.append((borrower.borrow(memoryview(reference)), b"".join(parts)))
        elif action < len(held):
            held.pop(action)
        for frame, expected in held:
            assert frame == expected
    held.clear()
    assert allocated(descriptor) <= SPAN
    os.close(descriptor)


def test_memory_is_used_again(descriptor: int) -> None:
    lender, borrower = SegmentLender(descriptor), SegmentBorrower(1, descriptor)
    frame = None
    for number in range(200):
        reference = lend(lender, bytes([number]) * 1_000_000)
        assert reference is not None
        frame = borrower.borrow(memoryview(reference))
        assert frame == bytes([number]) * 1_000_000
    assert allocated(descriptor) < 4_000_000


def test_memory_is_bounded_while_nothing_is_given_back(descriptor: int) -> None:
    lender, borrower = SegmentLender(descriptor), SegmentBorrower(1, descriptor)
    content = bytes(20_000_000)
    held: list[memoryview] = []
    while reference := lend(lender, content):
        held.append(borrower.borrow(memoryview(reference)))
        assert len(held) < 20, "the bound was passed"
    assert allocated(descriptor) <= SPAN + 100_000
    assert lend(lender, bytes(SPAN + 1)) is None
    held.pop(5)
    again = lend(lender, content)
    assert again is not None
    del held[:]
    borrower.borrow(memoryview(again))
    assert lend(lender, bytes(1_000)) is not None
    assert allocated(descriptor) < 100_000_000, "what is idle was kept"


def test_what_is_given_back_goes_to_the_system(descriptor: int) -> None:
    lender, borrower = SegmentLender(descriptor), SegmentBorrower(1, descriptor)
    held: list[memoryview] = []
    for _ in range(10):
        reference = lend(lender, bytes(10_000_000))
        assert reference is not None
        held.append(borrower.borrow(memoryview(reference)))
    assert lender.is_swollen
    del held[4:]
    lender.sweep()
    assert lender.is_swollen
    assert allocated(descriptor) >= 100_000_000
    held.clear()
    lender.sweep()
    assert not lender.is_swollen
    assert allocated(descriptor) < 70_000_000


@pytest.mark.parametrize("most", [0, 2_500_000])
def test_so_much_is_kept_idle_as_was_said_at_once_and_from_then_on(descriptor: int, most: int) -> None:
    lender, borrower = SegmentLender(descriptor), SegmentBorrower(1, descriptor)

    def lend_together(frames: int) -> None:
        references = [lend(lender, bytes(1_000_000)) for _ in range(frames)]
        held = [borrower.borrow(memoryview(reference)) for reference in references if reference is not None]
        assert len(held) == frames

    lend_together(10)
    assert allocated(descriptor) > 10_000_000
    lender.keep_for_reuse(most)
    assert allocated(descriptor) <= most + 100_000, "what was given back by then"
    assert lender.is_swollen == (allocated(descriptor) > most + 100_000)
    lend_together(10)
    lender.sweep()
    assert allocated(descriptor) <= most + 100_000, "what was given back since"


def test_where_nothing_is_kept_every_frame_has_new_memory(descriptor: int) -> None:
    lender, borrower = SegmentLender(descriptor), SegmentBorrower(1, descriptor)
    lender.keep_for_reuse(0)
    for _ in range(3):
        reference = lend(lender, b"x" * 1_000_000)
        assert reference is not None
        borrower.borrow(memoryview(reference))
    assert lend(lender, b"y" * 500_000) is not None
    assert allocated(descriptor) < 700_000, "no segment of the larger frames is there any more"


def test_the_largest_part_is_aligned(descriptor: int) -> None:
    from sage_actor._core.segment import is_aligned

    lender, borrower = SegmentLender(descriptor), SegmentBorrower(1, descriptor)
    reference = lend(lender, b"header", b"x" * 101, b"y" * 100_000, b"z")
    assert reference is not None
    frame = borrower.borrow(memoryview(reference))
    assert is_aligned(frame[107:100_107], 64)
    assert bytes(frame[107:109]) == b"yy"


def test_a_system_that_gives_no_memory_is_no_error(descriptor: int) -> None:
    lender, borrower = SegmentLender(descriptor), SegmentBorrower(1, descriptor)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        assert lend(lender, bytes(2_000_000)) is None
        small = lend(lender, b"s" * 100_000)
        assert small is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert borrower.borrow(memoryview(small)) == b"s" * 100_000
    large = lend(lender, b"l" * 2_000_000)
    assert large is not None
    assert borrower.borrow(memoryview(large)) == b"l" * 2_000_000


@pytest.mark.parametrize(
    "reference",
    [
        b"short",
        REFERENCE.pack(256, 4096, 0, 10),
        REFERENCE.pack(0, SPAN + 1, 0, 10),
        REFERENCE.pack(0, 4096, 4000, 97),
        REFERENCE.pack(0, 0, 0, 0),
        REFERENCE.pack(1, 4096, 0, 10),  # nothing was ever lent there: to look would end the process
    ],
    ids=["short", "slot", "length", "end", "empty", "behind the file"],
)
def test_a_damaged_reference_is_refused(descriptor: int, reference: bytes) -> None:
    with pytest.raises(FrameError, match="a damaged reference to a frame from worker 7"):
        SegmentBorrower(7, descriptor).borrow(memoryview(reference))
