"""Tables of key groups: one owner for each group, one range for each task, and never a heavier task than before."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.stable_hash import group_range
from sage_actor.dataflow.key_table import divide_evenly, divide_load, heaviest, is_division, loads_of, range_of

LOADS = st.lists(st.integers(0, 1000) | st.just(0), min_size=1, max_size=60)


@pytest.mark.rule("F15")
@given(LOADS, st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_every_group_has_one_owner_and_every_task_one_range(load: list[int], wanted: int) -> None:
    parallelism = min(wanted, len(load))
    table = divide_load(load, parallelism)
    assert is_division(table, len(load), parallelism)
    ranges = [range_of(table, task) for task in range(parallelism)]
    assert [group for first, last in ranges for group in range(first, last + 1)] == list(range(len(load)))
    assert sum(loads_of(load, table)) == sum(load)


@given(LOADS, st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_load_never_gets_worse_and_is_near_what_is_possible(load: list[int], wanted: int) -> None:
    parallelism = min(wanted, len(load))
    found = heaviest(load, divide_load(load, parallelism))
    assert found <= heaviest(load, divide_evenly(len(load), parallelism))
    assert found <= sum(load) / parallelism + max(load)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_no_other_ranges_are_better(load: list[int], wanted: int) -> None:
    parallelism = min(wanted, len(load))
    best = min(
        max(sum(load[a:b]) for a, b in zip((0, *cuts), (*cuts, len(load)), strict=True))
        for cuts in combinations(range(1, len(load)), parallelism - 1)
    )
    assert heaviest(load, divide_load(load, parallelism)) == best


def test_a_heavy_group_gets_a_task_for_itself() -> None:
    load = [1, 1, 90, 1, 1, 1, 1, 1]
    table = divide_load(load, 3)
    assert loads_of(load, table) == [2, 90, 5]


@pytest.mark.rule("F14")
@pytest.mark.parametrize(("groups", "parallelism"), [(1, 1), (7, 3), (128, 5), (128, 128)])
def test_the_even_division_is_the_default_one(groups: int, parallelism: int) -> None:
    table = divide_evenly(groups, parallelism)
    assert is_division(table, groups, parallelism)
    assert [range_of(table, task) for task in range(parallelism)] == [group_range(task, groups, parallelism) for task in range(parallelism)]


@pytest.mark.parametrize(
    ("table", "groups", "parallelism"),
    [((), 0, 1), ((0, 1), 3, 2), ((0, 0, 2), 3, 3), ((0, 1, 0), 3, 2), ((1, 1), 2, 2), ((0, 0), 2, 2), ((0, 1, 2), 3, 2)],
)
def test_what_is_no_division_is_seen(table: tuple[int, ...], groups: int, parallelism: int) -> None:
    assert not is_division(table, groups, parallelism)
