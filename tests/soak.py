"""A soak of the actor system: random spawns, tells, asks, cancellations, failures, restarts, stops and kills, on both loops.

    python tests/soak.py [--seconds 600] [--seed N] [--round 10]

Rounds alternate between stock asyncio and uvloop; each has a system of its own. Ten times a second every living actor, and at its
end every actor, must satisfy accepted = handled + dead_lettered + queued + stashed + in_hand (A41). After a round no task, no actor,
no cell and no ask may be left, and memory must not grow from round to round. Exit status 1 if anything of that fails.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sage_actor as sage
from sage_actor._core.actor_cell import Cell
from sage_actor._core.batch_queue import Overflow
from sage_actor._core.reply import Reply
from sage_actor.actor.lifecycle import Lifecycle
from sage_actor.actor.statistics import statistics_of
from sage_actor.actor.supervisor_scope import Exhausted, Scope

DRIVERS = 24
LIVING = 120  # about so many actors at a time
GROWTH = 24 << 20  # bytes of resident memory that rounds may add after the second


class Expected(Exception):
    """An answer that is an error."""


class Worker(sage.Actor):
    """Does a bit of everything."""

    expected_errors = (Expected,)

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.n = 0

    async def on_start(self) -> None:
        if self.chance.random() < 0.05:
            await asyncio.sleep(0)
        if self.chance.random() < 0.2:
            self.context.timers.every("beat", 0.01, self.beat)

    def receive(self, message: object) -> object:
        self.n += 1
        if message == "stash" and self.chance.random() < 0.5:
            self.context.stash()
        elif self.chance.random() < 0.3:
            self.context.unstash()
        return message

    def beat(self) -> None:
        self.n += 1

    def add(self, by: int) -> int:
        self.n += by
        return self.n

    async def slow(self, turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return self.n

    @sage.interruptible
    async def long(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return self.n

    @sage.blocking
    def block(self) -> int:
        return sum(range(1000))

    def fail(self) -> None:
        raise ValueError("on purpose")

    async def fail_later(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("on purpose, later")

    def refuse(self) -> None:
        raise Expected("no")

    async def parent_of(self, count: int) -> int:
        for _ in range(count):
            await self.context.spawn(Worker, self.chance)
        return len(self.context.children)

    async def forward(self, other: sage.ActorRef[Worker]) -> int:
        return await other.ask(Worker.slow, 2, timeout=0.5)


OVERFLOWS: tuple[Overflow, ...] = ("wait", "wait", "fail", "drop_new", "drop_old")
STRATEGIES: list[Callable[[], Any]] = [
    lambda: sage.FixedDelay(attempts=50, delay=0.0),
    lambda: sage.FixedDelay(attempts=5, delay=0.01),
    lambda: sage.ExponentialDelay(attempts=4, delay=0.005, max_delay=0.05),
    lambda: sage.NoRestart(),
]
EXHAUSTED: tuple[Exhausted, ...] = ("stop", "escalate")
SCOPES: tuple[Scope, ...] = ("one_for_one", "all_for_one", "rest_for_one")


class Round:
    """One system under load."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.refs: list[sage.ActorRef[Worker]] = []
        self.broken: list[str] = []
        self.ended = 0

    async def run(self, seconds: float) -> None:
        async with sage.ActorSystem("soak", stop_timeout=2.0) as system:
            self.system = system
            deadline = time.monotonic() + seconds
            drivers = [asyncio.create_task(self.drive(deadline)) for _ in range(DRIVERS)]
            while time.monotonic() < deadline:
                await system.clock.sleep(0.1)
                for lifecycle in system.everyone():
                    self.check(lifecycle)
            await asyncio.gather(*drivers)
        self.counts["failures"] = system.failures
        self.counts["restarts"] = system.restarts
        self.counts["dead letters"] = system.dead_letters.total
        if system.living:
            self.broken.append(f"{system.living} actors live on in a system that has ended")
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            self.broken.append(f"{len(left)} tasks are left: {left[:3]}")

    def check(self, lifecycle: Lifecycle) -> None:
        counts = statistics_of(lifecycle)
        places = counts.handled + counts.dead_lettered + counts.queued + counts.stashed + counts.in_hand
        if counts.accepted != places:
            self.broken.append(f"A41 broken: {counts}")

    async def spawn(self) -> None:
        chance = self.chance
        mailbox = sage.MailboxSettings(capacity=chance.choice((1, 2, 8, 64)), overflow=chance.choice(OVERFLOWS), stash_capacity=8)
        supervision = sage.Supervision(
            scope=chance.choice(SCOPES), intensity=chance.choice((None, 3)), when_exhausted=chance.choice(EXHAUSTED)
        )
        ref = await self.system.spawn(
            Worker,
            chance,
            mailbox=mailbox,
            restart=chance.choice(STRATEGIES)(),
            supervision=supervision,
            concurrency=chance.choice((1, 1, 1, 3)),
            reentrant=chance.random() < 0.2,
            passivate_after=chance.choice((None, None, 0.05)),
        )
        self.refs.append(ref)
        watch = self.system.watch(ref)
        watch.add_done_callback(lambda done: self.gone(ref) if not done.cancelled() else None)

    def gone(self, ref: sage.ActorRef[Worker]) -> None:
        self.refs.remove(ref)
        self.ended += 1
        self.check(ref.cell.lifecycle)

    async def drive(self, deadline: float) -> None:
        chance = self.chance
        while time.monotonic() < deadline:
            if len(self.refs) < LIVING and chance.random() < 0.3:
                await self.spawn()
            if not self.refs:
                continue
            ref = chance.choice(self.refs)
            action = chance.choices(ACTIONS, WEIGHTS)[0]
            try:
                await action(self, ref)
                self.counts[action.__name__] += 1
            except (TimeoutError, sage.ActorError, Expected) as error:
                self.counts[type(error).__name__] += 1
            await asyncio.sleep(0)

    async def tell(self, ref: sage.ActorRef[Worker]) -> None:
        for number in range(self.chance.randrange(20)):
            async with asyncio.timeout(0.2):
                await ref.tell(self.chance.choice((number, "stash", None)))

    async def tell_nowait(self, ref: sage.ActorRef[Worker]) -> None:
        for number in range(self.chance.randrange(8)):
            ref.tell_nowait(Worker.add, number)

    async def ask(self, ref: sage.ActorRef[Worker]) -> None:
        await ref.ask(Worker.add, 1, timeout=1)

    async def ask_many(self, ref: sage.ActorRef[Worker]) -> None:
        await asyncio.gather(*(ref.ask(Worker.slow, self.chance.randrange(4), timeout=1) for _ in range(10)), return_exceptions=True)

    async def ask_through(self, ref: sage.ActorRef[Worker]) -> None:
        await ref.ask(Worker.forward, self.chance.choice(self.refs), timeout=1)

    async def ask_and_cancel(self, ref: sage.ActorRef[Worker]) -> None:
        replies = [ref.ask(Worker.long, 0.02, timeout=0.5), ref.ask(Worker.slow, 3, timeout=0.5)]
        for _ in range(self.chance.randrange(6)):
            await asyncio.sleep(0)
        for reply in replies:
            reply.cancel()

    async def cancel_task(self, ref: sage.ActorRef[Worker]) -> None:
        async def both() -> None:
            async with asyncio.timeout(0.5):
                await ref.tell("hello")
                await ref.ask(Worker.slow, 2)

        task = asyncio.create_task(both())
        for _ in range(self.chance.randrange(6)):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, sage.ActorError, TimeoutError):
            await task

    async def short_deadline(self, ref: sage.ActorRef[Worker]) -> None:
        await ref.ask(Worker.long, 0.05, timeout=0.01)

    async def fail(self, ref: sage.ActorRef[Worker]) -> None:
        await ref.tell(self.chance.choice((Worker.fail, Worker.fail_later)))

    async def refuse(self, ref: sage.ActorRef[Worker]) -> None:
        await ref.ask(Worker.refuse, timeout=1)

    async def family(self, ref: sage.ActorRef[Worker]) -> None:
        await ref.ask(Worker.parent_of, self.chance.randrange(3), timeout=1)

    async def block(self, ref: sage.ActorRef[Worker]) -> None:
        await ref.ask(Worker.block, timeout=2)

    async def stop(self, ref: sage.ActorRef[Worker]) -> None:
        await self.system.stop(ref, drain=self.chance.random() < 0.5, timeout=0.5)

    async def kill(self, ref: sage.ActorRef[Worker]) -> None:
        await self.system.kill(ref)


ACTIONS = [
    Round.tell, Round.tell_nowait, Round.ask, Round.ask_many, Round.ask_through, Round.ask_and_cancel, Round.cancel_task,
    Round.short_deadline, Round.fail, Round.refuse, Round.family, Round.block, Round.stop, Round.kill,
]  # fmt: skip
WEIGHTS = [20, 10, 20, 6, 6, 6, 6, 3, 6, 3, 2, 1, 2, 1]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def leftovers() -> list[str]:
    gc.collect()
    gc.collect()
    kinds: Counter[str] = Counter(
        type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, Cell | Reply | Lifecycle | Worker)
    )
    return [f"{number} {kind} are left in memory" for kind, number in kinds.items()]


def loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    import uvloop

    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--round", type=float, default=10.0)
    given = parser.parse_args()
    logging.getLogger("sage_actor").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    seed = random.SystemRandom().randrange(1 << 30) if given.seed is None else given.seed
    total: Counter[str] = Counter()
    broken: list[str] = []
    begun, number, baseline, ended = time.monotonic(), 0, 0, 0
    factories = loop_factories()
    while number < 2 or time.monotonic() - begun < given.seconds - 0.5:
        name = ("asyncio", "uvloop")[number % 2]
        load = Round(seed + number)
        seconds = min(given.round, max(1.0, given.seconds - (time.monotonic() - begun) if number else given.seconds / 4))
        with asyncio.Runner(loop_factory=factories[name]) as runner:
            runner.run(load.run(seconds))
        total.update(load.counts)
        ended += load.ended
        broken += [f"round {number} (seed {seed + number}, {name}): {problem}" for problem in load.broken[:5]]
        del load
        broken += [f"round {number} (seed {seed + number}, {name}): {problem}" for problem in leftovers()]
        number += 1
        if number == 2:
            baseline = resident()
        print(f"{time.monotonic() - begun:6.0f} s  round {number} on {name}: {sum(total.values()):,} operations, "
              f"{ended:,} actors ended, {resident() >> 20} MiB, {len(broken)} problems", flush=True)  # fmt: skip
    if resident() - baseline > GROWTH:
        broken.append(f"memory grew by {(resident() - baseline) >> 20} MiB after the second round")
    print(", ".join(f"{what} {count:,}" for what, count in total.most_common()))
    for problem in broken[:20]:
        print(f"soak: {problem}", file=sys.stderr)
    print(f"{number} rounds from seed {seed}, {len(broken)} problems")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
