"""What the stages of one task know about their surroundings."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage_actor._core.batch import Batch
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.graph import Operator, Port
from sage_actor.dataflow.settings import JobSettings
from sage_actor.ports import Cancellable, Clock

if TYPE_CHECKING:
    from sage_actor.operators.stages import Stage
    from sage_actor.state.operator_state import OperatorState

__all__ = ["TaskSetting"]


@dataclass(slots=True)
class TaskSetting:
    """Job, place and ports of one task, and the way out for records that leave the main path.

    Attributes:
        aside: sends a batch out of a side port of one of the chain's operators; does nothing where nobody reads it.
        flush: sends what was gathered for the next tasks; waits for room there.
        wake: makes the task look at its stages again (a call in flight has completed); cheap, never blocks.
        open_state: the state of one operator of this task, restored content included; part of every snapshot from then on.
        advance_behind: event time has come so far for the stages behind the given one, and for all that read this task.
        idle_behind: nothing more comes from the given stage for a while; it holds nobody up until its next record.
        alarm: call the stage's `Stage.alarm` when so many seconds have passed, on the task's own turn.
        checkpointing: "exactly_once", "at_least_once", or "" where snapshots are not taken.
        attempt: number of this start of the job.
        restored_from: the checkpoint that it goes on from, or None.
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
    open_state: Callable[[Operator], Awaitable[OperatorState]]
    advance_behind: Callable[[Stage, int], Awaitable[None]]
    idle_behind: Callable[[Stage], None]
    alarm: Callable[[Stage, float], Cancellable]
    checkpointing: str = ""
    attempt: int = 1
    restored_from: int | None = None

    def context(self, operator: str) -> FunctionContext:
        """The context of one operator of this task."""
        restored = self.restored_from is not None
        return FunctionContext(self.job, operator, self.index, self.parallelism, self.worker, self.flat, restored)
