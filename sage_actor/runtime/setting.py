"""What the stages of one task know about their surroundings."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from sage_actor._core.batch import Batch
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.graph import Port
from sage_actor.dataflow.settings import JobSettings
from sage_actor.ports import Clock

__all__ = ["TaskSetting"]


@dataclass(slots=True)
class TaskSetting:
    """Job, place and ports of one task, and the way out for records that leave the main path.

    Attributes:
        aside: sends a batch out of a side port of one of the chain's operators; does nothing where nobody reads it.
        flush: sends what was gathered for the next tasks; waits for room there.
        wake: makes the task look at its stages again (a call in flight has completed); cheap, never blocks.
    """

    job: str
    index: int
    parallelism: int
    worker: int
    settings: JobSettings
    flat: Mapping[str, object]
    clock: Clock
    random: random.Random
    aside: Callable[[int, Port, Batch], Awaitable[None]]
    flush: Callable[[], Awaitable[None]]
    wake: Callable[[], None]

    def context(self, operator: str) -> FunctionContext:
        """The context of one operator of this task."""
        return FunctionContext(self.job, operator, self.index, self.parallelism, self.worker, self.flat)
