"""Counters, their snapshots, and the view of a whole job."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from sage_actor.telemetry.counters import JobMetrics, OperatorCounters, TaskCounters


def task(*names: str, records: int = 10, busy: int = 0, idle: int = 0, backpressured: int = 0, **more: Any) -> dict[str, Any]:
    counters = TaskCounters([OperatorCounters(name, records_in=records, records_out=records - 1, errors=1) for name in names])
    counters.busy_ns, counters.idle_ns, counters.backpressured_ns = busy, idle, backpressured
    counters.gate_depth = 3
    counters.latency.record(1_000_000)
    return {**counters.snapshot(), **more}


def test_snapshots_are_plain_values() -> None:
    snapshot = task("map", "filter")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=dict[str, Any], strict=False)["busy_ns"] == 0
    assert json.loads(json.dumps(snapshot))["operators"][1]["operator"] == "filter"


def test_a_job_adds_up_its_tasks() -> None:
    tasks = [
        task("source", "map", busy=30, idle=10, source=True),
        task("source", "map", busy=10, idle=30, source=True),
        task("count", "sink", records=7, idle=60, backpressured=20, end=True),
    ]
    metrics = JobMetrics.of(tasks, seconds=2.0)
    assert metrics["records_in"] == 20
    assert metrics["records_out"] == 6
    assert metrics["errors"] == 6
    assert metrics["busy"] == pytest.approx(40 / 160)
    assert metrics["backpressured"] == pytest.approx(20 / 160)
    assert metrics["latency_p50"] == pytest.approx(0.001, rel=0.03)
    mapped = metrics.operators["map"]
    assert (mapped["records_in"], mapped["parallelism"], mapped["gate_depth"]) == (20, 2, 0)
    assert mapped["records_in_rate"] == 10.0
    assert (mapped["busy"], mapped["idle"], mapped["backpressured"]) == (0.5, 0.5, 0.0)
    assert metrics.operators["source"]["gate_depth"] == 6
    assert metrics["operators"]["sink"]["backpressured"] == 0.25
    assert len(metrics["tasks"]) == 3


def test_metrics_survive_json() -> None:
    metrics = JobMetrics.of([task("source", source=True, end=True)], seconds=1.0)
    again = json.loads(json.dumps(dict(metrics)))
    assert JobMetrics.of(again["tasks"], seconds=1.0).operators == metrics.operators


def test_a_job_that_has_not_begun_has_zeros() -> None:
    metrics = JobMetrics.of([], seconds=0.0)
    assert (metrics["records_in"], metrics["busy"], metrics["latency_p99"], metrics["operators"]) == (0, 0.0, 0.0, {})
    assert JobMetrics.of([task("map")], seconds=0.0).operators["map"]["records_in_rate"] == 0.0
    assert set(metrics) == set(dict(metrics))
    assert len(metrics) == len(list(metrics))
    assert "records_in" in repr(metrics)


def test_counters_merge_by_name() -> None:
    first = TaskCounters([OperatorCounters("map", records_in=1, retried=1)], busy_ns=5, batches=1, gate_depth=2)
    second = TaskCounters([OperatorCounters("map", records_in=2, skipped=3), OperatorCounters("sink", dead_letters=4)], idle_ns=7)
    second.latency.record(9)
    first.merge(second)
    found = first.snapshot()
    assert [row["operator"] for row in found["operators"]] == ["map", "sink"]
    assert found["operators"][0]["records_in"] == 3
    assert (found["operators"][0]["retried"], found["operators"][0]["skipped"], found["operators"][1]["dead_letters"]) == (1, 3, 4)
    assert (found["busy_ns"], found["idle_ns"], found["batches"], found["gate_depth"]) == (5, 7, 1, 2)
    assert found["latency"]["sum"] == 9
    second.operators[1].records_in = 100
    assert first.operators[1].records_in == 0
