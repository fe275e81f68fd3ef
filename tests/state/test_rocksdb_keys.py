"""Keys as bytes: equal exactly where the keys are, and given back where they can be."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.stable_hash import stable_hash
from sage_actor.errors import UnstableKey
from sage_actor.state.rocksdb_keys import decode, encode, encode_any


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 3


class Word(str):
    __slots__ = ()


class Pair(NamedTuple):
    first: int
    second: str


@dataclass(frozen=True)
class Place:
    street: str
    number: float


class Item(msgspec.Struct, frozen=True):
    name: str


@dataclass(frozen=True)
class Named:
    name: str

    def __stable_key__(self) -> str:
        return self.name


PLAIN = st.one_of(
    st.integers(-300, 300),
    st.integers(),
    st.booleans(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-300, 300).map(round).map(float),
    st.decimals(-300, 300, places=1),
    st.decimals(-300, 300, places=0),
    st.fractions(-10, 10, max_denominator=8).map(lambda f: Decimal(f.numerator) / 8),
    st.sampled_from([Colour.RED, Level.LOW, Word("a"), Pair(1, "a"), Place("a", 1), Place("a", 1.0), Item("a"), Item("b")]),
    st.sampled_from([Decimal("-0"), -0.0, Decimal("1e3"), Decimal("0.10"), "\ud800"]),
    st.sampled_from([uuid.UUID(int=1), date(2020, 1, 1), datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)]),  # noqa: DTZ001
    st.sampled_from([datetime(2020, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))]),
)
KEYS = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)


@settings(max_examples=500, deadline=None)
@given(one=KEYS, other=KEYS)
def test_keys_are_equal_where_their_bytes_are(one: Any, other: Any) -> None:
    assert (encode(one)[0] == encode(other)[0]) == (one == other)
    if one == other:
        assert stable_hash(one) == stable_hash(other)


@settings(max_examples=300, deadline=None)
@given(key=KEYS)
def test_an_exact_key_comes_back_as_it_was(key: Any) -> None:
    data, exact = encode(key)
    if exact:
        assert decode(data) == key
        assert repr(decode(data)) == repr(key)


def test_common_keys_are_exact() -> None:
    for key in (1, -(2**80), "ü", b"", 1.5, (1, ("a", b"b")), ()):
        assert encode(key)[1]
    for key in (True, 1.0, Level.LOW, Word("a"), Pair(1, "a"), (1, 2.0)):
        assert not encode(key)[1]


def test_a_type_that_names_its_stable_key_is_that_key() -> None:
    assert encode(Named("a"))[0] == encode("a")[0]


@pytest.mark.parametrize("key", [float("nan"), float("inf"), Decimal("nan"), Decimal("1e99999"), [1], object(), (1, [2])])
def test_other_keys_are_refused(key: Any) -> None:
    with pytest.raises(UnstableKey):
        encode(key)


def test_keys_that_are_nested_without_end_are_refused() -> None:
    key: Any = 1
    for _ in range(200):
        key = (key,)
    with pytest.raises(UnstableKey, match="deeper"):
        encode(key)


def test_sub_keys_may_be_anything_that_pickles() -> None:
    for sub in (None, frozenset({1}), (1, None), 3 + 4j, (1, frozenset({2}))):
        data, exact = encode_any(sub)
        assert exact
        assert decode(data) == sub
    assert encode_any((1, None))[0] == encode_any((1.0, None))[0]
