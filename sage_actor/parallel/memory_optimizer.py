"""MemoryOptimizer: switches for how a dataflow treats memory, and the settings that they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from sage_actor.durations import parse_size
from sage_actor.errors import ConfigError
from sage_actor.parallel.workload import WorkloadAdvice, WorkloadProfile, optimize_for_workload

__all__ = ["MemoryOptimizer"]

_SWITCHES = ("object_pooling", "zero_copy", "gc_optimization")


class MemoryOptimizer:
    """What ``env.set_memory_optimization(MemoryOptimizer, {...})`` takes; each switch is a setting of the job.

    Args:
        config: ``object_pooling``, ``zero_copy``, ``gc_optimization`` (true or false each) and ``memory_pool_size`` ("1GB");
            docs/parallel.md says what each does and what it measured. What is not named keeps its default.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self._settings: dict[str, object] = {}
        for key, value in (config or {}).items():
            if key in _SWITCHES:
                if not isinstance(value, bool):
                    raise ConfigError(f"memory.{key}", f"must be true or false, not {value!r}")
                self._settings[f"memory.{key}"] = value
            elif key == "memory_pool_size":
                self.configure_object_pool(value)
            else:
                raise ConfigError(f"memory.{key}", f"is not one of {', '.join((*_SWITCHES, 'memory_pool_size'))}")

    def enable_zero_copy(self) -> Self:
        """Let arrays travel out of band and be used where they arrive."""
        self._settings["memory.zero_copy"] = True
        return self

    def configure_object_pool(self, size: int | str) -> Self:
        """Keep at most so many bytes of buffers for reuse; a bare number means bytes. Switches pooling on."""
        self._settings["memory.pool_size"] = parse_size(size, key="memory.pool_size")
        self._settings.setdefault("memory.object_pooling", True)
        return self

    def optimize_for_workload(self, profile: WorkloadProfile) -> WorkloadAdvice:
        """Take over what concerns memory of the advice for a workload; answers all of it."""
        advice = optimize_for_workload(profile)
        self._settings |= {key: value for key, value in advice.settings.items() if key.startswith("memory.")}
        return advice

    def settings(self) -> Mapping[str, object]:
        """The settings of the job that this stands for, by their dotted keys."""
        return dict(self._settings)
