"""Windows: records into the right ones, results when they are due, late records aside (rules F19a to F22)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.policies import Retry
from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK
from sage_actor.errors import OperatorError, StateMismatch
from sage_actor.operators.general_windows import GeneralWindows, WindowEngine
from sage_actor.operators.stages import Emit, Stage, Turns, as_list, compute_keys
from sage_actor.operators.steady_clock import SteadyClock
from sage_actor.operators.window_engines import build_engine, layout_of
from sage_actor.ports import Cancellable

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

__all__ = ["WindowStage"]

LONGEST_WAIT = 60.0
"""Seconds after which the clock is looked at again, in case it has jumped."""


class WindowStage(Stage):
    """All windows of one operator in one task.

    The windows themselves are a `WindowEngine`: a kernel in C for windows of time without a trigger, else a table in Python. Where much
    is due at once they fire it in several turns, within one call of the stage: no snapshot comes between.
    Windows of processing time are windows of event time whose records are stamped with the clock, and whose watermark is the clock's.

    Unlike the watermark of a source (F19), that of the windows is saved: a window that has given its result before a snapshot does
    not give it again, and what was late stays late.
    """

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        operator = operators[0]
        options = operator.options
        self.assigner = options["assigner"]
        self.selector: Callable[[Any], Any] | None = options["selector"]
        self.late_output: OutputTag[Any] | None = options["late_output"]
        self.whole: bool = options["whole"]
        self.valued = options["aggregate"] != "count" or options["trigger"] is not None
        self.by_clock = getattr(self.assigner, "time", "event") == "processing"
        self.needs_time = options["needs_time"]
        self.key = operator.inputs[0].partition.key
        self.turns = Turns(setting.settings.batch_records, setting.flush)
        self.clock = SteadyClock(setting.clock)
        self.timed = False
        self.passed = MIN_WATERMARK
        self.waiting: Cancellable | None = None
        self.waiting_until: int | None = None
        self.out: tuple[list[Any], list[int], list[int]] = ([], [], [])
        self.late: list[int] = []
        self.engine: WindowEngine = build_engine(options, self.clock.now_ms)

    async def open(self) -> None:
        operator = self.operators[0]
        options = operator.options
        self.description = f"{self.assigner!r} {options['aggregate']} lateness={options['lateness']}, kept as {layout_of(options)}"
        self.state = await self.setting.open_state(operator)
        self.notes = self.state.list("window", mode="union")
        for description, _, _ in self.notes.items:
            if description != self.description:
                raise StateMismatch(
                    operator.name,
                    f"its saved windows are {description}, and those that are to run {self.description}",
                    "give it another uid, and allow the old one's state to be dropped",
                )
        if self.notes.items:
            self.engine.restore_watermark(min(watermark for _, watermark, _ in self.notes.items))
            self.timed = any(timed for _, _, timed in self.notes.items)
        self.state.attach("windows", self.engine, key=key_of_entry)
        if len(self.engine):
            self._arm()

    async def prepare(self, checkpoint: int) -> None:
        watermark = self.engine.watermark
        # The end of all input is not saved: a job that goes on from here may have more.
        self.notes.items[:] = [(self.description, MIN_WATERMARK if watermark == MAX_WATERMARK else watermark, self.timed)]

    # -- records ---------------------------------------------------------------------------------------------------

    async def process(self, batch: Batch, emit: Emit) -> None:
        values = as_list(batch.values)
        total = len(values)
        if batch.timestamps is not None:
            self.timed = True
        elif self.needs_time:
            raise self._untimed()
        start = 0
        while start < total:
            size = self.turns.size
            whole = start == 0 and total <= size
            part = values if whole else values[start : start + size]
            begun = time.perf_counter()
            self.faults.begin(batch, start, len(part))
            keys = self._keys(batch, part, start)
            self.faults.keys = keys
            stamps, marks = self._times(batch, start, len(part))
            try:
                await self._add(keys, part, stamps, marks, emit)
            except OperatorError:
                await self._hand_on(emit)  # what came before the failure goes on
                raise
            self.counters[0].records_in += len(part)
            if self.late:
                await self._put_aside(part, stamps, marks)
            self.turns.learn(len(part), time.perf_counter() - begun, self.setting.settings.batch_records)
            await self._hand_on(emit)
            if batch.watermarks is not None:
                self.passed = max(self.passed, batch.watermarks[start + len(part) - 1])
            if self.faults.dropped:
                self.faults.dropped.clear()
                await self.faults.flush()
            start += len(part)
            await self.turns.breathe()
        self._arm()

    def _untimed(self) -> BaseException:
        problem = "its windows go by event time, and its records have none; call assign_timestamps(...) before the window"
        return self.faults.error(0, ValueError(problem), -1, None, known=False)

    def _keys(self, batch: Batch, values: list[Any], start: int) -> list[Any] | None:
        if self.whole:
            return None
        if batch.keys is not None:
            return batch.keys if len(batch.keys) == len(values) else batch.keys[start : start + len(values)]
        assert self.key is not None
        return compute_keys(self.key, values, lambda error, index: self._key_error(error, index, values[index]))

    def _key_error(self, error: Exception, index: int, value: Any) -> BaseException:
        self.counters[0].errors += 1
        return self.faults.error(0, error, index, value)

    def _times(self, batch: Batch, start: int, length: int) -> tuple[list[int], list[int]]:
        if self.by_clock:
            now = self.clock.now_ms()
            return [now] * length, [now - 1] * length
        stamps, marks = batch.timestamps, batch.watermarks
        if stamps is None or marks is None:
            return [0] * length, [MIN_WATERMARK] * length
        if len(stamps) == length:
            return stamps, marks
        return stamps[start : start + length], marks[start : start + length]

    async def _add(self, keys: list[Any] | None, values: list[Any], stamps: list[int], marks: list[int], emit: Emit) -> None:
        chosen: list[Any] | None = values if self.valued else None
        if self.selector is not None and self.valued:
            selector = self.selector
            try:
                chosen = [selector(value) for value in values]
            except Exception:  # noqa: BLE001 - found again, with its record, one by one
                await self._add_one_by_one(keys, values, stamps, marks, emit)
                return
        await self._run(keys, chosen, values, stamps, marks, 0, emit)

    async def _run(
        self,
        keys: list[Any] | None,
        chosen: list[Any] | None,
        values: list[Any],
        stamps: list[int],
        marks: list[int],
        base: int,
        emit: Emit,
    ) -> None:
        start = 0
        late: list[int] = []
        while start < len(stamps):
            try:
                start = self.engine.run(keys, chosen, stamps, marks, start, *self.out, late)
            except Exception as error:
                if self.engine.firing:
                    raise self._firing_failed(error) from error
                self._refuse(error, base + self.engine.index, values[self.engine.index])
                start = self.engine.index + 1
            else:
                if start < len(stamps):
                    await self._hand_on(emit)
                    await self.turns.breathe()
            finally:
                self.late += [base + index for index in late]
                late.clear()

    async def _add_one_by_one(self, keys: list[Any] | None, values: list[Any], stamps: list[int], marks: list[int], emit: Emit) -> None:
        assert self.selector is not None
        for index, value in enumerate(values):
            try:
                chosen = [self.selector(value)]
            except Exception as error:  # noqa: BLE001 - the user's function: its policy decides
                self._refuse(error, index, value)
                continue
            here = slice(index, index + 1)
            await self._run(None if keys is None else keys[here], chosen, [value], stamps[here], marks[here], index, emit)

    def _refuse(self, error: BaseException, index: int, value: Any) -> None:
        """Apply the policy; windows cannot wait in the middle of a batch, so a retry counts as a failure without a pause."""
        policy = self.operators[0].on_error
        tries = policy.attempts if isinstance(policy, Retry) else 1
        try:
            self.faults.settle(0, error, index, value, tries)
        except OperatorError:
            self.counters[0].records_in += index + 1
            raise

    def _firing_failed(self, error: Exception) -> BaseException:
        self.counters[0].errors += 1
        return self.faults.error(0, error, -1, None, known=False)

    async def _put_aside(self, values: list[Any], stamps: list[int], marks: list[int]) -> None:
        late, self.late = self.late, []
        self.counters[0].late += len(late)
        if self.late_output is None:
            return
        batch = Batch([values[index] for index in late])
        if self.timed:
            batch.timestamps = [stamps[index] for index in late]
            batch.watermarks = [marks[index] for index in late]
        await self.setting.aside(self.operators[0].id, self.late_output.port, batch)

    # -- results ---------------------------------------------------------------------------------------------------

    async def _hand_on(self, emit: Emit) -> None:
        results, times, befores = self.out
        if not results:
            return
        self.out = ([], [], [])
        self.counters[0].records_out += len(results)
        if self.by_clock:
            befores = [self.passed] * len(results)
        step = self.setting.settings.batch_records
        for start in range(0, len(results), step):
            part = slice(start, start + step)
            batch = Batch(results[part])
            if self.timed:
                batch.timestamps, batch.watermarks = times[part], befores[part]
            await emit(batch)

    async def advance(self, watermark: int, emit: Emit) -> int:
        if watermark == MAX_WATERMARK or not self.by_clock:
            await self._reach(watermark, emit)
        self.passed = max(self.passed, watermark)
        return watermark

    async def _reach(self, watermark: int, emit: Emit) -> None:
        done = False
        while not done:
            try:
                done = self.engine.advance(watermark, *self.out)
            except Exception as error:
                raise self._firing_failed(error) from error
            await self._hand_on(emit)
            if not done:
                await self.turns.breathe()

    async def end(self, emit: Emit) -> None:
        if self.engine.watermark < MAX_WATERMARK:
            await self._reach(MAX_WATERMARK, emit)

    # -- the clock -------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """See to it that `alarm` is called when something of the clock's is due."""
        due: int | None = None
        if self.by_clock and len(self.engine) and self.engine.next_due < MAX_WATERMARK:
            due = self.engine.next_due + 1
        if isinstance(self.engine, GeneralWindows) and self.engine.next_alarm is not None:
            due = self.engine.next_alarm if due is None else min(due, self.engine.next_alarm)
        if due is None or (self.waiting_until is not None and self.waiting_until <= due):
            return
        if self.waiting is not None:
            self.waiting.cancel()
        self.waiting_until = due
        seconds = (due - self.clock.now_ms()) / 1000
        self.waiting = self.setting.alarm(self, min(max(seconds, 0.0), LONGEST_WAIT))

    async def alarm(self, emit: Emit) -> None:
        self.waiting = self.waiting_until = None
        now = self.clock.now_ms()
        done = not isinstance(self.engine, GeneralWindows)
        while not done and isinstance(self.engine, GeneralWindows):
            try:
                done = self.engine.on_clock(now, *self.out)
            except Exception as error:
                raise self._firing_failed(error) from error
            await self._hand_on(emit)
            if not done:
                await self.turns.breathe()
        if self.by_clock:
            await self._reach(now - 1, emit)
        await self._hand_on(emit)
        self._arm()

    async def close(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None
        await super().close()


def key_of_entry(entry: tuple[Any, int]) -> Any:
    """The record's key in the key of an entry of any engine."""
    return entry[0]
