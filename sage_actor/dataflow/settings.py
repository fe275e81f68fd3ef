"""The settings of one job: typed, nested or dotted, unknown keys refused with the nearest right name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from sage_actor.actor.backend import WorkerResources
from sage_actor.dataflow.load_balancer import INTERVAL, STRATEGIES
from sage_actor.dataflow.places import Place, parse_places
from sage_actor.durations import parse_duration, parse_size
from sage_actor.errors import ConfigError

__all__ = ["JobSettings", "flatten"]


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What a job runs with. Durations in seconds, sizes in bytes.

    Attributes:
        parallelism: tasks per operator after an exchange that sets none itself.
        backend: ``local``, ``process`` (``multiprocessing``), ``redis://...``, or a plug-in's name.
        workers: worker processes; None means the largest parallelism of the job.
        places: further backends by name, for steps with ``.place(name)``.
        worker_memory: bytes that each worker process may occupy; None for no limit.
        worker_cpus: cores of each worker process; None for all.
        buffer_records, buffer_bytes: bound of each channel between two tasks.
        buffer_timeout: how long an operator that wants fuller batches waits at most.
        batch_records: records a task takes or emits at once at most.
        object_reuse: where a stream branches, hand the same objects to every branch instead of copies.
        stop_timeout: how long leaving an environment waits for unbounded jobs to drain.
        max_parallelism: number of key groups; None means chosen from the parallelism (rule F15).
        balancing: how batches are dealt where no key says it, and whether key groups move with the load; see `LoadBalancer`.
        rebalance_interval: seconds between two looks at the load of key groups.
        checkpointing: ``exactly_once``, ``at_least_once``, ``on_demand``, or None for no checkpoints. An interval alone means exactly
            once. On demand: exactly once too, but only when a savepoint or a change of the parallelism asks for one.
        checkpoint_interval: seconds between the beginnings of checkpoints; None for 30 s if `checkpointing` is set.
        checkpoint_every: also one whenever the sources have read so many records together; 0 for none.
        checkpoint_timeout: seconds after which one is given up.
        checkpoint_min_pause: seconds between the end of one and the beginning of the next.
        checkpoint_retained: complete ones kept.
        checkpoint_tolerated: how many may fail in a row before that fails the attempt.
        checkpoint_dir: folder or fsspec URL; None keeps them in a temporary folder that ends with the job.
        state_backend: ``memory`` or ``rocksdb``.
        allow_unmatched: restore although the checkpoint holds state of operators that the graph has no longer.
        restart_strategy: ``exponential-delay``, ``fixed-delay``, ``failure-rate`` or ``none``; None means exponential-delay with
            checkpoints and none without.
        restart_attempts, restart_delay, restart_max_delay, restart_multiplier, restart_jitter, restart_reset_after: of those
            strategies; seconds. Attempts of 0 means without end.
        restart_failures, restart_interval: failure-rate: so many failures within that many seconds end the job.
        incremental: always True; what the seeds' key sets.
        watchdog_timeout: seconds without progress of a task that has work, after which the attempt counts as failed; 0 for never.
        memory_zero_copy: arrays travel between workers beside the pickle, and are used where they arrive if the backend allows it.
        memory_object_pooling, memory_pool_size: memory that carried large frames is used again, up to so many idle bytes a worker.
        memory_gc_optimization: workers set what they have restored apart from what the garbage collector looks through.
    """

    parallelism: int = 1
    backend: str = "local"
    workers: int | None = None
    places: Mapping[str, Place] = field(default_factory=lambda: dict[str, Place]())
    worker_memory: int | None = None
    worker_cpus: float | None = None
    buffer_records: int = 16_384
    buffer_bytes: int = 64 << 20
    buffer_timeout: float = 0.1
    batch_records: int = 4096
    object_reuse: bool = False
    stop_timeout: float = 10.0
    max_parallelism: int | None = None
    balancing: str = "round_robin"
    rebalance_interval: float = INTERVAL
    checkpointing: str | None = None
    checkpoint_interval: float | None = None
    checkpoint_every: int = 0
    checkpoint_timeout: float = 600.0
    checkpoint_min_pause: float = 0.0
    checkpoint_retained: int = 3
    checkpoint_tolerated: int = 0
    checkpoint_dir: str | None = None
    state_backend: str = "memory"
    allow_unmatched: bool = False
    restart_strategy: str | None = None
    restart_attempts: int = 10
    restart_delay: float = 1.0
    restart_max_delay: float = 60.0
    restart_multiplier: float = 2.0
    restart_jitter: float = 0.1
    restart_reset_after: float | None = None
    restart_failures: int = 3
    restart_interval: float = 60.0
    watchdog_timeout: float = 300.0
    memory_zero_copy: bool = True
    memory_gc_optimization: bool = True
    memory_object_pooling: bool = True
    memory_pool_size: int = 64 << 20
    incremental: bool = True

    @property
    def snapshot_mode(self) -> str:
        """``exactly_once``, ``at_least_once``, or "" without checkpoints."""
        if self.checkpointing is not None:
            return "exactly_once" if self.checkpointing == "on_demand" else self.checkpointing
        return "exactly_once" if self.checkpoint_interval is not None or self.checkpoint_every else ""

    @property
    def worker_resources(self) -> WorkerResources | None:
        """What each worker gets where its place says nothing else; None where nothing is said."""
        if self.worker_memory is None and self.worker_cpus is None:
            return None
        return WorkerResources(num_cpus=self.worker_cpus, memory=self.worker_memory, custom={})

    def merged(self, config: Mapping[str, Any], where: str = "code") -> JobSettings:
        """These settings with those of a nested or dotted mapping on top.

        Raises:
            ConfigError: unknown key (with the nearest right one), wrong type, or two spellings of one setting that differ.
        """
        changes: dict[str, Any] = {}
        given: dict[str, str] = {}
        places: list[tuple[str, Any]] = []
        for key, value in flatten(config):
            if key.startswith("places."):
                places.append((key.removeprefix("places."), value))
                continue
            target = KEYS.get(key)
            if target is None:
                if key == "places":
                    raise ConfigError(key, f"is a mapping such as {{'heavy': 'process'}}, not {value!r}", where)
                if key in LATER:
                    raise ConfigError(key, "is not supported by this version yet, so it is refused rather than ignored", where)
                near = difflib.get_close_matches(key, [*KEYS, "places"], n=1)
                raise ConfigError(key, "is not a setting", where, near[0] if near else "")
            name, read = target
            parsed = read(key, value, where)
            if name in changes and changes[name] != parsed:
                raise ConfigError(key, f"contradicts {given[name]!r}: {parsed!r} against {changes[name]!r}", where)
            changes[name] = parsed
            given[name] = key
        if places:
            changes["places"] = {**self.places, **parse_places(places, where)}
        return replace(self, **changes)

    def flat(self) -> dict[str, object]:
        """As dotted keys, for function contexts."""
        return {key: getattr(self, name) for key, (name, _) in KEYS.items() if key in PRINCIPAL}


Reader = Callable[[str, Any, str], Any]


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a nested mapping."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def positive(key: str, value: Any, where: str) -> int:
    """A whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(key, f"must be a whole number, not {value!r}", where)
    if value < 1:
        raise ConfigError(key, f"must be at least 1, not {value}", where)
    return value


def switch(key: str, value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ConfigError(key, f"must be true or false, not {value!r}", where)
    return value


def text(key: str, value: Any, where: str) -> str:
    """A string."""
    if not isinstance(value, str) or not value:
        raise ConfigError(key, f"must be a text, not {value!r}", where)
    return value


def whole(key: str, value: Any, where: str) -> int:
    """A whole number of at least zero."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(key, f"must be a whole number of at least 0, not {value!r}", where)
    return value


def number(key: str, value: Any, where: str) -> float:
    """A number of at least zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(key, f"must be a number of at least 0, not {value!r}", where)
    return float(value)


def one_of(*choices: str) -> Reader:
    """One of a few words; underscores and hyphens are the same."""

    def read(key: str, value: Any, where: str) -> str:
        for choice in choices:
            if isinstance(value, str) and value.replace("_", "-") == choice.replace("_", "-"):
                return choice
        raise ConfigError(key, f"must be one of {', '.join(choices)}, not {value!r}", where)

    return read


def only_true(key: str, value: Any, where: str) -> bool:
    """A switch that can only stay on."""
    if value is not True:
        raise ConfigError(
            key, f"cannot be {value!r}: snapshots are always incremental, and a full one is taken when that is shorter", where
        )
    return True


def seconds(key: str, value: Any, where: str) -> float:
    """A duration; a bare number means seconds."""
    return parse_duration(value)


def milliseconds(key: str, value: Any, where: str) -> float:
    """A duration; a bare number means milliseconds."""
    return parse_duration(value, "ms")


def size(key: str, value: Any, where: str) -> int:
    """A size in bytes, 1024-based."""
    return parse_size(value)


def room(key: str, value: Any, where: str) -> int:
    """A size in bytes that something can live in."""
    nbytes = parse_size(value, key=key)
    if nbytes < 1:
        raise ConfigError(key, f"must be more than nothing, not {value!r}", where)
    return nbytes


def cores(key: str, value: Any, where: str) -> float:
    """A number of cores above 0, as number or text."""
    try:
        count = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        count = math.nan
    if not 0 < count < math.inf:
        raise ConfigError(key, f"must be a number of cores, not {value!r}", where)
    return count


KEYS: dict[str, tuple[str, Reader]] = {
    "parallelism": ("parallelism", positive),
    "execution.parallelism": ("parallelism", positive),
    "runtime.default_parallelism": ("parallelism", positive),
    "backend": ("backend", text),
    "workers": ("workers", positive),
    "taskmanager.memory.process.size": ("worker_memory", room),
    "resources.taskmanager.memory.process.size": ("worker_memory", room),
    "taskmanager.cpu.cores": ("worker_cpus", cores),
    "resources.taskmanager.cpu.cores": ("worker_cpus", cores),
    "max_parallelism": ("max_parallelism", positive),
    "buffer.records": ("buffer_records", positive),
    "buffer.bytes": ("buffer_bytes", size),
    "buffer.timeout": ("buffer_timeout", milliseconds),
    "execution.buffer.timeout": ("buffer_timeout", milliseconds),
    "batch.records": ("batch_records", positive),
    "object.reuse": ("object_reuse", switch),
    "execution.object.reuse": ("object_reuse", switch),
    "stop_timeout": ("stop_timeout", seconds),
    "load_balancer.strategy": ("balancing", one_of(*STRATEGIES)),
    "load_balancer.rebalance_interval": ("rebalance_interval", milliseconds),
    "checkpointing": ("checkpointing", one_of("exactly_once", "at_least_once", "on_demand")),
    "checkpoint.interval": ("checkpoint_interval", seconds),
    "state.checkpoint.interval": ("checkpoint_interval", seconds),
    "runtime.checkpoint_interval": ("checkpoint_interval", seconds),
    "checkpoint.every": ("checkpoint_every", positive),
    "checkpoint.timeout": ("checkpoint_timeout", seconds),
    "checkpoint.min_pause": ("checkpoint_min_pause", seconds),
    "checkpoint.retained": ("checkpoint_retained", positive),
    "checkpoint.tolerated": ("checkpoint_tolerated", whole),
    "checkpoint.dir": ("checkpoint_dir", text),
    "checkpoint.allow_unmatched": ("allow_unmatched", switch),
    "state.backend": ("state_backend", one_of("memory", "rocksdb")),
    "restart.strategy": ("restart_strategy", one_of("exponential-delay", "fixed-delay", "failure-rate", "none")),
    "restart.attempts": ("restart_attempts", whole),
    "restart.delay": ("restart_delay", seconds),
    "restart.max_delay": ("restart_max_delay", seconds),
    "restart.multiplier": ("restart_multiplier", number),
    "restart.jitter": ("restart_jitter", number),
    "restart.reset_after": ("restart_reset_after", seconds),
    "restart.failures": ("restart_failures", positive),
    "restart.interval": ("restart_interval", seconds),
    "watchdog.timeout": ("watchdog_timeout", seconds),
    "memory.zero_copy": ("memory_zero_copy", switch),
    "memory.gc_optimization": ("memory_gc_optimization", switch),
    "memory.object_pooling": ("memory_object_pooling", switch),
    "memory.pool_size": ("memory_pool_size", size),
    "state.incremental": ("incremental", only_true),
    "incremental": ("incremental", only_true),
}
"""Dotted keys and the setting each one is. Snapshots are always incremental: the seeds' key is taken, and False is refused."""
PRINCIPAL = (
    "parallelism",
    "backend",
    "workers",
    "max_parallelism",
    "buffer.records",
    "buffer.bytes",
    "buffer.timeout",
    "batch.records",
    "object.reuse",
    "stop_timeout",
    "checkpointing",
    "checkpoint.interval",
    "checkpoint.timeout",
    "checkpoint.dir",
    "state.backend",
    "restart.strategy",
)
LATER = ("runtime.fault_tolerance",)
