"""The simulation behind docs/scale.md: exact where it can be checked by hand, and the whole script runs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale.costs import Costs
from benchmarks.scale.model import Cluster, checkpoints, completions, exchange, recovery, skew

ROOT = Path(__file__).resolve().parents[2]
COSTS = Costs(
    record=1e-7, record_on_wire=1e-7, frame=5e-6, send=2e-6, hop=2e-5, channel=1e-5, start=0.2, report=6e-6, redis_entry=3e-5, durable=1e-3
)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0, 10))
def test_a_queue_is_served_in_order_one_at_a_time(times: list[float], service: float) -> None:
    arrivals = np.sort(np.array(times))
    free, expected = 0.0, []
    for at in arrivals:
        free = max(free, at) + service
        expected.append(free)
    assert completions(arrivals, service) == pytest.approx(expected)


def test_more_workers_cut_batches_smaller_until_a_record_is_a_frame() -> None:
    flows = [exchange(COSTS, Cluster(n)) for n in (2, 100, 5000)]
    assert [flow.records_in_frame for flow in flows] == [1024, 40.96, 1]
    assert flows[2].record == pytest.approx(COSTS.record + 0.9998 * (COSTS.record_on_wire + COSTS.frame))
    assert flows[0].share < flows[1].share < flows[2].share


def test_a_seed_gives_the_same_checkpoints_and_costs_show() -> None:
    cluster = Cluster(50)
    first, second = checkpoints(COSTS, cluster, seed=3), checkpoints(COSTS, cluster, seed=3)
    assert first == second
    slower = checkpoints(replace(COSTS, send=COSTS.send * 100), cluster, seed=3)
    assert slower.whole[0] > first.whole[0]
    assert first.whole[0] >= first.alignment[0] * 0.5
    assert first.pressed == pytest.approx(50 * 16_384 * 2e-7)


def test_recovery_adds_up() -> None:
    found = recovery(COSTS, Cluster(100))
    assert found.deployed == pytest.approx(0.1)
    assert found.whole == pytest.approx(found.noticed + found.started + found.deployed + found.restored + found.replayed)


def test_a_table_is_never_worse_than_ranges_and_never_better_than_the_largest_key() -> None:
    for workers in (2, 10, 30):
        for exponent in (0.0, 0.8, 1.2):
            ranges, best, least = skew(workers, exponent, keys=5000)
            assert least - 1e-9 <= best <= ranges + 1e-9


def test_the_script_prints_its_tables() -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=50)
    for title in ("costs measured here", "one checkpoint", "after a lost worker", "busiest worker", "grow with the square"):
        assert title in done.stdout
