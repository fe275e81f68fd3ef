"""What `set_parallelism` takes beside a number: a controller that follows the load. Its decisions are pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from sage_actor.durations import parse_duration
from sage_actor.errors import ConfigError

__all__ = ["OperatorLoad", "ParallelismController"]

WHERE = "parallelism controller"
DURATIONS = ("interval", "cool_down")
SHARES = ("low", "high")
COUNTS = ("min", "max", "looks")


@dataclass(frozen=True, slots=True)
class OperatorLoad:
    """What the tasks of an operator did between two looks.

    Attributes:
        parallelism: how many there are.
        busy, blocked: shares of their time, 0..1: at work; waiting for room at the next operator. The rest they had nothing to do.
        queued: records that wait for them now.
    """

    parallelism: int
    busy: float
    blocked: float
    queued: int


@dataclass(frozen=True, slots=True)
class ParallelismController:
    """Changes the parallelism of operators while the job runs, within bounds.

    It looks every `interval`. An operator that was busy beyond `high` in each of the last `looks` gets twice as many tasks; one that was
    busy below `low` in each of them, with nothing waiting, gets as many as would have been half-way between. After a change it
    does nothing for `cool_down`: the state has moved, queues are drained, and what is seen meanwhile says little.

    Operators whose description names a parallelism keep it. A subclass may override `decide`.

    Attributes:
        min, max: bounds of the parallelism.
        interval, cool_down: seconds.
        low, high: shares of time.
        looks: how many in a row have to agree.
    """

    min: int = 1
    max: int = 8
    interval: float = 10.0
    cool_down: float = 60.0
    low: float = 0.3
    high: float = 0.8
    looks: int = 2

    @classmethod
    def of(cls, config: Mapping[str, Any] | None = None) -> Self:
        """From a configuration: the attributes by name; durations in seconds or with their unit.

        Raises:
            ConfigError: an unknown key, or values that do not fit.
        """
        changes: dict[str, Any] = {}
        for key, value in dict(config or {}).items():
            if key in DURATIONS:
                changes[key] = parse_duration(value, key=key)
            elif key in COUNTS:
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise ConfigError(key, f"must be a whole number of at least 1, not {value!r}", WHERE)
                changes[key] = value
            elif key in SHARES:
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                    raise ConfigError(key, f"must be a share between 0 and 1, not {value!r}", WHERE)
                changes[key] = float(value)
            else:
                raise ConfigError(key, f"is no setting of a {WHERE}; it has {', '.join((*COUNTS, *DURATIONS, *SHARES))}", WHERE)
        made = replace(cls(), **changes)
        if made.min > made.max:
            raise ConfigError("min", f"is {made.min}, more than max, which is {made.max}", WHERE)
        if made.low >= made.high:
            raise ConfigError(
                "low", f"is {made.low:g}, not less than high, which is {made.high:g}: it would change its mind all the time", WHERE
            )
        if made.interval <= 0:
            raise ConfigError("interval", "must be more than 0", WHERE)
        return made

    def decide(self, history: Sequence[Mapping[str, OperatorLoad]]) -> dict[str, int]:
        """The parallelism that operators should get; those that are not named keep theirs.

        Args:
            history: what was seen of each operator, by name, since the last change, oldest first.
        """
        if len(history) < self.looks:
            return {}
        latest = history[-self.looks :]
        wanted: dict[str, int] = {}
        for name, load in latest[-1].items():
            seen = [look[name] for look in latest if name in look]
            target = self._target(load.parallelism, seen) if len(seen) == self.looks else load.parallelism
            target = min(self.max, max(self.min, target))
            if target != load.parallelism:
                wanted[name] = target
        return wanted

    def _target(self, parallelism: int, seen: Sequence[OperatorLoad]) -> int:
        if all(load.busy >= self.high for load in seen):
            return parallelism * 2
        if all(load.busy <= self.low and not load.queued for load in seen):
            work = parallelism * max(load.busy for load in seen)
            return math.ceil(work / ((self.low + self.high) / 2))
        return parallelism
