"""A stage without its task: records and watermarks in, results out, and snapshots taken and restored between any two calls."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from sage_actor._core.batch import Batch
from sage_actor._core.stable_hash import group_range, key_group
from sage_actor.dataflow.functions import FunctionSpec
from sage_actor.dataflow.graph import Edge, Operator, Partition
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import CheckpointDamaged
from sage_actor.operators.setting import TaskSetting
from sage_actor.operators.stages import Stage
from sage_actor.ports import Cancellable
from sage_actor.state.operator_state import OperatorState
from sage_actor.state.parts import FileRef, OperatorPart
from sage_actor.testing import ManualClock

GROUPS = 16


NUMBERS = itertools.count()


class MemoryStorage:
    """Files of checkpoints as values."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def write(self, name: str, blocks: AsyncIterable[bytes]) -> FileRef:
        assert name not in self.files
        content = b"".join([block async for block in blocks])
        self.files[name] = content
        return FileRef(name, len(content), zlib.crc32(content))

    async def read(self, ref: FileRef) -> AsyncIterator[bytes]:
        content = self.files.get(ref.name)
        if content is None or zlib.crc32(content) != ref.checksum:
            raise CheckpointDamaged("test", ref.name, "not as it was written")
        yield content

    async def adopt(self, path: str, name: str) -> FileRef:
        raise NotImplementedError

    async def fetch(self, ref: FileRef, path: str) -> None:
        raise NotImplementedError


class StageHarness:
    """One operator in one task. Alarms ring when the test says so, in `ring`.

    Attributes:
        out: (value, timestamp, watermark) of each result, None where there are no such columns.
        aside: the same by tag or port.
    """

    def __init__(
        self,
        cls: type[Stage],
        *,
        function: Any = None,
        kind: str = "keyed_process",
        key: Callable[[Any], Any] = lambda record: record[0],
        options: dict[str, Any] | None = None,
        on_error: Any = None,
        clock: ManualClock | None = None,
        index: int = 0,
        parallelism: int = 1,
    ) -> None:
        self.arguments: dict[str, Any] = {"function": function, "kind": kind, "key": key, "options": options, "on_error": on_error}
        self.cls = cls
        self.number = next(NUMBERS)  # part of file names; an id would be used again
        self.clock = clock or ManualClock()
        self.storage = MemoryStorage()
        self.out: list[tuple[Any, int | None, int | None]] = []
        self.aside: dict[str, list[tuple[Any, int | None, int | None]]] = {}
        self.index, self.parallelism = index, parallelism
        self.alarms: list[Alarm] = []
        self.parts: Sequence[OperatorPart] = ()
        self.checkpoint = 0
        spec = None if function is None else FunctionSpec(kind, function)
        self.operator = Operator(0, kind, "judge", spec, [Edge(0, partition=Partition("hash", key))], options=dict(options or {}))
        self.operator.on_error = on_error
        self.setting = TaskSetting(
            job="test",
            index=index,
            parallelism=parallelism,
            worker=0,
            settings=JobSettings(),
            flat={},
            clock=self.clock,
            random=random.Random(1),
            aside=self._aside,
            flush=self._nothing,
            wake=lambda: None,
            open_state=self._open_state,
            advance_behind=self._never,
            idle_behind=lambda stage: None,
            alarm=self._alarm,
        )
        self.stage = cls([self.operator], self.setting)
        self.counters = self.stage.counters[0]

    async def open(self, parts: Sequence[OperatorPart] = (), storage: MemoryStorage | None = None) -> StageHarness:
        """Open the stage, with what was saved."""
        self.parts = parts
        if storage is not None:
            self.storage = storage
        await self.stage.open()
        return self

    async def feed(self, records: Sequence[Any], stamps: Sequence[int] | None = None, marks: Sequence[int] | None = None) -> None:
        """One batch."""
        columns = (None, None) if stamps is None or marks is None else (list(stamps), list(marks))
        await self.stage.process(Batch(list(records), timestamps=columns[0], watermarks=columns[1]), self._emit)

    async def advance(self, watermark: int) -> None:
        """Event time has come so far."""
        assert await self.stage.advance(watermark, self._emit) == watermark

    async def ring(self) -> bool:
        """Let the alarms ring whose time has come on the clock; says whether there was one."""
        rung = [alarm for alarm in self.alarms if alarm.due <= self.clock.monotonic()]
        self.alarms = [alarm for alarm in self.alarms if alarm not in rung]
        for _ in rung:
            await self.stage.alarm(self._emit)
        return bool(rung)

    async def save(self) -> OperatorPart:
        """Take a snapshot, as at a barrier."""
        self.checkpoint += 1
        await self.stage.prepare(self.checkpoint)
        frozen = self.state.freeze(self.checkpoint)
        return await self.state.write(frozen, self.storage, f"{self.checkpoint}-{self.index}of{self.parallelism}-{self.number}")

    async def restored(self) -> StageHarness:
        """Save, close, and go on with a new stage made from what was saved; results go on being gathered in the same lists."""
        part = await self.save()
        await self.stage.close()
        await self.state.close()
        other = StageHarness(self.cls, clock=self.clock, index=self.index, parallelism=self.parallelism, **self.arguments)
        other.out, other.aside = self.out, self.aside
        return await other.open([part], self.storage)

    def owns(self, key: Any) -> bool:
        """Whether the key belongs to this task."""
        first, last = group_range(self.index, GROUPS, self.parallelism)
        return first <= key_group(key, GROUPS) <= last

    async def close(self) -> None:
        """Close stage and state."""
        await self.stage.close()
        await self.state.close()

    async def _open_state(self, operator: Operator) -> OperatorState:
        self.state = await OperatorState.restore(
            self.parts,
            self.storage,
            uid="judge",
            index=self.index,
            parallelism=self.parallelism,
            groups=GROUPS,
            clock=self.clock,
            operator="judge",
        )
        return self.state

    async def _emit(self, batch: Batch) -> None:
        self.out.extend(rows_of(batch))

    async def _aside(self, operator: int, port: str, batch: Batch) -> None:
        self.aside.setdefault(port.removeprefix("side:"), []).extend(rows_of(batch))

    async def _nothing(self) -> None:
        return

    async def _never(self, stage: Stage, watermark: int) -> None:
        raise AssertionError("this stage has no time of its own")

    def _alarm(self, stage: Stage, seconds: float) -> Cancellable:
        alarm = Alarm(self, self.clock.monotonic() + seconds)
        self.alarms.append(alarm)
        return alarm


class Alarm:
    """One alarm that was asked for."""

    def __init__(self, harness: StageHarness, due: float) -> None:
        self.harness = harness
        self.due = due

    def cancel(self) -> None:
        if self in self.harness.alarms:
            self.harness.alarms.remove(self)


def rows_of(batch: Batch) -> list[tuple[Any, int | None, int | None]]:
    """A batch as rows."""
    nothing = [None] * len(batch)
    return list(zip(batch.values, batch.timestamps or nothing, batch.watermarks or nothing, strict=True))


@pytest.fixture(scope="session")
def harness() -> type[StageHarness]:
    """What stages are tested with."""
    return StageHarness
