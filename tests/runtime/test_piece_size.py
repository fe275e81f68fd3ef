"""Pieces get as large as is good for receivers that pull: by what records cost, and by what it costs to hand them over."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.runtime.piece_size import AIM_NS, PieceSize

MS = 1_000_000


def learned(cost: float, latency: float, *, largest: int = 1024, pieces: int = 600, chance: Random | None = None) -> PieceSize:
    """After so many pieces of records that cost so much each (ns), handed over with such a latency (ns)."""
    sizes = PieceSize(largest)
    for _ in range(pieces):
        factor = 20 if chance is not None and chance.random() < 0.05 else 1
        sizes.took(sizes.size, int(max(latency, sizes.size * cost * factor)))
    return sizes


@pytest.mark.parametrize(
    ("cost", "expected"), [(1 * MS, (4, 16)), (0.1 * MS, (40, 160)), (100 * MS, (1, 1)), (10_000 * MS, (1, 1)), (1, (1024, 1024))]
)
def test_a_piece_takes_some_milliseconds(cost: float, expected: tuple[int, int]) -> None:
    assert expected[0] <= learned(cost, 0.3 * MS).size <= expected[1]


@pytest.mark.parametrize("latency", [20 * MS, 50 * MS, 200 * MS])
def test_where_handing_over_is_slow_pieces_are_large_enough_to_hide_it(latency: float) -> None:
    size = learned(0.5 * MS, latency).size
    assert 0.3 * latency <= size * 0.5 * MS <= 2 * latency, "neither starving nor hoarding"


def test_records_that_become_costly_get_smaller_pieces_and_back() -> None:
    sizes = learned(0.01 * MS, 0.3 * MS)
    assert sizes.size >= 256
    for _ in range(400):
        sizes.took(sizes.size, int(max(0.3 * MS, sizes.size * 2 * MS)))
    assert 2 <= sizes.size <= 8
    for _ in range(600):
        sizes.took(sizes.size, int(max(0.3 * MS, sizes.size * 0.01 * MS)))
    assert sizes.size >= 256


def test_a_few_costly_ones_do_not_confuse_it() -> None:
    assert 4 <= learned(1 * MS, 0.3 * MS, chance=Random(3)).size <= 32


@given(st.lists(st.tuples(st.integers(1, 1024), st.integers(0, 10**10)), max_size=200), st.integers(1, 1024))
@settings(max_examples=200, deadline=None)
def test_it_keeps_its_bounds(seen: list[tuple[int, int]], largest: int) -> None:
    sizes = PieceSize(largest)
    for records, nanoseconds in seen:
        sizes.took(records if records % 2 else sizes.size, nanoseconds)
        assert 1 <= sizes.size <= largest


def test_the_aim_is_what_the_documentation_says() -> None:
    assert AIM_NS == 8 * MS
