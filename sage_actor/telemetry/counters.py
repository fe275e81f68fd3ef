"""Plain counters kept by the hot path per batch, and the views exporters read. Exporters are never called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sage_actor.telemetry.histogram import LogHistogram

__all__ = ["JobMetrics", "OperatorCounters", "TaskCounters"]

FIELDS = ("records_in", "records_out", "errors", "retried", "skipped", "dead_letters")


class OperatorCounters:
    """Records of one operator of one task. Plain integers; written by the task's loop only."""

    __slots__ = ("dead_letters", "errors", "name", "records_in", "records_out", "retried", "skipped")

    def __init__(self, name: str) -> None:
        self.name = name
        self.records_in = 0
        self.records_out = 0
        self.errors = 0
        self.retried = 0
        self.skipped = 0
        self.dead_letters = 0

    def snapshot(self) -> dict[str, Any]:
        """Name and counts."""
        return {"operator": self.name, **{field: getattr(self, field) for field in FIELDS}}


class TaskCounters:
    """One task: its operators, and where its time went (nanoseconds).

    ``latency`` holds the time from taking a drained batch to having handed its results on, sampled per turn.
    """

    __slots__ = ("backpressured_ns", "batches", "busy_ns", "gate_depth", "gate_depth_bytes", "idle_ns", "latency", "operators")

    def __init__(self, operators: Sequence[OperatorCounters]) -> None:
        self.operators = list(operators)
        self.busy_ns = 0
        self.idle_ns = 0
        self.backpressured_ns = 0
        self.batches = 0
        self.gate_depth = 0
        self.gate_depth_bytes = 0
        self.latency = LogHistogram()

    def snapshot(self) -> dict[str, Any]:
        """Everything as plain values that any serializer takes."""
        return {
            "operators": [operator.snapshot() for operator in self.operators],
            "busy_ns": self.busy_ns,
            "idle_ns": self.idle_ns,
            "backpressured_ns": self.backpressured_ns,
            "batches": self.batches,
            "gate_depth": self.gate_depth,
            "gate_depth_bytes": self.gate_depth_bytes,
            "latency": self.latency.to_dict(),
        }


class JobMetrics(Mapping[str, Any]):
    """A job's counters at one moment.

    Keys: ``records_in`` (taken by all sources), ``records_out`` (taken by all ends), ``errors``, ``retried``, ``skipped``,
    ``dead_letters``, ``seconds``, ``operators`` (name -> counts, ``records_in_rate`` and ``records_out_rate`` per second since
    the start, ``parallelism``, and the shares ``busy``, ``idle``, ``backpressured``, 0..1, of its tasks' time), ``tasks``
    (one mapping per task, as reported).
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"JobMetrics({self._values!r})"

    @classmethod
    def of(cls, tasks: Sequence[Mapping[str, Any]], *, seconds: float) -> JobMetrics:
        """Add up the snapshots of a job's tasks."""
        operators: dict[str, dict[str, Any]] = {}
        times: dict[str, list[int]] = {}
        records_in = records_out = 0
        for task in tasks:
            rows = task["operators"]
            for i, row in enumerate(rows):
                total = operators.setdefault(row["operator"], {**dict.fromkeys(FIELDS, 0), "parallelism": 0, "gate_depth": 0})
                for field in FIELDS:
                    total[field] += row[field]
                total["parallelism"] += 1
                if i == 0:
                    total["gate_depth"] += task["gate_depth"]
                spent = times.setdefault(row["operator"], [0, 0, 0])
                for j, field in enumerate(("busy_ns", "idle_ns", "backpressured_ns")):
                    spent[j] += task[field]
            if task.get("source"):
                records_in += rows[0]["records_in"]
            if task.get("end"):
                records_out += rows[-1]["records_out"]
        for name, total in operators.items():
            busy, idle, held = times[name]
            whole = max(busy + idle + held, 1)
            total.update(busy=busy / whole, idle=idle / whole, backpressured=held / whole)
            total["records_in_rate"] = total["records_in"] / seconds if seconds > 0 else 0.0
            total["records_out_rate"] = total["records_out"] / seconds if seconds > 0 else 0.0
        sums = {field: sum(total[field] for total in operators.values()) for field in FIELDS[2:]}
        return cls({"records_in": records_in, "records_out": records_out, **sums, "seconds": seconds, "operators": operators, "tasks": list(tasks)})
