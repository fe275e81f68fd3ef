"""Where a task stands between barriers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.runtime.alignment import Alignment


@pytest.mark.rule("F3")
@given(st.permutations(range(4)))
def test_complete_with_the_last_channel(order: list[int]) -> None:
    alignment = Alignment(4)
    for position, channel in enumerate(order):
        assert not alignment.complete()
        assert alignment.barrier(channel, 1) == set()
        assert alignment.complete() == (position == 3)
    assert alignment.finish() == {0, 1, 2, 3}
    assert not alignment.under_way


@pytest.mark.rule("F6")
def test_a_newer_barrier_gives_up_the_older_one() -> None:
    alignment = Alignment(3)
    alignment.barrier(0, 1)
    alignment.barrier(1, 1)
    assert alignment.barrier(0, 2) == {0, 1}
    assert alignment.barrier(2, 1) is None, "stale"
    alignment.barrier(1, 2)
    alignment.barrier(2, 2)
    assert alignment.complete()
    alignment.finish()
    assert alignment.barrier(0, 2) is None, "over"


@pytest.mark.rule("F6")
def test_a_cancelled_checkpoint_is_not_waited_for_again() -> None:
    alignment = Alignment(2)
    alignment.barrier(0, 5)
    assert alignment.cancel(5) == {0}
    assert alignment.barrier(1, 5) is None
    assert alignment.barrier(0, 6) == set()
    assert alignment.cancel(5) == set(), "that is long over"
    assert alignment.under_way


@pytest.mark.rule("F7")
def test_a_finished_channel_is_not_expected() -> None:
    alignment = Alignment(3)
    alignment.barrier(0, 1)
    alignment.end(2)
    assert not alignment.complete()
    alignment.barrier(1, 1)
    assert alignment.complete()


@pytest.mark.rule("F7")
def test_the_end_of_the_last_missing_channel_completes() -> None:
    alignment = Alignment(2)
    alignment.barrier(0, 1)
    alignment.end(1)
    assert alignment.complete()
