"""Broadcast state: every task keeps a copy, changed by the broadcast input only, read by the main one (rule F38)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.co_functions import BroadcastContext, ReadOnlyBroadcastContext, ReadOnlyBroadcastState
from sage_actor.dataflow.process_functions import KeyedContext
from sage_actor.errors import GraphError
from sage_actor.operators.keyed_call_stage import Call, KeyedCallStage
from sage_actor.operators.stages import Emit
from sage_actor.operators.timers import KeyTimers

if TYPE_CHECKING:
    from sage_actor.dataflow.functions import Replica

__all__ = ["BroadcastStage"]


class BroadcastStage(KeyedCallStage):
    """Runs a `BroadcastProcessFunction`.

    Each task saves its copy as one item of a list that a restore gives to everybody whole; a task takes the one at its own
    place, or, where there are more tasks than before, one of the others: they are all equal.
    """

    async def open(self) -> None:
        operator = self.operators[0]
        self.is_keyed: bool = operator.options["keyed"]
        self.replica = self.create_replica(operator)
        method = getattr(getattr(self.replica.call, "__self__", None), "process_broadcast", None)
        if method is None:
            raise GraphError(
                f"operator {operator.name!r}: a function beside a broadcast stream needs the methods 'process' and 'process_broadcast'; "
                "derive it from BroadcastProcessFunction"
            )
        self.process_broadcast: Call = method
        await self.start(self.replica)

    async def open_replica(self, index: int, replica: Replica) -> None:
        """State is open, the user's function not yet: its ``open`` gets the same context as its calls."""
        operator = self.operators[0]
        self.copies = self.state.list("broadcast", mode="union")
        copies = self.copies.items
        self.broadcast: dict[Any, Any] = dict(copies[self.setting.index % len(copies)]) if copies else {}
        read_only = ReadOnlyBroadcastState(self.broadcast, operator.name)
        self.keyed: KeyedContext = ReadOnlyBroadcastContext(self.keyed, self.sides.add, self.access, KeyTimers(self.timers), read_only)
        self.writing = BroadcastContext(self.setting.context(operator.name), self.sides.add, self.broadcast)
        await super().open_replica(index, replica)

    async def process(self, batch: Batch, emit: Emit) -> None:
        await self.run(self.replica.call, batch, emit, 0)

    async def process_second(self, batch: Batch, emit: Emit) -> None:
        await self.run(self._broadcast, batch, emit, 1)

    def _broadcast(self, value: Any, context: KeyedContext) -> Iterable[Any] | None:
        writing = self.writing
        writing.timestamp, writing.watermark = context.timestamp, context.watermark
        return self.process_broadcast(value, writing)

    def keys_of(self, batch: Batch, values: list[Any], role: int = 0) -> list[Any]:
        return super().keys_of(batch, values, role) if self.is_keyed and role == 0 else [None] * len(values)

    async def prepare(self, checkpoint: int) -> None:
        await super().prepare(checkpoint)
        self.copies.items[:] = [dict(self.broadcast)]
