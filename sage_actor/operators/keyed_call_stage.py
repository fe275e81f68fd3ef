"""Calls of a user's function with key, state, timers and side outputs: what the stages of keyed process functions share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.process_functions import KeyedContext
from sage_actor.dataflow.watermarks import MIN_WATERMARK
from sage_actor.errors import GraphError
from sage_actor.operators.side_outputs import SideOutputs
from sage_actor.operators.stages import Emit, Stage, Turns, as_list
from sage_actor.operators.timers import KeyTimers, Timer, TimerService

if TYPE_CHECKING:
    from sage_actor.dataflow.functions import Replica
    from sage_actor.operators.setting import TaskSetting

__all__ = ["Call", "KeyedCallStage"]

ROOM: Final = 1024
"""Results handed on at once, and how many are taken from a lazy iterable before the loop gets a turn."""

Call = Callable[[Any, Any], "Iterable[Any] | None"]
"""A function of (value, context)."""


class KeyedCallStage(Stage):
    """Runs batches through a function of (value, context) one record at a time, and fires the timers it sets.

    Event timers due at ``watermarks[i]`` fire before record i; one that is due already when a record's call sets it fires right
    after that call. So the size of batches never shows. Results of a record carry its timestamp, those of a timer the timer's
    time; both stand behind the watermark that was in force before. A subclass calls `start` when it opens, and `run` with a batch.
    """

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        self.turns = Turns(setting.settings.batch_records, setting.flush)
        self.watermark = MIN_WATERMARK  # in force: while timers fire, the one before that at which they do
        self.sides = SideOutputs(self, in_force=lambda: self.watermark)
        self.event_time = True
        self.started = False
        self.on_timer: Callable[[int, KeyedContext], Iterable[Any] | None] = self._without_timers
        self.out: list[Any] = []
        self.stamps: list[int] = []
        self.marks: list[int] = []

    async def start(self, replica: Replica) -> None:
        """Open state, timers and the replica. Its ``open`` may declare state."""
        if replica.is_async:
            operator = self.operators[0]
            raise GraphError(
                f"operator {operator.name!r}: process takes a plain function, not an async one; await in a map_async before it"
            )
        await self.open_state()
        self.on_timer = getattr(getattr(replica.call, "__self__", None), "on_timer", self.on_timer)
        await self.open_replica(0, replica)

    async def open_state(self) -> None:
        """Open state and timers, restored content included."""
        operator = self.operators[0]
        self.state = await self.setting.open_state(operator)
        self.access = self.state.access()
        self.timers = TimerService(self, self.state)
        self.started = True
        # A timer of processing time may be overdue before the first batch tells whether there are timestamps.
        self.known = self.state.list("event time", mode="union")
        self._see(event_time=not self.known.items or any(self.known.items))
        self.keyed = KeyedContext(self.setting.context(operator.name), self.sides.add, self.access, KeyTimers(self.timers))

    def context(self, operator: Operator) -> KeyedContext:
        """The context that ``open`` and all calls get."""
        return self.keyed

    async def run(self, call: Call, batch: Batch, emit: Emit, role: int = 0) -> None:
        """Take over one batch of the input with that role."""
        values = as_list(batch.values)
        keys = self.keys_of(batch, values, role)
        if (batch.timestamps is not None) != self.event_time:
            self._see(event_time=batch.timestamps is not None)
        self.faults.begin(batch, 0, len(values))
        self.faults.keys = keys
        start, total = 0, len(values)
        while start < total:
            stop = min(total, start + self.turns.size)
            begun = time.perf_counter()
            await self._records(call, batch, values, keys, range(start, stop), emit)
            self.turns.learn(stop - start, time.perf_counter() - begun, self.setting.settings.batch_records)
            await self.hand_on(emit)
            await self.turns.breathe()
            start = stop

    async def _records(self, call: Call, batch: Batch, values: list[Any], keys: list[Any], span: range, emit: Emit) -> None:
        context, access, timers = self.keyed, self.access, self.timers
        stamps, marks = batch.timestamps, batch.watermarks
        index = span.start - 1
        try:
            for index in span:
                if marks is not None:
                    mark = marks[index]
                    if mark >= timers.next_event:
                        await self._fire(mark, emit)
                    self.watermark = context.watermark = mark
                access.key = timers.key = context.key = keys[index]
                context.timestamp = stamp = None if stamps is None else stamps[index]
                await self._one(call, values[index], index, stamp, emit)
                if timers.next_event <= self.watermark:
                    await self._fire(self.watermark, emit)
        finally:
            self.counters[0].records_in += index + 1 - span.start

    async def _fire(self, watermark: int, emit: Emit) -> None:
        """Fire the timers of event time that are due at a watermark, before it is in force."""
        while (timer := self.timers.pop_event(watermark)) is not None:
            await self._call_timer(timer, watermark, emit)

    async def _call_timer(self, timer: Timer, watermark: int, emit: Emit) -> None:
        context, faults = self.keyed, self.faults
        self.access.key = self.timers.key = context.key = timer.key
        context.timestamp = timer.time
        context.watermark = watermark
        columns = faults.base, faults.keys, faults.tags
        faults.base, faults.keys, faults.tags = -1, [timer.key], None
        await self._one(self._on_timer, timer, 0, timer.time, emit)
        faults.base, faults.keys, faults.tags = columns
        await self.turns.breathe()

    def _on_timer(self, timer: Timer, context: KeyedContext) -> Iterable[Any] | None:
        return self.on_timer(timer.time, context)

    async def _one(self, call: Call, argument: Any, offset: int, stamp: int | None, emit: Emit) -> None:
        """One call, and what comes of it. Results beyond ``len(self.stamps)`` are those of a call that is not over.

        A lazy iterable is taken in slices, since it may be long; with an ``on_error`` other than "fail" all results are
        gathered before the first is handed on.
        """
        aside = len(self.sides.records)
        results: Iterator[Any] | None = None
        more = True
        while more:
            try:
                if results is None:
                    answer = call(argument, self.keyed)
                    if answer is None:
                        return
                    results = iter(answer)
                length = len(self.out)
                self.out.extend(islice(results, ROOM))
                more = len(self.out) - length == ROOM
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the user's function: its policy decides
                await self._refuse(error, call, argument, offset, aside, emit)
                more = False
            if more:
                if self.faults.policy(0) == "fail":
                    self._stamp(stamp)
                    await self.hand_on(emit)
                await self.turns.breathe()
        if len(self.out) > len(self.stamps):
            self._stamp(stamp)
            if len(self.out) >= ROOM:
                await self.hand_on(emit)

    async def _refuse(self, error: BaseException, call: Call, argument: Any, offset: int, aside: int, emit: Emit) -> None:
        """A call has raised: take its results back, hand on what came before, and do as the policy says."""
        tries = 1
        while True:
            del self.out[len(self.stamps) :]
            self.sides.take_back(aside)
            if error is self.faults.fatal or self.faults.policy(0) == "fail":
                await self.hand_on(emit)
            if error is self.faults.fatal:
                raise error
            pause = self.faults.settle(0, error, offset, argument, tries)
            if pause is None:
                return
            await self.hand_on(emit)
            await self.pause(pause)
            aside = 0
            try:
                self.out.extend(call(argument, self.keyed) or ())
                return
            except (Exception, asyncio.CancelledError) as again:  # noqa: BLE001 - the user's function, tried again by its policy
                error = again
                tries += 1

    def _stamp(self, stamp: int | None) -> None:
        added = len(self.out) - len(self.stamps)
        self.stamps.extend([stamp or 0] * added)
        self.marks.extend([self.watermark] * added)

    async def hand_on(self, emit: Emit) -> None:
        """Emit the results so far, and what was put aside."""
        if self.out:
            out, stamps, marks = self.out, self.stamps, self.marks
            self.out, self.stamps, self.marks = [], [], []
            result = Batch(out)
            if self.event_time:
                result.timestamps, result.watermarks = stamps, marks
            self.counters[0].records_out += len(out)
            await emit(result)
        if self.sides.records:
            await self.sides.flush()
        if self.faults.dropped:
            self.faults.dropped.clear()
            await self.faults.flush()

    async def advance(self, watermark: int, emit: Emit) -> int:
        if watermark >= self.timers.next_event:
            await self._fire(watermark, emit)
        self.watermark = watermark
        await self.hand_on(emit)
        return watermark

    async def alarm(self, emit: Emit) -> None:
        timers = self.timers
        timers.rung()
        now = self.setting.clock.now_ms()
        while (timer := timers.pop_processing(now)) is not None:
            await self._call_timer(timer, self.watermark, emit)
            if timers.next_event <= self.watermark:
                await self._fire(self.watermark, emit)
        timers.arm()
        await self.hand_on(emit)

    async def prepare(self, checkpoint: int) -> None:
        self.known.items[:] = [self.event_time]

    async def close(self) -> None:
        if self.started:
            self.timers.close()
        await super().close()

    def _see(self, *, event_time: bool) -> None:
        self.event_time = self.timers.event_time = event_time

    def _without_timers(self, timestamp: int, context: KeyedContext) -> Iterable[Any] | None:
        raise GraphError(f"operator {self.operators[0].name!r} sets timers, but its function has no on_timer(timestamp, context)")
