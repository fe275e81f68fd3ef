"""Columns of watermarks against their definition in plain Python."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor._core.event_time import combined_watermarks, running_watermarks

LEAST, MOST = -(2**63), 2**63 - 1
TIMES = st.integers(LEAST, MOST) | st.integers(-100, 100)


def plain_watermarks(stamps: list[int], delay: int, watermark: int, limit: int) -> tuple[list[int], int]:
    column = []
    for stamp in stamps:
        column.append(watermark)
        if stamp <= limit and stamp - delay - 1 >= LEAST:
            watermark = max(watermark, stamp - delay - 1)
    return column, watermark


@pytest.mark.rule("F19")
@given(st.lists(TIMES), st.integers(0, 1000), TIMES, TIMES)
def test_a_watermark_follows_every_record(stamps: list[int], delay: int, watermark: int, limit: int) -> None:
    assert running_watermarks(stamps, delay, watermark, limit) == plain_watermarks(stamps, delay, watermark, limit)


@pytest.mark.rule("F19a")
@given(st.lists(TIMES, min_size=1), st.integers(0, 100), st.data())
def test_where_batches_begin_changes_nothing(stamps: list[int], delay: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(stamps)))
    whole, after = running_watermarks(stamps, delay, LEAST, MOST)
    first, between = running_watermarks(stamps[:cut], delay, LEAST, MOST)
    second, end = running_watermarks(stamps[cut:], delay, between, MOST)
    assert (first + second, end) == (whole, after)


@pytest.mark.parametrize("wrong", [1.5, "5", None, True, 2**63, -(2**63) - 1])
def test_what_is_no_timestamp_is_named(wrong: object) -> None:
    with pytest.raises(TypeError) as caught:
        running_watermarks([1, wrong], 0, LEAST, MOST)  # type: ignore[list-item]
    assert caught.value.args[1] == 1
    assert repr(wrong) in caught.value.args[0]


@given(st.lists(TIMES).map(sorted), TIMES, TIMES)
def test_combined(column: list[int], others: int, least: int) -> None:
    assert combined_watermarks(column, others, least) == [max(least, min(value, others)) for value in column]


def test_an_unchanged_column_is_not_copied() -> None:
    column = [1, 2, 3]
    assert combined_watermarks(column, 3, 1) is column
    assert combined_watermarks(column, 2, 1) is not column
