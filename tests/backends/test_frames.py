"""Frames come out of a stream of bytes as they went in, however the stream is cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.backends.frame_reader import HEADER, FrameReader

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
