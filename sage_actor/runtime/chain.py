"""The stages of one task, one behind the other, and how event time passes through them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sage_actor._core.batch import Batch
from sage_actor.dataflow.watermarks import MIN_WATERMARK
from sage_actor.operators.stages import Emit, Stage

__all__ = ["Chain"]

Process = Callable[[Batch, Emit], Awaitable[None]]


class Chain:
    """Feeds batches and watermarks through stages in order.

    A watermark enters a stage only when it is higher than ever before there (F16), and leaves it behind all results that it
    caused (F20). When it has left the last one, `passed` is told.
    """

    def __init__(self, stages: Sequence[Stage], out: Emit, passed: Callable[[int], None]) -> None:
        self.stages = stages
        self.passed = passed
        self.levels = [MIN_WATERMARK] * (len(stages) + 1)
        emits: list[Emit] = [out]
        for stage in reversed(stages[1:]):
            emits.insert(0, feed_of(stage.process, emits[0]))
        self.emits = emits[: len(stages)] if stages else []
        self.first: Emit = feed_of(stages[0].process, emits[0]) if stages else out
        self.second: Emit = feed_of(stages[0].process_second, emits[0]) if stages else out

    async def advance(self, watermark: int) -> None:
        """Event time has come so far for the whole chain."""
        await self._advance(0, watermark)

    async def advance_behind(self, stage: Stage, watermark: int) -> None:
        """Event time has come so far for the stages behind one of them."""
        await self._advance(self.stages.index(stage) + 1, watermark)

    async def _advance(self, begin: int, watermark: int) -> None:
        stages, levels = self.stages, self.levels
        for index in range(begin, len(stages)):
            if watermark <= levels[index]:
                return
            levels[index] = watermark
            watermark = await stages[index].advance(watermark, self.emits[index])
        if watermark > levels[-1]:
            levels[-1] = watermark
            self.passed(watermark)

    async def alarm(self, stage: Stage) -> None:
        """A time that a stage has asked for has come."""
        await stage.alarm(self.emits[self.stages.index(stage)])

    async def end(self) -> None:
        """Input has ended: every stage emits what it still holds."""
        for stage, emit in zip(self.stages, self.emits, strict=True):
            await stage.end(emit)


def feed_of(process: Process, emit: Emit) -> Emit:
    """The next stage's `process` with its own way out bound: no coroutine in between."""

    def feed(batch: Batch) -> Awaitable[None]:
        return process(batch, emit)

    return feed
