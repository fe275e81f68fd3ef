"""What an environment lets be said about load: how parallel its job is, who changes that, how records are dealt, how memory is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

from sage_actor.dataflow.graph import Operator, Partition
from sage_actor.dataflow.load_balancer import LoadBalancer
from sage_actor.dataflow.parallelism import ParallelismController
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import ConfigError
from sage_actor.parallel.memory_optimizer import MemoryOptimizer
from sage_actor.stream.described import check_parallelism

__all__ = ["ScalingSettings"]


class ScalingSettings:
    """Base of the environments. It counts for jobs that are started later."""

    name: str
    settings: JobSettings
    load_balancer: LoadBalancer = LoadBalancer()
    parallelism_controller: ParallelismController | None = None

    def set_parallelism(
        self, parallelism: int | ParallelismController | type[ParallelismController], config: Mapping[str, Any] | None = None, /
    ) -> Self:
        """Set the default parallelism of the job, or who changes it while the job runs: see `set_parallelism_controller`."""
        if isinstance(parallelism, ParallelismController | type):
            return self.set_parallelism_controller(parallelism, config)
        if config is not None:
            raise ConfigError("set_parallelism", "a configuration goes with a ParallelismController, not with a number")
        check_parallelism(parallelism, f"environment {self.name!r}")
        self.settings = self.settings.merged({"parallelism": parallelism})
        return self

    def set_parallelism_controller(
        self, controller: ParallelismController | type[ParallelismController], config: Mapping[str, Any] | None = None, /
    ) -> Self:
        """Let a controller change the parallelism of the job's operators with their load, as `Job.rescale` would.

        A job that takes no checkpoints gets ``checkpointing: on_demand``. Where a source cannot be read again, or the job answers
        requests, nothing changes; the log says so.

        Raises:
            ConfigError: it is no `ParallelismController`, or its configuration does not fit.
        """
        if isinstance(controller, type):
            if not issubclass(controller, ParallelismController):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigError("set_parallelism", f"takes a number or a ParallelismController, not {controller!r}")
            controller = controller.of(config)
        elif config is not None:
            raise ConfigError("set_parallelism", "a configuration goes with the class, and this is a controller already")
        self.parallelism_controller = controller
        return self

    def set_load_balancer(self, balancer: LoadBalancer | type[LoadBalancer], config: Mapping[str, Any] | None = None, /) -> Self:
        """Say how records are dealt to the tasks of an operator where no key says it, and whether keys move with the load.

        With the strategy ``key_group``, or a ``partition_key``, a job that takes no checkpoints gets ``checkpointing: on_demand``, since
        keys move by it.

        Raises:
            ConfigError: it is no `LoadBalancer`, or its configuration does not fit.
        """
        if isinstance(balancer, type):
            if not issubclass(balancer, LoadBalancer):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigError("set_load_balancer", f"takes a LoadBalancer, not {balancer!r}")
            balancer = balancer.of(config)
        elif config is not None:
            raise ConfigError("set_load_balancer", "a configuration goes with the class, and this is a balancer already")
        self.load_balancer = balancer
        self.settings = replace(self.settings, balancing=balancer.effective, rebalance_interval=balancer.rebalance_interval)
        return self

    def set_memory_optimization(
        self, optimizer: MemoryOptimizer | type[MemoryOptimizer], config: Mapping[str, Any] | None = None, /
    ) -> Self:
        """Say how the job treats memory; see `MemoryOptimizer` for the switches. The same as settings ``memory.*``.

        Raises:
            ConfigError: it is no `MemoryOptimizer`, or its configuration does not fit.
        """
        if isinstance(optimizer, type):
            if not issubclass(optimizer, MemoryOptimizer):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigError("set_memory_optimization", f"takes a MemoryOptimizer, not {optimizer!r}")
            optimizer = optimizer(config)
        elif config is not None:
            raise ConfigError("set_memory_optimization", "a configuration goes with the class, and this is an optimizer already")
        self.settings = self.settings.merged(optimizer.settings())
        return self

    def scaled(self, settings: JobSettings) -> JobSettings:
        """The settings of a job that is about to start, with what balancing and the controller need."""
        controller = self.parallelism_controller
        if controller is not None:
            settings = replace(settings, parallelism=min(controller.max, max(controller.min, settings.parallelism)))
        if (controller is not None or settings.balancing == "key_group") and not settings.snapshot_mode:
            settings = replace(settings, checkpointing="on_demand")
        return settings

    def deal_by_partition_key(self, operators: Iterable[Operator]) -> None:
        """Give streams without keys the balancer's, so that records of one key stay together and in order."""
        key = self.load_balancer.key
        if key is None:
            return
        for operator in operators:
            for edge in operator.inputs:
                if edge.partition.kind == "rebalance":
                    edge.partition = Partition("hash", key=key)
