"""The frame codec: round trips, and nothing but FrameError for anything else."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.frame import CONTROL, CREDIT, DATA, MARKER, FrameHeader, decode, encode
from sage_actor.errors import FrameError

FIXED = 40

headers = st.tuples(
    st.sampled_from([DATA, MARKER, CREDIT, CONTROL]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)
parts = st.lists(st.binary(max_size=40), max_size=6)


def fields(header: FrameHeader) -> tuple[int, ...]:
    return header.kind, header.job, header.attempt, header.channel, header.sequence, header.records


@given(headers, parts, st.sampled_from([bytes, bytearray, memoryview]))
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_comes_back(header: tuple[int, int, int, int, int, int], pieces: list[bytes], whole: type[Any]) -> None:
    encoded = encode(*header, pieces)
    assert all(sent is piece for sent, piece in zip(encoded[1:], pieces, strict=True))
    found, back = decode(whole(b"".join(encoded)))
    assert fields(found) == header
    assert [bytes(part) for part in back] == pieces


def test_the_layout_is_as_documented() -> None:
    first = encode(DATA, 2, 3, 4, 5, 6, [b"ab", b""])[0]
    assert bytes(first) == struct.pack("<4sBBHIIIIQQQQ", b"SGAF", 1, 1, 2, 3, 4, 6, 0, 2, 5, 2, 0)


def test_parts_are_views_into_the_frame() -> None:
    frame = bytearray(b"".join(encode(DATA, 1, 1, 1, 1, 1, [b"abc"])))
    _, (part,) = decode(frame)
    frame[-1] = ord("d")
    assert part == b"abd"


def test_an_array_travels_by_its_bytes() -> None:
    array = np.arange(6, dtype="int32")
    encoded = encode(DATA, 1, 1, 1, 1, 6, [memoryview(array)])
    _, (part,) = decode(b"".join(encoded))
    assert np.frombuffer(part, dtype="int32").tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(FrameError, match="contiguous"):
        encode(DATA, 1, 1, 1, 1, 6, [memoryview(array[::2])])


@given(st.binary(max_size=120))
@settings(max_examples=200, deadline=None)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(FrameError):
        decode(garbage)


@given(headers, parts, st.data())
@settings(max_examples=400, deadline=None)
def test_a_damaged_frame_is_refused_or_reads_as_another_frame(
    header: tuple[int, int, int, int, int, int], pieces: list[bytes], data: st.DataObject
) -> None:
    frame = bytearray(b"".join(encode(*header, pieces)))
    kind = data.draw(st.sampled_from(["cut", "extend", "flip", "splice"]))
    if kind == "cut":
        frame = frame[: data.draw(st.integers(0, len(frame) - 1))]
    elif kind == "extend":
        frame += data.draw(st.binary(min_size=1, max_size=20))
    elif kind == "flip":
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at] ^= data.draw(st.integers(1, 255))
    else:
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    try:
        found, back = decode(frame)
    except FrameError:
        return
    assert kind in ("flip", "splice")
    assert b"".join(encode(*fields(found), back)) == bytes(frame)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**63 - 1, 2**32, 4])
def test_a_length_that_points_outside_is_refused(length: int) -> None:
    frame = bytearray(b"".join(encode(DATA, 1, 1, 1, 1, 1, [b"abc", b"de"])))
    frame[FIXED : FIXED + 8] = struct.pack("<Q", length)
    with pytest.raises(FrameError):
        decode(frame)


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, 0, "bad magic"),
        (4, 9, "frame version 9"),
        (5, 0, "unknown kind"),
        (5, 77, "unknown kind"),
        (6, 200, "too short"),
        (20, 1, "reserved"),
    ],
)
def test_the_error_names_what_is_wrong(at: int, value: int, words: str) -> None:
    frame = bytearray(b"".join(encode(DATA, 1, 1, 1, 1, 1, [b"abc"])))
    frame[at] = value
    with pytest.raises(FrameError, match=words):
        decode(frame)


@pytest.mark.parametrize("frame", [None, "text", 5, [b"a"], memoryview(np.arange(100))[::2]])
def test_what_is_no_buffer_is_refused(frame: Any) -> None:
    with pytest.raises(FrameError):
        decode(frame)


@pytest.mark.parametrize(
    "header",
    [(0, 1, 1, 1, 1, 1), (5, 1, 1, 1, 1, 1), (DATA, -1, 1, 1, 1, 1), (DATA, 2**64, 1, 1, 1, 1), (DATA, 1, 2**32, 1, 1, 1),
     (DATA, 1, 1, -1, 1, 1), (DATA, 1, 1, 1, 2**64, 1), (DATA, 1, 1, 1, 1, 2**32), (DATA, "1", 1, 1, 1, 1), ("data", 1, 1, 1, 1, 1)],
)  # fmt: skip
def test_a_header_out_of_range_is_refused(header: Any) -> None:
    with pytest.raises(FrameError):
        encode(*header, [])


def test_parts_that_are_no_buffers_or_too_many_are_refused() -> None:
    text: Any = ["text"]
    with pytest.raises(FrameError, match="not str"):
        encode(DATA, 1, 1, 1, 1, 1, text)
    with pytest.raises(FrameError, match="at most 65535"):
        encode(DATA, 1, 1, 1, 1, 1, [b""] * 65536)
