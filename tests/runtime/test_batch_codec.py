"""Batches come out of frames as they went in, whatever their columns hold; arrays lie in the frame where that is safe."""

from __future__ import annotations

import ctypes
import enum
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor._core.batch import Batch
from sage_actor._core.frame import DATA, decode, encode
from sage_actor.errors import SerializationError
from sage_actor.runtime.batch_codec import decode_batch, encode_batch

records = st.one_of(
    st.lists(st.integers()),
    st.lists(st.tuples(st.integers(-5, 300), st.text(max_size=5))),
    st.lists(st.one_of(st.integers(), st.text(max_size=3), st.none(), st.binary(max_size=3), st.lists(st.integers(), max_size=2))),
)


class Kept(bytearray):
    """Memory that stays, as a backend may hand out."""

    outlives_call = True


def through(batch: Batch, *, kept: bool = False, out_of_band: bool = True) -> Batch:
    parts = encode_batch(batch, out_of_band=out_of_band)
    assert out_of_band or len(parts) == 1
    return decode_batch([memoryview(Kept(part) if kept else bytes(part)) for part in parts])


def columns(batch: Batch) -> list[Any]:
    return [batch.values, batch.keys, batch.timestamps, batch.tags, batch.position, batch.watermarks]


@given(records, st.booleans(), st.booleans(), st.booleans())
def test_every_column_comes_back(values: list[Any], keyed: bool, timed: bool, tagged: bool) -> None:
    batch = Batch(
        values,
        [repr(value) for value in values] if keyed else None,
        list(range(len(values))) if timed else None,
        [None] * len(values) if tagged else None,
        17 if timed else -1,
        [-(2**63)] * len(values) if timed else None,
    )
    back = through(batch)
    assert columns(back) == columns(batch)
    assert [type(value) for value in back.values] == [type(value) for value in values]


class Colour(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: object
    y: object


class Text(str):
    __slots__ = ()


odd = st.sampled_from(
    [0, 1, True, False, None, 1.0, 0.0, -0.0, math.nan, math.inf, 2**63, -(2**63), 2**200, "", "1", "\ud800", "\xff", "\u0100",
     "\U00010000", b"1", Colour.RED, Word.YES, Text("1"), np.float64(1), np.int64(1), np.bool_(True), np.str_("1"), Point(1, 2),
     (), (1,), (True,), 1j]
)  # fmt: skip
odd_columns = st.one_of(
    st.lists(odd, max_size=5),
    st.lists(st.tuples(odd, odd), max_size=4),
    st.lists(st.builds(Point, odd, odd), max_size=3),
    st.builds(lambda one, count: [one] * count, odd, st.integers(1, 3)),
    st.builds(lambda one, two, count: [(one, (two, one))] * count, odd, odd, st.integers(1, 3)),
)


def exact(value: object) -> object:
    """What tells values apart that only look equal: types all the way down, the sign of a zero."""
    return type(value), [exact(item) for item in value] if isinstance(value, tuple) else repr(value)


@given(odd_columns, odd_columns)
def test_types_come_back_exactly(values: list[Any], keys: list[Any]) -> None:
    back = through(Batch(values, keys))
    assert list(map(exact, back.values)) == list(map(exact, values))
    assert list(map(exact, back.keys or ())) == list(map(exact, keys))


def test_records_that_are_one_object_stay_one_where_they_can_be_changed() -> None:
    shared = [1]
    back = through(Batch([shared, shared], [(1, 2), (1, 2)]))
    assert back.values[0] is back.values[1]
    back.values[0].append(2)
    assert shared == [1]


@given(st.lists(st.tuples(st.integers(), st.text(max_size=5)), min_size=1), st.sampled_from([-1, 0, 1]))
def test_keys_that_lie_in_the_values_are_the_same_objects_again(values: list[tuple[int, str]], field: int) -> None:
    keys: list[Any] = list(values) if field < 0 else [value[field] for value in values]
    back = through(Batch(values, keys))
    assert (back.values, back.keys) == (values, keys)
    assert back.keys is not back.values
    for key, value in zip(back.keys or (), back.values, strict=True):
        assert key is (value if field < 0 else value[field]) or field == 1  # an equal text may be found in field 0 first


def test_large_bytes_are_parts_of_their_own() -> None:
    values = [bytes([i]) * 40_000 for i in range(5)]
    parts = encode_batch(Batch(values))
    assert [len(part) for part in parts[1:]] == [40_000] * 5
    assert all(part is value for part, value in zip(parts[1:], values, strict=True)), "they were copied"
    assert through(Batch(values)).values == values
    one = b"x" * 40_000
    assert len(encode_batch(Batch([one] * 5))) == 1, "the same object five times should be written once"
    assert through(Batch(values, keys=[np.arange(5)] * 5)).values == values
    assert through(Batch(values), out_of_band=False).values == values


def test_arrays_lie_in_the_frame_only_where_it_stays() -> None:
    large, small = np.arange(10_000.0), np.arange(10.0)
    values = [large, small]
    for kept in (False, True):
        parts = [Kept(part) if kept else bytes(part) for part in encode_batch(Batch(values))]
        back = decode_batch([memoryview(part) for part in parts]).values
        assert all(np.array_equal(left, right) for left, right in zip(back, values, strict=True))
        assert all(array.flags.writeable for array in back)
        assert np.shares_memory(back[0], np.frombuffer(parts[1], np.uint8)) is kept
        assert not np.shares_memory(back[1], np.frombuffer(parts[2], np.uint8)), "a small array kept a whole frame"


def test_an_array_that_is_not_aligned_is_copied() -> None:
    head, body = encode_batch(Batch([np.arange(10_000.0)]))
    frame = Kept(b"x" + bytes(body))
    back = decode_batch([memoryview(bytes(head)), memoryview(frame)[1:]]).values[0]
    assert back.flags.aligned
    assert not np.shares_memory(back, np.frombuffer(frame, np.uint8))


def test_more_arrays_than_a_frame_has_parts_travel_together() -> None:
    values = list(np.arange(70_000).reshape(-1, 1))
    _, arrived = decode(b"".join(encode(DATA, 1, 1, 1, 1, len(values), encode_batch(Batch(values)))))
    back = decode_batch(arrived).values
    assert np.array_equal(np.concatenate(back), np.arange(70_000))
    assert back[7].flags.writeable


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(50_000):
        value = [value]
    return value


@pytest.mark.parametrize("value", [deep(), ctypes.pointer(ctypes.c_int(1))], ids=["too deep", "a pointer"])
def test_what_pickle_refuses_in_its_own_ways_is_named_too(value: object) -> None:
    with pytest.raises(SerializationError, match=type(value).__name__):
        encode_batch(Batch([1, value]))


def test_what_cannot_travel_is_named() -> None:
    class Stubborn:
        def __reduce__(self) -> str:
            raise TypeError("stays at home")

    with pytest.raises(SerializationError, match="Stubborn"):
        encode_batch(Batch([1, Stubborn()]))
