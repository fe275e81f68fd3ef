"""``sage demo``: a census of the standard library, on the backend of your choice, checked against a plain loop.

It takes checkpoints. Killed in the middle, it goes on from the last of them when it is started again.
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, cast

import typer
from rich.console import Console

from sage_actor.cli.census import SourceFile, Totals, count_plainly, describe_census, library_files
from sage_actor.cli.demo_checkpoints import checkpoints_of_demo
from sage_actor.cli.progress import Progress
from sage_actor.cli.tables import print_table
from sage_actor.config.environment import environment
from sage_actor.jobs.watch import JobWatch
from sage_actor.ports import system_clock
from sage_actor.runtime.job import Job
from sage_actor.stream.environment import defaults
from sage_actor.stream.local_environment import LocalEnvironment
from sage_actor.telemetry.counters import OperatorSnapshot

__all__ = ["demo"]

TASKS = 2
LEAST_SHARE = 0.2
TOP = 10
INTERVAL = "500ms"


def demo(backend: Annotated[str, typer.Option("--backend", "-b", help="local, process, redis, redis://..., or ray")] = "local") -> None:
    """Count every identifier in Python's own standard library with a dataflow, and check it against collections.Counter."""
    with _address(backend) as address:
        raise typer.Exit(_take_census(address))


@contextmanager
def _address(backend: str) -> Generator[str, None, None]:
    if backend != "redis":
        yield backend
        return
    url = environment("SAGE_REDIS_URL")
    if url is not None:
        yield url
        return
    from sage_actor.testing.redis_server import redis_server

    print("no SAGE_REDIS_URL: starting a private Redis server", file=sys.stderr)
    with redis_server() as private:
        yield private


def _take_census(backend: str) -> int:
    files = library_files()
    print(f"{len(files):,} files of the standard library, backend {backend}, {TASKS} tasks per operator", file=sys.stderr)
    watch = JobWatch()
    defaults.observers.append(watch.add)
    with checkpoints_of_demo(backend, files) as folder:
        config = {} if folder is None else {"checkpoint.interval": INTERVAL, "checkpoint.dir": str(folder)}
        env = LocalEnvironment("census", backend=backend, parallelism=TASKS, resume=folder is not None, config=config)
        census = describe_census(env, files)
        began = system_clock.monotonic()
        with Progress(watch):
            job = env.submit()
            _say_where_it_begins(job)
            env.wait_for_completion(job)
        seconds = system_clock.monotonic() - began
    packages, counts = census.packages(), census.counts()
    _show(packages, counts)
    words = counts.total()
    resumed = job.restored_from is not None
    rate = "the others before it was killed" if resumed else f"{words / seconds:,.0f}/s"
    print(f"{words:,} identifiers counted{', the last of them' if resumed else ''} in {seconds:.1f} s ({rate})")
    fair = backend == "local" or _show_workers(job)
    equal = _check(files, packages, counts)
    return 0 if fair and equal else 1


def _say_where_it_begins(job: Job) -> None:
    while not (job.attempts or job.done):
        job.wait_in_thread(0.02)
    if job.restored_from is not None:
        print(f"going on from checkpoint {job.restored_from} of a demo that did not come to its end", file=sys.stderr)


def _show(packages: Mapping[str, Totals], counts: Mapping[tuple[str, str], int]) -> None:
    console = Console()
    overall: Counter[str] = Counter()
    by_package: dict[str, Counter[str]] = {}
    for (package, word), count in counts.items():
        overall[word] += count
        by_package.setdefault(package, Counter())[word] = count
    largest = sorted(packages.items(), key=lambda item: (-item[1][2], item[0]))[:TOP]
    rows = [
        [name, *(f"{total:,}" for total in totals), ", ".join(word for word, _ in most_frequent(by_package.get(name, Counter[str]()), 5))]
        for name, totals in largest
    ]
    rows.append(["all", *(f"{sum(each[column] for each in packages.values()):,}" for column in range(3)), f"{len(overall):,} different"])
    print_table(
        console,
        f"The {len(largest)} largest of {len(packages)} packages",
        ("package", "files", "lines", "identifiers", "most frequent"),
        rows,
    )
    print_table(
        console,
        "The most frequent identifiers",
        ("identifier", "count"),
        [[word, f"{count:,}"] for word, count in most_frequent(overall, TOP)],
    )


def most_frequent(counts: Counter[str], number: int) -> list[tuple[str, int]]:
    """The top of a count; of equal ones the first in the alphabet, so that every backend shows the same table."""
    return heapq.nsmallest(number, counts.items(), key=lambda item: (-item[1], item[0]))


def _show_workers(job: Job) -> bool:
    """Name the worker processes with their shares; says False if one of them had too little to do.

    After a restart the shares are of what was left, and prove nothing.
    """
    records: Counter[int] = Counter()
    for task in cast("Sequence[Mapping[str, object]]", job.metrics()["tasks"]):
        if task["worker"]:  # 0 is this process, which deals and collects
            first = cast("Sequence[OperatorSnapshot]", task["operators"])[0]
            records[cast("int", task["pid"])] += first["records_in"]
    total = records.total() or 1
    rows = [[str(pid), f"{count:,}", f"{count / total:.0%}"] for pid, count in sorted(records.items())]
    print_table(Console(), "Worker processes", ("process", "records in", "share"), rows)
    if job.restored_from is None and (len(records) != TASKS or min(records.values()) < LEAST_SHARE * total):
        print(f"error: {TASKS} workers were to share the records, none with less than {LEAST_SHARE:.0%}", file=sys.stderr)
        return False
    return True


def _check(files: Sequence[SourceFile], packages: Mapping[str, Totals], counts: Counter[tuple[str, str]]) -> bool:
    plain_packages, plain_counts = count_plainly(files)
    if packages == plain_packages and counts == plain_counts:
        print(f"equal to collections.Counter over the same {len(files):,} files")
        return True
    wrong = sum(1 for key in plain_counts.keys() | counts.keys() if plain_counts[key] != counts[key])
    print(f"error: {wrong:,} counts differ from collections.Counter over the same files", file=sys.stderr)
    return False
