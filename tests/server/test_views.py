"""What is told of a job over HTTP, made of what its process has reported."""

from __future__ import annotations

import json
from typing import Any

from sage_actor.jobs.record import JobRecord
from sage_actor.server.client import _job
from sage_actor.server.exposition import exposition
from sage_actor.server.messages import view
from sage_actor.telemetry.checkpoint_counters import CheckpointCounters
from sage_actor.telemetry.counters import JobMetrics, OperatorCounters, TaskCounters


def flow(status: str = "running", **more: Any) -> dict[str, Any]:
    counters = TaskCounters([OperatorCounters("window", records_in=9, records_out=2, late=3)])
    counters.snapshot_pause.record(2_000_000)
    checkpoints = CheckpointCounters()
    checkpoints.complete(7, seconds=0.5, nbytes=1234, now_ms=99_000)
    metrics = {**JobMetrics.of([counters.snapshot()], seconds=2.0), "attempts": 3, "checkpoints": checkpoints.snapshot()}
    return {"job": "flow", "status": status, "error": "", "attempts": 3, "latest_error": "ValueError: x", "metrics": metrics, **more}


def record(*flows: dict[str, Any], **more: Any) -> JobRecord:
    return JobRecord(
        **{"id": "1", "name": "job", "kind": "graph", "status": "running", "attempts": 2, "metrics": json.dumps(flows), **more}
    )


def test_a_job_restarts_when_one_of_its_dataflows_does() -> None:
    assert view(record(flow(), flow("restarting"))).status == "restarting"
    assert view(record(flow(), flow())).status == "running"
    assert view(record(flow("restarting"), status="cancelled")).status == "cancelled", "what was reported last may be old"
    assert view(record()).status == "running"


def test_restarts_checkpoints_pauses_and_late_records_are_told() -> None:
    seen = view(record(flow(), flow(attempts=0)))
    assert (seen.attempts, seen.restarts, seen.late) == (2, 2, 6)
    told = seen.dataflows[0]
    assert (told.attempts, told.latest_error, told.restored_from, told.restoring) == (3, "ValueError: x", None, None)
    assert (told.checkpoints.newest, told.checkpoints.newest_bytes, told.checkpoints.newest_at) == (7, 1234, 99_000)
    assert 0.0019 < told.pause_p99 < 0.0022
    assert seen.operators[0].late == 3


def test_the_client_reads_what_the_server_says() -> None:
    restoring = {"opened": 3, "tasks": 8, "bytes": 120, "checkpoint": 7}
    seen = view(record(flow(restored_from=7, restoring=restoring)))
    told = _job(json.loads(seen.model_dump_json()))
    (dataflow,) = told.dataflows
    assert dataflow.restoring == restoring
    assert dataflow.restored_from == 7
    assert dataflow.checkpoints["completed"] == 1
    assert (told.restarts, told.late, told.operators[0].late) == (2, 3, 3)


def test_what_an_older_process_reported_is_enough() -> None:
    old = flow()
    del old["metrics"]["checkpoints"], old["metrics"]["attempts"], old["attempts"], old["latest_error"]
    seen = view(record(old))
    assert (seen.restarts, seen.dataflows[0].checkpoints.completed) == (0, 0)


def test_prometheus_has_the_checkpoints_of_live_jobs() -> None:
    text = exposition([record(flow()), record(flow(), id="2", status="failed")])
    assert 'sage_checkpoints_total{job="job:1"} 1.0' in text
    assert 'sage_restarts_total{job="job:1"} 2.0' in text
    assert "job:2" not in text
