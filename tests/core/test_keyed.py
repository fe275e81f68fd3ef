"""KeyedFold against a plain dict loop: every kind, in pieces, with failing functions, over every allowed type of key."""

from __future__ import annotations

import gc
import math
import operator
import sys
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.keyed import FoldKind, KeyedFold
from sage_actor.errors import SageError, UnstableKey

BIG = 2**63 - 1

keys = st.one_of(
    st.sampled_from(["a", "b", "é", "日本", "", "a" * 40]),
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, True, False, Decimal(1), Decimal("0.5"), Decimal("2.50"), 2**70, float(2**70)]),
    st.tuples(st.sampled_from(["a", 1, 1.0]), st.integers(0, 1)),
    st.sampled_from([b"a", b"", date(2024, 1, 1)]),
)
cuts_at = st.lists(st.integers(0, 60), max_size=3)
numbers = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([BIG, -BIG - 1, BIG - 1, 2**62, 2**64, -(2**70), 2**53 + 1, True, False]),
    st.floats(allow_nan=False),
    st.sampled_from([Fraction(1, 3), math.nan, -0.0]),
)


class Model:
    """The contract in plain Python: a dict and one branch per kind."""

    def __init__(self, kind: FoldKind, fn: Callable[[Any, Any], Any] | None = None, initial: Callable[[], Any] | None = None) -> None:
        self.kind, self.fn, self.initial = kind, fn, initial
        self.table: dict[Any, Any] = {}

    def step(self, key: Any, value: Any) -> Any:
        table = self.table
        known = key in table
        if self.kind == "count":
            new = table.get(key, 0) + 1
        elif self.kind == "sum":
            new = table[key] + value if known else value
        elif self.kind in ("min", "max"):
            better = known and (value < table[key] if self.kind == "min" else value > table[key])
            new = value if not known or better else table[key]
        elif self.kind == "reduce":
            assert self.fn is not None
            new = self.fn(table[key], value) if known else value
        else:
            assert self.fn is not None and self.initial is not None
            new = self.fn(table[key] if known else self.initial(), value)
        table[key] = new
        return new if self.kind == "reduce" else (key, new)


def same(found: Any, expected: Any) -> bool:
    """Equal, NaN included, and an int is not a float; a bool may become the int it equals."""
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return isinstance(found, float) and repr(found) == repr(expected)
    return bool(found == expected) and not (isinstance(expected, int) and isinstance(found, float))


def check(fold: KeyedFold, model: Model, records: Sequence[tuple[Any, Any]], cuts: Sequence[int]) -> None:
    at = 0
    for cut in [*sorted(cut % (len(records) + 1) for cut in cuts), len(records)]:
        part = records[at:cut]
        out: list[Any] = []
        fold.run([key for key, _ in part], [value for _, value in part], 0, out)
        expected = [model.step(key, value) for key, value in part]
        assert len(out) == len(expected)
        if model.kind != "reduce":  # equal keys of different types share a slot; the pair shows the first of them
            assert all(found[0] == wanted[0] for found, wanted in zip(out, expected, strict=True))
            out, expected = [found[1] for found in out], [wanted[1] for wanted in expected]
        assert all(map(same, out, expected))
        at = cut
    assert len(fold) == len(model.table)
    assert all(same(a[1], b[1]) and a[0] == b[0] for a, b in zip(fold.items(), model.table.items(), strict=True))
    if model.kind == "reduce":
        assert all(map(same, fold.results(), model.table.values()))
    else:
        assert all(same(a[1], b[1]) for a, b in zip(fold.results(), model.table.items(), strict=True))


@given(st.sampled_from(["count", "sum", "min", "max"]), st.lists(st.tuples(keys, numbers), max_size=60), cuts_at)
@settings(max_examples=250, deadline=None)
def test_built_in_folds_give_what_the_dict_loop_gives(kind: FoldKind, records: list[tuple[Any, Any]], cuts: list[int]) -> None:
    check(KeyedFold(kind), Model(kind), records, cuts)


@given(st.sampled_from(["reduce", "fold"]), st.lists(st.tuples(keys, st.text(max_size=3)), max_size=60), cuts_at)
@settings(max_examples=100, deadline=None)
def test_called_folds_give_what_the_dict_loop_gives(kind: FoldKind, records: list[tuple[Any, Any]], cuts: list[int]) -> None:
    initial = str if kind == "fold" else None
    check(KeyedFold(kind, operator.add, initial), Model(kind, operator.add, initial), records, cuts)


@given(st.lists(st.tuples(st.sampled_from("ab"), numbers), max_size=40), st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_state_taken_out_and_loaded_goes_on_where_it_was(records: list[tuple[str, Any]], cut: int) -> None:
    model, first = Model("sum"), KeyedFold("sum")
    check(first, model, records[:cut], [])
    second = KeyedFold("sum")
    second.load(first.items())
    check(second, model, records[cut:], [])


def test_loading_replaces_the_accumulators_of_known_keys_and_keeps_the_others() -> None:
    fold = KeyedFold("count")
    fold.run(["a", "b"], None, 0, None)
    fold.load([("b", 2**63 - 1), ("c", 2**80)])
    out: list[Any] = []
    fold.run(["a", "b", "c", "b"], None, 0, out)
    assert out == [("a", 2), ("b", 2**63), ("c", 2**80 + 1), ("b", 2**63 + 1)]


@pytest.mark.parametrize("value", [timedelta(seconds=1), Decimal("0.1"), "x", (1,), np.float64(0.5)])
def test_a_sum_adds_whatever_can_be_added(value: Any) -> None:
    fold = KeyedFold("sum")
    fold.run(["k"] * 3, [value] * 3, 0, None)
    assert fold.results() == [("k", value + value + value)]


def test_a_sum_over_an_integer_array_does_not_wrap_around() -> None:
    fold = KeyedFold("sum")
    fold.run(np.array([7, 7]), np.array([BIG, 1]), 0, None)
    assert fold.results() == [(7, BIG + 1)]


def test_extremes_keep_the_earlier_value_on_ties() -> None:
    for kind in ("min", "max"):
        fold = KeyedFold(kind)
        fold.run(["k", "k", "k"], [1, 1.0, True], 0, None)
        assert [type(value) for _, value in fold.results()] == [int]


def test_a_failing_function_leaves_the_record_out_and_can_be_skipped() -> None:
    def divide(total: float, value: float) -> float:
        return total / value

    fold = KeyedFold("reduce", divide)
    out: list[Any] = []
    start = 0
    failed = []
    values = [8.0, 2.0, 0.0, 4.0, 0.0]
    while True:
        try:
            fold.run(["k"] * 5, values, start, out)
        except ZeroDivisionError:
            failed.append(fold.index)
            start = fold.index + 1
            continue
        break
    assert (failed, out) == ([2, 4], [8.0, 4.0, 1.0])


def test_a_first_call_that_fails_leaves_no_key_behind() -> None:
    fold = KeyedFold("fold", lambda total, value: total / value, lambda: 1.0)
    with pytest.raises(ZeroDivisionError):
        fold.run(["a", "b"], [2.0, 0.0], 0, None)
    assert (fold.index, fold.items()) == (1, [("a", 0.5)])


def test_a_sum_that_cannot_be_added_changes_nothing() -> None:
    fold = KeyedFold("sum")
    with pytest.raises(TypeError):
        fold.run(["a", "a"], [1, "x"], 0, None)
    assert (fold.index, fold.items()) == (1, [("a", 1)])


@pytest.mark.rule("F15")
@pytest.mark.parametrize("key", [None, object(), [1], {"a": 1}, math.nan, ("a", None), 1j])
@pytest.mark.parametrize("kind", ["count", "sum", "max", "reduce"])
def test_a_key_without_a_stable_encoding_is_refused_at_its_record(kind: FoldKind, key: Any) -> None:
    fold = KeyedFold(kind, operator.add if kind == "reduce" else None)
    with pytest.raises(UnstableKey):
        fold.run(["a", key], [1, 1], 0, None)
    assert (fold.index, len(fold)) == (1, 1)


def test_a_function_cannot_change_the_fold_it_runs_in() -> None:
    def meddle(total: int, value: int) -> int:
        fold.run(["other"], [1], 0, None)
        return total + value

    fold = KeyedFold("reduce", meddle)
    with pytest.raises(SageError, match="from inside its own function"):
        fold.run(["k", "k"], [1, 2], 0, None)
    fold.run(["j"], [1], 0, None)
    assert fold.items() == [("k", 1), ("j", 1)]


def test_a_function_that_empties_the_batch_it_is_called_for_changes_nothing() -> None:
    batch_keys, values = ["k"] * 4, [1, 2, 3, 4]

    def shorten(total: int, value: int) -> int:
        batch_keys.clear()
        return total + value

    fold = KeyedFold("reduce", shorten)
    fold.run(batch_keys, values, 0, None)
    assert fold.items() == [("k", 10)]


@pytest.mark.parametrize(
    ("kind", "fn", "initial"), [("reduce", None, None), ("fold", operator.add, None), ("fold", None, int), ("median", None, None)]
)
def test_a_fold_that_cannot_work_is_refused(kind: Any, fn: Any, initial: Any) -> None:
    with pytest.raises(SageError):
        KeyedFold(kind, fn, initial)


def test_columns_of_different_length_and_missing_values_are_refused() -> None:
    with pytest.raises(SageError, match="2 keys came with 1 values"):
        KeyedFold("sum").run(["a", "b"], [1], 0, None)
    with pytest.raises(SageError, match="without values"):
        KeyedFold("sum").run(["a"], None, 0, None)


def test_clear_forgets_everything_and_the_fold_can_be_used_again() -> None:
    fold = KeyedFold("max")
    fold.run([str(number) for number in range(1000)], list(range(1000)), 0, None)
    fold.clear()
    assert (len(fold), fold.items()) == (0, [])
    fold.run(["a"], [5], 0, None)
    assert fold.items() == [("a", 5)]


def count(keys: Sequence[Any]) -> list[tuple[Any, int]]:
    fold = KeyedFold("count")
    fold.run(keys, None, 0, None)
    return fold.items()


def test_many_keys_are_all_found_again() -> None:
    many = [f"key {number}" for number in range(100_000)]
    again = [key[:4] + key[4:] for key in reversed(many)]
    assert count(many + again) == [(key, 2) for key in many]


@pytest.mark.parametrize("letter", ["a", "\0", "é", "日", "\ud800", "😀"])
def test_texts_of_every_length_are_told_apart_by_every_character(letter: str) -> None:
    texts = [letter * length for length in range(41)]
    texts += [text[:at] + other + text[at + 1 :] for text in texts for at in range(len(text)) for other in "bü本😁"]
    assert count(texts + ["".join(text) for text in map(list, texts)]) == [(text, 2) for text in texts]


def test_texts_with_the_same_bytes_at_their_ends_or_in_another_order_are_told_apart() -> None:
    head, tail = "8 before", "8 behind"
    texts = [head + "-" * length + tail for length in range(64)] + [head[:length] + tail for length in range(8)]
    texts += ["".join(parts) for parts in permutations(["0123456789abcdef", "ABCDEFGHIJKLMNOP", "qrstuvwxyzQRSTUV", "."])]
    # the same bytes, one, two and four to a character
    raw = bytes(range(1, 17)) * 2
    texts += [raw[:size].decode("latin-1") for size in range(4, 33, 4)] + [raw[:size].decode("utf-16-le") for size in range(4, 33, 4)]
    texts += ["\U00010203" * size for size in range(1, 9)]
    texts += [("\U00010203" * size).encode("utf-32-le").decode("latin-1") for size in range(1, 9)]
    assert len(set(texts)) == len(texts)
    assert count(texts + ["".join(text) for text in map(list, texts)]) == [(text, 2) for text in texts]


class Name(str):
    """Compares as any str does."""


class Loose(str):
    """Compares without case, and says so."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.casefold() == other.casefold()

    def __hash__(self) -> int:
        return hash(self.casefold())

    def __stable_key__(self) -> str:
        return self.casefold()


class Colour(StrEnum):
    RED = "red"
    LONG = "a colour of more than 16 bytes"


class Level(IntEnum):
    LOW = 1


@given(st.lists(st.tuples(st.text(alphabet="aé日😀", max_size=40), st.sampled_from([str, Name])), max_size=80))
@settings(max_examples=100, deadline=None)
def test_a_subclass_of_str_is_the_text_it_holds(typed: list[tuple[str, type[str]]]) -> None:
    texts = [cls(text) for text, cls in typed]
    assert count(texts) == list(Counter(texts).items())
    assert [type(key) for key, _ in count(texts)] == [type(key) for key in Counter(texts)]


def test_members_of_an_enum_are_the_texts_and_numbers_they_equal() -> None:
    for texts in (["red", Colour.RED], [Colour.LONG, str(Colour.LONG.value)], [1, Level.LOW, True, 1.0]):
        assert count(texts * 2) == [(texts[0], len(texts) * 2)]


@pytest.mark.parametrize("text", ["Red", "A Text Of More Than 16 Bytes", "ÄÖ"])
def test_a_key_with_its_own_equality_meets_the_texts_it_equals(text: str) -> None:
    low = text.casefold()
    assert count([low, Loose(text), low, Loose(low)]) == [(low, 4)]
    assert count([Loose(text)] + [low] * 20) == [(low, 21)]  # more than are looked up together
    assert count([*"abc", Loose(text), low, *"abc", low]) == [("a", 2), ("b", 2), ("c", 2), (low, 3)]


def test_keys_of_all_types_live_in_one_table() -> None:
    mixed = ["1", 1, ("1",), b"1", Decimal(1), 1.0, True, ("1", 1), "one text of more than 16 bytes", date(2024, 1, 1), 0, "", (), b"", 0.5]
    many = [item for number in range(60) for item in (*mixed, str(number % 7), number % 5, (number % 3, "x"))]
    assert count(many) == list(Counter(many).items())


def test_an_endless_stable_key_is_refused() -> None:
    class Endless(str):
        def __stable_key__(self) -> object:
            return self

    with pytest.raises(UnstableKey):
        count(["a", Endless("b")])


def test_a_key_whose_comparison_fails_or_meddles_stops_at_its_record() -> None:
    fold = KeyedFold("count")

    class Meddling(str):
        def __eq__(self, other: object) -> bool:
            fold.run(["other"], None, 0, None)
            return True

        __hash__ = str.__hash__

    with pytest.raises(SageError, match="from inside its own function"):
        fold.run(["a", "b", Meddling("a")], None, 0, None)
    assert (fold.index, fold.items()) == (2, [("a", 1), ("b", 1)])


def test_results_that_cannot_be_part_of_a_cycle_are_not_tracked() -> None:
    fold = KeyedFold("sum")
    out: list[Any] = []
    fold.run(["a", 1], [1, 0.5], 0, out)
    assert [gc.is_tracked(pair) for pair in out + fold.results()] == [False] * 4
    latest = KeyedFold("reduce", lambda old, new: new)
    latest.run(["a", ("a",)], [[], 1], 0, None)
    assert [gc.is_tracked(pair) for pair in latest.items()] == [True, True]


def test_a_counter_takes_at_most_80_bytes_beyond_its_key() -> None:
    many = [f"key {number}" for number in range(200_000)]
    for amount in (44_000, 90_000, 200_000):  # just after and well before a growth of the table
        tracemalloc.start()
        try:
            fold = KeyedFold("count")
            fold.run(many[:amount], None, 0, None)
            used = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert len(fold) == amount
        assert used / amount <= 80


@pytest.mark.parametrize("kind", ["count", "sum", "min", "reduce", "fold"])
def test_a_fold_leaves_no_references_behind(kind: FoldKind) -> None:
    names: list[Any] = [f"key {number % 10}" for number in range(50)]
    names += [(name,) for name in names] + [Name(name + "!") for name in names] + [name.encode() for name in names]
    values = [(number,) for number in range(len(names))]
    before = [sys.getrefcount(item) for item in (*names, *values)]
    for _ in range(3):
        fold = KeyedFold(kind, (lambda old, new: new) if kind in ("reduce", "fold") else None, tuple if kind == "fold" else None)
        out: list[Any] = []
        fold.run(names, values, 0, out)
        fold.load(fold.items())
        fold.results()
        fold.clear()
        fold.run(names, values, 0, out)
        del fold, out
    assert [sys.getrefcount(item) for item in (*names, *values)] == before


def test_keys_and_accumulators_are_seen_by_the_cycle_collector() -> None:
    class Holder:
        fold: KeyedFold

    holder = Holder()
    holder.fold = KeyedFold("reduce", lambda old, new: new)
    holder.fold.run(["a"], [holder], 0, None)
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None


def test_a_key_that_leads_back_to_the_fold_is_collected_with_it() -> None:
    @dataclass(frozen=True)
    class Key:
        name: str
        holder: object = field(compare=False)

    class Holder:
        fold: KeyedFold

    holder = Holder()
    holder.fold = KeyedFold("count")
    holder.fold.run(["a", Key("b", holder), "c"], None, 0, None)
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None


def test_a_key_that_goes_with_clear_finds_the_fold_empty() -> None:
    fold = KeyedFold("count")
    seen: list[int] = []

    class Last(str):
        __slots__ = ()

        def __del__(self) -> None:
            seen.append(len(fold))
            fold.run(["next"], None, 0, None)

    fold.run(["a", Last("b")], None, 0, None)
    fold.clear()
    assert (seen, fold.items()) == ([0], [("next", 1)])
