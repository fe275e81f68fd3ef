"""The suite: which kills, on which backend, with which state, at which parallelism."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from courses import run_full_disk, run_zombie
from damage import missing_part, torn_manifest, torn_part
from kill_points import POINTS
from ray_cases import ray_cases
from redis_cases import redis_cases
from scenario import Case, Kill, Outcome, run_case

__all__ = ["Entry", "full_disk_in_ram", "suite"]


class Entry(NamedTuple):
    """A case by name, the backend that it is about, and what runs it in a folder that is not there yet."""

    name: str
    backend: str
    run: Callable[[Path], Outcome]


SHAPES = tuple(itertools.product(("local", "process"), ("memory", "rocksdb"), ((1,), (2,), (4,), (2, 3, 1))))
"""Backend, state and parallelism; kill-points take them in turn, so that each meets several."""

OFTEN = {
    "before the state is synced",
    "after the state is synced",
    "before the acknowledgement",
    "after the acknowledgement",
    "before pre-commit",
    "after pre-commit",
}
"""Passed by each operator or task at each checkpoint."""

AT_START = {"after taking over", "while state is restored", "before a sink recovers", "after a sink has recovered"}
"""Passed when a run begins: a kill at a random time comes first, so that there is something to go on from."""

RUN_AGAIN = Kill("after the manifest", 3)


def kills_at(point: str, parallelism: tuple[int, ...]) -> list[Kill]:
    """Two kills at a point, and for those at the start one before each, so that the run has something to restore."""
    if point in AT_START:
        return [RUN_AGAIN, Kill(point), RUN_AGAIN, Kill(point)]
    first = 12 if point in OFTEN else 2
    return [Kill(point, first), Kill(point, first + (8 if point in OFTEN else 1))]


def suite(seed: int) -> Iterator[Entry]:
    """Everything, in a fixed order."""
    yield from at_points(seed)
    yield from at_random(seed)
    yield from of_workers(seed)
    yield from of_sleepers(seed)
    yield from of_harm(seed)
    yield from (Entry(case.name, case.backend, run) for case, run in redis_cases(seed))
    yield from (Entry(case.name, case.backend, run) for case, run in ray_cases(seed))


def at_points(seed: int) -> Iterator[Entry]:
    """Each kill-point twice in a row, on the next shape; rescaling shapes change parallelism with each run."""
    shapes = itertools.cycle(SHAPES)
    for point in POINTS:
        backend, state, parallelism = next(shapes)
        yield entry(Case(point, backend, state, parallelism, kills_at(point, parallelism)), seed)


def at_random(seed: int) -> Iterator[Entry]:
    """Three kills at random times on every shape that rescales, and on some others."""
    for backend, state, parallelism in SHAPES:
        if len(parallelism) > 1 or parallelism == (4,):
            yield entry(Case("at random times", backend, state, parallelism, [Kill()] * 3, length=900), seed)


def of_workers(seed: int) -> Iterator[Entry]:
    """Only a worker dies: the job goes on by itself."""
    for state, parallelism in (("memory", (2,)), ("rocksdb", (2, 3, 1))):
        yield entry(Case("a worker only, at random", "process", state, parallelism, [Kill(victim="worker")] * 2, length=900), seed)
    for point in ("before the acknowledgement", "before a commit"):
        case = Case(f"a worker only, {point}", "process", "memory", (2,), [Kill(point, 8 if point in OFTEN else 3, "self")], length=900)
        yield entry(case, seed)


def of_sleepers(seed: int) -> Iterator[Entry]:
    """An owner sleeps, is replaced, wakes, and must be refused."""
    courses = (
        ("before the manifest's name", 4, "local", "memory", 1, False),
        ("before a commit", 5, "process", "memory", 2, False),
        ("after the state is synced", 12, "process", "rocksdb", 2, False),
        ("before the manifest's name", 4, "process", "rocksdb", 2, True),
        ("before a commit", 5, "local", "rocksdb", 1, True),
    )
    for point, passage, backend, state, parallelism, late in courses:
        case = Case(f"asleep {point}{', woken at the end' if late else ''}", backend, state, (parallelism,))
        yield Entry(case.name, backend, partial(run_zombie_in, case, point, passage, late, seed))


def run_zombie_in(case: Case, point: str, passage: int, late: bool, seed: int, folder: Path) -> Outcome:
    """`run_zombie` with the folder last."""
    return run_zombie(case, folder, point, passage, late=late, seed=seed)


def of_harm(seed: int) -> Iterator[Entry]:
    """The newest checkpoint is damaged; the disk is full."""
    for harm, (backend, state, parallelism) in zip((torn_manifest, torn_part, missing_part), SHAPES[1::5], strict=False):
        name = harm.__name__.replace("_", " ")
        yield entry(Case(name, backend, state, parallelism, [Kill("after the manifest", 4, damage=harm)]), seed)
    case = Case("full disk", "local", "memory", (2,))
    yield Entry(case.name, case.backend, partial(full_disk_in_ram if can_mount() else full_disk_pretended, case, seed))


def entry(case: Case, seed: int) -> Entry:
    """Of a plain case."""
    return Entry(case.name, case.backend, partial(run_case, case, seed=seed))


# -- the full disk


def can_mount() -> bool:
    """Whether this account may mount a disk in RAM in a namespace of its own."""
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


def full_disk_in_ram(case: Case, seed: int, folder: Path) -> Outcome:
    """Checkpoints lie on a disk of 2 MiB in RAM that is filled to its last byte. Only inside a mount namespace (see `run.py`)."""
    if os.environ.get("SAGE_KILL9_MOUNTED") != str(folder):
        from run import in_namespace

        return in_namespace(case.name, folder)
    disk = folder / "checkpoints"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)

    def fill(_: Path) -> None:
        with (disk / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError:
                return

    def free(_: Path) -> None:
        (disk / "ballast").unlink()

    outcome = run_full_disk(case, folder, fill, free, seed)
    outcome.notes.insert(0, "on a disk of 2 MiB in RAM")
    return outcome


def full_disk_pretended(case: Case, seed: int, folder: Path) -> Outcome:
    """Without the right to mount: writes of checkpoints are refused as a full disk refuses them."""
    outcome = run_full_disk(case, folder, lambda place: (place / "full").touch(), lambda place: (place / "full").unlink(), seed)
    outcome.notes.insert(0, "nothing can be mounted here: the full disk is pretended")
    return outcome
