"""Operators that take one record at a time, fused into one generated loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.policies import Retry
from sage_actor.errors import GraphError
from sage_actor.operators.codegen import StepShape, build_loop, failing_step, slices
from sage_actor.operators.row_context import RowContext
from sage_actor.operators.side_outputs import SideOutputs
from sage_actor.operators.stages import Emit, Stage, Turns, as_list, cancelled_from_outside

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

__all__ = ["ROW_KINDS", "RowStage"]

ROW_KINDS = ("map", "filter", "flat_map", "process", "sink")
ROOM = 1024
"""Results of a flat_map that are handed on at once: more would leave the processor's caches before the next stage sees them."""
SELECTIVE = ("filter", "flat_map", "process")


class RowStage(Stage):
    """A run of map, filter, flat_map, process and per-record sinks as one loop.

    Counts per operator cost nothing where they follow from the numbers at both ends; elsewhere the loop keeps one
    local integer.
    """

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        self.kinds = ["each" if operator.kind == "sink" else operator.kind for operator in operators]
        self.one_to_one = all(kind == "map" for kind in self.kinds)
        self.last_selective = max((i for i, kind in enumerate(self.kinds) if kind in SELECTIVE), default=-1)
        self.ends = self.kinds[-1] == "each"
        self.counts = [0] * len(operators)
        self.lost = [0] * len(operators)
        self.no_losses = [0] * len(operators)
        self.turns = Turns(setting.settings.batch_records, setting.flush)
        self.functions: list[Callable[..., Any]] = []
        self.handlers: list[Callable[..., float | None] | None] = []
        self.contexts: list[Any] = []
        self.row_contexts: list[RowContext] = []

    async def open(self) -> None:
        for operator in self.operators:
            replica = self.create_replica(operator)
            if replica.is_async:
                raise GraphError(f"operator {operator.name!r}: {operator.kind} takes a plain function, not an async one; use map_async")
        shapes: list[StepShape] = []
        for i, (kind, replica) in enumerate(zip(self.kinds, self.replicas, strict=True)):
            policy = self.faults.policy(i)
            handling = "raise" if policy == "fail" else "retry" if isinstance(policy, Retry) else "drop"
            counted = kind in SELECTIVE and (i != self.last_selective or self.ends)
            shapes.append(StepShape(kind, handling, counted, replica.takes_context))  # type: ignore[arg-type]
            function = replica.call
            if self.operators[i].kind == "map" and replica.spec.flag("cache_results"):
                function = cached(function)
            self.functions.append(function)
            self.handlers.append(None if handling == "raise" else partial(self._settle, i))
            self.contexts.append(None)
            if replica.takes_context:
                self.contexts[i] = RowContext(self.context(self.operators[i]), SideOutputs(self, i))
                self.row_contexts.append(self.contexts[i])
        self.shapes = tuple(shapes)
        self.loop = build_loop(self.shapes)
        self.plain = self.one_to_one and all(shape.handling == "raise" for shape in shapes)
        for i, replica in enumerate(self.replicas):
            await self.open_replica(i, replica)

    async def process(self, batch: Batch, emit: Emit) -> None:
        values = batch.values if batch.values.__class__ is range else as_list(batch.values)
        total = len(values)
        # Where records can be dropped or multiplied, their times have to follow them.
        run = self._run if batch.timestamps is None or self.plain or self.ends else self._run_timed
        if total <= self.turns.size:
            await run(values, batch, 0, emit)
            return
        start = 0
        while start < total:
            part = values[start : start + self.turns.size]
            await run(part, batch, start, emit)
            start += len(part)
            await self.turns.breathe()

    async def _run(self, part: Sequence[Any], batch: Batch, start: int, emit: Emit) -> None:
        faults = self.faults
        faults.begin(batch, start, len(part))
        most = min(self.setting.settings.batch_records, ROOM)
        out: list[Any] = []
        it: Any = iter(part)  # a list iterator: its length hint tells how far it is
        for context in self.row_contexts:
            context.begin(batch, start + len(part), it)
        emitted = 0
        loop = self.loop.function(it, out, most, self.counts, slices, self.functions, self.handlers, self.contexts)
        begun = flushed = time.perf_counter()
        sent: list[Any] | None = None
        try:
            while True:
                try:
                    pause = loop.send(sent)
                except StopIteration:
                    break
                if faults.tags is None and out and (pause or len(out) >= most or time.perf_counter() - flushed > 0.001):
                    emitted += len(out)
                    await emit(Batch(out))
                    out = []
                    flushed = time.perf_counter()
                sent = out
                if pause:
                    await self.pause(pause)
                else:
                    await self.turns.breathe()
        except (Exception, asyncio.CancelledError) as error:
            if cancelled_from_outside(error):
                raise
            failure: BaseException = error
            if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
                failure = error.__cause__  # Python replaces a StopIteration that leaves a generator
            if out and faults.tags is None:
                emitted += len(out)
                await emit(begun_of(out, batch, start))
            await self._flush_sides()
            step = failing_step(self.loop, failure.__traceback__)
            self._count(len(part) - it.__length_hint__(), emitted, begun, step)
            self._raise(error, failure, step, part, it)
        emitted += len(out)
        self._count(len(part), emitted, begun)
        if out:
            result = Batch(out)
            if self.one_to_one and emitted == len(out) and (batch.tags is not None or batch.timestamps is not None or batch.position >= 0):
                self._carry(result, batch, start, len(part))
            if faults.dropped:
                faults.dropped.clear()
            await emit(result)
        elif faults.dropped:
            faults.dropped.clear()
        if self.row_contexts:
            await self._flush_sides()
        if faults.asides or faults.replies:
            await faults.flush()

    async def _flush_sides(self) -> None:
        for context in self.row_contexts:
            await context.sides.flush()

    def _raise(self, error: BaseException, failure: BaseException, step: int, part: Sequence[Any], it: Any) -> None:
        """What left the loop, with its address; called while it is being handled."""
        if step < 0 or error is self.faults.fatal:
            raise error
        offset = len(part) - it.__length_hint__() - 1
        self.counters[step].errors += 1
        raise self.faults.error(step, failure, offset, part[offset], known=step == 0 or self.one_to_one) from failure

    async def _run_timed(self, part: Sequence[Any], batch: Batch, start: int, emit: Emit) -> None:
        """As `_run`, with the columns of event time carried along by the numbers of the records."""
        faults = self.faults
        faults.begin(batch, start, len(part))
        most = min(self.setting.settings.batch_records, ROOM)
        out: list[Any] = []
        kept: list[int] = []
        it: Any = iter(part)
        for context in self.row_contexts:
            context.begin(batch, start + len(part), it)
        timed_loop = build_loop(self.shapes, rows=True)
        loop = timed_loop.function(
            it, out, most, self.counts, slices, self.functions, self.handlers, self.contexts, range(start, start + len(part)), kept
        )
        begun = flushed = time.perf_counter()
        emitted = 0
        sent: tuple[list[Any], list[int]] | None = None
        try:
            while True:
                try:
                    pause = loop.send(sent)
                except StopIteration:
                    break
                if out and (pause or len(out) >= most or time.perf_counter() - flushed > 0.001):
                    emitted += len(out)
                    await emit(timed(out, kept, batch))
                    out, kept = [], []
                    flushed = time.perf_counter()
                sent = out, kept
                if pause:
                    await self.pause(pause)
                else:
                    await self.turns.breathe()
        except (Exception, asyncio.CancelledError) as error:
            if cancelled_from_outside(error):
                raise
            failure: BaseException = error
            if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
                failure = error.__cause__  # Python replaces a StopIteration that leaves a generator
            if out:
                emitted += len(out)
                await emit(timed(out, kept[: len(out)], batch))
            await self._flush_sides()
            step = failing_step(timed_loop, failure.__traceback__)
            self._count(len(part) - it.__length_hint__(), emitted, begun, step)
            self._raise(error, failure, step, part, it)
        emitted += len(out)
        self._count(len(part), emitted, begun)
        faults.dropped.clear()
        if out:
            await emit(timed(out, kept, batch))
        if self.row_contexts:
            await self._flush_sides()
        if faults.asides or faults.replies:
            await faults.flush()

    def _carry(self, result: Batch, batch: Batch, start: int, length: int) -> None:
        """One-to-one steps keep the other columns, less the dropped records."""
        whole = start == 0 and length == len(batch)
        dropped = self.faults.dropped
        if not dropped:
            result.position = -1 if batch.position < 0 else batch.position + start
        for column in ("timestamps", "watermarks", "tags"):
            values = getattr(batch, column)
            if values is None:
                continue
            if not whole or dropped:
                gone = set(dropped)
                values = [value for i, value in enumerate(values[start : start + length]) if i not in gone]
            setattr(result, column, values)

    def _settle(self, index: int, error: BaseException, value: Any, tries: int, it: Any) -> float | None:
        offset = self.faults.length - it.__length_hint__() - 1
        return self.faults.settle(index, error, offset, value, tries)

    def _count(self, taken: int, emitted: int, begun: float, failed: int = -1) -> None:
        """Bring the counters of every fused operator up to date from what is known at both ends.

        `failed` is the step that the last record taken did not leave, because the job fails there; -1 if none.
        """
        self.turns.learn(taken, time.perf_counter() - begun, self.setting.settings.batch_records)
        lost_here = self._losses() if self.faults.dropped else self.no_losses
        records = taken
        for i, counter in enumerate(self.counters):
            counter.records_in += records
            if self.kinds[i] not in SELECTIVE:
                records -= lost_here[i] + (i == failed)
            elif i == self.last_selective and not self.ends:
                records = emitted + sum(lost_here[i + 1 :]) + (failed > i)
            else:
                records = self.counts[i]
                self.counts[i] = 0
            counter.records_out += records

    def _losses(self) -> list[int]:
        """Records each operator has dropped since this was last asked."""
        lost = [counter.skipped + counter.dead_letters for counter in self.counters]
        here = [now - before for now, before in zip(lost, self.lost, strict=True)]
        self.lost = lost
        return here


def begun_of(out: list[Any], batch: Batch, start: int) -> Batch:
    """The results before a failure; of timed records only where each gave one."""
    stop = start + len(out)
    stamps, watermarks = batch.timestamps, batch.watermarks
    return Batch(
        out, timestamps=None if stamps is None else stamps[start:stop], watermarks=None if watermarks is None else watermarks[start:stop]
    )


def timed(out: list[Any], kept: list[int], batch: Batch) -> Batch:
    """Results with the times, and the tags, of the records they came from."""
    stamps, watermarks, tags = batch.timestamps, batch.watermarks, batch.tags
    assert stamps is not None
    assert watermarks is not None
    result = Batch(out, timestamps=[stamps[at] for at in kept], watermarks=[watermarks[at] for at in kept])
    if tags is not None:
        result.tags = [tags[at] for at in kept]
    return result


def cached(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``cache_results``: remember the last 10,000 results by (hashable) input."""
    from sage_actor._core.lru_cache import LRUCache

    cache: LRUCache[Any, Any] = LRUCache(10_000)
    missing = object()

    def look_up(value: Any) -> Any:
        result = cache.get(value, missing)
        if result is missing:
            result = function(value)
            cache.put(value, result)
        return result

    return look_up
