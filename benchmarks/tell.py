"""How fast are messages that want no answer, handled one by one, beside a queue with a consumer task?"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks import actor_peers, message_costs
from benchmarks.per_loop import Goal, judge, rates_of
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, on_loop

__all__ = ["measure"]

CAPACITY = 1024


class Sum(sage.Actor):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.sum = 0

    def receive(self, message: int) -> None:
        self.sum += message

    def add(self, by: int) -> None:
        self.sum += by

    def total(self) -> int:
        return self.sum


async def floor(count: int) -> float:
    """asyncio.Queue, put and get, and the same addition."""
    queue: asyncio.Queue[int] = asyncio.Queue(CAPACITY)
    total = 0

    async def consume() -> None:
        nonlocal total
        for _ in range(count):
            total += await queue.get()

    consumer = asyncio.create_task(consume())
    begun = time.perf_counter()
    for i in range(count):
        await queue.put(i)
    await consumer
    spent = time.perf_counter() - begun
    assert total == count * (count - 1) // 2
    return count / spent


async def ours(count: int, way: str) -> float:
    """From the first tell until the last has been handled."""
    async with sage.ActorSystem("tell", mailbox=sage.MailboxSettings(capacity=CAPACITY)) as system:
        ref = await system.spawn(Sum)
        gc.collect()
        begun = time.perf_counter()
        if way == "message":
            for i in range(count):
                await ref.tell(i)
        elif way == "method":
            for i in range(count):
                await ref.tell(Sum.add, i)
        else:
            for i in range(count):
                if i % CAPACITY == 0:
                    await asyncio.sleep(0)  # a full mailbox would raise
                ref.tell_nowait(i)
        total = await ref.ask(Sum.total)
        spent = time.perf_counter() - begun
        assert total == count * (count - 1) // 2, f"{total} instead of {count * (count - 1) // 2}"
    return count / spent


async def memory(count: int) -> dict[str, object]:
    """Bytes that a waiting message holds."""
    async with sage.ActorSystem("tell", mailbox=sage.MailboxSettings(capacity=count)) as system:
        ref = await system.spawn(Sum)
        message = 10**6
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def all_handled(_: object) -> None:
            await ref.ask(Sum.total)

        async def all_got(_: object) -> None:
            while not queue.empty():
                queue.get_nowait()

        return {
            "message": await message_costs.bytes_each(count, lambda: ref.tell_nowait(message), all_handled),
            "method": await message_costs.bytes_each(count, lambda: ref.tell_nowait(Sum.add, message), all_handled),
            "asyncio.Queue": await message_costs.bytes_each(count, lambda: queue.put_nowait(message), all_got),
        }


async def turns(count: int) -> dict[str, float]:
    """Turns of the loop a message, in bursts of a thousand."""
    async with sage.ActorSystem("tell") as system:
        ref = await system.spawn(Sum)

        async def burst() -> None:
            for i in range(1000):
                await ref.tell(i)
            await ref.ask(Sum.total)

        return await message_costs.turns_each(count, burst, 1000)


async def moments(count: int) -> dict[str, float]:
    """How long one tell takes its sender."""
    async with sage.ActorSystem("tell", mailbox=sage.MailboxSettings(capacity=CAPACITY)) as system:
        ref = await system.spawn(Sum)
        return await message_costs.latencies(count, partial(ref.tell, 1))


def measure(options: Options) -> Result:
    """Messages handled a second."""
    count = 20_000 if options.short else 1_000_000
    peers = 1_000 if options.short else 30_000
    runs: dict[str, Callable[[], dict[str, float]]] = {}
    for loop in LOOPS:
        for name, main in {
            "floor": partial(floor, count // 2),
            "tell": partial(ours, count, "message"),
            "tell of a method": partial(ours, count, "method"),
            "tell_nowait": partial(ours, count, "nowait"),
        }.items():
            runs[f"{loop} {name}"] = lambda loop=loop, name=name, main=main: {f"{loop} {name}": on_loop(loop, main)}  # type: ignore[misc]
        runs[f"{loop} xoscar"] = partial(actor_peers.measured, "xoscar_send", peers, loop)
    runs["Pykka"] = partial(actor_peers.measured, "pykka_tell", peers)
    runs["Thespian"] = partial(actor_peers.measured, "thespian_all", peers // 4)
    rates = rates_of(options, runs)
    some = 1_000 if options.short else 100_000
    goals = (Goal("tell", "floor", 4.0, "Pykka tell"), Goal("tell of a method", "floor"), Goal("tell_nowait", "floor"))
    return judge(
        "tell",
        "msg/s",
        options,
        rates,
        goals,
        target="at least 4x asyncio.Queue with a consumer task",
        notes=[
            "handler called for each message; a method with its argument and tell_nowait beside it, without a target",
            "peer: Pykka's tell, the fastest that is queued",
            actor_peers.missing("xoscar", "pykka", "thespian"),
        ],
        detail={
            **{f"{loop} of one tell": on_loop(loop, partial(moments, some)) for loop in LOOPS},
            "turns of the stock loop a message": message_costs.counted(partial(turns, 20)),
            "memory a message": on_loop("asyncio", partial(memory, 1_000)),
        },
    )
