"""process on a keyed stream: the user's function with state and timers."""

from __future__ import annotations

from sage_actor._core.batch import Batch
from sage_actor.operators.keyed_call_stage import KeyedCallStage
from sage_actor.operators.stages import Emit

__all__ = ["ProcessStage"]


class ProcessStage(KeyedCallStage):
    """Runs a `KeyedProcessFunction`, or a plain function of (value, context), which then has no timers."""

    async def open(self) -> None:
        self.replica = self.create_replica(self.operators[0])
        await self.start(self.replica)

    async def process(self, batch: Batch, emit: Emit) -> None:
        await self.run(self.replica.call, batch, emit)
