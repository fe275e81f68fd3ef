"""Keyed state and timers: devices that fall silent, and how long they were up before.

A process function keeps, for each device, when it was last heard and since when it has been up, and sets a timer of event time
five minutes ahead of each report. A timer that finds a newer report does nothing; one that does not, raises an alarm. A report's own
time counts only behind it, so one that comes after a long silence may be there before the timer: it raises the alarm itself.

Reports that make no sense go to a side output. State and timers are part of checkpoints: here the function dies once in the middle,
the job starts again from the last checkpoint, and the alarms are those of an unbroken run.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import NamedTuple

import sage_actor as sage

SILENCE, HOUR = 5 * 60_000, 3_600_000
ODD: sage.OutputTag[Report] = sage.OutputTag("odd")
died: list[str] = []


class Report(NamedTuple):
    device: str
    time: int
    battery: int


class Alarm(NamedTuple):
    device: str
    last_heard: int
    up_for: int
    lowest: int


class Silence(sage.KeyedProcessFunction[Report, Alarm]):
    def open(self, context: sage.FunctionContext) -> None:
        self.last = context.state.value("last heard", default=-1)
        self.since = context.state.value("up since", default=-1)
        self.lowest = context.state.reducing("lowest battery", min)

    def process(self, value: Report, context: sage.KeyedContext) -> Iterator[Alarm]:
        if value.battery > 100:
            context.output(ODD, value)
            return
        if value.time > 2 * HOUR and not died:
            died.append(value.device)
            raise ConnectionError("something breaks, once")
        if 0 <= self.last.get() < value.time - SILENCE:
            yield self.alarm(context.key)
        if self.since.get() < 0:
            self.since.set(value.time)
        self.last.set(max(self.last.get(), value.time))
        self.lowest.add(value.battery)
        context.timers.event_time(value.time + SILENCE)

    def on_timer(self, timestamp: int, context: sage.KeyedContext) -> Iterator[Alarm]:
        if self.last.get() + SILENCE == timestamp:
            yield self.alarm(context.key)

    def alarm(self, device: str) -> Alarm:
        last = self.last.get()
        raised = Alarm(device, last, last - self.since.get(), self.lowest.get() or 0)
        for state in (self.last, self.since, self.lowest):
            state.clear()
        return raised


def reports() -> list[Report]:
    """Ten devices, each of which is up and silent by turns."""
    chance = random.Random(5)
    made: list[Report] = []
    for device in range(10):
        time = chance.randrange(60_000)
        while time < 4 * HOUR:
            made.append(Report(f"d{device}", time, chance.choice((20, 50, 80, 200))))
            time += chance.choices((chance.randrange(1_000, SILENCE // 2), chance.randrange(2 * SILENCE, 5 * SILENCE)), (9, 1))[0]
    return sorted(made, key=lambda report: report.time)


def expected(made: list[Report]) -> list[Alarm]:
    alarms: list[Alarm] = []
    for device in {report.device for report in made}:
        run: list[Report] = []
        for report in [*(r for r in made if r.device == device and r.battery <= 100), None]:
            if run and (report is None or report.time > run[-1].time + SILENCE):
                alarms.append(Alarm(device, run[-1].time, run[-1].time - run[0].time, min(r.battery for r in run)))
                run = []
            if report is not None:
                run.append(report)
    return sorted(alarms)


async def line(report: Report) -> Report:
    await asyncio.sleep(0.001)  # reports come by and by
    return report


async def main() -> None:
    made = reports()
    # Small batches and buffers: the source must not be far ahead of the function that fails.
    config = {"checkpoint.every": 100, "restart.delay": "1ms", "batch.records": 20, "buffer.records": 20}
    async with sage.Environment("silent devices", parallelism=2, config=config) as env:
        timed = env.from_collection(made).map_async(line, concurrency=1).assign_timestamps(lambda r: r.time, sage.Monotonic())
        alarms = timed.key_by(lambda r: r.device).process(Silence, name="silence")
        raised, odd = alarms.collect(), alarms.side_output(ODD).collect()
        job = await env.execute()
    assert sorted(raised) == expected(made)
    assert sorted(odd) == sorted(report for report in made if report.battery > 100)
    assert job.attempts == 2
    assert job.restored_from is not None
    print(f"{len(made)} reports, {len(odd)} of them odd, {len(raised)} alarms; restored from checkpoint {job.restored_from}")


asyncio.run(main())
