"""How fast is a question and its answer: queued, a hundred in flight, inline, beside a bare future on the same loop?

One case, one JSON object: `detail` has "queued", "in flight" and "inline" for each loop, and `met` says that all of them are met
on both loops. The row shows the one that is furthest from its target.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from functools import partial

import sage_actor as sage
from benchmarks import actor_peers, message_costs
from benchmarks.per_loop import Goal, judge, rates_of
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, on_loop

__all__ = ["measure"]

IN_FLIGHT = 100
PEERS = ("xoscar", "pykka", "thespian", "ray")
GOALS = (
    Goal("queued", "floor", 0.6, "xoscar channel"),
    Goal("in flight", "floor", 1.5, "xoscar channel, 100 in flight"),
    Goal("inline", "floor", 2.0, "xoscar inline", 4.0),
    Goal("from a thread", "floor, from a thread", peer="Pykka ask"),
)


class Counter(sage.Actor):
    """Counts what it is asked to add."""

    def __init__(self) -> None:
        self.n = 0

    def add(self, by: int) -> int:
        self.n += by
        return self.n

    async def add_queued(self, by: int) -> int:
        self.n += by
        return self.n


async def floor(count: int) -> float:
    """A future, set by a callback of the loop, awaited: the least that an answer through the loop can take."""
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, 1)
        await future
    return count / (time.perf_counter() - begun)


async def one_at_a_time(count: int, *, inline: bool) -> float:
    """Each question is answered before the next. Of an idle actor: a plain method answers inline, an async one takes the queue."""
    async with sage.ActorSystem("ask") as system:
        counter = await system.spawn(Counter)
        gc.collect()
        begun = time.perf_counter()
        if inline:
            for _ in range(count):
                await counter.ask(Counter.add, 1)
        else:
            for _ in range(count):
                await counter.ask(Counter.add_queued, 1)
        spent = time.perf_counter() - begun
        assert await counter.ask(Counter.add, 0) == count
    return count / spent


async def in_flight(count: int) -> float:
    """A hundred questions at once, gathered."""
    async with sage.ActorSystem("ask") as system:
        counter = await system.spawn(Counter)
        gc.collect()
        answers: list[int] = []
        begun = time.perf_counter()
        for _ in range(count // IN_FLIGHT):
            answers = await asyncio.gather(*[counter.ask(Counter.add_queued, 1) for _ in range(IN_FLIGHT)])
        spent = time.perf_counter() - begun
        asked = count // IN_FLIGHT * IN_FLIGHT
        assert answers == list(range(asked - IN_FLIGHT + 1, asked + 1)), "an answer is missing, doubled or out of order"
    return asked / spent


async def from_a_thread(count: int) -> float:
    """Another thread asks through the blocking face and waits for each answer; the loop has nothing else to do."""
    async with sage.ActorSystem("ask") as system:
        counter = await system.spawn(Counter)

        def work() -> float:
            begun = time.perf_counter()
            for _ in range(count):
                system.sync.ask(counter, Counter.add, 1)
            return time.perf_counter() - begun

        spent = await asyncio.get_running_loop().run_in_executor(None, work)
        assert await counter.ask(Counter.add, 0) == count
    return count / spent


async def floor_from_a_thread(count: int) -> float:
    """The same with `run_coroutine_threadsafe`."""
    loop = asyncio.get_running_loop()
    total = 0

    async def add(by: int) -> int:
        nonlocal total
        total += by
        return total

    def work() -> float:
        begun = time.perf_counter()
        for _ in range(count):
            asyncio.run_coroutine_threadsafe(add(1), loop).result()
        return time.perf_counter() - begun

    spent = await loop.run_in_executor(None, work)
    assert total == count
    return count / spent


async def costs(count: int) -> dict[str, object]:
    """Percentiles and, on a counting loop, turns; bytes too."""
    async with sage.ActorSystem("ask", mailbox=sage.MailboxSettings(capacity=count)) as system:
        counter = await system.spawn(Counter)

        async def hundred() -> None:
            await asyncio.gather(*[counter.ask(Counter.add_queued, 1) for _ in range(IN_FLIGHT)])

        calls: dict[str, tuple[Callable[[], Awaitable[object]], int]] = {
            "queued": (lambda: counter.ask(Counter.add_queued, 1), 1),
            "in flight": (hundred, IN_FLIGHT),
            "inline": (lambda: counter.ask(Counter.add, 1), 1),
        }
        figures: dict[str, object] = {}
        for name, (call, each) in calls.items():
            if isinstance(asyncio.get_running_loop(), message_costs.Turns):
                figures[name] = await message_costs.turns_each(max(count // each, 20), call, each)
            else:
                figures[name] = await message_costs.latencies(max(count // each, 100), call)
        return figures


async def memory(count: int) -> dict[str, object]:
    """Bytes a question holds until it is answered; beside it a future and its callback."""
    loop = asyncio.get_running_loop()

    def ask_future() -> asyncio.Future[int]:
        future = loop.create_future()
        loop.call_soon(future.set_result, 1)
        return future

    async def all_of(sent: object) -> None:
        for answer in list(sent):  # type: ignore[call-overload]
            await answer

    async with sage.ActorSystem("ask", mailbox=sage.MailboxSettings(capacity=count)) as system:
        counter = await system.spawn(Counter)
        return {
            "queued": await message_costs.bytes_each(count, lambda: counter.ask(Counter.add_queued, 1), all_of),
            "inline": await message_costs.bytes_each(count, lambda: counter.ask(Counter.add, 1), all_of),
            "future and callback": await message_costs.bytes_each(count, ask_future, all_of),
        }


def measure(options: Options) -> Result:
    """Questions answered a second."""
    count = 5_000 if options.short else 200_000
    peers = 1_000 if options.short else 20_000
    runs: dict[str, Callable[[], dict[str, float]]] = {}
    for loop in LOOPS:
        for name, main in {
            "floor": partial(floor, count),
            "queued": partial(one_at_a_time, count, inline=False),
            "in flight": partial(in_flight, count),
            "inline": partial(one_at_a_time, count, inline=True),
            "floor, from a thread": partial(floor_from_a_thread, count // 20),
            "from a thread": partial(from_a_thread, count // 20),
        }.items():
            runs[f"{loop} {name}"] = lambda loop=loop, name=name, main=main: {f"{loop} {name}": on_loop(loop, main)}  # type: ignore[misc]
        runs[f"{loop} xoscar"] = partial(actor_peers.measured, "xoscar_ask", peers, loop)
    runs["Pykka"] = partial(actor_peers.measured, "pykka_ask", peers)
    runs["Thespian"] = partial(actor_peers.measured, "thespian_all", peers // 4)
    if not options.short:
        runs["Ray"] = partial(actor_peers.measured, "ray_ask", peers // 4)
    rates = rates_of(options, runs)
    some = 2_000 if options.short else 20_000
    detail: dict[str, object] = {f"{loop} of one operation": on_loop(loop, partial(costs, some)) for loop in LOOPS}
    detail["turns of the stock loop a message"] = message_costs.counted(partial(costs, some))
    detail["memory a message"] = on_loop("asyncio", partial(memory, 1_000))
    return judge(
        "ask",
        "ask/s",
        options,
        rates,
        GOALS,
        target="of call_soon + future on the same loop: queued 0.6x, 100 in flight 1.5x, inline 2x; inline 4x xoscar inline",
        notes=[
            "queued and in flight: an async method; inline: a plain method of an idle actor; floor: call_soon + future",
            "p50 and p99 in flight are those of a whole gather of 100",
            "from a thread: through system.sync, beside run_coroutine_threadsafe and Pykka, without a target",
            "bytes: held between sending and answer, by tracemalloc, 1000 at once; turns: iterations of the stock loop",
            actor_peers.missing(*PEERS),
            "Ray left out of short runs" if options.short else "",
        ],
        detail=detail,
    )
