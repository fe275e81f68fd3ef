"""What `set_load_balancer` takes: how records are dealt to the parallel tasks of an operator where nothing else says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from sage_actor.dataflow.functions import Message
from sage_actor.durations import parse_duration
from sage_actor.errors import ConfigError

__all__ = ["INTERVAL", "STRATEGIES", "LoadBalancer", "Strategy"]

Strategy = Literal["round_robin", "least_loaded", "work_stealing", "key_group"]
STRATEGIES: tuple[Strategy, ...] = ("round_robin", "least_loaded", "work_stealing", "key_group")
INTERVAL = 30.0
"""Seconds between two looks at the load of key groups."""
WHERE = "load balancer"


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """How load is spread over parallel tasks.

    Attributes:
        strategy: ``round_robin``: equal parts in turns. ``least_loaded``: each batch to the task with the most room left.
            ``work_stealing``: tasks pull from their sender, a little at a time, so that none is idle while another has more than one
            batch to do. These three are for streams without keys (`rebalance`, `partition`). ``key_group``: keyed streams too are
            balanced: whole key groups move to other tasks, with their state, when the load is uneven.
        partition_key: a field, an attribute, or a function of a `Message`. Streams without keys are then dealt by it: records of one
            key go to one task, in order, and what moves for the sake of balance are whole key groups, whatever the strategy.
        rebalance_interval: seconds between two looks at the load of key groups.
    """

    strategy: Strategy = "round_robin"
    partition_key: Callable[[Message[Any]], object] | str | None = None
    rebalance_interval: float = INTERVAL

    @classmethod
    def of(cls, config: Mapping[str, Any] | None = None) -> LoadBalancer:
        """From a configuration: the attributes by name, an interval in milliseconds or with its unit; ``work_stealing: True`` is short
        for that strategy.

        Raises:
            ConfigError: an unknown key, or a value that does not fit.
        """
        given = dict(config or {})
        strategy = given.pop("strategy", None)
        stealing = given.pop("work_stealing", None)
        if stealing is not None and not isinstance(stealing, bool):
            raise ConfigError("work_stealing", f"must be true or false, not {stealing!r}", WHERE)
        if stealing and strategy not in (None, "work_stealing"):
            raise ConfigError("work_stealing", f"contradicts the strategy {strategy!r}; leave one of them out", WHERE)
        chosen = strategy if strategy is not None else "work_stealing" if stealing else "round_robin"
        if chosen not in STRATEGIES:
            raise ConfigError("strategy", f"must be one of {', '.join(STRATEGIES)}, not {chosen!r}", WHERE)
        key = given.pop("partition_key", None)
        if key is not None and not callable(key) and not (isinstance(key, str) and key):
            raise ConfigError("partition_key", f"must be a field's name or a function of a message, not {key!r}", WHERE)
        interval = parse_duration(given.pop("rebalance_interval", INTERVAL * 1000), "ms")
        if interval <= 0:
            raise ConfigError("rebalance_interval", f"must be more than 0, not {interval:g} s", WHERE)
        for unknown in given:
            raise ConfigError(unknown, "is no setting of a load balancer; it has strategy, partition_key, rebalance_interval", WHERE)
        return cls(chosen, key, interval)

    @property
    def key(self) -> Callable[[Any], object] | None:
        """The partition key as a function of the record."""
        wanted = self.partition_key
        if wanted is None:
            return None
        return FieldKey(wanted) if isinstance(wanted, str) else MessageKey(wanted)

    @property
    def effective(self) -> Strategy:
        """The strategy that is left: order per key needs whole key groups, which nobody can pull."""
        return "key_group" if self.partition_key is not None else self.strategy


@dataclass(frozen=True, slots=True)
class FieldKey:
    """The item of that name of a mapping, or the attribute of anything else."""

    name: str

    def __call__(self, record: Any) -> object:
        found: object = cast("Mapping[str, object]", record)[self.name] if isinstance(record, Mapping) else getattr(record, self.name)
        return found


@dataclass(frozen=True, slots=True)
class MessageKey:
    """What a function says of the record's `Message`."""

    function: Callable[[Message[Any]], object]

    def __call__(self, record: Any) -> object:
        return self.function(Message(record))
