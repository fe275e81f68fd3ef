"""The latency histogram against sorted lists."""

from __future__ import annotations

import json
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.telemetry.histogram import LogHistogram

nanoseconds = st.one_of(st.integers(0, 200), st.integers(0, 10**6), st.integers(0, 10**13))


def filled(values: list[int]) -> LogHistogram:
    histogram = LogHistogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(st.lists(nanoseconds, min_size=1), st.floats(0, 1))
def test_percentiles_are_within_three_per_cent(values: list[int], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values) - 1e-9)) - 1]
    assert abs(filled(values).percentile(q) - exact) <= 0.03 * exact


@given(nanoseconds)
def test_a_value_below_sixty_four_is_exact_and_others_nearly(value: int) -> None:
    found = filled([value]).percentile(0.5)
    assert found == value if value < 64 else abs(found - value) <= value / 64


@given(st.lists(nanoseconds), st.lists(nanoseconds))
def test_merging_equals_recording_together(first: list[int], second: list[int]) -> None:
    merged = filled(first)
    merged.merge(filled(second))
    assert merged == filled(first + second)
    assert merged.total == len(first) + len(second)
    assert merged.sum == sum(first) + sum(second)


@given(st.lists(nanoseconds))
def test_survives_json(values: list[int]) -> None:
    histogram = filled(values)
    assert LogHistogram.from_dict(json.loads(json.dumps(histogram.to_dict()))) == histogram
    assert LogHistogram.from_dict(histogram.to_dict()).total == len(values)


@given(st.lists(nanoseconds))
def test_buckets_ascend_and_hold_everything(values: list[int]) -> None:
    buckets = list(filled(values).buckets())
    assert [edge for edge, _ in buckets] == sorted({edge for edge, _ in buckets})
    assert sum(count for _, count in buckets) == len(values)


def test_empty_negative_and_repeated() -> None:
    histogram = LogHistogram()
    assert histogram.percentile(0.99) == 0
    histogram.record(-5)
    assert histogram.percentile(1.0) == 0
    histogram.record(40, times=3)
    assert (histogram.total, histogram.sum) == (4, 120)
    assert "4 values" in repr(histogram)


@pytest.mark.parametrize("q", [99, -0.1, float("nan")])
def test_a_percentile_is_a_share(q: float) -> None:
    with pytest.raises(ValueError, match=r"0\.99, not 99"):
        LogHistogram().percentile(q)


def test_foreign_values_are_refused() -> None:
    with pytest.raises(ValueError, match="not a histogram"):
        LogHistogram.from_dict({"counts": 3})


def test_other_threads_may_read_while_it_records() -> None:
    histogram = LogHistogram()
    done = threading.Event()

    def write() -> None:
        for value in range(20_000):
            histogram.record(value * value)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        histogram.percentile(0.5)
        LogHistogram.from_dict(histogram.to_dict())
        LogHistogram().merge(histogram)
    writer.join()
    assert histogram.total == 20_000
