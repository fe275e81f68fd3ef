"""assign_timestamps: the two columns of event time, and the watermarks that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor._core.event_time import running_watermarks
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK, WatermarkStrategy
from sage_actor.operators.stages import Emit, Stage, as_list
from sage_actor.ports import Cancellable

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

__all__ = ["TimestampStage"]


class TimestampStage(Stage):
    """Gives each record its time and judges, record by record, how far event time has come (F19, F19a).

    Its watermark is not part of a snapshot (F19): after a restore it starts again from the records. Watermarks of an
    earlier assign_timestamps upstream end here.
    """

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        options = operators[0].options
        self.extract: Callable[[Any], int] = options["extract"]
        self.strategy: WatermarkStrategy = options["strategy"]
        self.judge = self.strategy.start()
        self.watermark = MIN_WATERMARK
        self.last_read = 0.0
        self.last_advance_ms = 0
        self.idle = False
        self.waiting: Cancellable | None = None

    async def open(self) -> None:
        self._touch()

    async def process(self, batch: Batch, emit: Emit) -> None:
        values = as_list(batch.values)
        self.faults.begin(batch, 0, len(values))
        self._touch()
        batch.timestamps = stamps = self._extract(values)
        batch.watermarks, watermark = self._watermarks(values, stamps)
        counter = self.counters[0]
        counter.records_in += len(values)
        counter.records_out += len(values)
        batch.values = values
        await emit(batch)
        if watermark > self.watermark:
            self.watermark = watermark
            await self.setting.advance_behind(self, watermark)

    def _extract(self, values: list[Any]) -> list[int]:
        extract = self.extract
        it: Any = iter(values)
        try:
            return list(map(extract, it))
        except Exception as error:
            index = len(values) - it.__length_hint__() - 1
            self.counters[0].errors += 1
            raise self.faults.error(0, error, index, values[index]) from error

    def _watermarks(self, values: list[Any], stamps: list[int]) -> tuple[list[int], int]:
        limit = MAX_WATERMARK
        if self.strategy.max_ahead is not None:
            limit = self.setting.clock.now_ms() + self.strategy.max_ahead
        try:
            column, watermark = running_watermarks(stamps, self.strategy.delay, self.watermark, limit)
        except TypeError as error:
            text, index = error.args
            self.counters[0].errors += 1
            raise self.faults.error(0, TypeError(text), index, values[index]) from error
        if self.judge is None:
            return column, watermark
        watermark = self.watermark
        for index, (value, stamp) in enumerate(zip(values, stamps, strict=True)):
            column[index] = watermark
            try:
                watermark = max(watermark, self.judge(value, stamp))
            except Exception as error:
                self.counters[0].errors += 1
                raise self.faults.error(0, error, index, value) from error
        return column, watermark

    # -- silence ---------------------------------------------------------------------------------------------------

    def _touch(self) -> None:
        """A record is here: the time of silence begins anew."""
        self.idle = False
        if self.strategy.idle_after is None:
            return
        self.last_read = self.setting.clock.monotonic()
        if self.waiting is None:
            self.waiting = self.setting.alarm(self, self.strategy.idle_after)

    async def alarm(self, emit: Emit) -> None:
        silence = self.strategy.idle_after
        if silence is None or self.waiting is None:
            return
        clock = self.setting.clock
        now = clock.monotonic()
        quiet = now - self.last_read
        if not self.idle and quiet < silence:
            self.waiting = self.setting.alarm(self, silence - quiet)
            return
        if not self.strategy.advance_when_idle:
            self.idle = True
            self.waiting = None
            self.setting.idle_behind(self)
            return
        # The clock stands in for the records that do not come: event time goes on as fast as it.
        since = now - (self.last_read if not self.idle else self.last_advance_ms / 1000)
        self.idle = True
        self.last_advance_ms = round(now * 1000)
        self.waiting = self.setting.alarm(self, min(silence, 1.0))
        if self.watermark > MIN_WATERMARK:
            self.watermark = min(MAX_WATERMARK - 1, self.watermark + round(since * 1000))
            await self.setting.advance_behind(self, self.watermark)

    async def advance(self, watermark: int, emit: Emit) -> int:
        """Only the end of all input passes; what an upstream operator thought of time does not."""
        if watermark == MAX_WATERMARK:
            self.watermark = watermark
        return self.watermark

    async def close(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None
        await super().close()
