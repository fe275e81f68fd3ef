"""Event time: windows over readings that come out of order, late ones included, checked against a computation over the whole input.

A few sensors report over a bad line. Most readings are at most 3 s behind newer ones; some are later than that, and a few
hopelessly so. One-minute means are given when event time has passed the minute, again for each reading that comes up to 20 s
late, and what is later still goes to a stream of its own. So nothing is lost: every reading is in a window or in that stream.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from statistics import fmean
from typing import NamedTuple

import sage_actor as sage

MINUTE = 60_000
LATE: sage.OutputTag[Reading] = sage.OutputTag("late")


class Reading(NamedTuple):
    sensor: str
    time: int  # milliseconds since the epoch
    value: float


def readings(number: int) -> list[Reading]:
    """In the order in which they arrive."""
    chance = random.Random(11)
    arriving: list[tuple[int, Reading]] = []
    for i in range(number):
        time = i * 500
        delay = chance.choices((chance.randrange(3_000), chance.randrange(15_000), 200_000), (94, 5, 1))[0]
        arriving.append((time + delay, Reading(f"s{i % 3}", time, round(chance.gauss(20, 4), 2))))
    return [reading for _, reading in sorted(arriving)]


async def main() -> None:
    arrived = readings(3_000)
    async with sage.Environment("late readings") as env:
        keyed = env.from_collection(arrived).assign_timestamps(lambda r: r.time, sage.BoundedDisorder("3s")).key_by(lambda r: r.sensor)
        minutes = keyed.window(sage.Tumbling("1m"))
        means = minutes.allowed_lateness("20s").late_output(LATE).mean(lambda r: r.value)
        updates, late = means.collect(), means.side_output(LATE).collect()
        # A bounded stream can be windowed without a thought about lateness, if it says how late records may be.
        peaks = keyed.window(sage.Sliding("2m", every="1m")).max(lambda r: r.value).collect()
        # Early results: what a window holds every 15 s of event time, and in the end.
        early = minutes.trigger(sage.Continuous("15s")).count().collect()
        job = await env.execute()

    # The latest result of each window is the one that counts; a late reading made another.
    final = {(r.key, r.start): r.value for r in updates}
    assert len(updates) > len(final)

    late_ones = set(late)
    expected: dict[tuple[str, int], list[float]] = defaultdict(list)
    for reading in arrived:
        if reading not in late_ones:
            expected[reading.sensor, reading.time // MINUTE * MINUTE].append(reading.value)
    assert final.keys() == expected.keys()
    assert all(abs(final[window] - fmean(values)) < 1e-9 for window, values in expected.items())

    assert {(r.key, r.start) for r in early} >= {(r.key, r.start) for r in updates if r.value}
    assert all(r.end - r.start == 2 * MINUTE for r in peaks)
    assert min(r.start for r in peaks) == -MINUTE, "windows are aligned at the epoch: the first one began a minute before the first reading"
    print(f"{len(arrived):,} readings in {len(final)} minutes; {len(updates) - len(final)} corrections, {len(late)} too late")
    print(f"counted as late, over all windows: {job.metrics()['late']}")


asyncio.run(main())
