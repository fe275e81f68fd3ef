"""How much memory do ten thousand idle actors take?"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks import actor_peers
from benchmarks.memory import tree_mib
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop

__all__ = ["measure"]

LIMIT = 60.0
WARM = 100


class One:
    """A plain object with one attribute."""

    def __init__(self, n: int) -> None:
        self.n = n


class Plain(sage.Actor):
    """One attribute, and a plain method that is asked for it."""

    def __init__(self, n: int) -> None:
        self.n = n

    def get(self) -> int:
        return self.n


class Async(sage.Actor):
    """One attribute, and an async method that has waited once."""

    def __init__(self, n: int) -> None:
        self.n = n

    async def get(self) -> int:
        await asyncio.sleep(0)
        return self.n


def grown(before: float) -> float:
    """Bytes that this process has grown by since, garbage collected."""
    gc.collect()
    return (tree_mib() - before) * 2**20


async def actors(count: int, kind: type[Plain] | type[Async]) -> float:
    """Resident bytes of so many actors, spawned and asked once each; what the first few bring along counts before."""
    async with sage.ActorSystem("idle") as system:
        some = [await system.spawn(kind, i) for i in range(WARM)]
        for ref in some:
            await ref.ask(kind.get)
        gc.collect()
        before = tree_mib()
        refs = [await system.spawn(kind, i) for i in range(count)]
        for i, ref in enumerate(refs):
            assert await ref.ask(kind.get) == i
        return grown(before)


async def tasks(count: int) -> float:
    """As many tasks, each waiting for an asyncio.Queue of its own."""

    async def idle(queue: asyncio.Queue[int]) -> int:
        return await queue.get()

    before = tree_mib()
    waiting = [asyncio.create_task(idle(asyncio.Queue())) for _ in range(count)]
    await asyncio.sleep(0)
    taken = grown(before)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return taken


async def objects(count: int) -> float:
    """As many plain objects in a list."""
    before = tree_mib()
    kept = [One(i) for i in range(count)]
    taken = grown(before)
    assert len(kept) == count
    return taken


MAINS: dict[str, Callable[[int], object]] = {
    "plain": lambda count: actors(count, Plain),
    "async": lambda count: actors(count, Async),
    "tasks": tasks,
    "objects": objects,
}


def fresh(what: str, count: int, loop: str) -> float:
    """MB in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.actors_memory", what, str(count), loop]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout)) / 1e6


def measure(options: Options) -> Result:
    """MB of resident memory that the actors add to a process."""
    count = 1_000 if options.short else 10_000
    threads = 50 if options.short else 300
    runs: dict[str, Callable[[], float]] = {"objects": partial(fresh, "objects", count, "asyncio")}
    for loop in LOOPS:
        for what in ("plain", "async", "tasks"):
            runs[f"{loop} {what}"] = partial(fresh, what, count, loop)
    missing = actor_peers.missing("pykka")
    if not missing:
        runs["Pykka"] = lambda: actor_peers.measured("pykka_memory", threads)["Pykka"] * count / 1e6
    taken = {name: median(values) for name, values in interleaved(min(options.rounds, 3), runs).items()}
    of_actors = {name: size for name, size in taken.items() if name.endswith(("plain", "async"))}
    worst = max(of_actors, key=lambda name: of_actors[name])
    peer = taken.get("Pykka")
    return Result(
        "actors_memory",
        "MB",
        taken[worst],
        taken["objects"],
        peer,
        taken["objects"] / taken[worst],
        None if peer is None else peer / taken[worst],
        f"10,000 idle actors under {LIMIT:g} MB",
        None if options.short else taken[worst] < LIMIT,
        f"{count:,} actors with one attribute, each asked once; shown: {worst}, the largest; floor: plain objects; "
        + (missing or f"peer: Pykka, a thread each, {threads} of them scaled to {count:,}")
        + ("; short run: not judged" if options.short else ""),
        {f"{name}, bytes each": size * 1e6 / count for name, size in taken.items()},
    )


if __name__ == "__main__":
    main, amount, on = MAINS[sys.argv[1]], int(sys.argv[2]), sys.argv[3]
    print(json.dumps(on_loop(on, lambda: main(amount))))  # type: ignore[arg-type, return-value]
