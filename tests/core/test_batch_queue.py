"""BatchQueue: against a plain model, every overflow policy, waiting in line, closing, threads."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sage_actor._core.batch_queue import BatchQueue, Overflow
from sage_actor.errors import ActorError, MailboxClosed, MailboxFull

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def runner(main: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await main

        return (uvloop.run if request.param == "uvloop" else asyncio.run)(bounded())

    return runner


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def assert_accounts_add_up(queue: BatchQueue) -> None:
    found = queue.statistics()
    assert found.accepted == found.taken + found.queued + found.dropped


class QueueMachine(RuleBasedStateMachine):
    """Without waiting, a queue is two lists, two bounds and a policy."""

    @initialize(
        capacity=st.integers(1, 4),
        capacity_bytes=st.sampled_from([0, 0, 1, 10]),
        overflow=st.sampled_from(["wait", "fail", "drop_new", "drop_old"]),
    )
    def start(self, capacity: int, capacity_bytes: int, overflow: Overflow) -> None:
        self.queue = BatchQueue(capacity, capacity_bytes=capacity_bytes, overflow=overflow, name="m")
        self.capacity, self.capacity_bytes, self.overflow = capacity, capacity_bytes, overflow
        self.items: list[tuple[int, int]] = []
        self.control: list[str] = []
        self.closed = False
        self.accepted = self.taken = self.dropped = self.number = 0

    def fits(self, nbytes: int) -> bool:
        if not self.items:
            return True
        total = sum(size for _, size in self.items) + nbytes
        return len(self.items) < self.capacity and (not self.capacity_bytes or total <= self.capacity_bytes)

    @rule(nbytes=st.sampled_from([0, 1, 4, 20]))
    def put(self, nbytes: int) -> None:
        self.number += 1
        item = self.number
        if self.closed:
            with pytest.raises(MailboxClosed):
                self.queue.put_nowait(item, nbytes)
        elif self.fits(nbytes):
            assert self.queue.put_nowait(item, nbytes)
            self.items.append((item, nbytes))
            self.accepted += 1
        elif self.overflow == "wait":
            assert not self.queue.put_nowait(item, nbytes)
        elif self.overflow == "fail":
            with pytest.raises(MailboxFull):
                self.queue.put_nowait(item, nbytes)
        elif self.overflow == "drop_new":
            assert not self.queue.put_nowait(item, nbytes)
            self.accepted += 1
            self.dropped += 1
        else:
            assert self.queue.put_nowait(item, nbytes)
            while not self.fits(nbytes):
                self.items.pop(0)
                self.dropped += 1
            self.items.append((item, nbytes))
            self.accepted += 1

    @rule(item=st.text(max_size=2))
    def put_control(self, item: str) -> None:
        if self.closed:
            with pytest.raises(MailboxClosed):
                self.queue.put_control(item)
        else:
            self.queue.put_control(item)
            self.control.append(item)

    @rule(limit=st.integers(-1, 6))
    def drain(self, limit: int) -> None:
        amount = max(min(limit, len(self.items)), 0)
        assert self.queue.drain(limit) == self.control + [item for item, _ in self.items[:amount]]
        self.control.clear()
        del self.items[:amount]
        self.taken += amount

    @rule()
    def close(self) -> None:
        if self.number % 5 == 0:
            self.queue.close()
            self.closed = True

    @invariant()
    def accounts(self) -> None:
        if not hasattr(self, "queue"):
            return
        found = self.queue.statistics()
        assert (found.accepted, found.taken, found.dropped) == (self.accepted, self.taken, self.dropped)
        assert (found.queued, found.control) == (len(self.items), len(self.control))
        assert found.queued_bytes == sum(size for _, size in self.items)
        assert len(self.queue) == len(self.items) + len(self.control)
        assert self.queue.closed == self.closed
        assert_accounts_add_up(self.queue)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_items_that_hold_their_queue_are_collected_with_it() -> None:
    class Message:
        queue: BatchQueue | None = None

    queue = BatchQueue()
    messages = [Message() for _ in range(20)]
    for message in messages:
        message.queue = queue
        queue.put_nowait(message)
    gone = weakref.ref(messages[-1])
    del queue, message, messages
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("overflow", ["wait", "drop_new", "drop_old"])
def test_a_queue_leaves_no_references_behind(overflow: Overflow) -> None:
    items = [object() for _ in range(40)]
    before = [sys.getrefcount(item) for item in items]
    for _ in range(3):
        queue = BatchQueue(20, overflow=overflow)
        for item in items:
            queue.put_nowait(item)
        queue.put_control(items[0])
        queue.put_threadsafe(items[1])
        taken = queue.drain(15)
        assert len(taken) == 16
        del queue, taken, item
    assert [sys.getrefcount(item) for item in items] == before


def test_a_queue_that_cannot_work_is_refused() -> None:
    unknown: Any = "explode"
    for make in (lambda: BatchQueue(0), lambda: BatchQueue(1, capacity_bytes=-1), lambda: BatchQueue(1, overflow=unknown)):
        with pytest.raises(ActorError):
            make()
    with pytest.raises(ActorError, match="negative"):
        BatchQueue(1).put_nowait("a", -1)


def test_one_wait_is_woken_once_by_a_burst(run: Run) -> None:
    async def main() -> None:
        queue = BatchQueue()
        waiter = asyncio.create_task(queue.wait())
        await turns()
        for number in range(5):
            queue.put_nowait(number)
        assert await waiter
        assert queue.drain() == [0, 1, 2, 3, 4]

    run(main())


def test_get_batch_takes_at_most_the_limit_and_ends_empty(run: Run) -> None:
    async def main() -> None:
        queue = BatchQueue()
        for number in range(5):
            queue.put_nowait(number)
        queue.close()
        assert [await queue.get_batch(2) for _ in range(4)] == [[0, 1], [2, 3], [4], []]
        assert not await queue.wait()

    run(main())


def test_closing_wakes_the_consumer_and_the_putters(run: Run) -> None:
    async def main() -> None:
        queue = BatchQueue(1, name="mail")
        waiter = asyncio.create_task(queue.wait())
        await turns()
        queue.close()
        assert await waiter is False
        queue = BatchQueue(1, name="mail")
        queue.put_nowait("a")
        putters = [asyncio.create_task(queue.put(item)) for item in "bc"]
        await turns()
        assert queue.statistics().waiting_putters == 2
        queue.close()
        assert [type(found) for found in await asyncio.gather(*putters, return_exceptions=True)] == [MailboxClosed] * 2
        assert queue.drain() == ["a"]
        assert queue.statistics().waiting_putters == 0

    run(main())


def test_a_second_waiting_consumer_is_refused(run: Run) -> None:
    async def main() -> None:
        queue = BatchQueue()
        waiter = asyncio.create_task(queue.wait())
        await turns()
        with pytest.raises(ActorError, match="already has a consumer"):
            await queue.wait()
        queue.put_nowait("a")
        assert await waiter

    run(main())


def test_waiting_putters_are_served_in_order_and_nobody_overtakes(run: Run) -> None:
    async def main() -> None:
        queue = BatchQueue(2)
        done: list[int] = []

        async def put(number: int) -> None:
            assert await queue.put(number)
            done.append(number)

        tasks = [asyncio.create_task(put(number)) for number in range(8)]
        await turns()
        assert done == [0, 1]
        taken = queue.drain()
        assert not queue.put_nowait("overtaker")  # there is room, but a line waits for it
        while len(taken) < 8:
            await queue.wait()
            if queue.statistics().waiting_putters:
                assert not queue.put_nowait("overtaker")
            taken += queue.drain(1)
            assert_accounts_add_up(queue)
        await asyncio.gather(*tasks)
        assert taken == done == list(range(8))
        assert queue.put_nowait("late")

    run(main())


def test_an_oversized_item_waits_for_an_empty_queue_and_passes(run: Run) -> None:
    async def main() -> None:
        queue = BatchQueue(10, capacity_bytes=10)
        assert queue.put_nowait("small", 4)
        big = asyncio.create_task(queue.put("big", 100))
        await turns()
        assert not queue.put_nowait("later", 1)
        assert queue.drain() == ["small"]
        await big
        assert (queue.drain(), queue.statistics().queued_bytes) == (["big"], 0)

    run(main())


@pytest.mark.parametrize(
    ("overflow", "answers", "left"), [("drop_new", [True, True, False], ["a", "b"]), ("drop_old", [True] * 3, ["b", "c"])]
)
def test_dropping_queues_never_wait(run: Run, overflow: Overflow, answers: list[bool], left: list[str]) -> None:
    async def main() -> None:
        queue = BatchQueue(2, overflow=overflow)
        assert [await queue.put(item) for item in "abc"] == answers
        assert queue.drain() == left
        assert queue.statistics().dropped == 1

    run(main())


@pytest.mark.rule("A41")
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 4))
def test_everything_put_by_many_comes_out_in_each_ones_order(capacity: int, sizes: list[int], limit: int) -> None:
    async def main() -> None:
        queue = BatchQueue(capacity)

        async def send(sender: int, size: int) -> None:
            for number in range(size):
                await queue.put((sender, number))

        tasks = [asyncio.create_task(send(sender, size)) for sender, size in enumerate(sizes)]
        taken: list[tuple[int, int]] = []
        while len(taken) < sum(sizes):
            taken += await queue.get_batch(limit)
        await asyncio.gather(*tasks)
        assert queue.drain() == []
        for sender, size in enumerate(sizes):
            assert [number for who, number in taken if who == sender] == list(range(size))

    asyncio.run(main())


# ------------------------------------------------------------------- threads


@pytest.mark.rule("A41")
def test_puts_from_threads_all_arrive_in_each_threads_order(run: Run) -> None:
    senders, each = 4, 500

    async def main() -> None:
        queue = BatchQueue(8)

        def send(sender: int) -> None:
            for number in range(each):
                queue.put_threadsafe((sender, number))

        threads = [threading.Thread(target=send, args=(sender,)) for sender in range(senders)]
        for thread in threads:
            thread.start()
        taken: list[tuple[int, int]] = []
        while len(taken) < senders * each:
            taken += await queue.get_batch(100)
        for thread in threads:
            thread.join()
        for sender in range(senders):
            assert [number for who, number in taken if who == sender] == list(range(each))
        assert_accounts_add_up(queue)

    run(main())


def test_puts_from_threads_wait_for_a_consumer_that_comes_later(run: Run) -> None:
    queue = BatchQueue(1)  # made where no loop runs
    thread = threading.Thread(target=lambda: [*map(queue.put_threadsafe, range(3))])
    thread.start()
    thread.join()

    async def main() -> Any:
        return await queue.get_batch()

    assert run(main()) == [0, 1, 2]
    queue.put_threadsafe("after that loop has closed")
    assert run(main()) == ["after that loop has closed"]


@pytest.mark.parametrize(("overflow", "left"), [("wait", [0, 1, 2]), ("fail", [0]), ("drop_new", [0]), ("drop_old", [2])])
def test_what_a_thread_hands_over_meets_the_policy(run: Run, overflow: Overflow, left: list[int]) -> None:
    async def main() -> None:
        queue = BatchQueue(1, overflow=overflow)
        for number in range(3):
            queue.put_threadsafe(number)
        assert await queue.wait()
        assert queue.drain() == left
        found = queue.statistics()
        assert (found.accepted, found.taken, found.dropped) == (3, len(left), 3 - len(left))

    run(main())


def test_a_closed_queue_refuses_threads_and_keeps_what_they_handed_over() -> None:
    queue = BatchQueue()
    queue.put_threadsafe("in time")
    queue.close()
    with pytest.raises(MailboxClosed):
        queue.put_threadsafe("late")
    assert queue.drain() == ["in time"]
