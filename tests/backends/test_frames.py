"""Frames come out of a stream of bytes as they went in, however the stream is cut; sealed entries only as they were sealed."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.backends.frame_reader import HEADER, FrameReader
from sage_actor.backends.redis_seal import Sealer, Unsealer
from sage_actor.errors import FrameError

sizes = st.lists(st.one_of(st.integers(0, 40), st.integers(100_000, 400_000)), max_size=8)


def stream(frames: list[bytes]) -> bytes:
    return b"".join(HEADER.pack(len(frame)) + frame for frame in frames)


@settings(deadline=None)  # megabytes are copied
@given(sizes, st.lists(st.integers(1, 300_000), max_size=20), st.booleans())
def test_any_cut_gives_the_same_frames(lengths: list[int], cuts: list[int], fed: bool) -> None:
    frames = [bytes([number]) * length for number, length in enumerate(lengths)]
    data = memoryview(stream(frames))
    came: list[bytes] = []
    reader = FrameReader(1, lambda frame: came.append(bytes(frame)))
    turn = 0
    while data:
        cut = [*cuts, 300_000][turn % (len(cuts) + 1)]
        turn += 1
        if fed:
            reader.feed(data[:cut])
        else:
            room = reader.room()
            cut = min(cut, len(room), len(data))
            room[:cut] = data[:cut]
            reader.filled(cut)
        data = data[cut:]
    assert came == frames
    assert reader.room().nbytes > 0


def test_a_big_frame_does_not_keep_its_memory() -> None:
    reader = FrameReader(1, lambda frame: None)
    data = memoryview(stream([bytes(3_000_000)]))
    reader.feed(data[:100])
    reader.feed(data[100:])
    assert reader.room().nbytes < 1_000_000


def test_entries_come_out_in_order() -> None:
    key = os.urandom(32)
    sealer, unsealer = Sealer(key, 1, 2), Unsealer(key, 1, 2)
    assert [bytes(unsealer.unseal(sealer.seal(content))) for content in (b"a", b"", b"c" * 1000)] == [b"a", b"", b"c" * 1000]


@given(st.binary(max_size=40), st.data())
def test_any_change_is_noticed(content: bytes, data: st.DataObject) -> None:
    entry = bytearray(Sealer(b"k" * 32, 1, 2).seal(content))
    at = data.draw(st.integers(0, len(entry) - 1))
    entry[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError, match="from worker 1 to worker 2"):
        Unsealer(b"k" * 32, 1, 2).unseal(bytes(entry))


def test_what_another_group_or_pair_wrote_is_refused() -> None:
    entry = Sealer(b"k" * 32, 1, 2).seal(b"content")
    for unsealer in (Unsealer(b"other" * 6, 1, 2), Unsealer(b"k" * 32, 3, 2), Unsealer(b"k" * 32, 1, 3)):
        with pytest.raises(FrameError, match="wrong signature"):
            unsealer.unseal(entry)
    with pytest.raises(FrameError, match="only 5 bytes"):
        Unsealer(b"k" * 32, 1, 2).unseal(b"short")


@pytest.mark.rule("F41")
def test_a_missing_and_a_repeated_entry_are_noticed() -> None:
    sealer, unsealer = Sealer(b"k" * 32, 1, 2), Unsealer(b"k" * 32, 1, 2)
    first, second, third = (sealer.seal(content) for content in (b"1", b"2", b"3"))
    unsealer.unseal(first)
    with pytest.raises(FrameError, match="entry 1 from worker 1 to worker 2 is missing: number 2 came instead"):
        unsealer.unseal(third)
    unsealer.unseal(second)
    with pytest.raises(FrameError, match=r"entry 2 .* number 1 came instead"):
        unsealer.unseal(second)
