"""Plain counters kept by the hot path per batch, and the views exporters read. Exporters are never called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, cast

from sage_actor.telemetry.histogram import HistogramCounts, LogHistogram

__all__ = ["JobMetrics", "OperatorCounters", "OperatorMetrics", "OperatorSnapshot", "TaskCounters", "TaskSnapshot"]

FIELDS = ("records_in", "records_out", "errors", "retried", "skipped", "dead_letters", "late")
TIMES = ("busy_ns", "idle_ns", "backpressured_ns")


class OperatorSnapshot(TypedDict):
    """Counts of one operator in one task."""

    operator: str
    records_in: int
    records_out: int
    errors: int
    retried: int
    skipped: int
    dead_letters: int
    late: int


class TaskSnapshot(TypedDict):
    """Counters of one task, as plain values that any serializer takes."""

    operators: list[OperatorSnapshot]
    busy_ns: int
    idle_ns: int
    backpressured_ns: int
    batches: int
    gate_depth: int
    gate_depth_bytes: int
    latency: HistogramCounts
    snapshot_pause: HistogramCounts


class OperatorMetrics(TypedDict):
    """One operator over all its parallel instances; rates are per second since the start, shares 0..1 of its tasks' time."""

    records_in: int
    records_out: int
    errors: int
    retried: int
    skipped: int
    dead_letters: int
    late: int
    records_in_rate: float
    records_out_rate: float
    parallelism: int
    gate_depth: int
    busy: float
    idle: float
    backpressured: float


@dataclass(slots=True, eq=False)
class OperatorCounters:
    """Records of one operator of one task. Plain integers; written by the task's loop only."""

    name: str
    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    retried: int = 0
    skipped: int = 0
    dead_letters: int = 0
    late: int = 0

    def snapshot(self) -> OperatorSnapshot:
        """Name and counts, as plain values."""
        return {
            "operator": self.name,
            "records_in": self.records_in,
            "records_out": self.records_out,
            "errors": self.errors,
            "retried": self.retried,
            "skipped": self.skipped,
            "dead_letters": self.dead_letters,
            "late": self.late,
        }

    def merge(self, other: OperatorCounters) -> None:
        """Add the counts of another instance, or of an earlier attempt."""
        self.records_in += other.records_in
        self.records_out += other.records_out
        self.errors += other.errors
        self.retried += other.retried
        self.skipped += other.skipped
        self.dead_letters += other.dead_letters
        self.late += other.late


@dataclass(slots=True, eq=False)
class TaskCounters:
    """One task: its operators in order, and where its time went (nanoseconds). Written by the task's loop only.

    ``latency`` holds the time from taking a drained batch to having handed its results on, sampled per turn; ``snapshot_pause`` how
    long records stood still while the state was frozen.
    """

    operators: list[OperatorCounters]
    busy_ns: int = 0
    idle_ns: int = 0
    backpressured_ns: int = 0
    batches: int = 0
    gate_depth: int = 0
    gate_depth_bytes: int = 0
    latency: LogHistogram = field(default_factory=LogHistogram)
    snapshot_pause: LogHistogram = field(default_factory=LogHistogram)

    def snapshot(self) -> TaskSnapshot:
        """Everything as plain values; safe to call from another thread."""
        return {
            "operators": [operator.snapshot() for operator in self.operators],
            "busy_ns": self.busy_ns,
            "idle_ns": self.idle_ns,
            "backpressured_ns": self.backpressured_ns,
            "batches": self.batches,
            "gate_depth": self.gate_depth,
            "gate_depth_bytes": self.gate_depth_bytes,
            "latency": self.latency.to_dict(),
            "snapshot_pause": self.snapshot_pause.to_dict(),
        }

    def merge(self, other: TaskCounters) -> None:
        """Add another instance's counters; operators are matched by name, unknown ones are appended."""
        mine = {operator.name: operator for operator in self.operators}
        for operator in other.operators:
            if operator.name not in mine:
                mine[operator.name] = OperatorCounters(operator.name)
                self.operators.append(mine[operator.name])
            mine[operator.name].merge(operator)
        self.busy_ns += other.busy_ns
        self.idle_ns += other.idle_ns
        self.backpressured_ns += other.backpressured_ns
        self.batches += other.batches
        self.gate_depth += other.gate_depth
        self.gate_depth_bytes += other.gate_depth_bytes
        self.latency.merge(other.latency)
        self.snapshot_pause.merge(other.snapshot_pause)


class JobMetrics(Mapping[str, Any]):
    """A job's counters at one moment; never changes.

    Keys: ``records_in`` (taken by all sources), ``records_out`` (taken by all ends), ``errors``, ``retried``, ``skipped``,
    ``dead_letters``, ``late`` (behind the watermark), ``seconds``, the shares ``busy``, ``idle`` and ``backpressured`` (0..1, of all
    tasks' time),
    ``latency_p50`` and ``latency_p99`` (seconds a task took over a batch), ``operators`` (name -> `OperatorMetrics`), ``tasks``
    (one mapping per task, as reported). All values are plain: they survive JSON and MessagePack.
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

    @property
    def operators(self) -> Mapping[str, OperatorMetrics]:
        """``self["operators"]``, typed."""
        return cast("Mapping[str, OperatorMetrics]", self._values["operators"])

    @classmethod
    def of(cls, tasks: Sequence[Mapping[str, Any]], *, seconds: float) -> JobMetrics:
        """Add up the snapshots of a job's tasks.

        A task is what `TaskCounters.snapshot` answers, with ``source`` and ``end`` (true where records enter and leave the job)
        and whatever else identifies it.
        """
        operators: dict[str, OperatorMetrics] = {}
        times: dict[str, list[int]] = {}
        whole = [0, 0, 0]
        latency = LogHistogram()
        records_in = records_out = 0
        for task in tasks:
            rows: list[OperatorSnapshot] = task["operators"]
            spent = [int(task[name]) for name in TIMES]
            whole = [a + b for a, b in zip(whole, spent, strict=True)]
            latency.merge(LogHistogram.from_dict(task["latency"]))
            for place, row in enumerate(rows):
                name = row["operator"]
                total = operators.setdefault(name, _no_metrics())
                total["records_in"] += row["records_in"]
                total["records_out"] += row["records_out"]
                total["errors"] += row["errors"]
                total["retried"] += row["retried"]
                total["skipped"] += row["skipped"]
                total["dead_letters"] += row["dead_letters"]
                total["late"] += row["late"]
                total["parallelism"] += 1
                if place == 0:
                    total["gate_depth"] += task["gate_depth"]
                times[name] = [a + b for a, b in zip(times.get(name, (0, 0, 0)), spent, strict=True)]
            if task.get("source"):
                records_in += rows[0]["records_in"]
            if task.get("end"):
                records_out += rows[-1]["records_out"]
        for name, total in operators.items():
            total["busy"], total["idle"], total["backpressured"] = _shares(times[name])
            total["records_in_rate"] = total["records_in"] / seconds if seconds > 0 else 0.0
            total["records_out_rate"] = total["records_out"] / seconds if seconds > 0 else 0.0
        busy, idle, backpressured = _shares(whole)
        values: dict[str, Any] = {
            "records_in": records_in,
            "records_out": records_out,
            "errors": sum(total["errors"] for total in operators.values()),
            "retried": sum(total["retried"] for total in operators.values()),
            "skipped": sum(total["skipped"] for total in operators.values()),
            "dead_letters": sum(total["dead_letters"] for total in operators.values()),
            "late": sum(total["late"] for total in operators.values()),
            "seconds": seconds,
            "busy": busy,
            "idle": idle,
            "backpressured": backpressured,
            "latency_p50": latency.percentile(0.5) / 1e9,
            "latency_p99": latency.percentile(0.99) / 1e9,
            "operators": operators,
            "tasks": list(tasks),
        }
        return cls(values)


def _no_metrics() -> OperatorMetrics:
    return {
        "records_in": 0,
        "records_out": 0,
        "errors": 0,
        "retried": 0,
        "skipped": 0,
        "dead_letters": 0,
        "late": 0,
        "records_in_rate": 0.0,
        "records_out_rate": 0.0,
        "parallelism": 0,
        "gate_depth": 0,
        "busy": 0.0,
        "idle": 0.0,
        "backpressured": 0.0,
    }


def _shares(times: Sequence[int]) -> list[float]:
    whole = max(sum(times), 1)
    return [spent / whole for spent in times]
