"""The stable key hash and the key groups built on it: equal keys, every process, every hash seed, every parallelism."""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.batch import Batch
from sage_actor._core.keyed import KeyedFold
from sage_actor._core.stable_hash import default_groups, group_range, key_group, operator_of_group, split_by_key, stable_hash
from sage_actor.errors import GraphError, SageError, UnstableKey


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    HELLO = "hello"


class Access(Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: float
    note: str = field(default="", compare=False)


class Pair(msgspec.Struct, frozen=True):
    a: int
    b: str


class Named(NamedTuple):
    a: Any
    b: Any


class Code(str):
    pass


class Account:
    def __init__(self, number: object) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Account) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __stable_key__(self) -> object:
        return self.number


NAIVE = datetime.fromisoformat("2024-01-01T00:00:00")
TWICE = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))  # the hour that comes twice
ZONES = [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8)), ZoneInfo("UTC")]

atoms = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=20),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70).map(float),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0**63, -(2.0**63), 2**63, -(2**63), 2**64, 1e300, int(1e300)]),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30),
    st.sampled_from([Decimal("1.10"), Decimal("1.1"), Decimal("-0"), Decimal("0E+3"), Decimal("1E+2"), Decimal("0.5"), Decimal("0.1")]),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from(ZONES)),
    st.sampled_from([Colour.RED, Colour.GREEN, Level.LOW, Word.HELLO, Access.READ, Access.READ | Access.WRITE, "hello", 1]),
)
keys = st.recursive(atoms, lambda inner: st.one_of(st.tuples(inner, inner), st.builds(Named, inner, inner)), max_leaves=6)


def equals_of(key: Any) -> list[Any]:
    """Other spellings of a key that Python calls equal to it."""
    found: list[Any] = []
    if isinstance(key, bool | int | float | Decimal) and not isinstance(key, Enum):
        found += [Decimal(key), Decimal(key) * Decimal("1.00") if abs(key) < 10**20 else Decimal(key)]
        if key == int(key):
            found.append(int(key))
        try:
            found.append(float(key))
        except OverflowError:
            pass
        found += [bool(key)]
        if isinstance(key, int):
            found.append(np.float64(key) if abs(key) < 2**53 else key)
    elif isinstance(key, str):
        found += [Code(key), np.str_(key) if not key.endswith("\0") else key]
    elif isinstance(key, datetime):
        if key.tzinfo is not None:
            found += [key.astimezone(zone) for zone in ZONES if date(2, 1, 1) < key.date() < date(9998, 1, 1)]
        found.append(key.replace(fold=1))
    elif isinstance(key, tuple):
        found += [tuple(key), Named(*key)]
        for index, item in enumerate(key):
            found += [(*key[:index], other, *key[index + 1 :]) for other in equals_of(item)]
    return [other for other in found if other == key]


@pytest.mark.rule("F14a")
@given(keys)
@settings(max_examples=400, deadline=None)
def test_equal_keys_hash_equally(key: Any) -> None:
    expected = stable_hash(key)
    assert 0 <= expected < 2**64
    for other in equals_of(key):
        assert stable_hash(other) == expected, (key, other)


@pytest.mark.rule("F14a")
@given(st.lists(keys, min_size=2, max_size=12))
@settings(max_examples=300, deadline=None)
def test_hashes_agree_with_equality(many: list[Any]) -> None:
    for first in many:
        for second in many:
            assert (stable_hash(first) == stable_hash(second)) == (first == second), (first, second)


@pytest.mark.rule("F14a")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, True),
        (0, -0.0),
        (Decimal("1.1"), Decimal("1.10")),
        (Decimal("0.5"), 0.5),
        (Decimal("1E+30"), 10**30),
        (2**63, 2.0**63),
        (-(2**63), -(2.0**63)),
        (10**18, 1e18),
        (Level.LOW, 1.0),
        (Word.HELLO, "hello"),
        (Code("a"), "a"),
        (Named(1, "x"), (1.0, "x")),
        (Point(1, 2.0, "one"), Point(1, 2, "two")),
        (Pair(1, "b"), Pair(True, "b")),
        (Account(5), Account(Decimal(5))),
        (datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2024, 1, 1, 17, 30, tzinfo=ZONES[1])),
        (NAIVE.replace(fold=1), NAIVE),
        (TWICE, TWICE.replace(fold=1)),
    ],
)
def test_equal_keys_of_different_looks_hash_equally(first: Any, second: Any) -> None:
    assert first == second
    assert stable_hash(first) == stable_hash(second)


def test_keys_that_differ_hash_differently() -> None:
    different: list[Any] = [
        "", b"", (), ("",), ((),), "a", b"a", ("a",), "1", 1, 1.5, -1, 2**64, 2**64 + 1, -(2**64), Decimal("0.1"), 0.1, date(2024, 1, 1),
        NAIVE, datetime(2024, 1, 1, tzinfo=UTC), UUID(int=1), UUID(int=1).bytes, Colour.RED, Colour.GREEN, "RED", "red",
        Access.READ, Access.READ | Access.WRITE, Point(1, 2.0), Point(2, 1.0), (1, 2.0), Pair(1, "2"), (1, ("a", "b")), (1, "a", "b"),
        ((1, "a"), "b"), "é", "e\u0301", "日本", "a\0", "a\0\0", " a", "a ",
    ]  # fmt: skip
    assert len({stable_hash(key) for key in different}) == len(different)


@pytest.mark.rule("F15")
@pytest.mark.parametrize(
    "key",
    [
        None, [1], {"a": 1}, {1}, object(), int, float("nan"), float("inf"), Decimal("nan"), Decimal("inf"), Decimal("1E+99999"),
        Fraction(1, 2), 1j, ("a", None), ("a", [1]), timedelta(1), bytearray(b"a"), np.int64(1), range(3), frozenset({1}),
    ],
)  # fmt: skip
def test_what_has_no_stable_encoding_is_refused(key: Any) -> None:
    with pytest.raises(UnstableKey) as caught:
        stable_hash(key)
    assert "cannot be used" in str(caught.value)


def test_records_that_can_change_or_do_not_compare_are_refused() -> None:
    @dataclass
    class Loose:
        x: int

    @dataclass(frozen=True, eq=False)
    class Identity:
        x: int

    class Open(msgspec.Struct):
        x: int

    with pytest.raises(UnstableKey, match="not frozen"):
        stable_hash(Loose(1))
    with pytest.raises(UnstableKey, match="eq=False"):
        stable_hash(Identity(1))
    with pytest.raises(UnstableKey, match="not frozen"):
        stable_hash(Open(1))


def test_endless_nesting_is_refused() -> None:
    class Mirror:
        def __stable_key__(self) -> object:
            return self

    deep: Any = "x"
    for _ in range(1000):
        deep = (deep,)
    for key in (Mirror(), deep):
        with pytest.raises(UnstableKey, match="nested deeper"):
            stable_hash(key)


def test_an_error_in_the_users_own_key_passes_through() -> None:
    class Broken:
        def __stable_key__(self) -> object:
            raise LookupError("no key")

    with pytest.raises(LookupError, match="no key"):
        stable_hash(Broken())


PROGRAM = """
import json, sys
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID
from dataclasses import dataclass
from sage_actor._core.stable_hash import stable_hash
class Colour(Enum):
    RED = "red"
@dataclass(frozen=True)
class Point:
    x: int
    y: str
keys = ["", "a", "word", "é", "日本語", "x" * 1000, b"bytes", True, 0, -7, 2**40, 2**100, 0.1, 1e300, Decimal("3.14"), UUID(int=5),
        date(2024, 2, 29), datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), Colour.RED, ("a", 1, (2.0, b"")), Point(1, "y")]
json.dump([stable_hash(key) for key in keys], sys.stdout)
"""


@pytest.mark.rule("F14a")
@pytest.mark.rule("F15")
def test_every_process_and_hash_seed_gives_the_same_hashes() -> None:
    found = []
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=30, check=True)
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == len(found[0])


def test_the_hashes_are_those_of_earlier_releases() -> None:
    """They are part of the state format: whoever changes them orphans every checkpoint."""
    golden: list[tuple[Any, int]] = [
        ("", 0x1A8101E63C868426),
        ("word", 0xC6C8769C28DDF544),
        ("日本語", 0x6773ABBC1DAD08BF),
        ("x" * 100, 0xD7E43E1FB341C667),
        (0, 0xAB8CCC1BB68C1C00),
        (-7, 0x49C51336AFA8F77B),
        (2**100, 0x5B078BD92A5A36A7),
        (0.1, 0x57C893C0ADACE382),
        (Decimal("3.14"), 0x1781B96B5D2E62F4),
        (b"bytes", 0xD9FA587D0F559CDE),
        (("a", 1, (2.0, b"")), 0x8EA34966F593DC72),
        (date(2024, 2, 29), 0x1EA6FA330946EB28),
    ]
    assert [stable_hash(key) for key, _ in golden] == [expected for _, expected in golden]


def test_groups_are_spread_evenly() -> None:
    words = [f"word{number}" for number in range(64_000)]
    for many in (words, range(64_000), [float(number) / 3 for number in range(64_000)], [("user", number) for number in range(64_000)]):
        counts = Counter(key_group(key, 128) for key in many)
        expected = 64_000 / 128
        chi_square = sum((counts[group] - expected) ** 2 / expected for group in range(128))
        assert chi_square < 230  # 127 degrees of freedom: beyond this once in ten million


@pytest.mark.rule("F14")
@given(st.integers(1, 32768), st.data())
@settings(max_examples=150, deadline=None)
def test_ranges_partition_the_groups(groups: int, data: st.DataObject) -> None:
    parallelism = data.draw(st.integers(1, min(groups, 300)))
    ranges = [group_range(index, groups, parallelism) for index in range(parallelism)]
    assert ranges[0][0] == 0 and ranges[-1][1] == groups - 1
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(ranges))
    for index, (first, last) in enumerate(ranges):
        assert first <= last
        assert operator_of_group(first, groups, parallelism) == operator_of_group(last, groups, parallelism) == index


@pytest.mark.rule("F15")
def test_the_default_number_of_groups() -> None:
    assert [default_groups(parallelism) for parallelism in (1, 85, 86, 170, 171, 1000, 21845, 32768)] == [
        128, 128, 256, 256, 512, 2048, 32768, 32768,
    ]  # fmt: skip


def test_numbers_out_of_range_are_refused() -> None:
    for call in (
        lambda: key_group("a", 0),
        lambda: key_group("a", 32769),
        lambda: operator_of_group(5, 5, 1),
        lambda: operator_of_group(0, 4, 5),
        lambda: group_range(2, 4, 2),
        lambda: group_range(0, 4, 0),
        lambda: default_groups(0),
        lambda: split_by_key(Batch(["a"], ["a"]), 4, 5),
    ):
        with pytest.raises(GraphError):
            call()


@pytest.mark.rule("F14")
@pytest.mark.rule("F14a")
@given(st.lists(keys, max_size=40), st.sampled_from([1, 2, 3, 4, 7]), st.sampled_from([7, 128, 1000]), st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_split_batch_holds_each_record_once_in_order_at_its_owner(
    many: list[Any], parallelism: int, groups: int, timed: bool, tagged: bool
) -> None:
    size = len(many)
    batch = Batch(
        list(range(size)),
        list(many),
        [number * 10 for number in range(size)] if timed else None,
        [f"t{number}" for number in range(size)] if tagged else None,
        7,
    )
    parts = split_by_key(batch, groups, parallelism)
    assert len(parts) == parallelism
    owners = [operator_of_group(key_group(key, groups), groups, parallelism) for key in many]
    for index, part in enumerate(parts):
        rows = [row for row, owner in enumerate(owners) if owner == index]
        if not rows:
            assert part is None
            continue
        assert part is not None
        assert list(part.values) == rows
        assert part.keys is not None and all(a is b for a, b in zip(part.keys, [many[row] for row in rows], strict=True))
        assert part.timestamps == ([row * 10 for row in rows] if timed else None)
        assert part.tags == ([f"t{row}" for row in rows] if tagged else None)
        assert part.position == (7 if len(rows) == size else -1)


@pytest.mark.rule("F15")
@given(st.lists(keys, max_size=40), st.lists(st.integers(0, 3), min_size=16, max_size=16))
@settings(max_examples=200, deadline=None)
def test_a_table_says_who_owns_a_group_and_every_record_is_counted(many: list[Any], owners: list[int]) -> None:
    counts = array("Q", [5] * 16)
    parts = split_by_key(Batch(list(range(len(many))), list(many)), 16, 4, array("H", owners), counts)
    groups = [key_group(key, 16) for key in many]
    for task, part in enumerate(parts):
        assert ([] if part is None else list(part.values)) == [row for row, group in enumerate(groups) if owners[group] == task]
    assert [count - 5 for count in counts] == [groups.count(group) for group in range(16)]


def test_a_table_or_counts_that_do_not_fit_are_refused() -> None:
    batch = Batch(list(range(64)), list(range(64)))
    for table, counts in ((array("H", [0] * 15), None), (array("H", [4] * 16), None), (None, array("Q", [0] * 17))):
        with pytest.raises(SageError):
            split_by_key(batch, 16, 4, table, counts)
    with pytest.raises(ValueError, match="mismatch"):
        split_by_key(batch, 16, 4, array("i", [0] * 16))


@pytest.mark.rule("F14a")
@given(st.lists(keys, max_size=40))
@settings(max_examples=100, deadline=None)
def test_counts_at_parallelism_1_equal_those_at_parallelism_4(many: list[Any]) -> None:
    def counted(parallelism: int) -> dict[Any, int]:
        found: dict[Any, int] = {}
        for part in split_by_key(Batch([0] * len(many), list(many)), 128, parallelism):
            if part is not None and part.keys is not None:
                fold = KeyedFold("count")
                fold.run(part.keys, None, 0, None)
                assert not found.keys() & dict(fold.items()).keys()  # no key has two owners
                found.update(fold.items())
        return found

    assert counted(1) == counted(4) == Counter(many)


def test_splitting_leaves_no_references_behind() -> None:
    values, names = [object() for _ in range(100)], [f"key {number}" for number in range(100)]
    before = [sys.getrefcount(item) for item in (*values, *names)]
    for _ in range(3):
        parts = split_by_key(Batch(list(values), list(names), list(range(100)), list(values)), 128, 4)
        assert sum(len(part) for part in parts if part is not None) == 100
        del parts
        with pytest.raises(UnstableKey):
            split_by_key(Batch([*values, 1], [*names, None]), 128, 4)
    gc.collect()
    assert [sys.getrefcount(item) for item in (*values, *names)] == before


def test_an_array_of_values_stays_an_array() -> None:
    names = [f"k{number}" for number in range(100)]
    batch = Batch(np.arange(200).reshape(100, 2), names)
    for part in split_by_key(batch, 128, 4):
        assert part is not None and part.keys is not None
        assert isinstance(part.values, np.ndarray)
        assert [f"k{row[0] // 2}" for row in part.values] == part.keys


def test_a_batch_without_keys_or_of_ragged_columns_is_refused() -> None:
    for batch in (Batch([1]), Batch([1, 2], ["a"]), Batch([1], ["a"], [1, 2]), Batch([1], ["a"], None, [1, 2])):
        with pytest.raises(SageError):
            split_by_key(batch, 128, 4)


def test_a_refused_key_leaves_the_batch_as_it_was() -> None:
    batch = Batch([1, 2], ["a", None])
    with pytest.raises(UnstableKey):
        split_by_key(batch, 128, 4)
    assert (batch.values, batch.keys) == ([1, 2], ["a", None])
