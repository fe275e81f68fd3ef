"""How fast do messages travel around a ring of a thousand actors, one alone and a hundred at once?"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks.per_loop import Goal, judge, rates_of
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, on_loop

__all__ = ["measure"]

SIZE = 1000
TOKENS = 100
HOPS_OF_FLOOR = 5
"""The floor sends a fifth of the messages: it takes so much longer."""


class Finish:
    """Counts tokens that have come to rest, and hops made."""

    def __init__(self, tokens: int) -> None:
        self.left = tokens
        self.hops = 0
        self.reached = asyncio.get_running_loop().create_future()

    def rest(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached.set_result(None)


class Node(sage.Actor):
    """Passes a token on until it has made its hops."""

    next: sage.ActorRef[Node]

    def __init__(self, finish: Finish) -> None:
        self.finish = finish
        self.seen = 0

    def connect(self, following: sage.ActorRef[Node]) -> None:
        self.next = following

    def receive(self, hops: int) -> None:
        self.seen += 1
        if hops > 1:
            self.next.tell_nowait(hops - 1)
        else:
            self.finish.rest()

    def count(self) -> int:
        return self.seen


class AsyncNode(Node):
    """The same with an async handler that awaits its tell."""

    async def receive(self, hops: int) -> None:  # type: ignore[override]
        self.seen += 1
        if hops > 1:
            await self.next.tell(hops - 1)
        else:
            self.finish.rest()


async def ours(kind: type[Node], size: int, messages: int, tokens: int) -> float:
    """Messages a second; every node must have seen its part."""
    async with sage.ActorSystem("ring") as system:
        finish = Finish(tokens)
        nodes = [await system.spawn(kind, finish) for _ in range(size)]
        for index, node in enumerate(nodes):
            await node.ask(Node.connect, nodes[(index + 1) % size])
        gc.collect()
        begun = time.perf_counter()
        for token in range(tokens):
            nodes[token * size // tokens].tell_nowait(messages // tokens)
        await finish.reached
        spent = time.perf_counter() - begun
        assert sum([await node.ask(Node.count) for node in nodes]) == messages
    return messages / spent


async def floor(size: int, messages: int, tokens: int) -> float:
    """An asyncio.Queue and a task for each node."""
    finish = Finish(tokens)
    queues = [asyncio.Queue[int]() for _ in range(size)]

    async def node(inbox: asyncio.Queue[int], outbox: asyncio.Queue[int]) -> None:
        while True:
            hops = await inbox.get()
            finish.hops += 1
            if hops > 1:
                outbox.put_nowait(hops - 1)
            else:
                finish.rest()

    tasks = [asyncio.create_task(node(queues[index], queues[(index + 1) % size])) for index in range(size)]
    await asyncio.sleep(0)
    gc.collect()
    begun = time.perf_counter()
    for token in range(tokens):
        queues[token * size // tokens].put_nowait(messages // tokens)
    await finish.reached
    spent = time.perf_counter() - begun
    assert finish.hops == messages
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return messages / spent


def measure(options: Options) -> Result:
    """Messages a second."""
    size = 100 if options.short else SIZE
    messages = 10_000 if options.short else 1_000_000
    runs: dict[str, Callable[[], dict[str, float]]] = {}
    for loop in LOOPS:
        for name, main in {
            "floor, one token": partial(floor, size, messages // HOPS_OF_FLOOR, 1),
            "one token": partial(ours, Node, size, messages, 1),
            "floor, 100 tokens": partial(floor, size, messages // HOPS_OF_FLOOR, TOKENS),
            "100 tokens": partial(ours, Node, size, messages, TOKENS),
            "one token, async handler": partial(ours, AsyncNode, size, messages // HOPS_OF_FLOOR, 1),
            "100 tokens, async handler": partial(ours, AsyncNode, size, messages // HOPS_OF_FLOOR, TOKENS),
        }.items():
            runs[f"{loop} {name}"] = lambda loop=loop, name=name, main=main: {f"{loop} {name}": on_loop(loop, main)}  # type: ignore[misc]
    goals = (
        Goal("one token", "floor, one token", 1.0),
        Goal("100 tokens", "floor, 100 tokens", 1.0),
        Goal("one token, async handler", "floor, one token"),
        Goal("100 tokens, async handler", "floor, 100 tokens"),
    )
    return judge(
        "ring",
        "msg/s",
        options,
        rates_of(options, runs),
        goals,
        target="1 M messages around 1,000 actors, each handled, at least as fast as asyncio.Queue and a task a node",
        notes=[f"{messages:,} messages around {size:,} actors, plain handlers; the floor and async handlers send a fifth of them"],
    )
