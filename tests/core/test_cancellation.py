"""Cancelling at every point, by every means, on both loops: accounts add up and order holds (rule A41)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import pytest
import uvloop

from sage_actor._core.batch_queue import BatchQueue, Gate, QueueStatistics
from sage_actor.errors import MailboxClosed

pytestmark = pytest.mark.rule("A41")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def runner(main: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await main

        return (uvloop.run if request.param == "uvloop" else asyncio.run)(bounded())

    return runner


class Box(Protocol):
    """A queue, or one channel of a gate, of capacity one item: the same tests hold both."""

    async def put(self, item: Any) -> None: ...
    def put_nowait(self, item: Any) -> bool: ...
    async def wait(self) -> bool: ...
    def drain(self) -> list[Any]: ...
    def close(self) -> None: ...
    def statistics(self) -> QueueStatistics: ...


class QueueBox:
    def __init__(self, capacity: int = 1) -> None:
        self.queue = BatchQueue(capacity)

    async def put(self, item: Any) -> None:
        assert await self.queue.put(item)

    def put_nowait(self, item: Any) -> bool:
        return self.queue.put_nowait(item)

    async def wait(self) -> bool:
        return await self.queue.wait()

    def drain(self) -> list[Any]:
        return self.queue.drain(1)

    def close(self) -> None:
        self.queue.close()

    def statistics(self) -> QueueStatistics:
        return self.queue.statistics()


class GateBox:
    def __init__(self, capacity: int = 1) -> None:
        self.gate = Gate(2, capacity=capacity)

    async def put(self, item: Any) -> None:
        await self.gate.put(1, item, 1)

    def put_nowait(self, item: Any) -> bool:
        return self.gate.put_nowait(1, item, 1)

    async def wait(self) -> bool:
        return await self.gate.wait()

    def drain(self) -> list[Any]:
        return [item for _, item in self.gate.drain(1)]

    def close(self) -> None:
        self.gate.close()

    def statistics(self) -> QueueStatistics:
        return self.gate.statistics()


@pytest.fixture(params=[QueueBox, GateBox])
def make(request: pytest.FixtureRequest) -> Callable[[], Box]:
    return request.param


class Scope:
    """One operation that can be cancelled from outside, by `task.cancel()` or by a timeout scope that is made to expire."""

    def __init__(self, operation: Callable[[], Awaitable[Any]], means: str) -> None:
        self.means = means
        self.timeout: asyncio.Timeout | None = None
        self.asked = False
        self.outcome = "cancelled"  # also when that happens before the task has begun
        self.task = asyncio.create_task(self._run(operation))

    async def _run(self, operation: Callable[[], Awaitable[Any]]) -> None:
        try:
            if self.means == "scope":
                async with asyncio.timeout(None) as self.timeout:
                    await operation()
            else:
                await operation()
            self.outcome = "done"
        except (asyncio.CancelledError, TimeoutError):
            self.outcome = "cancelled"
            if self.means != "scope":
                raise

    def cancel(self) -> None:
        if self.means == "scope":
            if self.timeout is not None and not self.task.done() and not self.asked:
                self.asked = True  # an expiring scope cannot be moved again
                self.timeout.reschedule(asyncio.get_running_loop().time() - 1)
        else:
            self.task.cancel()

    async def settled(self) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        return self.outcome


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def assert_accounts_add_up(box: Box) -> None:
    found = box.statistics()
    assert found.accepted == found.taken + found.queued + found.dropped


MEANS = ["raw", "scope"]


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("victim", range(3))
def test_a_put_cancelled_at_any_point_has_put_or_not_and_the_line_goes_on(
    run: Run, make: Callable[[], Box], means: str, before: int, after: int, victim: int
) -> None:
    """`before` turns, then a drain makes room for one, then `after` turns, then the cancellation: all points of three putters' lives."""

    async def main() -> None:
        box = make()
        assert box.put_nowait("first")
        scopes = [Scope(partial(box.put, number), means) for number in range(3)]
        await turns(before)
        taken = box.drain()
        await turns(after)
        scopes[victim].cancel()
        await turns(6)
        while box.statistics().waiting_putters or box.statistics().queued:
            taken += box.drain()
            assert_accounts_add_up(box)
            await turns(3)
        outcomes = [await scope.settled() for scope in scopes]
        done = [number for number, outcome in enumerate(outcomes) if outcome == "done"]
        assert taken == ["first", *done]  # what came out is exactly what was put, in order
        assert set(range(3)) - set(done) <= {victim}
        assert box.statistics().accepted == len(taken)
        assert box.put_nowait("last")  # no claim on the room is left behind

    run(main())


@pytest.mark.parametrize("means", MEANS)
def test_every_pair_of_woken_putters_cancelled_passes_the_wake_on(run: Run, make: Callable[[], Box], means: str) -> None:
    async def main() -> None:
        for victims in itertools.chain(
            itertools.combinations(range(4), 1), itertools.combinations(range(4), 2), itertools.combinations(range(4), 3)
        ):
            box = make()
            box.put_nowait("first")
            scopes = [Scope(partial(box.put, number), means) for number in range(4)]
            await turns(2)
            taken = box.drain()  # wakes the first putter, which has not resumed yet
            for victim in victims:
                scopes[victim].cancel()
            await turns(8)
            while box.statistics().waiting_putters or box.statistics().queued:
                taken += box.drain()
                await turns(3)
            for scope in scopes:
                await scope.settled()
            survivors = [number for number in range(4) if number not in victims]
            assert taken == ["first", *(number for number in range(4) if scopes[number].outcome == "done")]
            assert set(survivors) <= set(taken)
            assert_accounts_add_up(box)

    run(main())


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_a_wait_cancelled_at_any_point_takes_nothing(run: Run, make: Callable[[], Box], means: str, before: int, after: int) -> None:
    async def main() -> None:
        box = make()
        consumer = Scope(box.wait, means)
        await turns(before)
        assert box.put_nowait("item")
        await turns(after)
        consumer.cancel()
        await consumer.settled()
        assert await box.wait()  # the item still wakes whoever asks
        assert box.drain() == ["item"]
        # and the next consumer can be parked and woken
        again = Scope(box.wait, means)
        await turns(3)
        assert box.put_nowait("next")
        assert await again.settled() == "done"
        assert box.drain() == ["next"]
        assert_accounts_add_up(box)

    run(main())


def test_a_consumer_cancelled_together_with_its_successors_wait(run: Run, make: Callable[[], Box]) -> None:
    async def main() -> None:
        box = make()
        old = asyncio.create_task(box.wait())
        await turns(2)
        old.cancel()
        new = asyncio.create_task(box.wait())  # parks before the old one has gone
        await turns(3)
        assert old.cancelled() and not new.done()
        box.put_nowait("item")
        assert await new

    run(main())


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("order", ["close first", "cancel first"])
@pytest.mark.parametrize("woken", [False, True])
def test_closing_and_cancelling_in_the_same_turn(run: Run, make: Callable[[], Box], means: str, order: str, woken: bool) -> None:
    async def main() -> None:
        box = make()
        box.put_nowait("first")
        putters = [Scope(partial(box.put, number), means) for number in range(2)]
        await turns(2)
        taken = box.drain() if woken else []
        for step in sorted([box.close, putters[0].cancel], key=lambda step: (step == box.close) == (order == "cancel first")):
            step()
        outcomes = []
        for putter in putters:
            try:
                outcomes.append(await putter.settled())
            except MailboxClosed:
                outcomes.append("closed")
        assert all(outcome in ("closed", "cancelled") for outcome in outcomes)
        assert outcomes[1] == "closed"
        taken += box.drain()
        assert_accounts_add_up(box)
        assert box.statistics().waiting_putters == 0

    run(main())


def test_two_line_puts_of_one_sender_keep_their_order_when_the_first_is_cancelled_late(run: Run, make: Callable[[], Box]) -> None:
    async def main() -> None:
        box = make()
        box.put_nowait(0)
        first, second = (asyncio.create_task(box.put(number)) for number in (1, 2))
        await turns(2)
        box.drain()
        await turns(1)  # the first has been woken and has put
        first.cancel()
        await turns(3)
        taken: list[Any] = []
        while box.statistics().queued or box.statistics().waiting_putters:
            taken += box.drain()
            await turns(3)
        await second
        assert taken in ([1, 2], [2])
        assert (1 in taken) == (not first.cancelled())

    run(main())


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("seed", range(12))
def test_random_cancellations_of_senders_and_consumers(run: Run, make: Callable[[], Box], means: str, seed: int) -> None:
    """Senders and the consumer are cancelled at random turns and start again: each sender's items arrive once, in order."""
    chance = random.Random(seed)

    async def main() -> None:
        box = make()
        put: dict[int, list[int]] = {sender: [] for sender in range(3)}
        taken: list[tuple[int, int]] = []
        running: dict[int, Scope] = {}
        numbers = dict.fromkeys(range(3), 0)
        consumer: Scope | None = None

        async def collect() -> None:
            await box.wait()
            taken.extend(box.drain())

        for _ in range(200):
            sender = chance.randrange(3)
            scope = running.get(sender)
            if scope is None or scope.task.done():
                if scope is not None and scope.outcome == "done":
                    put[sender].append(numbers[sender])
                numbers[sender] += 1
                running[sender] = Scope(partial(box.put, (sender, numbers[sender])), means)
            elif chance.random() < 0.3:
                scope.cancel()
            if consumer is None or consumer.task.done():
                consumer = Scope(collect, means)
            elif chance.random() < 0.3:
                consumer.cancel()
            await turns(chance.randrange(3))
            assert_accounts_add_up(box)
        if consumer is not None:
            consumer.cancel()
            await consumer.settled()
        while box.statistics().waiting_putters or box.statistics().queued:
            taken.extend(box.drain())
            await turns(3)
        for sender, scope in running.items():
            if await scope.settled() == "done":
                put[sender].append(numbers[sender])
        for sender in range(3):
            assert [number for who, number in taken if who == sender] == put[sender]

    run(main())


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
def test_the_end_of_a_loop_cancels_what_is_parked_and_the_box_works_on_the_next(make: Callable[[], Box], loop_kind: str) -> None:
    runner = uvloop.run if loop_kind == "uvloop" else asyncio.run
    box = make()
    tasks: list[asyncio.Task[None]] = []

    async def leave_putters_parked() -> None:
        box.put_nowait("queued")
        tasks.extend(asyncio.create_task(box.put(number)) for number in range(3))
        await turns(2)

    runner(leave_putters_parked())
    assert all(task.cancelled() for task in tasks)
    assert (box.statistics().queued, box.statistics().waiting_putters) == (1, 0)

    async def use_it_again() -> None:
        assert await box.wait()
        assert box.drain() == ["queued"]
        await box.put("next")
        assert box.drain() == ["next"]
        tasks.append(asyncio.create_task(_ignore(box.wait())))
        await turns(2)

    runner(use_it_again())
    assert box.put_nowait("kept")
    assert box.drain() == ["kept"]
    assert_accounts_add_up(box)


async def _ignore(operation: Awaitable[Any]) -> None:
    await operation


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("woken", [False, True])
def test_a_loop_closed_under_parked_tasks_leaves_no_claim_behind(make: Callable[[], Box], loop_kind: str, woken: bool) -> None:
    """No cancellation at all: the loop stops, is closed, and its tasks are collected while they are still waiting."""
    loop = uvloop.new_event_loop() if loop_kind == "uvloop" else asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending" is the point here
    box = make()
    box.put_nowait("queued")

    async def park() -> None:
        park_tasks.extend(loop.create_task(box.put(number)) for number in range(3))
        await turns(3)
        if woken:
            taken.extend(box.drain())

    park_tasks: list[asyncio.Task[None]] = []
    taken: list[Any] = []
    loop.run_until_complete(park())
    loop.close()
    taken += box.drain()  # may wake putters whose loop is gone

    async def use_it_on_another_loop() -> None:
        async with asyncio.timeout(5):
            await box.put("next")  # not stuck behind the dead
            while taken[-1] != "next":
                await box.wait()
                taken.extend(box.drain())

    asyncio.run(use_it_on_another_loop())
    assert taken in (["queued", "next"], ["queued", 0, "next"])  # the first putter may have had its turn
    assert box.put_nowait("last")
    assert box.drain() == ["last"]
    park_tasks.clear()
    gc.collect()
    assert box.statistics().waiting_putters == 0
    assert_accounts_add_up(box)
