"""Job metrics as Prometheus text, made when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sage_actor.ports import system_clock
from sage_actor.telemetry.histogram import LogHistogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BOUNDS_NS = tuple(step * 10**power for power in range(3, 10) for step in (1, 2, 5))
"""Upper bounds of the buckets, 1 us to 5 s."""

_OPERATOR_COUNTERS = (
    ("records_in", "sage_records_in", "Records an operator took in."),
    ("records_out", "sage_records_out", "Records an operator gave out."),
    ("errors", "sage_errors", "Records whose function raised."),
    ("retried", "sage_retries", "Further tries after an error."),
    ("skipped", "sage_skipped", "Records left out after an error."),
    ("dead_letters", "sage_dead_letters", "Records handed to the dead letters after an error."),
    ("late", "sage_late", "Records that came behind the watermark, too late to count."),
)
_CHECKPOINT_COUNTERS = (
    ("completed", "sage_checkpoints", "Checkpoints that were completed."),
    ("failed", "sage_checkpoint_failures", "Checkpoints that were given up."),
    ("seconds", "sage_checkpoint_seconds", "Time from the beginning of complete checkpoints to their end, added up."),
)
_NEWEST_CHECKPOINT = (
    ("newest", "sage_checkpoint_newest", "Number of the newest complete checkpoint."),
    ("newest_seconds", "sage_checkpoint_newest_seconds", "Time that the newest complete checkpoint took."),
    ("newest_bytes", "sage_checkpoint_newest_bytes", "State that the newest complete checkpoint refers to."),
)
_TASK_HISTOGRAMS = (
    ("latency", "sage_latency_seconds", "Time a task took from a drained batch to its results handed on."),
    ("snapshot_pause", "sage_snapshot_pause_seconds", "Time records stood still in a task while its state was frozen."),
)
_TASK_SECONDS = (
    ("busy_ns", "sage_busy_seconds", "Time a task worked."),
    ("idle_ns", "sage_idle_seconds", "Time a task waited for input."),
    ("backpressured_ns", "sage_backpressured_seconds", "Time a task waited for room downstream."),
)
_TASK_GAUGES = (
    ("gate_depth", "sage_gate_records", "Records waiting in front of a task."),
    ("gate_depth_bytes", "sage_gate_bytes", "Bytes waiting in front of a task."),
)


def render(metrics: Mapping[str, Mapping[str, Any]], now_ms: int | None = None) -> str:
    """The text exposition (format 0.0.4, `CONTENT_TYPE`) of any number of jobs: job label -> its `JobMetrics`.

    Also takes metrics that travelled through JSON. Uses a registry of its own: nothing of the process-wide one appears, and
    nothing stays registered. Operator counters carry the labels ``job``, ``operator``, ``task`` (index of the parallel
    instance); times, gates and histograms belong to a task and carry its first operator; restarts and checkpoints belong to a job.
    The age of the newest checkpoint is that at `now_ms` (milliseconds since the epoch), this moment if it is not given.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reader(metrics, system_clock.now_ms() if now_ms is None else now_ms))
    return generate_latest(registry).decode()


class _Reader:
    """What prometheus_client calls a collector: reads on demand."""

    def __init__(self, metrics: Mapping[str, Mapping[str, Any]], now_ms: int) -> None:
        self._metrics = metrics
        self._now_ms = now_ms

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield from self._jobs()
        yield from self._counted()
        yield from self._histograms()

    def _jobs(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        uptime = GaugeMetricFamily("sage_job_seconds", "Time since a job started.", labels=("job",))
        restarts = CounterMetricFamily("sage_restarts", "Attempts of a job after the first.", labels=("job",))
        for job, values in self._metrics.items():
            uptime.add_metric((job,), float(values["seconds"]))
            restarts.add_metric((job,), max(0, int(values.get("attempts", 1)) - 1))
        yield uptime
        yield restarts
        checkpoints = {job: values["checkpoints"] for job, values in self._metrics.items() if "checkpoints" in values}
        for key, name, meaning in _CHECKPOINT_COUNTERS:
            counter = CounterMetricFamily(name, meaning, labels=("job",))
            for job, counts in checkpoints.items():
                counter.add_metric((job,), counts[key])
            yield counter
        # Of a job that has none yet, nothing is said: an age of 0 would look like a fresh one.
        begun = {job: counts for job, counts in checkpoints.items() if counts["completed"]}
        for key, name, meaning in _NEWEST_CHECKPOINT:
            newest = GaugeMetricFamily(name, meaning, labels=("job",))
            for job, counts in begun.items():
                newest.add_metric((job,), counts[key])
            yield newest
        age = GaugeMetricFamily("sage_checkpoint_age_seconds", "Time since the newest checkpoint was complete.", labels=("job",))
        for job, counts in begun.items():
            age.add_metric((job,), max(0.0, (self._now_ms - counts["newest_at"]) / 1000))
        yield age

    def _counted(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for key, name, meaning in _OPERATOR_COUNTERS:
            records = CounterMetricFamily(name, meaning, labels=("job", "operator", "task"))
            for job, index, task in self._tasks():
                for row in task["operators"]:
                    records.add_metric((job, row["operator"], index), row.get(key, 0))
            yield records
        for key, name, meaning in _TASK_SECONDS:
            times = CounterMetricFamily(name, meaning, labels=("job", "operator", "task"))
            for labels, task in self._labelled_tasks():
                times.add_metric(labels, task[key] / 1e9)
            yield times
        batches = CounterMetricFamily("sage_batches", "Batches a task took in.", labels=("job", "operator", "task"))
        for labels, task in self._labelled_tasks():
            batches.add_metric(labels, task["batches"])
        yield batches
        for key, name, meaning in _TASK_GAUGES:
            depths = GaugeMetricFamily(name, meaning, labels=("job", "operator", "task"))
            for labels, task in self._labelled_tasks():
                depths.add_metric(labels, task[key])
            yield depths

    def _histograms(self) -> Iterable[Metric]:
        from prometheus_client.core import HistogramMetricFamily

        for key, name, meaning in _TASK_HISTOGRAMS:
            family = HistogramMetricFamily(name, meaning, labels=("job", "operator", "task"))
            for labels, task in self._labelled_tasks():
                if key in task:
                    histogram = LogHistogram.from_dict(task[key])
                    family.add_metric(labels, cumulative(histogram), histogram.sum / 1e9)
            yield family

    def _tasks(self) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
        for job, values in self._metrics.items():
            for position, task in enumerate(values["tasks"]):
                yield job, str(task.get("index", position)), task

    def _labelled_tasks(self) -> Iterable[tuple[Sequence[str], Mapping[str, Any]]]:
        for job, index, task in self._tasks():
            yield (job, task["operators"][0]["operator"], index), task


def cumulative(histogram: LogHistogram) -> list[tuple[str, float]]:
    """Bucket bounds in seconds and how many values do not exceed them; a value counts where its bucket ends (3 % later at most)."""
    counts = [0] * (len(BOUNDS_NS) + 1)
    for highest, times in histogram.buckets():
        counts[bisect_left(BOUNDS_NS, highest)] += times
    bounds = [*(str(bound / 1e9) for bound in BOUNDS_NS), "+Inf"]
    seen = 0
    result: list[tuple[str, float]] = []
    for bound, count in zip(bounds, counts, strict=True):
        seen += count
        result.append((bound, seen))
    return result
