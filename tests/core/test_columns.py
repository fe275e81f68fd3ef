"""Packed columns come back as they were, to the bit and the type; what cannot is left to others; damage is an error, never a crash."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor._core.columns import pack_column, same_field, take_field, unpack_column
from sage_actor.errors import FrameError

small = st.integers(-(2**7) - 2, 2**8)
whole = st.one_of(small, st.integers(-(2**15) - 2, 2**16), st.integers(-(2**31) - 2, 2**32), st.integers(-(2**63), 2**63 - 1))
texts = st.text(st.characters(codec=None), max_size=8)  # lone surrogates too
plain: st.SearchStrategy[list[Any]] = st.one_of(
    st.lists(whole, min_size=1),
    st.lists(st.floats(), min_size=1),
    st.lists(texts, min_size=1),
    st.lists(st.booleans(), min_size=1),
    st.lists(st.none(), min_size=1),
)


def columns(size: int, depth: int) -> st.SearchStrategy[list[Any]]:
    kinds: list[st.SearchStrategy[Any]] = [whole, st.floats(), texts, st.booleans(), st.none()]
    one = st.sampled_from(kinds).flatmap(lambda kind: st.lists(kind, min_size=size, max_size=size))
    if not depth:
        return one
    fields = st.lists(columns(size, depth - 1), min_size=1, max_size=4)
    return st.one_of(one, fields.map(lambda fields: list(zip(*fields, strict=True))))


def same(left: Any, right: Any) -> bool:
    """Equal in type and bits, tuples item by item."""
    if type(left) is not type(right):
        return False
    if left.__class__ is tuple:
        return len(left) == len(right) and all(map(same, left, right))
    if type(left) is float:
        return struct.pack("d", left) == struct.pack("d", right)
    return bool(left == right)


@given(st.one_of(plain, st.integers(1, 6).flatmap(lambda size: columns(size, 2))))
def test_what_is_packed_comes_back_exactly(column: list[Any]) -> None:
    packed = pack_column(column)
    assert packed is not None
    back = unpack_column(memoryview(packed))
    assert len(back) == len(column)
    assert all(map(same, back, column))


class Whole(int):
    """A subclass, which would come back as something else."""


@pytest.mark.parametrize(
    "column",
    [
        [],
        [1, 2.0],
        [1, True],
        [True, 1],
        [None, 0],
        [1.0, 1],
        ["a", b"a"],
        [b"a"],
        [1, 2**63],
        [-(2**63) - 1],
        [Whole(1)],
        [1, Whole(1)],
        [()],
        [(1,), (1, 2)],
        [(1,), [1]],
        [(1, 2), (1, 2.0)],
        [((((1,),),),)],
        [(1,) * 65],
        ["x" * 1000] * 10,
        [object()],
    ],
    ids=lambda column: re.sub(" at 0x[0-9a-f]+", "", repr(column)),
)
def test_everything_else_is_left_to_others(column: list[Any]) -> None:
    assert pack_column(column) is None


def test_integers_take_what_the_largest_needs() -> None:
    for size, most in ((1, 2**7 - 1), (2, 2**15 - 1), (4, 2**31 - 1), (8, 2**63 - 1)):
        for value in (most, -most - 1):
            packed = pack_column([value] * 100)
            assert packed is not None
            assert len(packed) == 5 + 100 * size


@given(st.integers(1, 5).flatmap(lambda size: columns(size, 2)), st.data())
def test_damage_is_an_error_or_another_column(column: list[Any], data: st.DataObject) -> None:
    packed = pack_column(column)
    assert packed is not None
    damaged = bytearray(packed)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    else:
        at = data.draw(st.integers(0, min(16, len(damaged) - 1)))
        damaged[at] ^= data.draw(st.integers(1, 255))
    try:
        unpack_column(damaged)
    except (FrameError, MemoryError, ValueError):
        pass


@pytest.mark.parametrize(
    ("width", "content"), [(0, b"\xff"), (1, b"a"), (2, b"a\0"), (3, b"a\0\0\0"), (3, b"\0\0\x11\0"), (3, b"\xff\xff\xff\xff")]
)
def test_a_text_that_python_has_in_no_such_form_is_refused(width: int, content: bytes) -> None:
    characters = len(content) // (1, 1, 2, 4)[width]
    with pytest.raises(FrameError, match="text 0 of 1"):
        unpack_column(struct.pack("<BII", 8, 1, characters << 2 | width) + content)


@given(st.lists(st.tuples(st.integers(), st.text(), st.floats()), min_size=1))
def test_keys_that_are_fields_are_found_and_taken(values: list[tuple[int, str, float]]) -> None:
    for field in range(3):
        keys: list[Any] = [value[field] for value in values]
        found = same_field(keys, values)
        assert 0 <= found <= field
        assert all(taken is key for taken, key in zip(take_field(values, found), keys, strict=True))
    assert same_field(list(values), values) == -1
    copy = take_field(values, -1)
    assert copy == values
    assert copy is not values


def test_keys_that_are_not_fields_are_not_found() -> None:
    number = 10**10
    values: list[Any] = [(number, 1), (number + 1, 2)]
    assert same_field([number, number + 1], values) == -2
    assert same_field([number], values) == -2
    assert same_field([], []) == -2
    assert same_field([values[0][0], values[1]], values) == -2
    assert same_field([values[0], 2], values) == -2
    assert same_field([math.pi, 2], [math.e, 2]) == -2
    one = object()
    assert same_field([one, one], [(one,), [one]]) == -2
    with pytest.raises(FrameError, match="row 1 has no field 1"):
        take_field([(1, 2), (1,)], 1)
