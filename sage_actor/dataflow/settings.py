"""The settings of one job: typed, nested or dotted, unknown keys refused with the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from sage_actor.durations import parse_duration, parse_size
from sage_actor.errors import ConfigError

__all__ = ["JobSettings"]


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What a job runs with. Durations in seconds, sizes in bytes.

    Attributes:
        parallelism: tasks per operator after an exchange that sets none itself.
        backend: ``local``, ``process`` (``multiprocessing``), ``redis://...``, or a plug-in's name.
        workers: worker processes; None means the largest parallelism of the job.
        buffer_records, buffer_bytes: bound of each channel between two tasks.
        buffer_timeout: how long an operator that wants fuller batches waits at most.
        batch_records: records a task takes or emits at once at most.
        object_reuse: where a stream branches, hand the same objects to every branch instead of copies.
        stop_timeout: how long leaving an environment waits for unbounded jobs to drain.
        max_parallelism: number of key groups; None means chosen from the parallelism (rule F15).
    """

    parallelism: int = 1
    backend: str = "local"
    workers: int | None = None
    buffer_records: int = 16_384
    buffer_bytes: int = 64 << 20
    buffer_timeout: float = 0.1
    batch_records: int = 4096
    object_reuse: bool = False
    stop_timeout: float = 10.0
    max_parallelism: int | None = None

    def merged(self, config: Mapping[str, Any], where: str = "code") -> JobSettings:
        """These settings with those of a nested or dotted mapping on top.

        Raises:
            ConfigError: unknown key (with the nearest right one), wrong type, or two spellings of one setting that differ.
        """
        changes: dict[str, Any] = {}
        given: dict[str, str] = {}
        for key, value in flatten(config):
            target = KEYS.get(key)
            if target is None:
                if key in LATER:
                    raise ConfigError(key, "is not supported by this version yet, so it is refused rather than ignored", where)
                near = difflib.get_close_matches(key, KEYS, n=1)
                raise ConfigError(key, "is not a setting", where, near[0] if near else "")
            name, read = target
            parsed = read(key, value, where)
            if name in changes and changes[name] != parsed:
                raise ConfigError(key, f"contradicts {given[name]!r}: {parsed!r} against {changes[name]!r}", where)
            changes[name] = parsed
            given[name] = key
        return replace(self, **changes)

    def flat(self) -> dict[str, object]:
        """As dotted keys, for function contexts."""
        return {key: getattr(self, name) for key, (name, _) in KEYS.items() if key in PRINCIPAL}


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a nested mapping."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


Reader = Callable[[str, Any, str], Any]


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


def seconds(key: str, value: Any, where: str) -> float:
    """A duration; a bare number means seconds."""
    return parse_duration(value)


def milliseconds(key: str, value: Any, where: str) -> float:
    """A duration; a bare number means milliseconds."""
    return parse_duration(value, "ms")


def size(key: str, value: Any, where: str) -> int:
    """A size in bytes, 1024-based."""
    return parse_size(value)


KEYS: dict[str, tuple[str, Reader]] = {
    "parallelism": ("parallelism", positive),
    "execution.parallelism": ("parallelism", positive),
    "runtime.default_parallelism": ("parallelism", positive),
    "backend": ("backend", text),
    "workers": ("workers", positive),
    "max_parallelism": ("max_parallelism", positive),
    "buffer.records": ("buffer_records", positive),
    "buffer.bytes": ("buffer_bytes", size),
    "buffer.timeout": ("buffer_timeout", milliseconds),
    "execution.buffer.timeout": ("buffer_timeout", milliseconds),
    "batch.records": ("batch_records", positive),
    "object.reuse": ("object_reuse", switch),
    "execution.object.reuse": ("object_reuse", switch),
    "stop_timeout": ("stop_timeout", seconds),
}
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
)
LATER = (
    "checkpointing",
    "checkpoint.interval",
    "checkpoint.timeout",
    "checkpoint.dir",
    "state.backend",
    "state.checkpoint.interval",
    "state.incremental",
    "incremental",
    "restart.strategy",
    "restart.attempts",
    "restart.delay",
    "restart.max_delay",
    "resources.taskmanager.memory.process.size",
    "resources.taskmanager.cpu.cores",
    "taskmanager.memory.process.size",
    "taskmanager.cpu.cores",
    "runtime.checkpoint_interval",
    "runtime.fault_tolerance",
)
