"""One task between the barriers of its channels, driven through its gate (rules F1 to F8, F16 to F20, F43)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable
from random import Random
from typing import Any

import pytest

import sage_actor as sage
from sage_actor._core.batch import BARRIER, END, IDLE, WATERMARK, Batch, Marker
from sage_actor.dataflow.plan import ChannelSpec, make_plan
from sage_actor.dataflow.settings import JobSettings
from sage_actor.runtime.task import Task
from sage_actor.runtime.task_snapshots import SnapshotSetting
from sage_actor.state.parts import FileRef
from sage_actor.testing import Simulation


class Recorder:
    """The sending end of a channel that takes everything and writes it down."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.columns: list[tuple[Any, Any, Any]] = []

    def offer(self, batch: Batch) -> bool:
        self.items.extend(batch.values)
        stamps, marks = batch.timestamps or [None] * len(batch), batch.watermarks or [None] * len(batch)
        self.columns.extend(zip(batch.values, stamps, marks, strict=True))
        return True

    async def put(self, batch: Batch) -> None:
        self.offer(batch)

    def mark(self, marker: Marker) -> None:
        self.items.append((marker.kind, marker.value))
        self.columns.append(((marker.kind, marker.value), None, None))


class Discarding:
    """Storage of parts that keeps nothing."""

    async def write(self, name: str, blocks: AsyncIterable[bytes]) -> FileRef:
        size = 0
        async for block in blocks:
            size += len(block)
        return FileRef(name, size, 0)

    def read(self, ref: FileRef) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def adopt(self, path: str, name: str) -> FileRef:
        raise NotImplementedError

    async def fetch(self, ref: FileRef, path: str) -> None:
        raise NotImplementedError


class Driven:
    """A task with so many input channels, running; what it reports and sends is written down."""

    def __init__(
        self,
        channels: int,
        build: Callable[[sage.DataStream[Any]], sage.DataStream[Any]],
        *,
        mode: str = "exactly_once",
        capacity: int = 1000,
        timed: bool = False,
    ) -> None:
        env = sage.Environment("driven")
        first = env.from_collection([0])
        if timed:
            first = first.assign_timestamps(lambda n: n)
        end = build(first.rebalance()).disable_chaining().sink(lambda _: None)
        settings = JobSettings(buffer_records=capacity, checkpointing=mode or None)
        plan = make_plan(env.graph, [end.operator.id], settings, hosts_in_owner=True)
        spec = next(task for task in plan.tasks if task.inputs and task.outputs)
        spec.inputs = [ChannelSpec(100 + slot, 50 + slot, 0, spec.id, 0, slot, 0, timed) for slot in range(channels)]
        self.reports: list[tuple[str, Any]] = []
        self.reported = asyncio.Event()
        self.out = Recorder()
        self.task = Task(
            spec, job="driven", settings=settings, snapshots=SnapshotSetting(mode=mode, storage=Discarding()), report=self._report
        )
        self.task.connect(lambda _: self.out)
        self.running = asyncio.get_running_loop().create_task(self.task.run())

    async def send(self, channel: int, *values: Any, stamps: list[int] | None = None, marks: list[int] | None = None) -> None:
        batch = Batch(list(values), timestamps=stamps, watermarks=marks)
        await self.task.gate.put(channel, batch, len(values))

    def mark(self, channel: int, kind: int, value: int = 0) -> None:
        self.task.gate.put_marker(channel, Marker(kind, value))

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Its last state is part of a complete checkpoint now."""
        await self.heard("final")
        self.task.complete(10**9)
        await self.running

    def _report(self, kind: str, payload: Any) -> None:
        self.reports.append((kind, payload))
        self.reported.set()
        self.reported = asyncio.Event()

    async def heard(self, kind: str, number: int | None = None) -> None:
        """Wait for such a report, of that checkpoint if one is given; there is none of checkpoint 0."""
        while number != 0 and not any(number is None or found == number for found in self.kinds(kind)):
            await self.reported.wait()

    def kinds(self, kind: str) -> list[Any]:
        return [payload[0] for name, payload in self.reports if name == kind]


def per_checkpoint(items: list[Any]) -> tuple[list[list[Any]], list[int]]:
    """What lies between the barriers, and their numbers."""
    parts: list[list[Any]] = [[]]
    numbers: list[int] = []
    for item in items:
        if item.__class__ is tuple and len(item) == 2 and item[0] == BARRIER:
            numbers.append(item[1])
            parts.append([])
        elif not (item.__class__ is tuple and item[0] in (END, WATERMARK, IDLE) and len(item) == 2):
            parts[-1].append(item)
    return parts, numbers


@pytest.mark.rule("F1")
@pytest.mark.rule("F3")
@pytest.mark.rule("F4")
@pytest.mark.rule("F5")
@pytest.mark.rule("F7")
@pytest.mark.rule("F43")
@pytest.mark.parametrize("capacity", [1, 3, 1000])
@pytest.mark.parametrize("seed", range(25))
def test_each_barrier_parts_what_came_before_it_on_every_channel(seed: int, capacity: int) -> None:
    chance = Random(seed)
    checkpoints = range(1, 5)
    scripts: list[list[Any]] = []
    for channel in range(3):
        script: list[Any] = []
        ends_after = chance.choice([2, 4, 4]) if channel else 4
        for number in checkpoints:
            script += [(channel, number, i) for i in range(chance.randrange(6))]
            if number > ends_after:
                break
            script.append(Marker(BARRIER, number))
        scripts.append(script)

    async def main() -> tuple[list[Any], list[int]]:
        driven = Driven(3, lambda stream: stream.map(lambda value: value), capacity=capacity)

        async def play(channel: int) -> None:
            for item in scripts[channel]:
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                if item.__class__ is Marker:
                    await driven.heard("saved", item.value - 1)  # the next checkpoint begins when the last one is over
                    driven.mark(channel, item.kind, item.value)
                else:
                    await driven.send(channel, item)
            driven.mark(channel, END)

        await asyncio.gather(*(play(channel) for channel in range(3)))
        await driven.finish()
        return driven.out.items, driven.kinds("saved")

    items, saved = Simulation(seed).run(main)
    parts, numbers = per_checkpoint(items)
    assert numbers == [1, 2, 3, 4] == saved
    for number, part in zip([*checkpoints, 5], parts, strict=True):
        for channel in range(3):
            script = scripts[channel]
            sent = [item for item in script if item.__class__ is tuple]
            bounds = [script.index(item) for item in script if item.__class__ is Marker]
            begin = bounds[number - 2] if 0 < number - 1 <= len(bounds) else (0 if number == 1 else len(script))
            end = bounds[number - 1] if number - 1 < len(bounds) else len(script)
            wanted = [item for item in sent if begin <= script.index(item) < end]
            assert [item for item in part if item[0] == channel] == wanted


@pytest.mark.rule("F6")
@pytest.mark.parametrize("seed", range(10))
def test_what_was_given_up_is_forgotten(seed: int) -> None:
    async def main() -> tuple[list[Any], list[int]]:
        driven = Driven(2, lambda stream: stream.map(lambda value: value))
        driven.mark(0, BARRIER, 1)
        await driven.send(0, "a")
        await driven.settle()
        assert "a" not in driven.out.items, "held"
        driven.task.abort(1)
        await driven.settle()
        assert "a" in driven.out.items
        driven.mark(1, BARRIER, 1)  # of what is over
        await driven.send(1, "b")
        driven.mark(0, BARRIER, 2)
        driven.mark(0, BARRIER, 3)  # newer: the channel is not held for 2 any more once this is seen on the other
        await driven.send(0, "c")
        driven.mark(1, BARRIER, 3)
        await driven.settle()
        driven.task.abort(2)
        await driven.settle()
        driven.mark(0, END)
        driven.mark(1, END)
        await driven.finish()
        return driven.out.items, driven.kinds("saved")

    items, saved = Simulation(seed).run(main)
    parts, numbers = per_checkpoint(items)
    assert numbers == saved == [3]
    assert Counter(parts[0]) == Counter(["a", "b"])
    assert parts[1] == ["c"]


@pytest.mark.rule("F9")
def test_at_least_once_holds_nothing() -> None:
    async def main() -> list[Any]:
        driven = Driven(2, lambda stream: stream.map(lambda value: value), mode="at_least_once")
        driven.mark(0, BARRIER, 1)
        await driven.send(0, "a")
        await driven.settle()
        assert "a" in driven.out.items
        driven.mark(1, BARRIER, 1)
        driven.mark(0, END)
        driven.mark(1, END)
        await driven.finish()
        return driven.out.items

    assert (BARRIER, 1) in Simulation(0).run(main)


@pytest.mark.rule("F8")
@pytest.mark.rule("F24")
def test_a_notification_may_be_late_or_lost_and_counts_for_all_before_it() -> None:
    heard: list[int] = []

    async def main() -> list[int]:
        driven = Driven(1, lambda stream: stream.map(lambda value: value))
        driven.task.stages[-1].completed = note  # type: ignore[method-assign]
        for number in (1, 2, 3):
            driven.mark(0, BARRIER, number)
        await driven.settle()
        driven.task.complete(2)
        driven.task.complete(1)  # late
        await driven.settle()
        assert heard == [2]
        driven.mark(0, BARRIER, 4)
        driven.mark(0, END)
        await driven.settle()
        driven.task.complete(4)
        await driven.settle()
        assert not driven.running.done(), "its last state came after 4"
        await driven.finish()
        return driven.kinds("committed")

    async def note(checkpoint: int) -> None:
        heard.append(checkpoint)

    committed = Simulation(0).run(main)
    assert heard == committed == [2, 4, 10**9]


@pytest.mark.rule("F7")
def test_readers_learn_of_the_end_before_the_last_checkpoint() -> None:
    async def main() -> None:
        driven = Driven(1, lambda stream: stream.map(lambda value: value))
        await driven.send(0, "a")
        driven.mark(0, END)
        await driven.settle()
        assert driven.out.items[-1] == (END, 0)
        assert driven.kinds("final") == [1]
        assert not driven.running.done()
        await driven.finish()
        assert driven.task.gate.closed

    Simulation(0).run(main)


@pytest.mark.rule("F16")
@pytest.mark.rule("F17")
@pytest.mark.rule("F20")
@pytest.mark.parametrize("seed", range(25))
def test_results_go_before_the_watermark_that_they_are_due_to(seed: int) -> None:
    """Random batches over three channels through a window: what leaves is never late, and watermarks never fall."""
    chance = Random(seed)

    async def main() -> list[tuple[Any, Any, Any]]:
        driven = Driven(3, lambda stream: stream.window_all(sage.Tumbling(10)).count(), timed=True)
        open_channels = [0, 1, 2]
        times = [0, 0, 0]
        while open_channels:
            channel = chance.choice(open_channels)
            step = chance.random()
            if step < 0.6:
                stamps = [times[channel] + chance.randrange(15) for _ in range(chance.randrange(1, 4))]
                marks, now = [], times[channel]
                for stamp in stamps:
                    marks.append(now)
                    now = max(now, stamp - 1)
                times[channel] = now
                await driven.send(channel, *stamps, stamps=stamps, marks=marks)
            elif step < 0.8:
                driven.mark(channel, WATERMARK, times[channel])
            elif step < 0.9:
                driven.mark(channel, IDLE)
            elif times[channel] > 100:
                driven.mark(channel, END)
                open_channels.remove(channel)
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        await driven.finish()
        return driven.out.columns

    columns = Simulation(seed).run(main)
    highest = -(2**63)
    results = 0
    for item, stamp, mark in columns:
        if stamp is None:
            if item[0] == WATERMARK:
                assert item[1] > highest
                highest = item[1]
            continue
        results += 1
        assert stamp == item.end - 1
        assert stamp > highest, "not late for who reads it"
        assert highest <= mark < stamp
    assert results > 3
    assert highest == 2**63 - 1, "the end of all input is the end of time"
