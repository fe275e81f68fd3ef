"""iterate: a loop over each record as a work-list inside one task, so that no channel runs backwards."""

from __future__ import annotations

import inspect
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.errors import OperatorError
from sage_actor.operators.stages import Emit, Stage, Turns, as_list

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

__all__ = ["IterateStage"]


class IterateStage(Stage):
    """Applies `step` to a record (and to what it gives) until `until` holds; each record is finished before the next."""

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        options = operators[0].options
        self.until = options["until"]
        self.max_rounds: int = options["max_rounds"]
        self.limit: int = options["limit"]
        self.turns = Turns(setting.settings.batch_records, setting.flush)

    async def open(self) -> None:
        self.replica = self.create_replica(self.operators[0])
        self.many = inspect.isgeneratorfunction(self.replica.call)
        await self.open_replica(0, self.replica)

    async def process(self, batch: Batch, emit: Emit) -> None:
        values = as_list(batch.values)
        self.faults.begin(batch, 0, len(values))
        out: list[Any] = []
        tags: list[Any] = []
        rows: list[int] = []
        for offset, value in enumerate(values):
            self.counters[0].records_in += 1
            try:
                done = await self._finish(value, offset)
            except OperatorError:
                if out and batch.tags is None:  # what came before the failure goes on
                    self.counters[0].records_out += len(out)
                    await emit(self._result(out, rows, batch))
                raise
            out.extend(done)
            if batch.tags is not None:
                tags.extend([batch.tags[offset]] * len(done))
            rows.extend([offset] * len(done))
            if len(out) >= self.setting.settings.batch_records and batch.tags is None:
                self.counters[0].records_out += len(out)
                await emit(self._result(out, rows, batch))
                out, rows = [], []
        self.counters[0].records_out += len(out)
        if out:
            result = self._result(out, rows, batch)
            result.tags = tags if batch.tags is not None else None
            await emit(result)
        self.faults.dropped.clear()
        await self.faults.flush()

    def _result(self, out: list[Any], rows: list[int], batch: Batch) -> Batch:
        """Results with the times of the records they came from."""
        stamps, watermarks = batch.timestamps, batch.watermarks
        if stamps is None or watermarks is None:
            return Batch(out)
        return Batch(out, timestamps=[stamps[row] for row in rows], watermarks=[watermarks[row] for row in rows])

    async def _finish(self, value: Any, offset: int) -> list[Any]:
        """All that becomes of one record; [] if it was dropped."""
        tries = 0
        while True:
            try:
                return await self._rounds(value)
            except Exception as error:  # noqa: BLE001 - the user's step, or a bound of the loop: by the operator's policy
                tries += 1
                pause = self.faults.settle(0, error, offset, value, tries)
                if pause is None:
                    return []
                await self.pause(pause)

    async def _rounds(self, value: Any) -> list[Any]:
        out: list[Any] = []
        work: deque[tuple[Any, int]] = deque(((value, 0),))
        step, until = self.replica.call, self.until
        ticks = 0
        while work:
            current, rounds = work.popleft()
            if until(current):
                out.append(current)
                continue
            if rounds >= self.max_rounds:
                raise IterationBound(f"still not done after max_rounds={self.max_rounds} rounds")
            if self.many:
                work.extend((new, rounds + 1) for new in step(current))
                if len(work) > self.limit:
                    raise IterationBound(f"the work-list of one record grew over limit={self.limit}")
            else:
                work.append((step(current), rounds + 1))
            ticks += 1
            if not ticks & 63 and time.perf_counter() - self.turns.begun > self.turns.budget:
                await self.turns.breathe()
        return out


class IterationBound(RuntimeError):
    """A bound of `iterate` was reached; raise the bound, or mend `until`."""
