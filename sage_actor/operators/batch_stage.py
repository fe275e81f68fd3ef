"""map_batch: the user's function gets lists (or numpy arrays) of records."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.operators.stages import Emit, Stage, Turns, as_list, cancelled_from_outside

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

__all__ = ["BatchStage"]


class BatchStage(Stage):
    """Calls the function with 1 to `max_batch` records; it must answer with as many results, in order."""

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        options = operators[0].options
        self.vectorized: bool = options.get("vectorized", False)
        self.most: int = options.get("max_batch") or setting.settings.batch_records
        self.turns = Turns(self.most, setting.flush)
        self.turns.size = self.most

    async def open(self) -> None:
        self.replica = self.create_replica(self.operators[0])
        await self.open_replica(0, self.replica)

    async def process(self, batch: Batch, emit: Emit) -> None:
        total = len(batch)
        for start in range(0, total, self.most):
            length = min(self.most, total - start)
            values = batch.values if length == total else batch.values[start : start + length]
            faults = self.faults
            faults.begin(batch, start, length)
            self.counters[0].records_in += length
            begun = time.perf_counter()
            out: Any
            try:
                out = await self._call(values)
            except (Exception, asyncio.CancelledError) as error:
                if cancelled_from_outside(error):
                    raise
                if faults.policy(0) == "fail":
                    self.counters[0].errors += 1
                    raise faults.error(0, error, 0 if length == 1 else -1, values[0], known=length == 1) from error
                out = []
                await self._divide(as_list(values), 0, error, out)
            self.counters[0].records_out += len(out)
            if len(out):  # may be a numpy array, which has no truth value
                await emit(self._columns(out, batch, start, length))
            faults.dropped.clear()
            await faults.flush()
            if time.perf_counter() - begun > self.turns.budget / 2:
                await self.turns.breathe()

    def _columns(self, out: Any, batch: Batch, start: int, length: int) -> Batch:
        dropped = self.faults.dropped
        result = Batch(out)
        if not dropped and batch.position >= 0:
            result.position = batch.position + start
        gone = set(dropped)
        for column in ("timestamps", "watermarks", "tags"):
            values = getattr(batch, column)
            if values is not None:
                setattr(result, column, [value for i, value in enumerate(values[start : start + length]) if i not in gone])
        return result

    async def _call(self, values: Any) -> Any:
        if self.vectorized:
            import numpy as np

            values = np.asarray(values)
        elif values.__class__ is not list:
            values = as_list(values)
        result = self.replica.call(values)
        if inspect.isawaitable(result):
            result = await result
        if not is_sequence(result):
            raise TypeError(f"map_batch must answer with a sequence of {len(values)} results, not {type(result).__name__}")
        length = len(result)
        if length != len(values):
            raise ValueError(f"map_batch got {len(values)} records and answered with {length} results; it must be one for each")
        # Batches are merged in place further on; a list that the function keeps must stay as it is.
        return result if hasattr(result, "dtype") else list(result)

    async def _divide(self, values: list[Any], offset: int, error: BaseException, out: list[Any]) -> None:
        """The batch failed: halve it until only the bad records are left, and treat those by the policy."""
        if len(values) == 1:
            tries = 1
            while True:
                pause = self.faults.settle(0, error, offset, values[0], tries)
                if pause is None:
                    return
                await self.pause(pause)
                try:
                    out.extend(as_list(await self._call(values)))
                except Exception as again:  # noqa: BLE001 - the user's function, tried again by its policy
                    error = again
                    tries += 1
                    continue
                return
        middle = len(values) // 2
        for part, place in ((values[:middle], offset), (values[middle:], offset + middle)):
            try:
                out.extend(as_list(await self._call(part)))
            except Exception as again:  # noqa: BLE001 - narrowed down to the record below
                await self._divide(part, place, again, out)


def is_sequence(value: object) -> bool:
    """A sequence of results: a list, a tuple, an array; not a text."""
    return (isinstance(value, Sequence) and not isinstance(value, str | bytes)) or hasattr(value, "dtype")
