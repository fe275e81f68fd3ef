"""What a message costs besides time: bytes while it is under way, and turns of the event loop until it is dealt with."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from typing import TypeVar, TypeVarTuple, Unpack

__all__ = ["Turns", "bytes_each", "counted", "latencies", "turns_each"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Turns(asyncio.SelectorEventLoop):
    """The stock loop, counting: iterations, and callbacks handed to `call_soon`."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.callbacks = 0

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        self.callbacks += 1
        return super().call_soon(callback, *args, context=context)

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


def counted(main: Callable[[], Coroutine[object, object, R]]) -> R:
    """Run on a stock loop that counts, as a `Turns`."""
    with asyncio.Runner(loop_factory=Turns) as runner:
        return runner.run(main())


async def turns_each(count: int, messages: Callable[[], Awaitable[object]], per_call: int = 1) -> dict[str, float]:
    """Iterations of the loop and `call_soon`s a message; on a loop made by `counted`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Turns)
    await messages()
    turns, callbacks = loop.turns, loop.callbacks
    for _ in range(count):
        await messages()
    total = count * per_call
    return {"loop_turns": (loop.turns - turns) / total, "call_soons": (loop.callbacks - callbacks) / total}


async def latencies(count: int, call: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """p50 and p99 of one awaited call in microseconds, the clock's own cost included."""
    taken: list[int] = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        await call()
        taken.append(time.perf_counter_ns() - begun)
    taken.sort()
    return {"p50_us": taken[count // 2] / 1e3, "p99_us": taken[int(count * 0.99)] / 1e3}


async def bytes_each(count: int, send: Callable[[], object], settle: Callable[[Sequence[object]], Awaitable[object]]) -> dict[str, float]:
    """What a message holds from its sending until it is dealt with.

    `count` messages are sent without a turn of the loop between them: what tracemalloc and `sys.getallocatedblocks` see grow
    by then, divided by the count, is what each holds (with what its sender holds of it). `settle` then waits for all of them.
    Twice, and the second time counts, so that buffers which stay are there already. `left_bytes` is what outlives the messages.
    """
    figures: dict[str, float] = {}
    for _ in range(2):
        kept: list[object] = [None] * count
        gc.collect()
        gc.disable()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        blocks = sys.getallocatedblocks()
        for index in range(count):
            kept[index] = send()
        held_blocks = sys.getallocatedblocks() - blocks
        held = tracemalloc.get_traced_memory()[0] - before
        await settle(kept)
        peak = tracemalloc.get_traced_memory()[1] - before
        kept.clear()
        left = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        gc.enable()
        figures = {
            "bytes_in_flight": held / count,
            "blocks_in_flight": held_blocks / count,
            "peak_bytes": peak / count,
            "left_bytes": max(0, left) / count,
        }
    return figures
