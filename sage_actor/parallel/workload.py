"""From what is known of a workload to settings, each with its reason. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sage_actor.errors import ConfigError

__all__ = ["WorkloadAdvice", "WorkloadProfile", "optimize_for_workload"]

TURN = 0.002
"""Seconds of user code that one turn of the event loop should take at most."""
BUSY = 0.7
"""Share of a core that a task should be planned to use, so that it can catch up."""
REACH = 0.1
"""Seconds of records that a channel should hold, so that a short stop of the receiver does not reach the sender."""


@dataclass(frozen=True, slots=True)
class WorkloadProfile:
    """What is known of a dataflow's work. Rough figures do.

    Attributes:
        records_per_second: expected, at the busiest time.
        cpu_per_record: seconds that the user's functions compute for one record.
        record_bytes: size of one record.
        cores: cores that may be used; 1 keeps everything in one process.
        arrays: records are numpy arrays, or hold them.
        state_bytes: of all keyed state together; 0 if there is none.
    """

    records_per_second: float
    cpu_per_record: float
    record_bytes: int = 100
    cores: int = 1
    arrays: bool = False
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class WorkloadAdvice:
    """Settings to be handed to an environment as its ``config``, and why: the same keys in both."""

    settings: Mapping[str, object]
    reasons: Mapping[str, str]


def optimize_for_workload(profile: WorkloadProfile, *, memory: int = 1 << 30) -> WorkloadAdvice:
    """Settings for a workload; what needs no other value than the default is left out.

    Args:
        profile: what is known of it.
        memory: bytes that may be used for state.

    Raises:
        ConfigError: a figure below zero, or fewer than one core.
    """
    for name in ("records_per_second", "cpu_per_record", "record_bytes", "state_bytes"):
        if getattr(profile, name) < 0:
            raise ConfigError(f"workload.{name}", f"must not be below 0, but is {getattr(profile, name)!r}")
    if profile.cores < 1:
        raise ConfigError("workload.cores", f"must be at least 1, but is {profile.cores!r}")
    settings: dict[str, object] = {}
    reasons: dict[str, str] = {}

    def advise(key: str, value: object, reason: str) -> None:
        settings[key] = value
        reasons[key] = reason

    load = profile.records_per_second * profile.cpu_per_record
    tasks = max(1, math.ceil(load / BUSY))
    if tasks > 1 and profile.cores > 1:
        wanted = min(tasks, profile.cores)
        advise("backend", "process", f"{load:.2g} s of computing a second need more than one core, and one process uses one")
        enough = "" if wanted == tasks else f"; {tasks} would be needed, so the stream will fall behind at its busiest"
        advise("parallelism", wanted, f"each core planned to {BUSY:.0%}{enough}")
    if profile.cpu_per_record:
        batch = int(TURN / profile.cpu_per_record)
        if batch < 4096:
            advise(
                "batch.records", max(1, batch), f"so that one turn computes for {TURN * 1000:g} ms at most, and the loop stays responsive"
            )
    held = int(profile.records_per_second * REACH)
    if held > 16_384:
        advise("buffer.records", held, f"{REACH * 1000:g} ms of records, so that a short stop does not reach the source")
    waiting = max(held, 16_384) * profile.record_bytes
    if waiting > 64 << 20:
        advise("buffer.bytes", min(waiting, memory // 4), "records are large: the bound in bytes would be met long before that in records")
    if profile.state_bytes > memory:
        advise("state.backend", "rocksdb", "the state is larger than the memory that may be used")
    if profile.arrays:
        advise("memory.zero_copy", True, "arrays travel out of band and are used where they arrive")
    return WorkloadAdvice(settings, reasons)
