"""The end of ``committed()``: results reach their reader only when the checkpoint behind them is complete (F44)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.operators.stages import Emit, Stage, as_list

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting
    from sage_actor.state.operator_list import OperatorList

__all__ = ["CommittedStage"]


class CommittedStage(Stage):
    """Holds results back, by checkpoint, and saves them with it; what was handed on already is not handed on again.

    `options["handed_on"]` is a list of one number in the submitting process, which outlives attempts: the checkpoint up to
    which the reader has everything.
    """

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        self.deliver = operators[0].options["deliver"]
        self.handed_on: list[int] = operators[0].options["handed_on"]
        self.held: list[Any] = []
        self.pending: deque[tuple[int, list[Any]]] = deque()
        self.saved: OperatorList | None = None

    async def open(self) -> None:
        if self.setting.checkpointing:
            state = await self.setting.open_state(self.operators[0])
            self.saved = state.list("held", mode="union")
            self.pending.extend(sorted(self.saved.items, key=lambda entry: entry[0]))
            await self.completed(self.setting.restored_from or 0)

    async def process(self, batch: Batch, emit: Emit) -> None:
        self.counters[0].records_in += len(batch)
        if self.saved is None:
            await self.deliver(Batch(as_list(batch.values)))
        else:
            self.held.extend(as_list(batch.values))

    async def prepare(self, checkpoint: int) -> None:
        if self.held:
            self.pending.append((checkpoint, self.held))
            self.held = []
        assert self.saved is not None
        self.saved.items = list(self.pending)

    async def completed(self, checkpoint: int) -> None:
        while self.pending and self.pending[0][0] <= checkpoint:
            number, records = self.pending.popleft()
            if number > self.handed_on[0]:
                await self.deliver(Batch(records))
                self.handed_on[0] = number  # not before: an attempt that ends while the reader is behind has handed nothing on
                self.counters[0].records_out += len(records)
