"""Gate: against a plain model, credit per channel, holding, markers without credit, release callbacks."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sage_actor._core.batch import BARRIER, END, WATERMARK, Marker
from sage_actor._core.batch_queue import Gate
from sage_actor.errors import ActorError, MailboxClosed

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


def assert_accounts_add_up(gate: Gate) -> None:
    found = gate.statistics()
    assert found.accepted == found.taken + found.queued + found.dropped


class Entry:
    def __init__(self, item: Any, records: int, nbytes: int, barrier: bool) -> None:
        self.item, self.records, self.nbytes, self.barrier = item, records, nbytes, barrier


class GateMachine(RuleBasedStateMachine):
    """Without waiting, a gate is a list per channel, a list of ready channels, and a control list."""

    @initialize(channels=st.integers(1, 3), capacity=st.integers(1, 6), capacity_bytes=st.sampled_from([0, 8]))
    def start(self, channels: int, capacity: int, capacity_bytes: int) -> None:
        self.gate = Gate(channels, capacity=capacity, capacity_bytes=capacity_bytes, name="g")
        self.capacity, self.capacity_bytes = capacity, capacity_bytes
        self.queues: list[list[Entry]] = [[] for _ in range(channels)]
        self.ready: list[int] = []
        self.held: set[int] = set()
        self.control: list[Any] = []
        self.released: list[tuple[int, int, int]] = []
        self.expected_released: list[tuple[int, int, int]] = []
        self.accepted = self.taken = self.dropped = self.number = 0
        self.closed = False
        for channel in range(channels):
            self.gate.on_release(channel, lambda records, nbytes, channel=channel: self.released.append((channel, records, nbytes)))

    def weight(self, channel: int) -> tuple[int, int]:
        return sum(entry.records for entry in self.queues[channel]), sum(entry.nbytes for entry in self.queues[channel])

    def add(self, channel: int, entry: Entry) -> None:
        self.queues[channel].append(entry)
        self.accepted += entry.records
        if channel not in self.ready and channel not in self.held:
            self.ready.append(channel)

    @rule(data=st.data(), records=st.integers(0, 8), nbytes=st.sampled_from([0, 1, 5, 20]), receive=st.booleans())
    def put(self, data: st.DataObject, records: int, nbytes: int, receive: bool) -> None:
        channel = data.draw(st.integers(0, len(self.queues) - 1))
        self.number += 1
        if self.closed:
            with pytest.raises(MailboxClosed):
                self.gate.put_nowait(channel, self.number, records, nbytes)
            with pytest.raises(MailboxClosed):
                self.gate.receive(channel, self.number, records, nbytes)
            return
        if receive:
            self.gate.receive(channel, self.number, records, nbytes)
            self.add(channel, Entry(self.number, records, nbytes, False))
            return
        queued, size = self.weight(channel)
        fits = queued + size == 0 or (
            queued + records <= self.capacity and (not self.capacity_bytes or size + nbytes <= self.capacity_bytes)
        )
        assert self.gate.put_nowait(channel, self.number, records, nbytes) == fits
        if fits:
            self.add(channel, Entry(self.number, records, nbytes, False))

    @rule(data=st.data(), kind=st.sampled_from([END, WATERMARK, BARRIER]))
    def put_marker(self, data: st.DataObject, kind: int) -> None:
        channel = data.draw(st.integers(0, len(self.queues) - 1))
        if self.closed:
            with pytest.raises(MailboxClosed):
                self.gate.put_marker(channel, Marker(kind))
            return
        self.number += 1
        marker = Marker(kind, self.number)
        self.gate.put_marker(channel, marker)
        self.add(channel, Entry(marker, 0, 0, kind == BARRIER))

    @rule()
    def put_control(self) -> None:
        if self.closed:
            with pytest.raises(MailboxClosed):
                self.gate.put_control("c")
            return
        self.number += 1
        self.gate.put_control(self.number)
        self.control.append(self.number)

    @rule(limit=st.integers(0, 12))
    def drain(self, limit: int) -> None:
        expected: list[tuple[int, Any]] = [(-1, item) for item in self.control]
        self.control.clear()
        stopped: list[int] = []
        freed: dict[int, tuple[int, int]] = {}
        some, total = False, 0
        while self.ready:
            channel = self.ready[0]
            entry = self.queues[channel][0]
            if some and (total >= limit or total + entry.records > limit):
                break
            some = True
            self.ready.pop(0)
            self.queues[channel].pop(0)
            total += entry.records
            records, nbytes = freed.get(channel, (0, 0))
            freed[channel] = (records + entry.records, nbytes + entry.nbytes)
            expected.append((channel, entry.item))
            if self.queues[channel]:
                (stopped if entry.barrier else self.ready).append(channel)
        self.ready += stopped
        self.taken += total
        self.expected_released += [(channel, *credit) for channel, credit in freed.items() if sum(credit)]
        assert self.gate.drain(limit) == expected

    @rule(data=st.data(), hold=st.booleans())
    def hold_or_release(self, data: st.DataObject, hold: bool) -> None:
        channel = data.draw(st.integers(0, len(self.queues) - 1))
        if hold:
            self.gate.hold(channel)
            self.held.add(channel)
            if channel in self.ready:
                self.ready.remove(channel)
        else:
            self.gate.release(channel)
            self.held.discard(channel)
            if self.queues[channel] and channel not in self.ready:
                self.ready.append(channel)

    @rule()
    def close(self) -> None:
        if self.number % 7 == 0:
            self.gate.close()
            self.closed = True
            self.dropped += sum(entry.records for queue in self.queues for entry in queue)
            self.queues = [[] for _ in self.queues]
            self.ready.clear()
            self.control.clear()

    @invariant()
    def accounts(self) -> None:
        if not hasattr(self, "gate"):
            return
        weights = [self.weight(channel) for channel in range(len(self.queues))]
        found = self.gate.statistics()
        assert (found.accepted, found.taken, found.dropped) == (self.accepted, self.taken, self.dropped)
        assert self.gate.depth == found.queued == sum(records for records, _ in weights)
        assert self.gate.depth_bytes == found.queued_bytes == sum(nbytes for _, nbytes in weights)
        assert self.released == self.expected_released
        for channel in range(len(self.queues)):
            assert self.gate.credit(channel) >= 0
        assert_accounts_add_up(self.gate)


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_gate_that_cannot_work_and_channels_it_has_not_are_refused() -> None:
    for make in (lambda: Gate(-1), lambda: Gate(1, capacity=0), lambda: Gate(1, capacity_bytes=-1)):
        with pytest.raises(ActorError):
            make()
    gate = Gate(2, name="g")
    for call in (
        lambda: gate.put_nowait(2, "a", 1),
        lambda: gate.put_nowait(-1, "a", 1),
        lambda: gate.put_marker(2, Marker(END)),
        lambda: gate.receive(-1, "a", 1),
        lambda: gate.hold(2),
        lambda: gate.release(2),
        lambda: gate.credit(2),
        lambda: gate.put_nowait(0, "a", -1),
        lambda: gate.receive(0, "a", 1, -1),
    ):
        with pytest.raises(ActorError):
            call()


def test_a_gate_without_channels_takes_control_only(run: Run) -> None:
    async def main() -> None:
        gate = Gate(0)
        waiter = asyncio.create_task(gate.wait())
        await turns()
        gate.put_control("go")
        assert await waiter
        assert gate.drain() == [(-1, "go")]
        gate.close()
        assert not await gate.wait()

    run(main())


def test_credit_counts_records_bytes_and_the_line(run: Run) -> None:
    async def main() -> None:
        gate = Gate(2, capacity=10, capacity_bytes=100)
        assert gate.credit(0) == 10
        gate.put_nowait(0, "a", 4, 10)
        assert (gate.credit(0), gate.credit(1)) == (6, 10)
        gate.receive(0, "b", 1, 90)
        assert gate.credit(0) == 0
        gate.receive(1, "c", 25)
        assert gate.credit(1) == 0
        waiting = asyncio.create_task(gate.put(1, "d", 1))
        await turns()
        gate.drain()
        assert gate.credit(1) == 0  # whoever waits goes first
        await waiting
        assert gate.credit(1) == 9

    run(main())


@pytest.mark.rule("F1", "F5")
@pytest.mark.rule("F43")
def test_a_barrier_ends_its_channels_part_of_a_drain_so_that_it_can_be_held() -> None:
    gate = Gate(2)
    for channel in range(2):
        gate.put_nowait(channel, "before", 1)
        gate.put_marker(channel, Marker(WATERMARK, 1))
        gate.put_marker(channel, Marker(BARRIER, 1))
        gate.put_nowait(channel, "after", 1)
    gate.hold(1)
    assert gate.drain() == [(0, "before"), (0, Marker(WATERMARK, 1)), (0, Marker(BARRIER, 1))]
    gate.hold(0)
    assert gate.drain() == []
    gate.release(1)
    assert gate.drain()[-1] == (1, Marker(BARRIER, 1))
    gate.release(0)
    assert gate.drain() == [(1, "after"), (0, "after")]


def test_a_held_channel_does_not_wake_the_consumer(run: Run) -> None:
    async def main() -> None:
        gate = Gate(2)
        gate.hold(0)
        waiter = asyncio.create_task(gate.wait())
        await turns()
        gate.put_nowait(0, "held", 1)
        await turns()
        assert not waiter.done()
        gate.release(0)
        assert await waiter
        assert gate.drain() == [(0, "held")]

    run(main())


def test_waiting_senders_of_one_channel_are_served_in_order_and_channels_do_not_wait_for_each_other(run: Run) -> None:
    async def main() -> None:
        gate = Gate(2, capacity=2)
        done: list[str] = []

        async def put(channel: int, name: str, records: int) -> None:
            await gate.put(channel, name, records)
            done.append(name)

        tasks = [asyncio.create_task(put(0, name, records)) for name, records in [("a", 2), ("b", 2), ("c", 1), ("d", 1), ("big", 9)]]
        await turns()
        assert (done, gate.statistics().waiting_putters) == (["a"], 4)
        assert not gate.put_nowait(0, "x", 0)
        assert gate.put_nowait(1, "y", 2)
        seen: list[Any] = []
        while len(seen) < 6:
            await gate.wait()
            seen += gate.drain(2)
            assert_accounts_add_up(gate)
        await asyncio.gather(*tasks)
        assert [item for channel, item in seen if channel == 0] == done == ["a", "b", "c", "d", "big"]

    run(main())


def test_a_woken_sender_whose_room_a_remote_one_took_keeps_its_place(run: Run) -> None:
    async def main() -> None:
        gate = Gate(1, capacity=2)
        gate.put_nowait(0, "first", 2)
        tasks = [asyncio.create_task(gate.put(0, name, records)) for name, records in [("a", 2), ("b", 1)]]
        await turns()
        seen = gate.drain()  # wakes "a", and ...
        gate.receive(0, "remote", 1)  # ... takes its room before it resumes
        await turns()
        assert gate.statistics().waiting_putters == 2  # nor did "b", for which there is room, overtake
        while len(seen) < 4:
            await gate.wait()
            seen += gate.drain(1)
            await turns()
        await asyncio.gather(*tasks)
        assert [item for _, item in seen] == ["first", "remote", "a", "b"]
        assert_accounts_add_up(gate)

    run(main())


def test_closing_drops_what_is_queued_and_wakes_everyone(run: Run) -> None:
    async def main() -> None:
        gate = Gate(1, capacity=1, name="task inbox")
        gate.put_nowait(0, "a", 3)
        gate.put_control("c")
        putter = asyncio.create_task(gate.put(0, "b", 1))
        await turns()
        gate.close()
        with pytest.raises(MailboxClosed, match="task inbox"):
            await putter
        assert not await gate.wait()
        assert (gate.drain(), gate.depth, gate.statistics().dropped) == ([], 0, 3)

        gate = Gate(1)
        waiter = asyncio.create_task(gate.wait())
        await turns()
        gate.close()
        assert await waiter is False

    run(main())


@pytest.mark.rule("F43")
@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda channels: st.lists(
            st.lists(st.one_of(st.integers(1, 5), st.sampled_from(["watermark", "barrier"])), max_size=8),
            min_size=channels,
            max_size=channels,
        )
    ),
    st.integers(1, 3),
)
@pytest.mark.rule("F1", "F5")
def test_aligned_barriers_never_deadlock_at_capacity_one(scripts: list[list[Any]], barriers: int) -> None:
    """Each sender puts batches, watermarks and the same number of barriers; the consumer aligns: nothing hangs, nothing is lost."""

    async def main() -> None:
        count = len(scripts)
        gate = Gate(count, capacity=1)

        async def send(channel: int) -> None:
            script = [step for step in scripts[channel] if step != "barrier"]
            size = max(len(script) // barriers, 1)
            for number in range(barriers):
                for step in script[number * size : (number + 1) * size if number < barriers - 1 else len(script)]:
                    if step == "watermark":
                        gate.put_marker(channel, Marker(WATERMARK, 0))
                    else:
                        await gate.put(channel, number, step)
                gate.put_marker(channel, Marker(BARRIER, number))
            gate.put_marker(channel, Marker(END))

        senders = [asyncio.create_task(send(channel)) for channel in range(count)]
        epoch, arrived, ended = 0, set[int](), 0
        while ended < count:
            assert await gate.wait()
            for channel, item in gate.drain(1):
                if not isinstance(item, Marker):
                    assert item == epoch  # no record passes a barrier, in either direction
                elif item.kind == BARRIER:
                    assert item.value == epoch
                    gate.hold(channel)
                    arrived.add(channel)
                    if len(arrived) == count:
                        epoch += 1
                        arrived.clear()
                        for each in range(count):
                            gate.release(each)
                elif item.kind == END:
                    ended += 1
        await asyncio.gather(*senders)
        assert (epoch, gate.depth) == (barriers, 0)
        assert_accounts_add_up(gate)

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


def test_credit_is_given_back_once_a_drain() -> None:
    gate = Gate(2, capacity=100)
    calls: list[tuple[int, int, int]] = []
    gate.on_release(0, lambda records, nbytes: calls.append((0, records, nbytes)))
    for number in range(5):
        gate.receive(0, number, 2, 10)
        gate.receive(1, number, 2, 10)
    gate.put_marker(0, Marker(WATERMARK, 1))
    gate.drain()
    gate.put_marker(0, Marker(WATERMARK, 1))
    gate.drain()
    assert calls == [(0, 10, 50)]


def test_a_gate_leaves_no_references_behind() -> None:
    items = [object() for _ in range(40)]
    before = [sys.getrefcount(item) for item in items]
    for _ in range(3):
        gate = Gate(3, capacity=100)
        for number, item in enumerate(items):
            gate.put_nowait(number % 3, item, 1)
        gate.hold(1)
        gate.put_control(items[0])
        taken = gate.drain(10)
        assert len(taken) == 11
        gate.drain()
        gate.put_nowait(0, items[0], 1)
        gate.close()
        del gate, taken, item
    assert [sys.getrefcount(item) for item in items] == before


def test_a_failing_release_callback_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    def fail(records: int, nbytes: int) -> None:
        raise LookupError("gone")

    gate = Gate(1)
    gate.on_release(0, fail)
    gate.receive(0, "a", 1)
    assert gate.drain() == [(0, "a")]
    assert [type(entry.exc_value) for entry in reported] == [LookupError]


def test_a_release_callback_may_use_the_gate() -> None:
    gate = Gate(1, capacity=1)
    gate.on_release(0, lambda records, nbytes: gate.receive(0, "next", 1))
    gate.receive(0, "first", 1)
    assert gate.drain() == [(0, "first")]
    assert gate.drain() == [(0, "next")]


def test_control_from_threads_arrives_in_order_before_data(run: Run) -> None:
    async def main() -> None:
        gate = Gate(1)
        gate.put_nowait(0, "data", 1)
        gate.hold(0)

        def send() -> None:
            for number in range(200):
                gate.put_control_threadsafe(number)

        thread = threading.Thread(target=send)
        thread.start()
        seen: list[Any] = []
        while len(seen) < 200:
            await gate.wait()
            seen += gate.drain()
        thread.join()
        assert seen == [(-1, number) for number in range(200)]
        gate.release(0)
        gate.put_control_threadsafe("last")
        assert gate.drain() == [(-1, "last"), (0, "data")]
        gate.close()
        with pytest.raises(MailboxClosed):
            gate.put_control_threadsafe("late")

    run(main())
