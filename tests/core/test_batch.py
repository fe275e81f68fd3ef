"""Batch and Marker: columns, joining, pickling."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor._core.batch import BARRIER, END, WATERMARK, Batch, Marker


def columns(batch: Batch) -> tuple[Any, ...]:
    return list(batch.values), batch.keys, batch.timestamps, batch.tags, batch.position


@given(st.integers(0, 4), st.integers(0, 4), st.lists(st.booleans(), min_size=6, max_size=6), st.integers(-1, 5), st.integers(-1, 5))
def test_extend_joins_batches_of_the_same_columns(first: int, second: int, present: list[bool], at: int, other_at: int) -> None:
    def make(size: int, start: int, flags: list[bool], position: int) -> Batch:
        cells = [list(range(start, start + size)) if flag else None for flag in flags]
        return Batch(list(range(start, start + size)), *cells, position)

    one, two = make(first, 0, present[:3], at), make(second, 100, present[3:], other_at)
    before, after = columns(copy.copy(make(first, 0, present[:3], at))), columns(two)
    if present[:3] != present[3:]:
        assert not one.extend(two)
        assert columns(one) == before
        return
    assert one.extend(two)
    assert columns(two) == after
    assert columns(one)[:4] == tuple(None if mine is None else mine + theirs for mine, theirs in zip(before[:4], after[:4], strict=True))
    if first and second:
        assert one.position == (at if at >= 0 and other_at == at + first else -1)
    else:
        assert one.position == (at if first else other_at)


def test_arrays_are_not_joined_in_place() -> None:
    assert not Batch(np.arange(3)).extend(Batch([1]))
    assert not Batch([1]).extend(Batch(np.arange(3)))


def test_batches_and_markers_survive_pickling() -> None:
    batch = Batch(["a"], ["k"], [5], ["t"], 9)
    assert columns(pickle.loads(pickle.dumps(batch))) == columns(batch)
    assert pickle.loads(pickle.dumps(Marker(BARRIER, 3))) == Marker(BARRIER, 3)


def test_length_defaults_and_looks() -> None:
    batch = Batch([1, 2])
    assert (len(batch), batch.keys, batch.timestamps, batch.tags, batch.position) == (2, None, None, None, -1)
    assert "2 records" in repr(batch)
    assert repr(Marker(WATERMARK, 7)) == "<WATERMARK 7>"
    assert len({Marker(END), Marker(END, 0), Marker(WATERMARK)}) == 2


def test_a_column_is_a_list() -> None:
    wrong: Any = (1, 2)
    with pytest.raises(TypeError):
        Batch([1, 2], wrong)
