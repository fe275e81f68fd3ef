"""Metrics of all jobs as Prometheus text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sage_actor.jobs.lifecycle import is_final
from sage_actor.jobs.record import JobRecord
from sage_actor.telemetry.prometheus import render

__all__ = ["exposition"]


def exposition(records: Sequence[JobRecord]) -> str:
    """Prometheus text: jobs by status, and what `render` tells of the dataflows of live jobs.

    The label ``job`` is ``name:id``, since names need not be unique; further dataflows of one script get a number behind it.
    """
    metrics: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if not is_final(record.status):
            for number, dataflow in enumerate(json.loads(record.metrics), 1):
                metrics[f"{record.name}:{record.id}" + (f":{number}" if number > 1 else "")] = dataflow["metrics"]
    lines = ["# HELP sage_jobs Jobs by status.", "# TYPE sage_jobs gauge"]
    lines += [f'sage_jobs{{status="{status}"}} {count}' for status, count in sorted(Counter(record.status for record in records).items())]
    return "\n".join(lines) + "\n" + render(metrics)
