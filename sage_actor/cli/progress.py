"""How far the dataflows of this process are: a live table on a terminal, plain lines when piped; always on stderr."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self, cast

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sage_actor.cli.tables import draw_table, print_table
from sage_actor.jobs.standing import in_words, size_in_words
from sage_actor.jobs.watch import JobWatch
from sage_actor.ports import system_clock
from sage_actor.runtime.job import Job
from sage_actor.telemetry.counters import JobMetrics, OperatorMetrics

__all__ = ["Progress"]

PLAIN_EVERY = 2.0
COLUMNS = ("operator", "in", "out", "errors", "records/s", "busy", "idle", "held back")


class Progress:
    """Shows every job of a watch while the ``with`` block runs."""

    def __init__(self, watch: JobWatch) -> None:
        self._watch = watch
        self._console = Console(stderr=True)
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}
        self._rates: dict[tuple[str, str], float] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # stdout belongs to the script. Only where both reach the same screen is it drawn above the table.
            shared = sys.stdout.isatty()
            self._live = Live(
                get_renderable=self._draw,
                console=self._console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=shared,
                redirect_stderr=True,
            )
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._tell_plainly, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join()

    def _tell_plainly(self) -> None:
        while not self._ended.wait(PLAIN_EVERY):
            for job in self._watch.live:
                metrics = job.metrics()
                seconds = _seconds(metrics)
                operators = ", ".join(
                    f"{name} {each['records_in']:,} ({self._rate(job, name, each, seconds):,.0f}/s)"
                    for name, each in metrics.operators.items()
                )
                more = "".join(f", {each}" for each in _more(job, metrics))
                sys.stderr.write(f"{job.name}: {in_words(job)}, {seconds:.0f} s{more}, records in: {operators or 'none yet'}\n")
                sys.stderr.flush()

    def _draw(self) -> Group:
        jobs = self._watch.live
        if not jobs:
            return Group(Text("no dataflow is running", style="dim"))
        return Group(*(self._table(job) for job in jobs))

    def _table(self, job: Job) -> Table:
        metrics = job.metrics()
        title = ", ".join((f"{job.name}: {in_words(job)}", *_more(job, metrics)))
        return draw_table(title, COLUMNS, self._rows(job, metrics))

    def _rows(self, job: Job, metrics: JobMetrics) -> list[list[str]]:
        return [
            [
                name,
                *_counts(each),
                f"{self._rate(job, name, each, _seconds(metrics)):,.0f}",
                f"{each['busy']:.0%}",
                f"{each['idle']:.0%}",
                f"{each['backpressured']:.0%}",
            ]
            for name, each in metrics.operators.items()
        ]

    def _rate(self, job: Job, name: str, operator: OperatorMetrics, seconds: float) -> float:
        """Records a second since this was last asked, over half a second at least; at first, since the job started."""
        now, count = system_clock.monotonic(), float(_moved(operator))
        key = (job.id, name)
        before, seen = self._seen.setdefault(key, (now - seconds, 0.0))
        if now - before >= 0.5:
            self._rates[key] = (count - seen) / (now - before)
            self._seen[key] = (now, count)
        return self._rates.get(key, 0.0)

    def summary(self) -> None:
        """Every job of the watch: how it ended, and what each operator did."""
        for job in self._watch.jobs:
            metrics = job.metrics()
            seconds = max(_seconds(metrics), 1e-9)
            rows = [[name, *_counts(each), f"{_moved(each) / seconds:,.0f}"] for name, each in metrics.operators.items()]
            told = [f"{job.name}: {job.status} after {seconds:.2f} s", *_more(job, metrics)]
            if job.attempts > 1:
                told.append(f"{job.attempts} attempts")
            print_table(self._console, ", ".join(told), ("operator", "in", "out", "errors", "records/s"), rows)


def _more(job: Job, metrics: JobMetrics) -> list[str]:
    """How its checkpoints went, and how many records came too late, where there is something to say."""
    counts, late = job.checkpoint_counters, cast("int", metrics["late"])
    told: list[str] = []
    if counts.completed:
        told.append(f"{counts.completed:,} checkpoints, the last of {size_in_words(counts.newest_bytes)} in {counts.newest_seconds:.2g} s")
    if counts.failed:
        told.append(f"{counts.failed:,} failed")
    if late:
        told.append(f"{late:,} late")
    return told


def _seconds(metrics: JobMetrics) -> float:
    return cast("float", metrics["seconds"])


def _counts(operator: OperatorMetrics) -> list[str]:
    return [f"{operator['records_in']:,}", f"{operator['records_out']:,}", f"{operator['errors']:,}"]


def _moved(operator: OperatorMetrics) -> int:
    return max(operator["records_in"], operator["records_out"])
