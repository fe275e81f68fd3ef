"""Stages with two inputs over real state: written, restored and rescaled at any point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.batch import Batch
from sage_actor._core.stable_hash import key_group, operator_of_group
from sage_actor.dataflow.co_functions import BroadcastContext, BroadcastProcessFunction, KeyedCoProcessFunction, ReadOnlyBroadcastContext
from sage_actor.dataflow.process_functions import KeyedContext
from sage_actor.operators.as_of_join_stage import AsOfJoinStage
from sage_actor.operators.broadcast_stage import BroadcastStage
from sage_actor.operators.co_stage import CoStage
from sage_actor.operators.interval_join_stage import IntervalJoinStage
from sage_actor.operators.join_stage import WindowJoinStage
from sage_actor.operators.session_join_stage import SessionJoinStage
from sage_actor.operators.stages import Stage

if TYPE_CHECKING:
    from conftest import StageHarness

GROUPS = 16
END = 2**63 - 1


class Pairing(KeyedCoProcessFunction[Any, Any, Any]):
    """Counts both sides of a key; a timer tells the balance."""

    def open(self, context: Any) -> None:
        self.balance = context.state.value("balance", default=0)

    def process(self, value: Any, context: KeyedContext, /) -> list[Any]:
        return self._add(1, context)

    def process_second(self, value: Any, context: KeyedContext, /) -> list[Any]:
        return self._add(-1, context)

    def _add(self, amount: int, context: KeyedContext) -> list[Any]:
        self.balance.set(self.balance.get() + amount)
        assert context.timestamp is not None
        context.timers.event_time(context.timestamp // 5 * 5 + 7)
        return []

    def on_timer(self, timestamp: int, context: KeyedContext, /) -> list[Any]:
        return [(context.key, timestamp, self.balance.get())]


class Rules(BroadcastProcessFunction[Any, Any, Any]):
    """Sums the control records; each record of the main stream shows the sum, and how many of its key there were."""

    def open(self, context: Any) -> None:
        self.count = context.state.value("count", default=0)

    def process(self, value: Any, context: ReadOnlyBroadcastContext, /) -> list[Any]:
        self.count.set(self.count.get() + 1)
        return [(value, self.count.get(), context.broadcast.get("sum", 0))]

    def process_broadcast(self, value: Any, context: BroadcastContext, /) -> None:
        context.broadcast["sum"] = context.broadcast.get("sum", 0) + value[1]


CASES: dict[str, tuple[type[Stage], dict[str, Any]]] = {
    "interval": (IntervalJoinStage, {"options": {"lower": -3, "upper": 5}}),
    "window": (WindowJoinStage, {"options": {"size": 8, "every": 4, "offset": 1, "how": "outer"}}),
    "session": (SessionJoinStage, {"options": {"gap": 4, "how": "outer"}}),
    "as of": (AsOfJoinStage, {"options": {"within": 6, "how": "left"}}),
    "co": (CoStage, {"function": Pairing(), "kind": "process", "options": {"form": "process", "keyed": True}}),
    "broadcast": (BroadcastStage, {"function": Rules(), "kind": "process", "options": {"keyed": True}}),
}

Arrival = tuple[int, tuple[str, int, int], int]
"""(side, (key, time, number), watermark before it)"""


async def feed(tasks: Sequence[StageHarness], arrival: Arrival, *, everywhere: bool) -> None:
    """To the task that owns the key; the others learn of the watermark. Control records go everywhere."""
    side, record, mark = arrival
    owner = operator_of_group(key_group(record[0], GROUPS), GROUPS, len(tasks))
    for index, task in enumerate(tasks):
        if index == owner or (everywhere and side == 1):
            batch = Batch([record], keys=[record[0]], timestamps=[record[1]], watermarks=[mark])
            await (task.stage.process if side == 0 else task.stage.process_second)(batch, task._emit)
        else:
            await task.advance(mark)


async def finish(tasks: Sequence[StageHarness]) -> None:
    for task in tasks:
        await task.advance(END)
        await task.close()


@st.composite
def arrivals(draw: st.DrawFn) -> list[Arrival]:
    """Disorder of up to 2 behind a watermark that only moves when all is in: nothing is late."""
    clock = draw(st.integers(-20, 5))
    result: list[Arrival] = []
    for number in range(draw(st.integers(0, 20))):
        clock += draw(st.integers(0, 5))
        result.append((draw(st.integers(0, 1)), (draw(st.sampled_from("abcd")), clock - draw(st.integers(0, 2)), number), clock - 3))
    return [(side, record, max([-(2**63), *(mark for *_, mark in result[:i])])) for i, (side, record, _) in enumerate(result)]


@pytest.mark.rule("F38", "F14")
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.asyncio
async def test_snapshots_and_rescaling_never_show(harness: type[StageHarness], name: str, data: st.DataObject) -> None:
    stage, arguments = CASES[name]
    everywhere = name == "broadcast"
    rows = data.draw(arrivals())
    plans = data.draw(st.dictionaries(st.integers(0, 20), st.integers(1, 3), max_size=4))
    whole = await harness(stage, **arguments).open()
    for row in rows:
        await feed([whole], row, everywhere=everywhere)
    await finish([whole])

    tasks = [await harness(stage, **arguments).open()]
    out: list[Any] = []
    for place, row in enumerate(rows):
        if place in plans:
            tasks = await rescaled(harness, stage, arguments, tasks, plans[place], out)
            for task in tasks:
                if place:
                    await task.advance(rows[place - 1][2])
        await feed(tasks, row, everywhere=everywhere)
    await finish(tasks)
    for task in tasks:
        out += task.out
    assert Counter(map(repr, out)) == Counter(map(repr, whole.out))


async def rescaled(
    harness: type[StageHarness],
    stage: type[Stage],
    arguments: dict[str, Any],
    tasks: Sequence[StageHarness],
    parallelism: int,
    out: list[Any],
) -> list[StageHarness]:
    """Twice a snapshot, so that there is one of what changed, then a new life at another parallelism."""
    parts: list[Any] = []
    files: dict[str, bytes] = {}
    for task in tasks:
        await task.save()
        parts.append(await task.save())
        files |= task.storage.files
        out += task.out
        await task.close()
    fresh: list[StageHarness] = []
    for index in range(parallelism):
        task = harness(stage, index=index, parallelism=parallelism, **arguments)
        task.storage.files |= files
        fresh.append(await task.open(parts))
    return fresh
