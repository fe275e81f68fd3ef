"""What the joins have in common: two inputs, one event time, results with the watermark in force, late records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.watermarks import MIN_WATERMARK
from sage_actor.errors import GraphError, UnstableKey
from sage_actor.operators.side_outputs import SideOutputs
from sage_actor.operators.stages import Emit, Stage, Turns, as_list

if TYPE_CHECKING:
    from sage_actor.dataflow.output_tag import OutputTag
    from sage_actor.operators.setting import TaskSetting

__all__ = ["NEVER", "ROOM", "TimedJoinStage", "key_of_entry"]

NEVER: Final = 2**63
"""Later than every watermark."""
ROOM: Final = 1024
"""Results that are handed on at once."""
BETWEEN: Final = 128
"""Records between two looks at the clock."""


def key_of_entry(entry: tuple[Any, int]) -> Any:
    """The record's key in the key of an entry of a `JoinBuffer`."""
    return entry[0]


class TimedJoinStage(Stage):
    """Hands records one at a time to `put`, after event time has been brought to what was certain before each (F19a).

    A subclass keeps its records in its own state, says in `next_due` when something is due, and emits in `fire`. Watermarks of the
    two inputs have been combined to their minimum before (F18).
    """

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        self.late_tag: OutputTag[Any] | None = operators[0].options.get("late")
        self.side_outputs = SideOutputs(self)
        self.turns = Turns(setting.settings.batch_records, setting.flush)
        self.now = MIN_WATERMARK
        self.next_due = NEVER
        self.values: list[Any] = []
        self.times: list[int] = []
        self.marks: list[int] = []

    # -- for subclasses -------------------------------------------------------------------------------------------

    def put(self, side: int, key: Any, time: int, value: Any) -> bool:
        """Take over one record, `self.now` being the watermark; whether it was not late."""
        raise NotImplementedError

    def fire(self, watermark: int) -> Iterator[None]:
        """Emit (`self.add`) what is due at `watermark`, in order of time, and forget what is of no use then.

        Each step of the iterator is a chance to hand results on. Afterwards `next_due` is higher than `watermark`.
        """
        raise NotImplementedError

    def add(self, value: Any, time: int) -> None:
        """One result; it goes with the watermark in force before whatever is being handled, so it is not late downstream."""
        self.values.append(value)
        self.times.append(time)
        self.marks.append(self.now)

    # -- the stage ------------------------------------------------------------------------------------------------

    async def process(self, batch: Batch, emit: Emit) -> None:
        await self.take(batch, 0, emit)

    async def process_second(self, batch: Batch, emit: Emit) -> None:
        await self.take(batch, 1, emit)

    async def advance(self, watermark: int, emit: Emit) -> int:
        await self.move(watermark, emit)
        await self.hand_on(emit)
        return watermark

    async def take(self, batch: Batch, side: int, emit: Emit) -> None:
        """All records of a batch of one side."""
        values, keys, times, marks = self.columns(batch, side)
        counter = self.counters[0]
        for index, (key, value, time, mark) in enumerate(zip(keys, values, times, marks, strict=True)):
            if mark > self.now:
                await self.move(mark, emit)
            try:
                if not self.put(side, key, time, value):
                    self.put_aside_late(value, time)
            except (UnstableKey, TypeError) as error:
                self.faults.settle(0, error, index, value)
            if index % BETWEEN == 0:
                if len(self.values) >= ROOM:
                    await self.hand_on(emit)
                await self.turns.breathe()
        counter.records_in += len(values)
        await self.finish(emit)

    async def move(self, watermark: int, emit: Emit) -> None:
        """Event time goes on to `watermark`."""
        if watermark >= self.next_due:
            for _ in self.fire(watermark):
                await self.hand_on(emit)
                await self.turns.breathe()
        self.now = watermark

    def columns(self, batch: Batch, side: int) -> tuple[list[Any], list[Any], list[int], list[int]]:
        """Values, keys, timestamps and watermarks of a batch.

        Raises:
            GraphError: the records have no timestamps.
        """
        values = as_list(batch.values)
        if batch.timestamps is None or batch.watermarks is None:
            operator = self.operators[0]
            which = "left" if side == 0 else "right"
            raise GraphError(
                f"operator {operator.name!r} joins by event time, but the records of its {which} input have no timestamps; "
                "call assign_timestamps(...) on that stream before"
            )
        keys = self.keys_of(batch, values, side)
        self.faults.begin(batch, 0, len(values))
        self.faults.keys = keys
        return values, keys, batch.timestamps, batch.watermarks

    def put_aside_late(self, value: Any, time: int) -> None:
        """A record came too late for any result: counted, and sent to the late output, if there is one."""
        self.counters[0].late += 1
        if self.late_tag is not None:
            self.side_outputs.add(self.late_tag, value, time, self.now)

    async def hand_on(self, emit: Emit) -> None:
        """Emit the results so far."""
        if self.values:
            batch = Batch(self.values, timestamps=self.times, watermarks=self.marks)
            self.counters[0].records_out += len(self.values)
            self.values, self.times, self.marks = [], [], []
            await emit(batch)

    async def finish(self, emit: Emit) -> None:
        """Nothing is held any more when this returns: not a result, a late record, or a dropped one."""
        await self.hand_on(emit)
        await self.side_outputs.flush()
        self.faults.dropped.clear()
        if self.faults.asides or self.faults.replies:
            await self.faults.flush()
