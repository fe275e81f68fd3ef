"""The mailbox inspector against what was sent, and against a simple model."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor.testing import Simulation, Waiting, mailbox_of


class Worker(sage.Actor):
    def __init__(self, go: asyncio.Event) -> None:
        self.go = go

    async def hold(self) -> None:
        await self.go.wait()

    def add(self, number: int, *, twice: bool = False) -> int:
        return number

    def receive(self, message: object) -> object:
        if message == "stash":
            self.context.stash()
        return message


@pytest.mark.asyncio
async def test_waiting_messages_are_seen_in_order_and_undisturbed() -> None:
    go = asyncio.Event()
    async with sage.ActorSystem("t") as system:
        worker = await system.spawn(Worker, go, name="worker")
        await worker.tell("stash")
        await worker.tell(Worker.hold)
        for _ in range(4):
            await asyncio.sleep(0)
        await worker.tell("plain")
        await worker.tell(Worker.add, 1, twice=True)
        asked, given_up = worker.ask(Worker.add, 2), worker.ask("question")
        given_up.cancel()
        seen = mailbox_of(worker)
        assert list(seen) == [
            Waiting("plain"),
            Waiting((1,), "add", {"twice": True}),
            Waiting((2,), "add", asked=True),
            Waiting("question", asked=True, given_up=True),
        ]
        assert [waiting.arguments for waiting in seen] == [("plain",), (1,), (2,), ("question",)]
        assert len(seen) == seen.statistics.queued == 4
        assert (seen.path, seen.statistics.stashed, seen.statistics.in_hand) == ("worker", 1, 1)
        assert str(seen).splitlines() == [
            "mailbox of 'worker' (running): 4 wait, 1 in hand, 1 stashed",
            "  'plain'",
            "  add(1, twice=True)",
            "  ask add(2)",
            "  ask 'question', given up",
        ]
        go.set()
        assert await asked == 2
        assert len(seen) == 4  # a view of one moment
        assert len(mailbox_of(worker)) == 0


@pytest.mark.asyncio
async def test_the_least_priority_number_stands_first() -> None:
    go = asyncio.Event()
    async with sage.ActorSystem("t") as system:
        worker = await system.spawn(Worker, go, mailbox=sage.MailboxSettings(priority=lambda message: 0 if message == "urgent" else 1))
        await worker.tell(Worker.hold)
        for _ in range(4):
            await asyncio.sleep(0)
        for message in ("one", "urgent", "two"):
            await worker.tell(message)
        assert [waiting.message for waiting in mailbox_of(worker).waiting] == ["urgent", "one", "two"]
        go.set()


@pytest.mark.asyncio
async def test_the_mailbox_of_an_ended_actor_is_empty_and_its_counts_remain() -> None:
    async with sage.ActorSystem("t") as system:
        worker = await system.spawn(Worker, asyncio.Event())
        await worker.tell("one")
        await system.stop(worker)
        seen = mailbox_of(worker)
        assert (len(seen), seen.statistics.state, seen.statistics.handled) == (0, "stopped", 1)


@given(
    seed=st.integers(0, 1000),
    capacity=st.integers(1, 4),
    overflow=st.sampled_from(["drop_new", "drop_old"]),
    numbers=st.lists(st.integers(), max_size=8),
)
def test_against_a_list(seed: int, capacity: int, overflow: str, numbers: list[int]) -> None:
    async def main() -> None:
        go = asyncio.Event()
        async with sage.ActorSystem("t") as system:
            mailbox = sage.MailboxSettings(capacity=capacity, overflow=overflow)  # type: ignore[arg-type]
            worker = await system.spawn(Worker, go, mailbox=mailbox)
            await worker.tell(Worker.hold)
            while not mailbox_of(worker).statistics.in_hand:  # noqa: ASYNC110 - a schedule decides how many turns that takes
                await asyncio.sleep(0)
            for number in numbers:
                worker.tell_nowait(number)
            kept = numbers[:capacity] if overflow == "drop_new" else numbers[-capacity:] if numbers else []
            assert [waiting.message for waiting in mailbox_of(worker)] == kept
            go.set()

    Simulation(seed).run(main)
