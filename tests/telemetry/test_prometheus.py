"""Job metrics as Prometheus text, read back with the client's own parser."""

from __future__ import annotations

import json
import subprocess
import sys

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from sage_actor.telemetry.checkpoint_counters import CheckpointCounters
from sage_actor.telemetry.counters import JobMetrics, OperatorCounters, TaskCounters
from sage_actor.telemetry.prometheus import CONTENT_TYPE, render

Labels = tuple[tuple[str, str], ...]


def metrics(index: int = 0) -> JobMetrics:
    counters = TaskCounters([OperatorCounters("read", records_in=5, records_out=5), OperatorCounters("map", 5, 4)])
    counters.operators[1] = OperatorCounters("map", records_in=5, records_out=4, errors=1, dead_letters=1)
    counters.busy_ns, counters.idle_ns, counters.batches, counters.gate_depth_bytes = 1_500_000_000, 500_000_000, 2, 77
    for nanoseconds in (900, 1_500, 3_000_000, 10**12):
        counters.latency.record(nanoseconds)
    return JobMetrics.of([{**counters.snapshot(), "index": index, "source": True}], seconds=2.0)


def samples(text: str) -> dict[str, dict[Labels, float]]:
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def labels(**values: str) -> Labels:
    return tuple(sorted(values.items()))


def test_every_counter_has_job_operator_and_task() -> None:
    found = samples(render({"totals": metrics(), "other": metrics(3)}))
    assert found["sage_records_in_total"][labels(job="totals", operator="map", task="0")] == 5
    assert found["sage_records_out_total"][labels(job="other", operator="map", task="3")] == 4
    assert found["sage_errors_total"][labels(job="totals", operator="read", task="0")] == 0
    assert found["sage_dead_letters_total"][labels(job="totals", operator="map", task="0")] == 1
    assert found["sage_busy_seconds_total"][labels(job="totals", operator="read", task="0")] == 1.5
    assert found["sage_batches_total"][labels(job="totals", operator="read", task="0")] == 2
    assert found["sage_gate_bytes"][labels(job="totals", operator="read", task="0")] == 77
    assert found["sage_job_seconds"][labels(job="other")] == 2.0
    assert set(found) >= {"sage_retries_total", "sage_skipped_total", "sage_idle_seconds_total", "sage_backpressured_seconds_total"}


def test_latency_is_a_cumulative_histogram_in_seconds() -> None:
    found = samples(render({"totals": metrics()}))
    own = {"job": "totals", "operator": "read", "task": "0"}
    buckets = found["sage_latency_seconds_bucket"]
    assert buckets[labels(**own, le="1e-06")] == 1
    assert buckets[labels(**own, le="2e-06")] == 2
    assert buckets[labels(**own, le="0.005")] == 3
    assert buckets[labels(**own, le="5.0")] == 3
    assert buckets[labels(**own, le="+Inf")] == 4
    assert found["sage_latency_seconds_count"][labels(**own)] == 4
    assert found["sage_latency_seconds_sum"][labels(**own)] == (900 + 1_500 + 3_000_000 + 10**12) / 1e9


def test_names_are_escaped() -> None:
    name = 'a "quoted"\\path\nline'
    assert samples(render({name: metrics()}))["sage_job_seconds"] == {labels(job=name): 2.0}


def test_metrics_from_json_render_alike() -> None:
    assert render({"totals": json.loads(json.dumps(dict(metrics())))}) == render({"totals": metrics()})


def test_no_jobs_is_valid_and_the_process_wide_registry_stays_untouched() -> None:
    before = {family.name for family in REGISTRY.collect()}
    assert samples(render({})) == {}
    render({"totals": metrics()})
    assert {family.name for family in REGISTRY.collect()} == before
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_import_loads_neither_prometheus_client_nor_structlog() -> None:
    code = (
        "import sys, sage_actor.telemetry.prometheus, sage_actor.telemetry.logs, sage_actor.telemetry.counters;"
        "print(sorted({'prometheus_client', 'structlog', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_checkpoints_restarts_pauses_and_late_records() -> None:
    counters = TaskCounters([OperatorCounters("window", records_in=9, late=2)])
    counters.snapshot_pause.record(1_500_000)
    checkpoints = CheckpointCounters()
    checkpoints.complete(3, seconds=0.5, nbytes=10, now_ms=1_000)
    checkpoints.complete(4, seconds=0.25, nbytes=20, now_ms=5_000)
    checkpoints.fail()
    told = {**JobMetrics.of([counters.snapshot()], seconds=1.0), "attempts": 3, "checkpoints": checkpoints.snapshot()}
    begun = {**told, "attempts": 0, "checkpoints": CheckpointCounters().snapshot()}
    found = samples(render({"job": told, "begun": begun, "plain": metrics()}, now_ms=7_000))
    job = labels(job="job")
    assert found["sage_checkpoints_total"] == {job: 2, labels(job="begun"): 0}
    assert found["sage_checkpoint_failures_total"][job] == 1
    assert found["sage_checkpoint_seconds_total"][job] == 0.75
    assert found["sage_checkpoint_newest"] == {job: 4}, "of a job without one nothing is said"
    assert found["sage_checkpoint_newest_seconds"] == {job: 0.25}
    assert found["sage_checkpoint_newest_bytes"] == {job: 20}
    assert found["sage_checkpoint_age_seconds"] == {job: 2.0}
    assert found["sage_restarts_total"] == {job: 2, labels(job="begun"): 0, labels(job="plain"): 0}
    own = {"job": "job", "operator": "window", "task": "0"}
    assert found["sage_late_total"][labels(**own)] == 2
    assert found["sage_snapshot_pause_seconds_count"][labels(**own)] == 1
    assert found["sage_snapshot_pause_seconds_bucket"][labels(**own, le="0.001")] == 0
    assert found["sage_snapshot_pause_seconds_bucket"][labels(**own, le="0.002")] == 1
