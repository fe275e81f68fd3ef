"""Metrics of all jobs as Prometheus text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sage_actor.jobs.lifecycle import is_final
from sage_actor.jobs.record import JobRecord
from sage_actor.server.messages import view

__all__ = ["exposition"]

_OPERATOR = (
    ("records_in", "records_in_total", "counter", "Records an operator took in."),
    ("records_out", "records_out_total", "counter", "Records an operator gave out."),
    ("errors", "errors_total", "counter", "Records an operator failed on."),
    ("busy", "busy_ratio", "gauge", "Share of time an operator worked."),
    ("idle", "idle_ratio", "gauge", "Share of time an operator waited for input."),
    ("backpressured", "backpressured_ratio", "gauge", "Share of time an operator waited for room."),
)


def _label(value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'


def exposition(records: Sequence[JobRecord]) -> str:
    """Prometheus text format 0.0.4: jobs by status, and the operators of live jobs."""
    lines = ["# HELP sage_actor_jobs Jobs by status.", "# TYPE sage_actor_jobs gauge"]
    lines += [f"sage_actor_jobs{{status={_label(status)}}} {count}" for status, count in sorted(Counter(r.status for r in records).items())]
    live = [view(record) for record in records if not is_final(record.status)]
    for field, name, kind, meaning in _OPERATOR:
        lines += [f"# HELP sage_actor_operator_{name} {meaning}", f"# TYPE sage_actor_operator_{name} {kind}"]
        for job in live:
            for operator in job.operators:
                labels = ",".join(
                    f"{key}={_label(value)}"
                    for key, value in (("job", job.name), ("job_id", job.id), ("dataflow", operator.dataflow), ("operator", operator.name))
                )
                lines.append(f"sage_actor_operator_{name}{{{labels}}} {getattr(operator, field)}")
    return "\n".join(lines) + "\n"
