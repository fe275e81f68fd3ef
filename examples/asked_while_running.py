"""Queries and final results: what a job knows can be asked while it runs, and what it has made final is read exactly once.

Sales come in; one branch keeps totals per shop, which `job.query` reads from outside, another one gives them back to the program.
`async for` over the stream itself would give them at once, and after a restart some of them again; over `committed()`
each comes with the checkpoint that makes it final. A function fails once on the way, so the job really restarts.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import sage_actor as sage

SHOPS = ("north", "south", "east")
failed: list[int] = []


async def arrive(sale: tuple[int, str, int]) -> tuple[int, str, int]:
    await asyncio.sleep(0.001)
    return sale


def check(sale: tuple[int, str, int]) -> tuple[int, str, int]:
    if sale[0] > 600 and not failed:
        failed.append(sale[0])
        raise ConnectionError("the till is gone, once")
    return sale


async def main() -> None:
    chance = random.Random(4)
    sales = [(number, chance.choice(SHOPS), chance.randrange(1, 50)) for number in range(1, 1_001)]
    config = {"checkpoint.every": 150, "restart.delay": "1ms", "batch.records": 20, "buffer.records": 20}
    async with sage.Environment("sales", config=config) as env:
        arriving = env.from_collection(sales).map_async(arrive, concurrency=1).map(check, name="check")
        totals = arriving.key_by(lambda sale: sale[1]).sum(lambda sale: sale[2], name="totals")
        final: list[tuple[str, int]] = []
        seen_live: list[int] = []
        async for shop, total in totals.committed():
            final.append((shop, total))
            job = env.jobs[0]
            if len(final) == 100:
                # The live state is ahead of what is final, and may be taken back by a failure.
                seen_live.append(await job.query("totals", "fold", "north", 0))
                assert await job.query("totals", "fold", "nowhere", default=0) == 0

    expected: list[tuple[str, int]] = []
    sums: Counter[str] = Counter()
    for _, shop, amount in sales:
        sums[shop] += amount
        expected.append((shop, sums[shop]))
    assert final == expected, "each update once, in order, although the job was restarted"
    assert job.attempts == 2
    assert seen_live[0] >= max(total for shop, total in final[:100] if shop == "north")
    print(f"{len(final)} final updates over {job.attempts} attempts, from checkpoint {job.restored_from}; asked on the way: {seen_live[0]}")


asyncio.run(main())
