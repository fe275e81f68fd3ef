"""Broadcast state: thresholds that change while the job runs, known to every task.

Measurements are spread over three tasks by key; rules go to all of them. Each task keeps its own copy of the rules as broadcast
state, saved with checkpoints. Nothing is promised about which comes first, a measurement or a rule; so this program offers
the rules first, and measurements only once every task has said that it knows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import sage_actor as sage

TASKS = 3
KNOWN: sage.OutputTag[tuple[int, str]] = sage.OutputTag("known")


class Alerts(sage.BroadcastProcessFunction[tuple[str, float], tuple[str, float], tuple[str, float, float]]):
    def open(self, context: sage.FunctionContext) -> None:
        self.task = context.subtask_index
        self.raised = context.state.value("raised", default=0)

    def process(self, value, context) -> Iterator[tuple[str, float, float]]:
        limit = context.broadcast.get(value[0].partition("-")[0])
        if limit is not None and value[1] > limit:
            self.raised.set(self.raised.get() + 1)
            if self.raised.get() <= 2:  # the state of this key: two alerts per sensor are enough
                yield value[0], value[1], limit

    def process_broadcast(self, value, context) -> None:
        kind, limit = value
        if limit < 0:
            context.broadcast.pop(kind, None)
        else:
            context.broadcast[kind] = limit
        context.output(KNOWN, (self.task, kind))


async def main() -> None:
    rules = [("heat", 100.0), ("noise", 60.0), ("heat", 80.0)]
    known: set[int] = set()
    everybody = asyncio.Event()

    def note(task: tuple[int, str]) -> None:
        if task[1] == "last":
            known.add(task[0])
            if len(known) == TASKS:
                everybody.set()

    async def measurements() -> AsyncIterator[tuple[str, float]]:
        await everybody.wait()
        for i in range(300):
            yield f"{('heat', 'noise', 'dust')[i % 3]}-{i % 9}", float(i % 120)

    async with sage.Environment("changing rules", parallelism=TASKS) as env:
        control = env.from_collection([*rules, ("last", -1.0)])
        data = env.from_source(measurements(), bounded=True).key_by(lambda m: m[0])
        checked = data.connect_broadcast(control, Alerts, name="alerts")
        checked.side_output(KNOWN).sink(note)
        alerts = checked.collect()
        await env.execute()

    limits = {"heat": 80.0, "noise": 60.0}
    expected: dict[str, list[tuple[str, float, float]]] = {}
    for i in range(300):
        sensor, value = f"{('heat', 'noise', 'dust')[i % 3]}-{i % 9}", float(i % 120)
        limit = limits.get(sensor.partition("-")[0])
        if limit is not None and value > limit:
            expected.setdefault(sensor, []).append((sensor, value, limit))
    assert sorted(alerts) == sorted(alert for raised in expected.values() for alert in raised[:2])
    print(f"{len(alerts)} alerts by rules that {TASKS} tasks had learned while the job ran")


asyncio.run(main())
