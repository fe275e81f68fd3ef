"""What one worker process may use at most: the cores that it is bound to, and its memory."""

from __future__ import annotations

import math
import mmap
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sage_actor.actor.backend import WorkerResources
from sage_actor.errors import BackendUnavailable

__all__ = ["OUT_OF_MEMORY", "WorkerLimits", "bind_to_cores", "limits_of", "watch_memory"]

OUT_OF_MEMORY: Final = 86
"""The exit status of a worker that has exceeded its memory."""

_LOOK: Final = 0.25  # seconds between two looks at the memory


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """The limits of one worker: numbers of cores, and bytes; None where there is none."""

    cores: tuple[int, ...] | None = None
    memory: int | None = None


def limits_of(resources: Sequence[WorkerResources], count: int, backend: str) -> list[WorkerLimits]:
    """The limits of workers 1..count, in order, on this machine; cores are dealt one worker after the other.

    Raises:
        BackendUnavailable: something is asked for that child processes cannot be given, or more than this machine has.
    """
    if not resources:
        return [WorkerLimits()] * count
    if len(resources) != count:
        raise BackendUnavailable(backend, f"resources of {len(resources)} workers were given for {count}", "give those of each worker")
    for worker, wanted in enumerate(resources, 1):
        if wanted.num_gpus:
            raise BackendUnavailable(backend, f"worker {worker} asks for num_gpus={wanted.num_gpus:g}: it hands out no GPUs", "use ray")
        for name, amount in wanted.custom.items():
            if amount:
                raise BackendUnavailable(backend, f"worker {worker} asks for {amount:g} of {name!r}: it knows no such resource", "use ray")
        _check_memory(worker, wanted.memory, backend)
    cores = _deal_cores([wanted.num_cpus or 0 for wanted in resources], backend)
    return [WorkerLimits(own, wanted.memory) for own, wanted in zip(cores, resources, strict=True)]


def _check_memory(worker: int, memory: int | None, backend: str) -> None:
    if memory is None:
        return
    if sys.platform != "linux":
        raise BackendUnavailable(backend, f"worker {worker} asks for memory={memory}: only Linux tells what a process occupies")
    there = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    if not 0 < memory <= there:
        reason = f"worker {worker} asks for memory={memory} bytes: this machine has {there}"
        raise BackendUnavailable(backend, reason, "ask for less, or use several machines")


def _deal_cores(wanted: Sequence[float], backend: str) -> list[tuple[int, ...] | None]:
    """For each worker so many cores, rounded up, beginning behind those of the worker before it."""
    if not any(wanted):
        return [None] * len(wanted)
    if not hasattr(os, "sched_setaffinity"):
        raise BackendUnavailable(backend, f"num_cpus is asked for, but {sys.platform} binds no process to cores", "leave num_cpus out")
    cores = sorted(os.sched_getaffinity(0))
    if sum(wanted) > len(cores) or min(wanted) < 0:
        reason = f"num_cpus={sum(wanted):g} are asked for by {len(wanted)} workers: this process has {len(cores)} cores"
        raise BackendUnavailable(backend, reason, "ask for fewer, or use several machines")
    dealt: list[tuple[int, ...] | None] = []
    begun = 0.0
    for amount in wanted:
        number, first = math.ceil(amount), int(begun)
        dealt.append(tuple(cores[(first + i) % len(cores)] for i in range(number)) if amount else None)
        begun += amount
    return dealt


def bind_to_cores(cores: Sequence[int]) -> None:
    """Bind this process, and the threads that it will have, to these cores."""
    os.sched_setaffinity(0, cores)


def watch_memory(worker: int, limit: int) -> None:
    """End this process with `OUT_OF_MEMORY`, having said so on stderr, soon after it occupies more than `limit` bytes.

    In a thread of its own, so that it also works while user code holds the loop. What counts is the resident set, memory shared
    with other workers included.
    """
    threading.Thread(target=_watch, args=(worker, limit), name="sage-memory-watch", daemon=True).start()


def _watch(worker: int, limit: int) -> None:
    pause = threading.Event()
    with open("/proc/self/statm", "rb", buffering=0) as statm:
        while not pause.wait(_LOOK):
            statm.seek(0)
            occupied = int(statm.read(256).split()[1]) * mmap.PAGESIZE
            if occupied > limit:
                words = f"worker {worker} ends: it occupies {occupied} bytes, and its resources allow memory={limit}\n"
                os.write(2, words.encode())
                os._exit(OUT_OF_MEMORY)
